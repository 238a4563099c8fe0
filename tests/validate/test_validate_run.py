"""The order of jobs, what a budget leaves of a model, deadlines, failures; with jobs that only pretend to measure."""

from dataclasses import replace
from typing import Any

import pytest

from kvplan.api import load_model
from kvplan.core.units import GIB, MIB
from kvplan.validate import predict, run
from kvplan.validate.cases import Load, cases_of, variants
from kvplan.validate.levels import LEVELS
from kvplan.validate.record import recompute

CPU = {"kind": "cpu", "name": "some CPU", "date": "2026-01-02T03:04:05+00:00"}
GPU = {"kind": "cuda", "name": "Imaginary GPU", "date": "2026-01-02T03:04:05+00:00"}
MISTRAL = load_model("mistralai/Mistral-7B-v0.1")


class Jobs:
    """Stands in for the processes: remembers what was asked, answers as a perfect measurement would."""

    def __init__(self, broken: tuple[str, ...] = ()) -> None:
        self.asked: list[dict[str, Any]] = []
        self.broken = broken

    def __call__(self, job: dict[str, Any], *, timeout_seconds: float) -> Any:
        self.asked.append(job)
        if job["job"] in self.broken:
            return {"failure": {"kind": "crash", "message": "it fell"}}
        answer: Any = getattr(self, job["job"])(job)
        return answer

    @property
    def names(self) -> list[str]:
        return [job["job"] for job in self.asked]

    def memory(self, job: dict[str, Any]) -> dict[str, Any]:
        cases = [run.Case.from_json(case) for case in job["cases"]]
        total = sum(predict.pool_requests(cases))
        return {
            "points": [{"point": "start", "process": 0}, {"point": "run", "process": total}],
            "pools": [
                {"case": c.name, "layers": c.num_layers, "pages": 1, "pool_bytes": c.num_layers * predict.pool_bytes(c)}
                for c in cases
            ],
            "tallied_bytes": total,
        }

    def correctness(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        return []

    transient = correctness

    def ceilings(self, job: dict[str, Any]) -> dict[str, float]:
        return {"read_bytes_per_second": 1e12, "copy_bytes_per_second": 1e12, "matmul_flops_per_second": 1e14}

    def throughput(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        rows = []
        for found in job["cases"]:
            case = run.Case.from_json(found)
            for phase, loads in job["loads"][case.name].items():
                for batch, tokens in loads:
                    moved, flops = predict.work(case, phase, batch=batch, seq_len=tokens)
                    seconds = 1e-6 + max(moved / 0.9e12, flops / 0.5e14)
                    rows.append(
                        {
                            "case": case.name, "phase": phase, "batch": batch, "seq_len": tokens, "bytes": moved,
                            "flops": flops, "seconds": seconds, "low_seconds": seconds, "high_seconds": seconds,
                        }
                    )  # fmt: skip
        return rows


def bench(jobs: Jobs, device: dict[str, Any] = CPU, **given: Any) -> run.Bench:
    base: dict[str, Any] = {"free_bytes": 64 * GIB, "level": LEVELS["quick"], "deadline": 100.0, "clock": lambda: 0.0}
    return run.Bench(device=device, jobs=jobs, say=lambda name: None, **(base | given))


def target(**given: Any) -> run.Target:
    return run.Target(name="mistral", cases=cases_of(MISTRAL, Load(seq_len=1024)), **given)


def test_jobs_without_a_gpu() -> None:
    jobs = Jobs()
    document = run.validate(target(), bench(jobs))
    assert jobs.names == ["memory", "correctness", "transient"]
    assert {job["device"] for job in jobs.asked} == {"cpu"}
    assert document["verdict"] == "ok"
    assert document["inputs"] == {"level": "quick", "layers_tried": [32, 32]}
    assert run.num_jobs(target(), bench(jobs)) == 3


def test_jobs_on_a_gpu() -> None:
    jobs = Jobs()
    both = bench(jobs, GPU, level=LEVELS["full"])
    first, second = target(), run.Target(name="variants", cases=variants(Load(seq_len=1024)))
    counted = run.num_jobs(first, both)
    document = run.validate(first, both)
    assert jobs.names == ["memory", "correctness", "transient", "ceilings", "throughput"]
    assert counted == 5
    fits = {fit["phase"]: fit for fit in document["fits"]}
    assert fits["decode"]["model"]["bytes_share"] == pytest.approx(0.9)
    assert fits["prefill"]["model"]["flops_share"] == pytest.approx(0.5)
    assert document["tokens_per_second"]
    run.validate(second, both)
    assert jobs.names.count("ceilings") == 1  # the device is the same
    assert jobs.names.count("throughput") == 1 + 7  # a kind a process


def test_a_record_can_be_judged_again() -> None:
    document = run.validate(target(), bench(Jobs(), GPU))
    assert recompute(document) == {key: document[key] for key in recompute(document)}


def test_a_job_that_fails_is_told_and_the_rest_goes_on() -> None:
    jobs = Jobs(broken=("memory", "throughput"))
    document = run.validate(target(), bench(jobs, GPU))
    assert jobs.names == ["memory", "correctness", "transient", "ceilings", "throughput"]
    assert [(one["where"].split(",")[0], one["message"]) for one in document["failures"]] == [
        ("memory", "it fell"), ("throughput", "it fell"),
    ]  # fmt: skip
    assert document["verdict"] == "off"


def test_when_the_time_is_up_nothing_new_starts_and_nobody_is_to_blame() -> None:
    jobs = Jobs()
    times = iter([0.0, 0.0, *[200.0] * 20])
    document = run.validate(target(), bench(jobs, clock=lambda: next(times)))
    assert jobs.names == ["memory"]
    assert document["failures"] == []
    assert document["verdict"] == "inconclusive"  # what was measured agrees, and most was not


def test_a_job_that_the_runs_end_cuts_short_was_not_run() -> None:
    def job(asked: dict[str, Any], *, timeout_seconds: float) -> Any:
        return {"failure": {"kind": "timeout", "message": "too long"}}

    def kinds(deadline: float) -> set[str]:
        at = replace(bench(Jobs()), jobs=job, deadline=deadline)
        return {one["failure"]["kind"] for one in run.measure(target(), [], at).values()}

    assert kinds(5.0) == {"not run"}
    assert kinds(1e9) == {"timeout"}  # it had all the time that a job may have


def test_a_budget_takes_layers_in_proportion() -> None:
    cases = cases_of(load_model("google/gemma-3-27b-it"), Load(seq_len=4096))
    whole = sum(case.num_layers * predict.pool_bytes(case) for case in cases)
    assert run.shrunk(cases, whole) == cases
    half = run.shrunk(cases, whole // 2)
    assert [case.num_layers for case in half] == [26, 5]
    assert [case.num_layers for case in run.shrunk(cases, 1)] == [1, 1]


def test_a_load_of_its_own_passes_the_windows_as_far_as_memory_goes() -> None:
    roomy, tight = bench(Jobs(), level=LEVELS["full"]), bench(Jobs(), free_bytes=300 * MIB)
    assert run.chosen_load(MISTRAL, roomy, seq_len=None, batch=None) == {"seq_len": 5120, "batch": 1, "chunk": 512}
    # 100 MiB hold 640 tokens of 32 layers at 4096 bytes
    assert run.chosen_load(MISTRAL, tight, seq_len=None, batch=None)["seq_len"] == 640
    assert run.chosen_load(MISTRAL, tight, seq_len=9999, batch=3) == {"seq_len": 9999, "batch": 3, "chunk": 512}
    assert run.chosen_load(MISTRAL, bench(Jobs(), GPU), seq_len=None, batch=None)["batch"] == 8


def test_an_earlier_context_goes_into_the_reading() -> None:
    jobs = Jobs()
    jobs.memory = lambda job: {"points": [], "pools": []}  # type: ignore[method-assign]
    at = bench(jobs, GPU, expected_context=(450 * MIB, "a record"))
    readings = run.measure(target(), [], at)
    assert readings["memory"]["expected_context_bytes"] == 450 * MIB


def test_a_frameworks_cache_is_asked_for_at_a_length_that_fits() -> None:
    asked: list[dict[str, Any]] = []

    def framework(job: dict[str, Any], *, timeout_seconds: float) -> Any:
        asked.append(job)
        return {"failure": {"kind": "FrameworkError", "message": "no"}}

    against = target(framework_config={"model_type": "mistral"})
    for free in (64 * GIB, 900 * MIB, 30 * MIB):
        at = replace(bench(Jobs()), jobs=framework, free_bytes=free)
        run._framework(against, at)
    # 131,072 bytes a token: one sequence of 4096 is 512 MiB, the quick level's all; of 1024 a quarter of it
    assert [(job["batch"], job["seq_len"]) for job in asked] == [(1, 4096), (1, 1024), (1, 64)]
