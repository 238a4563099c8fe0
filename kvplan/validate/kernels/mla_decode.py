"""One new token per sequence against a latent cache (multi-head latent attention): a latent is read once, used twice.

A token's row in the cache is its latent and a rotary key. In absorbed form every query head lives in the latent's space
too: scores are q·latent + q_rope·rope, and the latent is also the value. So one tile in shared memory is an operand of
both matrix products, for all heads. One program owns a block of heads, a split of the keys and a sequence; blocks of
heads vary fastest in the grid, so that those of one split run together and the latents leave the memory once.

The latent comes in two halves, low and high columns: half the registers while an 8-bit tile is converted, and half the
length of the chain of matrix instructions that wait for one another. Keys are cut over programs (split KV) and merged
by `combine`; page ids are loaded one tile ahead, as in `decode`.

There is no TMA variant, unlike for `decode`: a row is one long piece of memory, so that addresses cost little. By the
compiled code for sm_90, TMA lowers the issue/HBM ratio from 0.19 to 0.16 (bf16) and from 0.42 to 0.41 (fp8), with as
many tiles in flight, and its tail tile, peeled off since TMA cannot leave out unwritten slots, spills at 64 heads.

Sources: DeepSeek-V2, §2.1 (https://arxiv.org/abs/2405.04434); FlashMLA (https://github.com/deepseek-ai/FlashMLA).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.combine import partials, plan_combine
from kvplan.validate.kernels.decode import pages_of_tile, tiles_of_split
from kvplan.validate.kernels.launch import INTERPRETED, Config, Launch, Unsupported, padded, run_all
from kvplan.validate.kernels.select import Problem, configure, machine_of
from kvplan.validate.kernels.tile import LOG2E, OPERANDS, dot, fold, operand, operand_type

_COMPILED = tl.constexpr(not INTERPRETED)

#: (target, bits of a stored number) → (configuration, its blocks per SM), by rising block of heads. Chosen by reading
#: compiled code: no spills by Triton 3.6 and 3.7; on NVIDIA, room for 64 KiB or more on their way per SM, and two
#: blocks where they fit. More heads than 64 do not fit into registers. With 8 bits, more than 32 do not; nor on sm_100,
#: where Triton would buffer the tiles of 64 heads past its shared memory.
DEFAULTS: dict[tuple[str, int], tuple[tuple[Config, int], ...]] = {
    ("sm_80", 16): (
        (Config(16, 4, 4, block_m=16), 2),
        (Config(32, 8, 4, block_m=32), 1),
        (Config(32, 8, 3, block_m=64), 1),
    ),
    ("sm_90", 16): (
        (Config(32, 4, 3, block_m=16), 2),
        (Config(64, 8, 3, block_m=32), 1),
        (Config(64, 8, 2, block_m=64), 1),
    ),
    ("sm_90", 8): ((Config(32, 4, 4, block_m=16), 2), (Config(64, 8, 3, block_m=32), 1)),
    ("sm_100", 16): ((Config(32, 4, 3, block_m=16), 2), (Config(64, 8, 3, block_m=32), 1)),
    ("sm_100", 8): ((Config(64, 8, 4, block_m=16), 1), (Config(64, 8, 3, block_m=32), 1)),
    ("gfx942", 16): (
        (Config(16, 8, 2, block_m=16), 1),
        (Config(16, 8, 2, block_m=32), 1),
        (Config(16, 4, 2, block_m=64), 1),
    ),
}


@triton.jit
def load_part(base, offsets, real, FIRST: tl.constexpr, DIM: tl.constexpr, PADDED: tl.constexpr):
    """DIM columns from FIRST on of the rows at base + offsets, zeros where a row is not real."""
    d = tl.arange(0, PADDED)
    # base and offsets stay apart: within a page only the base changes from tile to tile
    pointers = base + (offsets[:, None] + (FIRST + d)[None, :])
    if DIM < PADDED:
        return tl.load(pointers, mask=real[:, None] & (d < DIM)[None, :], other=0.0)
    else:
        return tl.load(pointers, mask=real[:, None], other=0.0)


@triton.jit
def store_part(base, offsets, part, real, FIRST: tl.constexpr, DIM: tl.constexpr, PADDED: tl.constexpr):
    """The counterpart of `load_part`."""
    d = tl.arange(0, PADDED)
    pointers = base + (offsets[:, None] + (FIRST + d)[None, :])
    tl.store(pointers, part.to(base.dtype.element_ty), mask=real[:, None] & (d < DIM)[None, :])


@triton.jit
def rows_of_tile(
    pool_ptr, page, tile, ROW: tl.constexpr, BLOCK_N: tl.constexpr, PAGE: tl.constexpr, WIDE: tl.constexpr
):
    """(base, offset of each key's row from it) of one tile; WIDE: 64 bits, for pools of 2^31 numbers and more."""
    n = tl.arange(0, BLOCK_N)
    if PAGE % BLOCK_N == 0:
        row = page.to(tl.int64) * PAGE + (tile * BLOCK_N) % PAGE
        return pool_ptr + row * ROW, n * ROW
    else:
        rows = page * PAGE + (tile * BLOCK_N + n) % PAGE
        if WIDE:
            rows = rows.to(tl.int64)
        return pool_ptr, rows * ROW


@triton.jit
def both_ways(stored, dtype: tl.constexpr):
    """A tile as an operand of two products that want it in different layouts, converted once.

    Triton moves a product's change of layout before the conversion of an 8-bit tile: two conversions of every byte, and
    a tile wanted in two layouts is not staged in shared memory at all. It moves nothing across assembly with effects,
    so a move that does nothing keeps the conversion first: two thirds of the instructions, and double-buffered loads.
    """
    tile = operand(stored, dtype)
    if stored.dtype.primitive_bitwidth == 8 and _COMPILED:
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [tile], dtype=tile.dtype, is_pure=False, pack=2)
    else:
        return tile


