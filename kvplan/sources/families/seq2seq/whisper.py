"""Encoder-decoders that hear: Whisper, Speech2Text, Moonshine.

Source: transformers 5.23, models/{whisper,speech_to_text,moonshine}/.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads, cross, encoder, full, require_divisor
from kvplan.sources.families.bricks.parts import (
    Reading,
    class_suffix,
    column,
    gated_mlp,
    norm,
    num_labels,
    plain_mlp,
    projections,
    replicated,
    table,
    unknown_class,
)
from kvplan.sources.families.seq2seq.sides import Style, Tables, encoder_layers, read_side, read_two_sides
from kvplan.sources.families.towers.bricks import convolution, loose, sizes

_POSITIONS = ("max_source_positions", "max_target_positions")
_WHISPER = Style(
    positions=_POSITIONS, extra_positions=0, embedding_norm=False, final_norm=True, key_bias=False, logits_bias=False
)
_SPEECH_TO_TEXT = Style(
    family="speech2text", positions=_POSITIONS, stored_positions=False, embedding_norm=False, final_norm=True,
    logits_bias=False,
)  # fmt: skip


def read_whisper(facts: Facts) -> Reading:
    """Whisper: any sound is cut or padded to the same length, so that its encoder always makes as many tokens.

    Source: transformers 5.23, models/whisper/modeling_whisper.py
    """
    suffix = class_suffix(facts)
    if suffix == "ForAudioClassification":
        return _classifier(facts)
    reading = read_two_sides(facts, _WHISPER, tables=_decoder_table, extra=_convolutions(facts))
    if suffix == "ForCausalLM":
        return reading
    return replace(reading, encoder_seq_len=facts.positive("max_source_positions"), max_encoder_seq_len=None)


def _classifier(facts: Facts) -> Reading:
    """The encoder alone, with a projection and a classifier."""
    hidden, length = facts.positive("d_model"), facts.positive("max_source_positions")
    side = read_side(facts, hidden, "encoder")
    mixed = facts.flag("use_weighted_layer_sum")
    projected = facts.positive("classifier_proj_size")
    return Reading(
        hidden_size=hidden,
        vocab_size=facts.positive("vocab_size"),
        layers=encoder_layers(facts, side, _WHISPER),
        embeddings=(*table("encoder.embed_positions", length, hidden, split=False), *_convolutions(facts)),
        head=(
            *norm("encoder.layer_norm", hidden, bias=True),
            *((Weight(name="layer_weights", shape=(side.num_layers + 1,), part="head"),) if mixed else ()),
            *replicated("projector", projected, hidden, "head", bias=True),
            *replicated("classifier", num_labels(facts), projected, "head", bias=True),
        ),
        encoder_seq_len=length,
    )


def _convolutions(facts: Facts) -> tuple[Weight, ...]:
    """Two convolutions over three columns each, the second of which takes every other one."""
    hidden, bins = facts.positive("d_model"), facts.positive("num_mel_bins")
    return (
        loose("encoder.conv1.weight", hidden, bins, 3, part="audio"),
        loose("encoder.conv1.bias", hidden, part="audio"),
        loose("encoder.conv2.weight", hidden, hidden, 3, part="audio"),
        loose("encoder.conv2.bias", hidden, part="audio"),
    )


def _decoder_table(facts: Facts, hidden: int, *, stands_alone: bool, tied: bool) -> Tables:
    """The decoder's table: nothing is looked up in the encoder."""
    vocab = facts.positive("vocab_size")
    return Tables(weights=table("decoder.embed_tokens", vocab, hidden), vocab=vocab)


def read_speech_to_text(facts: Facts) -> Reading:
    """Speech2Text: convolutions that halve the sound's length each, layers with norms before each part.

    Source: transformers 5.23, models/speech_to_text/modeling_speech_to_text.py `Conv1dSubsampler`
    """
    hidden = facts.positive("d_model")
    kernels, middle = sizes(facts, "conv_kernel_sizes"), facts.positive("conv_channels")
    if len(kernels) != facts.positive("num_conv_layers"):
        raise facts.wrong("conv_kernel_sizes", f"a list of {len(kernels)}", "one for each of `num_conv_layers`")
    channels = facts.positive("input_feat_per_channel") * facts.positive("input_channels")
    convolutions: list[Weight] = []
    for i, kernel in enumerate(kernels):
        # A gate halves what each convolution makes.
        made = middle if i < len(kernels) - 1 else 2 * hidden
        convolutions.append(loose(f"encoder.conv.conv_layers.{i}.weight", made, channels, kernel, part="audio"))
        convolutions.append(loose(f"encoder.conv.conv_layers.{i}.bias", made, part="audio"))
        channels = middle // 2
    return read_two_sides(facts, _SPEECH_TO_TEXT, tables=_decoder_table, extra=tuple(convolutions))


