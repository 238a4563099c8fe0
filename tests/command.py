"""`kvplan …` as tests call it: in this process, or as one of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from kvplan.cli import cli
from kvplan.core.errors import RefusedError
from kvplan.inverse import serve_check
from tests.models import LLAMA

MODEL = "meta-llama/Llama-2-70b"


def run(*args: str) -> Result:
    """`kvplan …` in this process, on a terminal of 100 columns without colour, not debugging."""
    env = {"COLUMNS": "100", "NO_COLOR": "1", "KVPLAN_DEBUG": None}
    return CliRunner(env=env).invoke(cli, args, prog_name="kvplan")


def start(*args: str, **how: Any) -> "subprocess.Popen[bytes]":
    """`python -m kvplan …` as a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "kvplan", *args], stderr=subprocess.PIPE, **how)


def config(folder: Path, **changes: Any) -> str:
    """A config.json with some keys changed."""
    path = folder / "config.json"
    path.write_text(json.dumps(LLAMA | changes), encoding="utf-8")
    return str(path)


def refusal_of(command: str, gpu: str = "H100", **given: str) -> str | None:
    """Why the engine does not even look at the memory; None where it does."""
    try:
        return serve_check(command, gpu, offline=True, **given).refusal
    except RefusedError as error:
        return str(error)
