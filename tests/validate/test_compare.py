"""Rows and verdicts: exact, within a tolerance, within a slack, too scattered to say, one side missing."""

from dataclasses import replace
from typing import Any

import pytest

from kvplan.validate import predict
from kvplan.validate.case import Case
from kvplan.validate.compare import Row, compare, overall

CASE = Case(
    name="2 × full", kind="full", num_heads=4, num_kv_heads=2, key_dim=64, value_dim=64, num_layers=2, seq_len=64
)
MIB = 1 << 20


def row(**given: Any) -> Row:
    return Row(**({"section": "memory", "case": "c", "term": "t", "unit": "bytes"} | given))


@pytest.mark.parametrize(
    ("given", "verdict", "error"),
    [
        ({"predicted": 100, "measured": 100}, "ok", 0.0),
        ({"predicted": 99, "measured": 100}, "off", -0.01),
        ({"predicted": 101, "measured": 100}, "off", 0.01),
        ({"predicted": 99, "measured": 100, "tolerance": 0.01}, "ok", -0.01),
        ({"predicted": 98, "measured": 100, "tolerance": 0.01}, "off", -0.02),
        ({"predicted": 90, "measured": 100, "slack": 10}, "ok", -0.1),
        ({"predicted": 89, "measured": 100, "slack": 10}, "off", -0.11),
        ({"predicted": 90, "measured": 100, "tolerance": 0.05, "spread": 0.08}, "inconclusive", -0.1),
        ({"predicted": 90, "measured": 100, "tolerance": 0.05, "spread": 0.04}, "off", -0.1),
        ({"predicted": None, "measured": 100}, "info", None),
        ({"predicted": 100, "measured": None}, "info", None),
        ({"predicted": 0, "measured": 0}, "ok", 0.0),
        ({"predicted": 5, "measured": 0}, "off", None),
    ],
)
def test_verdicts(given: dict[str, Any], verdict: str, error: float | None) -> None:
    found = row(**given)
    assert found.verdict == verdict
    assert found.error == (error if error is None else pytest.approx(error))
    assert found.to_json()["verdict"] == verdict


def verdicts(*rows: Row) -> set[Any]:
    return {one.verdict for one in rows}


def test_overall() -> None:
    ok, off = row(predicted=1, measured=1), row(predicted=1, measured=2)
    unsure, told = row(predicted=1, measured=2, tolerance=0.1, spread=0.2), row(predicted=None, measured=1)
    assert overall(verdicts(ok, told), []) == "ok"
    assert overall(verdicts(ok, off, unsure), []) == "off"
    assert overall(verdicts(ok, unsure), []) == "inconclusive"
    assert overall(verdicts(told), []) == "info"
    assert overall(verdicts(ok), [{"where": "memory"}]) == "off"


def host(**changes: Any) -> dict[str, Any]:
    total = sum(predict.pool_requests([CASE]))
    reading = {
        "points": [{"point": "start", "process": 300 * MIB}, {"point": "run", "process": 300 * MIB + total}],
        "pools": [{"case": CASE.name, "layers": 2, "pages": 4, "pool_bytes": 2 * 64 * 512}],
        "tallied_bytes": total,
    }
    return reading | changes


def test_memory_on_a_cpu() -> None:
    rows = compare([CASE], {"memory": host()})
    assert [(one.term, one.verdict) for one in rows] == [("pools", "ok"), ("requested", "ok"), ("process", "ok")]
    # by hand: 2 layers · 64 tokens · 2 heads · 128 · 2 bytes
    assert rows[0].predicted == 2 * 64 * 512
    lost = compare([CASE], {"memory": host(tallied_bytes=1)})
    assert {one.term: one.verdict for one in lost}["requested"] == "off"
    heavy = host(points=[{"point": "start", "process": 0}, {"point": "run", "process": 70 * MIB}])
    assert {one.term: one.verdict for one in compare([CASE], {"memory": heavy})}["process"] == "off"


def point(name: str, requested: int, allocated: int, reserved: int, process: int | None) -> dict[str, Any]:
    device = None if process is None else process + 500 * MIB
    return {"point": name, "requested": requested, "allocated": allocated, "reserved": reserved,
            "process": process, "device": device}  # fmt: skip


def gpu(**changes: Any) -> dict[str, Any]:
    """Two pools of 32,768 bytes and their tables on a device that had a 32 MiB workspace, all of it in use."""
    held = 32 * MIB
    requested = 2 * (32_768 + 16 + 4)
    allocated = 2 * (32_768 + 512 + 512)
    reading = {
        "points": [
            point("context", 0, 0, 0, 450 * MIB),
            point("warm-up", held, held, held, 490 * MIB),
            point("pool", held + requested, held + allocated, held + 2 * MIB, 492 * MIB),
            point("run", held + requested, held + allocated, held + 4 * MIB, 494 * MIB),
            point("graphs", held + requested, held + allocated, held + 6 * MIB, 500 * MIB),
        ],
        "pools": [{"case": CASE.name, "layers": 2, "pages": 4, "pool_bytes": 65_536}],
        "free_blocks": {"small": [], "large": []},
        "workspaces": [{"case": CASE.name, "splits": 2, "bytes": 4 * (128 + 2 * 66 * 4)}],
        "device_bytes_before": 500 * MIB,
    }
    return reading | changes


def test_memory_on_a_gpu() -> None:
    rows = compare([CASE], {"memory": gpu()})
    verdicts = {one.term: one.verdict for one in rows}
    assert verdicts == {
        "pools": "ok", "requested": "ok", "allocated": "ok", "reserved": "ok", "decode workspace": "ok",
        "left by a run": "ok", "context": "info", "total": "ok", "graphs": "info",
    }  # fmt: skip
    found = {one.term: one for one in rows}
    assert found["reserved"].predicted == 2 * MIB
    # once warm, 490 MiB less the 32 that torch reserves; it is the base of the total: 458 + 32 + 2
    assert found["context"].measured == 458 * MIB
    assert (found["total"].predicted, found["total"].measured) == (492 * MIB, 492 * MIB)


