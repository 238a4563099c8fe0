"""Which cache formats run on which GPU, by the classes of vLLM 0.33 in v1/attention/backends, and what `auto` is."""

from dataclasses import replace

import pytest

import kvplan
from kvplan import InputError
from kvplan.core.engines.table import find_engine
from kvplan.core.fit.places import formats
from tests.core.engines.test_vllm import configs, deployment
from tests.models import LLAMA, spec


def check(name, version="vllm", **given):
    find_engine(version).pooled.check(spec(configs()[name]), deployment(**given))


# FlashInfer takes fp8 from compute capability 8.0 on (flashinfer.py 573, 696), but no sinks before 9.0 (704), no heads
# of other widths than 64, 128, 256, 512 (693), and no images' prefixes; Triton's refuse it before 8.9 (triton_attn.py
# 514, mla/triton_mla.py 203).
TAKEN = [
    ("llama-3.1-8b", {"kv_dtype": "fp8", "arch": "8.0"}, "vllm"),
    ("gemma-2-9b", {"kv_dtype": "fp8", "arch": "8.6"}, "vllm"),
    ("deepseek-v3", {"kv_dtype": "fp8", "arch": "8.9"}, "vllm"),
    ("deepseek-v3", {"kv_dtype": "fp8", "arch": "8.0"}, "vllm@0.25"),
    ("gpt-oss-20b", {"kv_dtype": "fp8", "arch": "8.9"}, "vllm"),
    ("gpt-oss-20b", {"kv_dtype": "fp8", "arch": "8.0"}, "vllm@0.22"),
    ("llama-3.1-8b", {"kv_dtype": "nvfp4", "arch": "8.0"}, "vllm"),
    ("llama-3.1-8b", {"kv_dtype": "nvfp4", "arch": "12.0"}, "vllm"),
    ("gpt-oss-20b", {"kv_dtype": "nvfp4", "arch": "10.0"}, "vllm"),
    ("llama-3.1-8b", {"kv_dtype": "nvfp4", "arch": "10.0", "tp": 16, "dcp": 2}, "vllm"),
    ("deepseek-v3.2", {"kv_dtype": "fp8_ds_mla", "arch": "9.0"}, "vllm"),
    ("deepseek-v3.2", {"kv_dtype": "nvfp4_ds_mla", "arch": "10.0"}, "vllm"),
]
REFUSED = [
    ("llama-3.1-8b", {"kv_dtype": "fp8", "arch": "7.5", "dtype": "fp16"}, "vllm", "from compute capability 8.9"),
    ("llama-3.1-8b", {"kv_dtype": "fp8", "arch": "8.0", "attention_backend": "TRITON_ATTN"}, "vllm", "8.9 on"),
    ("deepseek-v3", {"kv_dtype": "fp8", "arch": "8.0"}, "vllm", "8.9 on"),
    ("gpt-oss-20b", {"kv_dtype": "fp8", "arch": "8.0"}, "vllm", "8.9 on"),
    ("phi-3-mini-4k", {"kv_dtype": "fp8", "arch": "8.0"}, "vllm", "8.9 on"),
    ("llama-3.1-8b", {"kv_dtype": "nvfp4", "arch": "7.5", "dtype": "fp16"}, "vllm", "8.x, 9.x, 10.x, 12.x"),
    ("llama-3.1-8b", {"kv_dtype": "nvfp4", "arch": "9.0"}, "vllm@0.31", "capability 10.x, this GPU has 9.0"),
    ("llama-3.1-8b", {"kv_dtype": "nvfp4", "arch": "12.0"}, "vllm@0.31", "capability 10.x, this GPU has 12.0"),
    ("gpt-oss-20b", {"kv_dtype": "nvfp4", "arch": "9.0"}, "vllm", "does not take the attention"),
    ("phi-3-mini-4k", {"kv_dtype": "nvfp4", "arch": "9.0"}, "vllm", "does not take the attention"),
    # flashinfer.py 955, `_nvfp4_kv_on_fa2`; the packed rows are those of mla/flashmla_sparse.py and its like alone.
    ("llama-3.1-8b", {"kv_dtype": "nvfp4", "arch": "9.0", "tp": 16, "dcp": 2}, "vllm", "with `dcp` no kernel"),
    ("llama-3.1-8b", {"kv_dtype": "fp8_ds_mla"}, "vllm", "which `test/model` has not"),
    ("deepseek-v3", {"kv_dtype": "fp8_ds_mla"}, "vllm", "packs the rows of sparse latent attention"),
    ("deepseek-v3.2", {"kv_dtype": "nvfp4_ds_mla", "arch": "9.0"}, "vllm", "needs compute capability 10.x"),
]


