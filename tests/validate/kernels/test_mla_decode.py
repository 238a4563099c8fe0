"""Decode over a latent cache against float64, in the interpreter: odd shapes, and NaN wherever nothing may be read."""

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvplan.validate.kernels import reference
from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.launch import Config, Unsupported
from kvplan.validate.kernels.mla_decode import DEFAULTS, default_config, mla_decode, plan_mla_decode
from kvplan.validate.suite.correctness import poison
from tests.validate.kernels.caches import assert_close

SCALE = 0.2
LENGTHS = [77, 1, 0, 32]  # odd, one token, empty, whole tiles


def latent_cache(
    lengths: list[int],
    *,
    latent: int = 32,
    rope: int = 16,
    page_size: int = 16,
    dtype: torch.dtype = torch.float32,
    key_scale: float = 1.0,
) -> PagedCache:
    """A cache that holds `lengths` random tokens, in shuffled pages of a poisoned pool."""
    cache = PagedCache.allocate(
        num_pages=sum(-(-length // page_size) for length in lengths) + 2,
        page_size=page_size,
        num_kv_heads=1,
        key_dim=latent + rope,
        value_dim=latent,
        dtype=dtype,
        num_seqs=len(lengths),
        max_tokens=max(*lengths, 1, 1) + 3 * page_size,
        device="cpu",
        latent=True,
        key_scale=key_scale,
        shuffle=random.Random(7),
    )
    poison(cache)
    cache.append(torch.randn(sum(lengths), 1, latent + rope), None, lengths)
    return cache


def expected_BHE(q_BHD: Tensor, cache: PagedCache) -> Tensor:
    """Every head attends to the same latents, with their first dimensions as values."""
    rows = []
    for sequence in range(q_BHD.shape[0]):
        length = cache.length(sequence)
        k_T1D = reference.gather(cache.keys, cache.block_table[sequence], length, cache.key_scale)
        v_T1E = k_T1D[..., : cache.values.shape[3]]
        seen = reference.visible(1, length)
        rows.append(reference.attention(q_BHD[sequence : sequence + 1], k_T1D, v_T1E, seen, scale=SCALE))
    return torch.cat(rows)


def check(
    cache: PagedCache,
    *,
    heads: int = 16,
    dtype: torch.dtype = torch.float32,
    splits: int = 1,
    block_n: int = 16,
    **config: int,
) -> None:
    q_BHD = torch.randn(len(cache.lengths), heads, cache.keys.shape[3]).to(dtype)
    tried = Config(block_n, 4, 2, num_splits=splits, **config)
    assert_close(mla_decode(q_BHD, cache, scale=SCALE, config=tried), expected_BHE(q_BHD, cache), dtype)


@pytest.mark.parametrize("splits", [1, 2, 3, 9])
def test_ragged_lengths_whole_and_split(splits):
    check(latent_cache(LENGTHS), splits=splits)


@pytest.mark.parametrize("heads", [1, 5, 16, 20, 64])
def test_any_number_of_heads_in_one_block(heads):
    check(latent_cache([35, 18]), heads=heads, splits=2)


def test_more_heads_than_one_block_holds():
    """DeepSeek-V3 without tensor parallelism: 128 heads in two blocks of 64; and 35 in three of 16."""
    check(latent_cache([21]), heads=128)
    check(latent_cache([21]), heads=35, block_m=16, splits=2)


@pytest.mark.parametrize(("latent", "rope"), [(512, 64), (256, 32), (48, 24), (33, 8), (16, 16)])
def test_dimensions_of_real_models_and_odd_ones(latent, rope):
    check(latent_cache([35], latent=latent, rope=rope), splits=2)


@pytest.mark.parametrize(("page_size", "block_n"), [(16, 16), (32, 16), (64, 32), (256, 64)])
def test_pages_that_hold_whole_tiles(page_size, block_n):
    check(latent_cache([2 * page_size + 5, 3], page_size=page_size), block_n=block_n, splits=2)


@pytest.mark.parametrize("page_size", [16, 48])
def test_tiles_that_span_pages(page_size):
    check(latent_cache([131, 64], page_size=page_size), block_n=64, splits=2)


STORED = {
    "fp16": (torch.float16, torch.float16),
    "bf16": (torch.bfloat16, torch.bfloat16),
    "e4m3, fp16 queries": (torch.float8_e4m3fn, torch.float16),
    "e4m3, bf16 queries": (torch.float8_e4m3fn, torch.bfloat16),
    "e4m3, fp32 queries": (torch.float8_e4m3fn, torch.float32),
}


@pytest.mark.parametrize(("stored", "dtype"), STORED.values(), ids=STORED)
@pytest.mark.parametrize("splits", [1, 2])
def test_stored_types_and_the_scale_that_keys_and_values_share(stored, dtype, splits):
    key_scale = 0.5 if stored == torch.float8_e4m3fn else 1.0
    check(latent_cache([50, 18], dtype=stored, key_scale=key_scale), dtype=dtype, splits=splits)


@settings(max_examples=10)
@given(
    lengths=st.lists(st.integers(0, 70), min_size=1, max_size=3),
    heads=st.integers(1, 40),
    splits=st.integers(1, 4),
    page_size=st.sampled_from([16, 32]),
    block_n=st.sampled_from([16, 32]),
)
def test_any_shape(lengths, heads, splits, page_size, block_n):
    check(latent_cache(lengths, page_size=page_size), heads=heads, splits=splits, block_n=block_n)


def test_what_is_chosen_without_a_configuration_agrees_too():
    cache = latent_cache([300])
    q_BHD = torch.randn(1, 16, 48)
    out_BHE, launches = plan_mla_decode(q_BHD, cache, scale=SCALE)
    assert [launch.name for launch in launches] == ["mla_decode_kernel", "combine_kernel"]  # one sequence: split
    for launch in launches:
        launch.run()
    assert_close(out_BHE, expected_BHE(q_BHD, cache), torch.float32)


def test_the_output_may_be_given():
    cache, q_BHD, out_BHE = latent_cache([9]), torch.randn(1, 3, 48), torch.empty(1, 3, 32)
    assert mla_decode(q_BHD, cache, scale=SCALE, config=Config(16, 4, 2), out_BHE=out_BHE) is out_BHE
    assert_close(out_BHE, expected_BHE(q_BHD, cache), torch.float32)


def test_wide_offsets_agree():
    """What a pool of 2^31 numbers switches on, forced on a small one, with ids per key."""
    cache, q_BHD = latent_cache([40]), torch.randn(1, 4, 48)
    out_BHE, (launch,) = plan_mla_decode(q_BHD, cache, scale=SCALE, config=Config(64, 4, 2))
    assert not launch.args["WIDE"]
    launch.kernel[launch.grid](**{**launch.args, "WIDE": True})
    assert_close(out_BHE, expected_BHE(q_BHD, cache), torch.float32)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_the_smallest_block_that_holds_all_heads(target):
    blocks = [default_config(heads, torch.bfloat16, target)[0].block_m for heads in (1, 16, 17, 32, 128)]
    assert blocks == [16, 16, 32, 32, DEFAULTS[target, 16][-1][0].block_m]


def test_a_target_without_the_conversion_says_so():
    for target in ("sm_80", "gfx942"):
        with pytest.raises(Unsupported, match=f"{target} does not convert torch.float8_e4m3fn"):
            default_config(16, torch.float8_e4m3fn, target)


def plain_cache(**changed: Any) -> PagedCache:
    shape = {"num_kv_heads": 1, "key_dim": 48, "value_dim": 32, "dtype": torch.float32} | changed
    return PagedCache.allocate(num_pages=2, page_size=16, num_seqs=1, max_tokens=16, device="cpu", **shape)


REFUSED = {
    "separate values": (plain_cache(), torch.zeros(1, 4, 48), "not a latent one"),
    "two heads": (plain_cache(latent=True, num_kv_heads=2), torch.zeros(1, 4, 48), "not a latent one"),
    "no rotary key": (plain_cache(latent=True, value_dim=48), torch.zeros(1, 4, 48), "not a latent one"),
    "queries of other dimensions": (plain_cache(latent=True), torch.zeros(1, 4, 32), "queries have 32 dimensions"),
    "queries of other sequences": (plain_cache(latent=True), torch.zeros(2, 4, 48), "2 queries for 1 sequences"),
    "two 16-bit types": (
        plain_cache(latent=True, dtype=torch.float16),
        torch.zeros(1, 4, 48, dtype=torch.bfloat16),
        "queries of torch.bfloat16 on latents of torch.float16",
    ),
    "int8": (plain_cache(latent=True, dtype=torch.int8), torch.zeros(1, 4, 48), "latents of torch.int8"),
}


@pytest.mark.parametrize(("cache", "q_BHD", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(cache, q_BHD, said):
    with pytest.raises(Unsupported, match=said):
        plan_mla_decode(q_BHD, cache, scale=1.0)
