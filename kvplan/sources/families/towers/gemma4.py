"""Gemma 4's towers for images and sound, as weights, and the plain embedders of its unified kind.

Source: transformers 5.23, models/gemma4/modeling_gemma4.py, models/gemma4_unified/modeling_gemma4_unified.py.
"""

from kvplan.core.model import Part, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import require_divisor
from kvplan.sources.families.bricks.parts import norm, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose

_BOUNDS = ("input_min", "input_max", "output_min", "output_max")


def embedder(prefix: str, width: int, text_hidden: int, *, part: Part = "vision") -> tuple[Weight, ...]:
    """What takes a tower's output into the text model; its norm learns nothing."""
    return replicated(f"{prefix}.embedding_projection", text_hidden, width, part)


def vision_tower(facts: Facts) -> tuple[Weight, ...]:
    """Patches, a table of positions for each axis, and layers as in the text model.

    Source: transformers 5.23, models/gemma4/modeling_gemma4.py `Gemma4VisionModel`
    """
    hidden, width, head_dim = (facts.positive(key) for key in ("hidden_size", "intermediate_size", "head_dim"))
    num_heads, kv_heads = facts.positive("num_attention_heads"), facts.positive("num_key_value_heads")
    require_divisor(facts, "num_key_value_heads", kv_heads, "num_attention_heads", num_heads)
    clipped = facts.flag("use_clipped_linears")
    layer = (
        *_linear("self_attn.q_proj", num_heads * head_dim, hidden, clipped),
        *_linear("self_attn.k_proj", kv_heads * head_dim, hidden, clipped),
        *_linear("self_attn.v_proj", kv_heads * head_dim, hidden, clipped),
        *_linear("self_attn.o_proj", hidden, num_heads * head_dim, clipped),
        *norm("self_attn.q_norm", head_dim),
        *norm("self_attn.k_norm", head_dim),
        *_linear("mlp.gate_proj", width, hidden, clipped),
        *_linear("mlp.up_proj", width, hidden, clipped),
        *_linear("mlp.down_proj", hidden, width, clipped),
        *norm("input_layernorm", hidden),
        *norm("post_attention_layernorm", hidden),
        *norm("pre_feedforward_layernorm", hidden),
        *norm("post_feedforward_layernorm", hidden),
    )
    standard = tuple(
        Weight(name=f"vision_tower.{name}", shape=(hidden,), part="vision", buffer=True)
        for name in ("std_bias", "std_scale")
    )
    positions = facts.positive("position_embedding_size")
    return (
        *replicated("vision_tower.patch_embedder.input_proj", hidden, 3 * facts.positive("patch_size") ** 2, "vision"),
        loose("vision_tower.patch_embedder.position_embedding_table", 2, positions, hidden),
        *in_tower("vision_tower.encoder.layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *(standard if facts.flag("standardize") else ()),
    )


def audio_tower(facts: Facts) -> tuple[Weight, ...]:
    """Two convolutions that shorten the sound, conformer layers, and a projection.

    Source: transformers 5.23, models/gemma4/modeling_gemma4.py `Gemma4AudioModel`
    """
    hidden, outer = facts.positive("hidden_size"), facts.positive("output_proj_dims")
    channels = facts.one_or_more("subsampling_conv_channels")
    if len(channels) != 2 or min(channels) < 1:
        raise facts.wrong("subsampling_conv_channels", channels, "two numbers from 1")
    first, second = channels
    start = (
        loose("layer0.conv.weight", first, 1, 3, 3),
        loose("layer0.norm.weight", first),
        loose("layer1.conv.weight", second, first, 3, 3),
        loose("layer1.norm.weight", second),
        *replicated("input_proj_linear", hidden, first // 4 * second, "audio"),
    )
    return (
        *in_tower("audio_tower.subsample_conv_projection", start, part="audio"),
        *in_tower(
            "audio_tower.layers.*",
            _conformer(facts, hidden),
            part="audio",
            copies=facts.layer_count("num_hidden_layers"),
        ),
        *replicated("audio_tower.output_proj", outer, hidden, "audio", bias=True),
    )


def unified_vision(facts: Facts, text_hidden: int) -> tuple[Weight, ...]:
    """One dense layer over raw patches, with positions and norms.

    Source: transformers 5.23, models/gemma4_unified/modeling_gemma4_unified.py `Gemma4UnifiedVisionEmbedder`
    """
    patch = (facts.positive("patch_size") * facts.positive("pooling_kernel_size")) ** 2 * 3
    width, outer = facts.positive("mm_embed_dim"), facts.positive("output_proj_dims")
    weights = (
        *norm("patch_ln1", patch, bias=True),
        *replicated("patch_dense", width, patch, "vision", bias=True),
        *norm("patch_ln2", width, bias=True),
        loose("pos_embedding", facts.positive("mm_posemb_size"), 2, width),
        *norm("pos_norm", width, bias=True),
        *embedder("multimodal_embedder", outer, text_hidden),
    )
    return in_tower("embed_vision", weights)


def unified_audio(facts: Facts, text_hidden: int) -> tuple[Weight, ...]:
    """One projection of raw frames.

    Source: transformers 5.23, models/gemma4_unified/configuration_gemma4_unified.py `Gemma4UnifiedAudioConfig`
    """
    width = facts.positive("audio_embed_dim")
    for key in ("audio_samples_per_token", "hidden_size", "output_proj_dims"):
        width = facts.positive(key, default=width)
    return embedder("embed_audio", width, text_hidden, part="audio")


def _conformer(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    clipped = facts.flag("use_clipped_linears")
    num_heads = facts.positive("num_attention_heads")
    head_dim = hidden // num_heads
    width, feed_forward = num_heads * head_dim, _feed_forward(hidden, clipped)
    return (
        *in_tower("feed_forward1", feed_forward, part="audio"),
        *in_tower("feed_forward2", feed_forward, part="audio"),
        *(w for name in "qkv" for w in _linear(f"self_attn.{name}_proj", width, hidden, clipped)),
        *_linear("self_attn.post", hidden, hidden, clipped),
        *replicated("self_attn.relative_k_proj", width, hidden, "audio"),
        loose("self_attn.per_dim_scale", head_dim, part="audio"),
        *_linear("lconv1d.linear_start", 2 * hidden, hidden, clipped),
        *_linear("lconv1d.linear_end", hidden, hidden, clipped),
        loose("lconv1d.depthwise_conv1d.weight", hidden, 1, facts.positive("conv_kernel_size"), part="audio"),
        *norm("lconv1d.pre_layer_norm", hidden),
        *norm("lconv1d.conv_norm", hidden),
        *norm("norm_pre_attn", hidden),
        *norm("norm_post_attn", hidden),
        *norm("norm_out", hidden),
    )


def _feed_forward(hidden: int, clipped: bool) -> tuple[Weight, ...]:
    return (
        *_linear("ffw_layer_1", 4 * hidden, hidden, clipped),
        *_linear("ffw_layer_2", hidden, 4 * hidden, clipped),
        *norm("pre_layer_norm", hidden),
        *norm("post_layer_norm", hidden),
    )


def _linear(name: str, rows: int, columns: int, clipped: bool) -> tuple[Weight, ...]:
    """A linear layer; a clipped one stores the bounds of what goes in and comes out."""
    bounds = tuple(Weight(name=f"{name}.{bound}", shape=(), part="vision", buffer=True) for bound in _BOUNDS)
    return (*replicated(f"{name}.linear", rows, columns, "vision"), *(bounds if clipped else ()))
