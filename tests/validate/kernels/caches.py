"""Caches for the kernels' tests: shuffled pages, NaN wherever no token was written."""

import random

import torch
from torch import Tensor

from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.suite.correctness import poison

#: relative error, against the largest output, that a computation in this type may have.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


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
        poison(cache, cache.free_pages)
    return cache


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """The largest error relative to the largest expected number is within the type's tolerance; NaN never is."""
    assert actual.shape == expected.shape
    if actual.numel() == 0:
        return
    error = (actual.to(torch.float64) - expected).abs().max()
    assert error <= TOLERANCE[dtype] * expected.abs().max().clamp(min=1e-3), f"error {error:.3g}"
