"""How much memory there is in use at this moment, by everybody who can say so.

    requested   what torch was asked for          allocated   the same in the allocator's blocks
    reserved    what torch holds of the device    process     this process, by the driver or the operating system
    device      everybody on the device, by the driver

On a CPU torch does not keep count; `Tally` has its profiler write down every allocation instead.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kvplan.validate.suite.device import process_bytes


@dataclass(frozen=True)
class Reading:
    """Bytes at one point; None is not known there."""

    point: str
    requested: int | None = None
    allocated: int | None = None
    reserved: int | None = None
    requested_peak: int | None = None
    allocated_peak: int | None = None
    reserved_peak: int | None = None
    """Peaks since the point before."""
    process: int | None = None
    device: int | None = None


@dataclass
class Meter:
    """Reads memory at named points of one process."""

    device: torch.device
    readings: list[Reading] = field(default_factory=list)

    def read(self, point: str) -> Reading:
        """What is in use now; peaks count from here on anew. What Python has yet to collect goes first."""
        gc.collect()
        cuda = self.device.type == "cuda"
        reading = _cuda(point, self.device) if cuda else Reading(point, process=resident_bytes())
        self.readings.append(reading)
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        return reading


def _cuda(point: str, device: torch.device) -> Reading:
    torch.cuda.synchronize(device)
    stats = torch.cuda.memory_stats(device)
    free, total = torch.cuda.mem_get_info(device)

    def of(name: str, when: str) -> int:
        return int(stats.get(f"{name}_bytes.all.{when}", 0))

    return Reading(
        point,
        requested=of("requested", "current"),
        allocated=of("allocated", "current"),
        reserved=of("reserved", "current"),
        requested_peak=of("requested", "peak"),
        allocated_peak=of("allocated", "peak"),
        reserved_peak=of("reserved", "peak"),
        process=process_bytes(device),
        device=total - free,
    )


def resident_bytes() -> int | None:
    """What of this process lies in main memory; None where the operating system has no such file."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Tally:
    """Every allocation on the CPU between entering and leaving, as torch's own allocator reports it."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []
        """(address, bytes) in time order; bytes below zero are given back."""

    def __enter__(self) -> Tally:
        activities = [torch.profiler.ProfilerActivity.CPU]
        self._profile = torch.profiler.profile(activities=activities, profile_memory=True)
        self._profile.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._profile.__exit__(kind, error, trace)
        self.events = _allocations(self._profile)

    @property
    def held_bytes(self) -> int:
        """Allocated since, and not given back; what was there before does not count when it goes."""
        return _held(self.events)[0]

    @property
    def peak_bytes(self) -> int:
        """The most that was held at once."""
        return _held(self.events)[1]


def _held(events: list[tuple[int, int]]) -> tuple[int, int]:
    live: dict[int, int] = {}
    total = peak = 0
    for address, size in events:
        if size > 0:
            live[address] = size
            total += size
        else:
            total -= live.pop(address, 0)
        peak = max(peak, total)
    return total, peak


def _allocations(profiler: Any) -> list[tuple[int, int]]:
    found = []
    stack = list(profiler.profiler.kineto_results.experimental_event_tree())
    while stack:
        event = stack.pop()
        stack.extend(event.children)
        if event.tag.name == "Allocation":
            found.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size))
    return [(address, size) for _, address, size in sorted(found, key=lambda one: one[0])]


class _Returned(TorchDispatchMode):
    """Sums the storages that operators returned and nobody has given up yet, those that were there before aside."""

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()
        self._before = {tensor.untyped_storage()._cdata for tensor in before}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._live = {key: held for key, held in self._live.items() if not held[0].expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self._before:
                self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result


def transient_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """The most that a call holds at once beyond what was held before it, its result included, as requested."""
    if device.type == "cpu":
        with Tally() as tally:
            call()
        return tally.peak_bytes
    gc.collect()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_stats(device)["requested_bytes.all.current"]
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return int(torch.cuda.memory_stats(device)["requested_bytes.all.peak"] - before)


def returned_bytes(call: Callable[[], Any], before: Iterable[Tensor]) -> int:
    """The same seen from outside the operators: what they work in, which differs from device to device, is left out."""
    mode = _Returned(before)
    with mode:
        call()
    return mode.peak


def free_bytes(device: torch.device) -> int | None:
    """What is free on the device; of main memory, what the operating system could give without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    available = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if available is None else min(int(available) << 10, _container_bytes())


def _container_bytes() -> int:
    """What a container may still take; far more than any machine has where there is no limit.

    Files that were read count as used until the kernel drops them, which it does for who asks.
    """
    limits = []
    for folder, limit, used, files in (
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            given, taken = (int(Path(folder, name).read_text(encoding="ascii")) for name in (limit, used))
            stats = dict(line.split() for line in Path(folder, "memory.stat").read_text(encoding="ascii").splitlines())
            limits.append(given - taken + int(stats.get(files, 0)))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(limits, default=1 << 62)
