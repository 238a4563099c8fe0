"""A load of every kind of layer timed in the interpreter: its bytes and operations are the calculator's, the answer right.

The bytes are counted on the tensors that a kernel is given, the calculator has never seen them. No time means anything.
"""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvplan.validate import predict
from kvplan.validate.case import Case
from kvplan.validate.compare import compare
from kvplan.validate.measure import throughput
from kvplan.validate.measure.throughput import measure_throughput, problem
from kvplan.validate.record import judged
from kvplan.validate.suite import bench
from kvplan.validate.suite.problems import PrefillCase
from kvplan.validate.suite.record import plain
from kvplan.validate.suite.timing import Effort, HostStopwatch

CPU = torch.device("cpu")
EFFORT = Effort(rounds=1, replays_per_round=1, warm_ups=1, min_calls=1, max_calls=1)
FULL = Case(name="full", kind="full", num_heads=4, num_kv_heads=2, key_dim=32, value_dim=32)
SLIDING = replace(FULL, name="sliding", kind="sliding", window=12, sinks=True)
LATENT = replace(
    FULL, name="latent", kind="latent", num_kv_heads=4, latent_dim=64, rope_dim=16, key_dim=48, value_dim=32
)
LINEAR = replace(FULL, name="linear", kind="linear", num_heads=2, num_kv_heads=4, key_dim=16)
ENCODER = replace(FULL, name="encoder", kind="encoder", num_heads=2)
SPARSE = replace(FULL, name="sparse", kind="sparse", num_heads=2, window=9)
CROSS = replace(FULL, name="cross", kind="cross")


def measured(case, phase, *loads):
    return measure_throughput(case, phase, loads, CPU, EFFORT)


@pytest.mark.parametrize(
    ("case", "phase", "load"),
    [
        (FULL, "decode", (2, 40)),
        (replace(FULL, value_dim=16, page_size=64), "decode", (1, 70)),
        (replace(FULL, kv_dtype="fp8"), "decode", (1, 33)),
        (replace(FULL, kv_dtype="int8"), "decode", (2, 17)),
        (replace(FULL, dtype="fp16", kv_dtype="fp16"), "decode", (1, 20)),
        (replace(SLIDING, sinks=False), "decode", (2, 7)),
        (SLIDING, "decode", (2, 50)),
        (SLIDING, "decode", (1, 1300)),
        (CROSS, "decode", (2, 20)),
        (LATENT, "decode", (2, 40)),
        (replace(LATENT, kv_dtype="fp8"), "decode", (1, 20)),
        (LINEAR, "decode", (3, 1)),
        (FULL, "prefill", (2, 24)),
        (replace(FULL, value_dim=16, dtype="fp16"), "prefill", (1, 20)),
        (SLIDING, "prefill", (1, 40)),
        (LATENT, "prefill", (1, 24)),
        (ENCODER, "prefill", (2, 20)),
        (SPARSE, "prefill", (1, 30)),
        (SPARSE, "prefill", (1, 6)),
    ],
    ids=lambda given: f"{given.name} {given.kv_dtype}" if isinstance(given, Case) else str(given),
)
def test_bytes_and_operations_are_the_calculators(case, phase, load):
    (row,) = measured(case, phase, load)
    assert "failure" not in row, row
    assert (row["bytes"], row["flops"]) == predict.work(case, phase, batch=load[0], seq_len=load[1])
    assert (row["case"], row["phase"], row["batch"], row["seq_len"]) == (case.name, phase, *load)
    assert row["error"] < 1e-2
    assert row["low_seconds"] <= row["seconds"] <= row["high_seconds"]
    assert (row["repeats"], row["input_sets"], row["graph"]) == (1, 1, False)
    assert {one.verdict for one in compare([case], {"throughput": plain([row])})} == {"ok"}


def test_work_worked_by_hand():
    """Keys and values of 2 heads of 32 in bf16 are 256 bytes a token; each of 4 heads takes 2 · 64 operations a pair."""
    decode, prefill = measured(FULL, "decode", (2, 10))[0], measured(FULL, "prefill", (1, 10))[0]
    assert (decode["bytes"], decode["flops"]) == (2 * 10 * 256, 2 * 10 * 4 * 128)
    assert (prefill["bytes"], prefill["flops"]) == (10 * (256 + 4 * 64 * 2), 55 * 4 * 128)
    (step,) = measured(LINEAR, "decode", (3, 1))
    assert (step["bytes"], step["flops"]) == (2 * 3 * 4 * 16 * 32 * 4, 6 * 3 * 4 * 16 * 32)


@given(st.integers(1, 1 << 20), st.integers(1, 40_000), st.sampled_from([1, 16, 48, 64, 256]))
def test_a_window_keeps_its_place_in_pages_and_tiles(tokens, window, page_size):
    case = replace(SLIDING, window=window, page_size=page_size)
    kept = throughput._kept(case, tokens)
    whole = math.lcm(page_size, throughput.LARGEST_TILE)
    assert (tokens - kept) % whole == 0
    assert min(tokens, window) <= kept <= min(tokens, window + whole - 1)
    assert throughput._kept(replace(case, window=None), tokens) == tokens


def test_a_latents_prompt_is_its_expanded_heads():
    tried = problem(replace(LATENT, num_heads=16, num_kv_heads=16), "prefill", (3, 100))
    assert tried == PrefillCase("latent", 3, 100, 16, 16, 48, page_size=0, values=32)


