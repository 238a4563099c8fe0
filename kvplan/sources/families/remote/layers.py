"""Decoders whose layers differ in size, and whose classes come with their repository: nemotron-nas, deci, openelm.

Source: nvidia/Llama-3_1-Nemotron-Ultra-253B-v1, modeling_decilm.py; Deci/DeciLM-7B, modeling_decilm.py;
apple/OpenELM-3B, modeling_openelm.py.
"""

from dataclasses import dataclass, replace

from kvplan.core.errors import UnsupportedError
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import dense_half
from kvplan.sources.families.bricks.mixers import Heads, full, require_divisor, windowed
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    gated_mlp,
    norm,
    paired,
    plain_mlp,
    projections,
    replicated,
)
from kvplan.sources.families.remote.parts import LLAMA, Names, refuse, remote_decoder

_MULTIPLE = 256
"""What widths are rounded up to."""
_OPENELM = Names(embed="token_embeddings")


def read_nemotron_nas(facts: Facts) -> Reading:
    """Nemotron Super 49B, Ultra 253B and 51B: Llama, pruned layer by layer as `block_configs` says.

    Each half has its own size, is one matrix (`replace_with_linear`), or is not there at all (`no_op`), nor is its
    norm then.

    Source: modeling_decilm.py `DeciLMDecoderLayer`; vLLM 0.33, models/nemotron_nas.py; https://arxiv.org/abs/2411.19146
    """
    hidden, count = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    blocks = facts.each("block_configs")
    if len(blocks) != count:
        raise facts.wrong("block_configs", f"a list of {len(blocks)}", f"a list of {count}, one for each layer")
    mixing: dict[object, Half] = {}
    feeding: dict[object, Half] = {}
    attending, fed = [], []
    for block in blocks:
        key, half = _attention(facts, block.nested("attention"), hidden)
        attending.append(mixing.setdefault(key, half))
        key, half = _feed_forward(facts, block.nested("ffn"), hidden)
        fed.append(feeding.setdefault(key, half))
    return remote_decoder(facts, paired(attending, fed, ()), hidden, family="decilm")


