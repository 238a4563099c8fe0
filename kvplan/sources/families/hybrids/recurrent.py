"""Recurrent models that are no state spaces: RecurrentGemma (Griffin), RWKV-4, xLSTM.

Source: transformers 5.23, models/{recurrent_gemma,rwkv,xlstm}/.
"""

from dataclasses import replace

from kvplan.core.mixers import LinearAttention, ShortConvolution
from kvplan.core.model import Weight
from kvplan.core.units import round_up
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.delta import by_head
from kvplan.sources.families.bricks.hybrid import by_type, named_decoder, norms
from kvplan.sources.families.bricks.mixers import read_heads, require_divisor, windowed
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    column,
    gated_mlp,
    norm,
    paired,
    projections,
    replicated,
    row,
)
from kvplan.sources.families.hybrids.mamba import convolution


def read_recurrent_gemma(facts: Facts) -> Reading:
    """RecurrentGemma: `block_types` over and over, a recurrent block or attention in a window; half the stated MLP.

    Source: transformers 5.23, models/recurrent_gemma/modeling_recurrent_gemma.py; https://arxiv.org/abs/2404.07839
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = read_heads(facts, hidden)
    bias = facts.flag("attention_bias")
    attention = projections(heads, hidden, prefix="temporal_block", qkv_bias=bias, out_bias=True)
    mixing = {
        "recurrent": _griffin(facts, hidden, heads.num_heads),
        "attention": Half(attention, (windowed(heads, facts.positive("attention_window_size")),)),
    }
    period = facts.strings("block_types")
    if not period:
        raise facts.missing("block_types")
    blocks = by_type(mixing, period, key="block_types")
    width = facts.positive("intermediate_size") // 2
    mlp = Half(gated_mlp(hidden, width, prefix="mlp_block", bias=True), activations=3 * width)
    layers = paired(
        [blocks[i % len(blocks)] for i in range(num_layers)],
        [mlp] * num_layers,
        norms(hidden, "temporal_pre_norm", "channel_pre_norm"),
    )
    return named_decoder(facts, layers, hidden, embed="embed_tokens", final="final_norm")


def _griffin(facts: Facts, hidden: int, num_heads: int) -> Half:
    """The real-gated linear recurrence: one number a channel, in fp32, after a convolution; gates are cut by heads.

    The class keeps both in its modules; of the convolution, what the next token's does not bring itself.

    Source: Griffin, §2.4, https://arxiv.org/abs/2402.19427; transformers 5.23, `RecurrentGemmaRecurrentBlock`
    """
    width, columns = facts.positive("lru_width", default=hidden), facts.positive("conv1d_width")
    require_divisor(facts, "num_attention_heads", num_heads, "lru_width", width)
    block, prefix = width // num_heads, "temporal_block"
    gates = tuple(
        by_head(f"{prefix}.rg_lru.{gate}_gate_{kind}", num_heads, *shape)
        for gate in ("input", "recurrent")
        for kind, shape in (("weight", (block, block)), ("bias", (block,)))
    )
    weights = (
        *column(f"{prefix}.linear_x", width, hidden, "attention", units=num_heads, bias=True),
        *column(f"{prefix}.linear_y", width, hidden, "attention", units=num_heads, bias=True),
        *convolution(f"{prefix}.conv_1d", {"": (width, num_heads)}, columns, bias=True),
        by_head(f"{prefix}.rg_lru.recurrent_param", width, units=num_heads),
        *gates,
        *row(f"{prefix}.linear_out", hidden, width, "attention", units=num_heads, bias=True),
    )
    mixer = LinearAttention(
        num_heads=width,
        num_key_heads=width,
        key_dim=1,
        value_dim=1,
        conv_channels=width,
        conv_columns=columns - 1,
        recurrence="rg_lru",
    )
    return Half(weights, (mixer,))


def read_rwkv(facts: Facts) -> Reading:
    """RWKV-4: a weighted mean over all earlier values for every channel; the first layer norms its input once more.

    Source: transformers 5.23, models/rwkv/modeling_rwkv.py; https://arxiv.org/abs/2305.13048
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    layers = paired(
        [_time_mixing(facts, hidden)] * num_layers,
        [_channel_mixing(facts, hidden)] * num_layers,
        (*norm("ln1", hidden, bias=True), *norm("ln2", hidden, bias=True)),
    )
    first = replace(layers[0], weights=(*layers[0].weights, *norm("pre_ln", hidden, bias=True)))
    layers = [first, *layers[1:]]
    return named_decoder(facts, layers, hidden, embed="embeddings", final="ln_out", norm_bias=True, head_name="head")


