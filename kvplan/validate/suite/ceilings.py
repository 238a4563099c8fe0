"""What this device reaches when it does one thing only: read memory, copy memory, multiply matrices.

A kernel's speed is told as a share of these, measured in the same run: a data sheet's rates are reached by no program,
and how far a device stays below them depends on its clocks of the day. The read ceiling, decode's, is the best of a
sum-reduction kernel in several shapes and of `torch.sum`: it is a ceiling only if nothing simple beats it.

    read    bytes of a buffer far larger than the cache, summed up · copy    bytes read plus bytes written
    matmul  2 · n³ operations, bf16, random numbers: zeros draw less power and run faster
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import triton
import triton.language as tl
from torch import Tensor

from kvplan.validate.kernels.launch import Launch, Unsupported, run_all
from kvplan.validate.suite.timing import Call, Effort, Failure, Guard, Timing, interleave, stopwatch_for

READ_BYTES = 4 << 30
MATMUL_SIZE = 8192
_COPY, _MATMUL, _SUM = "torch.Tensor.copy_", "torch.mm", "torch.sum"


@triton.jit
def read_kernel(source_ptr, sums_ptr, num_tiles, TILE: tl.constexpr):
    """Add up fp32 numbers: program p takes the tiles p, p + programs, ... and writes one sum."""
    first = tl.program_id(0).to(tl.int64)
    source = source_ptr + first * TILE + tl.arange(0, TILE)
    total = tl.zeros([TILE], tl.float32)
    for _ in range(tl.program_id(0), num_tiles, tl.num_programs(0)):
        total += tl.load(source)
        source += tl.num_programs(0).to(tl.int64) * TILE
    tl.store(sums_ptr + first, tl.sum(total, 0))


@dataclass(frozen=True)
class ReadShape:
    """A shape of the read kernel: every thread has `loads` loads of 16 bytes in flight."""

    num_warps: int
    loads: int
    blocks_per_sm: int
    """At most as many as its registers allow (64 a thread at 8 loads, 40 at 4): one wave of programs that stay."""

    @property
    def tile(self) -> int:
        """Numbers per tile."""
        return self.num_warps * 32 * 4 * self.loads

    @property
    def name(self) -> str:
        return f"read, {self.num_warps} warps, {self.loads} loads, {self.blocks_per_sm} blocks"


READ_SHAPES = (ReadShape(4, 8, 8), ReadShape(8, 8, 4), ReadShape(8, 4, 6), ReadShape(8, 8, 2))
_LARGEST_TILE = max(shape.tile for shape in READ_SHAPES)


def plan_read(source: Tensor, sums: Tensor, shape: ReadShape) -> list[Launch]:
    """The launch that sums up `source` into one partial sum per program; as many programs as `sums` has places."""
    if source.dtype != torch.float32 or source.numel() % shape.tile:
        raise Unsupported(f"the read kernel takes fp32 numbers in multiples of {shape.tile}")
    args = {"source_ptr": source, "sums_ptr": sums, "num_tiles": source.numel() // shape.tile, "TILE": shape.tile}
    return [Launch(read_kernel, (sums.numel(),), args, num_warps=shape.num_warps, num_stages=1)]


@dataclass(frozen=True)
class Ceilings:
    """The three rates, None where nothing could be measured, and every timing or failure behind them by name."""

    read_bytes_per_second: float | None
    read_by: str | None
    """Which candidate was the fastest reader."""
    copy_bytes_per_second: float | None
    matmul_flops_per_second: float | None
    buffer_bytes: int
    matmul_size: int
    timings: Mapping[str, Timing | Failure] = field(default_factory=dict)


def measure_ceilings(
    device: torch.device | str,
    *,
    num_bytes: int = READ_BYTES,
    matmul_size: int = MATMUL_SIZE,
    effort: Effort | None = None,
    guard: Guard | None = None,
) -> Ceilings:
    """Measure them now; a buffer of `num_bytes`, or of half the free memory if that is less.

    Under Triton's interpreter the device is a CPU, and the rates mean nothing.
    """
    device = torch.device(device)
    guard = guard or Guard(stopwatch_for(device))
    buffer_bytes = _buffer_bytes(device, num_bytes)
    timings = _timed(guard, effort, "a buffer to read", lambda: _memory_candidates(device, buffer_bytes, guard))
    timings |= _timed(guard, effort, _MATMUL, lambda: {_MATMUL: _matmul(device, matmul_size)})
    readers = {name: timing for name, timing in timings.items() if name not in (_COPY, _MATMUL)}
    read_by, read = _best(readers, buffer_bytes)
    return Ceilings(
        read_bytes_per_second=read,
        read_by=read_by,
        copy_bytes_per_second=_best({_COPY: timings.get(_COPY)}, 2 * (buffer_bytes // 2))[1],
        matmul_flops_per_second=_best({_MATMUL: timings.get(_MATMUL)}, 2 * matmul_size**3)[1],
        buffer_bytes=buffer_bytes,
        matmul_size=matmul_size,
        timings=timings,
    )


def _timed(
    guard: Guard, effort: Effort | None, name: str, make: Callable[[], dict[str, Call | Failure]]
) -> dict[str, Timing | Failure]:
    """Time the candidates that `make` allocates; they are freed on return."""
    candidates = guard.attempt(name, make)
    if isinstance(candidates, Failure):
        return {name: candidates}
    calls = {name: [call] for name, call in candidates.items() if not isinstance(call, Failure)}
    failed: dict[str, Timing | Failure] = {name: call for name, call in candidates.items() if isinstance(call, Failure)}
    return interleave(calls, guard.stopwatch, effort=effort, guard=guard) | failed


def _memory_candidates(device: torch.device, buffer_bytes: int, guard: Guard) -> dict[str, Call | Failure]:
    """Every reader that adds up right, and the copy of one half of the buffer onto the other."""
    source = torch.empty(buffer_bytes // 4, dtype=torch.float32, device=device).uniform_()
    expected = float(source.sum(dtype=torch.float64))
    candidates: dict[str, Call | Failure] = {
        shape.name: guard.attempt(shape.name, lambda shape=shape: _reader(source, shape, expected))  # type: ignore[misc]
        for shape in READ_SHAPES
    }
    candidates[_SUM] = source.sum
    half = source.numel() // 2
    candidates[_COPY] = lambda: source[half:].copy_(source[:half])
    return candidates


def _reader(source: Tensor, shape: ReadShape, expected: float) -> Call:
    """The read kernel over `source`, checked against its sum."""
    programs = min(_num_sms(source.device) * shape.blocks_per_sm, source.numel() // shape.tile)
    sums = torch.full((programs,), float("nan"), dtype=torch.float32, device=source.device)
    launches = plan_read(source, sums, shape)
    run_all(launches)
    found = float(sums.sum(dtype=torch.float64))
    if not abs(found - expected) <= 1e-4 * abs(expected):
        raise ArithmeticError(f"the read kernel's sum is {found}, it should be {expected}")
    return lambda: run_all(launches)


def _matmul(device: torch.device, size: int) -> Call:
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def _best(timings: Mapping[str, Timing | Failure | None], amount: int) -> tuple[str | None, float | None]:
    """The candidate that does `amount` the fastest, and its rate; nothing if all failed."""
    rates = {name: timing.per_second(amount) for name, timing in timings.items() if isinstance(timing, Timing)}
    name = max(rates, key=rates.__getitem__, default=None)
    return name, None if name is None else rates[name]


def _buffer_bytes(device: torch.device, wanted: int) -> int:
    """In whole tiles of every shape, and an even number of them: both halves are tiles too."""
    unit = 2 * 4 * _LARGEST_TILE
    if device.type == "cuda":
        wanted = min(wanted, torch.cuda.mem_get_info(device)[0] // 2)
    return max(wanted // unit, 1) * unit


def _num_sms(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return 1
