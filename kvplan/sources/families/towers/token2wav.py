"""What makes speech of Qwen2.5-Omni's codes: a diffusion transformer draws a spectrogram, BigVGAN plays it.

All of it stays in fp32, whatever the model's dtype.

Source: transformers 5.23, models/qwen2_5_omni/modeling_qwen2_5_omni.py `Qwen2_5OmniForConditionalGeneration`
"""

from dataclasses import replace
from itertools import pairwise

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import require_divisor
from kvplan.sources.families.bricks.parts import plain_mlp, replicated
from kvplan.sources.families.towers.bricks import convolution, in_tower, loose

_TIME_WIDTH = 256
_ENDS_KERNEL = 7
_CONVOLUTIONS = 3


def qwen2_5_token2wav(facts: Facts, name: str = "token2wav") -> tuple[Weight, ...]:
    """Both of its models.

    Source: transformers 5.23, models/qwen2_5_omni/modeling_qwen2_5_omni.py `Qwen2_5OmniToken2WavModel`
    """
    weights = (
        *in_tower("code2wav_dit_model", _diffusion(facts.part("dit_config"))),
        *in_tower("code2wav_bigvgan_model", _bigvgan(facts.part("bigvgan_config"))),
    )
    return tuple(replace(weight, fixed_bits=32) for weight in in_tower(name, weights, part="audio"))


def _diffusion(facts: Facts) -> tuple[Weight, ...]:
    """Layers whose norms are scaled by how far the drawing has come.

    Source: transformers 5.23, models/qwen2_5_omni/modeling_qwen2_5_omni.py `Qwen2_5OmniToken2WavDiTModel`
    """
    hidden, mel, words = facts.positive("hidden_size"), facts.positive("mel_dim"), facts.positive("emb_dim")
    heads = facts.positive("num_attention_heads") * facts.positive("head_dim")
    taken = mel + facts.positive("enc_dim") + facts.positive("enc_emb_dim") + words
    block = (
        *_linear("attn_norm.linear", 6 * hidden, hidden),
        *(weight for piece in ("to_q", "to_k", "to_v") for weight in _linear(f"attn.{piece}", heads, hidden)),
        *_linear("attn.to_out.0", hidden, heads),
        *plain_mlp(hidden, facts.positive("ff_mult") * hidden, up="ff.ff.0", down="ff.ff.3"),
    )
    return (
        *_linear("time_embed.time_mlp.0", hidden, _TIME_WIDTH),
        *_linear("time_embed.time_mlp.2", hidden, hidden),
        loose("text_embed.codec_embed.weight", facts.positive("num_embeds") + 1, words),
        *_linear("input_embed.proj", hidden, taken),
        *in_tower("input_embed.spk_encoder", _speaker(facts, mel)),
        *in_tower("transformer_blocks.*", block, copies=facts.layer_count("num_hidden_layers")),
        *_linear("norm_out.linear", 2 * hidden, hidden),
        *_linear("proj_out", mel, hidden),
    )


def _speaker(facts: Facts, mel: int) -> tuple[Weight, ...]:
    """What hears whose voice it is: convolutions over time, in each block of them one with parts of its channels.

    Source: transformers 5.23, models/qwen2_5_omni/modeling_qwen2_5_omni.py `ECAPA_TimeDelayNet`
    """
    channels, kernels = facts.integers("enc_channels"), facts.integers("enc_kernel_sizes")
    if not len(channels) == len(kernels) == len(facts.integers("enc_dilations")):
        raise facts.wrong("enc_channels", f"a list of {len(channels)}", "as long as kernel sizes and dilations are")
    last, attended = channels[-1], facts.positive("enc_attention_channels")
    scale, squeezed = facts.positive("enc_res2net_scale"), facts.positive("enc_se_channels")
    blocks = [convolution("blocks.0.conv", channels[0], mel, kernels[0])]
    for i, (seen, out) in enumerate(pairwise(channels[:-1]), start=1):
        require_divisor(facts, "enc_res2net_scale", scale, "channels", out)
        part = convolution("res2net_block.blocks.*.conv", out // scale, out // scale, kernels[i])
        block = (
            *convolution("tdnn1.conv", out, seen, 1),
            *(replace(weight, copies=scale - 1) for weight in part if scale > 1),
            *convolution("tdnn2.conv", out, out, 1),
            *convolution("se_block.conv1", squeezed, out, 1),
            *convolution("se_block.conv2", out, squeezed, 1),
        )
        blocks.append(in_tower(f"blocks.{i}", block))
    return (
        *(weight for block in blocks for weight in block),
        *convolution("mfa.conv", last, last, kernels[-1]),
        *convolution("asp.tdnn.conv", attended, 3 * last, 1),
        *convolution("asp.conv", last, attended, 1),
        *convolution("fc", facts.positive("enc_dim"), 2 * last, 1),
    )


def _bigvgan(facts: Facts) -> tuple[Weight, ...]:
    """Convolutions that stretch time, and after each of them some that round the wave off.

    Source: transformers 5.23, models/qwen2_5_omni/modeling_qwen2_5_omni.py `Qwen2_5OmniToken2WavBigVGANModel`
    """
    first, kernels = facts.positive("upsample_initial_channel"), facts.integers("upsample_kernel_sizes")
    sizes = facts.integers("resblock_kernel_sizes")
    if len(kernels) != len(facts.integers("upsample_rates")):
        raise facts.wrong("upsample_kernel_sizes", f"a list of {len(kernels)}", "as long as `upsample_rates`")
    if facts.has("resblock_dilation_sizes") and facts.length("resblock_dilation_sizes") != len(sizes):
        raise facts.wrong("resblock_dilation_sizes", "a list of another length", "as long as `resblock_kernel_sizes`")
    weights = [*convolution("conv_pre", first, facts.positive("mel_dim"), _ENDS_KERNEL)]
    for i, kernel in enumerate(kernels):
        seen, out = first // 2**i, first // 2 ** (i + 1)
        weights += (loose(f"ups.{i}.0.weight", seen, out, kernel), loose(f"ups.{i}.0.bias", out))
        for j, size in enumerate(sizes):
            weights += in_tower(f"resblocks.{i * len(sizes) + j}", _rounding(out, size))
    end = first // 2 ** len(kernels)
    return (
        *weights,
        *in_tower("activation_post.act", snake(end)),
        *convolution("conv_post", 1, end, _ENDS_KERNEL, bias=False),
    )


def _rounding(channels: int, kernel: int) -> tuple[Weight, ...]:
    one = convolution("*", channels, channels, kernel)
    return (
        *in_tower("convs1", one, copies=_CONVOLUTIONS),
        *in_tower("convs2", one, copies=_CONVOLUTIONS),
        *in_tower("activations.*.act", snake(channels), copies=2 * _CONVOLUTIONS),
    )


def snake(channels: int) -> tuple[Weight, ...]:
    """An activation that waves: a frequency and a height for each channel."""
    return (loose("alpha", channels), loose("beta", channels))


def _linear(name: str, out: int, seen: int) -> tuple[Weight, ...]:
    return replicated(name, out, seen, "audio", bias=True)
