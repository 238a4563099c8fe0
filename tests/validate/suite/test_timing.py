"""Timing without a device: a stopwatch whose clock moves only when a call says so."""

import math
import warnings
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvplan.validate.suite.timing import (
    CudaStopwatch,
    Effort,
    Failure,
    Guard,
    HostStopwatch,
    Timing,
    interleave,
    measure,
    num_sets,
    stopwatch_for,
)

ONCE = Effort(rounds=1, replays_per_round=1, warm_ups=1, min_calls=1, min_replay_seconds=0.0)


class FakeStopwatch:
    """A device: `cost` seconds pass when a call says so; a graph's replay skips the launches."""

    def __init__(self, graphs: bool = True, launch: float = 0.0):
        self.now = 0.0
        self.graphs, self.launch = graphs, launch
        self.replaying = self.broken = False
        self.log: list[str] = []

    def call(self, name: str, cost: float):
        def call():
            self.log.append(name)
            self.now += cost if self.replaying else max(cost, self.launch)

        return call

    def settle(self):
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def warm(self, run):
        run()
        self.settle()

    def capture(self, run):
        if not self.graphs:
            raise RuntimeError("operation not permitted when stream is capturing\nfor debugging consider ...")

        def replay():
            self.replaying = True
            run()
            self.replaying = False

        return replay

    def time(self, run, repeats):
        run()
        seconds = []
        for _ in range(repeats):
            before = self.now
            run()
            seconds.append(self.now - before)
        self.settle()
        return seconds


def test_a_timing_is_the_median_of_one_call_and_its_tenths():
    timing = Timing.of([40.0, 10.0, 30.0, 20.0, 50.0], calls=10, input_sets=5)
    assert (timing.low_seconds, timing.median_seconds, timing.high_seconds) == pytest.approx((1.4, 3.0, 4.6))
    assert timing.spread == pytest.approx(3.2 / 3.0)
    assert timing.per_second(6.0) == pytest.approx(2.0)
    assert (timing.repeats, timing.calls_per_replay, timing.input_sets, timing.graph) == (5, 10, 5, True)


def test_no_time_is_no_rate():
    timing = Timing.of([0.0], calls=1, input_sets=1, no_graph="because")
    assert math.isnan(timing.per_second(1.0))
    assert timing.spread == math.inf
    assert not timing.graph


@pytest.mark.parametrize(
    ("bytes_per_set", "l2_bytes", "expected"),
    [(1, 1, 4), (200, 50, 1), (199, 50, 2), (64 << 20, 60 << 20, 4), (1 << 30, 60 << 20, 1), (7, 0, 1)],
)
def test_sets_to_rotate_over(bytes_per_set, l2_bytes, expected):
    assert num_sets(bytes_per_set, l2_bytes) == expected


@given(st.integers(1, 1 << 40), st.integers(1, 1 << 30))
def test_the_sets_are_enough_and_none_is_too_many(bytes_per_set, l2_bytes):
    sets = num_sets(bytes_per_set, l2_bytes)
    assert sets * bytes_per_set >= 4 * l2_bytes
    assert sets == 1 or (sets - 1) * bytes_per_set < 4 * l2_bytes


def test_an_empty_set_cannot_be_rotated_over():
    with pytest.raises(ValueError, match="0 bytes"):
        num_sets(0, 1)


@pytest.mark.parametrize(
    ("seconds", "input_sets", "expected"),
    [
        (1e-3, 1, 20),  # the least
        (2e-5, 1, 50),  # a replay of a millisecond
        (1e-9, 1, 1000),  # the most
        (0.0, 1, 1000),
        (0.1, 1, 2),  # no replay of more than a quarter of a second
        (1.0, 1, 1),
        (1e-3, 7, 21),  # whole rotations
        (1.0, 7, 7),
    ],
)
def test_calls_of_one_replay(seconds, input_sets, expected):
    assert Effort().num_calls(seconds, input_sets) == expected


def test_candidates_take_turns():
    watch = FakeStopwatch()
    effort = Effort(rounds=3, replays_per_round=1, warm_ups=1, min_calls=1, min_replay_seconds=0.0)
    timings = interleave({"a": [watch.call("a", 0.2)], "b": [watch.call("b", 0.3)]}, watch, effort=effort)
    assert (timings["a"].median_seconds, timings["b"].median_seconds) == pytest.approx((0.2, 0.3))
    assert timings["a"].repeats == 3
    # each turn is one replay that nobody times and one that is timed
    assert "".join(watch.log).endswith("aabb" * 3)


