"""The prefill kernel in Triton's interpreter against the float64 oracle, with everything that it must not read poisoned."""

from __future__ import annotations

import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.validate.kernels import launch, reference
from kvplan.validate.kernels.cache import FP8_DTYPES, PagedCache
from kvplan.validate.kernels.launch import Config, Unsupported
from kvplan.validate.kernels.prefill import default_config, plan_prefill, prefill
from kvplan.validate.kernels.prefill_plan import Pattern, PrefillCall, Ragged

if not launch.INTERPRETED:
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)

NAN = float("nan")
SMALL = Config(block_n=16, num_warps=4, num_stages=1, block_m=16)
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
PATTERNS = {
    "causal": Pattern.causal(),
    "window smaller than a tile": Pattern.window(5),
    "window of one": Pattern.window(1),
    "window of many tiles": Pattern.window(50),
    "window beyond the sequence": Pattern.window(10_000),
    "chunked": Pattern.chunked(24),
    "chunk smaller than a tile": Pattern.chunked(7),
    "full": Pattern.full(),
}


def positions(*rows):
    """Global positions of each sequence, padded with -1."""
    most = max(len(row) for row in rows)
    return torch.tensor([[*row, *[-1] * (most - len(row))] for row in rows], dtype=torch.int32)


def seen_by(pattern, sequence, queries, keys):
    """The oracle's mask of one sequence."""
    rules = {
        "causal": {},
        "window": {"window": pattern.reach},
        "chunked": {"chunk": pattern.reach},
        "full": {"causal": False},
        "sparse": {"causal": False, "window": pattern.reach},
    }[pattern.kind]
    if pattern.positions_BM is not None:
        rules["global_tokens"] = pattern.positions_BM[sequence]
    return reference.visible(queries, keys, **rules)


def paged(keys, num_kv_heads, key_dim, value_dim, dtype, page_size, evicted_before=None, latent=False):
    """A cache that holds `keys[b]` random tokens of sequence b; all else is NaN, pages before the limit are given back."""
    scales = {"key_scale": 0.5, "value_scale": 0.25} if dtype in FP8_DTYPES else {}
    cache = PagedCache.allocate(
        num_pages=sum(-(-n // page_size) for n in keys) + 3,
        page_size=page_size,
        num_kv_heads=num_kv_heads,
        key_dim=key_dim,
        value_dim=value_dim,
        dtype=dtype,
        num_seqs=len(keys),
        max_tokens=max(*keys, 1) + page_size,
        device="cpu",
        latent=latent,
        shuffle=random.Random(0),
        **scales,
    )
    cache._take_slots(keys)
    for sequence, limit in enumerate(evicted_before or []):
        cache.block_table[sequence, : max(limit, 0) // page_size] = -1
    held = torch.zeros(cache.keys.shape[:2], dtype=torch.bool)
    for sequence, length in enumerate(keys):
        position = torch.arange(length)
        page = cache.block_table[sequence, position // page_size].long()
        held[page[page >= 0], (position % page_size)[page >= 0]] = True
    for pool, of_tokens in ((cache.keys, cache.key_scales), (cache.values, cache.value_scales))[: 1 if latent else 2]:
        if of_tokens is None:
            pool.copy_(torch.randn(pool.shape).to(dtype))
            pool.view(torch.uint8)[~held] = 0x7F if dtype in FP8_DTYPES else 0xFF
            assert pool[~held].float().isnan().all()
        else:
            pool.copy_(torch.randint(-127, 128, pool.shape, dtype=torch.int8))
            of_tokens.copy_(torch.rand(of_tokens.shape) / 60 + 0.001)
            of_tokens[~held] = NAN
    return cache


def queries_of(lengths, num_heads, key_dim, dtype, gap=2):
    """Packed queries with NaN rows between the sequences, and where each sequence starts."""
    starts = [sum(lengths[:b]) + gap * (b + 1) for b in range(len(lengths))]
    q = torch.full((sum(lengths) + gap * (len(lengths) + 1), num_heads, key_dim), NAN, dtype=dtype)
    for start, length in zip(starts, lengths, strict=True):
        q[start : start + length] = torch.randn(length, num_heads, key_dim).to(dtype)
    return q, starts


def batch_of(queries, starts, keys, key_starts=None):
    tensors = (torch.tensor(list(n), dtype=torch.int32) for n in (starts, queries, key_starts or [0] * len(keys), keys))
    return Ragged(*tensors, longest=max(queries))


def check(queries, keys, *, pattern=PATTERNS["causal"], num_heads=4, num_kv_heads=2, key_dim=16, value_dim=16, page_size=16,
          dtype=torch.float32, stored=None, softcap=None, sinks=False, config=SMALL, tolerance=None, evict=False, latent=False):  # fmt: skip
    """Run the kernel over a ragged batch and compare every row; rows between the sequences must stay as they were."""
    torch.manual_seed(0)
    q, starts = queries_of(queries, num_heads, key_dim, dtype)
    sinks_H = torch.randn(num_heads) if sinks else None
    if page_size:
        limits = [have - new - pattern.reach + 1 for new, have in zip(queries, keys, strict=True)] if evict else None
        kv = paged(keys, num_kv_heads, key_dim, value_dim, stored or dtype, page_size, limits, latent)
        key_starts = None
    else:
        k, key_starts = queries_of(keys, num_kv_heads, key_dim, dtype, gap=3)
        kv = k, queries_of(keys, num_kv_heads, value_dim, dtype, gap=3)[0]
    out = torch.full((q.shape[0], num_heads, value_dim), NAN, dtype=dtype)
    batch = batch_of(queries, starts, keys, key_starts)
    options = {"scale": key_dim**-0.5, "pattern": pattern, "softcap": softcap, "sinks_H": sinks_H, "config": config}
    prefill(q, kv, batch, out_THE=out, **options)
    untouched = torch.ones(q.shape[0], dtype=torch.bool)
    for b, (start, new, have) in enumerate(zip(starts, queries, keys, strict=True)):
        if page_size:
            k_TKD = reference.gather(kv.keys, kv.block_table[b], have, kv.key_scale if kv.key_scales is None else kv.key_scales)
            v_TKE = reference.gather(
                kv.values, kv.block_table[b], have, kv.value_scale if kv.value_scales is None else kv.value_scales
            )
        else:
            k_TKD, v_TKE = (t[key_starts[b] : key_starts[b] + have] for t in kv)
        rows = slice(start, start + new)
        untouched[rows] = False
        expected = reference.attention(
            q[rows], k_TKD, v_TKE, seen_by(pattern, b, new, have), scale=key_dim**-0.5, softcap=softcap, sinks_H=sinks_H
        )
        assert_close(out[rows], expected, tolerance or TOLERANCE[dtype])
    assert out[untouched].isnan().all()


def assert_close(actual, expected, tolerance):
    assert not actual.isnan().any()
    if expected.numel():
        error = (actual.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-3)
        assert error <= tolerance, f"{error:.2e}"


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("page_size", [16, 64, 0], ids=["page 16", "page 64", "contiguous"])
def test_every_pattern_over_a_ragged_batch(pattern, page_size):
    check([19, 0, 1, 40], [19, 21, 33, 67], pattern=pattern, page_size=page_size)
