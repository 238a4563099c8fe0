"""Which modules of a checkpoint are quantised, and in which of its formats: patterns, groups, lists, overrides."""

import pytest
from marked import by_name, marked, matrix, stored_bytes, total

from kvplan import estimate
from kvplan.core.dtypes import BF16
from kvplan.core.model import Layer
from kvplan.core.weights import num_parameters, weight_bytes
from kvplan.sources.config import spec_from_raw
from kvplan.sources.families.bricks.parts import Reading
from kvplan.sources.quantization import apply_quantization, with_side_file
from kvplan.sources.quantization.modules import Module, Names
from tests.models import HERE, LLAMA, spec


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


NVFP4 = {"quant_algo": "NVFP4", "group_size": 16}


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


def test_configs_may_use_deepseeks_own_words_for_modules():
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    mixed = fp8 | {"quantized_layers": {"layers.0.ffn.experts": {"quant_algo": "NVFP4", "group_size": 16}}}
    expert = matrix(256, 256, "mlp.experts.gate_proj.weight", "experts")
    assert stored_bytes(mixed, expert) == 256 * 256 // 2 + 256 * 16 + 2 * 4
    assert stored_bytes(mixed, matrix(256, 256)) == 256 * 256 + 4 * 4
    weights = {"num_bits": 8, "type": "float", "strategy": "tensor"}
    groups = {"group_0": {"targets": ["re:.*attn.*(fused_wqa_wkv|wq_b|wo_a|wo_b)$"], "weights": weights}}
    named = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": groups}
    for name in ("q_a_proj", "kv_proj", "q_b_proj", "o_a_proj", "o_b_proj"):
        assert stored_bytes(named, matrix(64, 64, f"self_attn.{name}.weight", "attention")) == 64 * 64 + 2


def test_a_config_may_name_experts_in_mixtral_s_words():
    listed = {f"language_model.model.layers.0.block_sparse_moe.experts.{i}.w1": NVFP4 for i in range(2)}
    listed |= {"language_model.model.layers.0.self_attn.index_q_proj": {"quant_algo": "MXFP8"}}
    mixed = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": listed}
    gate, up = (matrix(256, 256, f"mlp.experts.{name}.weight", "experts") for name in ("gate_proj", "up_proj"))
    assert stored_bytes(mixed, gate) == 256 * 256 // 2 + 256 * 16 + 2 * 4
    assert stored_bytes(mixed, matrix(256, 256, "self_attn.indexer.q_proj.weight")) == 256 * 256 + 256 * 8
    [layer], _ = marked(mixed, gate, up)
    assert [weight.stored is None for weight in layer.weights] == [False, True]


def test_the_weights_of_an_indexer_are_never_in_fp8():
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    inside = (matrix(64, 256, f"self_attn.indexer.{name}.weight", "attention") for name in ("weights_proj", "wq_b"))
    [layer], quantization = marked(fp8, *inside)
    assert [weight_bytes(weight, BF16, quantization) for weight in layer.weights] == [2 * 64 * 256, 64 * 256 + 8]


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