def test_calls_go_round_the_input_sets():
    watch = FakeStopwatch()
    effort = Effort(rounds=1, replays_per_round=1, warm_ups=1, min_calls=4, min_replay_seconds=0.0)
    timing = measure([watch.call(name, 1e-3) for name in "xyz"], watch, effort=effort)
    assert (timing.calls_per_replay, timing.input_sets) == (6, 3)
    assert "".join(watch.log).endswith("xyzxyz" * 2)


def test_replays_are_counted_by_what_a_call_takes_without_its_launch():
    watch = FakeStopwatch(launch=1e-4)
    timing = measure([watch.call("a", 5e-6)], watch)
    assert timing.median_seconds == pytest.approx(5e-6)
    assert timing.calls_per_replay == pytest.approx(200, abs=1)
    assert timing.repeats == 20


def test_a_slow_candidate_stops_early():
    watch = FakeStopwatch()
    timings = interleave({"slow": [watch.call("slow", 0.8)], "fast": [watch.call("fast", 1e-3)]}, watch)
    assert (timings["slow"].repeats, timings["fast"].repeats) == (4, 20)


def test_without_a_graph_a_loop_is_timed_and_says_so():
    watch = FakeStopwatch(graphs=False, launch=1e-4)
    timing = measure([watch.call("a", 5e-6)], watch)
    assert timing.median_seconds == pytest.approx(1e-4)
    assert not timing.graph
    assert timing.no_graph == "RuntimeError: operation not permitted when stream is capturing"


def test_a_candidate_that_fails_leaves_the_rest_alone():
    watch = FakeStopwatch()

    def wrong():
        raise TypeError("no such argument\nand a long story")

    timings = interleave({"wrong": [wrong], "none": [], "right": [watch.call("right", 1.0)]}, watch, effort=ONCE)
    assert timings["wrong"] == Failure("TypeError", "no such argument")
    assert timings["none"] == Failure("ValueError", "a candidate has at least one call")
    assert timings["right"].median_seconds == 1.0


def test_a_candidate_may_fail_in_a_later_round():
    watch = FakeStopwatch()
    left = iter(range(9))

    def tires():
        next(left)

    timings = interleave(
        {"tires": [tires], "lasts": [watch.call("lasts", 0.1)]},
        watch,
        effort=Effort(rounds=9, replays_per_round=1, warm_ups=1, min_calls=1, max_calls=1),
    )
    assert timings["tires"].kind == "StopIteration"
    assert timings["lasts"].repeats == 9


@pytest.mark.parametrize("calls_before", [1, 6], ids=["while it is warmed up", "in a later round"])
def test_after_a_lost_device_nothing_is_run(calls_before):
    watch = FakeStopwatch()
    left = iter(range(calls_before))

    def fatal():
        if next(left, None) is None:
            watch.broken = True

    guard = Guard(watch)
    candidates = {"first": [watch.call("first", 1.0)], "fatal": [fatal], "last": [watch.call("last", 1.0)]}
    effort = Effort(rounds=9, replays_per_round=1, warm_ups=1, min_calls=1, max_calls=1)
    timings = interleave(candidates, watch, effort=effort, guard=guard)
    why = "the device was lost in `fatal`: CUDA error: an illegal memory access was encountered"
    assert timings["fatal"] == Failure("RuntimeError", "CUDA error: an illegal memory access was encountered")
    assert timings["first"] == timings["last"] == Failure("NotRun", why)
    assert guard.lost == why
    assert guard.attempt("later", lambda: pytest.fail("it ran")) == Failure("NotRun", why)


def test_a_device_lost_while_capturing_is_found_out():
    watch = FakeStopwatch()

    def capture(run):
        watch.broken = True
        raise RuntimeError("capture failed")

    watch.capture = capture
    guard = Guard(watch)
    timings = interleave({"a": [watch.call("a", 1.0)]}, watch, effort=ONCE, guard=guard)
    assert timings["a"].message.startswith("CUDA error")
    assert guard.lost


def test_an_error_that_the_device_survives_is_not_held_against_it():
    guard = Guard(FakeStopwatch())

    def out_of_memory():
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert guard.attempt("big", out_of_memory).kind == "OutOfMemoryError"
    assert guard.attempt("small", lambda: 7) == 7


