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
            Quantization(method="mxfp4", bits=4, scale_bits=8, block=(1, 32), parts=("experts",), understood=True),
        ),
        ({"quant_method": "gptq", "bits": 4}, Quantization(method="gptq", bits=0, understood=False)),
        ({"load_in_4bit": True}, Quantization(method="unnamed", bits=0, understood=False)),
        ({"quant_method": "fp8", "weight_block_size": ["a", 1]}, Quantization(method="fp8", bits=0, understood=False)),
    ],
    ids=["none", "empty", "fp8", "mxfp4", "gptq", "unnamed", "fp8 of a strange shape"],
)
def test_schemes(raw, expected):
    assert read_quantization({"quantization_config": raw}) == expected


def test_a_whole_matrix_can_share_one_scale():
    model = spec(quantization_config={"quant_method": "fp8", "activation_scheme": "static"})
    plain = estimate(replace(model, quantization=None))
    linear = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert estimate(model).weights.total_bytes == plain.weights.total_bytes - linear + 32 * 7 * 4


def test_modules_that_are_not_converted_stay_in_the_models_dtype():
    names = ["lm_head", "model.layers.0.mlp.down_proj", "model.layers.0.input_layernorm"]
    config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    all_of_them, fewer = (
        estimate(spec(quantization_config=config | more)) for more in ({}, {"modules_to_not_convert": names})
    )
    down = 32 * 4096 * 11008
    assert fewer.weights.total_bytes - all_of_them.weights.total_bytes == down - 32 * 32 * 86 * 4


def test_a_scheme_that_is_no_object_is_refused():
    with pytest.raises(InputError):
        read_quantization({"quantization_config": "int4"})
