"""Every text-generating model type of transformers, against what its class builds: its defaults, and each key changed.

`tests/data/truth/types.jsonl` is written by `make_types.py` beside it. A change that kvplan refuses is no wrong number;
the page of the families says how many there are.
"""

import pytest

from kvplan.sources.families.table import READERS
from tests.data.truth import make_page
from tests.data.truth.type_check import load_rows, outcome
from tests.data.truth.type_exceptions import CACHE, NOT_READ, PARAMETERS

ROWS = load_rows()
READ = sorted(ROWS.keys() & READERS.keys())


def test_every_type_is_read_or_named():
    assert set(ROWS) - set(READERS) == set(NOT_READ)
    assert len(ROWS) >= 297


@pytest.mark.parametrize("model_type", READ)
def test_the_defaults_come_out_equal(model_type):
    row = ROWS[model_type][0]
    found = outcome(row)
    assert "changes" not in row
    assert found.refusal is None or "error" in row
    if found.parameters and model_type not in PARAMETERS:
        assert found.parameters[0] == found.parameters[1]
    if found.caches and model_type not in CACHE:
        for length, (ours, theirs) in found.caches.items():
            assert ours == theirs, length


@pytest.mark.parametrize("model_type", READ)
def test_a_changed_key_changes_the_same_figures(model_type):
    """What a reader refuses is told as such; what it answers is what the class builds."""
    for row in ROWS[model_type][1:]:
        found = outcome(row)
        if found.refusal is not None:
            assert found.refusal.hint, row["changes"]
            continue
        if model_type not in PARAMETERS:
            assert found.equal_parameters, (row["changes"], found.parameters)
        if found.caches and model_type not in CACHE:
            assert found.equal_cache, (row["changes"], found.caches)


@pytest.mark.parametrize("model_type", sorted({*PARAMETERS, *CACHE}))
def test_an_exception_is_one(model_type):
    """An exception that has come out equal is taken off the list."""
    found = [outcome(row) for row in ROWS[model_type]]
    if model_type in PARAMETERS:
        assert any(each.parameters and not each.equal_parameters for each in found)
    if model_type in CACHE:
        assert any(each.caches and not each.equal_cache for each in found)


def test_the_page_says_what_the_rows_say():
    assert make_page.PAGE.read_text(encoding="utf-8") == make_page.page(ROWS)
