"""Encoder-decoders whose encoders see far: LED, Pegasus-X, BigBird-Pegasus. Their decoders are BART's or Pegasus'.

Source: transformers 5.23, models/{led,pegasus_x,bigbird_pegasus}/.
"""

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Layer, Weight
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import encoder
from kvplan.sources.families.bricks.parts import Reading, column, norm, projections, table
from kvplan.sources.families.seq2seq.sides import Side, Style, attention, layer, read_two_sides


def read_led(facts: Facts) -> Reading:
    """LED: BART whose encoder has a window, and queries, keys and values of their own for the tokens that see all.

    Source: transformers 5.23, models/led/modeling_led.py `LEDEncoderSelfAttention`
    """
    positions = ("max_encoder_position_embeddings", "max_decoder_position_embeddings")
    return read_two_sides(facts, Style(positions=positions, extra_positions=0), encoder_side=_led_encoder)


def _led_encoder(facts: Facts, side: Side, style: Style) -> list[Layer]:
    prefix, hidden, heads = "self_attn.longformer_self_attn", side.hidden, side.heads.num_heads
    mixing: list[Weight] = []
    names = ("longformer_self_attn.query", "longformer_self_attn.key", "longformer_self_attn.value", "output")
    mixing += projections(side.heads, hidden, prefix="self_attn", names=names, qkv_bias=True, out_bias=True)
    for name in ("query_global", "key_global", "value_global"):
        mixing += column(f"{prefix}.{name}", hidden, hidden, "attention", units=heads, bias=True)
    mixing += norm("self_attn_layer_norm", hidden, bias=True)
    return [layer(side, style, (encoder(side.heads),), tuple(mixing))] * side.num_layers


def read_pegasus_x(facts: Facts) -> Reading:
    """Pegasus-X: Pegasus whose encoder looks at blocks, and at global tokens with a norm of their own.

    Source: transformers 5.23, models/pegasus_x/modeling_pegasus_x.py `PegasusXEncoderLayer`
    """
    style = Style(stored_positions=False, embedding_norm=False, final_norm=True, bias=False, logits_bias=False)
    rows, hidden = facts.positive("num_global_tokens"), facts.positive("d_model")
    extra = table("encoder.embed_global", rows, hidden, split=False)
    return read_two_sides(facts, style, encoder_side=_pegasus_x_encoder, extra=extra)


def _pegasus_x_encoder(facts: Facts, side: Side, style: Style) -> list[Layer]:
    own, of_globals = attention("self_attn", side, style), norm("global_self_attn_layer_norm", side.hidden, bias=True)
    return [layer(side, style, (encoder(side.heads),), (*own, *of_globals))] * side.num_layers


def read_bigbird_pegasus(facts: Facts) -> Reading:
    """BigBird-Pegasus: learnt positions, an encoder whose blocks look at a few others; a decoder alone ties no head.

    Source: transformers 5.23, models/bigbird_pegasus/modeling_bigbird_pegasus.py
    """
    kind = facts.text("attention_type")
    if kind not in ("block_sparse", "original_full"):
        raise UnsupportedError(
            f"`attention_type` is `{printable(kind)}`, which BigBird-Pegasus does not have",
            hint="it has block_sparse and original_full",
        )
    style = Style(extra_positions=0, bias=facts.flag("use_bias"), ties_decoder=False)
    return read_two_sides(facts, style, encoder_side=_bigbird_encoder)


def _bigbird_encoder(facts: Facts, side: Side, style: Style) -> list[Layer]:
    names = ("self.query", "self.key", "self.value", "output")
    mixing = projections(
        side.heads, side.hidden, prefix="self_attn", names=names, qkv_bias=style.bias, out_bias=style.bias
    )
    own = (*mixing, *norm("self_attn_layer_norm", side.hidden, bias=True))
    return [layer(side, style, (encoder(side.heads),), own)] * side.num_layers