def test_a_load_that_fails_is_told_and_the_next_goes_on(monkeypatch):
    ours = bench.ours

    def fails_for_two(tried, inputs, choice):
        if tried.batch == 2:
            raise RuntimeError("no such launch\nand a long story")
        return ours(tried, inputs, choice)

    monkeypatch.setattr(bench, "ours", fails_for_two)
    first, second = measured(FULL, "decode", (2, 20), (1, 20))
    assert first == {
        "case": "full", "phase": "decode", "batch": 2, "seq_len": 20,
        "failure": {"kind": "RuntimeError", "message": "no such launch", "notes": ()},
    }  # fmt: skip
    assert second["bytes"] == 20 * 256


def test_a_wrong_kernel_is_not_timed(monkeypatch):
    monkeypatch.setattr(bench, "ours", lambda tried, inputs, choice: [lambda: torch.zeros(1, 4, 32)])
    (row,) = measured(FULL, "decode", (1, 20))
    assert row["failure"]["kind"] == "Wrong"
    assert "against the oracle: not timed" in row["failure"]["message"]


@pytest.mark.parametrize(
    "case",
    [replace(FULL, dtype="fp32"), replace(FULL, kv_dtype="fp32"), replace(LINEAR, state_bits=16)],
    ids=["fp32", "fp32 cache", "bf16 states"],
)
def test_what_is_timed_in_no_such_type(case):
    """Its bytes would be those of another type."""
    (row,) = measured(case, "decode", (1, 20))
    assert row["failure"]["kind"] == "Unsupported"
    assert row["failure"]["message"] == "calls are timed in 16 bits or 8, steps of a state in 32"


class Pretended(str):
    """A CPU to tensors, a GPU to who asks for its type."""

    type = "cuda"


GPU = Pretended("cpu")


@pytest.fixture
def cuda(monkeypatch):
    """A GPU with 4 KiB of cache and 1 MiB of free memory."""
    asked = SimpleNamespace(free=1 << 20, emptied=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(L2_cache_size=4096))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (asked.free, 1 << 30))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: setattr(asked, "emptied", asked.emptied + 1))
    return asked


def test_a_gpu_rotates_over_inputs_that_outgrow_its_cache(cuda):
    """A set of 5,120 bytes, of which four are more than four times 4 KiB."""
    (row,) = measure_throughput(FULL, "decode", [(1, 20)], GPU, EFFORT)
    assert (row["bytes"], row["input_sets"]) == (5120, 4)
    assert cuda.emptied == 1


def test_a_load_that_does_not_fit_is_not_tried(cuda, monkeypatch):
    """16,384 tokens are 4 MiB. It is no failure of the kernel's: the verdict does not know of it."""
    made = []
    make_inputs = bench.make_inputs
    monkeypatch.setattr(bench, "make_inputs", lambda *given: made.append(given[0]) or make_inputs(*given))
    rows = measure_throughput(FULL, "decode", [(1, 16_384), (1, 20)], GPU, EFFORT)
    assert rows[0]["failure"]["kind"] == "MemoryError"
    assert rows[0]["failure"]["message"] == "1 × 4,194,304 bytes of inputs do not fit"
    assert [tried.num_tokens for tried in made] == [20]
    assert "bytes" in rows[1]
    assert judged([FULL], {"throughput": plain(rows)})["failures"] == []


def test_all_sets_of_a_short_window_count(cuda):
    """12 tokens are read of each set, 3,072 bytes, but whole pages are there: six sets of more than that."""
    cuda.free = 30_000
    (row,) = measure_throughput(SLIDING, "decode", [(1, 20)], GPU, EFFORT)
    assert row["failure"]["message"] == "6 × 8,192 bytes of inputs do not fit"


def test_a_lost_device_leaves_the_rows_before_it(cuda, monkeypatch):
    class Lost(HostStopwatch):
        def settle(self):
            if cuda.lost:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def loses(tried, inputs, choice):
        if tried.batch == 2:
            cuda.lost = True
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return ours(tried, inputs, choice)

    ours, cuda.lost = bench.ours, False
    monkeypatch.setattr(throughput, "stopwatch_for", lambda device: Lost())
    monkeypatch.setattr(bench, "ours", loses)
    rows = measure_throughput(FULL, "decode", [(1, 20), (2, 20), (1, 30)], GPU, EFFORT)
    assert rows[0]["bytes"] == 5120
    assert [row["failure"]["kind"] for row in rows[1:]] == ["RuntimeError", "NotRun"]
    assert "the device was lost in `full`" in rows[2]["failure"]["message"]
    assert cuda.emptied == 1  # it would raise


@pytest.mark.parametrize("where", ["make_inputs", "benchmark"])
def test_torchs_word_for_what_did_not_fit(where, cuda, monkeypatch):
    def too_much(*given):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB")

    if where == "make_inputs":
        monkeypatch.setattr(bench, "make_inputs", too_much)
    else:
        monkeypatch.setattr(bench, "ours", lambda tried, inputs, choice: [too_much for _ in inputs])
    (row,) = measure_throughput(FULL, "decode", [(1, 20)], GPU, EFFORT)
    assert row["failure"]["kind"] == "MemoryError"
    assert row["failure"]["message"].startswith("CUDA out of memory")
    assert judged([FULL], {"throughput": plain([row])})["failures"] == []


def test_what_comes_after_the_deadline_is_not_started():
    first, second = measure_throughput(FULL, "decode", [(1, 8), (1, 9)], CPU, EFFORT, deadline=-math.inf)
    assert (first["seq_len"], second["seq_len"]) == (8, 9)
    assert first["failure"]["kind"] == second["failure"]["kind"] == "not run"
