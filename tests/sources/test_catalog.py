"""Every file of the catalog is its own test: `expect` was worked out apart from kvplan's own formulas."""

import json

import pytest

from kvplan import estimate
from kvplan.core.errors import KvplanError
from kvplan.sources import catalog

ENTRIES = list(catalog.entries())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_an_entry_gives_what_it_expects(entry):
    model = catalog.spec_of(entry)
    expect = dict(entry.about["expect"])
    assert estimate(model).weights.num_parameters == expect.pop("parameters")
    assert estimate(model, seq_len=1).kv_cache.bytes_per_token == expect.pop("kv_bytes_per_token")
    assert expect, "no figure at a length"
    for key, num_bytes in expect.items():
        num_tokens = int(key.removeprefix("kv_bytes_at_"))
        assert estimate(model, seq_len=num_tokens).kv_cache.needed_bytes == num_bytes


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_an_entry_says_where_it_comes_from(entry):
    assert entry.about["source"]
    assert entry.about["checked"]
    assert set(entry.about) <= {"source", "revision", "checked", "aliases", "gated", "set", "expect"}
    model = catalog.spec_of(entry)
    assert model.source.kind == "catalog"
    assert model.source.location == entry.about["source"]


def test_the_index_is_fresh():
    assert (catalog.root() / catalog.INDEX).read_text() == catalog.index_text()


def test_names_are_found_whatever_their_case():
    upper = catalog.load("META-LLAMA/LLAMA-2-70B")
    assert upper is not None
    assert upper.id == "meta-llama/Llama-2-70b"
    assert catalog.load("meta-llama/Llama-99") is None


def test_an_alias_keeps_its_own_name_and_says_what_it_stands_on():
    model = catalog.load("meta-llama/Llama-3.1-8B-Instruct")
    assert model is not None
    assert model.id == "meta-llama/Llama-3.1-8B-Instruct"
    assert "meta-llama/Llama-3.1-8B" in model.source.notes[0]


def test_a_short_name_is_enough_where_only_one_model_has_it():
    model = catalog.load("gpt-oss-20b")
    assert model is not None
    assert model.id == "openai/gpt-oss-20b"


def test_a_slip_of_the_pen_is_understood():
    assert "meta-llama/Llama-2-70b" in catalog.suggest("meta-lama/llama2-70b")
    assert catalog.suggest("zzzzzzzzzzzz") == []


def test_facts_that_the_repository_leaves_out_say_so():
    model = catalog.load("meta-llama/Llama-2-70b")
    assert model is not None
    origins = {fact.key: fact.origin for fact in model.facts}
    assert origins["vocab_size"].startswith("catalog (")
    assert origins["hidden_size"] == "catalog"


def test_a_user_may_set_a_fact():
    model = catalog.load("meta-llama/Llama-2-70b", {"vocab_size": "32016"})
    assert model is not None
    assert model.vocab_size == 32016
    assert {fact.key: fact.origin for fact in model.facts}["vocab_size"] == "--set"


def test_one_name_for_two_models_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    for name in ("x", "y"):
        content = {"model_type": "llama", "kvplan": {"aliases": ["a/same"]}}
        (tmp_path / "a" / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.setattr(catalog, "root", lambda: tmp_path)
    with pytest.raises(KvplanError, match="claimed twice"):
        catalog.build_index()
