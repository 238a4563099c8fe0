"""Where a prefill's tiles of keys lie, and how one becomes a matrix operand or a step of the softmax.

A pool, paged or not, is rows of tokens: token t of page p is row p · page size + t, and a row fits into 32 bits. Keys
that follow one another in rows (in one page, or packed) are told by the first row, the others by a vector of rows.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kvplan.validate.kernels.tile import operand


@triton.jit
def pages_of(table, tile, bounds, BLOCK_N: tl.constexpr, PAGE: tl.constexpr):
    """Page ids of a tile's keys, none outside the bounds; one for the tile where it lies in one page."""
    if PAGE == 0:
        return tl.load(table)  # contiguous: the row of the sequence's first key
    elif PAGE % BLOCK_N == 0:
        start = tile * BLOCK_N
        return tl.load(table + start // PAGE, mask=(start < bounds[1]) & (start + BLOCK_N > bounds[0]), other=0)
    else:
        key = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        return tl.load(table + key // PAGE, mask=(key >= bounds[0]) & (key < bounds[1]), other=0)


@triton.jit
def rows_of(pages, tile, BLOCK_N: tl.constexpr, PAGE: tl.constexpr):
    """Rows of the pool that hold a tile's keys; the first of them where they follow one another."""
    if PAGE == 0:
        return pages + tile * BLOCK_N
    elif PAGE % BLOCK_N == 0:
        return pages * PAGE + tile * BLOCK_N % PAGE
    else:
        return pages * PAGE + (tile * BLOCK_N + tl.arange(0, BLOCK_N)) % PAGE


@triton.jit
def every_row(row, BLOCK_N: tl.constexpr, PAGE: tl.constexpr):
    """What `rows_of` returned, as one row per key."""
    if PAGE % BLOCK_N == 0:
        row += tl.arange(0, BLOCK_N)
    return row


@triton.jit
def load_rows(
    pool, row, live, dtype: tl.constexpr, DIM: tl.constexpr, TOKEN_SCALES: tl.constexpr, MASKED: tl.constexpr
):
    """Keys or values at these rows as a matrix operand, padded with zeros to a power of two dimensions.

    pool: (pointer to the head, stride of a token, the head's scales, their stride). A scale per token multiplies the
    tile: scores and weights have as many numbers, but in fp32 and each thread has all columns' of them.
    """
    d = tl.arange(0, triton.next_power_of_2(DIM))
    at = pool[0] + (row.to(tl.int64) * pool[1])[:, None] + d[None, :]
    if MASKED:
        tile = tl.load(at, mask=live[:, None] & (d < DIM)[None, :], other=0.0)
    elif triton.next_power_of_2(DIM) > DIM:
        tile = tl.load(at, mask=(d < DIM)[None, :], other=0.0)
    else:
        tile = tl.load(at)
    return scaled(operand(tile, dtype), pool, row, live, TOKEN_SCALES, MASKED)


@triton.jit
def scaled(tile, pool, row, live, TOKEN_SCALES: tl.constexpr, MASKED: tl.constexpr):
    """A tile times its tokens' own scales, if they have any."""
    if TOKEN_SCALES:
        at = pool[2] + row.to(tl.int64) * pool[3]
        if MASKED:
            tile = tile * tl.load(at, mask=live, other=0.0).to(tile.dtype)[:, None]
        else:
            tile = tile * tl.load(at).to(tile.dtype)[:, None]
    return tile


@triton.jit
def whole_tile(
    pool, tiles, row, dtype: tl.constexpr, DIM: tl.constexpr, BLOCK_N: tl.constexpr, PAGE: tl.constexpr,
    TOKEN_SCALES: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """An unmasked tile as a matrix operand. tiles: (descriptor of the pool as rows of all heads, first column)."""
    rows = every_row(row, BLOCK_N, PAGE)
    if TMA:
        return scaled(operand(tiles[0].load([row, tiles[1]]), dtype), pool, rows, None, TOKEN_SCALES, False)
    else:
        return load_rows(pool, rows, None, dtype, DIM, TOKEN_SCALES, False)


@triton.jit
def fold_raw(scores, factor, top, total, MASKED: tl.constexpr):
    """`tile.fold` of scores that still lack their positive factor.

    The maximum commutes with it, and s · factor − top is one fused multiply-add. Unless MASKED, every row sees a key.
    """
    new_top = tl.maximum(top, tl.max(scores, 1) * factor)
    anchor = new_top
    if MASKED:
        anchor = tl.where(new_top == -float("inf"), 0.0, new_top)
    weights = tl.exp2(scores * factor - anchor[:, None])
    rescale = tl.exp2(top - anchor)
    return weights, rescale, new_top, total * rescale + tl.sum(weights, 1)
