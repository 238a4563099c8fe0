"""DeepSeek V4: one vector per token for key and value, older tokens folded into entries, hyper-connections.

Source: transformers 5.23, models/deepseek_v4/. Checkpoints also hold a layer for multi-token prediction, which the
class does not load.
"""

from dataclasses import dataclass, replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.mixers import CompressedAttention
from kvplan.core.model import Layer, Split, Weight
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.draft import named_draft, num_draft_layers
from kvplan.sources.families.bricks.latent import Routed, routed_mlp
from kvplan.sources.families.bricks.mixers import require_divisor
from kvplan.sources.families.bricks.parts import Half, Reading, column, norm, paired, replicated, row
from kvplan.sources.families.decoders.llama import decoder, read_experts

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
_KIND_OF_RATIO = {0: SLIDING, 4: SPARSE, 128: HEAVY}
_DEFAULT_RATIO = {SPARSE: 4, HEAVY: 128}
_HASHED = 3
"""Layers at the start whose experts follow from the token, where the config does not say."""


def read_deepseek_v4(facts: Facts) -> Reading:
    """DeepSeek V4: the layers differ in how many tokens an entry folds, and in how experts are chosen.

    Source: transformers 5.23, models/deepseek_v4/modeling_deepseek_v4.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    kinds = _attention_kinds(facts, num_layers)
    mixing = {kind: _mixing(facts, hidden, kind) for kind in set(kinds)}
    hashed, chosen = _feeding(facts, hidden, by_token=True), _feeding(facts, hidden, by_token=False)
    streams = facts.positive("hc_mult")
    rows = (2 + streams) * streams
    rest = (
        *(_in_fp32(w) for w in (*norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))),
        *hyper_connection(hidden, streams, "attn_hc", rows=rows, scales=3),
        *hyper_connection(hidden, streams, "ffn_hc", rows=rows, scales=3),
    )
    feeding = [hashed if is_hashed else chosen for is_hashed in _hashed_layers(facts, num_layers)]
    layers = paired([mixing[kind] for kind in kinds], feeding, rest, eager_softmax="sinks")
    reading = decoder(facts, layers, hidden)
    reading = replace(
        reading, head=(*hyper_head(hidden, streams), *(_in_fp32(w) if w.part == "norms" else w for w in reading.head))
    )
    return _with_draft(facts, reading, paired([_mixing(facts, hidden, SLIDING)], [chosen], rest)[0])


def _with_draft(facts: Facts, reading: Reading, layer: Layer) -> Reading:
    """Layers for multi-token prediction: sliding ones, a matrix each for token and state, and what ends the streams.

    Source: vLLM 0.33, models/deepseek_v4_mtp.py
    """
    hidden = reading.hidden_size
    weights = (
        *layer.weights,
        *replicated("e_proj", hidden, hidden, "mlp"),
        *replicated("h_proj", hidden, hidden, "mlp"),
        *(_in_fp32(weight) for name in ("enorm", "hnorm", "norm") for weight in norm(name, hidden)),
        *hyper_head(hidden, facts.positive("hc_mult")),
    )
    layers = [replace(layer, weights=weights)] * num_draft_layers(facts, unstated=_ratios_beyond(facts))
    return named_draft(reading, layers, path="mtp")


def _ratios_beyond(facts: Facts) -> int:
    """How many ratios `compress_ratios` has beyond the model's layers: those of multi-token prediction."""
    if not facts.has("compress_ratios"):
        return 0
    return max(0, len(facts.integers("compress_ratios")) - facts.layer_count("num_hidden_layers"))


