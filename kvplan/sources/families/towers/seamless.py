"""What SeamlessM4T hears and speaks with, as weights: a Conformer, a model from text to units, a vocoder.

Source: transformers 5.23, models/{seamless_m4t,seamless_m4t_v2}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import norm, plain_mlp, replicated, table
from kvplan.sources.families.seq2seq.sides import Side, Style, attention, layer
from kvplan.sources.families.towers.bricks import convolution, in_tower, loose, sizes

STYLE = Style(across="cross_attention", mlp=("ffn.fc1", "ffn.fc2", "ffn_layer_norm"))
_DILATIONS = 3
"""Convolutions of a vocoder's block that the config does not list."""


def speech_encoder(facts: Facts, hidden: int, *, second: bool) -> tuple[Weight, ...]:
    """The Conformer over speech, and the adapter that shortens what it makes.

    Source: transformers 5.23, models/seamless_m4t/modeling_seamless_m4t.py `SeamlessM4TSpeechEncoder`
    """
    seen, width = facts.positive("feature_projection_input_dim"), facts.positive("speech_encoder_intermediate_size")
    adapters = facts.integer("num_adapter_layers") if facts.flag("add_adapter") else 0
    weights = (
        *norm("feature_projection.layer_norm", seen, bias=True),
        *replicated("feature_projection.projection", hidden, seen, "audio", bias=True),
        *in_tower(
            "encoder.layers.*",
            _conformer_layer(facts, hidden, width, second=second),
            part="audio",
            copies=facts.layer_count("speech_encoder_layers"),
        ),
        *norm("encoder.layer_norm", hidden, bias=True),
        *_dense("intermediate_ffn", hidden, width),
        *in_tower("adapter.layers.*", _adapter_layer(facts, hidden, width), part="audio", copies=adapters),
        *norm("inner_layer_norm", hidden, bias=True),
    )
    return in_tower("speech_encoder", weights, part="audio")


def _conformer_layer(facts: Facts, hidden: int, width: int, *, second: bool) -> tuple[Weight, ...]:
    """Two halves of an MLP around attention and a convolution; a batch norm keeps what it saw in buffers."""
    after = "conv_module.depthwise_layer_norm" if second else "conv_module.batch_norm"
    seen = () if second else _batch_norm_buffers(after, hidden)
    return (
        *_dense("ffn1", hidden, width),
        *_dense("ffn2", hidden, width),
        *_projections(hidden),
        *_positions(facts, hidden, second=second),
        *convolution("conv_module.pointwise_conv1", 2 * hidden, hidden, 1, bias=False),
        *convolution("conv_module.depthwise_conv", hidden, 1, facts.positive("conv_depthwise_kernel_size"), bias=False),
        *convolution("conv_module.pointwise_conv2", hidden, hidden, 1, bias=False),
        *norm(after, hidden, bias=True),
        *seen,
        *(
            weight
            for name in ("ffn1_layer_norm", "self_attn_layer_norm", "ffn2_layer_norm", "final_layer_norm")
            for weight in norm(name, hidden, bias=True)
        ),
        *norm("conv_module.layer_norm", hidden, bias=True),
    )


def _batch_norm_buffers(name: str, hidden: int) -> tuple[Weight, ...]:
    seen = (("running_mean", (hidden,), None), ("running_var", (hidden,), None), ("num_batches_tracked", (), 64))
    return tuple(
        Weight(name=f"{name}.{kind}", shape=shape, part="audio", buffer=True, fixed_bits=bits)
        for kind, shape, bits in seen
    )


def _positions(facts: Facts, hidden: int, *, second: bool) -> tuple[Weight, ...]:
    """What a layer knows of distances, by `position_embeddings_type`."""
    heads = equal_heads(facts, hidden, "speech_encoder_attention_heads")
    kind = facts.text("position_embeddings_type", default=None)
    if second and kind == "relative_key":
        left, right = facts.integer("left_max_position_embeddings"), facts.integer("right_max_position_embeddings")
        return (loose("self_attn.distance_embedding.weight", left + right + 1, heads.head_dim, part="audio"),)
    if not second and kind == "relative":
        return (
            *replicated("self_attn.linear_pos", hidden, hidden, "audio"),
            loose("self_attn.pos_bias_u", heads.num_heads, heads.head_dim, part="audio"),
            loose("self_attn.pos_bias_v", heads.num_heads, heads.head_dim, part="audio"),
        )
    if kind is None or (kind == "rotary" and not second):
        return ()
    raise facts.wrong("position_embeddings_type", kind, "`relative_key`" if second else "`relative` or `rotary`")


def _adapter_layer(facts: Facts, hidden: int, width: int) -> tuple[Weight, ...]:
    kernel = facts.positive("adaptor_kernel_size")
    return (
        *convolution("residual_conv", 2 * hidden, hidden, kernel),
        *convolution("self_attn_conv", 2 * hidden, hidden, kernel),
        *_projections(hidden),
        *_dense("ffn", hidden, width),
        *(
            weight
            for name in ("residual_layer_norm", "self_attn_layer_norm", "ffn_layer_norm")
            for weight in norm(name, hidden, bias=True)
        ),
    )


def _projections(hidden: int) -> tuple[Weight, ...]:
    names = ("linear_q", "linear_k", "linear_v", "linear_out")
    return tuple(w for name in names for w in replicated(f"self_attn.{name}", hidden, hidden, "audio", bias=True))


def _dense(name: str, hidden: int, width: int) -> tuple[Weight, ...]:
    return plain_mlp(hidden, width, up=f"{name}.intermediate_dense", down=f"{name}.output_dense", part="audio")


