"""Decode as real models call it: grouped heads, 8-bit caches, windows with sinks and soft cap, odd dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from kvplan.validate.aot.cases import ALL, HOPPER_UP, Case
from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.decode import plan_decode
from kvplan.validate.kernels.launch import Config, Launch
from kvplan.validate.kernels.select import Choice

FP8_TARGETS = ("sm_90", "sm_100")  # e4m3 is not a type of sm_80, and gfx942 has another one


def plan(
    *,
    group: int = 8,
    key_dim: int = 128,
    value_dim: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    page_size: int = 16,
    config: Config | None = None,
    tma: bool = False,
    **options: object,
) -> Callable[[], Sequence[Launch]]:
    """A decode of 4 sequences with 8 KV heads over a small pool; only types and shapes matter to the compiler."""

    def launches() -> Sequence[Launch]:
        cache = PagedCache.allocate(
            num_pages=8,
            page_size=page_size,
            num_kv_heads=8,
            key_dim=key_dim,
            value_dim=value_dim or key_dim,
            dtype=dtype,
            num_seqs=4,
            max_tokens=32_768,
            device="cpu",
        )
        q_BHD = torch.empty(4, 8 * group, key_dim, dtype=torch.bfloat16)
        given = dict(options)
        if given.pop("sinks", False):
            given["sinks_H"] = torch.empty(8 * group)
        choice = Choice("decode_tma" if tma else "decode", config, "given") if config else None
        return plan_decode(q_BHD, cache, scale=0.09, choice=choice, **given)[1]  # type: ignore[arg-type]

    return launches


def tile_bytes(block_n: int, key_dim: int, stored_bytes: int, value_dim: int = 0) -> int:
    """Bytes of keys and values that one tile reads."""
    return block_n * (key_dim + (value_dim or key_dim)) * stored_bytes


CASES: tuple[Case, ...] = ()
