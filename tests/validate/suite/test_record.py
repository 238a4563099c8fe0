"""A record is written whole, read back as it was, and refused if it is another's."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvplan.validate.suite.device import describe
from kvplan.validate.suite.record import SCHEMA, Record, RecordError, plain, read_record
from kvplan.validate.suite.timing import Failure, Timing


@dataclass
class Row:
    name: str
    timing: Timing | Failure


def full_record():
    return Record(
        device=describe("cpu"),
        correctness=[{"kernel": "decode", "error": 1e-3, "passed": True}],
        ceilings={"read": 1e12, "copy": None},
        sweep=[Row("fast", Timing.of([1.0, 2.0], calls=2, input_sets=1))],
        benchmarks=[Row("other", Failure("RuntimeError", "no kernel", ("a note",)))],
        failures=[],
        total_seconds=12.5,
    )


def test_read_back_as_it_was(tmp_path):
    path = tmp_path / "new" / "record.json"
    full_record().write(path)
    found = read_record(path)
    assert found.sweep[0]["timing"]["median_seconds"] == 0.75
    assert found.benchmarks == [{"name": "other", "timing": plain(Failure("RuntimeError", "no kernel", ("a note",)))}]
    assert found.to_json() == path.read_text(encoding="utf-8")


def test_the_blocks_stand_in_order():
    blocks = ["device", "correctness", "ceilings", "sweep", "benchmarks", "failures", "total_seconds"]
    assert list(json.loads(full_record().to_json())) == ["schema", *blocks]


def test_rows_keep_their_order():
    assert list(plain({"b": {"d": 1, "c": 2}, "a": 3})["b"]) == ["d", "c"]
    assert next(iter(plain(Timing.of([1.0], 1, 1)))) == "median_seconds"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_whatever_json_can_say_survives(value):
    assert json.loads(Record(device={"value": value}).to_json())["device"]["value"] == plain(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_null(value):
    assert plain([value, {"a": value}]) == [None, {"a": None}]


@pytest.mark.parametrize("value", [torch.float16, {1, 2}, Path("x"), Timing, {1: 2}, 1j], ids=repr)
def test_nothing_is_written_as_its_repr(value):
    with pytest.raises(TypeError):
        Record(device={}, sweep=[value]).to_json()


def test_a_run_that_is_cut_off_leaves_the_file_of_before(tmp_path):
    path = tmp_path / "record.json"
    full_record().write(path)
    before = path.read_text(encoding="utf-8")
    with pytest.raises(TypeError):
        Record(device=object()).write(path)
    assert path.read_text(encoding="utf-8") == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.pop("schema"), "has the schema `None`"),
        (lambda found: found.update(schema="kvplan/kernels/2"), "has the schema `kvplan/kernels/2`"),
        (lambda found: found.pop("sweep"), "lacks these blocks, or has them too many: sweep"),
        (lambda found: found.update(extra=1), "extra"),
        (lambda found: found.update(sweep={}), "`sweep` of .* is a dict"),
        (lambda found: found.update(device=None), "`device` of .* is a NoneType"),
        (lambda found: found.update(total_seconds="12"), "`total_seconds` of .* is a str"),
    ],
)
def test_another_file_is_refused(change, said, tmp_path):
    path = tmp_path / "record.json"
    found = json.loads(full_record().to_json())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(RecordError, match=said):
        read_record(path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", full_record().to_json().replace("12.5", "NaN")],
    ids=["empty", "a list", "cut off", "NaN"],
)
def test_what_is_no_record_is_refused(text, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(RecordError):
        read_record(path)


def test_the_schema_is_named():
    assert SCHEMA == "kvplan/kernels/1"
