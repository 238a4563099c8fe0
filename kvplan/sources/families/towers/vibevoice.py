"""VibeVoice's tokenizers of sound: ConvNeXt blocks, and convolutions that shorten what they hear.

Source: transformers 5.23, models/vibevoice_acoustic_tokenizer/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import norm, plain_mlp
from kvplan.sources.families.towers.bricks import convolution, in_tower, loose


def vibevoice_encoder(facts: Facts, name: str) -> tuple[Weight, ...]:
    """A stem, then for each of `downsampling_ratios` a convolution and blocks of twice as many channels.

    Source: transformers 5.23, models/vibevoice_acoustic_tokenizer/modeling_vibevoice_acoustic_tokenizer.py
    `VibeVoiceAcousticTokenizerEncoderModel`
    """
    ratios, depths, first = (
        facts.integers("downsampling_ratios"),
        facts.integers("depths"),
        facts.positive("num_filters"),
    )
    if len(depths) <= len(ratios):
        raise facts.wrong("depths", f"a list of {len(depths)}", f"one of {len(ratios) + 1}, more than there are ratios")
    kernel = facts.positive("kernel_size")
    weights = [
        *convolution("stem.conv.conv", first, facts.positive("channels"), kernel),
        *in_tower("stem.stage.*", _block(facts, first, kernel), copies=depths[0]),
    ]
    for i, ratio in enumerate(ratios):
        seen, out = first * 2**i, first * 2 ** (i + 1)
        weights += convolution(f"conv_layers.{i}.conv.conv", out, seen, 2 * ratio)
        weights += in_tower(f"conv_layers.{i}.stage.*", _block(facts, out, kernel), copies=depths[i + 1])
    weights += convolution("head.conv", facts.positive("hidden_size"), first * 2 ** len(ratios), kernel)
    return in_tower(name, tuple(weights), part="audio")


def vibevoice_decoder(facts: Facts, name: str) -> tuple[Weight, ...]:
    """The other way round: the deepest stage first, then for each ratio a convolution that stretches.

    Source: transformers 5.23, models/vibevoice_acoustic_tokenizer/modeling_vibevoice_acoustic_tokenizer.py
    `VibeVoiceAcousticTokenizerDecoderModel`
    """
    ratios, depths = facts.integers("downsampling_ratios")[::-1], facts.integers("depths")[::-1]
    last, kernel = facts.positive("num_filters"), facts.positive("kernel_size")
    if len(depths) != len(ratios) + 1:
        raise facts.wrong("depths", f"a list of {len(depths)}", f"one of {len(ratios) + 1}, one more than ratios")
    channels = last * 2 ** len(ratios)
    weights = [
        *convolution("stem.conv.conv", channels, facts.positive("hidden_size"), kernel),
        *in_tower("stem.stage.*", _block(facts, channels, kernel), copies=depths[0]),
    ]
    for i, ratio in enumerate(ratios):
        out = channels // 2
        stretching = (
            loose("convtr.convtr.weight", channels, out, 2 * ratio),
            loose("convtr.convtr.bias", out),
            *in_tower("stage.*", _block(facts, out, kernel), copies=depths[i + 1]),
        )
        weights += in_tower(f"conv_layers.{i}", stretching)
        channels = out
    weights += convolution("head.conv", facts.positive("channels"), last, kernel)
    return in_tower(name, tuple(weights), part="audio")


def _block(facts: Facts, channels: int, kernel: int) -> tuple[Weight, ...]:
    """A depthwise convolution and a plain MLP, each scaled channel by channel.

    Source: transformers 5.23, models/vibevoice_acoustic_tokenizer/modeling_vibevoice_acoustic_tokenizer.py
    `VibeVoiceAcousticTokenizerConvNext1dLayer`
    """
    width = facts.positive("ffn_expansion") * channels
    return (
        *norm("norm", channels),
        *norm("ffn_norm", channels),
        *plain_mlp(channels, width, up="ffn.linear1", down="ffn.linear2"),
        loose("gamma", channels),
        loose("ffn_gamma", channels),
        *convolution("mixer.conv", channels, 1, kernel),
    )
