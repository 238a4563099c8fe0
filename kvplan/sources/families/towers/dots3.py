"""Dots 3's towers for images and sound, as weights.

Source: transformers 5.23, models/dots3_note/modeling_dots3_note.py.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.latent import Routed, routed_mlp, sparse_layers
from kvplan.sources.families.bricks.mixers import Heads, equal_heads
from kvplan.sources.families.bricks.parts import gated_mlp, norm, projections, replicated
from kvplan.sources.families.bricks.per_layer import layer_overrides, own_or
from kvplan.sources.families.towers.bricks import in_tower, patches

_FUSED = ("qkv[q]", "qkv[k]", "qkv[v]", "proj")
_PYRAMID = (*([-1] * 25), *range(4, 65, 4), 64)
"""Experts of each layer where the config does not say; none is a dense layer."""
_OVERRIDABLE = frozenset(("num_local_experts", "num_experts_per_tok"))


def vision_tower(facts: Facts) -> tuple[Weight, ...]:
    """Patches, layers of which the later ones route over ever more experts, and the merger into the text model.

    Source: transformers 5.23, models/dots3_note/modeling_dots3_note.py `Dots3NoteVisionModel`
    """
    hidden, patch = facts.positive("hidden_size", "embed_dim"), facts.positive("patch_size")
    heads = equal_heads(facts, hidden, "num_attention_heads", "num_heads")
    outer, merge = facts.positive("adapter_out_dim"), facts.positive("adapter_merge_size")
    merged = hidden * merge**2
    blocks: tuple[Weight, ...] = ()
    counts = _experts_by_layer(facts)
    for num_experts in sorted(set(counts)):
        layer = _layer(facts, heads, hidden, num_experts)
        blocks += in_tower("blocks.*", layer, copies=counts.count(num_experts))
    weights = (
        *patches("patch_embed.proj", hidden, facts.positive("num_channels"), patch, patch),
        *norm("patch_embed.norm", hidden),
        *blocks,
        *norm("norm", hidden),
        *norm("merger.ln_q", hidden, bias=True),
        *replicated("merger.mlp.0", merged, merged, "vision", bias=True),
        *replicated("merger.mlp.2", outer, merged, "vision", bias=True),
    )
    return in_tower("vision_tower", weights)


def audio_tower(facts: Facts) -> tuple[Weight, ...]:
    """Three convolutions that shorten the sound, Whisper-like layers, and an adapter.

    Source: transformers 5.23, models/dots3_note/modeling_dots3_note.py `Dots3NoteAudioModel`
    """
    old = facts.nested("whisper_config")
    hidden = own_or(old, "d_model", facts.positive("hidden_size"))
    width = own_or(old, "encoder_ffn_dim", facts.positive("intermediate_size"))
    num_heads = own_or(old, "encoder_attention_heads", facts.positive("num_attention_heads"))
    bins = own_or(old, "num_mel_bins", facts.positive("feature_size"))
    if hidden % num_heads:
        raise facts.wrong("num_attention_heads", num_heads, f"a divisor of `hidden_size` {hidden}")
    channels = facts.positive("downsample_hidden_size")
    outer = facts.positive("adapter_out_dim", "adapter_output_size", "whisper_adapter_out_dim")
    stem = tuple(
        weight
        for i, before in enumerate((1, channels, channels))
        for weight in patches(f"conv_stem.convs.{i}", channels, before, 3, 3)
    )
    layer = _audio_layer(hidden, width, bias=facts.flag("attention_bias"))
    weights = (
        *stem,
        *replicated("conv_stem.conv_out", hidden, channels * ((bins + 7) // 8), "audio"),
        *in_tower(
            "layers.*",
            layer,
            part="audio",
            copies=own_or(old, "encoder_layers", facts.layer_count("num_hidden_layers")),
        ),
        *norm("layer_norm", hidden),
        *norm("adapter.norm", hidden, bias=True),
        *replicated("adapter.fc1", outer, hidden, "audio", bias=True),
        *replicated("adapter.fc2", outer, outer, "audio", bias=True),
    )
    return in_tower("audio_tower", weights, part="audio")


def _audio_layer(hidden: int, width: int, *, bias: bool) -> tuple[Weight, ...]:
    return (
        *replicated("self_attn.q_proj", hidden, hidden, "audio", bias=bias),
        *replicated("self_attn.k_proj", hidden, hidden, "audio"),
        *replicated("self_attn.v_proj", hidden, hidden, "audio", bias=bias),
        *replicated("self_attn.o_proj", hidden, hidden, "audio", bias=bias),
        *replicated("mlp.gate_up_proj", 2 * width, hidden, "audio", bias=True),
        *replicated("mlp.down_proj", hidden, width, "audio", bias=True),
        *norm("input_layernorm", hidden),
        *norm("post_attention_layernorm", hidden),
    )


def _layer(facts: Facts, heads: Heads, hidden: int, num_experts: int) -> tuple[Weight, ...]:
    """A layer with so many experts; none is one dense MLP."""
    bias = facts.flag("use_bias" if facts.has("use_bias") else "attention_bias")
    mlp_bias = facts.flag("mlp_bias")
    if num_experts:
        if mlp_bias:
            raise facts.wrong("mlp_bias", True, "false where layers have experts")
        routed = Routed(num_experts=num_experts, active=num_experts, width=facts.positive("moe_intermediate_size"))
        mlp = routed_mlp(routed, hidden)
    else:
        mlp = gated_mlp(hidden, facts.positive("intermediate_size"), bias=mlp_bias)
    return (
        *projections(heads, hidden, prefix="attn", names=_FUSED, qkv_bias=bias, out_bias=bias),
        *norm("attn.q_norm", heads.head_dim),
        *norm("attn.k_norm", heads.head_dim),
        *mlp,
        *norm("norm1", hidden),
        *norm("norm2", hidden),
    )


def _experts_by_layer(facts: Facts) -> list[int]:
    """How many experts each layer has: `pyramid_num_routed`, or `mlp_layer_types` and what single layers say."""
    num_layers = facts.layer_count("num_hidden_layers")
    if facts.has("mlp_layer_types") and not facts.has("pyramid_num_routed"):
        own = layer_overrides(facts, num_layers, _OVERRIDABLE)
        common = facts.positive("num_local_experts")
        counts = [own_or(own[i], "num_local_experts", common) if i in own else common for i in range(num_layers)]
        return [n if routes else 0 for n, routes in zip(counts, sparse_layers(facts, num_layers, dense=0), strict=True)]
    pyramid = facts.one_or_more("pyramid_num_routed") if facts.has("pyramid_num_routed") else _PYRAMID
    if len(pyramid) != num_layers:
        raise facts.wrong("num_hidden_layers", num_layers, f"{len(pyramid)}, as `pyramid_num_routed` is long")
    return [max(number, 0) for number in pyramid]
