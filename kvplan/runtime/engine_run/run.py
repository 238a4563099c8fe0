"""One start of an installed engine with random weights: its command, its output until the pool is sized, its end.

To add an engine: its words in `_ENGINES`, its program in `program`. vLLM and SGLang both make random weights of a
config.json with `--load-format dummy`, and do without a tokenizer with `--skip-tokenizer-init`.

Sources: vllm/model_executor/model_loader/dummy_loader.py, v1/engine/core.py of 0.33.0; sglang/srt/server_args.py,
entrypoints/http_server.py, managers/scheduler.py of 0.5.23.
"""

import os
import shlex
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kvplan.core.errors import InputError
from kvplan.runtime.command import write_command
from kvplan.runtime.engine_run.process import EngineProcess, ended_in_order
from kvplan.runtime.log import read_log
from kvplan.runtime.observation import Observation
from kvplan.runtime.shell import ASSIGNMENT

Ended = Literal["complete", "exited", "time out"]
SETTLE_SECONDS = 3.0
"""How long the lines of other workers are waited for once the engine says that it is through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Engine:
    """How an engine is started, and what it says when all that matters has been said."""

    own_program: int
    """Words of `write_command`'s line that name the program."""
    complete: tuple[str, ...]
    nearly: str
    """All that it says of memory was said, but for what other workers still have in their pipes."""
    environment: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()


_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",
    "NO_COLOR": "1",
    # What names a process anew would otherwise write over the environment by which it is found.
    "SPT_NOENV": "1",
}
_ENGINES = {
    "vllm": _Engine(
        own_program=2,
        complete=("Application startup complete", "Uvicorn running on"),
        nearly="init engine (profile, create kv cache, warmup model) took",
        # Up to 0.20 the terms of the profile run are debug messages.
        environment={"VLLM_LOGGING_LEVEL": "DEBUG", "VLLM_NO_USAGE_STATS": "1"},
        unset=("VLLM_CONFIGURE_LOGGING", "VLLM_LOGGING_CONFIG_PATH", "VLLM_LOGGING_PREFIX"),
    ),
    "sglang": _Engine(
        own_program=3, complete=("The server is fired up and ready to roll",), nearly="max_total_num_tokens="
    ),
}
ENGINES = tuple(_ENGINES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be started."""

    engine: str
    program: tuple[str, ...]
    """The words before the model."""
    model_folder: Path
    has_tokenizer: bool
    options: Mapping[str, object]
    """As `runtime.command.write_command` takes them."""
    timeout_seconds: float
    log: Path
    """Where a copy of the output goes."""
    say: Callable[[str], object] = print
    """Is told the words that are run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRun:
    """What came of it."""

    command: str
    """The line that was run, with the variables that were set for it."""
    ended: Ended
    """complete: ended from here once its pool was sized · exited: by itself, before that · time out."""
    exit_code: int | None
    """Of an engine that exited; of a signal its negative number."""
    seconds: float
    observation: Observation | None
    """None where nothing of what it said is known."""
    tail: tuple[str, ...]
    """Its last lines."""
    all_ended: bool
    """False where a process would not end even when it was killed."""


def run_engine(order: Order) -> EngineRun:
    """Start the engine, read what it says until it is ready to serve, and end all of its processes.

    Nothing is downloaded, and the Hub is not asked. Raises InputError for options that the engine cannot be told, and
    where its program cannot be started; whatever else goes wrong is in the answer.
    """
    if os.name == "nt":
        raise InputError("engines are started on Linux alone", hint="`kvplan explain LOG` reads a log from elsewhere")
    words, environment = engine_command(order)
    known, begun = _ENGINES[order.engine], time.monotonic()
    ready: list[str] = []
    order.say(shlex.join(words))
    variables = {name: value for name, value in os.environ.items() if name not in known.unset} | environment
    with ended_in_order(), EngineProcess(words, variables, order.log) as process:
        said = process.lines(timeout_seconds=order.timeout_seconds)
        observations = read_log(_until_complete(said, process, known, order, ready))
    ended: Ended = "complete" if ready else "time out" if process.timed_out else "exited"
    return EngineRun(
        command=" ".join([*(f"{name}={shlex.quote(text)}" for name, text in environment.items()), shlex.join(words)]),
        ended=ended,
        exit_code=process.exit_code if ended == "exited" else None,
        seconds=round(time.monotonic() - begun, 1),
        observation=_observed(observations, order.engine),
        tail=tuple(process.tail),
        all_ended=process.all_ended,
    )


def engine_command(order: Order) -> tuple[list[str], dict[str, str]]:
    """The words to run, and the variables to set for them."""
    known = _ENGINES[order.engine]
    line = shlex.split(write_command(order.engine, str(order.model_folder), order.options))
    variables = {}
    while found := ASSIGNMENT.fullmatch(line[0]):
        variables[found[1]] = found[2]
        line = line[1:]
    words = [*order.program, *line[known.own_program :], "--load-format", "dummy"]
    words += [] if order.has_tokenizer else ["--skip-tokenizer-init"]
    words += ["--host", "127.0.0.1", "--port", str(_free_port())]
    return words, {**_QUIET, **known.environment, **variables}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until_complete(
    said: Iterator[str], process: EngineProcess, known: _Engine, order: Order, ready: list[str]
) -> Iterator[str]:
    """The engine's lines up to the one after which nothing about memory follows, which goes to `ready`."""
    replicas = order.options.get("dp")
    awaited = replicas if isinstance(replicas, int) else 1
    for line in said:
        yield line
        if any(words in line for words in known.complete):
            ready.append(line)
            return
        if known.nearly in line:
            awaited -= 1
            if awaited == 0:
                ready.append(line)
                process.read_until(time.monotonic() + SETTLE_SECONDS)


def _observed(observations: list[Observation], engine: str) -> Observation | None:
    mine = [one for one in observations if one.engine == engine]
    telling = [one for one in mine if one.figures or one.errors]
    return (telling or mine)[-1] if mine else None
