"""What all sources share: overrides, origins, quantisation, and one plan for every spelling of a model."""

from dataclasses import replace

import pytest

from kvplan import estimate
from kvplan.core.errors import InputError
from kvplan.core.model import Quantization
from kvplan.sources import catalog
from kvplan.sources.config import apply_overrides, spec_from_raw
from kvplan.sources.quantization import read_quantization
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


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, None),
        ({}, None),
        (
            {"quant_method": "fp8", "weight_block_size": [128, 128]},
            Quantization(method="fp8", bits=8, scale_bits=32, block=(128, 128), understood=True),
        ),
        (
            {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]},
            Quantization(
                method="mxfp4",
                bits=4,
                scale_bits=8,
                block=(1, 32),
                parts=("experts",),
                skip=("self_attn.",),
                understood=True,
            ),
        ),
        ({"quant_method": "gptq", "bits": 4}, Quantization(method="gptq", bits=0, understood=False)),
        ({"load_in_4bit": True}, Quantization(method="unnamed", bits=0, understood=False)),
        ({"quant_method": "fp8", "weight_block_size": ["a", 1]}, Quantization(method="fp8", bits=0, understood=False)),
    ],
    ids=["none", "empty", "fp8", "mxfp4", "gptq", "unnamed", "fp8 of a strange shape"],
)
def test_schemes(raw, expected):
    assert read_quantization({"quantization_config": raw}) == expected


FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
LINEAR = 32 * (4 * 4096**2 + 3 * 4096 * 11008)


@pytest.mark.parametrize(("activations", "num_bytes"), [("dynamic", 4), ("static", 8)])
def test_a_whole_matrix_can_share_one_scale_and_one_of_its_inputs(activations, num_bytes):
    raw = {"quant_method": "fp8", "activation_scheme": activations, "weight_block_size": None}
    model = spec(quantization_config=raw)
    plain = estimate(replace(model, quantization=None))
    assert estimate(model).weights.total_bytes == plain.weights.total_bytes - LINEAR + 32 * 7 * num_bytes


def with_exclusions(names, key="modules_to_not_convert"):
    return estimate(spec(quantization_config=FP8 | {key: names}))


@pytest.mark.parametrize("key", ["modules_to_not_convert", "ignored_layers", "ignore"])
@pytest.mark.parametrize(
    "names",
    [
        ["lm_head", "model.layers.*.mlp.down_proj", "model.layers.0.input_layernorm"],
        ["mlp.down_proj"],
        [f"model.layers.{i}.mlp.down_proj" for i in range(32)],
    ],
    ids=["wildcard", "bare", "every layer by number"],
)
def test_modules_that_are_not_converted_stay_in_the_models_dtype(names, key):
    down, scales = 32 * 4096 * 11008, 32 * 32 * 86 * 4
    fewer = with_exclusions(names, key)
    assert fewer.weights.total_bytes - with_exclusions([]).weights.total_bytes == down - scales
    assert fewer.evidence["weights"] == "exact"


@pytest.mark.parametrize(
    "names",
    [["model.layers.0"], ["model.layers.0.mlp"], ["re:.*self_attn.*"], [7]],
    ids=["one layer", "one layer's part", "a regular expression", "no name"],
)
def test_layers_that_differ_are_an_upper_bound_and_said_so(names):
    plan = with_exclusions(names)
    assert plan.weights.total_bytes == 2 * plan.weights.num_parameters
    assert plan.evidence["weights"] == "assumed"
    assert "quantization-not-modelled" in [warning.code for warning in plan.warnings]


def test_modules_that_hold_nothing_of_the_scheme_do_not_matter():
    assert with_exclusions(["lm_head", "model.embed_tokens", "model.layers.3.input_layernorm"]).weights == (
        with_exclusions([]).weights
    )


def test_a_scheme_that_replaces_nothing_is_not_understood():
    plan = estimate(spec(quantization_config={"quant_method": "mxfp4"}))
    assert plan.evidence["weights"] == "assumed"


def test_the_older_key_is_read_too():
    plan = estimate(spec(compression_config={"quant_method": "compressed-tensors"}))
    assert plan.weights.quantization == "compressed-tensors"


def test_a_scheme_that_is_no_object_is_refused():
    with pytest.raises(InputError):
        read_quantization({"quantization_config": "int4"})
