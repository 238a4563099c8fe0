"""Many new tokens per sequence at once: prefill, chunked prefill and encoders, over a paged cache or packed keys.

The idea: every pattern is a band. The query at position p sees the keys lo(p) ≤ key < hi(p), and neither end decreases
with p. So the tiles of a program are of two sorts: those that all its rows see whole, which need no mask, and the few
at the band's two edges. Tiles outside the band are never touched, evicted pages never looked up.

    causal       0 … p            window W     p − W + 1 … p         chunked C    start of p's block of C … p
    full         all              sparse W     p − W + 1 … p + W − 1, and a list of global positions

Sparse (Longformer) is the band, then a loop that gathers the global keys which the band has not shown; the rows of the
global positions themselves are a second launch, in `full` over gathered queries, written over what the first one left.

Rows of the matrix products are (query token, query head of one KV head) pairs: BLOCK_M // G tokens per program, so that
every key read serves the whole group. The longest rows start first. Queries are packed, T × H × D, without padding.

The loop over whole tiles is ordered for Hopper: a tile's weights meet its values one turn later, after the next tile's
scores, so that this product, which nobody waits for, runs while the next softmax is worked out (FlashAttention-3 calls
it intra-warpgroup overlap). Whole tiles can come by TMA; the edges, which need masks, always come by pointers.

Sources: FlashAttention-3, https://arxiv.org/abs/2407.08608; the packing of vLLM's unified Triton attention; Longformer,
https://arxiv.org/abs/2004.05150.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.launch import Config, Launch, run_all
from kvplan.validate.kernels.prefill_call import (
    CAUSAL,
    TMA_TARGETS,
    Pattern,
    PrefillCall,
    Ragged,
    chosen_form,
    fits_overlap,
)
from kvplan.validate.kernels.prefill_tiles import every_row, fold_raw, load_rows, pages_of, rows_of, whole_tile
from kvplan.validate.kernels.select import machine_of
from kvplan.validate.kernels.tile import capped, dot, narrow, settle

# Fewer whole tiles than this are not worth a loop of their own: filling its pipeline costs more than masking them.
_MIN_WHOLE = tl.constexpr(3)


@triton.jit
def band(position, length, reach, PATTERN: tl.constexpr):
    """(lo, hi): the query at `position` sees lo ≤ key < hi. Of a scalar or of a vector of positions."""
    lo = position * 0
    hi = lo + length
    if PATTERN == "window" or PATTERN == "sparse":
        lo = tl.maximum(position - reach + 1, 0)
    if PATTERN == "chunked":
        lo = tl.maximum(position, 0) // reach * reach
    if PATTERN == "sparse":
        hi = tl.minimum(position + reach, length)
    elif PATTERN != "full":
        hi = tl.minimum(position + 1, length)
    return lo, tl.maximum(hi, 0)


@triton.jit
def whole_tiles(whole_from, whole_to, BLOCK_N: tl.constexpr):
    """(first, last + 1) of the tiles that lie in whole_from … whole_to, (0, 0) if they are few."""
    first = tl.cdiv(whole_from, BLOCK_N)
    last = whole_to // BLOCK_N
    enough = last - first >= _MIN_WHOLE
    return tl.where(enough, first, 0), tl.where(enough, last, 0)


@triton.jit
def sweep_whole(
    state, first, last, q, pools, tiles, table, bounds, factor, cap, D: tl.constexpr, E: tl.constexpr,
    BLOCK_N: tl.constexpr, PAGE: tl.constexpr, CAPPED: tl.constexpr, TOKEN_SCALES: tl.constexpr, TMA: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """Attend to the tiles first … last, of which every row sees every key.

    Page ids come one tile ahead by hand: looked up for the tile at hand, they would take a stage of the pipeline.
    OVERLAP: the values of a tile follow one turn later; in the first turn, weights of zero meet the first tile's.
    """
    acc, top, total = state
    weights = tl.zeros([q.shape[0], BLOCK_N], tl.float32)
    rescale = tl.zeros([q.shape[0]], tl.float32) + 1.0
    ahead = pages_of(table, first, bounds, BLOCK_N, PAGE)
    row = rows_of(ahead, first, BLOCK_N, PAGE)
    for tile in range(first, last):
        before = row
        row = rows_of(ahead, tile, BLOCK_N, PAGE)
        ahead = pages_of(table, tile + 1, bounds, BLOCK_N, PAGE)
        keys = whole_tile(pools[0], tiles[0], row, q.dtype, D, BLOCK_N, PAGE, TOKEN_SCALES, TMA)
        scores = dot(q, tl.trans(keys), tl.zeros_like(weights))
        if OVERLAP:
            values = whole_tile(pools[1], tiles[1], before, q.dtype, E, BLOCK_N, PAGE, TOKEN_SCALES, TMA)
            acc = dot(narrow(weights, q.dtype), values, acc * rescale[:, None])
        if CAPPED:
            scores = capped(scores * factor, cap)
        weights, rescale, top, total = fold_raw(scores, 1.0 if CAPPED else factor, top, total, False)
        if not OVERLAP:
            values = whole_tile(pools[1], tiles[1], row, q.dtype, E, BLOCK_N, PAGE, TOKEN_SCALES, TMA)
            acc = dot(narrow(weights, q.dtype), values, acc * rescale[:, None])
    if OVERLAP:  # noqa: SIM102  (one is the compiler's question, the other the kernel's)
        if first < last:
            values = whole_tile(pools[1], tiles[1], row, q.dtype, E, BLOCK_N, PAGE, TOKEN_SCALES, TMA)
            acc = dot(narrow(weights, q.dtype), values, acc * rescale[:, None])
    return acc, top, total


@triton.jit
def attend(
    state, row, live, seen, q, pools, factor, cap, D: tl.constexpr, E: tl.constexpr, CAPPED: tl.constexpr,
    TOKEN_SCALES: tl.constexpr,
):  # fmt: skip
    """Attend to the keys at these rows: only `live` ones may be read, `seen` says which query sees which."""
    acc, top, total = state
    keys = load_rows(pools[0], row, live, q.dtype, D, TOKEN_SCALES, True)
    scores = dot(q, tl.trans(keys), tl.zeros([q.shape[0], keys.shape[0]], tl.float32))
    if CAPPED:
        scores = capped(scores * factor, cap)
    scores = tl.where(seen, scores, -float("inf"))
    weights, rescale, top, total = fold_raw(scores, 1.0 if CAPPED else factor, top, total, True)
    values = load_rows(pools[1], row, live, q.dtype, E, TOKEN_SCALES, True)
    return dot(narrow(weights, q.dtype), values, acc * rescale[:, None]), top, total


@triton.jit
def edge_tile(turn, left, gap):
    """The tile of a turn of the loop over the edges, which leaps over the gap between them."""
    return turn + tl.where(turn < left, 0, gap)


@triton.jit
def sweep_edges(
    state, left, right, q, pools, table, bounds, seen_by, factor, cap, D: tl.constexpr, E: tl.constexpr,
    BLOCK_N: tl.constexpr, PAGE: tl.constexpr, CAPPED: tl.constexpr, TOKEN_SCALES: tl.constexpr, LEFT: tl.constexpr,
):  # fmt: skip
    """Attend to the tiles before `left` and from `right` on, masked to each row's (lo, hi); LEFT: lo matters."""
    first = bounds[0] // BLOCK_N
    gap = right - left
    ahead = pages_of(table, edge_tile(first, left, gap), bounds, BLOCK_N, PAGE)
    for turn in range(first, tl.cdiv(bounds[1], BLOCK_N) - gap):
        tile = edge_tile(turn, left, gap)
        row = every_row(rows_of(ahead, tile, BLOCK_N, PAGE), BLOCK_N, PAGE)
        ahead = pages_of(table, edge_tile(turn + 1, left, gap), bounds, BLOCK_N, PAGE)
        key = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        seen = key[None, :] < seen_by[1][:, None]
        if LEFT:
            seen = seen & (key[None, :] >= seen_by[0][:, None])
        live = (key >= bounds[0]) & (key < bounds[1])
        state = attend(state, row, live, seen, q, pools, factor, cap, D, E, CAPPED, TOKEN_SCALES)
    return state


