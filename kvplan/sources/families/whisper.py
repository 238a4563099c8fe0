"""Encoder-decoders that hear: Whisper and Speech2Text.

Source: transformers 5.23, models/{whisper,speech_to_text}/.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.parts import Reading, class_suffix, norm, num_labels, replicated, table
from kvplan.sources.families.seq2seq import Style, Tables, encoder_layers, read_side, read_two_sides
from kvplan.sources.families.towers.bricks import loose, sizes

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
