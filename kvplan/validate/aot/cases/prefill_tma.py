"""Prefill by TMA at the shape of Llama-3.1-8B: plain and warp-specialised."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from kvplan.validate.aot.cases import Case
from kvplan.validate.aot.cases.decode import TMA_TARGETS
from kvplan.validate.kernels.launch import Config, Launch
from kvplan.validate.kernels.prefill_tma import plan_prefill_tma


def by_tma(
    *, dim: int = 128, config: Config | None = None, specialized: bool = False, window: int | None = None
) -> Callable[[], Sequence[Launch]]:
    """Two sequences of 1,000 tokens, 32 query heads on 8."""

    def launches() -> Sequence[Launch]:
        q, k, v = (torch.empty(2, 1000, heads, dim, dtype=torch.bfloat16) for heads in (32, 8, 8))
        return plan_prefill_tma(q, k, v, scale=0.09, window=window, warp_specialized=specialized, config=config)[1]

    return launches


CASES: tuple[Case, ...] = (
    Case("prefill by TMA, causal D128 bf16", by_tma(), TMA_TARGETS, tma=True, warpgroup_mma=True),
    Case("prefill by TMA, D64 bf16, window 512", by_tma(dim=64, window=512), ("sm_90",), tma=True, warpgroup_mma=True),
    Case(
        "prefill by TMA, warp-specialised, causal D128 bf16",
        by_tma(specialized=True),
        ("sm_90",),
        tma=True,
        warpgroup_mma=True,
        warp_specialized=True,
    ),
)