def _attention_kinds(facts: Facts, num_layers: int) -> tuple[str, ...]:
    """`layer_types`, else by `compress_ratios`, else two heavily compressed layers and then both kinds in turn.

    A longer list than the model has layers ends with those of multi-token prediction.

    Source: transformers 5.23, models/deepseek_v4/configuration_deepseek_v4.py `DeepseekV4Config.__post_init__`
    """
    types = facts.strings("layer_types")
    if types is None and facts.has("compress_ratios"):
        ratios = facts.integers("compress_ratios")
        if unknown := set(ratios) - set(_KIND_OF_RATIO):
            raise facts.wrong("compress_ratios", min(unknown), f"a list of {', '.join(map(str, _KIND_OF_RATIO))}")
        types = tuple(_KIND_OF_RATIO[ratio] for ratio in ratios)
    if types is None:
        types = tuple(HEAVY if i < 2 or i % 2 == 0 else SPARSE for i in range(num_layers))
    if len(types) < num_layers:
        raise facts.wrong("layer_types", f"a list of {len(types)}", f"a list of {num_layers}, one for each layer")
    if unknown_types := set(types) - set(_KIND_OF_RATIO.values()):
        raise UnsupportedError(
            f"`layer_types` names `{printable(min(unknown_types))}`, which kvplan does not know for this family",
            hint=f"known here: {', '.join(_KIND_OF_RATIO.values())}",
        )
    return types[:num_layers]


def _ratio(facts: Facts, kind: str) -> int:
    """Tokens of an entry: an older key of its own, else `compress_rates`, else what published models have."""
    old = {SPARSE: "compress_rate_csa", HEAVY: "compress_rate_hca"}[kind]
    if facts.has(old):
        return facts.positive(old)
    return facts.nested("compress_rates").positive(kind, default=_DEFAULT_RATIO[kind])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    num_heads: int
    head_dim: int
    rank: int
    groups: int
    group_rank: int


def _mixing(facts: Facts, hidden: int, kind: str) -> Half:
    """Queries compressed, one vector for key and value, the output projected in groups; then how entries are made."""
    sizes = _Sizes(
        num_heads=facts.positive("num_attention_heads"),
        head_dim=facts.positive("head_dim"),
        rank=facts.positive("q_lora_rank"),
        groups=facts.positive("o_groups"),
        group_rank=facts.positive("o_lora_rank"),
    )
    require_divisor(facts, "o_groups", sizes.groups, "heads · head_dim", sizes.num_heads * sizes.head_dim)
    ratio = 0 if kind == SLIDING else _ratio(facts, kind)
    index_dim = facts.positive("index_head_dim") if kind == SPARSE else 0
    mixer = CompressedAttention(
        num_heads=sizes.num_heads,
        head_dim=sizes.head_dim,
        window=facts.positive("sliding_window"),
        ratio=ratio,
        overlaps=kind == SPARSE,
        index_dim=index_dim,
    )
    folding: tuple[Weight, ...] = ()
    if ratio:
        folding = _compressor("self_attn.compressor", hidden, sizes.head_dim, ratio, series=2 if index_dim else 1)
    if index_dim:
        folding = (*folding, *_indexer(facts, hidden, sizes.rank, ratio, index_dim))
    return Half((*_projections(sizes, hidden), *folding), (mixer,))