def speaker(facts: Facts, hidden: int, *, second: bool) -> tuple[Weight, ...]:
    """From text to units, and from units to sound.

    It runs after the text has been generated; version 1 generates units one by one, whose cache is not counted.

    Source: transformers 5.23, models/seamless_m4t/modeling_seamless_m4t.py `SeamlessM4TTextToUnitModel`,
    `SeamlessM4TCodeHifiGan`
    """
    units = (*_units_encoder(facts, hidden), *_units_decoder(facts, hidden, second=second))
    return (*in_tower("t2u_model.model", units, part="audio"), *in_tower("vocoder", _vocoder(facts), part="audio"))


def _units_side(facts: Facts, hidden: int, side: str) -> Side:
    return Side(
        hidden=hidden,
        heads=equal_heads(facts, hidden, f"t2u_{side}_attention_heads"),
        width=facts.positive(f"t2u_{side}_ffn_dim"),
        num_layers=facts.layer_count(f"t2u_{side}_layers"),
    )


def _units_encoder(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    side = _units_side(facts, hidden, "encoder")
    own = layer(side, STYLE, (), attention("self_attn", side, STYLE)).weights
    return (*in_tower("encoder.layers.*", own, copies=side.num_layers), *norm("encoder.layer_norm", hidden, bias=True))


def _units_decoder(facts: Facts, hidden: int, *, second: bool) -> tuple[Weight, ...]:
    """Version 1 generates units; version 2 makes them all at once, of characters and how long they last."""
    side = _units_side(facts, hidden, "decoder")
    vocab = facts.positive("t2u_vocab_size")
    head = () if facts.flag("tie_word_embeddings") else replicated("lm_head", vocab, hidden, "audio")
    last = (*norm("decoder.layer_norm", hidden, bias=True), *head)
    tokens = table("decoder.embed_tokens", vocab, hidden)
    if not second:
        mixing = (*attention("self_attn", side, STYLE), *attention(STYLE.across, side, STYLE))
        own = layer(side, STYLE, (), mixing).weights
        return (*tokens, *in_tower("decoder.layers.*", own, copies=side.num_layers), *last)
    own = (
        *attention("self_attn", side, STYLE),
        *convolution("conv1", hidden, hidden, 7),
        *convolution("conv2", hidden, hidden, 7),
        *norm("conv_layer_norm", hidden, bias=True),
    )
    of_predictor = (
        facts.positive(f"t2u_variance_predictor_{name}") for name in ("embed_dim", "hidden_dim", "kernel_size")
    )
    return (
        *tokens,
        *table("decoder.embed_char", facts.positive("char_vocab_size"), hidden),
        loose("decoder.pos_emb_alpha_char", 1, part="audio"),
        loose("decoder.pos_emb_alpha", 1, part="audio"),
        *_duration_predictor("decoder.duration_predictor", *of_predictor),
        *in_tower("decoder.layers.*", own, copies=side.num_layers),
        *last,
    )


def _duration_predictor(name: str, seen: int, hidden: int, kernel: int) -> tuple[Weight, ...]:
    weights = (
        *convolution("conv1", hidden, seen, kernel),
        *norm("ln1", hidden, bias=True),
        *convolution("conv2", hidden, hidden, kernel),
        *norm("ln2", hidden, bias=True),
        *replicated("proj", 1, hidden, "audio", bias=True),
    )
    return in_tower(name, weights, part="audio")


def _vocoder(facts: Facts) -> tuple[Weight, ...]:
    """HiFi-GAN over units, with a voice and a language: transposed convolutions that lengthen, blocks that refine."""
    unit, language, voice = (facts.positive(f"{name}_embed_dim") for name in ("unit", "lang", "spkr"))
    channels = facts.positive("upsample_initial_channel")
    kernels, widths = sizes(facts, "upsample_kernel_sizes"), sizes(facts, "resblock_kernel_sizes")
    weights = [
        *_duration_predictor("dur_predictor", unit, unit, facts.positive("variance_predictor_kernel_size")),
        *table("unit_embedding", facts.positive("unit_hifi_gan_vocab_size"), unit),
        *table("speaker_embedding", facts.positive("vocoder_num_spkrs"), voice),
        *table("language_embedding", facts.positive("vocoder_num_langs"), language),
        *convolution("hifi_gan.conv_pre", channels, unit + language + voice, 7),
    ]
    dilated = _dilations(facts, len(widths))
    for i, kernel in enumerate(kernels[: len(facts.integers("upsample_rates"))]):
        weights.append(loose(f"hifi_gan.upsampler.{i}.weight", channels, channels // 2, kernel, part="audio"))
        channels //= 2
        weights.append(loose(f"hifi_gan.upsampler.{i}.bias", channels, part="audio"))
        for j, (size, count) in enumerate(zip(widths, dilated, strict=True)):
            block = (*convolution("convs1", channels, channels, size), *convolution("convs2", channels, channels, size))
            weights += in_tower(f"hifi_gan.resblocks.{i * len(widths) + j}", block, part="audio", copies=count)
    return (*weights, *convolution("hifi_gan.conv_post", 1, channels, 7))


def _dilations(facts: Facts, num_blocks: int) -> list[int]:
    """How many convolutions each block of the vocoder has, one for each of its dilations."""
    stated = facts.entries("resblock_dilation_sizes")
    if stated is None:
        return [_DILATIONS] * num_blocks
    if len(stated) != num_blocks or not all(isinstance(entry, list) for entry in stated):
        raise facts.wrong("resblock_dilation_sizes", stated, f"a list of {num_blocks} lists")
    return [len(entry) for entry in stated if isinstance(entry, list)]