def _time_mixing(facts: Facts, hidden: int) -> Half:
    """Numerator, denominator and largest exponent of every channel in fp32, and the last token of both halves.

    Source: transformers 5.23, models/rwkv/modeling_rwkv.py `rwkv_linear_attention_cpu`, `RwkvModel.forward`
    """
    width = facts.positive("attention_hidden_size", default=hidden)
    mixes = tuple(_mix(f"attention.time_mix_{name}", hidden) for name in ("key", "value", "receptance"))
    decays = tuple(by_head(f"attention.{name}", width) for name in ("time_decay", "time_first"))
    weights = (
        *decays,
        *mixes,
        *column("attention.key", width, hidden, "attention"),
        *column("attention.value", width, hidden, "attention"),
        *column("attention.receptance", width, hidden, "attention"),
        *row("attention.output", hidden, width, "attention"),
    )
    mean = LinearAttention(
        num_heads=width, num_key_heads=width, key_dim=1, value_dim=1, vector_elements=2 * width, recurrence="rwkv"
    )
    return Half(weights, (mean, ShortConvolution(channels=hidden, columns=2)))


def _channel_mixing(facts: Facts, hidden: int) -> Half:
    width = facts.positive("intermediate_size", default=4 * hidden)
    weights = (
        *(_mix(f"feed_forward.time_mix_{name}", hidden) for name in ("key", "receptance")),
        *column("feed_forward.key", width, hidden, "mlp"),
        *replicated("feed_forward.receptance", hidden, hidden, "mlp"),
        *row("feed_forward.value", hidden, width, "mlp"),
    )
    return Half(weights, activations=2 * width)


def _mix(name: str, hidden: int) -> Weight:
    return Weight(name=name, shape=(1, 1, hidden), part="attention")


def read_xlstm(facts: Facts) -> Reading:
    """xLSTM: a matrix memory in every layer, and a gated MLP.

    Source: transformers 5.23, models/xlstm/modeling_xlstm.py; xLSTM-7B, https://arxiv.org/abs/2503.13427
    """
    hidden = facts.positive("hidden_size", "embedding_dim")
    num_layers = facts.layer_count("num_hidden_layers", "num_blocks")
    bias = facts.flag("use_bias")
    multiple = facts.positive("ffn_round_up_to_multiple_of")
    width = int((hidden * facts.number("ffn_proj_factor", default=2.667) + multiple - 1) // multiple) * multiple
    mlp = gated_mlp(hidden, width, prefix="ffn", names=("proj_up_gate", "proj_up", "proj_down"), bias=bias)
    layers = paired(
        [_matrix_memory(facts, hidden, bias)] * num_layers,
        [Half(mlp, activations=3 * width)] * num_layers,
        (*norm("norm_mlstm", hidden, bias=bias), *norm("norm_ffn", hidden, bias=bias)),
    )
    return named_decoder(facts, layers, hidden, embed="embeddings", final="out_norm", tied=False)


def _matrix_memory(facts: Facts, hidden: int, bias: bool) -> Half:
    """mLSTM: C ← f · C + i · v · kᵀ for every head, a normaliser as wide as its key, and the gates' largest exponent.

    Source: xLSTM, §2.3, https://arxiv.org/abs/2405.04517; transformers 5.23, models/xlstm/ `xLSTMCache`
    """
    heads, prefix = facts.positive("num_heads"), "mlstm_layer"
    keys, values = _width(facts, hidden, "qk_dim_factor", 0.5), _width(facts, hidden, "v_dim_factor", 1.0)
    for total in (keys, values):
        require_divisor(facts, "num_heads", heads, "the width of its keys and values", total)
    gates = ("igate_preact", "fgate_preact")
    weights = (
        *column(f"{prefix}.q", keys, hidden, "attention", units=heads, bias=bias),
        *column(f"{prefix}.k", keys, hidden, "attention", units=heads, bias=bias),
        *column(f"{prefix}.v", values, hidden, "attention", units=heads, bias=bias),
        *column(f"{prefix}.ogate_preact", values, hidden, "attention", units=heads, bias=bias),
        *(weight for gate in gates for weight in column(f"{prefix}.{gate}", heads, hidden, "attention", bias=True)),
        *norm(f"{prefix}.multihead_norm", values, bias=bias),
        *row(f"{prefix}.out_proj", hidden, values, "attention", units=heads, bias=bias),
    )
    mixer = LinearAttention(
        num_heads=heads,
        num_key_heads=heads,
        key_dim=keys // heads,
        value_dim=values // heads,
        state_bits=None,
        vector_elements=keys + heads,
        recurrence="xlstm",
    )
    return Half(weights, (mixer,))


def _width(facts: Facts, hidden: int, key: str, default: float) -> int:
    """The hidden size times a factor; the class's cache rounds it up to 64, its projections do not."""
    factor = facts.number(key, default=default)
    width = int(hidden * factor)
    if width != round_up(width, 64) or width != hidden * factor:
        raise facts.wrong(key, factor, f"a factor that makes of {hidden} a multiple of 64")
    return width
