"""What the record says of the device: what it is, what drives it, and how it stands at this moment.

A figure of a GPU means nothing without its clocks, and those are read, never set: through `pynvml` where it is
installed, else from `nvidia-smi`, else they stay unknown.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import triton

_SMI_FIELDS = ("driver_version", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw")


@dataclass(frozen=True)
class State:
    """The device as it stands; None is unknown. Idle clocks are low: read it right after work."""

    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    source: str | None = None
    """Who said so: pynvml or nvidia-smi."""


@dataclass(frozen=True)
class Device:
    """One device and the software on it; None is unknown, or a CPU has no such thing."""

    kind: str
    """cuda, hip or cpu."""
    name: str
    compute_capability: str | None
    num_sms: int | None
    l2_bytes: int | None
    memory_bytes: int | None
    """What the runtime says: less than what is soldered on."""
    driver: str | None
    runtime: str | None
    """Version of CUDA, or HIP, that torch was built for."""
    torch: str
    triton: str
    python: str
    date: str
    """UTC, ISO 8601."""
    state: State


def describe(device: torch.device | str) -> Device:
    """The device as it is now."""
    device = torch.device(device)
    software = {
        "torch": str(torch.__version__),
        "triton": str(triton.__version__),
        "python": platform.python_version(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    if device.type != "cuda":
        return Device("cpu", _cpu_name(), None, None, None, None, None, None, **software, state=State())
    properties = torch.cuda.get_device_properties(device)
    driver, state = _driver_and_state(device)
    return Device(
        kind="hip" if torch.version.hip else "cuda",
        name=properties.name,
        compute_capability=f"{properties.major}.{properties.minor}",
        num_sms=properties.multi_processor_count,
        l2_bytes=properties.L2_cache_size,
        memory_bytes=properties.total_memory,
        driver=driver,
        runtime=torch.version.hip or torch.version.cuda,
        **software,
        state=state,
    )


def _cpu_name() -> str:
    """The processor as its maker calls it where the system tells, else its architecture."""
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read_state(device: torch.device | str) -> State:
    """Clocks, temperature and power at this moment; all unknown on a CPU."""
    device = torch.device(device)
    return _driver_and_state(device)[1] if device.type == "cuda" else State()


def _driver_and_state(device: torch.device) -> tuple[str | None, State]:
    """From the first source that answers. The device is asked for by its UUID: the driver counts them otherwise."""
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    return _from_pynvml(uuid) or _from_nvidia_smi(uuid) or (None, State())


def _from_pynvml(uuid: str) -> tuple[str | None, State] | None:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # not installed, no driver, no permission: then somebody else is asked
        return None
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        driver = pynvml.nvmlSystemGetDriverVersion()
        return (driver.decode() if isinstance(driver, bytes) else str(driver)), State(
            sm_clock_mhz=_said(lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)),
            memory_clock_mhz=_said(lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)),
            temperature_celsius=_said(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
            power_watts=_said(lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3),
            source="pynvml",
        )
    except Exception:
        return None
    finally:
        pynvml.nvmlShutdown()


def _said(read: Callable[[], Any]) -> float | None:
    """One reading; a device that does not give it is no error."""
    try:
        return float(read())
    except Exception:
        return None


def _from_nvidia_smi(uuid: str) -> tuple[str | None, State] | None:
    answer = _ask_smi(uuid, f"--query-gpu={','.join(_SMI_FIELDS)}")
    return None if answer is None else parse_smi(answer)


def _ask_smi(uuid: str, query: str) -> str | None:
    command = ["nvidia-smi", f"--id={uuid}", query, "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def used_bytes(device: torch.device | str) -> int | None:
    """What all processes hold of a device, asked without touching it; None if nobody says."""
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    mib = _number((_ask_smi(uuid, "--query-gpu=memory.used") or "").strip())
    return None if mib is None else int(mib) << 20


def process_bytes(device: torch.device | str) -> int | None:
    """What this process holds of a device, context and all, by the driver.

    None where the driver does not say, or counts processes by other numbers (a container).
    """
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    answer = _ask_smi(uuid, "--query-compute-apps=pid,used_memory") or ""
    for line in answer.splitlines():
        pid, _, mib = line.partition(",")
        if pid.strip() == str(os.getpid()) and (number := _number(mib.strip())) is not None:
            return int(number) << 20
    return None


def parse_smi(answer: str) -> tuple[str | None, State] | None:
    """Driver and state out of nvidia-smi's line of `_SMI_FIELDS`; `[N/A]` and the like are unknown."""
    cells = [cell.strip() for cell in answer.strip().split(",")]
    if len(cells) != len(_SMI_FIELDS):
        return None
    sm_clock, memory_clock, temperature, power = (_number(cell) for cell in cells[1:])
    driver = None if cells[0].startswith("[") else cells[0]
    return driver, State(sm_clock, memory_clock, temperature, power, source="nvidia-smi")


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