@triton.jit
def sweep_positions(
    state, positions_ptr, num_positions, length, q, pools, table, seen_by, factor, cap, D: tl.constexpr,
    E: tl.constexpr, BLOCK_N: tl.constexpr, PAGE: tl.constexpr, CAPPED: tl.constexpr, TOKEN_SCALES: tl.constexpr,
):  # fmt: skip
    """Attend to the keys at a sequence's global positions, gathered; not for the rows whose band has shown them."""
    for first in range(0, num_positions, BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        key = tl.load(positions_ptr + n, mask=n < num_positions, other=-1)
        live = (key >= 0) & (key < length)
        if PAGE == 0:
            row = tl.load(table) + key
        else:
            row = tl.load(table + key // PAGE, mask=live, other=0) * PAGE + key % PAGE
        seen = live[None, :] & ((key[None, :] < seen_by[0][:, None]) | (key[None, :] >= seen_by[1][:, None]))
        state = attend(state, row, live, seen, q, pools, factor, cap, D, E, CAPPED, TOKEN_SCALES)
    return state


@triton.jit
def lines_of(
    first, count, positions_ptr, listed, offset, num_queries,
    GROUP: tl.constexpr, BLOCK_M: tl.constexpr, GATHERED: tl.constexpr,
):  # fmt: skip
    """(query token of each line of a block, which lines are real): the others would be the next block's tokens."""
    line = tl.arange(0, BLOCK_M)
    token = first + line // GROUP
    real = (token < count) & (line < BLOCK_M // GROUP * GROUP)
    if GATHERED:
        token = tl.load(positions_ptr + listed + token, mask=real, other=-1) - offset
        real = real & (token >= 0) & (token < num_queries)
    return token, real


@triton.jit
def store_lines(
    out, result, start_ptr, first, count, token, real, kv_head,
    E: tl.constexpr, GROUP: tl.constexpr, BLOCK_M: tl.constexpr, GATHERED: tl.constexpr,
):  # fmt: skip
    """Write a block's lines to `out` = (pointer, stride of a token, of a head).

    Addresses and mask are worked out anew from a few numbers, one of them read again (volatile, or the compiler keeps
    it): what lives through the loops costs registers that the loops need.
    """
    start = tl.load(start_ptr, volatile=True)
    e = tl.arange(0, triton.next_power_of_2(E))
    line = tl.arange(0, BLOCK_M)
    to = out[0] + kv_head * GROUP * out[2]
    if GATHERED:
        offset = (start + token).to(tl.int64) * out[1] + line % GROUP * out[2]
    else:
        to += (start + first).to(tl.int64) * out[1]
        offset = line // GROUP * out[1] + line % GROUP * out[2]
        real = (line // GROUP < count - first) & (line < BLOCK_M // GROUP * GROUP)
    at = to + offset[:, None] + e[None, :]
    tl.store(at, narrow(result, out[0].dtype.element_ty), mask=real[:, None] & (e < E)[None, :])


@triton.jit
def prefill_kernel(
    q, out, k, v, scales, k_tiles, v_tiles, table, query_starts_ptr, query_lengths_ptr, key_lengths_ptr,
    positions_ptr, num_positions, sinks_ptr, factor, cap, value_scale, log2e, reach,
    PATTERN: tl.constexpr, GATHERED: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, E: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, EDGE_N: tl.constexpr, PAGE: tl.constexpr, OPERAND: tl.constexpr,
    CAPPED: tl.constexpr, SINKS: tl.constexpr, TOKEN_SCALES: tl.constexpr, TMA: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """Grid: (blocks of BLOCK_M // GROUP query tokens, KV heads, sequences). Tensors are tuples (pointer, strides…).

    GATHERED: the queries are those at the listed positions. PAGE 0: the table holds each sequence's first row of keys.
    """
    TOKENS: tl.constexpr = BLOCK_M // GROUP
    kv_head = tl.program_id(1)
    batch = tl.program_id(2)
    num_queries = tl.load(query_lengths_ptr + batch)
    count = num_positions if GATHERED else num_queries
    first = (tl.num_programs(0) - 1 - tl.program_id(0)) * TOKENS  # longest rows first
    if first >= count:
        return
    length = tl.load(key_lengths_ptr + batch)
    offset = length - num_queries  # the queries are the last positions
    start = tl.load(query_starts_ptr + batch)
    token, real = lines_of(
        first, count, positions_ptr, batch * num_positions, offset, num_queries, GROUP, BLOCK_M, GATHERED
    )
    head = kv_head * GROUP + tl.arange(0, BLOCK_M) % GROUP
    d = tl.arange(0, triton.next_power_of_2(D))
    q_at = q[0] + ((start + token).to(tl.int64) * q[1] + head * q[2])[:, None] + d[None, :]
    queries = tl.load(q_at, mask=real[:, None] & (d < D)[None, :], other=0.0).to(OPERAND)

    begin, whole_to = band(offset + first, length, reach, PATTERN)
    whole_from, end = band(offset + tl.minimum(first + TOKENS, count) - 1, length, reach, PATTERN)
    whole_first, whole_last = whole_tiles(whole_from, whole_to, BLOCK_N)
    seen_by = band(offset + token, length, reach, PATTERN)
    table_row = table[0] + batch * table[1]
    pools = (
        (k[0] + kv_head * k[2], k[1], scales[0] + kv_head, scales[2]),
        (v[0] + kv_head * v[2], v[1], scales[1] + kv_head, scales[2]),
    )
    total = tl.zeros([BLOCK_M], tl.float32)
    state = (tl.zeros([BLOCK_M, triton.next_power_of_2(E)], tl.float32), total - float("inf"), total)
    state = sweep_whole(
        state, whole_first, whole_last, queries, pools, ((k_tiles, kv_head * D), (v_tiles, kv_head * E)), table_row,
        (begin, end), factor, cap, D, E, BLOCK_N, PAGE, CAPPED, TOKEN_SCALES, TMA, OVERLAP,
    )  # fmt: skip
    state = sweep_edges(
        state, whole_first * (BLOCK_N // EDGE_N), whole_last * (BLOCK_N // EDGE_N), queries, pools,
        table_row, (begin, end), seen_by, factor, cap, D, E, EDGE_N, PAGE, CAPPED, TOKEN_SCALES,
        PATTERN != "causal" and PATTERN != "full",
    )  # fmt: skip
    if PATTERN == "sparse":
        state = sweep_positions(
            state, positions_ptr + batch * num_positions, num_positions, length, queries, pools,
            table_row, seen_by, factor, cap, D, E, EDGE_N, PAGE, CAPPED, TOKEN_SCALES,
        )  # fmt: skip
    result = settle(state[0], state[1], state[2], sinks_ptr, head, real, value_scale, log2e, SINKS)
    store_lines(out, result, query_starts_ptr + batch, first, count, token, real, kv_head, E, GROUP, BLOCK_M, GATHERED)


def plan_prefill(
    q_THD: Tensor,
    kv: PagedCache | tuple[Tensor, Tensor],
    batch: Ragged,
    *,
    scale: float,
    pattern: Pattern = CAUSAL,
    softcap: float | None = None,
    sinks_H: Tensor | None = None,
    config: Config | None = None,
    tma: bool | None = None,
    overlap: bool | None = None,
    out_THE: Tensor | None = None,
) -> tuple[Tensor, list[Launch]]:
    """(output T × H × E, the launches that fill its rows of the batch).

    kv: a paged cache that already holds the new tokens, or packed keys and values, tokens × K × D and tokens × K × E.
    scale: of the softmax; the cache's per-tensor scales are applied besides. softcap c: c · tanh(score / c). sinks: a
    logit per head that only the denominator sees. tma, overlap: see the module; chosen where not told. Raises
    `Unsupported`.
    """
    call = PrefillCall(q_THD, kv, batch, scale, pattern, softcap, sinks_H, out_THE)
    machine = machine_of(q_THD)
    if config is None:
        config, tma = chosen_form(machine, call, tma)
    elif tma is None:
        tma = machine.target in TMA_TARGETS and call.fits_tma(config)
    overlap = fits_overlap(machine.target, call, config, bool(tma)) if overlap is None else overlap
    args = call.arguments(config, tma=bool(tma)) | {"OVERLAP": overlap}
    passes = [(args | {"PATTERN": pattern.kind, "GATHERED": False}, batch.longest)]
    if pattern.positions_BM is not None:
        passes.append((args | {"PATTERN": "full", "GATHERED": True}, pattern.positions_BM.shape[1]))
    launches = []
    for given, tokens in passes:
        grid = (triton.cdiv(tokens, given["BLOCK_M"] // call.group), call.num_kv_heads, batch.size)
        if all(grid):
            launches.append(Launch(prefill_kernel, grid, given, config.num_warps, config.num_stages))
    return call.out_THE, launches


def prefill(q_THD: Tensor, kv: PagedCache | tuple[Tensor, Tensor], batch: Ragged, **options: Any) -> Tensor:
    """`plan_prefill`, run."""
    out_THE, launches = plan_prefill(q_THD, kv, batch, **options)
    run_all(launches)
    return out_THE