@pytest.mark.parametrize(("name", "given", "version"), TAKEN)
def test_what_a_kernel_reads_is_taken(name, given, version):
    check(name, version, **given)


@pytest.mark.parametrize(("name", "given", "version", "words"), REFUSED)
def test_what_no_kernel_reads_is_refused(name, given, version, words):
    with pytest.raises(InputError, match=words):
        check(name, version, **given)


MODELOPT = {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"]}
SCHEME = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True}
GROUP = {"weights": {"num_bits": 8, "type": "float", "strategy": "tensor"}, "targets": ["Linear"]}
PACKED = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": GROUP}}


@pytest.mark.parametrize(
    ("config", "held"),
    [
        (MODELOPT | {"kv_cache_quant_algo": "FP8"}, {"vllm": "fp8", "vllm@0.14": "fp8", "vllm@0.13": "bf16",
                                                     "sglang": "fp8", "trtllm": "fp8", "transformers": "bf16"}),
        (MODELOPT | {"kv_cache_quant_algo": "NVFP4"}, {"vllm": "nvfp4", "vllm@0.32": "nvfp4", "vllm@0.19": "bf16",
                                                       "sglang": "bf16", "trtllm": "nvfp4"}),
        (MODELOPT, {"vllm": "bf16", "sglang": "bf16", "trtllm": "bf16"}),
        (PACKED | {"kv_cache_scheme": SCHEME}, {"vllm": "fp8", "vllm@0.15": "fp8", "vllm@0.14": "bf16",
                                                "sglang": "bf16", "trtllm": "bf16"}),
        (PACKED, {"vllm": "bf16"}),
    ],
)  # fmt: skip
def test_an_engine_takes_the_format_that_the_checkpoint_has_scales_for(config, held):
    """vLLM, utils/torch_utils.py and layers/attention/attention.py at each release; SGLang, kv_cache_dtype.py."""
    model = spec({**LLAMA, "quantization_config": config})
    for engine, expected in held.items():
        plan = kvplan.estimate(model, engine=engine, seq_len=4096)
        assert plan.serving.kv_dtype.name == expected, engine
        told = [warning.message for warning in plan.warnings if warning.code == "kv-cache-scheme"]
        assert len(told) == ("kv_cache_quant_algo" in config or "kv_cache_scheme" in config), engine
        assert kvplan.estimate(model, engine=engine, seq_len=4096, kv_dtype="bf16").serving.kv_dtype.name == "bf16"


def test_latent_layers_do_not_ask_compressed_tensors_for_the_format():
    """mla_attention.py 487-503 reads modelopt's alone, which the cache's config has by then."""
    raw = configs()["deepseek-v3"]
    packed = spec({**raw, "quantization_config": PACKED | {"kv_cache_scheme": SCHEME}})
    modelopt = spec({**raw, "quantization_config": MODELOPT | {"kv_cache_quant_algo": "FP8"}})
    formats = [
        kvplan.estimate(model, engine="vllm", seq_len=4096).serving.kv_dtype.name for model in (packed, modelopt)
    ]
    assert formats == ["bf16", "fp8"]


def test_the_flag_is_printed_where_it_differs_from_what_the_engine_takes():
    model = spec({**LLAMA, "quantization_config": MODELOPT | {"kv_cache_quant_algo": "FP8"}})
    printed = {}
    for kv_dtype in (None, "fp8", "bf16"):
        answer = kvplan.fit(model, engine="vllm", gpu="H100", max_model_len=2048, kv_dtype=kv_dtype)
        printed[kv_dtype] = "--kv-cache-dtype bfloat16" if "--kv-cache-dtype bfloat16" in answer.command else None
        assert "--kv-cache-dtype fp8" not in answer.command
    assert printed == {None: None, "fp8": None, "bf16": "--kv-cache-dtype bfloat16"}


def test_the_search_tries_the_formats_that_the_check_takes():
    model, serving = kvplan.load_model("Qwen/Qwen3-8B"), kvplan.fit("Qwen/Qwen3-8B", "L40S").serving
    tried = [laid.kv_dtype.name for laid in formats(model, serving)]
    assert tried == ["fp8", "int8", "nvfp4", "int4"]
    older = replace(serving, engine=find_engine("vllm@0.31"))
    assert "nvfp4" not in [laid.kv_dtype.name for laid in formats(model, older)]


@pytest.mark.parametrize(
    "stated",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}},
    ],
    ids=["bitsandbytes", "hqq"],
)
def test_a_scheme_that_vllm_reads_no_more(stated):
    model = spec(LLAMA | {"quantization_config": stated})
    find_engine("vllm@0.19").pooled.check(model, deployment())
    with pytest.raises(InputError, match=f"does not read weights in {stated['quant_method']}"):
        find_engine("vllm").pooled.check(model, deployment())
