"""Prefill of equally long sequences with contiguous keys on Hopper and later: tiles come by TMA, in two forms.

A program owns a block of queries of one head; the heads of a group read the same keys, from the L2 cache. A sequence
ends within its last tiles: the descriptors are of one sequence each, so that rows past its end read as zeros and are
not written, and other sequences are out of reach.

Plain, a block's tiles are swept in three parts, partly seen ones at the left edge of a window, wholly seen ones without
a mask, partly seen ones at the diagonal or the end. Warp-specialised, some warps fetch while others compute; Triton
does that on Hopper for one loop only, with descriptors made on the device and four warps, so the mask is on for every
tile (https://github.com/triton-lang/triton/pull/7658). Which one is faster is for a GPU to say.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kvplan.validate.kernels.launch import Config, Launch, Unsupported, padded, run_all
from kvplan.validate.kernels.prefill_tiles import fold_raw
from kvplan.validate.kernels.select import Problem, configure, machine_of
from kvplan.validate.kernels.tile import LOG2E, dot, narrow

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@triton.jit
def band_of_block(first, length, reach, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr):
    """Tiles of a block of queries: (first seen, first wholly seen, end of those, end of the seen).

    A query at p sees the keys above p - reach, and below p + reach unless causality ends them at p.
    """
    last = tl.minimum(first + BLOCK_M, length) - 1
    if CAUSAL:
        to, whole_to = last + 1, first + 1
    else:
        to, whole_to = tl.minimum(last + reach, length), tl.minimum(first + reach, length)
    begin = tl.maximum(first - reach + 1, 0) // BLOCK_N
    end = tl.cdiv(to, BLOCK_N)
    whole = tl.minimum(tl.cdiv(tl.maximum(last - reach + 1, 0), BLOCK_N), end)
    return begin, whole, tl.minimum(tl.maximum(whole_to // BLOCK_N, whole), end), end


@triton.jit
def step(
    q, acc, top, total, k_rows, v_rows, column, tile, query, length, reach, factor,
    BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """One tile into the running softmax."""
    k = k_rows.load([tile * BLOCK_N, column])
    scores = dot(q, tl.trans(k), tl.zeros([q.shape[0], BLOCK_N], tl.float32))
    if MASKED:
        key = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        ahead = query[:, None] - key[None, :]
        seen = (ahead < reach) & (key < length)[None, :]
        if CAUSAL:
            seen = seen & (ahead >= 0)
        else:
            seen = seen & (ahead > -reach)
        scores = tl.where(seen, scores, -float("inf"))
    weights, rescale, top, total = fold_raw(scores, factor, top, total, MASKED)
    v = v_rows.load([tile * BLOCK_N, column])
    return dot(weights.to(q.dtype), v, acc * rescale[:, None]), top, total


@triton.jit
def prefill_tma_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, length, reach, factor, num_heads,
    GROUP: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr,
    SPECIALIZED: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Grid: (blocks of queries, heads, sequences), the longest rows of a causal mask first."""
    first = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_M
    head = tl.program_id(1)
    start = tl.program_id(2).to(tl.int64) * length
    kv_heads = num_heads // GROUP
    q_rows = tl.make_tensor_descriptor(
        q_ptr + start * num_heads * D, [length, num_heads * D], [num_heads * D, 1], [BLOCK_M, D]
    )
    out_rows = tl.make_tensor_descriptor(
        out_ptr + start * num_heads * D, [length, num_heads * D], [num_heads * D, 1], [BLOCK_M, D]
    )
    k_rows = tl.make_tensor_descriptor(
        k_ptr + start * kv_heads * D, [length, kv_heads * D], [kv_heads * D, 1], [BLOCK_N, D]
    )
    v_rows = tl.make_tensor_descriptor(
        v_ptr + start * kv_heads * D, [length, kv_heads * D], [kv_heads * D, 1], [BLOCK_N, D]
    )
    column = head // GROUP * D
    q = q_rows.load([first, head * D])
    query = first + tl.arange(0, BLOCK_M)
    top = tl.full([BLOCK_M], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D], tl.float32)
    begin, whole, partial, end = band_of_block(first, length, reach, BLOCK_M, BLOCK_N, CAUSAL)
    if SPECIALIZED:
        for tile in tl.range(begin, end, warp_specialize=True):
            acc, top, total = step(
                q, acc, top, total, k_rows, v_rows, column, tile, query, length, reach, factor, BLOCK_N, CAUSAL, True
            )
    else:
        for tile in tl.range(begin, whole, num_stages=STAGES):
            acc, top, total = step(
                q, acc, top, total, k_rows, v_rows, column, tile, query, length, reach, factor, BLOCK_N, CAUSAL, True
            )
        for tile in tl.range(whole, partial, num_stages=STAGES):
            acc, top, total = step(
                q, acc, top, total, k_rows, v_rows, column, tile, query, length, reach, factor, BLOCK_N, CAUSAL, False
            )
        for tile in tl.range(partial, end, num_stages=STAGES):
            acc, top, total = step(
                q, acc, top, total, k_rows, v_rows, column, tile, query, length, reach, factor, BLOCK_N, CAUSAL, True
            )
    acc = acc / tl.where(total > 0.0, total, 1.0)[:, None]
    out_rows.store([first, head * D], narrow(acc, out_ptr.dtype.element_ty))