def _projections(sizes: _Sizes, hidden: int) -> tuple[Weight, ...]:
    width, out = sizes.num_heads * sizes.head_dim, sizes.groups * sizes.group_rank
    grouped = Weight(
        name="self_attn.o_a_proj.weight",
        shape=(out, width // sizes.groups),
        part="attention",
        split=Split(0, sizes.groups),
        linear=True,
    )
    sinks = Weight(
        name="self_attn.sinks",
        shape=(sizes.num_heads,),
        part="attention",
        split=Split(0, sizes.num_heads),
        fixed_bits=32,
    )
    return (
        *replicated("self_attn.q_a_proj", sizes.rank, hidden, "attention"),
        *(_in_fp32(w) for w in norm("self_attn.q_a_norm", sizes.rank)),
        *column("self_attn.q_b_proj", width, sizes.rank, "attention", units=sizes.num_heads),
        *replicated("self_attn.kv_proj", sizes.head_dim, hidden, "attention"),
        *(_in_fp32(w) for w in norm("self_attn.kv_norm", sizes.head_dim)),
        grouped,
        *row("self_attn.o_b_proj", hidden, out, "attention", units=sizes.groups),
        sinks,
    )


def _compressor(prefix: str, hidden: int, dim: int, ratio: int, *, series: int) -> tuple[Weight, ...]:
    """What folds tokens into an entry: vector and gate, which no scheme quantises, and a bias for each place in it.

    Source: transformers 5.23, models/deepseek_v4/modeling_deepseek_v4.py `_keep_in_fp32_modules_strict`
    """
    projected = (
        *replicated(f"{prefix}.kv_proj", series * dim, hidden, "attention"),
        *replicated(f"{prefix}.gate_proj", series * dim, hidden, "attention"),
    )
    return (
        *(replace(weight, linear=False) for weight in projected),
        Weight(name=f"{prefix}.position_bias", shape=(ratio, series * dim), part="attention", fixed_bits=32),
        *(_in_fp32(weight) for weight in norm(f"{prefix}.kv_norm", dim)),
    )


def _indexer(facts: Facts, hidden: int, rank: int, ratio: int, dim: int) -> tuple[Weight, ...]:
    prefix, num_heads = "self_attn.compressor.indexer", facts.positive("index_n_heads")
    return (
        *_compressor(prefix, hidden, dim, ratio, series=2),
        *replicated(f"{prefix}.q_b_proj", num_heads * dim, rank, "attention"),
        *replicated(f"{prefix}.scorer.weights_proj", num_heads, hidden, "attention"),
    )


def _hashed_layers(facts: Facts, num_layers: int) -> list[bool]:
    """For each layer whether the token itself says which experts it goes to."""
    types = facts.strings("mlp_layer_types")
    if types is None:
        first = facts.integer("num_hash_layers", default=_HASHED)
        return [i < first for i in range(num_layers)]
    if len(types) < num_layers:
        raise facts.wrong("mlp_layer_types", f"a list of {len(types)}", f"a list of {num_layers}, one for each layer")
    if unknown := set(types) - {"hash_moe", "moe"}:
        raise UnsupportedError(
            f"`mlp_layer_types` names `{printable(min(unknown))}`, which kvplan does not know for this family",
            hint="known here: hash_moe, moe",
        )
    return [kind == "hash_moe" for kind in types[:num_layers]]


def _feeding(facts: Facts, hidden: int, *, by_token: bool) -> Half:
    """Routed experts and a shared one; experts that the token says are looked up in a table of the vocabulary."""
    num_experts, active = read_experts(facts, "n_routed_experts")
    width = facts.positive("moe_intermediate_size")
    routed = Routed(num_experts=num_experts, active=active, width=width, shared_width=width)
    weights = routed_mlp(routed, hidden, corrected=not by_token, shared_bias=facts.flag("mlp_bias"))
    if by_token:
        shape = (facts.positive("vocab_size"), active)
        table = Weight(name="mlp.gate.tid2eid", shape=shape, part="router", buffer=True, fixed_bits=64)
        weights = (*weights, table)
    return Half(weights, activations=routed.activations)


def hyper_connection(
    hidden: int, streams: int, name: str, *, rows: int, scales: int, matrix_bits: int | None = 32
) -> tuple[Weight, ...]:
    """What mixes the streams of the hidden state before and after a half of the layer, in fp32.

    Source: transformers 5.23, models/deepseek_v4/modeling_deepseek_v4.py `DeepseekV4HyperConnection`
    """
    return (
        Weight(name=f"{name}.fn", shape=(rows, streams * hidden), part="norms", fixed_bits=matrix_bits),
        Weight(name=f"{name}.base", shape=(rows,), part="norms", fixed_bits=32),
        Weight(name=f"{name}.scale", shape=(scales,), part="norms", fixed_bits=32),
    )


def hyper_head(hidden: int, streams: int) -> tuple[Weight, ...]:
    """What makes one hidden state of the streams after the last layer, in fp32.

    Source: transformers 5.23, models/deepseek_v4/modeling_deepseek_v4.py `DeepseekV4HyperHead`
    """
    shapes = (("hc_fn", (streams, streams * hidden)), ("hc_base", (streams,)), ("hc_scale", (1,)))
    return tuple(Weight(name=f"hc_head.{key}", shape=shape, part="norms", fixed_bits=32) for key, shape in shapes)


def _in_fp32(weight: Weight) -> Weight:
    return replace(weight, fixed_bits=32)
