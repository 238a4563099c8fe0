"""How checkpoints store weights: against the schemes' own packages, real files, numbers worked by hand, and laws."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan import estimate
from kvplan.core.dtypes import BF16
from kvplan.core.errors import InputError
from kvplan.core.model import Layer, ModelSpec, Quantization, Weight
from kvplan.core.stored import StoredFormat, StoredTensor
from kvplan.core.weights import all_weights, computed_weight_bytes, num_parameters, stored_as, weight_bytes
from kvplan.sources.config import spec_from_raw
from kvplan.sources.families.parts import Reading
from kvplan.sources.quantization import apply_quantization, with_side_file
from kvplan.sources.quantization.modules import Module, Names
from tests.models import HERE, LLAMA, spec

DATA = Path(__file__).parents[1] / "data" / "quantization"
STORED = [json.loads(line) for line in (DATA / "stored.jsonl").read_text().splitlines()]
TOTALS = [json.loads(line) for line in (DATA / "totals.jsonl").read_text().splitlines()]


def marked(config: dict[str, Any], *weights: Weight, layers: int = 1) -> tuple[list[Layer], Quantization | None]:
    layer = Layer(mixers=(), weights=weights)
    reading = Reading(hidden_size=1, vocab_size=1, layers=[layer] * layers, embeddings=(), head=())
    found, quantization = apply_quantization(reading, {"quantization_config": config}, BF16)
    return found.layers, quantization


def matrix(rows: int, columns: int, name: str = "mlp.down_proj.weight", part: Any = "mlp", **more: Any) -> Weight:
    return Weight(name=name, shape=(rows, columns), part=part, linear=True, **more)


def stored_bytes(config: dict[str, Any], weight: Weight) -> int:
    [layer], quantization = marked(config, weight)
    return weight_bytes(layer.weights[0], BF16, quantization)


def by_name(model: ModelSpec) -> dict[str, str]:
    """The format of each linear layer; of a layer's with the layer's number."""
    found = {}
    for i, index in enumerate(model.layer_order):
        for weight in model.layers[index].weights:
            stored = stored_as(weight, model.quantization)
            found[f"{i}.{weight.name.removesuffix('.weight')}"] = stored.name if stored else "plain"
    for weight in (*model.embeddings, *model.head):
        stored = stored_as(weight, model.quantization)
        found[weight.name.removesuffix(".weight")] = stored.name if stored else "plain"
    return found


def total(model: ModelSpec) -> int:
    return computed_weight_bytes(model, model.dtype or BF16, model.quantization)


# Against the packages that write the tensors, as recorded by tests/data/quantization/make_stored.py.


@pytest.mark.parametrize("row", STORED, ids=[f"{row['package']} {row['rows']} {i}" for i, row in enumerate(STORED)])
def test_a_matrix_weighs_what_the_schemes_own_package_stores(row):
    found = stored_bytes(row["config"], matrix(row["rows"], row["columns"]))
    # A nested scale's offset is written as text, 17 significant digits more or less.
    assert abs(found - row["bytes"]) <= (3 if "nested_absmax" in str(row["tensors"]) else 0)


# Against the files of repositories.


@pytest.mark.parametrize("row", TOTALS, ids=[row["repository"] for row in TOTALS])
def test_a_repository_weighs_what_its_index_says(row):
    model = spec_from_raw(row["config"], id="x", source=HERE)
    assert row["total_size"] - total(model) == row["differs_by"], row["because"]


# By hand. A layer of Llama-2-7B: four matrices of 4096 × 4096, two of 11008 × 4096, one of 4096 × 11008.

SHAPES = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]
LINEAR = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
REST = 2 * (2 * 32000 * 4096 + 32 * 2 * 4096 + 4096)


@pytest.mark.parametrize(
    ("config", "per_matrix"),
    [
        # AutoAWQ: 4 bits, an fp16 scale and a 4-bit zero point per 128.
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, lambda r, c: r * c // 2 + r * c // 128 * 5 // 2),
        # AutoGPTQ adds an int32 per input.
        ({"quant_method": "gptq", "bits": 4}, lambda r, c: r * c // 2 + r * c // 128 * 5 // 2 + 4 * c),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, lambda r, c: r * c + 3 * r + 4 * c),
        # 3 bits: 32 elements in three words, scales and zero points as ever.
        ({"quant_method": "gptq", "bits": 3}, lambda r, c: r * c * 3 // 8 + r * c // 128 * 19 // 8 + 4 * c),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, lambda r, c: r * c // 2 + r * c // 64),
        # 11008 inputs are 86 groups, which GEMV pads to 11 words of 8; 4096 are 32.
        (
            {"quant_method": "awq", "version": "gemv"},
            lambda r, c: r * c // 2 + r * {4096: 32, 11008: 88}[c] * 5 // 2,
        ),
        ({"quant_method": "auto-round", "bits": 4}, lambda r, c: r * c // 2 + r * c // 128 * 5 // 2),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, lambda r, c: r * c + 4 * r + 1),
        ({"quant_method": "fbgemm_fp8"}, lambda r, c: r * c + 4 * r),
        ({"quant_method": "blockwise_int8", "weight_block_size": [128, 128]}, lambda r, c: r * c + r * c // 4096),
        ({"quant_method": "mxfp8"}, lambda r, c: r * c + r * c // 32),
        ({"quant_algo": "W4A16_NVFP4", "ignore": ["lm_head"]}, lambda r, c: r * c // 2 + r * c // 16 + 4),
        ({"quant_method": "exl2", "bits": 4.5, "head_bits": 16}, lambda r, c: r * c * 9 // 16),
    ],
    ids=str,
)
def test_bytes_by_hand(config, per_matrix):
    model = spec(quantization_config=config)
    assert model.quantization.understood
    assert total(model) == REST + 32 * sum(per_matrix(rows, columns) for rows, columns in SHAPES)
    assert num_parameters(model) == num_parameters(spec())


def test_what_hangs_over_an_edge_has_a_scale_too():
    assert stored_bytes({"quant_method": "fp8", "weight_block_size": [128, 128]}, matrix(129, 1)) == 129 + 2 * 4


def test_the_pieces_of_a_fused_matrix_share_what_all_rows_share():
    config = {"quant_method": "gptq", "bits": 4}
    pieces = [matrix(256, 128, f"self_attn.qkv_proj.weight[{piece}]", "attention") for piece in "qkv"]
    [layer], quantization = marked(config, *pieces)
    fused = sum(weight_bytes(weight, BF16, quantization) for weight in layer.weights)
    assert fused == stored_bytes(config, matrix(3 * 256, 128))


def test_experts_hold_a_scale_each():
    one = stored_bytes({"quant_algo": "NVFP4"}, matrix(64, 64, part="experts"))
    assert stored_bytes({"quant_algo": "NVFP4"}, matrix(64, 64, part="experts", copies=8)) == 8 * one


def test_a_rank_holds_its_share_of_everything_beside_the_weights():
    model = spec(quantization_config={"quant_method": "awq", "bits": 4, "group_size": 128})
    whole, half = (estimate(model, tp=tp).per_gpu[0].weights_bytes for tp in (1, 2))
    norms = 2 * (32 * 2 * 4096 + 4096)
    assert 2 * (half - norms) == whole - norms


# Which modules.


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [
        ("lm_head", {"lm_head"}),
        ("model.lm_head", {"lm_head"}),
        ("self_attn", {"3.q", "12.q", "tower"}),
        ("model.layers.3.self_attn.q_proj", {"3.q"}),
        ("language_model.model.layers.3", {"3.q", "3.gate", "3.expert"}),
        ("model.layers.1*", {"12.q"}),
        ("model.layers.3.*", {"3.q", "3.gate", "3.expert"}),
        ("model.layers.*.self_attn", {"3.q", "12.q"}),
        ("backbone.layers.3.mlp*", {"3.gate", "3.expert"}),
        ("mlp.gate", {"3.gate"}),
        ("gate", {"3.gate"}),
        ("re:.*mlp.gate$", {"3.gate"}),
        ("re:.*self_attn.*", {"3.q", "12.q", "tower"}),
        (r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", set()),
        (r"re:.*experts\.\d+\.gate_proj$", {"3.expert"}),
        ("re:model\\.layers\\.3\\..*", {"3.q", "3.gate", "3.expert"}),
        ("model.layers.3.mlp.experts", {"3.expert"}),
        ("model.layers.3.mlp.experts.0.gate_proj", {"3.expert"}),
        ("visual", {"tower"}),
        ("model.vision_tower", {"tower"}),
        ("vision_tower*", {"tower"}),
        ("*vision_tower*", {"tower"}),
        ("re:vision_model.*", {"tower"}),
        ("vision_model.model.layers.0.self_attn.q_proj", {"tower"}),
        ("multi_modal_projector", {"projector"}),
        ("mm_projector*", {"projector"}),
        ("mtp.layers.3*", set()),
        ("model.layers.3.input_layernorm", set()),
        ("model.layers.33", set()),
    ],
)
def test_patterns_cover_what_they_name(pattern, covered):
    modules = {
        "3.q": Module("self_attn.q_proj", "attention", "linear", 3, 1, 1, 16),
        "12.q": Module("self_attn.q_proj", "attention", "linear", 12, 1, 1, 16),
        "3.gate": Module("mlp.gate", "router", "router", 3, 1, 1, 16),
        "3.expert": Module("mlp.experts.gate_proj", "experts", "linear", 3, 1, 1, 16),
        "lm_head": Module("lm_head", "head", "head", None, 1, 1, 16),
        "tower": Module("vision_tower.encoder.layers.*.self_attn.q_proj", "vision", "tower", None, 1, 1, 16),
        "projector": Module("multi_modal_projector.linear_1", "vision", "tower", None, 1, 1, 16),
    }
    names = Names([pattern])
    assert {name for name, module in modules.items() if names.cover(module)} == covered


@pytest.mark.parametrize("key", ["modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules"])
@pytest.mark.parametrize(
    "names",
    [
        ["lm_head", "model.layers.*.mlp.down_proj", "model.layers.0.input_layernorm"],
        ["mlp.down_proj"],
        [f"model.layers.{i}.mlp.down_proj" for i in range(32)],
        ["re:.*down_proj"],
    ],
    ids=["wildcard", "bare", "every layer by number", "a regular expression"],
)
def test_modules_that_are_not_converted_stay_plain(names, key):
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    fewer, all_of_them = (estimate(spec(quantization_config=config)) for config in (fp8 | {key: names}, fp8))
    assert fewer.weights.total_bytes - all_of_them.weights.total_bytes == 32 * (4096 * 11008 - 32 * 86 * 4)
    assert fewer.evidence["weights"] == "exact"


def test_layers_may_differ():
    fp8 = {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.mlp", "model.layers.31"]}
    model = spec(quantization_config=fp8)
    found = by_name(model)
    assert len(model.layers) == 3
    assert model.layer_order[:2] == (0, 1)
    assert found["0.self_attn.q_proj"] == found["1.mlp.up_proj"] == "fp8"
    assert found["0.mlp.up_proj"] == found["31.self_attn.q_proj"] == "plain"
    assert num_parameters(model) == num_parameters(spec())


def test_layers_that_are_stored_alike_stay_one():
    assert len(spec(quantization_config={"quant_method": "gptq", "bits": 4}).layers) == 1


def test_the_head_and_the_tables_stay_plain_unless_the_scheme_says_otherwise():
    for config in ({"quant_method": "gptq", "bits": 4}, {"quant_method": "bitsandbytes", "load_in_4bit": True}):
        found = by_name(spec(quantization_config=config))
        assert found["lm_head"] == found["embed_tokens"] == found["norm"] == "plain"
    assert by_name(spec(quantization_config={"quant_method": "gptq", "bits": 4, "lm_head": True}))["lm_head"] != "plain"
    mlx = by_name(spec(quantization={"group_size": 64, "bits": 4}))
    assert mlx["lm_head"] == mlx["embed_tokens"] == "affine int4"
    assert mlx["norm"] == "plain"


def test_groups_of_compressed_tensors_have_their_own_targets():
    fp8 = {"num_bits": 8, "type": "float", "strategy": "channel"}
    int4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
    config = {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision",
        "version": "0.20",
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": fp8},
            "group_1": {"targets": ["re:.*down_proj$", "model.layers.7.mlp.up_proj"], "weights": int4},
            "group_2": {"targets": ["re:.*k_proj$"], "weights": None, "input_activations": fp8},
        },
        "ignore": ["lm_head", "re:.*v_proj$"],
    }
    found = by_name(spec(quantization_config=config))
    assert found["7.mlp.down_proj"] == found["7.mlp.up_proj"] == "int4"
    assert found["8.mlp.up_proj"] == found["7.self_attn.q_proj"] == "fp8"
    assert found["7.self_attn.v_proj"] == found["7.self_attn.k_proj"] == found["lm_head"] == "plain"


def test_a_linear_target_takes_the_head_too_unless_it_is_ignored():
    weights = {"num_bits": 8, "type": "int", "strategy": "channel"}
    config = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "format": "int-quantized"}
    assert by_name(spec(quantization_config=config))["lm_head"] == "int8"


def test_modelopt_lists_each_layer_of_a_mixed_checkpoint():
    listed = {f"model.layers.{i}.mlp.up_proj": {"quant_algo": "NVFP4", "group_size": 16} for i in range(32)}
    listed |= {f"model.layers.{i}.self_attn.q_proj": {"quant_algo": "FP8"} for i in range(0, 32, 2)}
    listed["lm_head"] = {"quant_algo": "W4A16_NVFP4", "group_size": 16}
    config = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": listed}
    found = by_name(spec(quantization_config=config))
    assert found["5.mlp.up_proj"] == found["lm_head"] == "nvfp4"
    assert found["4.self_attn.q_proj"] == "fp8"
    assert found["5.self_attn.q_proj"] == found["5.mlp.down_proj"] == "plain"


def test_a_side_file_says_what_an_inline_config_says():
    inline = {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "ignore": ["lm_head"]}
    inline["kv_cache_scheme"] = {"dynamic": False, "num_bits": 8, "type": "float"}
    side = {
        "producer": {"name": "modelopt", "version": "0.23.0"},
        "quantization": {
            "quant_algo": "NVFP4",
            "kv_cache_quant_algo": "FP8",
            "group_size": 16,
            "exclude_modules": ["lm_head"],
        },
    }
    beside = spec_from_raw(with_side_file(LLAMA, side), id="x", source=HERE)
    assert total(beside) == total(spec(quantization_config=inline))
    assert beside.quantization.kv_cache == "fp8"
    assert with_side_file({"quantization_config": inline}, side) == {"quantization_config": inline}


def test_scales_of_the_cache_are_two_a_layer():
    without = {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"]}
    calibrated = spec(quantization_config=without | {"kv_cache_quant_algo": "FP8"})
    assert total(calibrated) - total(spec(quantization_config=without)) == 32 * 2 * 4
    plan = estimate(calibrated)
    assert "kv-cache-scheme" in [warning.code for warning in plan.warnings]
    held = estimate(calibrated, kv_dtype="fp8")
    assert "kv-cache-scheme" not in [warning.code for warning in held.warnings]


def test_single_modules_of_autoround_and_gptqmodel_have_their_own_settings():
    extra = {"model.layers.0.mlp.up_proj": {"bits": 8}, ".*k_proj": {"bits": 16}}
    config = {"quant_method": "auto-round", "bits": 4, "group_size": 128, "extra_config": extra}
    found = by_name(spec(quantization_config=config))
    assert found["0.mlp.up_proj"] == "gptq int8"
    assert found["1.mlp.up_proj"] == "gptq int4"
    assert found["1.self_attn.k_proj"] == "plain"
    dynamic = {r"-:.*\.layers\.0\..*": {}, r"+:.*\.18\..*gate.*": {"bits": 8}}
    found = by_name(spec(quantization_config={"quant_method": "gptq", "bits": 4, "dynamic": dynamic}))
    assert found["0.mlp.up_proj"] == "plain"
    assert found["18.mlp.gate_proj"] == "gptq int8"
    assert found["18.mlp.up_proj"] == "gptq int4"
    inside = {"modules_in_block_to_quantize": [["self_attn.q_proj"], ["mlp.up_proj"]]}
    found = by_name(spec(quantization_config={"quant_method": "gptq", "bits": 4} | inside))
    assert found["0.self_attn.q_proj"] == "gptq int4"
    assert found["0.mlp.down_proj"] == "plain"


def test_entries_of_mlx_override_or_switch_off():
    entries = {"model.layers.0.mlp.up_proj": {"group_size": 32, "bits": 8}, "lm_head": False}
    found = by_name(spec(quantization={"group_size": 64, "bits": 4} | entries))
    assert found["0.mlp.up_proj"] == "affine int8"
    assert found["lm_head"] == "plain"
    assert found["1.mlp.up_proj"] == "affine int4"


def test_names_of_torchao_are_full_names():
    int8 = {"_type": "Int8WeightOnlyConfig", "_data": {}}
    named = {"_default": int8, "model.layers.3.mlp.up_proj": {"_type": "Int4WeightOnlyConfig", "_data": {}}}
    default = {"_type": "FqnToConfig", "_data": {"fqn_to_config": named}}
    found = by_name(spec(quantization_config={"quant_method": "torchao", "quant_type": {"default": default}}))
    assert found["3.mlp.up_proj"] == "torchao int4"
    assert found["4.mlp.up_proj"] == "torchao int8"
    old = {"quant_method": "torchao", "quant_type": "int4_weight_only", "quant_type_kwargs": {"group_size": 128}}
    assert by_name(spec(quantization_config=old))["0.mlp.up_proj"] == "torchao int4"


def test_quark_excludes_and_overrides_by_pattern():
    fp8 = {"weight": {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}, "input_tensors": {"is_dynamic": False}}
    fp4 = {"weight": {"dtype": "fp4", "qscheme": "per_group", "group_size": 32}}
    config = {
        "quant_method": "quark",
        "global_quant_config": fp8,
        "layer_quant_config": {"*mlp*": fp4},
        "exclude": ["lm_head", "*o_proj"],
    }
    model = spec(quantization_config=config)
    found = by_name(model)
    assert found["3.mlp.up_proj"] == "mxfp4"
    assert found["3.self_attn.q_proj"] == "quark fp8_e4m3"
    assert found["3.self_attn.o_proj"] == found["lm_head"] == "plain"
    assert estimate(model).evidence["weights"] == "derived"


def test_vptq_says_it_module_by_module():
    up = {"vector_lens": [-1, 8], "num_centroids": [-1, 65536], "num_res_centroids": [-1, 256], "group_num": 1}
    config = {"quant_method": "vptq", "config_for_layers": {f"model.layers.{i}.mlp.up_proj": up for i in range(32)}}
    found = by_name(spec(quantization_config=config))
    assert found["9.mlp.up_proj"] == "vptq"
    assert found["9.mlp.down_proj"] == "plain"


def test_experts_of_deepseek_v4_are_four_bit_floats():
    config = {"quant_method": "fp8", "scale_fmt": "ue8m0", "weight_block_size": [128, 128], "expert_dtype": "fp4"}
    assert stored_bytes(config, matrix(256, 256, part="experts")) == 256 * 256 // 2 + 256 * 8
    assert stored_bytes(config, matrix(256, 256)) == 256 * 256 + 4
    # In V3.1 the scales are powers of two as well, and stored in fp32.
    assert stored_bytes(config | {"expert_dtype": None}, matrix(256, 256)) == 256 * 256 + 4 * 4


def test_a_scheme_of_the_language_model_leaves_the_tower_alone():
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
    inner = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}
    tower = matrix(64, 64, "vision_tower.proj.weight", "vision")
    reading = Reading(
        hidden_size=1, vocab_size=1, layers=[Layer(mixers=(), weights=(matrix(64, 64),))], embeddings=(tower,), head=()
    )
    found, quantization = apply_quantization(reading, {"text_config": {"quantization_config": inner}}, BF16)
    assert quantization is not None
    assert found.embeddings[0].stored is None
    assert found.layers[0].weights[0].stored is not None
    found, _ = apply_quantization(reading, {"quantization_config": inner}, BF16)
    assert found.embeddings[0].stored is not None


# What the plan says.


def test_plain_weights_have_no_scheme():
    for config in ({}, {"quantization_config": None}, {"quantization_config": {}}):
        assert spec(**config).quantization is None


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"quant_algo": "FP8", "producer": {"name": "modelopt"}}, "modelopt"),
        ({"bits": 4, "group_size": 64}, "mlx"),
        ({"something": 1}, "unnamed"),
    ],
)
def test_a_scheme_without_a_name_is_known_by_its_keys(config, method):
    assert spec(quantization_config=config).quantization.method == method


INT2 = {"num_bits": 2, "type": "int", "strategy": "spiral"}


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"quant_method": "some_new_one", "bits": 4}, "some_new_one"),
        ({"quant_method": "modelopt", "quant_algo": "FP3"}, "modelopt (FP3)"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "compressed-tensors (no groups)"),
        ({"config_groups": {"a": {"weights": INT2}}}, "compressed-tensors (strategy spiral)"),
        ({"config_groups": {"a": {"weights": INT2}}, "format": "knitted"}, "compressed-tensors (format knitted)"),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "New"}}}, "torchao (New)"),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "int3"}}}, "quark (int3)"),
        ({"quant_method": "vptq"}, "vptq (no layers)"),
    ],
)
def test_an_unknown_scheme_is_an_upper_bound_and_says_so(config, name):
    plan = estimate(spec(quantization_config=config))
    assert plan.weights.quantization == name
    assert plan.weights.total_bytes == 2 * plan.weights.num_parameters
    assert plan.evidence["weights"] == "assumed"
    assert "quantization-not-modelled" in [warning.code for warning in plan.warnings]


def test_a_scheme_that_replaces_nothing_is_not_understood():
    assert estimate(spec(quantization_config={"quant_method": "mxfp4"})).evidence["weights"] == "assumed"


def test_the_older_key_is_read_too():
    old = {"quant_method": "awq", "bits": 4}
    assert total(spec(compression_config=old)) == total(spec(quantization_config=old))


def test_the_files_total_wins_and_the_difference_is_said():
    model = spec(quantization_config={"quant_method": "awq", "bits": 4})
    counted = estimate(model)
    assert counted.evidence["weights"] == "exact"
    for surplus, word, basis in ((2**20, "1 MiB more", "exact"), (-(2**30), "1 GiB less", "derived")):
        plan = estimate(replace(model, stored_weight_bytes=counted.weights.total_bytes + surplus))
        assert plan.weights.total_bytes == counted.weights.total_bytes + surplus
        assert sum(part.total_bytes for part in plan.weights.parts.values()) == plan.weights.total_bytes
        [warning] = [warning for warning in plan.warnings if warning.code == "stored-differs"]
        assert word in warning.message
        assert plan.evidence["weights"] == basis
    # Planned otherwise than stored, the files say nothing.
    other = replace(model, stored_weight_bytes=10**9)
    assert estimate(other, quant="none").weights.total_bytes == 2 * num_parameters(model)
    assert estimate(other, dtype="fp32").weights.total_bytes > 10**9


def test_a_plan_may_quantise_otherwise_than_the_checkpoint():
    model = spec(quantization_config={"quant_method": "awq", "bits": 4})
    assert estimate(model, quant="fp8").weights.total_bytes == estimate(spec(), quant="fp8").weights.total_bytes


# Refusals.


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("int4", "not an object"),
        ({"quant_method": "gptq", "bits": "four"}, "`quantization_config.bits` is `four`"),
        ({"quant_method": "gptq"}, "`quantization_config.bits` is `None`"),
        ({"quant_method": "gptq", "bits": 9}, "not 2 or 3"),
        ({"quant_method": "gptq", "bits": 4, "group_size": -5}, "group_size"),
        ({"quant_method": "fp8", "weight_block_size": ["a", 1]}, "two whole numbers"),
        ({"quant_method": "fp8", "modules_to_not_convert": [7]}, "a list of names"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf5"}, "nf4 or fp4"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": 3}}}, "an object"),
        ({"quant_method": "exl2", "bits": "many"}, "a number of bits"),
        ({"quant_method": "quanto", "weights": "int3"}, "weights"),
    ],
)
def test_a_wrong_setting_is_named(config, words):
    with pytest.raises(InputError, match="quantization_config") as caught:
        spec(quantization_config=config)
    assert words in str(caught.value)
    assert "quantization_config=null" in caught.value.hint


# Laws.

SIZES = st.integers(8, 200).map(lambda n: 32 * n)
SCHEMES = [row["config"] for row in STORED[::2] if row["package"].split()[0] != "aqlm"]


@given(rows=SIZES, columns=SIZES, config=st.sampled_from(SCHEMES))
def test_a_quantised_matrix_is_never_larger_than_a_plain_one(rows, columns, config):
    assert 0 < stored_bytes(config, matrix(rows, columns)) < 2 * rows * columns


@given(rows=SIZES, columns=SIZES, group=st.sampled_from([-1, 32, 64, 128]))
def test_more_bits_are_more_bytes_and_smaller_groups_too(rows, columns, group):
    sizes = [
        stored_bytes({"quant_method": "gptq", "bits": bits, "group_size": group}, matrix(rows, columns))
        for bits in (2, 3, 4, 8)
    ]
    assert sizes == sorted(sizes)
    if group > 32:
        finer = {"quant_method": "gptq", "bits": 8, "group_size": group // 2}
        assert stored_bytes(finer, matrix(rows, columns)) >= sizes[-1]


@given(rows=st.integers(1, 300), columns=st.integers(1, 300), tp=st.integers(1, 4))
def test_parts_of_a_matrix_store_at_least_the_whole(rows, columns, tp):
    form = StoredFormat("f", (StoredTensor("w", 4, (1, 1), word=32, along="columns"), StoredTensor("s", 16, (1, 32))))
    whole = form.bytes_of(rows * tp, columns)
    assert tp * form.bytes_of(rows, columns) >= whole


@pytest.mark.parametrize("row", STORED, ids=[str(i) for i in range(len(STORED))])
def test_parameters_are_those_of_the_plain_model(row):
    model = spec(quantization_config=row["config"])
    assert num_parameters(model) == num_parameters(spec())
    assert any(weight.stored for weight, _ in all_weights(model))
