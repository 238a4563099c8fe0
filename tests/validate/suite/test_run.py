"""The suite without a GPU: checks in the interpreter, a failing kernel told and passed over, rows and a record."""

import json
import time

import pytest
import torch
from click.testing import CliRunner

from kvplan.validate.kernels.launch import Config
from kvplan.validate.kernels.select import STATIC, Choice
from kvplan.validate.suite import correctness, run
from kvplan.validate.suite.__main__ import main
from kvplan.validate.suite.adopt import measured_rows
from kvplan.validate.suite.bench import Candidate, benchmark, ours
from kvplan.validate.suite.correctness import CHECKS, Check, check_all, relative_error
from kvplan.validate.suite.problems import DECODE, PREFILL, STATE, DecodeCase, PrefillCase, StateCase
from kvplan.validate.suite.record import Record, read_record
from kvplan.validate.suite.timing import Effort, Failure, Guard, HostStopwatch

CPU = torch.device("cpu")
EFFORT = Effort(rounds=1, replays_per_round=1, warm_ups=1, min_calls=1, max_calls=1)
TINY = DecodeCase("tiny", 2, 40, 4, 2, 32, 32)
FAST = [check for check in CHECKS if check.name in ("Mamba-2 step", "convolution step")]


def guard() -> Guard:
    return Guard(HostStopwatch())


def suite(**changes) -> run.Suite:
    given = {
        "deadline": time.monotonic() + 600,
        "say": lambda text: None,
        "checks": FAST,
        "cases": (),
        "effort": EFFORT,
    }
    return run.Suite("cpu", **(given | changes))


