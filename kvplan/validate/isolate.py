"""Jobs in processes of their own: an error, a lost device or too little memory ends one job, not the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kvplan.core.errors import InputError

_IN_CHECKOUT = Path(__file__).parents[2] / "pyproject.toml"
"""There where kvplan is not installed but run from its source: the child must find it too."""
_ALLOCATOR = (
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_HIP_ALLOC_CONF",
    "PYTORCH_NO_CUDA_MEMORY_CACHING",
)
"""What would change torch's allocator: its defaults are what is predicted, and so what is measured."""


def require_torch() -> None:
    """Raises InputError, with what to install, where torch or Triton is missing."""
    missing = [name for name in ("torch", "triton") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"measuring needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            hint="pip install 'kvplan[gpu]' (Triton is there for Linux alone)",
        )


def run_job(job: Mapping[str, Any], *, timeout_seconds: float) -> Any:
    """The reading of a job, or {"failure": {"kind", "message"}} of one that did not end well."""
    with tempfile.TemporaryDirectory(prefix="kvplan-") as folder:
        out = Path(folder) / "reading.json"
        command = [sys.executable, "-m", "kvplan.validate.measure", str(out)]
        try:
            with _ended_in_order():
                done = subprocess.run(
                    command, input=json.dumps(dict(job)), capture_output=True, text=True, timeout=timeout_seconds,
                    env=environment(job["device"]), encoding="utf-8", errors="replace",
                )  # fmt: skip
        except subprocess.TimeoutExpired:
            return failed("timeout", f"not done after {timeout_seconds:.0f} seconds")
        try:
            return json.loads(out.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none, or one that was cut off
            return failed(*_cause(done))


def environment(device: str) -> dict[str, str]:
    """The process's, with torch's allocator as it is by default, and Triton interpreting on a CPU and not elsewhere."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", *_ALLOCATOR)}
    inherited["PYTHONSAFEPATH"] = "1"  # nothing that lies in the folder where the user happens to be is imported
    if _IN_CHECKOUT.is_file():
        inherited["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(_IN_CHECKOUT.parent), os.environ.get("PYTHONPATH")))
        )
    return inherited | ({"TRITON_INTERPRET": "1"} if device == "cpu" else {})


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """A request to end, as a cancelled job gets, ends the child too, as Ctrl-C does; the main thread alone hears it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def failed(kind: str, message: str) -> dict[str, Any]:
    """What stands in the place of a reading."""
    return {"failure": {"kind": kind, "message": message}}


def _cause(done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """Why a process left no reading: the signal that ended it, or the last thing it said."""
    ended_by = _signal(done.returncode)
    if ended_by == "SIGKILL":
        return "out of memory", "the operating system ended the process, as it does when memory runs out"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    said = lines[-1].strip() if lines else "it said nothing"
    return "crash", f"{f'ended by {ended_by}' if ended_by else f'exit code {done.returncode}'}: {said}"


def _signal(returncode: int) -> str | None:
    """The name of the signal that ended a process; None where none did, as on Windows."""
    if returncode >= 0:
        return None
    return next((one.name for one in signal.Signals if one == -returncode), f"signal {-returncode}")


def failure_of(reading: Any) -> Mapping[str, str] | None:
    """Why there is no reading, or no figure in one of its rows; None where all is well."""
    return reading.get("failure") if isinstance(reading, Mapping) else None


def is_failure(reading: Any) -> bool:
    """Whether a job left its failure in the place of a reading."""
    return failure_of(reading) is not None
