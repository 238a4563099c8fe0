"""A program that stands in for an engine, and what tests ask of the processes that it was."""

import sys
import time
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
STAND_IN = (sys.executable, str(DATA / "engines" / "stand_in_engine.py"))
VLLM_LOG = DATA / "logs" / "vllm-0.33-llama.log"


def is_alive(pid: int) -> bool:
    """Whether a process still runs; one that is dead and not yet buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def all_gone(pids: object, *, within_seconds: float = 0.0) -> bool:
    until = time.monotonic() + within_seconds
    assert isinstance(pids, list)
    assert pids
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)
    return True


def fake(folder: Path, name: str, prints: str, code: int = 0) -> None:
    """A program of that name in the folder."""
    text = folder / f"{name}.txt"
    text.write_text(prints, encoding="utf-8")
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat '{text}'\nexit {code}\n", encoding="utf-8")
    path.chmod(0o755)