def _attention(facts: Facts, block: Facts, hidden: int) -> tuple[object, Half]:
    """(what tells it from others, the mixing half of one layer)."""
    refuse(block, "num_sink_tokens", "sparsify", "mamba", "llama4")
    before, bias = norm(LLAMA.before[0], hidden), facts.flag("attention_bias", default=False)
    if block.is_on("no_op"):
        return "none", Half(())
    if block.is_on("replace_with_linear"):
        linear = replicated("self_attn.linear_attn", hidden, hidden, "attention", bias=bias)
        return "linear", Half((*linear, *before))
    num_heads, group = facts.positive("num_attention_heads"), block.positive("n_heads_in_group")
    require_divisor(block, "n_heads_in_group", group, "num_attention_heads", num_heads)
    dim = facts.positive("head_dim", default=hidden // num_heads)
    heads = Heads(num_heads=num_heads, num_kv_heads=num_heads // group, head_dim=dim)
    mixer = windowed(heads, block.nullable("window_length", default=None))
    return mixer, Half((*projections(heads, hidden, qkv_bias=bias, out_bias=bias), *before), (mixer,))


def _feed_forward(facts: Facts, block: Facts, hidden: int) -> tuple[object, Half]:
    """(what tells it from others, the feed-forward half of one layer)."""
    refuse(block, "sparsify", "moe")
    before, bias = norm(LLAMA.before[1], hidden), facts.flag("mlp_bias", default=False)
    if block.is_on("no_op"):
        return "none", Half(())
    if block.is_on("replace_with_linear"):
        linear = replicated("mlp.linear_mlp", hidden, hidden, "mlp", bias=bias)
        return "linear", Half((*linear, *before), activations=hidden)
    stated = block.integer("intermediate_size", default=None)
    width = stated or _rounded_up(int(2 * block.number("ffn_mult") * hidden / 3))
    half = dense_half(hidden, width, bias=bias)
    return width, replace(half, weights=(*half.weights, *before))


def _rounded_up(width: int) -> int:
    return -(-width // _MULTIPLE) * _MULTIPLE


def read_deci(facts: Facts) -> Reading:
    """DeciLM 7B: Llama whose layers differ in their number of KV heads.

    vLLM copies keys and values out to the largest of these numbers: it reserves more than this.

    Source: Deci/DeciLM-7B, configuration_decilm.py `num_key_value_heads_per_layer`; vLLM 0.33, models/decilm.py
    """
    hidden, count = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    num_heads, shared = facts.positive("num_attention_heads"), facts.integers("num_key_value_heads_per_layer")
    if len(shared) != count:
        wanted = f"a list of {count}, one for each layer"
        raise facts.wrong("num_key_value_heads_per_layer", f"a list of {len(shared)}", wanted)
    mixing = {}
    for kv_heads in set(shared):
        if kv_heads < 1 or num_heads % kv_heads:
            raise facts.wrong("num_key_value_heads_per_layer", kv_heads, f"a divisor of {num_heads} heads")
        heads = Heads(num_heads=num_heads, num_kv_heads=kv_heads, head_dim=hidden // num_heads)
        mixing[kv_heads] = Half(projections(heads, hidden), (full(heads),))
    half = dense_half(hidden, facts.positive("intermediate_size"))
    norms = tuple(weight for name in LLAMA.before for weight in norm(name, hidden))
    layers = paired([mixing[kv_heads] for kv_heads in shared], [half] * count, norms)
    return remote_decoder(facts, layers, hidden, family="decilm")


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenElm:
    """What all layers of an OpenELM have in common."""

    hidden: int
    head_dim: int
    normed: bool
    gated: bool
    divisor: int


def read_openelm(facts: Facts) -> Reading:
    """OpenELM: later layers have more heads and wider MLPs, by the lists that published configs state.

    Source: apple/OpenELM-270M, configuration_openelm.py (`ffn_dim_divisor` 256, `ffn_with_glu` true), https://arxiv.org/abs/2404.14619
    """
    hidden, count = facts.positive("model_dim"), facts.layer_count("num_transformer_layers")
    common = _OpenElm(
        hidden=hidden,
        head_dim=facts.positive("head_dim"),
        normed=facts.flag("normalize_qk_projections"),
        gated=facts.flag("ffn_with_glu", default=True),
        divisor=facts.positive("ffn_dim_divisor", default=256),
    )
    queries, shared = facts.one_or_more("num_query_heads"), facts.one_or_more("num_kv_heads")
    multipliers = facts.numbers("ffn_multipliers")
    for key, values in (("num_query_heads", queries), ("num_kv_heads", shared), ("ffn_multipliers", multipliers)):
        if len(values) != count:
            raise facts.wrong(key, f"a list of {len(values)}", f"a list of {count}, one for each layer")
    pairs = list(zip(queries, shared, strict=True))
    mixing = {pair: _openelm_attention(facts, common, *pair) for pair in set(pairs)}
    feeding = {multiplier: _openelm_feed_forward(common, multiplier) for multiplier in set(multipliers)}
    norms = (*norm("attn_norm", hidden), *norm("ffn_norm", hidden))
    layers = paired([mixing[pair] for pair in pairs], [feeding[multiplier] for multiplier in multipliers], norms)
    tied = facts.flag("share_input_output_layers", default=True)
    reading = remote_decoder(
        facts, layers, hidden, names=_OPENELM, positions=("max_context_length",), tied_default=tied
    )
    if facts.has("tie_word_embeddings") and facts.flag("tie_word_embeddings") != tied:
        raise UnsupportedError(
            "`share_input_output_layers` and `tie_word_embeddings` contradict each other",
            hint="the class asks the first: pass `--set tie_word_embeddings=null`",
        )
    return reading


def _openelm_attention(facts: Facts, common: _OpenElm, num_heads: int, kv_heads: int) -> Half:
    if min(num_heads, kv_heads) < 1 or num_heads % kv_heads:
        raise facts.wrong("num_kv_heads", kv_heads, f"a divisor of {num_heads} query heads")
    heads = Heads(num_heads=num_heads, num_kv_heads=kv_heads, head_dim=common.head_dim)
    names = ("qkv_proj[q]", "qkv_proj[k]", "qkv_proj[v]", "out_proj")
    head_norms = (*norm("attn.q_norm", common.head_dim), *norm("attn.k_norm", common.head_dim))
    attention = projections(heads, common.hidden, prefix="attn", names=names)
    return Half((*attention, *(head_norms if common.normed else ())), (full(heads),))


def _openelm_feed_forward(common: _OpenElm, multiplier: float) -> Half:
    """A width rounded to the next multiple of the divisor, not below nine tenths of what is asked for."""
    hidden, asked = common.hidden, multiplier * common.hidden
    width = max(common.divisor, int(asked + common.divisor / 2) // common.divisor * common.divisor)
    if width < 0.9 * asked:
        width += common.divisor
    if common.gated:
        names = ("proj_1[gate]", "proj_1[up]", "proj_2")
        return Half(gated_mlp(hidden, width, prefix="ffn", names=names), activations=3 * width)
    return Half(plain_mlp(hidden, width, up="ffn.proj_1", down="ffn.proj_2", bias=False), activations=2 * width)
