"""Prefill against float64, in the interpreter: every pattern, option and layout, poison wherever nothing may be read."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvplan.validate.kernels import prefill_call, reference, select
from kvplan.validate.kernels.cache import FP8_DTYPES, PagedCache
from kvplan.validate.kernels.launch import Config, Unsupported
from kvplan.validate.kernels.prefill import plan_prefill, prefill
from kvplan.validate.kernels.prefill_call import DEFAULTS, Pattern, PrefillCall, Ragged, default_form, fits_overlap
from kvplan.validate.suite.correctness import held, poison
from tests.validate.kernels.caches import assert_close

NAN = float("nan")
SMALL = Config(block_n=16, num_warps=4, num_stages=1, block_m=16)
PATTERNS = {
    "causal": Pattern.causal(),
    "window of one": Pattern.window(1),
    "window within a tile": Pattern.window(5),
    "window of several tiles": Pattern.window(75),
    "window beyond the sequence": Pattern.window(10_000),
    "chunk within a tile": Pattern.chunked(7),
    "chunks across tiles": Pattern.chunked(100),
    "full": Pattern.full(),
}
GAP = 3  # rows of NaN around each sequence of a packed tensor


def positions(*rows: Sequence[int]) -> Tensor:
    """Global positions of each sequence, padded with -1."""
    most = max(len(row) for row in rows)
    return torch.tensor([[*row, *[-1] * (most - len(row))] for row in rows], dtype=torch.int32)


def seen_by(pattern: Pattern, sequence: int, queries: int, keys: int) -> Tensor:
    """The oracle's mask of one sequence."""
    rules: dict[str, dict[str, Any]] = {
        "causal": {},
        "window": {"window": pattern.reach},
        "chunked": {"chunk": pattern.reach},
        "full": {"causal": False},
        "sparse": {"causal": False, "window": pattern.reach},
    }
    rule = rules[pattern.kind]
    if pattern.positions_BM is not None:
        rule["global_tokens"] = pattern.positions_BM[sequence]
    return reference.visible(queries, keys, **rule)


def packed(lengths: Sequence[int], heads: int, dim: int, dtype: torch.dtype) -> tuple[Tensor, list[int]]:
    """(random rows of each sequence with NaN around them, where each sequence starts)."""
    starts = [sum(lengths[:b]) + GAP * (b + 1) for b in range(len(lengths))]
    rows = torch.full((sum(lengths) + GAP * (len(lengths) + 1), heads, dim), NAN, dtype=dtype)
    for start, length in zip(starts, lengths, strict=True):
        rows[start : start + length] = torch.randn(length, heads, dim).to(dtype)
    return rows, starts


