"""A paged pool: what it holds of a cache when it is handed out in pages, and at most on the way there.

Two figures: what a sequence may hold at any moment of a long life (`paged`), and the exact peak of one schedule
(`peak_pages`). Pages that a window has left behind are given back before each step.

Source: Kwon et al. 2023, PagedAttention, https://arxiv.org/abs/2309.06180; vLLM 0.33, vllm/v1/kv_cache_interface.py
"""

from dataclasses import replace

from kvplan.core.cache import Cache
from kvplan.core.errors import InputError
from kvplan.core.mixers import Mixer, window_of
from kvplan.core.units import ceil_div, round_up


def paged(cache: Cache, mixer: Mixer, page_size: int) -> Cache:
    """The cache in whole pages of `page_size` tokens.

        full, latent, cross   ⌈n / p⌉ pages
        sliding               min(⌈n / p⌉, ⌈(W − 1) / p⌉ + 1): W tokens that start anywhere in a page

    Raises InputError for a page of no tokens.
    """
    _at_least_one(page_size=page_size)
    if not cache.bytes_per_token:
        return cache
    window = window_of(mixer)
    if window is not None:
        most = round_up(window - 1, page_size) + page_size
        return replace(cache, block_size=page_size, max_tokens=most)
    return replace(cache, block_size=page_size)


def peak_pages(seq_len: int, prompt_len: int, chunk: int, window: int | None, page_size: int) -> int:
    """The most pages that one sequence holds while it grows to `seq_len` tokens.

    Its prompt comes in steps of at most `chunk` tokens, the rest one by one. A query at position L sees the keys from
    L − W + 1 on, so that before a step of c tokens ⌊max(L − W + 1, 0) / p⌋ pages are gone, and after it

        held(L, c) = ⌈(L + c) / p⌉ − ⌊max(L − W + 1, 0) / p⌋

    vLLM admits a request by the bound of all schedules, ⌈min(W − 1 + c, n) / p⌉ + 1, c the tokens in flight.
    Raises InputError for lengths that are no schedule.

    Source: vLLM 0.33, `SlidingWindowSpec.max_admission_blocks_per_request`,
    `SlidingWindowManager.remove_skipped_blocks`
    """
    _at_least_one(chunk=chunk, page_size=page_size, window=1 if window is None else window)
    if not 0 <= prompt_len <= seq_len:
        message = f"a prompt of {prompt_len:,} tokens is no part of a sequence of {seq_len:,}"
        raise InputError(message, hint="`prompt_len` from 0 to `seq_len`")
    if window is None:
        return ceil_div(seq_len, page_size)
    whole_chunks, last_chunk = divmod(prompt_len, chunk)
    return max(
        _peak(0, chunk, whole_chunks, window, page_size),
        _peak(prompt_len - last_chunk, last_chunk, min(last_chunk, 1), window, page_size),
        _peak(prompt_len, 1, seq_len - prompt_len, window, page_size),
    )


def _peak(start: int, step: int, num_steps: int, window: int, page_size: int) -> int:
    """The most pages after any of `num_steps` equal steps from length `start` on.

    Until the window has filled, nothing goes and the last step holds most. From then on the figure depends on the
    length modulo the page only: `page_size` further steps show all that it can be.
    """
    if not num_steps:
        return 0
    first = min(max(window - 1 - start, 0) // step, num_steps - 1)
    steps = range(first, min(first + page_size + 1, num_steps))
    return max(_held(start + i * step, step, window, page_size) for i in steps)


def _held(length: int, step: int, window: int, page_size: int) -> int:
    return ceil_div(length + step, page_size) - max(length - window + 1, 0) // page_size


def _at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"`{name}` cannot be {count}", hint="1 or more")
