"""A model's caches, allocated, filled, read: the memory at every point on the way.

    start     before the device is touched        context   the device's, before anything is in it
    warm-up   a matrix product, a tiny decode     pool      every layer's cache
    run       prompt and decode through all layers     graphs    a decode step of all layers, captured and replayed

On a CPU there are start, pool and run, tokens are written without attention, and the allocations are tallied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from kvplan.validate.case import Case
from kvplan.validate.kernels.state import StatePool
from kvplan.validate.measure import attend
from kvplan.validate.measure.meter import Meter, Reading, Tally
from kvplan.validate.measure.pools import LayerCache, allocate, pages_held, write_bytes
from kvplan.validate.suite.device import used_bytes


@dataclass
class Layers:
    """All layers of one case, and the pages that the bookkeeping found their tokens need."""

    case: Case
    pages: int | None
    pools: list[LayerCache]

    @property
    def pool_bytes(self) -> int:
        """Of all layers' storages."""
        return sum(pool.storage_bytes for pool in self.pools)

    def described(self) -> dict[str, Any]:
        """For the reading."""
        return {"case": self.case.name, "layers": len(self.pools), "pages": self.pages, "pool_bytes": self.pool_bytes}


def measure_memory(cases: Sequence[Case], device: torch.device) -> dict[str, Any]:
    """The reading of one process that holds these cases' layers."""
    if device.type == "cuda":
        return _on_gpu(cases, device)
    return _on_cpu(cases, device)


def _on_cpu(cases: Sequence[Case], device: torch.device) -> dict[str, Any]:
    pages = [_pages(case) for case in cases]
    meter = Meter(device)
    with Tally():  # the profiler's own memory is there before the first point
        torch.zeros(1)
    meter.read("start")
    with Tally() as tally:
        layers = [_allocated(case, count, device) for case, count in zip(cases, pages, strict=True)]
    meter.read("pool")
    for one in layers:
        for cache in one.pools:
            cache.grow(one.case, write_bytes)
            _fill(cache.states)
    meter.read("run")
    return _reading(meter, layers) | {"tallied_bytes": tally.held_bytes}


def _on_gpu(cases: Sequence[Case], device: torch.device) -> dict[str, Any]:
    pages = [_pages(case) for case in cases]
    before = used_bytes(device)
    meter = Meter(device)
    torch.cuda.init()
    torch.cuda.set_device(device)
    torch.cuda.synchronize(device)
    meter.read("context")
    attend.warm_up(cases, device)
    torch.cuda.empty_cache()
    meter.read("warm-up")
    free_blocks = _free_blocks()
    layers = [_allocated(case, count, device) for case, count in zip(cases, pages, strict=True)]
    meter.read("pool")
    for one in layers:
        _run(one)
    meter.read("run")
    workspaces = [attend.workspace(one.case, one.pools[0]) for one in layers if one.pools]
    failure = _read_graphs(layers, meter)
    return _reading(meter, layers) | {
        "device_bytes_before": before,
        "free_blocks": free_blocks,
        "workspaces": [one for one in workspaces if one is not None],
        "graph_failure": failure,
    }


def _read_graphs(layers: Sequence[Layers], meter: Meter) -> str | None:
    """Read memory while a captured decode step lives; the reason where there is none, and the point knows nothing."""
    try:
        graph, _inputs = attend.capture_step([(one.case, one.pools) for one in layers], meter.device)
        graph.replay()
        meter.read("graphs")
    except Exception as error:  # what was measured so far stands without it
        meter.readings.append(Reading("graphs"))
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def _reading(meter: Meter, layers: Sequence[Layers]) -> dict[str, Any]:
    return {"points": [asdict(one) for one in meter.readings], "pools": [one.described() for one in layers]}


def _pages(case: Case) -> int | None:
    return pages_held(case) if case.paged else None


def _allocated(case: Case, pages: int | None, device: torch.device) -> Layers:
    pools = [allocate(case, device, pages) for _ in range(case.num_layers)]
    return Layers(case, pages, [pool for pool in pools if pool is not None])


def _fill(pool: StatePool | None) -> None:
    for part in [] if pool is None else pool.parts:
        if part.is_floating_point():
            part.normal_()
        else:
            part.random_()


def _run(layers: Layers) -> None:
    """Prompt and decode of every layer."""
    step = attend.steps_of(layers.case)
    for cache in layers.pools:
        _fill(cache.states)
        attend.run(layers.case, cache, step)


def _free_blocks() -> dict[str, list[int]]:
    """Sizes of the free blocks inside segments that torch holds: what later requests may be served from."""
    free: dict[str, list[int]] = {"small": [], "large": []}
    for segment in torch.cuda.memory_snapshot():
        sizes = [block["size"] for block in segment["blocks"] if block["state"] == "inactive"]
        free[segment["segment_type"]] += sizes
    return free
