"""The vision towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: patches of a few frames, fused heads, a merger of patches.

Source: transformers 5.23, models/{qwen2_vl,qwen2_5_vl,qwen3_vl}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import require_divisor
from kvplan.sources.families.bricks.parts import gated_mlp, norm, plain_mlp, replicated
from kvplan.sources.families.towers.bricks import fused_attention, in_tower, loose, patches


def qwen2_vl_tower(facts: Facts, name: str = "visual") -> tuple[Weight, ...]:
    """Qwen2-VL: LayerNorm and a plain MLP; `hidden_size` is what the text model takes, `embed_dim` the tower's own.

    Source: transformers 5.23, models/qwen2_vl/modeling_qwen2_vl.py `Qwen2VisionTransformerPretrainedModel`
    """
    hidden = facts.positive("embed_dim")
    mlp = plain_mlp(hidden, facts.times("mlp_ratio", hidden), up="mlp.fc1", down="mlp.fc2")
    block = (*_norms(hidden, bias=True), *fused_attention(facts, hidden), *mlp)
    merger = _merger(facts, hidden, facts.positive("hidden_size"), bias=True)
    return in_tower(name, (*_patches(facts, hidden), *_blocks(facts, block), *merger))


def qwen2_5_vl_tower(facts: Facts, name: str = "visual", *, num_kv_heads: int | None = None) -> tuple[Weight, ...]:
    """Qwen2.5-VL: RMSNorm and a gated MLP; most layers look at a window of patches, which weighs nothing.

    `num_kv_heads` is how many heads of keys and values there are where queries share them.

    Source: transformers 5.23, models/qwen2_5_vl/modeling_qwen2_5_vl.py `Qwen2_5_VisionTransformerPretrainedModel`
    """
    hidden = facts.positive("hidden_size")
    mlp = gated_mlp(hidden, facts.positive("intermediate_size"), bias=True)
    block = (*_norms(hidden), *fused_attention(facts, hidden, num_kv_heads=num_kv_heads), *mlp)
    merger = _merger(facts, hidden, facts.positive("out_hidden_size"))
    return in_tower(name, (*_patches(facts, hidden), *_blocks(facts, block), *merger))


def exaone4_5_tower(facts: Facts, name: str = "visual") -> tuple[Weight, ...]:
    """EXAONE 4.5: Qwen2.5-VL's tower with grouped heads.

    Source: transformers 5.23, models/exaone4_5/modeling_exaone4_5.py `Exaone4_5_VisionAttention`
    """
    num_kv_heads = facts.positive("num_key_value_heads")
    require_divisor(facts, "num_key_value_heads", num_kv_heads, "num_heads", facts.positive("num_heads"))
    return qwen2_5_vl_tower(facts, name, num_kv_heads=num_kv_heads)


def qwen3_vl_tower(
    facts: Facts,
    name: str = "visual",
    *,
    merging: tuple[str, str, str] = ("norm", "linear_fc1", "linear_fc2"),
    deeper: str = "deepstack_merger_list",
) -> tuple[Weight, ...]:
    """Qwen3-VL: learnt positions, and a merger for each layer of `deepstack_visual_indexes` too, where there are any.

    Source: transformers 5.23, models/qwen3_vl/modeling_qwen3_vl.py `Qwen3VLVisionModel`
    """
    hidden = facts.positive("hidden_size")
    mlp = plain_mlp(hidden, facts.positive("intermediate_size"), up="mlp.linear_fc1", down="mlp.linear_fc2")
    block = (*_norms(hidden, bias=True), *fused_attention(facts, hidden), *mlp)
    positions = (loose("pos_embed.weight", facts.positive("num_position_embeddings"), hidden),)
    merged, out = hidden * facts.positive("spatial_merge_size") ** 2, facts.positive("out_hidden_size")
    before, first, second = merging
    linears = (
        *replicated(first, merged, merged, "vision", bias=True),
        *replicated(second, out, merged, "vision", bias=True),
    )
    deep = in_tower(
        f"{deeper}.*",
        (*norm(before, merged, bias=True), *linears),
        copies=len(facts.integers("deepstack_visual_indexes")),
    )
    merger = in_tower("merger", (*norm(before, hidden, bias=True), *linears))
    return in_tower(name, (*_patches(facts, hidden, bias=True), *positions, *_blocks(facts, block), *merger, *deep))


def _patches(facts: Facts, hidden: int, *, bias: bool = False) -> tuple[Weight, ...]:
    frames, patch = facts.positive("temporal_patch_size"), facts.positive("patch_size")
    return patches("patch_embed.proj", hidden, facts.positive("in_channels"), frames, patch, patch, bias=bias)


def _norms(hidden: int, *, bias: bool = False) -> tuple[Weight, ...]:
    return (*norm("norm1", hidden, bias=bias), *norm("norm2", hidden, bias=bias))


def _blocks(facts: Facts, block: tuple[Weight, ...]) -> tuple[Weight, ...]:
    return in_tower("blocks.*", block, copies=facts.layer_count("depth"))


def _merger(facts: Facts, hidden: int, out: int, *, bias: bool = False) -> tuple[Weight, ...]:
    """Neighbouring patches side by side, through two linears into the text model."""
    merged = hidden * facts.positive("spatial_merge_size") ** 2
    return (
        *norm("merger.ln_q", hidden, bias=bias),
        *replicated("merger.mlp.0", merged, merged, "vision", bias=True),
        *replicated("merger.mlp.2", out, merged, "vision", bias=True),
    )
