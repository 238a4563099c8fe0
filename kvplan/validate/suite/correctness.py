"""Every kernel and option against float64 on the device at hand, before anything is timed.

Uninitialised memory is filled with NaN while this runs, pools are poisoned before they are written, so that an output
that was not written, or a slot that should not have been read, shows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kvplan.validate.kernels import linear, linear_reference, reference
from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.decode import decode
from kvplan.validate.kernels.launch import Config
from kvplan.validate.kernels.mla_decode import mla_decode
from kvplan.validate.kernels.prefill import prefill
from kvplan.validate.kernels.prefill_call import Pattern, Ragged
from kvplan.validate.kernels.prefill_tma import prefill_tma
from kvplan.validate.kernels.select import Choice
from kvplan.validate.suite.timing import Failure, Guard

#: largest error, relative to the largest expected number: rounding of the output and of the weights in that type.
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1e-2}
BF16, F16, E4M3, E5M2, INT8 = torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int8


@dataclass(frozen=True)
class Verdict:
    """One check: its error where it ran, its failure where it did not."""

    name: str
    error: float | None
    tolerance: float
    ok: bool
    failure: Failure | None = None


@dataclass(frozen=True)
class Check:
    """`run` gives (what the kernel computed, what the oracle did)."""

    name: str
    run: Callable[[torch.device], tuple[Tensor, Tensor]]
    dtype: torch.dtype = BF16
    compute_capability: tuple[int, int] = field(default=(8, 0))
    """The least that it runs on."""


def check_all(device: torch.device, guard: Guard, checks: Sequence[Check] | None = None) -> list[Verdict]:
    """Run the checks (all by default) that the device can run; a failing one is told, and the rest goes on."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (9, 0)
    with poisoned_memory():
        return [
            _verdict(check, device, guard)
            for check in (CHECKS if checks is None else checks)
            if capability >= check.compute_capability
        ]


