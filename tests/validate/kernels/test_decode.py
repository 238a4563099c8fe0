"""Paged decode against float64, in the interpreter: every option, odd shapes, poison wherever nothing may be read."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvplan.validate.kernels import decode_call, reference
from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.decode import decode, plan_decode
from kvplan.validate.kernels.launch import Config, Unsupported
from kvplan.validate.kernels.select import Choice
from kvplan.validate.suite.correctness import held
from tests.validate.kernels.caches import assert_close, filled_cache

SCALE = 0.2
LENGTHS = [77, 1, 0, 32]  # odd, one token, empty, whole tiles


def expected_BHE(
    q_BHD: Tensor, cache: PagedCache, *, scale: float, window: int | None = None, **options: Any
) -> Tensor:
    rows = []
    for sequence in range(q_BHD.shape[0]):
        k_TKD, v_TKE = held(cache, sequence)
        seen = reference.visible(1, cache.length(sequence), window=window)
        q_QHD = q_BHD[sequence : sequence + 1]
        rows.append(reference.attention(q_QHD, k_TKD, v_TKE, seen, scale=scale, **options))
    return torch.cat(rows)


def check(
    kernel: str,
    cache: PagedCache,
    *,
    group: int = 4,
    dtype: torch.dtype = torch.float32,
    splits: int = 1,
    block_n: int = 16,
    **options: Any,
) -> None:
    num_heads = cache.num_kv_heads * group
    q_BHD = torch.randn(len(cache.lengths), num_heads, cache.keys.shape[3]).to(dtype)
    if options.pop("sinks", False):
        options["sinks_H"] = torch.randn(num_heads)
    choice = Choice(kernel, Config(block_n, 4, 2, num_splits=splits), "given")
    out_BHE = decode(q_BHD, cache, scale=SCALE, choice=choice, **options)
    assert_close(out_BHE, expected_BHE(q_BHD, cache, scale=SCALE, **options), dtype)


KERNELS = ["decode", "decode_tma"]

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "split in 3": {"splits": 3},
    "more splits than tiles": {"splits": 9},
    "window inside the sequence": {"window": 20},
    "window of one key": {"window": 1},
    "window larger than the sequence": {"window": 500},
    "window, split": {"window": 40, "splits": 4},
    "sinks": {"sinks": True},
    "sinks, split": {"sinks": True, "splits": 2},
    "soft cap": {"softcap": 0.7},
    "all at once": {"window": 33, "splits": 3, "sinks": True, "softcap": 2.0},
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_option_agrees_with_float64(kernel, options):
    cache = filled_cache(LENGTHS, page_size=16, window=options.get("window"))
    check(kernel, cache, **options)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("group", [1, 3, 5, 7, 8, 17])
def test_any_number_of_query_heads_per_kv_head(kernel, group):
    check(kernel, filled_cache([19, 40]), group=group, splits=2)


def test_more_query_heads_than_rows_of_a_program():
    """Falcon-7B: 71 query heads on one KV head, in two blocks of 64 rows."""
    check("decode", filled_cache([21], num_kv_heads=1), group=71)


@pytest.mark.parametrize(("key_dim", "value_dim"), [(64, 64), (80, 80), (96, 96), (128, 128), (192, 128), (256, 256)])
def test_head_dimensions_of_real_models(key_dim, value_dim):
    check("decode", filled_cache([35], num_kv_heads=1, key_dim=key_dim, value_dim=value_dim), splits=2)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("page_size", "block_n"), [(16, 16), (32, 16), (64, 32), (256, 64)])
def test_pages_that_hold_whole_tiles(kernel, page_size, block_n):
    check(kernel, filled_cache([2 * page_size + 5, 3], page_size=page_size), block_n=block_n)


@pytest.mark.parametrize("page_size", [16, 48])
def test_tiles_that_span_pages(page_size):
    check("decode", filled_cache([131, 64], page_size=page_size), block_n=64, window=70)


STORED = {
    "fp16": (torch.float16, torch.float16),
    "bf16": (torch.bfloat16, torch.bfloat16),
    "e4m3": (torch.float8_e4m3fn, torch.float16),
    "e5m2": (torch.float8_e5m2, torch.float16),
    "int8": (torch.int8, torch.float16),
    "e4m3, bf16 queries": (torch.float8_e4m3fn, torch.bfloat16),
    "int8, fp32 queries": (torch.int8, torch.float32),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("stored", "dtype"), STORED.values(), ids=STORED)
def test_stored_types_with_their_scales(kernel, stored, dtype):
    scales = {"key_scale": 0.5, "value_scale": 2.0} if stored.itemsize == 1 and stored != torch.int8 else {}
    cache = filled_cache([50, 18], dtype=stored, window=30, **scales)
    check(kernel, cache, dtype=dtype, window=30, splits=2)


@settings(max_examples=15)
@given(
    kernel=st.sampled_from(KERNELS),
    lengths=st.lists(st.integers(0, 70), min_size=1, max_size=3),
    num_kv_heads=st.integers(1, 3),
    group=st.integers(1, 9),
    splits=st.integers(1, 4),
    window=st.none() | st.integers(1, 80),
    sinks=st.booleans(),
)
def test_any_shape(kernel, lengths, num_kv_heads, group, splits, window, sinks):
    cache = filled_cache(lengths, num_kv_heads=num_kv_heads, window=window)
    check(kernel, cache, group=group, splits=splits, window=window, sinks=sinks)


def test_a_window_reads_only_its_own_tiles():
    """NaN in every page before the window, still in the table: they may be there, but they are not read."""
    cache = filled_cache([160], num_kv_heads=1)
    expected_first_page = (160 - 30) // 16
    for page in cache.block_table[0, :expected_first_page]:
        cache.keys[page] = cache.values[page] = float("nan")
    check("decode", cache, window=30, splits=2)


def test_pools_beyond_32_bits_take_wide_offsets(monkeypatch):
    """Any pool counts as large here: what overflows on a real one is not tried, that the wide path is right is."""
    monkeypatch.setattr(decode_call, "WIDE_ELEMENTS", 1)
    check("decode", filled_cache([50, 7]), window=30, splits=2)
    check("decode_tma", filled_cache([50, 7], dtype=torch.int8), dtype=torch.float16)


def test_heads_must_share_evenly():
    cache = filled_cache([5])
    with pytest.raises(Unsupported, match="7 query heads do not share 2 KV heads evenly"):
        plan_decode(torch.zeros(1, 7, 32), cache, scale=1.0)


def test_tma_asks_for_whole_tiles_and_powers_of_two():
    choice = Choice("decode_tma", Config(64, 4, 3), "given")
    with pytest.raises(Unsupported, match="pages of 16 tokens do not hold whole tiles of 64"):
        plan_decode(torch.zeros(1, 2, 32), filled_cache([5]), scale=1.0, choice=choice)
    with pytest.raises(Unsupported, match="not powers of two"):
        plan_decode(torch.zeros(1, 2, 80), filled_cache([5], key_dim=80, page_size=64), scale=1.0, choice=choice)
