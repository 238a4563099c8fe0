"""Every text-generating model type of transformers, against what its class builds: its defaults, and each key changed.

`tests/data/truth/types.jsonl` is written by `make_types.py` beside it. A change that kvplan refuses is no wrong number;
the page of the families says how many there are.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from family_rows import read

from kvplan.core.cache import caches_of
from kvplan.core.dtypes import BF16
from kvplan.core.engines.transformers import TRANSFORMERS
from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.model import ModelSpec
from kvplan.core.weights import num_parameters
from kvplan.sources.families.table import READERS
from tests.data.truth.type_exceptions import CACHE, NOT_READ, PARAMETERS
from tests.data.truth.type_rows import changed, default_config

TRUTH = Path(__file__).parent.parent / "data" / "truth" / "types.jsonl"
ROWS: dict[str, list[dict[str, Any]]] = defaultdict(list)
for _row in map(json.loads, TRUTH.read_text().splitlines()):
    ROWS[_row["model_type"]].append(_row)
READ = sorted(ROWS.keys() & READERS.keys())


def config_of(row: dict[str, Any]) -> dict[str, Any]:
    return changed(default_config(row["model_type"], row["class"]), row.get("changes", {}))


def held(spec: ModelSpec, tokens: int) -> dict[str, list[list[int]]]:
    """[count, bytes] of every run of equal layers, a decoder's own caches and those across apart."""
    sizes: dict[str, list[int]] = {"self": [], "cross": []}
    for index in spec.layer_order:
        layer = spec.layers[index]
        if layer.in_encoder:
            continue
        own = across = 0
        for mixer, needed in caches_of(layer, BF16):
            cache = TRANSFORMERS.reserve(needed, mixer)
            if not cache.over_encoder:
                own += cache.bytes_for(tokens)
            elif getattr(mixer, "over", "encoder") == "encoder":
                across += cache.bytes_for(spec.encoder_seq_len or tokens)
        sizes["self"].append(own)
        sizes["cross"].append(across)
    return {name: without_end(run_lengths(found)) for name, found in sizes.items()}


def without_end(runs: list[list[int]]) -> list[list[int]]:
    """Without layers at the end that keep nothing: not every class gives them a place in its cache."""
    return runs[:-1] if runs and runs[-1][1] == 0 else runs


def run_lengths(sizes: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for size in sizes:
        if runs and runs[-1][1] == size:
            runs[-1][0] += 1
        else:
            runs.append([1, size])
    return runs


def ended(caches: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
    return {name: without_end(runs) for name, runs in caches.items()}


def test_every_type_is_read_or_named():
    assert set(ROWS) - set(READERS) == set(NOT_READ)
    assert not set(NOT_READ) & set(READERS)
    assert len(ROWS) >= 297


@pytest.mark.parametrize("model_type", READ)
def test_the_defaults_come_out_equal(model_type):
    row = ROWS[model_type][0]
    assert "changes" not in row
    spec = read(config_of(row))
    if "error" in row:
        return
    if model_type not in PARAMETERS:
        assert num_parameters(spec) == row["num_parameters"]
    if model_type not in CACHE:
        for length, expected in row.get("cache", {}).items():
            found = held(spec, int(length))
            assert {name: found[name] for name in expected} == ended(expected), length


@pytest.mark.parametrize("model_type", READ)
def test_a_changed_key_changes_the_same_figures(model_type):
    """What a reader refuses is told as such; what it answers is what the class builds."""
    for row in ROWS[model_type][1:]:
        try:
            spec = read(config_of(row))
        except (InputError, UnsupportedError) as error:
            assert error.hint
            continue
        if model_type not in PARAMETERS:
            assert num_parameters(spec) == row["num_parameters"], row["changes"]
        if model_type not in CACHE:
            for length, expected in row.get("cache", {}).items():
                found = held(spec, int(length))
                assert {name: found[name] for name in expected} == ended(expected), row["changes"]


@pytest.mark.parametrize("model_type", sorted(PARAMETERS))
def test_an_exception_is_one(model_type):
    """An exception that has come out equal is taken off the list."""
    rows = [row for row in ROWS[model_type] if "num_parameters" in row]
    assert any(num_parameters(read(config_of(row))) != row["num_parameters"] for row in rows)
