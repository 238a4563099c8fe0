"""A stand-in for the GPU driver that knows only its target: `Launch.compile` then works on a machine without a GPU.

`kernel.warmup` on CPU tensors specialises exactly as a launch would (types, divisibility by 16, descriptor shapes), so
that what is judged cannot drift from what is launched.
"""

from __future__ import annotations

from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from kvplan.validate.kernels.launch import INTERPRETED

#: name → what Triton compiles for.
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


class OfflineDriver:
    """The part of a driver that compiling asks for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.target = TARGETS[name]

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        # Triton keeps compiled kernels by device number and takes the target from the first: one number per target.
        return list(TARGETS).index(self.name)

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self) -> Any:
        raise RuntimeError("there is no GPU to time anything on")

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty


def compile_for(name: str) -> None:
    """From here on, this process compiles for the target `name` (a key of `TARGETS`)."""
    if INTERPRETED:
        raise RuntimeError("unset TRITON_INTERPRET: the interpreter and the compiler cannot share a process")
    driver.set_active(OfflineDriver(name))
