"""Steps of a fixed state at the sizes of Qwen3-Next-80B, Mamba-2 2.7B and Nemotron-H-8B, in the layouts engines hold.

The kernels have no loop: a program reads one tile, all at once, and writes it. What must be in flight comes from the
blocks per SM (times 16 KiB of a head's state); a ratio of issue to memory time is not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kvplan.validate.aot.cases import ALL, Case
from kvplan.validate.kernels.launch import Launch
from kvplan.validate.kernels.linear import plan_conv_step, plan_delta_step, plan_mamba_step

BF16, F32 = torch.bfloat16, torch.float32
BATCH, SLOTS = 4, 8


def _empty(*shape: int, dtype: torch.dtype = BF16) -> Tensor:
    return torch.empty(shape, dtype=dtype)


def _slots() -> Tensor:
    return torch.zeros(BATCH, dtype=torch.int32)


def delta(state_dtype: torch.dtype, *, keys_innermost: bool = False) -> Callable[[], Sequence[Launch]]:
    """Qwen3-Next-80B: 16 key heads, 32 value heads, 128 × 128; q, k and v are views of the convolution's output."""

    def launches() -> Sequence[Launch]:
        state_SHDE = _empty(SLOTS, 32, 128, 128, dtype=state_dtype)
        if keys_innermost:
            state_SHDE = state_SHDE.transpose(2, 3)
        q, k, v = _empty(BATCH, 8192).split([2048, 2048, 4096], dim=1)
        heads = (q.unflatten(1, (16, 128)), k.unflatten(1, (16, 128)), v.unflatten(1, (32, 128)))
        return plan_delta_step(state_SHDE, _slots(), *heads, _empty(BATCH, 32, dtype=F32), _empty(BATCH, 32))[1]

    return launches


def mamba(state_dtype: torch.dtype, *, heads: int, groups: int, gated: bool) -> Callable[[], Sequence[Launch]]:
    """Heads of 64 with a state of 128."""

    def launches() -> Sequence[Launch]:
        x, key = _empty(BATCH, heads, 64), _empty(BATCH, groups, 128)
        head = _empty(heads, dtype=F32)
        return plan_mamba_step(
            _empty(SLOTS, heads, 64, 128, dtype=state_dtype), _slots(), x, _empty(BATCH, heads), head, key, key,
            skip_H=head, dt_bias_H=head, gate_BHE=x if gated else None,
        )[1]  # fmt: skip

    return launches


def conv(*, columns: int, channels_innermost: bool) -> Callable[[], Sequence[Launch]]:
    """Qwen3-Next-80B: 8,192 channels, 4 taps."""

    def launches() -> Sequence[Launch]:
        state_SCN = _empty(SLOTS, 8192, columns)
        if channels_innermost:
            state_SCN = _empty(SLOTS, columns, 8192).transpose(1, 2)
        return plan_conv_step(state_SCN, _slots(), _empty(BATCH, 8192), _empty(8192, 4))[1]

    return launches


def _case(
    name: str, plan: Callable[[], Sequence[Launch]], targets: tuple[str, ...] = ALL, *, wide_stores: bool = True
) -> Case:
    return Case(name, plan, targets, matrix=False, buffered=False, wide_stores=wide_stores)


CASES: tuple[Case, ...] = (
    _case("delta step, 128 × 128 fp32 (Qwen3-Next)", delta(F32)),
    _case("delta step, fp32, keys innermost (same, in vLLM)", delta(F32, keys_innermost=True), ("sm_90", "gfx942")),
    _case("delta step, bf16, keys innermost (same, in vLLM)", delta(BF16, keys_innermost=True), ("sm_90", "gfx942")),
    _case("Mamba-2 step, 64 × 128 fp32 (Mamba-2 2.7B)", mamba(F32, heads=80, groups=1, gated=False)),
    _case(
        "Mamba-2 step, bf16, gated (Nemotron-H)",
        mamba(BF16, heads=128, groups=8, gated=True),
        ("sm_90", "gfx942"),
    ),
    _case("convolution step, 4 columns (transformers)", conv(columns=4, channels_innermost=False)),
    _case("convolution step, 3 columns (vLLM)", conv(columns=3, channels_innermost=True), ("sm_90",)),
    _case(  # AMD's compiler stores 8 bytes a lane
        "convolution step, 3 columns (vLLM)",
        conv(columns=3, channels_innermost=True),
        ("gfx942",),
        wide_stores=False,
    ),
)
