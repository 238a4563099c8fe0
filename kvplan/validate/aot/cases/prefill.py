"""Prefill as real models call it: by pages and by TMA, windows, an 8-bit cache, wide and narrow heads, an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from kvplan.validate.aot.cases import Case
from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.launch import Launch
from kvplan.validate.kernels.prefill import plan_prefill
from kvplan.validate.kernels.prefill_call import TMA_TARGETS, Pattern, Ragged

KV_HEADS = 8


def plan(
    *,
    group: int = 8,
    key_dim: int = 128,
    value_dim: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    page_size: int = 16,
    **options: object,
) -> Callable[[], Sequence[Launch]]:
    """A prefill of 4 sequences; only types and shapes matter to the compiler. Page size 0: contiguous keys."""

    def launches() -> Sequence[Launch]:
        dims = key_dim, value_dim or key_dim
        kv: PagedCache | tuple[torch.Tensor, torch.Tensor]
        if page_size:
            kv = PagedCache.allocate(
                num_pages=8,
                page_size=page_size,
                num_kv_heads=KV_HEADS,
                key_dim=dims[0],
                value_dim=dims[1],
                dtype=dtype,
                num_seqs=4,
                max_tokens=32_768,
                device="cpu",
            )
        else:
            kv = torch.empty(64, KV_HEADS, dims[0], dtype=dtype), torch.empty(64, KV_HEADS, dims[1], dtype=dtype)
        q_THD = torch.empty(64, KV_HEADS * group, key_dim, dtype=torch.bfloat16)
        return plan_prefill(q_THD, kv, Ragged.pack([16] * 4), scale=0.09, **options)[1]  # type: ignore[arg-type]

    return launches


HOPPER = ("sm_90",)

CASES: tuple[Case, ...] = (
    Case("prefill, 8 heads a group, D128 bf16, page 16", plan(), warpgroup_mma=True),
    Case("prefill, same, window", plan(pattern=Pattern.window(1024)), HOPPER, warpgroup_mma=True),
    Case("prefill by TMA, D128 bf16, page 128", plan(page_size=128), TMA_TARGETS, tma=True, warpgroup_mma=True),
    Case("prefill by TMA, D128 bf16, contiguous", plan(page_size=0, group=4), HOPPER, tma=True, warpgroup_mma=True),
    Case("prefill, D128 e4m3, page 16", plan(dtype=torch.float8_e4m3fn), HOPPER, warpgroup_mma=True),
    Case("prefill, D256 bf16, page 16", plan(key_dim=256, group=2), warpgroup_mma=True),
    Case(
        "prefill, D192 and 128, contiguous", plan(key_dim=192, value_dim=128, group=1, page_size=0), warpgroup_mma=True
    ),
    Case(
        "encoder, D64 bf16, contiguous",
        plan(key_dim=64, group=1, page_size=0, pattern=Pattern.full()),
        warpgroup_mma=True,
    ),
)
