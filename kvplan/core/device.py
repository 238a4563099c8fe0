"""How much of a device's memory frameworks see: less than the driver lists."""

from kvplan.core.errors import InputError
from kvplan.core.hardware import Gpu
from kvplan.core.measured import Measured
from kvplan.core.units import MIB

DRIVER_RESERVE = Measured(
    name="driver reserve",
    num_bytes=512 * MIB,
    spread_bytes=256 * MIB,
    source="what nvidia-smi lists less what CUDA sees, in public start-up logs: H100 79.65 - 79.19 GiB, "
    "A100-40 40.00 - 39.5, L4 22.49 - 22.03, RTX 4090 23.99 - 23.5, T4 15.00 - 14.74",
)


def visible_bytes(gpu: Gpu) -> int:
    """What CUDA or HIP sees: as logs print it, else what the driver lists less a reserve.

    Raises InputError where the device's memory is not known.
    """
    if gpu.visible_bytes is not None:
        return gpu.visible_bytes
    if gpu.memory_bytes is None:
        hint = "say how much it has, e.g. `--gpu-memory 96GiB`"
        raise InputError(f"no driver-reported memory is known for {gpu.name}", hint=hint)
    return gpu.memory_bytes - DRIVER_RESERVE.num_bytes
