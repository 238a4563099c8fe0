"""Bricks of towers: weights that see or hear, in one part, each name under the tower's own."""

from dataclasses import replace

from kvplan.core.model import Part, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads, equal_heads
from kvplan.sources.families.bricks.parts import norm, plain_mlp, projections


def loose(name: str, *shape: int, part: Part = "vision") -> Weight:
    """One tensor that is no linear layer's: an embedding, a convolution, a learnt query."""
    return Weight(name=name, shape=shape, part=part)


def in_tower(prefix: str, weights: tuple[Weight, ...], *, part: Part = "vision", copies: int = 1) -> tuple[Weight, ...]:
    """The weights as the tower's own, in its part: once for each of `copies` equal layers."""
    if not copies:
        return ()
    return tuple(
        replace(
            w,
            name=f"{prefix}.{w.name}",
            part=part,
            copies=copies * w.copies,
            active_copies=None if w.active_copies is None else copies * w.active_copies,
        )
        for w in weights
    )


def convolution(
    name: str, out: int, seen: int, *kernel: int, bias: bool = True, part: Part = "audio"
) -> tuple[Weight, ...]:
    """A convolution from `seen` channels to `out`; of a grouped one, `seen` are those of a group."""
    matrix = loose(f"{name}.weight", out, seen, *kernel, part=part)
    return (matrix, loose(f"{name}.bias", out, part=part)) if bias else (matrix,)


def patches(name: str, hidden: int, channels: int, *kernel: int, bias: bool = True) -> tuple[Weight, ...]:
    """The convolution that makes a vector of each patch."""
    matrix = loose(f"{name}.weight", hidden, channels, *kernel)
    return (matrix, loose(f"{name}.bias", hidden)) if bias else (matrix,)


def fused_attention(
    facts: Facts,
    hidden: int,
    *,
    heads_key: str = "num_heads",
    num_kv_heads: int | None = None,
    qkv_bias: bool = True,
    out_bias: bool = True,
) -> tuple[Weight, ...]:
    """Self-attention of heads (their number at `heads_key`) that share `hidden`, its projections in one `attn.qkv`."""
    heads = equal_heads(facts, hidden, heads_key)
    heads = replace(heads, num_kv_heads=num_kv_heads or heads.num_kv_heads)
    names = ("qkv[q]", "qkv[k]", "qkv[v]", "proj")
    return projections(heads, hidden, prefix="attn", names=names, qkv_bias=qkv_bias, out_bias=out_bias)


def vit_layer(heads: Heads, hidden: int, width: int, *, out: str = "out_proj") -> tuple[Weight, ...]:
    """A layer of CLIP and its kin: separate projections, a plain MLP, LayerNorm before each half, biases everywhere.

    Source: transformers 5.23, models/clip/modeling_clip.py `CLIPEncoderLayer`
    """
    return (
        *projections(heads, hidden, names=("q_proj", "k_proj", "v_proj", out), qkv_bias=True, out_bias=True),
        *plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2"),
        *norm("layer_norm1", hidden, bias=True),
        *norm("layer_norm2", hidden, bias=True),
    )


def grid(facts: Facts, image: int, patch: int) -> int:
    """How many patches of a square image there are. Raises InputError where not even one fits."""
    if patch > image:
        raise facts.wrong("patch_size", patch, f"at most the size of an image, {image}")
    return (image // patch) ** 2


def sizes(facts: Facts, key: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
    """The list of sizes at `key`, each from 1; `default` where neither config nor class has one."""
    found = facts.integers(key) or default
    if any(size < 1 for size in found):
        raise facts.wrong(key, found, "a list of numbers from 1")
    return found