def read_moonshine(facts: Facts) -> Reading:
    """Moonshine: convolutions over the wave itself, rotary positions; a decoder layer's MLP has a gate.

    `encoder_seq_len` counts what the convolutions leave of 16,000 samples a second: one of 384.

    Source: transformers 5.23, models/moonshine/modeling_moonshine.py
    """
    suffix = class_suffix(facts)
    if suffix not in (None, "ForConditionalGeneration", "Model"):
        raise unknown_class(facts)
    hidden, vocab = facts.positive("hidden_size"), facts.positive("vocab_size")
    sides = [_moonshine_heads(facts, hidden, side) for side in ("encoder", "decoder")]
    if sides[0] != sides[1]:
        raise facts.wrong("decoder_num_attention_heads", sides[1].num_heads, "the encoder's, with as many KV heads")
    tied = facts.flag("tie_word_embeddings")
    has_head = suffix != "Model" and not tied
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=_moonshine_encoder(facts, hidden, sides[0]) + _moonshine_decoder(facts, hidden, sides[1]),
        embeddings=(
            *table("decoder.embed_tokens", vocab, hidden),
            *convolution("encoder.conv1", hidden, 1, 127, bias=False),
            *convolution("encoder.conv2", 2 * hidden, hidden, 7),
            *convolution("encoder.conv3", hidden, 2 * hidden, 3),
            *norm("encoder.groupnorm", hidden, bias=True),
        ),
        head=(
            *norm("encoder.layer_norm", hidden),
            *norm("decoder.norm", hidden),
            *(column("proj_out", vocab, hidden, "head") if has_head else ()),
        ),
        tied_embeddings=tied and suffix != "Model",
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _moonshine_heads(facts: Facts, hidden: int, side: str) -> Heads:
    """A side's heads. The class builds its decoder with the encoder's, so that they have to be equal."""
    num_heads = facts.positive(f"{side}_num_attention_heads")
    kv_heads = facts.positive(f"{side}_num_key_value_heads", default=num_heads)
    require_divisor(facts, f"{side}_num_key_value_heads", kv_heads, "attention heads", num_heads)
    require_divisor(facts, f"{side}_num_attention_heads", num_heads, "hidden_size", hidden)
    size = facts.positive("head_dim", default=hidden // num_heads)
    return Heads(num_heads=num_heads, num_kv_heads=kv_heads, head_dim=size)


def _moonshine_attention(facts: Facts, hidden: int, heads: Heads, *names: str) -> tuple[Weight, ...]:
    bias = facts.flag("attention_bias")
    weights = [weight for name in names for weight in projections(heads, hidden, prefix=name, qkv_bias=bias)]
    return (*weights, *norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))


def _moonshine_encoder(facts: Facts, hidden: int, heads: Heads) -> list[Layer]:
    width = facts.positive("intermediate_size")
    mlp = plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2")
    weights = (*_moonshine_attention(facts, hidden, heads, "self_attn"), *mlp)
    layer = Layer(mixers=(encoder(heads),), weights=weights, mlp_activations=2 * width)
    return [layer] * facts.layer_count("encoder_num_hidden_layers")


def _moonshine_decoder(facts: Facts, hidden: int, heads: Heads) -> list[Layer]:
    width = facts.positive("intermediate_size")
    weights = (
        *_moonshine_attention(facts, hidden, heads, "self_attn", "encoder_attn"),
        *gated_mlp(hidden, width, names=("fc1[input]", "fc1[gate]", "fc2"), bias=True),
        *norm("final_layernorm", hidden),
    )
    layer = Layer(mixers=(full(heads), cross(heads)), weights=weights, mlp_activations=3 * width)
    return [layer] * facts.layer_count("decoder_num_hidden_layers")
