"""Bricks of delta nets: recurrent mixers that overwrite what a head's state holds under a key.

Source: Gated Delta Networks, https://arxiv.org/abs/2412.06464; Kimi Linear, https://arxiv.org/abs/2510.26692;
transformers 5.23, models/{qwen3_next,kimi_linear}/.
"""

from dataclasses import dataclass
from typing import Literal

from kvplan.core.mixers import LinearAttention
from kvplan.core.model import Split, Weight
from kvplan.sources.families.bricks.parts import Half, column, norm, row
from kvplan.sources.families.hybrids.mamba import convolution


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaHeads:
    """The sizes of a delta net."""

    num_heads: int
    """Heads of values: as many states."""
    num_key_heads: int
    key_dim: int
    value_dim: int
    columns: int
    """Tokens that the convolution over q, k and v sees."""

    @property
    def key_width(self) -> int:
        """Width of all queries, and of all keys."""
        return self.num_key_heads * self.key_dim

    @property
    def value_width(self) -> int:
        """Width of all values."""
        return self.num_heads * self.value_dim

    def mixer(self, recurrence: Literal["gated_delta", "kda"]) -> LinearAttention:
        """The mixer with these sizes; Kimi's delta attention has a decay for each element of a key.

        Its q, k and v have a convolution each, of as many channels together as one over all three.
        """
        return LinearAttention(
            num_heads=self.num_heads,
            num_key_heads=self.num_key_heads,
            key_dim=self.key_dim,
            value_dim=self.value_dim,
            conv_channels=2 * self.key_width + self.value_width,
            conv_columns=self.columns,
            recurrence=recurrence,
        )


def delta_half(
    heads: DeltaHeads,
    hidden: int,
    *,
    prefix: str = "linear_attn",
    qkv: tuple[str, str, str] = ("q_proj", "k_proj", "v_proj"),
    gate: str = "g_proj",
    beta: str = "b_proj",
    decay: str = "a_proj",
    norm_name: str = "norm",
    out: str = "out_proj",
) -> Half:
    """The gated delta net: one β and one decay a head, and a gate of the output.

    Source: transformers 5.23, models/qwen3_next/modeling_qwen3_next.py `Qwen3NextGatedDeltaNet`
    """
    rest = (
        *column(f"{prefix}.{gate}", heads.value_width, hidden, "attention", units=heads.num_heads),
        *column(f"{prefix}.{beta}", heads.num_heads, hidden, "attention"),
        *column(f"{prefix}.{decay}", heads.num_heads, hidden, "attention"),
        by_head(f"{prefix}.dt_bias", heads.num_heads),
        by_head(f"{prefix}.A_log", heads.num_heads),
    )
    return Half((*delta_core(heads, hidden, prefix, qkv, norm_name, out), *rest), (heads.mixer("gated_delta"),))


def delta_core(
    heads: DeltaHeads, hidden: int, prefix: str, qkv: tuple[str, str, str], norm_name: str, out: str
) -> tuple[Weight, ...]:
    """What every delta net has: q, k and v, the convolution over them, a norm over each head's output, the way out."""
    q, k, v = (f"{prefix}.{name}" for name in qkv)
    keys, values = (heads.key_width, heads.num_key_heads), (heads.value_width, heads.num_heads)
    return (
        *column(q, keys[0], hidden, "attention", units=keys[1]),
        *column(k, keys[0], hidden, "attention", units=keys[1]),
        *column(v, values[0], hidden, "attention", units=values[1]),
        *convolution(f"{prefix}.conv1d", {"[q]": keys, "[k]": keys, "[v]": values}, heads.columns, bias=False),
        *norm(f"{prefix}.{norm_name}", heads.value_dim),
        *row(f"{prefix}.{out}", hidden, heads.value_width, "attention", units=heads.num_heads),
    )


def by_head(name: str, *shape: int, axis: int = 0, units: int | None = None) -> Weight:
    """A tensor that ranks share out by heads along `axis`."""
    return Weight(name=name, shape=shape, part="attention", split=Split(axis, units or shape[axis]))
