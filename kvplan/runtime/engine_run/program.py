"""Which program starts an engine here, and which version of the engine it is."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from kvplan.core.errors import InputError
from kvplan.core.text import printable

_MODULES = {"vllm": "vllm.entrypoints.cli.main", "sglang": "sglang.launch_server"}
_SCRIPTS = {"vllm": "vllm"}
"""SGLang has a script of its own since 0.5 only; its module starts every version."""
_SERVE = {"vllm": ("serve",), "sglang": ()}
_ASK_SECONDS = 30
_HAS = "import sys; from importlib.util import find_spec; sys.exit(find_spec(sys.argv[1]) is None)"
_VERSION = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
_SHEBANG_BYTES = 512


def find_program(engine: str, command: str | None) -> tuple[str, ...]:
    """The words that stand before the model: of `command`, else of what is installed.

    Raises InputError where that is not to be found.
    """
    if command is None:
        return (*_installed(engine), *_SERVE[engine])
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"`--engine-command` is no command line: {error}", hint=_example(engine)) from None
    if not words or shutil.which(Path(words[0]).expanduser()) is None:
        shown = printable(words[0] if words else "", max_length=60)
        raise InputError(f"`{shown}` is no program that is to be found here", hint=_example(engine))
    words[0] = str(Path(words[0]).expanduser()) if words[0].startswith("~") else words[0]
    return (*words, *(word for word in _SERVE[engine] if word != words[-1]))


def _installed(engine: str) -> tuple[str, ...]:
    script = _SCRIPTS.get(engine)
    if script and shutil.which(script):
        return (script,)
    for python in _pythons():
        if _ask(python, _HAS, engine) is not None:
            return (python, "-m", _MODULES[engine])
    raise InputError(
        f"{engine} is not installed here: neither on the PATH nor in a Python that is",
        hint=f"`pip install {engine}` in an environment of its own, then {_example(engine)}",
    )


def _example(engine: str) -> str:
    return f"--engine-command 'PATH/TO/python -m {_MODULES[engine]}'"


def _pythons() -> Iterable[str]:
    found = (sys.executable, shutil.which("python3"), shutil.which("python"))
    return dict.fromkeys(path for path in found if path)


def installed_version(engine: str, program: tuple[str, ...]) -> str | None:
    """The version of the engine's package for the Python that runs the program; None where that is not to be told."""
    python = _interpreter(program[0])
    said = _ask(python, _VERSION, engine) if python else None
    return said.strip() or None if said is not None else None


def _interpreter(word: str) -> str | None:
    """The Python that a program is, or that the first line of a script names."""
    path = shutil.which(word)
    if path is None:
        return None
    if Path(path).name.startswith("python"):
        return path
    try:
        with Path(path).open("rb") as script:
            first = script.read(_SHEBANG_BYTES).partition(b"\n")[0].decode(errors="replace")
    except OSError:
        return None
    words = first.removeprefix("#!").split() if first.startswith("#!") else []
    if words and Path(words[0]).name == "env":
        words = words[1:]
    named = shutil.which(words[0]) if words else None
    return named if named and Path(named).name.startswith("python") else None


def _ask(python: str, script: str, argument: str) -> str | None:
    """What a Python prints, in a process of its own without the folder that the user is in; None where it fails."""
    command = [python, "-c", script, argument]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_ASK_SECONDS, errors="replace", cwd=os.sep
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
