"""A cache in pages: worked by hand, and against a pool that takes and gives back page by page."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvplan.core.cache import Cache, caches_of
from kvplan.core.dtypes import parse_kv_dtype
from kvplan.core.engines.paged import paged, peak_pages
from kvplan.core.errors import InputError
from kvplan.core.mixers import CrossAttention, FullAttention, LatentAttention, SlidingAttention
from kvplan.core.model import Layer
from kvplan.core.units import ceil_div

HEADS = {"num_heads": 32, "num_kv_heads": 8, "key_dim": 128, "value_dim": 128}
FULL = FullAttention(**HEADS)
CROSS = CrossAttention(**HEADS)
LATENT = LatentAttention(num_heads=128, latent_dim=512, rope_dim=64, key_dim=192, value_dim=128)


def sliding(window):
    return SlidingAttention(**HEADS, window=window)


def cache_of(mixer):
    [(_, cache)] = caches_of(Layer(mixers=(mixer,), weights=()), parse_kv_dtype("bf16"))
    return cache


def num_pages(mixer, num_tokens, page_size):
    cache = paged(cache_of(mixer), mixer, page_size)
    return cache.bytes_for(num_tokens) / page_size / cache.bytes_per_token


def test_blocks_round_held_tokens_up():
    cache = Cache(kind="full", bytes_per_token=10, fixed_bytes=7, block_size=16)
    assert [cache.bytes_for(n) for n in (0, 1, 16, 17)] == [7, 167, 167, 327]
    assert cache.bytes_for(np.array([0, 1, 16, 17])).tolist() == [7, 167, 167, 327]
    windowed = replace(cache, max_tokens=20)
    assert [windowed.bytes_for(n) for n in (16, 17, 1000)] == [167, 327, 327]


PAGES = {
    # mixer, tokens, page size, pages
    "llama-2-70b, 4,097 tokens": (FULL, 4097, 16, 257),
    "cross": (CROSS, 1500, 16, 94),
    "deepseek-v3": (LATENT, 4096, 64, 64),
    # ⌈4095 / 16⌉ + 1
    "mistral-7b, window 4,096, long": (sliding(4096), 100_000, 16, 257),
    "mistral-7b, 1,000 tokens": (sliding(4096), 1000, 16, 63),
    "a window of one page may lie across two": (sliding(16), 100, 16, 2),
    "a window of one token lies in one": (sliding(1), 100, 16, 1),
    "a window of two may lie across two": (sliding(2), 100, 16, 2),
    "17 may lie across two": (sliding(17), 100, 16, 2),
    "18 may lie across three": (sliding(18), 100, 16, 3),
    "pages of one token": (sliding(100), 1000, 1, 100),
}


@pytest.mark.parametrize(("mixer", "num_tokens", "page_size", "pages"), PAGES.values(), ids=PAGES)
def test_pages_of_a_long_life(mixer, num_tokens, page_size, pages):
    assert num_pages(mixer, num_tokens, page_size) == pages


@given(window=st.integers(1, 200), page_size=st.integers(1, 40))
def test_a_window_is_charged_for_its_worst_alignment(window, page_size):
    worst = max((start + window - 1) // page_size - start // page_size + 1 for start in range(page_size))
    assert num_pages(sliding(window), 10**6, page_size) == worst


@given(num_tokens=st.integers(0, 10_000), window=st.integers(1, 5_000), page_size=st.integers(1, 300))
def test_a_paged_window_holds_the_window_and_no_more_than_everything(num_tokens, window, page_size):
    pages = num_pages(sliding(window), num_tokens, page_size)
    assert min(num_tokens, window) <= pages * page_size
    assert pages <= ceil_div(num_tokens, page_size) == num_pages(FULL, num_tokens, page_size)


def test_pages_of_one_token_are_what_the_layer_needs():
    for mixer in (FULL, CROSS, LATENT, sliding(77)):
        cache = cache_of(mixer)
        assert all(paged(cache, mixer, 1).bytes_for(n) == cache.bytes_for(n) for n in (0, 1, 76, 77, 78, 5000))


def test_a_state_has_no_pages():
    state = Cache(kind="linear", bytes_per_token=0, fixed_bytes=12345)
    assert paged(state, FULL, 16) == state


PEAKS = {
    # tokens, of them prompt, chunk, window, page size, pages
    "without a window everything stays": (1000, 900, 128, None, 16, 63),
    "nothing": (0, 0, 8, 4, 4, 0),
    # Steps of 8, window 4: at 8 tokens 5 are past, so 1 page of 4 goes; 16 tokens are 4 pages, 3 held.
    "chunks": (16, 16, 8, 4, 4, 3),
    # At 12 tokens: 9 past, 2 pages gone; 13 tokens are 4 pages, 2 held; the first chunk of 8 held 2 as well.
    "decode": (16, 8, 8, 4, 4, 2),
    # 7 tokens, window 5: 3 past, none gone; 8 tokens lie on 2 pages. At 8, 4 past, 1 gone, and 1 new.
    "one by one": (100, 0, 8, 5, 4, 2),
    "a prompt at once": (4096, 4096, 8192, 128, 16, 256),
    # 8192 tokens: 8192 − 128 + 1 = 8065 past, 504 pages gone, 1024 − 504 = 520.
    "gpt-oss, chunks of 8,192": (131_072, 131_072, 8192, 128, 16, 520),
    # 16 whole chunks and 928 tokens, which with the 127 before them take 66 pages only.
    "a rest of a chunk": (132_000, 132_000, 8192, 128, 16, 520),
}


@pytest.mark.parametrize(("seq_len", "prompt_len", "chunk", "window", "page_size", "pages"), PEAKS.values(), ids=PEAKS)
def test_peaks_by_hand(seq_len, prompt_len, chunk, window, page_size, pages):
    assert peak_pages(seq_len, prompt_len, chunk, window, page_size) == pages


def simulated(seq_len, prompt_len, chunk, window, page_size):
    """A pool that is handed out and taken back page by page; a page goes when none of its tokens can be seen again."""
    held, length, peak = set(), 0, 0
    while length < seq_len:
        held = {
            page for page in held if window is None or any(
                token > length - window for token in range(page * page_size, (page + 1) * page_size)
            )
        }  # fmt: skip
        step = min(chunk, prompt_len - length) if length < prompt_len else 1
        held |= {token // page_size for token in range(length, length + step)}
        length += step
        peak = max(peak, len(held))
    return peak


@given(
    seq_len=st.integers(0, 200),
    decoded=st.integers(0, 200),
    chunk=st.integers(1, 70),
    window=st.none() | st.integers(1, 90),
    page_size=st.integers(1, 20),
)
@example(seq_len=200, decoded=0, chunk=7, window=30, page_size=16)  # the worst residue comes late
@example(seq_len=61, decoded=0, chunk=20, window=13, page_size=7)  # a last chunk of one token
def test_the_peak_is_that_of_a_pool(seq_len, decoded, chunk, window, page_size):
    schedule = (seq_len, max(seq_len - decoded, 0), chunk, window, page_size)
    assert peak_pages(*schedule) == simulated(*schedule)


@given(
    seq_len=st.integers(1, 2**20),
    part=st.floats(0, 1),
    chunk=st.integers(1, 2**14),
    window=st.integers(1, 2**14),
    page_size=st.sampled_from([1, 16, 64, 528]),
)
def test_no_schedule_exceeds_what_vllm_admits(seq_len, part, chunk, window, page_size):
    # ⌈min(W − 1 + c, L) / p⌉ + 1: `SlidingWindowSpec.max_admission_blocks_per_request` with c tokens in flight
    peak = peak_pages(seq_len, int(seq_len * part), chunk, window, page_size)
    assert peak <= ceil_div(min(window - 1 + chunk, seq_len), page_size) + 1
    assert peak <= ceil_div(seq_len, page_size)
    if window >= seq_len:
        assert peak == ceil_div(seq_len, page_size)


@given(seq_len=st.integers(2_000, 10**6), window=st.integers(1, 900), page_size=st.integers(1, 64))
def test_one_by_one_for_long_meets_the_worst_alignment(seq_len, window, page_size):
    assert peak_pages(seq_len, 0, 1, window, page_size) == num_pages(sliding(window), seq_len, page_size)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: paged(cache_of(FULL), FULL, 0),
        lambda: peak_pages(10, 11, 4, 4, 4),
        lambda: peak_pages(10, -1, 4, 4, 4),
        lambda: peak_pages(10, 5, 0, 4, 4),
        lambda: peak_pages(10, 5, 4, 0, 4),
        lambda: peak_pages(10, 5, 4, None, 0),
    ],
)
def test_refusals(wrong):
    with pytest.raises(InputError) as caught:
        wrong()
    assert caught.value.hint
