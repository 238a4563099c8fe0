"""Bricks of DeepSeek's line: latent attention, its indexer, and routed experts beside a shared one.

Source: transformers 5.23, models/{deepseek_v3,deepseek_v32,glm_moe_dsa}/.
"""

from dataclasses import dataclass

from kvplan.core.errors import UnsupportedError
from kvplan.core.mixers import LatentAttention
from kvplan.core.model import Weight
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import column, experts, gated_mlp, norm, replicated, row

MLP_KINDS = ("sparse", "dense")


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentHeads:
    """The sizes of latent attention's projections."""

    num_heads: int
    query_rank: int | None
    """Width of the compressed query; None = queries are not compressed."""
    latent: int
    nope: int
    rope: int
    value: int

    @property
    def key(self) -> int:
        """Width of one expanded key, and of one query."""
        return self.nope + self.rope


def read_latent(facts: Facts, *, value: int | None = None, prefix: str = "") -> LatentHeads:
    """The sizes under their usual keys, each after `prefix`; `value` stands for an unstated `v_head_dim`.

    `q_lora_rank` of null means that queries are not compressed.
    """
    key = f"{prefix}q_lora_rank"
    rank = facts.nullable(key) if facts.states(key) or facts.knows(key) else None
    if rank == 0:
        raise facts.wrong(key, rank, "a number from 1, or null")
    stated = value is None or facts.has(f"{prefix}v_head_dim")
    return LatentHeads(
        num_heads=facts.positive(f"{prefix}num_attention_heads"),
        query_rank=rank,
        latent=facts.positive(f"{prefix}kv_lora_rank"),
        nope=facts.positive(f"{prefix}qk_nope_head_dim"),
        rope=facts.integer(f"{prefix}qk_rope_head_dim"),
        value=facts.positive(f"{prefix}v_head_dim") if stated or value is None else value,
    )


def latent_mixer(
    heads: LatentHeads, *, index_dim: int = 0, index_pool: int = 0, window: int | None = None
) -> LatentAttention:
    """The mixer with these sizes; with `index_dim` it keeps an indexer's keys too."""
    return LatentAttention(
        num_heads=heads.num_heads,
        latent_dim=heads.latent,
        rope_dim=heads.rope,
        key_dim=heads.key,
        value_dim=heads.value,
        window=window,
        index_dim=index_dim,
        index_pool=index_pool,
    )


def latent_attention(
    heads: LatentHeads, hidden: int, *, bias: bool = False, prefix: str = "self_attn"
) -> tuple[Weight, ...]:
    """All projections: the compressions are whole on every rank, the expansions cut by heads."""
    return (
        *latent_query(heads, hidden, bias=bias, prefix=prefix),
        *latent_keys(heads, hidden, bias=bias, prefix=prefix),
        *latent_output(heads, hidden, bias=bias, prefix=prefix),
    )


def latent_query(
    heads: LatentHeads, hidden: int, *, bias: bool = False, prefix: str = "self_attn"
) -> tuple[Weight, ...]:
    """The query's projection, or its compression, norm and expansion; `bias` is the compression's."""
    width = heads.num_heads * heads.key
    if heads.query_rank is None:
        return column(f"{prefix}.q_proj", width, hidden, "attention", units=heads.num_heads)
    return (
        *replicated(f"{prefix}.q_a_proj", heads.query_rank, hidden, "attention", bias=bias),
        *norm(f"{prefix}.q_a_layernorm", heads.query_rank),
        *column(f"{prefix}.q_b_proj", width, heads.query_rank, "attention", units=heads.num_heads),
    )


def latent_keys(
    heads: LatentHeads, hidden: int, *, bias: bool = False, prefix: str = "self_attn"
) -> tuple[Weight, ...]:
    """Compression of keys and values with the rotary key, norm, and expansion."""
    width = heads.num_heads * (heads.nope + heads.value)
    return (
        *replicated(f"{prefix}.kv_a_proj_with_mqa", heads.latent + heads.rope, hidden, "attention", bias=bias),
        *norm(f"{prefix}.kv_a_layernorm", heads.latent),
        *column(f"{prefix}.kv_b_proj", width, heads.latent, "attention", units=heads.num_heads),
    )


def latent_output(
    heads: LatentHeads, hidden: int, *, bias: bool = False, prefix: str = "self_attn"
) -> tuple[Weight, ...]:
    """The output projection, cut by heads."""
    width = heads.num_heads * heads.value
    return row(f"{prefix}.o_proj", hidden, width, "attention", units=heads.num_heads, bias=bias)