def test_a_context_is_judged_by_an_earlier_record() -> None:
    near = compare([CASE], {"memory": gpu(expected_context_bytes=440 * MIB, expected_context_note="a record")})
    far = compare([CASE], {"memory": gpu(expected_context_bytes=300 * MIB)})
    assert [{one.term: one.verdict for one in rows}["context"] for rows in (near, far)] == ["ok", "off"]


def test_a_container_hides_the_process_and_the_device_tells() -> None:
    hidden = gpu()
    for one in hidden["points"]:
        one["process"] = None
    found = {one.term: one for one in compare([CASE], {"memory": hidden})}
    assert found["total"].measured == 492 * MIB


def test_a_leak_shows() -> None:
    leaking = gpu()
    leaking["points"][3]["requested"] += 7
    assert {one.term: one.verdict for one in compare([CASE], {"memory": leaking})}["left by a run"] == "off"


def test_correctness() -> None:
    base = {"case": CASE.name, "phase": "decode", "tolerance": 0.01, "failure": None}
    fine, wrong, broken, skipped = compare(
        [CASE],
        {
            "correctness": [
                base | {"error": 0.004},
                base | {"error": 0.04},
                base | {"error": None, "failure": {"kind": "RuntimeError", "message": "no"}},
                {"case": CASE.name, "phase": "decode", "skipped": "this device has no such type"},
            ]
        },
    )
    assert [one.verdict for one in (fine, wrong, broken, skipped)] == ["ok", "off", "info", "info"]
    assert broken.note == "RuntimeError: no"


def test_transient() -> None:
    def found(backend: str, **given: Any) -> dict[str, Any]:
        shape = {"batch": 1, "queries": 8, "keys": 8}
        return {"case": CASE.name, "backend": backend, "bytes": None, "outside": None, "refused": None} | shape | given

    eager = predict.call_bytes(CASE, "eager", batch=1, queries=8, keys=8)
    rows = compare(
        [CASE],
        {
            "transient": [
                found(
                    "eager", bytes=eager + 999_999, outside=eager
                ),  # on a CPU the operators' own buffers are left out
                found("eager", bytes=eager),  # on a GPU the allocator's word counts
                found("math", bytes=1, outside=2),
                found("flash", refused="no such head"),
            ]
        },
    )
    assert [one.verdict for one in rows] == ["ok", "ok", "off", "info"]
    assert rows[2].measured == 1
    assert rows[3].note == "1 × 8 × 8; torch refuses: no such head"


def test_keys_that_a_gpu_splits_are_not_judged() -> None:
    """A decode step of flash attention on a GPU holds partial sums too; a call that fills the GPU does not."""

    def verdict(batch: int, queries: int) -> str:
        shape = {"batch": batch, "queries": queries, "keys": 4096}
        found = {"case": CASE.name, "backend": "flash", "bytes": 1, "outside": None, "refused": None} | shape
        return compare([CASE], {"transient": [found]})[0].verdict

    assert verdict(1, 1) == verdict(127, 64) == "info"
    assert verdict(128, 64) == "off"  # 128 · 4 heads · one block


def test_work_is_counted_twice() -> None:
    timed = {"case": CASE.name, "phase": "decode", "batch": 2, "seq_len": 100, "seconds": 1e-5}
    right = timed | {"bytes": 2 * 100 * 512, "flops": 2 * 4 * 100 * 256}
    rows = compare([CASE], {"throughput": [right, right | {"flops": 1}, timed | {"failure": {"kind": "x"}}]})
    assert [one.verdict for one in rows] == ["ok", "ok", "ok", "off"]


def test_a_frameworks_cache_kind_by_kind() -> None:
    sliding = replace(CASE, name="1 × sliding", kind="sliding", num_layers=1, window=10)
    full = {"tensor_bytes": 2 * 3 * 40 * 512, "storage_bytes": 2 * 3 * 40 * 512}
    # W − 1 tokens are kept, but as a view of the whole prompt; one token later, of the W that were joined
    slice_of_prompt = {"tensor_bytes": 3 * 9 * 512, "storage_bytes": 3 * 40 * 512}
    slice_of_window = {"tensor_bytes": 3 * 9 * 512, "storage_bytes": 3 * 10 * 512}
    grown = {"tensor_bytes": 2 * 3 * 41 * 512, "storage_bytes": 2 * 3 * 41 * 512}
    reading = {
        "framework": "transformers", "version": "5.23.0", "cache_class": "DynamicCache", "model_class": "M",
        "batch": 3, "seq_len": 40, "encoder_seq_len": None,
        "kinds": {"full": full, "sliding": slice_of_prompt, "linear": {"tensor_bytes": 7, "storage_bytes": 7}},
        "after_decode": {"kinds": {"full": grown, "sliding": slice_of_window}},
    }  # fmt: skip
    # of which one layer of two was tried, in fp8: the framework holds both, in the model's own type
    shrunk = replace(CASE, num_layers=1, model_layers=2, kv_dtype="fp8")
    rows = compare([shrunk, sliding], {"framework": reading})
    assert [(one.case, one.term) for one in rows if one.verdict == "off"] == [
        ("linear", "after the prompt"),  # held, and not planned
        ("linear", "storage after the prompt"),
    ]
    assert sum(one.verdict == "ok" for one in rows) == 8


def test_a_failed_job_has_no_rows() -> None:
    assert compare([CASE], {"memory": {"failure": {"kind": "crash", "message": "x"}}}) == []
