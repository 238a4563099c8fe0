"""One kernel call as a value: the same call site runs a kernel, and compiles it where there is no GPU.

A `plan_*` function of a kernel's file returns a list of these; running them in order on one stream is the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import triton

#: True where Triton's interpreter runs the kernels on the CPU: decided when triton is imported, for the whole process.
INTERPRETED = bool(triton.knobs.runtime.interpret)


class Unsupported(ValueError):
    """A case that this kernel, or this device, cannot run; the message says which limit and what to use instead."""


def padded(dim: int) -> int:
    """The power of two that holds `dim`, at least the 16 that a matrix product takes."""
    return max(int(triton.next_power_of_2(dim)), 16)


@dataclass(frozen=True)
class Config:
    """The tunable half of a launch.

    block_n: keys per tile · block_m: rows per tile (0: the kernel's own choice) · num_splits: parts that a sequence's
    keys are cut into (0: chosen from the case) · num_stages: depth of the software pipeline.
    """

    block_n: int
    num_warps: int
    num_stages: int
    block_m: int = 0
    num_splits: int = 0


@dataclass(frozen=True)
class Launch:
    """A kernel, its grid and its arguments by name."""

    kernel: Any
    grid: tuple[int, ...]
    args: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 3

    @property
    def name(self) -> str:
        return str(self.kernel.fn.__name__)

    def run(self) -> None:
        """Enqueue it on the current stream (or interpret it)."""
        self.kernel[self.grid](**self.args, num_warps=self.num_warps, num_stages=self.num_stages)

    def compile(self) -> Any:
        """The compiled kernel, specialised exactly as `run` would, without running it."""
        kernel = self.kernel.warmup(**self.args, grid=self.grid, num_warps=self.num_warps, num_stages=self.num_stages)
        return kernel.result() if hasattr(kernel, "result") else kernel


def run_all(launches: Sequence[Launch]) -> None:
    """Run a plan's launches in order."""
    for launch in launches:
        launch.run()