def indexer(
    facts: Facts, hidden: int, query_width: int, *, prefix: str = "self_attn.indexer"
) -> tuple[int, tuple[Weight, ...]]:
    """(width of its key, weights) of the lightning indexer; its queries read `query_width` elements.

    Every rank holds it whole: each chooses the same tokens.

    Source: DeepSeek-V3.2, §2.1, https://arxiv.org/abs/2512.02556; transformers 5.23, models/deepseek_v32/
    """
    num_heads, dim = facts.positive("index_n_heads"), facts.positive("index_head_dim")
    return dim, (
        *replicated(f"{prefix}.wq_b", num_heads * dim, query_width, "attention"),
        *replicated(f"{prefix}.wk", dim, hidden, "attention"),
        *norm(f"{prefix}.k_norm", dim, bias=True),
        *replicated(f"{prefix}.weights_proj", num_heads, hidden, "attention"),
    )


def shared_indexers(facts: Facts, num_layers: int) -> list[bool]:
    """For each layer whether it takes an earlier layer's choice of tokens, and so has no indexer of its own.

    Stated as `indexer_types`, as `index_topk_pattern` ("FSSF…"), or as a frequency and an offset.

    Source: transformers 5.23, models/glm_moe_dsa/configuration_glm_moe_dsa.py
    """
    pattern = facts.text("index_topk_pattern", default=None)
    if pattern is not None and not facts.has("indexer_types"):
        if len(pattern) != num_layers or set(pattern) - {"F", "S"}:
            raise facts.wrong("index_topk_pattern", pattern, f"F or S for each of {num_layers} layers")
        return [letter == "S" for letter in pattern]
    every = max(facts.integer("index_topk_freq", default=1), 1)
    offset = facts.integer("index_skip_topk_offset", default=2)
    return indexer_types(facts, num_layers, [max(i - offset + 1, 0) % every != 0 for i in range(num_layers)])


def indexer_types(facts: Facts, num_layers: int, shared: list[bool]) -> list[bool]:
    """For each layer whether its entry of `indexer_types` is `shared`; `shared` where the config has none."""
    types = facts.strings("indexer_types", length=num_layers) if facts.has("indexer_types") else None
    if types is None:
        return shared
    if unknown := set(types) - {"full", "shared"}:
        raise UnsupportedError(f"`indexer_types` names `{printable(min(unknown))}`", hint="known here: full, shared")
    if types[0] == "shared":
        raise facts.wrong("indexer_types", "shared at the first layer", "a pattern that begins with a full indexer")
    return [name == "shared" for name in types]


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """The sizes of a feed-forward part of routed experts, and of the shared ones beside them."""

    num_experts: int
    active: int
    width: int
    shared_width: int = 0

    @property
    def activations(self) -> int:
        """Elements per token at the widest: gate, up and product of all experts that it passes through."""
        return 3 * (self.active * self.width + self.shared_width)


def read_routed(facts: Facts, *experts_keys: str) -> Routed:
    """Experts at `n_routed_experts` or its spellings, their width, and the shared experts' width together."""
    num_experts = facts.positive("n_routed_experts", *experts_keys)
    active = facts.positive("num_experts_per_tok")
    if active > num_experts:
        raise facts.wrong("num_experts_per_tok", active, f"at most the number of experts, {num_experts}")
    width = facts.positive("moe_intermediate_size")
    return Routed(
        num_experts=num_experts, active=active, width=width, shared_width=facts.integer("n_shared_experts") * width
    )


def correction(num_experts: int, *, name: str = "mlp.gate.e_score_correction_bias") -> Weight:
    """The router's correction, no parameter: a buffer, which frameworks keep in fp32."""
    return Weight(name=name, shape=(num_experts,), part="router", buffer=True, fixed_bits=32)


def routed_mlp(
    routed: Routed,
    hidden: int,
    *,
    prefix: str = "mlp",
    corrected: bool = True,
    shared_name: str = "shared_experts",
    shared_bias: bool = False,
) -> tuple[Weight, ...]:
    """Router, its correction, routed experts, and the shared experts as one gated MLP."""
    expert = gated_mlp(hidden, routed.width, prefix=f"{prefix}.experts")
    shared = gated_mlp(hidden, routed.shared_width, prefix=f"{prefix}.{shared_name}", bias=shared_bias)
    offset = correction(routed.num_experts, name=f"{prefix}.gate.e_score_correction_bias")
    return (
        *replicated(f"{prefix}.gate", routed.num_experts, hidden, "router"),
        *((offset,) if corrected else ()),
        *experts(expert, num_experts=routed.num_experts, active=routed.active),
        *(shared if routed.shared_width else ()),
    )


def sparse_layers(facts: Facts, num_layers: int, *, dense: int) -> list[bool]:
    """For each layer whether it routes: by `mlp_layer_types`, else all but the first `dense`."""
    types = facts.strings("mlp_layer_types", length=num_layers) if facts.has("mlp_layer_types") else None
    if types is None:
        return [i >= dense for i in range(num_layers)]
    if unknown := [name for name in types if name not in MLP_KINDS]:
        raise UnsupportedError(
            f"`mlp_layer_types` names `{printable(unknown[0])}`", hint=f"known here: {', '.join(MLP_KINDS)}"
        )
    return [name == "sparse" for name in types]