def fails(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    raise RuntimeError("first line\nsecond line")


def is_wrong(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(3), torch.full((3,), 1.5, dtype=torch.float64)


def is_unwritten(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty(3), torch.ones(3, dtype=torch.float64)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_check_of_the_gpu_run_holds_at_tiny_lengths(check, monkeypatch):
    monkeypatch.setattr(correctness, "SHORT_LENGTHS", (20, 1, 5, 18))
    (verdict,) = check_all(CPU, guard(), [check])
    assert verdict.ok, verdict


def test_a_failing_check_is_told_and_the_rest_goes_on():
    checks = [Check("fails", fails), Check("is wrong", is_wrong), Check("is unwritten", is_unwritten), *FAST[:1]]
    record = suite(checks=checks).run(["correctness"])
    assert [verdict.ok for verdict in record.correctness] == [False, False, False, True]
    assert record.correctness[0].failure == Failure("RuntimeError", "first line")
    assert record.correctness[1].error == pytest.approx(1 / 3)
    assert [failure["where"] for failure in record.failures] == ["fails", "is wrong", "is unwritten"]


def test_an_error_against_another_shape_is_no_number():
    with pytest.raises(ValueError, match="the kernel gave"):
        relative_error(torch.ones(2), torch.ones(3))


def test_after_the_deadline_nothing_new_starts_and_it_says_so():
    record = suite(deadline=time.monotonic() - 1).run(["correctness"])
    assert record.correctness == []
    assert record.failures == [{"where": FAST[0].name, "what": Failure.not_run("the time was up")}]


def test_a_benchmark_checks_before_it_times_and_keeps_failures_apart():
    inputs = [TINY.make(CPU, seed) for seed in range(2)]
    right = Candidate(ours(TINY, inputs, Choice("decode", Config(16, 4, 2), STATIC)))
    wrong = Candidate([lambda one=one: torch.zeros_like(one.q_BHD) for one in inputs])
    rows = benchmark(
        TINY, {"right": right, "wrong": wrong, "none": Failure("Unsupported", "no")}, inputs, guard(), None, EFFORT
    )
    by_name = {row.candidate: row for row in rows}
    assert by_name["right"].timing is not None
    assert by_name["right"].bytes_per_second * by_name["right"].timing.median_seconds == pytest.approx(
        2 * 40 * 2 * 64 * 2
    )
    assert by_name["wrong"].timing is None
    assert by_name["wrong"].failure.kind == "Wrong"
    assert by_name["none"].failure == Failure("Unsupported", "no")


CASES = [
    StateCase("state", 3, 2, 4, 16, 32),
    TINY,
    DecodeCase("window, int8, sinks", 2, 50, 4, 2, 32, 32, torch.int8, window=20, sinks=True, softcap=3.0),
    DecodeCase("latent", 1, 40, 8, 1, 48, 32, latent=True),
    PrefillCase("causal", 1, 40, 4, 2, 32),
    PrefillCase("paged window", 1, 40, 4, 2, 32, window=8, page_size=16),
    PrefillCase("full", 1, 40, 2, 2, 32, causal=False),
]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_sort_of_case_beside_the_baselines(case):
    """Everything that the GPU run does, interpreted: our answer and every baseline that a CPU has agree with the oracle."""
    interpreted = suite(cases=[case])
    interpreted._benchmark()
    rows = {row.candidate: row for row in interpreted.record.benchmarks}
    mine = [row for row in rows.values() if row.choice]
    assert mine
    assert all(row.timing and row.error is not None and row.error < 1e-2 for row in mine), rows
    if "flex" in rows:
        assert rows["sdpa-math"].timing or rows["sdpa-math"].failure.kind == "Unsupported"
        assert rows["flex"].error < 1e-2


def test_required_bytes_worked_by_hand():
    """Llama-3.1-8B: 2 · 8 heads · 128 · 2 bytes are 4 KiB per token; a latent of 576 · 2 bytes counts once; a window its own."""
    tokens = DecodeCase("a", 3, 100, 32, 8).make(torch.device("meta"), 0).required_bytes
    assert tokens == 3 * 100 * 4096
    assert DecodeCase("b", 3, 100, 32, 8, window=64).make(torch.device("meta"), 0).required_bytes == 3 * 64 * 4096
    latent = DecodeCase("c", 2, 64, 16, 1, 576, 512, latent=True).make(torch.device("meta"), 0)
    assert latent.required_bytes == 2 * 64 * 1152
    int8 = DecodeCase("d", 1, 64, 32, 8, stored=torch.int8).make(torch.device("meta"), 0)
    assert int8.required_bytes == 64 * 8 * (256 + 8)


def test_visible_pairs_worked_by_hand():
    assert PrefillCase("a", 1, 4, 1, 1).visible_pairs == 10
    assert PrefillCase("b", 1, 4, 1, 1, window=2).visible_pairs == 7
    assert PrefillCase("c", 1, 4, 1, 1, causal=False).visible_pairs == 16
    assert PrefillCase("d", 2, 8192, 32, 8).flops == 4 * 2 * 32 * 128 * 8192 * 8193 // 2


def test_cases_have_names_of_their_own():
    names = [case.name for case in (*DECODE, *PREFILL, *STATE)]
    assert len(set(names)) == len(names)
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_a_sweep_becomes_rows_of_the_table():
    case = DECODE[0]
    rows = [
        {
            "case": case.name,
            "choice": {"kernel": "decode", "config": vars(Config(block_n, 4, 3, num_splits=4))},
            "timing": {"median_seconds": seconds},
        }
        for block_n, seconds in ((32, 3e-4), (64, 2e-4), (128, 5e-4), (16, 9e-4))
    ]
    rows.append(rows[0] | {"timing": None})
    device = {"name": "H100", "compute_capability": "9.0", "num_sms": 132, "triton": "3.6.0", "date": "2026-01-01"}
    made = measured_rows(Record(device=device, sweep=rows))
    assert [(row["block_n"], row["cost"]) for row in made] == [(64, 1.0), (32, 1.5), (128, 2.5)]
    assert {row["basis"] for row in made} == {"measured"}
    assert {(row["target"], row["dim"], row["rows"], row["stored_bits"]) for row in made} == {("sm_90", 128, 16, 16)}


def test_the_command_without_a_gpu(monkeypatch):
    monkeypatch.setattr(run, "has_gpu", lambda: False)
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 2
    assert result.stderr == "error: there is no GPU here\n\nhint: `--device cpu` checks the kernels without one\n"


def test_the_command_writes_a_record(tmp_path):
    path = tmp_path / "record.json"
    result = CliRunner().invoke(main, ["--device", "cpu", "--only", "ceilings", "--out", str(path)])
    assert result.exit_code == 0, result.output
    assert "ceilings: not without a GPU" in result.output
    assert "no figure here is a GPU's" in result.output
    record = read_record(path)
    assert record.device["kind"] == "cpu"
    assert record.benchmarks == []
    assert json.loads(path.read_text())["schema"] == "kvplan/kernels/1"