def _verdict(check: Check, device: torch.device, guard: Guard) -> Verdict:
    tolerance = TOLERANCE[check.dtype]
    outcome = guard.attempt(check.name, lambda: relative_error(*check.run(device)))
    if isinstance(outcome, Failure):
        return Verdict(check.name, None, tolerance, False, outcome)
    return Verdict(check.name, outcome, tolerance, outcome <= tolerance)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected number; NaN if either side has one."""
    if actual.shape != expected.shape:
        raise ValueError(f"the kernel gave {tuple(actual.shape)}, the oracle {tuple(expected.shape)}")
    difference = (actual.to(torch.float64) - expected).abs().max()
    return float(difference / expected.abs().max().clamp(min=1e-3))


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """New tensors hold NaN until they are written."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def poisoned_cache(device: torch.device, lengths: Sequence[int], shape: dict[str, Any]) -> PagedCache:
    """A cache in shuffled pages that holds `lengths` random tokens and NaN everywhere else."""
    page_size = shape.get("page_size", 16)
    given = {"num_kv_heads": 2, "key_dim": 128, "value_dim": 128, "dtype": BF16, "page_size": page_size} | shape
    cache = PagedCache.allocate(
        num_pages=sum(-(-length // page_size) for length in lengths) + 3,
        num_seqs=len(lengths),
        max_tokens=max(lengths) + page_size,
        device=device,
        shuffle=random.Random(5),
        **given,
    )
    poison(cache)
    heads = cache.num_kv_heads
    k_TKD = torch.randn(sum(lengths), heads, cache.keys.shape[3], device=device)
    v_TKE = torch.randn(sum(lengths), heads, cache.values.shape[3], device=device)
    cache.append(k_TKD, v_TKE, list(lengths))
    return cache


def poison(cache: PagedCache, pages: Sequence[int] | slice = slice(None)) -> None:
    """NaN in every slot of these pages; an int8 slot holds its largest number and a NaN scale."""
    for pool in (cache.keys, cache.values):
        pool[pages] = 127 if pool.dtype == INT8 else float("nan")
    for scales in (cache.key_scales, cache.value_scales):
        if scales is not None:
            scales[pages] = float("nan")


def held(cache: PagedCache, sequence: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """A sequence's keys and values as stored, dequantised in float64, from `first` on; NaN where the page is gone."""
    table, length = cache.block_table[sequence], cache.length(sequence)
    k_scales = cache.key_scales if cache.key_scales is not None else cache.key_scale
    v_scales = cache.value_scales if cache.value_scales is not None else cache.value_scale
    keys = reference.gather(cache.keys, table, length, k_scales, first=first)
    values = reference.gather(cache.values, table, length, k_scales if cache.is_latent else v_scales, first=first)
    return keys, values


LENGTHS = (1000, 1, 77, 515)
SHORT_LENGTHS = (150, 1, 20, 67)  # interpreted, a tile takes milliseconds


def lengths_on(device: torch.device) -> tuple[int, ...]:
    """Sequences of one token, of whole tiles and of odd lengths."""
    return SHORT_LENGTHS if device.type == "cpu" else LENGTHS


def run_decode(
    device: torch.device,
    *,
    kernel: str | None = None,
    group: int = 4,
    dtype: torch.dtype = BF16,
    block_n: int = 64,
    splits: int = 3,
    sinks: bool = False,
    evict: bool = False,
    shape: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Decode four sequences; without `kernel`, with what the table chooses."""
    lengths = lengths_on(device)
    cache = poisoned_cache(device, lengths, shape or {})
    if evict:
        cache.evict(options["window"] + 1)
    num_heads = cache.num_kv_heads * group
    q_BHD = torch.randn(len(lengths), num_heads, cache.keys.shape[3], device=device).to(dtype)
    if sinks:
        options["sinks_H"] = torch.randn(num_heads, device=device)
    choice = Choice(kernel, Config(block_n, 4, 3, num_splits=splits), "given") if kernel else None
    actual = decode(q_BHD, cache, scale=0.09, choice=choice, **options)
    window = options.pop("window", None)
    rows = []
    for sequence, length in enumerate(lengths):
        seen = reference.visible(1, length, window=window, device=device)
        rows.append(
            reference.attention(q_BHD[sequence : sequence + 1], *held(cache, sequence), seen, scale=0.09, **options)
        )
    return actual, torch.cat(rows)


def run_mla(
    device: torch.device,
    *,
    heads: int,
    dtype: torch.dtype = BF16,
    page_size: int = 64,
    stored: torch.dtype = BF16,
    latent_dim: int = 512,
    rope_dim: int = 64,
) -> tuple[Tensor, Tensor]:
    """MLA decode of four sequences with what the table chooses."""
    key_dim = latent_dim + rope_dim
    shape = {"num_kv_heads": 1, "key_dim": key_dim, "value_dim": latent_dim, "latent": True}
    lengths = lengths_on(device)
    cache = poisoned_cache(device, lengths, shape | {"dtype": stored, "page_size": page_size})
    q_BHD = torch.randn(len(lengths), heads, key_dim, device=device).to(dtype)
    actual = mla_decode(q_BHD, cache, scale=0.05)
    rows = []
    for sequence, length in enumerate(lengths):
        seen = reference.visible(1, length, device=device)
        rows.append(reference.attention(q_BHD[sequence : sequence + 1], *held(cache, sequence), seen, scale=0.05))
    return actual, torch.cat(rows)


def run_prefill(
    device: torch.device,
    *,
    pattern: str = "causal",
    reach: int = 0,
    paged: bool = False,
    new: str = "last",
    group: int = 4,
    shape: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Four sequences of different lengths; new tokens are the last ones, all, or those of another sequence."""
    keys = lengths_on(device)
    queries = {"last": [keys[0], 1, 0, keys[3] // 2], "all": list(keys), "cross": [50, 3, 0, 7]}[new]
    cache = poisoned_cache(device, keys, shape or {})
    num_heads, dim = cache.num_kv_heads * group, cache.keys.shape[3]
    q_THD = torch.randn(sum(queries), num_heads, dim, device=device).to(BF16)
    batch = Ragged.pack(queries, keys, device)
    positions = torch.tensor(
        [[0, 7, keys[0] // 2], [0, -1, -1], [3, 4, -1], [keys[3] - 1, keys[3] // 2, 0]], device=device
    )
    patterns: dict[str, Callable[[], Pattern]] = {
        "causal": Pattern.causal,
        "full": Pattern.full,
        "window": lambda: Pattern.window(reach),
        "chunked": lambda: Pattern.chunked(reach),
        "sparse": lambda: Pattern.sparse(reach, positions),
    }
    each = [held(cache, sequence) for sequence in range(len(keys))]
    kv: PagedCache | tuple[Tensor, Tensor] = cache
    if not paged:
        kv = (torch.cat([k for k, _ in each]).to(BF16), torch.cat([v for _, v in each]).to(BF16))
    actual = prefill(q_THD, kv, batch, scale=0.09, pattern=patterns[pattern](), **options)
    rules: dict[str, dict[str, Any]] = {
        "causal": {},
        "full": {"causal": False},
        "window": {"window": reach},
        "chunked": {"chunk": reach},
        "sparse": {"causal": False, "window": reach},
    }
    rows = []
    for sequence, (q_QHD, count) in enumerate(zip(q_THD.split(list(queries)), keys, strict=True)):
        rule: dict[str, Any] = dict(rules[pattern])
        if pattern == "sparse":
            rule["global_tokens"] = positions[sequence][positions[sequence] >= 0]
        seen = reference.visible(q_QHD.shape[0], count, device=device, **rule)
        rows.append(reference.attention(q_QHD, *each[sequence], seen, scale=0.09, **options))
    return actual, torch.cat(rows)


def run_prefill_tma(device: torch.device, *, warp_specialized: bool = False, **rule: Any) -> tuple[Tensor, Tensor]:
    """Two sequences of equal length, contiguous, through TMA."""
    tokens = lengths_on(device)[0]
    q, k, v = (torch.randn(2, tokens, heads, 128, device=device).to(BF16) for heads in (8, 2, 2))
    actual = prefill_tma(q, k, v, scale=0.09, warp_specialized=warp_specialized, **rule)
    seen = reference.visible(tokens, tokens, device=device, **rule)
    return actual, torch.stack([reference.attention(q[b], k[b], v[b], seen, scale=0.09) for b in range(2)])


def run_delta(
    device: torch.device, *, key_heads: int = 16, num_heads: int = 32, key_dim: int = 128, value_dim: int = 128
) -> tuple[Tensor, Tensor]:
    """Three steps of the gated delta rule, by default Qwen3-Next's; outputs and final states."""
    state = torch.randn(6, num_heads, key_dim, value_dim, device=device)
    slots = torch.tensor([4, 0, 5], dtype=torch.int32, device=device)
    expected_state, rows = state[slots.long()].to(torch.float64), []
    for _ in range(3):
        shapes = ((key_heads, key_dim), (key_heads, key_dim), (num_heads, value_dim))
        q, k, v = (torch.randn(3, *shape, device=device) for shape in shapes)
        decay, beta = -torch.rand(3, num_heads, device=device), torch.rand(3, num_heads, device=device)
        actual = linear.delta_step(state, slots, q, k, v, decay, beta)
        steps = [linear_reference.delta_step(s, *x) for s, *x in zip(expected_state, q, k, v, decay, beta, strict=True)]
        expected_state = torch.stack([after for _, after in steps])
        rows.append((actual, torch.stack([out for out, _ in steps])))
    actual, expected = rows[-1]
    return torch.cat([actual.flatten(), state[slots.long()].flatten()]), torch.cat(
        [expected.flatten(), expected_state.flatten()]
    )


def run_mamba(device: torch.device) -> tuple[Tensor, Tensor]:
    """One step of Mamba-2 with eight groups, gate and skip; outputs and states."""
    state = torch.randn(4, 32, 64, 128, device=device)
    slots = torch.tensor([3, 0], dtype=torch.int32, device=device)
    before = state[slots.long()].clone()
    x, gate = (torch.randn(2, 32, 64, device=device) for _ in range(2))
    b, c = (torch.randn(2, 8, 128, device=device) for _ in range(2))
    dt, heads = torch.randn(2, 32, device=device), torch.rand(3, 32, device=device)
    actual = linear.mamba_step(state, slots, x, dt, -heads[0], b, c, skip_H=heads[1], gate_BHE=gate, dt_bias_H=heads[2])
    steps = [
        linear_reference.mamba_step(
            before[i], x[i], dt[i], -heads[0], b[i], c[i], skip_H=heads[1], gate_HE=gate[i], dt_bias_H=heads[2]
        )
        for i in range(2)
    ]
    expected = torch.cat([torch.stack([step[part] for step in steps]).flatten() for part in range(2)])
    return torch.cat([actual.flatten(), state[slots.long()].flatten()]), expected


def run_conv(device: torch.device) -> tuple[Tensor, Tensor]:
    """One step of a convolution of four taps over three held columns, channels innermost as in vLLM."""
    state = torch.randn(4, 3, 1000, device=device).transpose(1, 2)
    slots = torch.tensor([2, 1], dtype=torch.int32, device=device)
    before = state[slots.long()].clone()
    x, weight, bias = (torch.randn(*shape, device=device) for shape in ((2, 1000), (1000, 4), (1000,)))
    actual = linear.conv_step(state, slots, x, weight, bias_C=bias)
    steps = [linear_reference.conv_step(before[i], x[i], weight, bias_C=bias) for i in range(2)]
    expected = torch.cat([torch.stack([step[part] for step in steps]).flatten() for part in range(2)])
    return torch.cat([actual.flatten(), state[slots.long()].flatten()]), expected


E = partial(Check, compute_capability=(8, 9))  # fp8 is a type from sm_89 on
T = partial(Check, compute_capability=(9, 0))  # TMA
D = partial(partial, run_decode)
P = partial(partial, run_prefill)

CHECKS: tuple[Check, ...] = (
    Check("decode, chosen", D()),
    Check("decode, one split", D(kernel="decode", splits=1)),
    Check("decode, MHA", D(kernel="decode", group=1)),
    Check("decode, 3 heads a group, fp16", D(kernel="decode", group=3, dtype=F16, shape={"dtype": F16}), F16),
    Check("decode, 7 heads a group, D80", D(kernel="decode", group=7, shape={"key_dim": 80, "value_dim": 80})),
    Check("decode, D64", D(kernel="decode", shape={"key_dim": 64, "value_dim": 64})),
    Check("decode, D96", D(kernel="decode", shape={"key_dim": 96, "value_dim": 96})),
    Check("decode, D192/128", D(kernel="decode", block_n=32, shape={"key_dim": 192})),
    Check(
        "decode, D256, soft cap", D(block_n=32, kernel="decode", softcap=2.0, shape={"key_dim": 256, "value_dim": 256})
    ),
    Check("decode, window, evicted pages", D(kernel="decode", window=100, evict=True)),
    Check("decode, window, sinks, one split", D(kernel="decode", window=100, sinks=True, splits=1)),
    Check("decode, 71 heads a group", D(kernel="decode", group=71, shape={"num_kv_heads": 1})),
    Check("decode, int8", D(kernel="decode", block_n=128, shape={"dtype": INT8})),
    E("decode, e4m3 with scales", D(kernel="decode", shape={"dtype": E4M3, "key_scale": 0.5, "value_scale": 2.0})),
    E("decode, e5m2", D(kernel="decode", shape={"dtype": E5M2})),
    T("decode by TMA", D(kernel="decode_tma", shape={"page_size": 64})),
    T("decode by TMA, window, sinks", D(kernel="decode_tma", window=200, sinks=True, shape={"page_size": 128})),
    T("decode by TMA, e4m3", D(kernel="decode_tma", shape={"dtype": E4M3, "page_size": 128})),
    T("decode by TMA, int8, chosen", D(shape={"dtype": INT8, "page_size": 256})),
    Check("MLA decode, 16 heads", partial(run_mla, heads=16)),
    Check("MLA decode, 128 heads", partial(run_mla, heads=128)),
    Check("MLA decode, 5 heads, page 16", partial(run_mla, heads=5, page_size=16)),
    E("MLA decode, e4m3", partial(run_mla, heads=16, stored=E4M3)),
    Check("prefill, causal", P()),
    Check("prefill, causal, paged, sinks aside", P(paged=True)),
    Check("prefill, window", P(pattern="window", reach=100)),
    Check("prefill, window, paged", P(pattern="window", reach=100, paged=True)),
    Check("prefill, chunked", P(pattern="chunked", reach=96, paged=True)),
    Check("prefill, sparse with global tokens", P(pattern="sparse", reach=64, new="all")),
    Check("prefill, cross-attention", P(pattern="full", new="cross")),
    Check("prefill, 5 heads a group, D256", P(group=5, shape={"key_dim": 256, "value_dim": 256})),
    Check("prefill, D192/128, soft cap", P(softcap=2.0, shape={"key_dim": 192})),
    E("prefill, paged, e4m3", P(paged=True, shape={"dtype": E4M3})),
    Check("prefill, paged, int8", P(paged=True, shape={"dtype": INT8})),
    T("prefill by TMA", partial(run_prefill_tma)),
    T("prefill by TMA, window", partial(run_prefill_tma, window=150)),
    T("prefill by TMA, full", partial(run_prefill_tma, causal=False)),
    T("prefill by TMA, warp-specialised", partial(run_prefill_tma, warp_specialized=True)),
    Check("gated delta rule, three steps", run_delta),
    Check("Mamba-2 step", run_mamba),
    Check("convolution step", run_conv),
)
