"""One decode as the caller gave it: what is checked, what the host folds, and what the compiler must know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kvplan.validate.kernels import select
from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.launch import Config, Unsupported, padded
from kvplan.validate.kernels.tile import OPERANDS, operand_type, score_factors

#: From so many elements on, a pool's offsets need 64 bits.
WIDE_ELEMENTS = 2**31


@dataclass(frozen=True)
class DecodeCall:
    """One decode of B sequences: what the caller gave, checked once."""

    q_BHD: Tensor
    cache: PagedCache
    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks_H: Tensor | None = None

    def __post_init__(self) -> None:
        heads, kv_heads = self.q_BHD.shape[1], self.cache.num_kv_heads
        if heads % kv_heads:
            raise Unsupported(f"{heads} query heads do not share {kv_heads} KV heads evenly")
        if self.q_BHD.shape[2] != self.cache.keys.shape[3]:
            raise Unsupported(f"queries have {self.q_BHD.shape[2]} dimensions, keys {self.cache.keys.shape[3]}")
        if self.q_BHD.shape[0] != self.cache.block_table.shape[0]:
            raise Unsupported(f"{self.q_BHD.shape[0]} queries for {self.cache.block_table.shape[0]} sequences")
        if self.q_BHD.dtype not in OPERANDS:
            raise Unsupported(f"queries are {self.q_BHD.dtype}; bf16, fp16 and fp32 are supported")
        if self.window is not None and self.window < 1:
            raise Unsupported(f"a window of {self.window} keys sees nothing")

    @property
    def problem(self) -> select.Problem:
        """The shape of the call, for choosing a kernel and its configuration."""
        keys, values = self.cache.keys, self.cache.values
        longest = self.cache.block_table.shape[1] * self.cache.page_size
        return select.Problem(
            operation="decode",
            batch=self.q_BHD.shape[0],
            num_heads=self.q_BHD.shape[1],
            num_kv_heads=self.cache.num_kv_heads,
            key_dim=keys.shape[3],
            value_dim=values.shape[3],
            stored_bits=min(keys.dtype.itemsize * 8, 16),  # fp32 is for the interpreter
            page_size=self.cache.page_size,
            num_keys=min(longest, self.window) if self.window else longest,
        )

    def numbers(self) -> dict[str, float | int]:
        """The factors that the host folds: score = product · scale · key scale, in base 2, or its soft cap."""
        return score_factors(self.scale * self.cache.key_scale, self.softcap) | {
            "value_scale": self.cache.value_scale,
            "window": self.window or 0,
            "num_kv_heads": self.cache.num_kv_heads,
        }

    def strides(self) -> dict[str, int | tuple[int, ...]]:
        """Strides in elements (page, token, head) of the pools and the scales, and of the table."""
        keys, values, scales = self.cache.keys, self.cache.values, self.cache.key_scales
        return {
            "k_strides": keys.stride()[:3],
            "v_strides": values.stride()[:3],
            "s_strides": scales.stride() if scales is not None else (0, 0, 0),
            "table_stride": self.cache.block_table.stride(0),
        }

    def constants(self, config: Config) -> dict[str, Any]:
        """What the compiler must know: dimensions, tiles and options."""
        key_dim, value_dim = self.cache.keys.shape[3], self.cache.values.shape[3]
        group = self.q_BHD.shape[1] // self.cache.num_kv_heads
        return {
            "GROUP": group,
            "D": key_dim,
            "D_PADDED": padded(key_dim),
            "E": value_dim,
            "E_PADDED": padded(value_dim),
            "BLOCK_M": config.block_m or self.problem.rows,
            "BLOCK_N": config.block_n,
            "PAGE": self.cache.page_size,
            "OPERAND": operand_type(self.q_BHD.dtype, self.cache.keys.dtype),
            "WINDOWED": self.window is not None,
            "CAPPED": self.softcap is not None,
            "SINKS": self.sinks_H is not None,
            "TOKEN_SCALES": self.cache.key_scales is not None,
            "WIDE": max(self.cache.keys.numel(), self.cache.values.numel()) >= WIDE_ELEMENTS,
            "STAGES": config.num_stages,
        }

    def pointers(self) -> dict[str, Tensor | None]:
        """The tensors that every variant reads."""
        return {
            "q_ptr": self.q_BHD.contiguous(),
            "k_ptr": self.cache.keys,
            "v_ptr": self.cache.values,
            "k_scales_ptr": self.cache.key_scales,
            "v_scales_ptr": self.cache.value_scales,
            "table_ptr": self.cache.block_table,
            "lengths_ptr": self.cache.lengths,
            "sinks_ptr": self.sinks_H,
        }
