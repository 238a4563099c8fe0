"""Time calls on a GPU: captured graphs replayed back to back, candidates turn by turn, inputs in rotation.

A decode kernel takes about as long as its launch from Python, so its calls are captured in a CUDA graph and replayed.
Replays are queued behind one that is not timed: the stream never runs dry, and no launch falls between two events.
The calls of a replay go round several input sets, enough of them that none is still in the cache when it is read again
(`num_sets`). Candidates take turns, so that a drift of the clocks meets all alike.

A call is a function without arguments that enqueues one run on the current stream; a candidate is a list of them, one
per input set.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any, Protocol, TypeVar

import torch

Call = Callable[[], Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median over replays, with the 10th and the 90th percentile as `low` and `high`."""

    median_seconds: float
    low_seconds: float
    high_seconds: float
    repeats: int
    """Timed replays."""
    calls_per_replay: int
    input_sets: int
    graph: bool
    """False: a loop from Python was timed, whose launches may be slower than the calls; `no_graph` says why."""
    no_graph: str | None = None

    @classmethod
    def of(cls, seconds: Sequence[float], calls: int, input_sets: int, no_graph: str | None = None) -> Timing:
        """From the seconds of whole replays."""
        each = sorted(value / calls for value in seconds)
        return cls(
            median_seconds=median(each),
            low_seconds=_quantile(each, 0.1),
            high_seconds=_quantile(each, 0.9),
            repeats=len(each),
            calls_per_replay=calls,
            input_sets=input_sets,
            graph=no_graph is None,
            no_graph=no_graph,
        )

    @property
    def spread(self) -> float:
        """(high - low) / median: a difference between two candidates that is smaller than this is noise."""
        return (self.high_seconds - self.low_seconds) / self.median_seconds if self.median_seconds else math.inf

    def per_second(self, amount: float) -> float:
        """Rate of something of which one call does `amount`; zero time has no rate."""
        return amount / self.median_seconds if self.median_seconds else math.nan


@dataclass(frozen=True)
class Failure:
    """Why there is no result: the kind of error, the first line it said, and what was warned of on the way."""

    kind: str
    message: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: Exception, notes: Sequence[str] = ()) -> Failure:
        return cls(type(error).__name__, _first_line(error), tuple(notes))

    @classmethod
    def not_run(cls, why: str) -> Failure:
        return cls("NotRun", why)


