"""EnCodec, the codec of MusicGen, as weights.

Source: transformers 5.23, models/encodec/.
"""

from math import ceil, log2, prod

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Weight
from kvplan.core.text import printable
from kvplan.core.units import ceil_div
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import norm
from kvplan.sources.families.towers.bricks import in_tower, loose, sizes

_BANDWIDTH = 24.0
"""The widest of the class's default bandwidths, in kbit/s."""
_MAX_BANDWIDTH = 1e6


def encodec_codec(facts: Facts, name: str) -> tuple[Weight, ...]:
    """Both halves of the codec, and its codebooks, which are buffers.

    Raises UnsupportedError for a codec of another type.

    Source: transformers 5.23, models/encodec/modeling_encodec.py `EncodecModel`
    """
    if facts.model_type != "encodec":
        raise UnsupportedError(
            f"a codec of model type `{printable(facts.model_type)}` is not supported", hint="known here: encodec"
        )
    ratios, hidden = sizes(facts, "upsampling_ratios"), facts.positive("hidden_size")
    weights = (
        *in_tower("encoder.layers", _encoder(facts, hidden, ratios), part="audio"),
        *in_tower("decoder.layers", _decoder(facts, hidden, ratios), part="audio"),
        *in_tower("quantizer.layers.*", _codebook(facts, hidden), part="audio", copies=_num_codebooks(facts, ratios)),
    )
    return in_tower(name, weights, part="audio")


def _encoder(facts: Facts, hidden: int, ratios: tuple[int, ...]) -> tuple[Weight, ...]:
    width, channels = facts.positive("num_filters"), facts.positive("audio_channels")
    weights = [*_convolution(facts, "first", width, channels, facts.positive("kernel_size"))]
    for ratio in reversed(ratios):
        weights += _residual(facts, width)
        weights += _convolution(facts, "down", 2 * width, width, 2 * ratio)
        width *= 2
    weights += _recurrent(facts, width)
    return (*weights, *_convolution(facts, "last", hidden, width, facts.positive("last_kernel_size")))


def _decoder(facts: Facts, hidden: int, ratios: tuple[int, ...]) -> tuple[Weight, ...]:
    width, channels = facts.positive("num_filters") * 2 ** len(ratios), facts.positive("audio_channels")
    weights = [*_convolution(facts, "first", width, hidden, facts.positive("kernel_size")), *_recurrent(facts, width)]
    for ratio in ratios:
        weights += _convolution(facts, "up", width // 2, width, 2 * ratio, transposed=True)
        width //= 2
        weights += _residual(facts, width)
    return (*weights, *_convolution(facts, "last", channels, width, facts.positive("last_kernel_size")))


def _residual(facts: Facts, width: int) -> tuple[Weight, ...]:
    middle = width // facts.positive("compress")
    block = (
        *_convolution(facts, "block.1", middle, width, facts.positive("residual_kernel_size")),
        *_convolution(facts, "block.3", width, middle, 1),
        *(_convolution(facts, "shortcut", width, width, 1) if facts.flag("use_conv_shortcut") else ()),
    )
    return in_tower("residual", block, part="audio", copies=facts.integer("num_residual_layers"))


def _convolution(
    facts: Facts, name: str, out: int, seen: int, kernel: int, *, transposed: bool = False
) -> tuple[Weight, ...]:
    """A convolution whose weights are kept as direction and length, or that has a norm after it."""
    shape = (seen, out, kernel) if transposed else (out, seen, kernel)
    bias = loose(f"{name}.conv.bias", out, part="audio")
    kind = facts.text("norm_type")
    if kind == "weight_norm":
        length = loose(f"{name}.conv.parametrizations.weight.original0", shape[0], 1, 1, part="audio")
        return (bias, length, loose(f"{name}.conv.parametrizations.weight.original1", *shape, part="audio"))
    if kind == "time_group_norm":
        return (bias, loose(f"{name}.conv.weight", *shape, part="audio"), *norm(f"{name}.norm", out, bias=True))
    raise facts.wrong("norm_type", kind, "`weight_norm` or `time_group_norm`")


def _recurrent(facts: Facts, width: int) -> tuple[Weight, ...]:
    """LSTM layers: four gates, each of what comes in and of what was kept."""
    layer = (
        loose("weight_ih", 4 * width, width, part="audio"),
        loose("weight_hh", 4 * width, width, part="audio"),
        loose("bias_ih", 4 * width, part="audio"),
        loose("bias_hh", 4 * width, part="audio"),
    )
    return in_tower("lstm", layer, part="audio", copies=facts.positive("num_lstm_layers"))


def _codebook(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    size, width = facts.positive("codebook_size"), facts.positive("codebook_dim", default=hidden)
    seen = (("inited", (1,)), ("cluster_size", (size,)), ("embed", (size, width)), ("embed_avg", (size, width)))
    return tuple(Weight(name=f"codebook.{n}", shape=shape, part="audio", buffer=True) for n, shape in seen)


def _num_codebooks(facts: Facts, ratios: tuple[int, ...]) -> int:
    """As many as the widest bandwidth pays for: bits per second over those of one codebook."""
    bandwidths = facts.numbers("target_bandwidths") if facts.has("target_bandwidths") else (_BANDWIDTH,)
    if not bandwidths or not 0 < bandwidths[-1] < _MAX_BANDWIDTH:
        raise facts.wrong("target_bandwidths", bandwidths, "a list of kbit/s")
    size = facts.positive("codebook_size")
    if size < 2:
        raise facts.wrong("codebook_size", size, "a number from 2")
    frames = ceil_div(facts.positive("sampling_rate"), prod(ratios))
    return int(1000 * bandwidths[-1] // (frames * ceil(log2(size))))
