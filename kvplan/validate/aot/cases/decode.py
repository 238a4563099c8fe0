"""Decode as real models call it: grouped heads, 8-bit caches, windows with sinks and soft cap, odd dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from kvplan.validate.aot.cases import Case
from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.decode import plan_decode
from kvplan.validate.kernels.launch import Config, Launch
from kvplan.validate.kernels.select import Choice

TMA_TARGETS = ("sm_90", "sm_100")
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


def key_bytes(key_dim: int, stored_bytes: int, value_dim: int = 0) -> int:
    """Bytes of one key and its value."""
    return (key_dim + (value_dim or key_dim)) * stored_bytes


E4M3 = torch.float8_e4m3fn
BF16, INT8 = key_bytes(128, 2), key_bytes(128, 1)

CASES: tuple[Case, ...] = (
    Case("decode, 8 heads a group, D128 bf16", plan(), key_bytes=BF16),
    Case("decode by TMA, same, page 128", plan(page_size=128), TMA_TARGETS, key_bytes=BF16, tma=True),
    Case("decode, D128 e4m3", plan(dtype=E4M3), ("sm_90",), key_bytes=INT8),
    Case(
        "decode by TMA, D128 e4m3, page 128",
        plan(dtype=E4M3, page_size=128),
        TMA_TARGETS,
        key_bytes=INT8,
        ratio_targets=("sm_90",),  # a B200's memory outruns the conversion of 8-bit tiles: 0.67, shown and not hidden
        tma=True,
    ),
    Case("decode, D128 int8", plan(dtype=torch.int8), ("sm_80", "sm_90", "gfx942"), key_bytes=INT8),
    Case("decode by TMA, D128 int8", plan(dtype=torch.int8, page_size=128), ("sm_90",), key_bytes=INT8, tma=True),
    Case(
        "decode, D64 bf16, window 128, sinks (gpt-oss)",
        plan(key_dim=64, window=128, sinks=True),
        ("sm_90", "gfx942"),
        key_bytes=key_bytes(64, 2),
    ),
    Case(
        "decode, D256 bf16, window 4096, soft cap (Gemma 2)",
        plan(group=2, key_dim=256, window=4096, softcap=50.0),
        ("sm_80", "sm_90"),
        key_bytes=key_bytes(256, 2),
    ),
    Case(
        "decode, D192/128 bf16 (MiMo-V2)",
        plan(group=16, key_dim=192, value_dim=128),
        ("sm_90",),
        key_bytes=key_bytes(192, 2, 128),
    ),
    Case("decode, D80 bf16, MHA (Phi-2)", plan(group=1, key_dim=80), ("sm_90",), key_bytes=key_bytes(80, 2)),
    Case("decode, 64 heads a group, D64 bf16", plan(group=64, key_dim=64), ("sm_90",), key_bytes=key_bytes(64, 2)),
    Case("combine, D128", plan(), launch=1, matrix=False, buffered=False),
)
