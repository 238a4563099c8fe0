"""The GPUs that an engine would see here, as their driver names them."""

import csv
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kvplan.core.units import MIB

_QUERY = "index,uuid,name,memory.total,driver_version"
_SECONDS = 30
_AMD = Path("/dev/kfd")
"""The device of AMD's driver, which nvidia-smi knows nothing of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenGpu:
    """One GPU."""

    name: str
    memory_bytes: int | None
    """What the driver reports; None where it reports none, as of memory that a CPU shares."""
    driver: str


def seen_gpus(environment: Mapping[str, str] = os.environ) -> tuple[SeenGpu, ...]:
    """NVIDIA's GPUs in the order of nvidia-smi, without those that CUDA_VISIBLE_DEVICES hides; none without it."""
    rows = _rows()
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [word.strip() for word in visible.split(",")]
        rows = [row for row in rows if row[0] in named or any(word and row[1].startswith(word) for word in named)]
    return tuple(SeenGpu(name=row[2], memory_bytes=_bytes(row[3]), driver=row[4]) for row in rows)


def has_other_gpu() -> bool:
    """Whether a GPU may be here that nvidia-smi does not list."""
    return _AMD.exists()


def _rows() -> list[list[str]]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[cell.strip() for cell in row] for row in csv.reader(done.stdout.splitlines())]
    return [row for row in rows if len(row) == 5] if done.returncode == 0 else []


def _bytes(mib: str) -> int | None:
    return int(mib) * MIB if mib.isdigit() else None
