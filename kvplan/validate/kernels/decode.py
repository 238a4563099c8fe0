"""One new token per sequence against its paged cache: MHA, GQA and MQA decode, every KV byte read once.

The idea: decode is a memory stream, so the kernel is built round the bytes. One program owns a (sequence, KV head,
split); the G query heads that share the KV head are rows of one matrix product, padded to 16, so that a tile of keys
serves them all. Keys are cut over programs (split KV) and merged by `combine`. Page ids are loaded one tile ahead by
hand: looked up inside the loop, they would take a stage of Triton's pipeline and leave keys and values single-buffered.
With a window, the window's tiles are cut over the splits, not the sequence's, and pages before it are never looked up.

Two variants of one kernel. `decode` reads by pointers: any page size, stored type and target. `decode_tma`, for Hopper
and later and pages that hold whole tiles, lets the tensor memory accelerator compute every address, which halves the
loop's instructions and keeps an 8-bit cache bound by memory.

Ideas from FlashDecoding (https://pytorch.org/blog/flash-decoding/) and vLLM's unified Triton attention.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.combine import partials, plan_combine
from kvplan.validate.kernels.decode_call import DecodeCall
from kvplan.validate.kernels.launch import Launch, Unsupported, padded, run_all
from kvplan.validate.kernels.select import Choice, choose, machine_of
from kvplan.validate.kernels.tile import capped, dot, fold, narrow, operand, settle


@triton.jit
def tiles_of_split(length, window, split, num_splits, BLOCK_N: tl.constexpr, WINDOWED: tl.constexpr):
    """(first visible key, first tile, last tile + 1) of one split: the visible tiles, cut evenly."""
    oldest = 0
    if WINDOWED:
        oldest = tl.maximum(length - window, 0)
    first = oldest // BLOCK_N
    last = tl.cdiv(length, BLOCK_N)
    each = tl.cdiv(last - first, num_splits)
    mine = first + split * each
    return oldest, mine, tl.minimum(mine + each, last)


@triton.jit
def whole_tiles(first, last, oldest, length, BLOCK_N: tl.constexpr):
    """(first tile that is seen whole, last + 1, how many of first..last are not): those are at the two ends."""
    left = ((first < last) & (first * BLOCK_N < oldest)).to(tl.int32)
    right = ((first + left < last) & (last * BLOCK_N > length)).to(tl.int32)
    return first + left, last - right, left + right


@triton.jit
def pages_of_tile(table_ptr, tile, oldest, length, BLOCK_N: tl.constexpr, PAGE: tl.constexpr):
    """Page ids of a tile's keys: one where a page holds whole tiles, else one per key; none outside the window."""
    if PAGE % BLOCK_N == 0:
        start = tile * BLOCK_N
        return tl.load(table_ptr + start // PAGE, mask=(start < length) & (start + BLOCK_N > oldest), other=0)
    else:
        key = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        return tl.load(table_ptr + key // PAGE, mask=(key < length) & (key >= oldest), other=0)


@triton.jit
def query_rows(group_block, kv_head, GROUP: tl.constexpr, BLOCK_M: tl.constexpr):
    """(rows' query heads, which rows are real): the G heads of one KV head, in blocks of BLOCK_M."""
    g = group_block * BLOCK_M + tl.arange(0, BLOCK_M)
    return kv_head * GROUP + g, g < GROUP


@triton.jit
def logits(products, factor, cap, CAPPED: tl.constexpr):
    """Raw products → base-2 logits."""
    products = products * factor
    if CAPPED:
        products = capped(products, cap)
    return products


@triton.jit
def load_queries(q_ptr, batch, heads, real, num_heads, D: tl.constexpr, D_PADDED: tl.constexpr, OPERAND: tl.constexpr):
    """The rows of one program's query heads as a matrix operand, rows that are not real as zeros."""
    d = tl.arange(0, D_PADDED)
    row = (batch * num_heads + heads).to(tl.int64)
    return tl.load(q_ptr + row[:, None] * D + d[None, :], mask=real[:, None] & (d < D)[None, :], other=0.0).to(OPERAND)


@triton.jit
def finish(
    out_ptr, acc_ptr, stats_ptr, sinks_ptr, acc, top, total, batch, heads, real, split, num_heads, num_splits,
    value_scale, log2e, DIM: tl.constexpr, DIM_PADDED: tl.constexpr, SPLIT: tl.constexpr, SINKS: tl.constexpr,
):  # fmt: skip
    """Write one program's result: raw partial sums if there are other splits, else the output itself."""
    e = tl.arange(0, DIM_PADDED)
    inside = real[:, None] & (e < DIM)[None, :]
    row = (batch * num_heads + heads).to(tl.int64)
    if SPLIT:
        row = row * num_splits + split
        tl.store(acc_ptr + row[:, None] * DIM + e[None, :], acc, mask=inside)
        tl.store(stats_ptr + row * 2, top, mask=real)
        tl.store(stats_ptr + row * 2 + 1, total, mask=real)
    else:
        out = settle(acc, top, total, sinks_ptr, heads, real, value_scale, log2e, SINKS)
        tl.store(out_ptr + row[:, None] * DIM + e[None, :], narrow(out, out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def rows_of_tile(page, slot, head, strides, WIDE: tl.constexpr):
    """Offset of each key's row in a pool with (page, token, head) strides; WIDE: 64 bits."""
    if WIDE:
        page = page.to(tl.int64)
    return page * strides[0] + slot * strides[1] + head * strides[2]


@triton.jit
def load_rows(pool_ptr, rows, seen, DIM: tl.constexpr, DIM_PADDED: tl.constexpr, MASKED: tl.constexpr):
    """A tile by pointers. Masked, an unseen row reads as zeros: it may hold NaN, and 0 · NaN would leak."""
    d = tl.arange(0, DIM_PADDED)
    pointers = pool_ptr + rows[:, None] + d[None, :]
    if MASKED:
        return tl.load(pointers, mask=seen[:, None] & (d < DIM)[None, :], other=0.0)
    elif DIM < DIM_PADDED:
        return tl.load(pointers, mask=(d < DIM)[None, :], other=0.0)
    else:
        return tl.load(pointers)


@triton.jit
def load_scales(scales_ptr, rows, seen, TOKEN_SCALES: tl.constexpr):
    """A scale per key, or a placeholder where the cache has none."""
    if TOKEN_SCALES:
        return tl.load(scales_ptr + rows, mask=seen, other=0.0)
    else:
        return 1.0


@triton.jit
def attend(
    q, acc, top, total, k, v, k_scales, v_scales, seen, factor, cap,
    CAPPED: tl.constexpr, TOKEN_SCALES: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """One tile of keys and values into the running softmax. Scales of keys belong to columns of the scores."""
    products = dot(q, tl.trans(operand(k, q.dtype)), tl.zeros([q.shape[0], k.shape[0]], tl.float32))
    if TOKEN_SCALES:
        products = products * k_scales[None, :]
    scores = logits(products, factor, cap, CAPPED)
    if MASKED:
        scores = tl.where(seen[None, :], scores, -float("inf"))
    weights, rescale, top, total = fold(scores, top, total)
    if TOKEN_SCALES:
        weights = weights * v_scales[None, :]
    return dot(weights.to(q.dtype), operand(v, q.dtype), acc * rescale[:, None]), top, total


@triton.jit
def decode_kernel(  # noqa: PLR0915  a kernel's body is one
    q_ptr, k_ptr, v_ptr, k_tiles, v_tiles, k_scales_ptr, v_scales_ptr, out_ptr, acc_ptr, stats_ptr, table_ptr,
    lengths_ptr, sinks_ptr, factor, cap, value_scale, log2e, window, k_strides, v_strides, s_strides, table_stride,
    num_kv_heads, num_splits,
    GROUP: tl.constexpr, D: tl.constexpr, D_PADDED: tl.constexpr, E: tl.constexpr, E_PADDED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAGE: tl.constexpr, OPERAND: tl.constexpr, WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr, SINKS: tl.constexpr, SPLIT: tl.constexpr, TOKEN_SCALES: tl.constexpr, TMA: tl.constexpr,
    PEEL: tl.constexpr, WIDE: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Grid: (KV heads × blocks of their query heads, splits, sequences); neighbours share a token's row in memory.

    PEEL: the loop runs over the whole tiles without a mask, and the partly seen ones, at most the window's first and
    the sequence's last, follow by themselves. TMA: the loop's tiles come from `k_tiles` and `v_tiles`, the pool as rows
    (page · page_size + slot) × (heads · dimension).
    """
    GROUP_BLOCKS: tl.constexpr = (GROUP + BLOCK_M - 1) // BLOCK_M
    kv_head = tl.program_id(0) // GROUP_BLOCKS
    split = tl.program_id(1)
    batch = tl.program_id(2)
    length = tl.load(lengths_ptr + batch)
    oldest, first, last = tiles_of_split(length, window, split, num_splits, BLOCK_N, WINDOWED)
    heads, real = query_rows(tl.program_id(0) % GROUP_BLOCKS, kv_head, GROUP, BLOCK_M)
    q = load_queries(q_ptr, batch, heads, real, num_kv_heads * GROUP, D, D_PADDED, OPERAND)
    top = tl.full([BLOCK_M], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, E_PADDED], tl.float32)
    table = table_ptr + batch * table_stride
    begin, end, num_edges = first, last, 0
    if PEEL:
        begin, end, num_edges = whole_tiles(first, last, oldest, length, BLOCK_N)
    ahead = pages_of_tile(table, begin, oldest, length, BLOCK_N, PAGE)
    for tile in tl.range(begin, end, num_stages=STAGES):
        page = ahead
        ahead = pages_of_tile(table, tile + 1, oldest, length, BLOCK_N, PAGE)
        key = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        seen = (key < length) & (key >= oldest)
        if TMA:
            row = page * PAGE + (tile * BLOCK_N) % PAGE
            k = k_tiles.load([row, kv_head * D])
            v = v_tiles.load([row, kv_head * E])
        else:
            k = load_rows(k_ptr, rows_of_tile(page, key % PAGE, kv_head, k_strides, WIDE), seen, D, D_PADDED, not PEEL)
            v = load_rows(v_ptr, rows_of_tile(page, key % PAGE, kv_head, v_strides, WIDE), seen, E, E_PADDED, not PEEL)
        s_row = rows_of_tile(page, key % PAGE, kv_head, s_strides, WIDE)
        k_scales = load_scales(k_scales_ptr, s_row, seen, TOKEN_SCALES)
        v_scales = load_scales(v_scales_ptr, s_row, seen, TOKEN_SCALES)
        acc, top, total = attend(
            q, acc, top, total, k, v, k_scales, v_scales, seen, factor, cap, CAPPED, TOKEN_SCALES, not PEEL
        )
    if PEEL:
        for edge in tl.range(0, num_edges, num_stages=1):
            tile = tl.where((edge == 0) & (begin > first), first, last - 1)
            page = pages_of_tile(table, tile, oldest, length, BLOCK_N, PAGE)
            key = tile * BLOCK_N + tl.arange(0, BLOCK_N)
            seen = (key < length) & (key >= oldest)
            k = load_rows(k_ptr, rows_of_tile(page, key % PAGE, kv_head, k_strides, WIDE), seen, D, D_PADDED, True)
            v = load_rows(v_ptr, rows_of_tile(page, key % PAGE, kv_head, v_strides, WIDE), seen, E, E_PADDED, True)
            s_row = rows_of_tile(page, key % PAGE, kv_head, s_strides, WIDE)
            k_scales = load_scales(k_scales_ptr, s_row, seen, TOKEN_SCALES)
            v_scales = load_scales(v_scales_ptr, s_row, seen, TOKEN_SCALES)
            acc, top, total = attend(
                q, acc, top, total, k, v, k_scales, v_scales, seen, factor, cap, CAPPED, TOKEN_SCALES, True
            )
    finish(
        out_ptr, acc_ptr, stats_ptr, sinks_ptr, acc, top, total, batch, heads, real, split, num_kv_heads * GROUP,
        num_splits, value_scale, log2e, E, E_PADDED, SPLIT, SINKS,
    )  # fmt: skip


def plan_decode(
    q_BHD: Tensor,
    cache: PagedCache,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks_H: Tensor | None = None,
    choice: Choice | None = None,
    out_BHE: Tensor | None = None,
) -> tuple[Tensor, list[Launch]]:
    """(output B × H × E, the launches that fill it).

    scale: of the softmax; the cache's per-tensor scales are applied besides. window W: only the last W keys are seen.
    softcap c: c · tanh(score / c). sinks: a logit per head that only the denominator sees. choice: `decode` or
    `decode_tma` and a configuration; without one, `select.choose` decides. Raises `Unsupported`.
    """
    call = DecodeCall(q_BHD, cache, scale=scale, window=window, softcap=softcap, sinks_H=sinks_H)
    choice = choice or choose(call.problem, machine_of(q_BHD))
    batch, heads, value_dim = q_BHD.shape[0], q_BHD.shape[1], cache.values.shape[3]
    if out_BHE is None:
        out_BHE = torch.empty((batch, heads, value_dim), dtype=q_BHD.dtype, device=q_BHD.device)
    splits = max(choice.config.num_splits, 1)
    acc = stats = None
    if splits > 1:
        acc, stats = partials(batch, heads, splits, value_dim, q_BHD.device)
    constants = call.constants(choice.config)
    args = call.pointers() | call.numbers() | call.strides() | constants
    args |= _tiles(cache, choice) if choice.kernel == "decode_tma" else {"k_tiles": None, "v_tiles": None, "TMA": False}
    # 8-bit tiles cost instructions to convert: there the hot loop cannot afford masks either
    args |= {"PEEL": args["TMA"] or cache.keys.dtype.itemsize == 1, "SPLIT": splits > 1, "num_splits": splits}
    args |= {"out_ptr": out_BHE, "acc_ptr": acc, "stats_ptr": stats}
    grid = (cache.num_kv_heads * triton.cdiv(constants["GROUP"], constants["BLOCK_M"]), splits, batch)
    launches = [Launch(decode_kernel, grid, args, choice.config.num_warps, choice.config.num_stages)]
    if acc is not None and stats is not None:
        launches.append(plan_combine(out_BHE, acc, stats, value_scale=cache.value_scale, sinks_H=sinks_H))
    return out_BHE, launches


def decode(q_BHD: Tensor, cache: PagedCache, **options: Any) -> Tensor:
    """`plan_decode`, run."""
    out_BHE, launches = plan_decode(q_BHD, cache, **options)
    run_all(launches)
    return out_BHE


def _tiles(cache: PagedCache, choice: Choice) -> dict[str, Any]:
    """Descriptors of the pools as rows of all heads, in boxes of one tile of one head."""
    block_n = choice.config.block_n
    dims = (cache.keys.shape[3], cache.values.shape[3])
    if cache.page_size % block_n:
        raise Unsupported(f"pages of {cache.page_size} tokens do not hold whole tiles of {block_n}: use `decode`")
    if any(dim != padded(dim) for dim in dims):
        raise Unsupported(f"head dimensions {dims} are not powers of two of at least 16: use `decode`")

    def boxes(pool_PNKD: Tensor) -> TensorDescriptor:
        pages, page_size, heads, dim = pool_PNKD.shape
        return TensorDescriptor.from_tensor(pool_PNKD.view(pages * page_size, heads * dim), [block_n, dim])

    return {"k_tiles": boxes(cache.keys), "v_tiles": boxes(cache.values), "TMA": True}
