"""Every file of the catalog is its own test: `expect` was worked out apart from kvplan's own formulas."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest

from kvplan import estimate
from kvplan.core.errors import KvplanError
from kvplan.sources import catalog
from kvplan.sources.class_defaults import class_defaults
from kvplan.sources.facts import Facts
from kvplan.sources.families.table import reader_of
from kvplan.sources.params_json import is_params

ENTRIES = list(catalog.entries())
ABOUT = {"architectures", "model_type", "dtype", "torch_dtype", "quantization_config", "expert_dtype"}
"""What stands in an entry whoever reads it: the class, the dtype and how the weights are stored."""
LINEAGES = """llama mixtral mistral ministral qwen2 qwen3 qwen3_moe qwen3_5 qwen2_5_vl qwen3_vl deepseek_v2 deepseek_v3
    deepseek_v4 kimi glm4 glm4_moe glm_moe_dsa gemma gemma2 gemma3 gemma4 gpt_oss phi granite nemotron minimax falcon
    cohere cohere2 olmo smollm3 exaone jamba t5 bart whisper bert roberta longformer llava mllama internvl llama4 seed_oss lfm2 hunyuan ernie""".split()  # noqa: SIM905


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


def leaves(config: Mapping, prefix: str = "") -> Iterator[str]:
    """The dotted path of every value that is no object."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value and key not in ABOUT:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@pytest.mark.parametrize("entry", [e for e in ENTRIES if not is_params(e.config)], ids=lambda entry: entry.id)
def test_every_key_of_an_entry_is_read(entry):
    """Trimmed to what decides the plan: a key that no reader looks for has no place in a file."""
    config = {**entry.config, **entry.about.get("set", {})}
    defaults = class_defaults(config["model_type"]).at_top()
    facts = Facts(config, model_type=config["model_type"], origin="catalog", defaults=defaults)
    reader_of(facts.model_type)(facts)
    whole = {key for key in facts.asked if not any(other.startswith(f"{key}.") for other in facts.asked)}
    for path in leaves(config):
        parents = {path[:i] for i, char in enumerate(path) if char == "."}
        assert path.rpartition(".")[2] in ABOUT or path in facts.asked or whole & parents, path


def test_no_name_stands_for_two_models():
    names = Counter(name.lower() for entry in ENTRIES for name in (entry.id, *entry.aliases))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_catalog_has_what_people_serve():
    assert len(ENTRIES) >= 400
    types = {catalog.spec_of(entry).model_type for entry in ENTRIES}
    assert [lineage for lineage in LINEAGES if not any(own.startswith(lineage) for own in types)] == []
    schemes = {spec.quantization.method for spec in map(catalog.spec_of, ENTRIES) if spec.quantization}
    assert schemes >= {"awq", "gptq", "fp8", "modelopt", "mxfp4", "compressed-tensors"}


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
