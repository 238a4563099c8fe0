"""The paged cache: what it holds to the byte, what append writes, which pages leave a window."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kvplan
from kvplan.validate.kernels import reference
from kvplan.validate.kernels.cache import EVICTED, PagedCache
from kvplan.validate.kernels.launch import Unsupported
from kvplan.validate.suite.correctness import held
from tests.validate.kernels.caches import filled_cache


def allocate(**changes) -> PagedCache:
    given = {
        "num_pages": 8,
        "page_size": 16,
        "num_kv_heads": 2,
        "key_dim": 32,
        "value_dim": 32,
        "dtype": torch.float16,
        "num_seqs": 2,
        "max_tokens": 128,
        "device": "cpu",
    }
    return PagedCache.allocate(**(given | changes))


def test_bytes_are_those_of_the_tokens_worked_by_hand():
    """8 pages · 16 tokens · 2 heads · (32 + 32) · 2 bytes = 32,768; int8 adds 2 scales of 4 bytes per token and head."""
    assert allocate().storage_bytes == 32_768
    assert allocate(dtype=torch.int8).storage_bytes == 16_384 + 8 * 16 * 2 * 8
    assert allocate(num_kv_heads=1, key_dim=576, value_dim=512, latent=True).storage_bytes == 8 * 16 * 576 * 2


#: model → one of its layers as tensors: KV heads, key and value dimensions, whether they are one latent.
MODELS = {
    "meta-llama/Llama-3.1-8B": (32, 8, 128, 128, False),
    "mistralai/Mistral-7B-v0.1": (32, 8, 128, 128, False),
    "deepseek-ai/DeepSeek-V3": (61, 1, 576, 512, True),
}


@pytest.mark.parametrize("page_size", [16, 64])
@pytest.mark.parametrize(("model", "shape"), MODELS.items(), ids=MODELS)
def test_a_layer_holds_the_bytes_that_the_planner_predicts(model, shape, page_size):
    layers, heads, key_dim, value_dim, latent = shape
    tokens = 256  # within every window, and whole pages
    layer = allocate(
        num_pages=2 * tokens // page_size,
        page_size=page_size,
        num_kv_heads=heads,
        key_dim=key_dim,
        value_dim=value_dim,
        latent=latent,
        dtype=torch.bfloat16,
        max_tokens=tokens,
    )
    plan = kvplan.estimate(model, seq_len=tokens, batch_size=2, kv_dtype="bf16")
    assert layer.storage_bytes * layers == plan.kv_cache.needed_bytes


def test_a_pool_is_one_allocation():
    cache = allocate(dtype=torch.int8)
    parts = [cache.keys, cache.values, cache.key_scales, cache.value_scales]
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_append_writes_each_token_into_its_slot(dtype):
    cache = allocate(dtype=dtype, shuffle=random.Random(3))
    written = [[], []]
    for counts in ([5, 20], [1, 1], [0, 30], [40, 0]):
        k_TKD, v_TKE = torch.randn(sum(counts), 2, 32), torch.randn(sum(counts), 2, 32)
        cache.append(k_TKD, v_TKE, counts)
        for sequence, part in enumerate(zip(k_TKD.split(counts), v_TKE.split(counts), strict=True)):
            written[sequence].append(part)
    assert cache.lengths.tolist() == [46, 51]
    for sequence, parts in enumerate(written):
        k_TKD, v_TKE = held(cache, sequence)
        expected_k = torch.cat([k for k, _ in parts]).double()
        tolerance = torch.finfo(dtype).eps / 2
        torch.testing.assert_close(k_TKD, expected_k, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(v_TKE, torch.cat([v for _, v in parts]).double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_fp8_is_scaled_clamped_and_rounded(dtype):
    cache = allocate(dtype=dtype, key_scale=0.5, value_scale=0.25)
    k_TKD, v_TKE = torch.randn(10, 2, 32) * 20, torch.randn(10, 2, 32)
    k_TKD[3, 1, 7] = 1e9
    cache.append(k_TKD, v_TKE, [10, 0])
    stored_k, stored_v = held(cache, 0)
    largest = torch.finfo(dtype).max
    assert stored_k[3, 1, 7] == largest * 0.5
    half_step = {torch.float8_e4m3fn: 2**-4, torch.float8_e5m2: 2**-3}[dtype]
    torch.testing.assert_close(stored_v, v_TKE.double(), rtol=half_step, atol=0.25 * 2**-9)


def test_int8_has_a_scale_per_token_and_head():
    cache = allocate(dtype=torch.int8)
    k_TKD = torch.randn(10, 2, 32) * torch.tensor([1.0, 100.0])[:, None]
    k_TKD[4] = 0.0
    cache.append(k_TKD, k_TKD, [0, 10])
    stored_k, _ = held(cache, 1)
    step = k_TKD.abs().amax(dim=-1, keepdim=True).double() / 127
    assert ((stored_k - k_TKD).abs() <= 0.5001 * step + 1e-12).all()
    assert cache.keys.abs().amax() == 127


def test_slots_below_zero_are_not_written():
    cache = allocate()
    before = cache.keys.clone()
    k_TKD = torch.ones(2, 2, 32)
    for launch in cache.plan_append(k_TKD, k_TKD, torch.tensor([-1, 5])):
        launch.run()
    changed = (cache.keys != before).flatten(2).any(dim=-1)
    assert changed.nonzero().tolist() == [[0, 5]]


@settings(max_examples=20)
@given(length=st.integers(1, 120), window=st.integers(1, 130), page_size=st.sampled_from([4, 16]))
def test_eviction_gives_back_every_page_that_the_next_query_cannot_see_and_no_other(length, window, page_size):
    cache = filled_cache([length], page_size=page_size, spare_pages=0)
    before = cache.held_pages
    returned = cache.evict(window)
    seen = torch.ones(before * page_size, dtype=torch.bool)  # later queries see what is yet to be written
    seen[:length] = reference.visible(1, length + 1, window=window)[0, :length]
    for page in range(before):
        needed = seen[page * page_size : (page + 1) * page_size].any()
        assert (cache.block_table[0, page] == EVICTED) == (not needed), page
    assert returned == before - cache.held_pages == len(cache.free_pages)
    assert cache.evict(window) == 0


def test_evicted_pages_are_used_again():
    """Window 16 and pages of 16: three pages serve any length, two held and one that is given back in time."""
    cache = allocate(num_pages=3, num_seqs=1, max_tokens=400)
    for _ in range(400):
        cache.append(torch.randn(1, 2, 32), torch.randn(1, 2, 32), [1])
        cache.evict(16)
    assert cache.length(0) == 400
    assert cache.held_pages <= 2


def test_a_full_pool_says_so():
    cache = allocate()
    with pytest.raises(MemoryError, match="9 pages are needed and 8 are free"):
        cache.append(torch.zeros(129, 2, 32), torch.zeros(129, 2, 32), [129, 0])
    assert cache.length(0) == 0
    assert len(cache.free_pages) == 8


def test_a_dtype_that_no_kernel_reads():
    with pytest.raises(Unsupported, match=r"no kernel reads a cache of torch\.float64"):
        allocate(dtype=torch.float64)
