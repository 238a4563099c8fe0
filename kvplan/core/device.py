"""How much of a device's memory frameworks see, which is less than the driver lists, and what a process takes of it."""

from dataclasses import replace

from kvplan.core.errors import InputError
from kvplan.core.hardware import Gpu
from kvplan.core.measured import Measured
from kvplan.core.units import MIB, ceil_div

DRIVER_RESERVE = Measured(
    name="driver reserve",
    num_bytes=512 * MIB,
    spread_bytes=256 * MIB,
    source="what nvidia-smi lists less what CUDA sees, in public start-up logs: H100 79.65 - 79.19 GiB, "
    "A100-40 40.00 - 39.5, L4 22.49 - 22.03, RTX 4090 23.99 - 23.5, T4 15.00 - 14.74",
)
SEEN_SPREAD = 96 * MIB
"""How far logs of one kind of device lie apart: H100 79.10 - 79.19 GiB, L4 21.96 - 22.16."""
LEAST_RESERVE, RESERVE_SHARE = 640 * MIB, 71
"""No device outside AMD's was seen to keep more than 1/71 of its memory back, or 640 MiB of a small one."""
CUDA_CONTEXT = Measured(
    name="CUDA context",
    num_bytes=512 * MIB,
    spread_bytes=256 * MIB,
    source="287-666 MiB in public reports, by GPU, driver and module loading "
    "(pytorch/pytorch#86509, pytorch/pytorch#107667, unslothai/unsloth-zoo#1053)",
)
CONTEXT_SPREAD = 32 * MIB
"""How far the contexts of equal devices with equal drivers are believed to differ."""


def driver_reserve(gpu: Gpu | None) -> Measured:
    """What the driver keeps of the memory that it lists: as logs show of this device, else the most that was seen.

    AMD's lists what HIP sees. Without a device that the table has, that of cards of 16 to 80 GiB.
    """
    if gpu is None or gpu.memory_bytes is None or not gpu.vendor:
        return DRIVER_RESERVE
    if gpu.visible_bytes is not None:
        kept = max(0, gpu.memory_bytes - gpu.visible_bytes)
        return replace(DRIVER_RESERVE, num_bytes=kept, spread_bytes=SEEN_SPREAD, source=gpu.source)
    if gpu.vendor == "AMD":
        return replace(DRIVER_RESERVE, num_bytes=0, spread_bytes=0, source="HIP sees what the driver lists")
    kept = max(LEAST_RESERVE, ceil_div(gpu.memory_bytes, RESERVE_SHARE))
    return replace(DRIVER_RESERVE, num_bytes=min(kept, gpu.memory_bytes // 2))


def context_of(gpu: Gpu | None) -> Measured:
    """A process's context on the device: as measured on one of its kind, else as public reports have it."""
    if gpu is None or gpu.measured is None:
        return CUDA_CONTEXT
    found = gpu.measured
    return replace(CUDA_CONTEXT, num_bytes=found.context_bytes, spread_bytes=CONTEXT_SPREAD, source=found.source)


def visible_bytes(gpu: Gpu) -> int:
    """What CUDA or HIP sees: what the driver lists, less what it keeps.

    Raises InputError where the device's memory is not known.
    """
    if gpu.visible_bytes is not None:
        return gpu.visible_bytes
    if gpu.memory_bytes is None:
        hint = "say how much it has, e.g. `--gpu-memory 96GiB`"
        raise InputError(f"no driver-reported memory is known for {gpu.name}", hint=hint)
    return gpu.memory_bytes - driver_reserve(gpu).num_bytes


def with_memory(gpu: Gpu, memory_bytes: int) -> Gpu:
    """The device with another amount of memory; its driver keeps what it kept of the other."""
    visible = None
    if gpu.visible_bytes is not None:
        visible = max(memory_bytes // 2, memory_bytes - driver_reserve(gpu).num_bytes)
    return replace(gpu, memory_bytes=memory_bytes, visible_bytes=visible, memory_note="as given")