def plan_prefill_tma(
    q_BSHD: Tensor,
    k_BSKD: Tensor,
    v_BSKD: Tensor,
    *,
    scale: float,
    causal: bool = True,
    window: int | None = None,
    warp_specialized: bool = False,
    config: Config | None = None,
    out_BSHD: Tensor | None = None,
) -> tuple[Tensor, list[Launch]]:
    """(output B × S × H × D, the launch that fills it): every token of every sequence is new.

    window W: |query − key| < W, of which causality leaves the past. warp_specialized: the other form, four warps.
    Raises `Unsupported` for shapes that TMA does not take; `prefill` runs those.
    """
    if scale <= 0:
        raise Unsupported(f"the softmax scale is {scale}; the kernel takes maxima before it, so it must be positive")
    batch, length, heads, dim = q_BSHD.shape
    group = _group(q_BSHD, k_BSKD, v_BSKD)
    kernel = "prefill_ws" if warp_specialized else "prefill_tma"
    problem = Problem("prefill", batch, heads, heads // group, dim, dim, 16, 0, length, length)
    config = config or configure(kernel, problem, machine_of(q_BSHD))
    out_BSHD = torch.empty_like(q_BSHD) if out_BSHD is None else out_BSHD
    triton.set_allocator(_scratch)
    args = {
        "q_ptr": q_BSHD,
        "k_ptr": k_BSKD,
        "v_ptr": v_BSKD,
        "out_ptr": out_BSHD,
        "length": length,
        "reach": min(window or length, length),
        "factor": scale * LOG2E,
        "num_heads": heads,
        "GROUP": group,
        "D": dim,
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "CAUSAL": causal,
        "SPECIALIZED": warp_specialized,
        "STAGES": config.num_stages,
    }
    grid = (triton.cdiv(length, config.block_m), heads, batch)
    return out_BSHD, [Launch(prefill_tma_kernel, grid, args, config.num_warps, config.num_stages)]


def prefill_tma(q_BSHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, **options) -> Tensor:
    """`plan_prefill_tma`, run."""
    out_BSHD, launches = plan_prefill_tma(q_BSHD, k_BSKD, v_BSKD, **options)
    run_all(launches)
    return out_BSHD


def _group(q_BSHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor) -> int:
    """Query heads per KV head of tensors that a descriptor can describe."""
    batch, length, heads, dim = q_BSHD.shape
    kv_heads = k_BSKD.shape[2]
    if k_BSKD.shape != (batch, length, kv_heads, dim) or v_BSKD.shape != k_BSKD.shape:
        raise Unsupported(
            f"TMA prefill is of self-attention: queries {tuple(q_BSHD.shape)}, keys {tuple(k_BSKD.shape)}"
        )
    if heads % kv_heads:
        raise Unsupported(f"{heads} query heads do not share {kv_heads} KV heads evenly")
    if dim != padded(dim):
        raise Unsupported(f"a head dimension of {dim} is not a power of two of at least 16: use `prefill`")
    if any(not x.is_contiguous() or x.dtype != q_BSHD.dtype for x in (q_BSHD, k_BSKD, v_BSKD)):
        raise Unsupported("TMA prefill takes contiguous queries, keys and values of one type")
    if q_BSHD.dtype not in _DTYPES:
        raise Unsupported(f"TMA prefill takes bf16, fp16 and fp32, not {q_BSHD.dtype}")
    return int(heads // kv_heads)


def _scratch(size: int, alignment: int, stream: int | None) -> Tensor:
    """Where descriptors that are made on the device lie: torch's memory, on the device at hand."""
    return torch.empty(size, dtype=torch.int8, device="cuda" if torch.cuda.is_available() else "cpu")