def paged(
    keys: Sequence[int],
    heads: int,
    key_dim: int,
    value_dim: int,
    dtype: torch.dtype,
    page_size: int,
    gone: Sequence[int],
) -> PagedCache:
    """A cache of random tokens in shuffled pages; the pages wholly before `gone[b]` are given back, and hold NaN."""
    eight_bit = dtype in FP8_DTYPES
    cache = PagedCache.allocate(
        num_pages=sum(-(-n // page_size) for n in keys) + 3,
        page_size=page_size,
        num_kv_heads=heads,
        key_dim=key_dim,
        value_dim=value_dim,
        dtype=dtype,
        num_seqs=len(keys),
        max_tokens=max(*keys, 1) + 2 * page_size,
        device="cpu",
        key_scale=0.5 if eight_bit else 1.0,
        value_scale=0.25 if eight_bit else 1.0,
        shuffle=random.Random(7),
    )
    poison(cache)
    slots = cache.take(keys)
    position = torch.cat([torch.arange(n) for n in keys])
    first_held = torch.cat([torch.full((n,), b // page_size * page_size) for n, b in zip(keys, gone, strict=True)])
    slots = slots[position >= first_held]
    for sequence, before in enumerate(gone):
        cache.block_table[sequence, : before // page_size] = -1
    for pool, scales in ((cache.keys, cache.key_scales), (cache.values, cache.value_scales)):
        tokens = torch.randn(len(slots), heads, pool.shape[-1])
        if scales is not None:
            tokens = (tokens * 40).clamp(-127, 127)
            scales.view(-1, heads)[slots] = torch.rand(len(slots), heads) / 60 + 0.001
        pool.view(-1, heads, pool.shape[-1])[slots] = tokens.to(dtype)
    return cache


def check(
    queries: Sequence[int],
    keys: Sequence[int],
    *,
    pattern: Pattern = PATTERNS["causal"],
    heads: tuple[int, int] = (4, 2),
    dims: tuple[int, int] = (16, 16),
    page_size: int = 16,
    dtype: torch.dtype = torch.float32,
    stored: torch.dtype | None = None,
    softcap: float | None = None,
    sinks: bool = False,
    tma: bool = False,
    config: Config = SMALL,
    overlap: bool | None = True,
    evict: bool = False,
) -> None:
    """Every row of a ragged batch is right, and what lies between the sequences is left alone. Page size 0: contiguous."""
    q_THD, starts = packed(queries, heads[0], dims[0], dtype)
    gone = [max(have - new - pattern.reach + 1, 0) * evict for new, have in zip(queries, keys, strict=True)]
    key_starts = [0] * len(keys)
    kv: PagedCache | tuple[Tensor, Tensor]
    if page_size:
        kv = paged(keys, heads[1], *dims, stored or dtype, page_size, gone)
        sequences = [held(kv, b) for b in range(len(keys))]
    else:
        k_THD, key_starts = packed(keys, heads[1], dims[0], dtype)
        v_THE, _ = packed(keys, heads[1], dims[1], dtype)
        kv = k_THD, v_THE
        sequences = [(k_THD[s : s + n], v_THE[s : s + n]) for s, n in zip(key_starts, keys, strict=True)]
    batch = Ragged(*(torch.tensor(n, dtype=torch.int32) for n in (starts, queries, key_starts, keys)), max(queries))
    sinks_H = torch.randn(heads[0]) if sinks else None
    out_THE = torch.full((*q_THD.shape[:2], dims[1]), NAN, dtype=dtype)
    scale = dims[0] ** -0.5
    prefill(
        q_THD, kv, batch, scale=scale, pattern=pattern, softcap=softcap, sinks_H=sinks_H, config=config, tma=tma, overlap=overlap, out_THE=out_THE
    )  # fmt: skip
    between = torch.ones(len(q_THD), dtype=torch.bool)
    for b, (start, new, have) in enumerate(zip(starts, queries, keys, strict=True)):
        rows = slice(start, start + new)
        between[rows] = False
        if new:
            seen = seen_by(pattern, b, new, have)
            expected = reference.attention(
                q_THD[rows], *sequences[b], seen, scale=scale, softcap=softcap, sinks_H=sinks_H
            )
            assert_close(out_THE[rows], expected, dtype)
    assert out_THE[between].isnan().all()


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("layout", ["page 16", "page 64", "contiguous"])
def test_every_pattern_over_a_ragged_batch(pattern: Pattern, layout: str) -> None:
    page_size = {"page 16": 16, "page 64": 64, "contiguous": 0}[layout]
    check([11, 0, 1, 16], [11, 21, 33, 110], pattern=pattern, page_size=page_size)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("overlap", [True, False], ids=["overlapped", "in order"])
def test_whole_tiles_by_tma(pattern: Pattern, overlap: bool) -> None:
    check([9, 12], [9, 110], pattern=pattern, page_size=32, tma=True, overlap=overlap)


OPTIONS: dict[str, dict[str, Any]] = {
    "values follow in order": {"overlap": False},
    "soft cap": {"softcap": 3.0},
    "soft cap, in order": {"softcap": 3.0, "overlap": False},
    "sinks": {"sinks": True},
    "window and sinks": {"sinks": True, "pattern": Pattern.window(20)},
    "soft cap and sinks by TMA": {"softcap": 3.0, "sinks": True, "tma": True},
    "TMA, contiguous": {"tma": True, "page_size": 0},
    "tiles of half the page": {"page_size": 32},
    "tiles of two pages": {"config": Config(32, 4, 1, block_m=16)},
    "evicted pages": {"pattern": Pattern.window(20), "evict": True},
    "evicted pages, whole tiles": {"pattern": Pattern.window(80), "evict": True, "tma": True},
    "one group of 3": {"heads": (3, 1)},
    "groups of 5": {"heads": (10, 2)},
    "groups of 7": {"heads": (7, 1)},
    "groups as large as the block": {"heads": (16, 1)},
    "groups larger than the block": {"heads": (20, 1)},
    "no groups": {"heads": (3, 3)},
    "key dimension 24, value dimension 40": {"dims": (24, 40)},
    "key dimension 48, value dimension 32": {"dims": (48, 32)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_and_shapes(options: dict[str, Any]) -> None:
    check([11, 1, 6], [11, 70, 110], **options)


@pytest.mark.parametrize("pattern", ["causal", "window of several tiles", "chunks across tiles"])
@pytest.mark.parametrize("page_size", [16, 32])
def test_edges_in_smaller_tiles(pattern: str, page_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill_call, "EDGE_N", 16)
    wide = Config(32, 4, 1, block_m=16)
    check([7, 5], [140, 181], pattern=PATTERNS[pattern], page_size=page_size, config=wide, tma=page_size == 32)


STORED = {
    "fp16": {"dtype": torch.float16},
    "bf16": {"dtype": torch.bfloat16},
    "e4m3 of bf16 queries": {"dtype": torch.bfloat16, "stored": torch.float8_e4m3fn},
    "e4m3": {"stored": torch.float8_e4m3fn},
    "e5m2": {"stored": torch.float8_e5m2},
    "int8": {"stored": torch.int8},
    "int8 of fp16 queries by TMA": {"dtype": torch.float16, "stored": torch.int8, "tma": True},
}


@pytest.mark.parametrize("stored", STORED.values(), ids=STORED)
def test_stored_types(stored: dict[str, Any]) -> None:
    check([9, 5], [9, 83], **stored)


SPARSE = {
    "within the band and outside": positions([0, 3, 39], [], [50, 2]),
    "more than a tile": positions(range(0, 34, 2), [0], [5]),
    "not reached by any query": positions([0], [0], [1, 0]),
    "beyond the sequence": positions([39, 40, 400], [1], [52]),
}


@pytest.mark.parametrize("layout", ["paged", "contiguous"])
@pytest.mark.parametrize("positions_BM", SPARSE.values(), ids=SPARSE)
def test_global_positions(positions_BM: Tensor, layout: str) -> None:
    pattern = Pattern.sparse(6, positions_BM)
    check([40, 1, 7], [40, 1, 53], pattern=pattern, heads=(2, 1), page_size=16 if layout == "paged" else 0)


def test_global_positions_over_whole_tiles() -> None:
    check([4], [150], pattern=Pattern.sparse(100, positions([147, 20])), tma=True, sinks=True)


def test_an_encoder_attends_to_another_sequence() -> None:
    check([5, 30], [70, 3], pattern=Pattern.full(), page_size=0)


def test_queries_before_the_first_key_see_nothing() -> None:
    check([20], [7])
    check([20], [7], pattern=Pattern.chunked(4), sinks=True)


def test_no_query_and_no_sequence_need_no_launch() -> None:
    kv = torch.zeros(8, 1, 16), torch.zeros(8, 1, 16)
    for lengths in ([0, 0], []):
        out_THE, launches = plan_prefill(torch.zeros(0, 2, 16), kv, Ragged.pack(lengths, [4] * len(lengths)), scale=1.0)
        assert out_THE.shape == (0, 2, 16)
        assert launches == []


def test_strided_queries_keys_and_output() -> None:
    """Queries, keys and values side by side in one tensor, as a fused projection leaves them."""
    qkv = torch.randn(21, 8, 16)
    q_THD, k_THD, v_THE = qkv[:, :4], qkv[:, 4:6], qkv[:, 6:]
    out = torch.full((21, 6, 16), NAN)
    out_THE = prefill(q_THD, (k_THD, v_THE), Ragged.pack([21]), scale=0.3, config=SMALL, tma=True, out_THE=out[:, 1:5])
    assert_close(out_THE, reference.attention(q_THD, k_THD, v_THE, reference.visible(21, 21), scale=0.3), torch.float32)
    assert out[:, [0, 5]].isnan().all()


def test_default_form_runs() -> None:
    q_THD, k_THD = torch.randn(9, 2, 16), torch.randn(9, 1, 16)
    out_THE = prefill(q_THD.half(), (k_THD.half(), k_THD.half()), Ragged.pack([9]), scale=0.3)
    expected = reference.attention(q_THD, k_THD, k_THD, reference.visible(9, 9), scale=0.3)
    assert_close(out_THE, expected, torch.float16)


shapes = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60)), min_size=1, max_size=3)
patterns = st.one_of(
    st.sampled_from([Pattern.causal(), Pattern.full()]),
    st.integers(1, 90).map(Pattern.window),
    st.integers(1, 90).map(Pattern.chunked),
)


@settings(max_examples=12)
@given(
    shapes=shapes, pattern=patterns, page_size=st.sampled_from([0, 16, 32]), group=st.integers(1, 9), tma=st.booleans()
)
def test_any_batch(shapes: list[tuple[int, int]], pattern: Pattern, page_size: int, group: int, tma: bool) -> None:
    queries = [new for new, _ in shapes]
    check(queries, [new + old for new, old in shapes], pattern=pattern, page_size=page_size, heads=(group, 1), tma=tma)


KV = torch.zeros(8, 2, 16), torch.zeros(8, 2, 16)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "heads": ({"q_THD": torch.zeros(4, 3, 16)}, "3 query heads do not share 2 KV heads"),
    "dimensions": ({"q_THD": torch.zeros(4, 2, 32)}, "queries have 32 dimensions, keys 16"),
    "narrow heads": ({"q_THD": torch.zeros(4, 2, 8), "kv": (torch.zeros(8, 2, 8),) * 2}, "16 or more"),
    "wide heads": ({"q_THD": torch.zeros(4, 2, 512).half(), "kv": (torch.zeros(8, 2, 512),) * 2}, "256 are the most"),
    "type": ({"q_THD": torch.zeros(4, 2, 16, dtype=torch.float64)}, "float64"),
    "scale": ({"scale": -1.0}, "must be positive"),
    "group": ({"q_THD": torch.zeros(4, 258, 16)}, "129 query heads share a KV head"),
    "positions": (
        {"pattern": Pattern.sparse(4, positions([1], [1]))},
        "global positions for 2 sequences of a batch of 1",
    ),
    "TMA": ({"config": SMALL, "tma": True, "kv": (torch.zeros(8, 2, 24)[..., :16],) * 2}, "TMA needs"),
}


@pytest.mark.parametrize(("wrong", "said"), WRONG.values(), ids=WRONG)
def test_what_it_cannot_do_is_said(wrong: dict[str, Any], said: str) -> None:
    case: dict[str, Any] = {"q_THD": torch.zeros(4, 2, 16), "kv": KV, "batch": Ragged.pack([4]), "scale": 1.0}
    with pytest.raises(Unsupported, match=said):
        plan_prefill(**(case | wrong))


def test_a_reach_of_nothing_is_refused() -> None:
    with pytest.raises(Unsupported, match="sees nothing"):
        Pattern.window(0)


def call(page_size: int, dim: int, stored: torch.dtype = torch.float16) -> PrefillCall:
    cache = paged([1, 1], 1, dim, dim, stored, page_size, [0, 0]) if page_size else None
    kv = cache or (torch.zeros(8, 1, dim, dtype=torch.float16),) * 2
    return PrefillCall(torch.zeros(2, 2, dim, dtype=torch.float16), kv, Ragged.pack([1, 1]), 1.0)


def test_default_forms() -> None:
    """TMA where tiles lie in a page, the largest tile that is buffered twice, overlap where registers allow."""
    known = {
        ("sm_90", 0, 128, torch.float16): (128, True, True),
        ("sm_90", 64, 128, torch.float16): (64, True, True),
        ("sm_90", 16, 128, torch.float16): (64, False, True),
        ("sm_90", 128, 128, torch.float8_e4m3fn): (64, True, True),
        ("sm_90", 0, 96, torch.float16): (64, False, True),
        ("sm_90", 128, 256, torch.float16): (64, True, False),
        ("sm_90", 16, 256, torch.float16): (32, False, True),
        ("sm_100", 128, 128, torch.float16): (128, True, False),
        ("sm_80", 128, 128, torch.float16): (64, False, False),
        ("gfx942", 0, 256, torch.float16): (32, False, False),
    }
    assert {target for target, _ in DEFAULTS} == {target for target, *_ in known}
    for (target, *case), expected in known.items():
        config, tma = default_form(target, call(*case))
        assert (config.block_n, tma, fits_overlap(target, call(*case), config, tma)) == expected


def test_a_form_measured_on_this_device_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    like = {
        "target": "sm_90",
        "stored_bits": 16,
        "dim": 128,
        "rows": 16,
        "block_m": 64,
        "num_warps": 4,
        "num_stages": 2,
    }
    like |= {"blocks_per_sm": 1, "basis": "measured", "device": "H100 SXM"}
    tma = {"kernel": "prefill_packed_tma", "block_n": 32, "cost": 1.1} | like
    pointers = {"kernel": "prefill", "block_n": 16, "cost": 1.0} | like
    monkeypatch.setattr(select, "_table", lambda: (tma, pointers))
    q, kv = torch.zeros(40, 4, 128).half(), (torch.zeros(40, 2, 128).half(), torch.zeros(40, 2, 128).half())

    def planned(**options: Any) -> tuple[int, bool]:
        args = plan_prefill(q, kv, Ragged.pack([40]), scale=1.0, **options)[1][0].args
        return args["BLOCK_N"], args["TMA"]

    assert planned() == (16, False)
    assert planned(tma=True) == (32, True)
    monkeypatch.setattr(select, "_table", lambda: ())
    assert planned() == (DEFAULTS["sm_90", True][1][2].block_n, True)
