"""Caches for the kernels' tests: shuffled pages, NaN wherever no token was written, and what the oracle reads in them."""

import random

import torch
from torch import Tensor

from kvplan.validate.kernels import reference
from kvplan.validate.kernels.cache import PagedCache

#: relative error, against the largest output, that a computation in this type may have.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def poison(cache: PagedCache) -> None:
    """NaN in every slot; an int8 slot holds its largest number and a NaN scale."""
    for pool in (cache.keys, cache.values):
        pool.fill_(127 if pool.dtype == torch.int8 else float("nan"))
    for scales in (cache.key_scales, cache.value_scales):
        if scales is not None:
            scales.fill_(float("nan"))


def filled_cache(
    lengths: list[int],
    *,
    num_kv_heads: int = 2,
    key_dim: int = 32,
    value_dim: int | None = None,
    page_size: int = 16,
    dtype: torch.dtype = torch.float32,
    spare_pages: int = 2,
    window: int | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
) -> PagedCache:
    """A cache that holds `lengths` random tokens, in shuffled pages of a poisoned pool.

    With a window, the pages that no query from the last position on sees are given back and hold NaN again.
    """
    value_dim = value_dim or key_dim
    pages = [-(-length // page_size) for length in lengths]
    cache = PagedCache.allocate(
        num_pages=sum(pages) + spare_pages,
        page_size=page_size,
        num_kv_heads=num_kv_heads,
        key_dim=key_dim,
        value_dim=value_dim,
        dtype=dtype,
        num_seqs=len(lengths),
        max_tokens=max(*lengths, 1) + 3 * page_size if len(lengths) > 1 else max(lengths[0], 1) + 3 * page_size,
        device="cpu",
        key_scale=key_scale,
        value_scale=value_scale,
        shuffle=random.Random(7),
    )
    poison(cache)
    tokens = sum(lengths)
    k_TKD, v_TKE = torch.randn(tokens, num_kv_heads, key_dim), torch.randn(tokens, num_kv_heads, value_dim)
    cache.append(k_TKD, v_TKE, lengths)
    if window is not None:
        cache.evict(window + 1)  # the query of the last token itself is still to come
        for page in cache.free_pages:
            cache.keys[page] = 127 if dtype == torch.int8 else float("nan")
            cache.values[page] = 127 if dtype == torch.int8 else float("nan")
            if cache.key_scales is not None and cache.value_scales is not None:
                cache.key_scales[page] = cache.value_scales[page] = float("nan")
    return cache


def held(cache: PagedCache, sequence: int) -> tuple[Tensor, Tensor]:
    """A sequence's keys and values as stored, dequantised in float64; NaN where the page is gone."""
    table, length = cache.block_table[sequence], cache.length(sequence)
    k_scales = cache.key_scales if cache.key_scales is not None else cache.key_scale
    v_scales = cache.value_scales if cache.value_scales is not None else cache.value_scale
    return (
        reference.gather(cache.keys, table, length, k_scales),
        reference.gather(cache.values, table, length, v_scales),
    )


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """The largest error relative to the largest expected number is within the type's tolerance; NaN never is."""
    assert actual.shape == expected.shape
    if actual.numel() == 0:
        return
    error = (actual.to(torch.float64) - expected).abs().max()
    assert error <= TOLERANCE[dtype] * expected.abs().max().clamp(min=1e-3), f"error {error:.3g}"
