"""What all sources share: overrides, origins, and one plan for every spelling of a model."""

from kvplan import estimate
from kvplan.sources import catalog
from kvplan.sources.config import apply_overrides, spec_from_raw
from tests.models import HERE, LLAMA, spec


def test_a_text_model_gives_the_same_plan_flat_and_nested():
    nested = next(entry for entry in catalog.entries() if entry.id == "google/gemma-3-27b-it")
    inner = {**nested.config["text_config"], "vocab_size": 262208, "torch_dtype": "bfloat16"}
    flat = spec({**inner, "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"]})
    whole = estimate(catalog.spec_of(nested), seq_len=5000)
    alone = estimate(flat, seq_len=5000)
    assert alone.kv_cache == whole.kv_cache
    vision = whole.weights.parts["vision"]
    assert alone.weights.num_parameters == whole.weights.num_parameters - vision.parameters
    assert alone.weights.parts == {name: part for name, part in whole.weights.parts.items() if name != "vision"}


def test_overrides_are_json_where_they_are_json():
    config, origins = apply_overrides(
        {"a": 1, "inner": {"b": 2}}, {"a": "2.5", "flag": "true", "name": "gelu", "inner.b": "null", "new.c": "[1]"}
    )
    assert config == {"a": 2.5, "flag": True, "name": "gelu", "inner": {"b": None}, "new": {"c": [1]}}
    assert set(origins.values()) == {"--set"}


def test_overrides_leave_the_callers_config_alone():
    raw = {"inner": {"b": 2}}
    apply_overrides(raw, {"inner.b": "3"})
    assert raw == {"inner": {"b": 2}}


def test_every_fact_says_where_it_is_from():
    model = spec_from_raw(LLAMA, id="x", source=HERE, overrides={"num_key_value_heads": "8"})
    origins = {fact.key: fact.origin for fact in model.facts}
    assert origins["hidden_size"] == "config.json"
    assert origins["num_key_value_heads"] == "--set"
    assert origins["mlp_bias"].startswith("class default (transformers")