@dataclass(frozen=True)
class Effort:
    """How much is timed: a replay holds `min_calls` calls and `min_replay_seconds`, unless that takes too long."""

    rounds: int = 10
    replays_per_round: int = 2
    warm_ups: int = 3
    min_calls: int = 20
    max_calls: int = 1000
    min_replay_seconds: float = 1e-3
    max_replay_seconds: float = 0.25
    max_seconds: float = 3.0
    """A candidate with as much behind it waits for the others: a slow one must not take the run's time."""

    def num_calls(self, seconds: float, input_sets: int) -> int:
        """Calls of one replay if one takes `seconds`: whole rotations, or the next replay finds its input cached."""
        wanted = max(self.min_calls, math.ceil(self.min_replay_seconds / seconds) if seconds > 0 else self.max_calls)
        affordable = max(1, int(self.max_replay_seconds / seconds)) if seconds > 0 else self.max_calls
        return -(-min(wanted, affordable, self.max_calls) // input_sets) * input_sets


class Stopwatch(Protocol):
    """What a device can do to be timed."""

    def settle(self) -> None:
        """Wait for the device; raises if it was lost."""

    def warm(self, run: Call) -> None:
        """Run once, untimed, where a later `capture` will run it."""

    def capture(self, run: Call) -> Call:
        """A function that replays everything `run` enqueues. Raises if that cannot be."""

    def time(self, run: Call, repeats: int) -> list[float]:
        """Seconds of each of `repeats` runs queued one behind another, behind one more that is not timed."""


class CudaStopwatch:
    """Events and graphs of one CUDA device.

    Graphs share one memory pool: they are replayed one after another, and nobody reads their outputs.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._start_afresh()

    def settle(self) -> None:
        torch.cuda.synchronize(self.device)

    def warm(self, run: Call) -> None:
        main = torch.cuda.current_stream(self.device)
        self._side.wait_stream(main)
        with torch.cuda.stream(self._side):
            run()
        main.wait_stream(self._side)
        self.settle()

    def capture(self, run: Call) -> Call:
        main = torch.cuda.current_stream(self.device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"):
                run()
        except Exception:
            # torch leaves the side stream current, and its allocator recording, when a capture does not end well
            torch.cuda.set_stream(main)
            with suppress(Exception):
                torch._C._cuda_endAllocateToPool(main.device_index, self._pool)
            self._start_afresh()
            raise
        graph.replay()
        self.settle()
        return graph.replay

    def time(self, run: Call, repeats: int) -> list[float]:
        with torch.cuda.device(self.device):
            events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
            run()
            events[0].record()
            for event in events[1:]:
                run()
                event.record()
            self.settle()
        return [before.elapsed_time(after) / 1e3 for before, after in pairwise(events)]

    def _start_afresh(self) -> None:
        self._side = torch.cuda.Stream(self.device)
        self._pool = torch.cuda.graph_pool_handle()


@dataclass
class HostStopwatch:
    """A clock of the host, for calls that are done when they return: a CPU's."""

    clock: Callable[[], float] = time.perf_counter

    def settle(self) -> None:
        pass

    def warm(self, run: Call) -> None:
        run()

    def capture(self, run: Call) -> Call:
        raise NotImplementedError("a CPU has no graphs to replay")

    def time(self, run: Call, repeats: int) -> list[float]:
        run()
        seconds = []
        for _ in range(repeats):
            start = self.clock()
            run()
            seconds.append(self.clock() - start)
        return seconds


def stopwatch_for(device: torch.device | str) -> Stopwatch:
    """The stopwatch of a device."""
    return CudaStopwatch(device) if torch.device(device).type == "cuda" else HostStopwatch()


@dataclass
class Guard:
    """Runs things that may fail. After an error that the device does not survive, it runs nothing more.

    An illegal memory access, say, ends the process's use of the GPU: every later call fails, whatever it is. What tells
    it from other errors is that waiting for the device fails as well.
    """

    stopwatch: Stopwatch
    lost: str | None = field(default=None)
    """Why nothing more can run; None while the device works."""

    def attempt(self, name: str, action: Callable[[], T]) -> T | Failure:
        """What `action` returns once the device is done with it, or its failure, whose notes are what was warned of."""
        if self.lost is not None:
            return Failure.not_run(self.lost)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            outcome = self._attempt(name, action)
        said = list(dict.fromkeys(_first_line(warning.message) for warning in caught))
        if isinstance(outcome, Failure):
            return Failure(outcome.kind, outcome.message, (*outcome.notes, *said))
        for warning in caught:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return outcome

    def _attempt(self, name: str, action: Callable[[], T]) -> T | Failure:
        try:
            value = action()
            self.stopwatch.settle()
        except Exception as error:
            failure = Failure.of(error)
        else:
            return value
        try:
            self.stopwatch.settle()
        except Exception:
            self.lost = f"the device was lost in `{name}`: {failure.message}"
        return failure


def num_sets(bytes_per_set: int, l2_bytes: int, *, times: int = 4) -> int:
    """Input sets to rotate over so that together they are at least `times` the cache: each read finds cold memory."""
    if bytes_per_set <= 0:
        raise ValueError(f"an input set has {bytes_per_set} bytes")
    return max(1, -(-times * l2_bytes // bytes_per_set))


def interleave(
    candidates: Mapping[str, Sequence[Call]],
    stopwatch: Stopwatch,
    *,
    effort: Effort | None = None,
    guard: Guard | None = None,
) -> dict[str, Timing | Failure]:
    """Time candidates in turns, each with its own input sets; one that fails is left out, and the rest goes on.

    `guard`: the caller's, if what comes after this must know whether the device survived.
    """
    effort = effort or Effort()
    guard = guard or Guard(stopwatch)
    outcomes: dict[str, _Runner | Failure] = {
        name: guard.attempt(name, lambda calls=calls: _Runner.prepare(calls, stopwatch, effort))  # type: ignore[misc]
        for name, calls in candidates.items()
    }
    for _ in range(effort.rounds):
        for name, runner in outcomes.items():
            if isinstance(runner, _Runner):
                outcomes[name] = guard.attempt(name, lambda runner=runner: runner.turn(stopwatch, effort))  # type: ignore[misc]
    return {name: outcome.timing() if isinstance(outcome, _Runner) else outcome for name, outcome in outcomes.items()}


def measure(calls: Sequence[Call], stopwatch: Stopwatch, *, effort: Effort | None = None) -> Timing:
    """Time one candidate; raises what it raises."""
    effort = effort or Effort()
    runner = _Runner.prepare(calls, stopwatch, effort)
    for _ in range(effort.rounds):
        runner.turn(stopwatch, effort)
    return runner.timing()


@dataclass
class _Runner:
    """A candidate ready to be timed: one replay of `calls` calls, and the seconds of its replays so far."""

    replay: Call
    calls: int
    input_sets: int
    no_graph: str | None
    seconds: list[float] = field(default_factory=list)

    @classmethod
    def prepare(cls, calls: Sequence[Call], stopwatch: Stopwatch, effort: Effort) -> _Runner:
        """Compile and warm up every input set, then capture a replay of the right length."""
        if not calls:
            raise ValueError("a candidate has at least one call")
        rotation = _unrolled(calls, len(calls))
        for _ in range(effort.warm_ups):
            stopwatch.warm(rotation)
        # launches from Python may be what this measures: the first graph says better how long a call takes
        runner = cls._of(calls, effort.num_calls(stopwatch.time(rotation, 1)[0] / len(calls), len(calls)), stopwatch)
        if runner.no_graph is None:
            wanted = effort.num_calls(stopwatch.time(runner.replay, 1)[0] / runner.calls, len(calls))
            if wanted > 1.5 * runner.calls:
                runner = cls._of(calls, wanted, stopwatch)
        return runner

    @classmethod
    def _of(cls, calls: Sequence[Call], number: int, stopwatch: Stopwatch) -> _Runner:
        run = _unrolled(calls, number)
        try:
            return cls(stopwatch.capture(run), number, len(calls), None)
        except Exception as error:
            why = f"{type(error).__name__}: {_first_line(error)}"
        return cls(run, number, len(calls), why)

    def turn(self, stopwatch: Stopwatch, effort: Effort) -> _Runner:
        if sum(self.seconds) < effort.max_seconds:
            self.seconds += stopwatch.time(self.replay, effort.replays_per_round)
        return self

    def timing(self) -> Timing:
        return Timing.of(self.seconds, self.calls, self.input_sets, self.no_graph)


def _unrolled(calls: Sequence[Call], number: int) -> Call:
    order = [calls[index % len(calls)] for index in range(number)]

    def run() -> None:
        for call in order:
            call()

    return run


def _quantile(ordered: Sequence[float], share: float) -> float:
    """By linear interpolation between the two nearest values."""
    place = share * (len(ordered) - 1)
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _first_line(said: object) -> str:
    lines = str(said).strip().splitlines()
    return lines[0].strip() if lines else ""
