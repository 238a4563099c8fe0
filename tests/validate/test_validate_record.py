"""Records as files, and every shipped one judged again by today's prediction."""

import json
from pathlib import Path
from typing import Any

import pytest

import kvplan
from kvplan.core.errors import InputError
from kvplan.report.text import draw
from kvplan.report.validation import validation_page
from kvplan.validate import record, shipped

SHIPPED = sorted(
    path
    for path in (Path(kvplan.__file__).parent / "validate" / "records").glob("*.json")
    if path.name != "devices.json"
)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_todays_prediction_reproduces_a_shipped_record(path: Path) -> None:
    document = record.read(path)
    today = record.recompute(document)
    assert today == {key: document[key] for key in today}
    assert document["verdict"] in ("ok", "inconclusive")


def test_a_record_is_written_whole_and_read_back(tmp_path: Path) -> None:
    document: dict[str, Any] = {"schema": record.SCHEMA, "name": "x", "rows": []}
    path = tmp_path / "new folder" / "x.json"
    record.write(document, path)
    assert record.read(path) == document
    assert [child.name for child in path.parent.iterdir()] == ["x.json"]
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        record.write(document, tmp_path / "folder.json")
    assert sorted(child.name for child in tmp_path.iterdir()) == ["folder.json", "new folder"]  # nothing half-written


def test_what_cannot_be_written_leaves_the_file_of_before(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    record.write({"schema": record.SCHEMA}, path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.write({"schema": record.SCHEMA, "bad": float("nan")}, path)
    assert record.read(path) == {"schema": record.SCHEMA}


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        record.write({"schema": record.SCHEMA}, tmp_path / "file" / "x.json")


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"schema": "kvplan/estimate/1"})])
def test_a_file_that_is_no_record(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"x\.json"):
        record.read(path)


def test_a_name_says_device_model_and_day() -> None:
    device = {"name": "NVIDIA H100 80GB HBM3", "date": "2026-01-02T03:04:05+00:00"}
    document: dict[str, Any] = {"device": device, "name": "a/B-8.1b", "inputs": {"level": "quick"}}
    assert record.file_name(document) == "nvidia-h100-80gb-hbm3--a-b-8.1b--2026-01-02t03-04-05.json"
    ranks = document | {"inputs": {"tp": 2, "pp": 1, "cp": 1}}
    assert record.file_name(ranks) == "nvidia-h100-80gb-hbm3--a-b-8.1b--tp2--pp1--cp1--2026-01-02t03-04-05.json"


def test_the_page_shows_what_the_records_say() -> None:
    documents = [record.read(path) for path in shipped.paths()]
    assert shipped.PAGE.read_text(encoding="utf-8") == shipped.into_page(shipped.table(documents))


def test_at_least_twenty_models_of_every_kind_of_layer_are_shipped() -> None:
    documents = [record.read(path) for path in shipped.paths()]
    kinds = {case["kind"] for document in documents for case in document["cases"]}
    assert kinds == {"full", "sliding", "latent", "cross", "encoder", "linear", "sparse"}
    assert len({document["name"] for document in documents}) >= 20


def test_the_page_shows_a_whole_answer_as_it_is_printed() -> None:
    shown = draw(validation_page(record.read(shipped.FOLDER / "cpu-gpt-oss-120b.json")), color=False)
    assert f"```text\n{shown.rstrip()}\n```" in shipped.PAGE.read_text(encoding="utf-8")


def test_what_counts_as_a_failure() -> None:
    def one(kind: str, **more: Any) -> dict[str, Any]:
        return {"failure": {"kind": kind, "message": "said"}} | more

    readings = {
        "memory": one("Unsupported"),
        "correctness": [one("RuntimeError", case="c", phase="decode"), {"failure": None}],
        "throughput": [one("MemoryError", case="c"), one("not run", case="c"), one("Unsupported", case="c")],
        "ranks": {"checks": [one("Wrong", case="d"), {"failure": None}]},
    }
    assert [(found["where"], found["kind"]) for found in record._failures(readings)] == [
        ("memory", "Unsupported"), ("correctness, c, decode", "RuntimeError"), ("ranks, d", "Wrong"),
    ]  # fmt: skip
