"""Decode over a latent cache with DeepSeek's dimensions: 16 heads of tensor parallelism, and all 128 on one GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from kvplan.validate.aot.cases import Case
from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.launch import Config, Launch
from kvplan.validate.kernels.mla_decode import plan_mla_decode

LATENT, ROPE = 512, 64
E4M3 = torch.float8_e4m3fn
E4M3_TARGETS = ("sm_90", "sm_100")


def plan(
    *,
    heads: int = 16,
    dtype: torch.dtype = torch.bfloat16,
    page_size: int = 64,
    batch: int = 4,
    config: Config | None = None,
) -> Callable[[], Sequence[Launch]]:
    """A decode over a small pool, with the kernel's own configuration for the target unless one is given."""

    def launches() -> Sequence[Launch]:
        cache = PagedCache.allocate(
            latent=True,
            num_pages=8,
            page_size=page_size,
            num_kv_heads=1,
            key_dim=LATENT + ROPE,
            value_dim=LATENT,
            dtype=dtype,
            num_seqs=batch,
            max_tokens=32_768,
            device="cpu",
        )
        q_BHD = torch.empty(batch, heads, LATENT + ROPE, dtype=torch.bfloat16)
        return plan_mla_decode(q_BHD, cache, scale=0.09, config=config)[1]

    return launches


BF16, FP8 = (LATENT + ROPE) * 2, LATENT + ROPE

CASES: tuple[Case, ...] = (
    Case("mla decode, 16 heads bf16, page 64 (DeepSeek, 8 GPUs)", plan(), key_bytes=BF16),
    Case("mla decode, 16 heads bf16, page 16", plan(page_size=16), ("sm_90",), key_bytes=BF16),
    Case(
        "mla decode, 16 heads e4m3, page 64",
        plan(dtype=E4M3),
        E4M3_TARGETS,
        key_bytes=FP8,
        ratio_targets=("sm_90",),  # a B200's memory outruns the conversion of 8-bit tiles, as it does in `decode`
    ),
    Case("mla decode, 20 heads bf16, page 64", plan(heads=20), ("sm_90", "sm_100"), key_bytes=BF16),
    # 128 heads do 242 operations per byte: bound by the matrix units and not by memory, hence no ratio
    Case("mla decode, 128 heads bf16, page 64 (DeepSeek, 1 GPU)", plan(heads=128), warpgroup_mma=True),
    Case("mla decode, 128 heads e4m3, page 64", plan(heads=128, dtype=E4M3), E4M3_TARGETS),
)
