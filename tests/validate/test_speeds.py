"""Fits of a sweep, tokens per second, and the variants' ratios, from made-up times that are known exactly."""

from dataclasses import replace
from typing import Any

import pytest

from kvplan.validate import predict
from kvplan.validate.case import Case
from kvplan.validate.cases import Load, variants
from kvplan.validate.speeds import judge, tokens_per_second
from kvplan.validate.variants import against_mha

CEILINGS = {"read_bytes_per_second": 1e12, "copy_bytes_per_second": 0.8e12, "matmul_flops_per_second": 1e14}
FULL = Case(name="full", kind="full", num_heads=8, num_kv_heads=8, key_dim=128, value_dim=128, num_layers=3)
STATE = Case(name="state", kind="linear", num_heads=8, num_kv_heads=8, key_dim=128, value_dim=128, num_layers=5)
LOADS = [(1, 512), (2, 512), (4, 1024), (8, 2048), (16, 2048), (32, 4096), (64, 4096), (128, 8192)]


def timed(
    case: Case, seconds: float, load: tuple[int, int], spread: float = 0.0, phase: str = "decode"
) -> dict[str, Any]:
    moved, flops = predict.work(case, phase, batch=load[0], seq_len=load[1])
    return {
        "case": case.name, "phase": phase, "batch": load[0], "seq_len": load[1], "bytes": moved, "flops": flops,
        "seconds": seconds, "low_seconds": seconds * (1 - spread / 2), "high_seconds": seconds * (1 + spread / 2),
    }  # fmt: skip


def sweep(share: float = 0.8, wobble: float = 0.0, spread: float = 0.0) -> list[dict[str, Any]]:
    """3 µs and the bytes at a share of the read ceiling; every other load off by `wobble`."""
    rows = []
    for i, load in enumerate(LOADS):
        moved = predict.work(FULL, "decode", batch=load[0], seq_len=load[1])[0]
        rows.append(timed(FULL, (3e-6 + moved / (share * 1e12)) * (1 + wobble * (-1) ** i), load, spread))
    return rows


def test_times_of_a_law_are_found_again() -> None:
    (fit,) = judge([FULL], sweep(), CEILINGS)
    assert (fit["case"], fit["phase"], fit["verdict"]) == ("full", "decode", "ok")
    assert fit["model"]["overhead_seconds"] == pytest.approx(3e-6)
    assert fit["model"]["bytes_share"] == pytest.approx(0.8)
    assert fit["worst_error"] < 1e-6
    assert len(fit["judged_loads"]) == fit["num_judged"] == 4
    assert all(tuple(load) in LOADS for load in fit["judged_loads"])
    assert fit["best"]["share_of_memory"] == pytest.approx(0.8, abs=0.01)


def test_times_that_follow_no_law_are_off_unless_they_scatter_themselves() -> None:
    assert judge([FULL], sweep(wobble=0.3), CEILINGS)[0]["verdict"] == "off"
    assert judge([FULL], sweep(wobble=0.3, spread=0.2), CEILINGS)[0]["verdict"] == "inconclusive"


def test_too_few_loads_are_told() -> None:
    (fit,) = judge([FULL], sweep()[:2], CEILINGS)
    assert fit["verdict"] == "info"
    assert "too few" in fit["note"]


def test_a_load_that_failed_counts_for_nothing() -> None:
    rows = [*sweep(), {"case": "full", "phase": "decode", "batch": 1, "seq_len": 9, "failure": {"kind": "MemoryError"}}]
    assert judge([FULL], rows, CEILINGS) == judge([FULL], sweep(), CEILINGS)


def test_tokens_per_second_sum_all_layers() -> None:
    rows = [
        timed(FULL, 1e-4, (4, 1024)),
        timed(FULL, 9e-4, (8, 1024)),
        timed(STATE, 2e-5, (4, 1)),  # a state's step knows no length
    ]
    # 3 · 100 µs + 5 · 20 µs for 4 sequences; there is no state of 8
    assert tokens_per_second([FULL, STATE], rows) == [
        {"batch": 4, "seq_len": 1024, "attention_seconds": pytest.approx(4e-4), "tokens_per_second": pytest.approx(1e4)}
    ]


def test_a_model_of_which_few_layers_were_tried_still_has_all() -> None:
    tried = replace(FULL, num_layers=2, model_layers=30)
    (whole,) = tokens_per_second([tried], [timed(FULL, 1e-4, (4, 1024))])
    assert whole["attention_seconds"] == pytest.approx(3e-3)


def test_variants_against_mha() -> None:
    cases = variants(Load(seq_len=1024))
    memory = {"pools": [{"case": case.name, "pool_bytes": predict.pool_bytes(case)} for case in cases]}
    rows = [timed(case, 1e-4 / (i + 1), (2, 512)) for i, case in enumerate(cases[:4])]
    rows += [timed(cases[0], 5e-4, (4, 512)), timed(cases[-1], 1e-5, (2, 1))]
    found = {one["name"]: one for one in against_mha(cases, {"memory": memory, "throughput": rows})}
    assert found["GQA, 8 KV heads"]["memory_against_mha"] == 4.0
    assert found["MQA"]["decode_speed_against_mha"] == pytest.approx(3.0)
    assert found["MQA"]["decode_load"] == [2, 512]
    assert found["linear, delta rule"]["decode_speed_against_mha"] == pytest.approx(10.0)
    assert found["sparse 256"]["memory_against_mha"] is None  # it keeps nothing
    assert found["sliding 256"]["decode_seconds"] is None
    assert against_mha(cases[1:], {"memory": memory}) == []


def test_flash_against_eager() -> None:
    cases = variants(Load(seq_len=64))
    memory = {"pools": [{"case": case.name, "pool_bytes": predict.pool_bytes(case)} for case in cases]}

    def one(backend: str, num_bytes: int | None, seconds: float | None, keys: int = 64) -> dict[str, Any]:
        shape = {"batch": 1, "queries": 64, "keys": keys}
        return {"case": "MHA", "backend": backend, "bytes": num_bytes, "outside": None, "seconds": seconds} | shape

    calls = [
        one("eager", 8000, 3e-3),
        one("flash", 1000, 1e-3),
        one("eager", 1, 1.0, keys=2),
        one("flash", 1, 1.0, keys=2),
    ]
    found = {entry["name"]: entry for entry in against_mha(cases, {"memory": memory, "transient": calls})}
    assert found["MHA"]["flash_memory_against_eager"] == 8.0
    assert found["MHA"]["flash_speed_against_eager"] == pytest.approx(3.0)
    assert found["MQA"]["flash_memory_against_eager"] is None
    refused = [one("eager", 8000, None), one("flash", None, None)]
    found = {entry["name"]: entry for entry in against_mha(cases, {"memory": memory, "transient": refused})}
    assert found["MHA"]["flash_memory_against_eager"] is None