@triton.jit
def attend(
    q_low, q_high, q_rope, low, high, rope, seen, factor, top, total, acc_low, acc_high,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One tile of latents and rotary keys into the running softmax."""
    blank = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    scores = dot(q_low, tl.trans(low), blank)
    if BLOCK_M < 64:
        # two accumulators; each is scaled before the sum, since a bare sum of products becomes one accumulator again
        scores = scores * factor + dot(q_rope, tl.trans(rope), dot(q_high, tl.trans(high), blank)) * factor
    else:
        # no registers to spare, and fewer, larger instructions
        scores = dot(q_rope, tl.trans(rope), dot(q_high, tl.trans(high), scores)) * factor
    weights, rescale, top, total = fold(tl.where(seen[None, :], scores, -float("inf")), top, total)
    weights = weights.to(low.dtype)
    acc_low = dot(weights, low, acc_low * rescale[:, None])
    return top, total, acc_low, dot(weights, high, acc_high * rescale[:, None])


@triton.jit
def finish(
    out_ptr, acc_ptr, stats_ptr, row, m, real, split, num_splits, value_scale, top, total, low, high,
    LATENT: tl.constexpr, HALF: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Write rows row + m: raw partial sums if there are other splits, else the output itself."""
    if SPLIT:
        row = row * num_splits + split
        m = m * num_splits
        tl.store(stats_ptr + row * 2 + m * 2, top, mask=real)
        tl.store(stats_ptr + row * 2 + m * 2 + 1, total, mask=real)
        base = acc_ptr + row * LATENT
    else:
        share = (value_scale / tl.where(total > 0.0, total, 1.0))[:, None]  # an empty sequence yields zeros
        low, high = low * share, high * share
        base = out_ptr + row * LATENT
    store_part(base, m * LATENT, low, real, 0, HALF, HALF)
    store_part(base, m * LATENT, high, real, HALF, LATENT - HALF, HALF)


@triton.jit
def mla_decode_kernel(
    q_ptr, pool_ptr, out_ptr, acc_ptr, stats_ptr, table_ptr, lengths_ptr, factor, value_scale, table_stride, num_splits,
    HEADS: tl.constexpr, LATENT: tl.constexpr, HALF: tl.constexpr, ROPE: tl.constexpr, ROPE_PADDED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAGE: tl.constexpr, OPERAND: tl.constexpr, SPLIT: tl.constexpr,
    WIDE: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Grid: (blocks of heads, splits, sequences)."""
    ROW: tl.constexpr = LATENT + ROPE
    REST: tl.constexpr = LATENT - HALF
    split = tl.program_id(1)
    batch = tl.program_id(2)
    length = tl.load(lengths_ptr + batch)
    _, first, last = tiles_of_split(length, 0, split, num_splits, BLOCK_N, False)
    first_head = tl.program_id(0) * BLOCK_M
    m = tl.arange(0, BLOCK_M)
    real = m < HEADS - first_head
    row = (batch * HEADS + first_head).to(tl.int64)
    q = q_ptr + row * ROW
    q_low = load_part(q, m * ROW, real, 0, HALF, HALF).to(OPERAND)
    q_high = load_part(q, m * ROW, real, HALF, REST, HALF).to(OPERAND)
    q_rope = load_part(q, m * ROW, real, LATENT, ROPE, ROPE_PADDED).to(OPERAND)
    top = tl.full([BLOCK_M], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc_low = tl.zeros([BLOCK_M, HALF], tl.float32)
    acc_high = tl.zeros([BLOCK_M, HALF], tl.float32)
    table = table_ptr + batch * table_stride
    ahead = pages_of_tile(table, first, 0, length, BLOCK_N, PAGE)
    for tile in tl.range(first, last, num_stages=STAGES):
        page = ahead
        ahead = pages_of_tile(table, tile + 1, 0, length, BLOCK_N, PAGE)
        # a slot that no token was written to may hold NaN, and 0 · NaN would leak: unseen rows are read as zeros
        seen = tile * BLOCK_N + tl.arange(0, BLOCK_N) < length
        base, rows = rows_of_tile(pool_ptr, page, tile, ROW, BLOCK_N, PAGE, WIDE)
        low = both_ways(load_part(base, rows, seen, 0, HALF, HALF), OPERAND)
        high = both_ways(load_part(base, rows, seen, HALF, REST, HALF), OPERAND)
        rope = operand(load_part(base, rows, seen, LATENT, ROPE, ROPE_PADDED), OPERAND)
        top, total, acc_low, acc_high = attend(
            q_low, q_high, q_rope, low, high, rope, seen, factor, top, total, acc_low, acc_high, BLOCK_M, BLOCK_N
        )
    finish(
        out_ptr, acc_ptr, stats_ptr, row, m, real, split, num_splits, value_scale, top, total, acc_low, acc_high,
        LATENT, HALF, SPLIT,
    )  # fmt: skip


def default_config(num_heads: int, dtype: torch.dtype, target: str) -> tuple[Config, int]:
    """(configuration without splits, its blocks per SM): the smallest block that holds all heads, else the largest.

    dtype: of the cache. Raises `Unsupported` for a type that the target has no conversion for.
    """
    rows = DEFAULTS.get((target, min(dtype.itemsize * 8, 16)))
    if rows is None:
        raise Unsupported(f"{target} does not convert {dtype}; store the latents in bf16 or fp16")
    return next((row for row in rows if row[0].block_m >= num_heads), rows[-1])


def plan_mla_decode(
    q_BHD: Tensor,
    cache: PagedCache,
    *,
    scale: float,
    config: Config | None = None,
    out_BHE: Tensor | None = None,
) -> tuple[Tensor, list[Launch]]:
    """(output B × H × E in the latent's space, the launches that fill it).

    q: absorbed, its first E dimensions against the latent, the others against the rotary key. scale: of the softmax;
    the cache's key scale is applied besides, to latents as values too. Raises `Unsupported`.
    """
    _check(q_BHD, cache)
    config = _complete(config, q_BHD, cache)
    batch, heads, _ = q_BHD.shape
    value_dim, splits = cache.values.shape[3], config.num_splits
    if out_BHE is None:
        out_BHE = torch.empty((batch, heads, value_dim), dtype=q_BHD.dtype, device=q_BHD.device)
    acc = stats = None
    if splits > 1:
        acc, stats = partials(batch, heads, splits, value_dim, q_BHD.device)
    args = {
        "q_ptr": q_BHD.contiguous(),
        "pool_ptr": cache.keys,
        "out_ptr": out_BHE,
        "acc_ptr": acc,
        "stats_ptr": stats,
        "table_ptr": cache.block_table,
        "lengths_ptr": cache.lengths,
        "factor": scale * cache.key_scale * LOG2E,
        "value_scale": cache.key_scale,
        "table_stride": cache.block_table.stride(0),
        "num_splits": splits,
        "SPLIT": splits > 1,
    } | _constants(q_BHD, cache, config)
    grid = (triton.cdiv(heads, config.block_m), splits, batch)
    launches = [Launch(mla_decode_kernel, grid, args, config.num_warps, config.num_stages)]
    if acc is not None and stats is not None:
        launches.append(plan_combine(out_BHE, acc, stats, value_scale=cache.key_scale))
    return out_BHE, launches


def mla_decode(q_BHD: Tensor, cache: PagedCache, **options: Any) -> Tensor:
    """`plan_mla_decode`, run."""
    out_BHE, launches = plan_mla_decode(q_BHD, cache, **options)
    run_all(launches)
    return out_BHE


def _check(q_BHD: Tensor, cache: PagedCache) -> None:
    query, stored = q_BHD.dtype, cache.keys.dtype
    if not cache.is_latent or cache.num_kv_heads != 1 or cache.keys.shape[3] <= cache.values.shape[3]:
        raise Unsupported("the cache is not a latent one (one head, values in front of the keys): use `decode`")
    if q_BHD.shape[2] != cache.keys.shape[3]:
        raise Unsupported(f"queries have {q_BHD.shape[2]} dimensions, latent and rotary key {cache.keys.shape[3]}")
    if q_BHD.shape[0] != cache.block_table.shape[0]:
        raise Unsupported(f"{q_BHD.shape[0]} queries for {cache.block_table.shape[0]} sequences")
    if query not in OPERANDS or stored not in (query, torch.float8_e4m3fn):
        raise Unsupported(f"queries of {query} on latents of {stored}: latents have the queries' type, or e4m3")
    if query == torch.float32 and not INTERPRETED:
        raise Unsupported("fp32 tiles do not fit into shared memory: pass bf16 or fp16 queries")


def _complete(config: Config | None, q_BHD: Tensor, cache: PagedCache) -> Config:
    """The configuration with every number that was left to the kernel filled in."""
    batch, heads, _ = q_BHD.shape
    machine = machine_of(q_BHD)
    tuned, _ = default_config(heads, cache.keys.dtype, machine.target)  # or what the target cannot convert
    if config is None:
        keys, value_dim = cache.keys, cache.values.shape[3]
        longest = cache.block_table.shape[1] * cache.page_size
        bits = min(keys.dtype.itemsize * 8, 16)
        shape = (batch, heads, 1, keys.shape[3], value_dim, bits, cache.page_size, longest)
        config = configure("mla_decode", Problem("mla_decode", *shape), machine)
    return replace(config, block_m=config.block_m or tuned.block_m, num_splits=max(config.num_splits, 1))


def _constants(q_BHD: Tensor, cache: PagedCache, config: Config) -> dict[str, Any]:
    """What the compiler must know: dimensions, tiles and types."""
    key_dim, value_dim = cache.keys.shape[3], cache.values.shape[3]
    return {
        "HEADS": q_BHD.shape[1],
        "LATENT": value_dim,
        "HALF": max(triton.next_power_of_2(value_dim) // 2, 16),
        "ROPE": key_dim - value_dim,
        "ROPE_PADDED": padded(key_dim - value_dim),
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "PAGE": cache.page_size,
        # e4m3 to fp16 is one instruction and exact, to bf16 it is several
        "OPERAND": operand_type(q_BHD.dtype, cache.keys.dtype),
        "WIDE": cache.keys.numel() >= 2**31,
        "STAGES": config.num_stages,
    }