def test_warnings_explain_a_failure_and_are_not_lost_otherwise():
    guard = Guard(FakeStopwatch())

    def refused():
        for _ in range(2):
            warnings.warn("Flash attention kernel not used because:\nmany reasons", stacklevel=1)
        raise RuntimeError("No available kernel. Aborting execution.")

    assert guard.attempt("flash", refused).notes == ("Flash attention kernel not used because:",)
    with pytest.warns(UserWarning, match="by the way"):
        guard.attempt("fine", lambda: warnings.warn("by the way", stacklevel=1))


def test_the_first_error_is_raised_by_a_single_measurement():
    with pytest.raises(ZeroDivisionError):
        measure([lambda: 1 // 0], FakeStopwatch(), effort=ONCE)


def test_the_host_clock_times_what_is_done_when_it_returns():
    ticks = iter([1.0, 3.0, 10.0, 15.0])
    runs = []
    assert HostStopwatch(lambda: next(ticks)).time(lambda: runs.append(1), 2) == [2.0, 5.0]
    assert len(runs) == 3


def test_a_cpu_is_timed_by_the_host_clock():
    watch = stopwatch_for("cpu")
    timing = measure([lambda: sum(range(1000))], watch, effort=ONCE)
    assert timing.median_seconds > 0
    assert timing.no_graph == "NotImplementedError: a CPU has no graphs to replay"


class FakeCuda:
    """As much of `torch.cuda` as the stopwatch uses; its clock moves 1 ms with every run."""

    def __init__(self, monkeypatch):
        self.now, self.current, self.said, self.bad_capture = 0.0, "main", [], False
        fake = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = fake.now

            def elapsed_time(self, later):
                return later.at - self.at

        class Stream(SimpleNamespace):
            def __init__(self, device):
                super().__init__(name=f"side of {device}")

            def wait_stream(self, other):
                fake.said.append(f"side waits for {other.name}")

        main = SimpleNamespace(
            name="main", device_index=0, wait_stream=lambda other: self.said.append("main waits for side")
        )

        @contextmanager
        def stream(chosen):
            before, self.current = self.current, chosen
            yield
            self.current = before

        @contextmanager
        def graph(captured, pool, stream, capture_error_mode):
            assert pool == (0, 1)
            assert capture_error_mode == "thread_local"
            self.current = stream
            yield
            if self.bad_capture:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
            self.current = main

        self.main, self.current = main, main
        replacements = {
            "Event": Event,
            "Stream": Stream,
            "CUDAGraph": lambda: SimpleNamespace(replay=lambda: self.said.append("replay")),
            "current_stream": lambda device: self.current,
            "set_stream": lambda chosen: setattr(self, "current", chosen),
            "stream": stream,
            "graph": graph,
            "graph_pool_handle": lambda: (0, 1),
            "synchronize": lambda device: self.said.append("settled"),
            "device": lambda device: nullcontext(),
        }
        for name, replacement in replacements.items():
            monkeypatch.setattr(torch.cuda, name, replacement)

    def run(self):
        self.now += 1.0


@pytest.fixture
def cuda(monkeypatch):
    return FakeCuda(monkeypatch)


def test_events_stand_between_runs_that_are_queued_without_a_gap(cuda):
    watch = stopwatch_for("cuda:0")
    assert isinstance(watch, CudaStopwatch)
    assert watch.time(cuda.run, 3) == pytest.approx([1e-3] * 3)
    assert cuda.now == 4.0
    assert cuda.said == ["settled"]


def test_warming_up_happens_on_the_stream_that_captures(cuda):
    seen = []
    watch = CudaStopwatch("cuda:0")
    watch.warm(lambda: seen.append(cuda.current))
    watch.capture(lambda: seen.append(cuda.current))()
    assert seen[0] is seen[1] is not cuda.main
    assert cuda.said == ["side waits for main", "main waits for side", "settled", "replay", "settled", "replay"]


def test_a_capture_that_fails_gives_the_stream_back(cuda):
    watch = CudaStopwatch("cuda:0")
    first = watch._side
    cuda.bad_capture = True
    with pytest.raises(RuntimeError, match="during capture"):
        watch.capture(cuda.run)
    assert cuda.current is cuda.main
    assert watch._side is not first
