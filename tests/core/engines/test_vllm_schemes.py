"""What schemes ask of a GPU and of activations: vLLM 0.33, layers/quantization, each config's own two methods."""

from dataclasses import replace

import pytest

from kvplan import InputError
from kvplan.core.engines.table import find_engine
from tests.core.engines.test_vllm import configs, deployment
from tests.models import LLAMA, spec

FLOAT8 = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}
FLOAT4 = {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "symmetric": True}
SCHEMES = {
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False},
    "fbgemm": {"quant_method": "fbgemm_fp8"},
    "mxfp8": {"quant_method": "mxfp8"},
    "fp_quant": {"quant_method": "fp_quant", "forward_dtype": "mxfp4"},
    "modelopt-fp8": {"quant_method": "modelopt", "quant_algo": "FP8"},
    "modelopt-mxfp8": {"quant_method": "modelopt", "quant_algo": "MXFP8"},
    "modelopt-nvfp4": {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16},
    "compressed-fp8": {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": FLOAT8}},
    },
    "compressed-mxfp4": {
        "quant_method": "compressed-tensors",
        "format": "mxfp4-pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": FLOAT4}},
    },
    "quark-fp8": {
        "quant_method": "quark",
        "global_quant_config": {"weight": {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}},
    },
    "quark-int4": {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "int4", "group_size": 32}}},
}


def check(scheme, version="vllm", **given):
    model = spec(configs()["gpt-oss-20b"]) if scheme == "mxfp4" else spec(LLAMA, quantization_config=SCHEMES[scheme])
    assert model.quantization is not None
    assert model.quantization.understood
    find_engine(version).pooled.check(model, deployment(**given))


# (scheme, the least capability that takes it, the one below, dtypes that it takes, those that it does not)
NEEDS = [
    ("mxfp4", "8.0", "7.5", ("bf16",), ("fp16", "fp32")),
    ("mxfp8", "8.0", "7.5", ("bf16",), ("fp16", "fp32")),
    ("fbgemm", "8.0", "7.5", ("bf16", "fp16"), ("fp32",)),
    ("fp_quant", "10.0", "9.0", ("bf16",), ("fp16", "fp32")),
    ("modelopt-fp8", "8.0", "7.5", ("bf16", "fp16"), ("fp32",)),
    ("modelopt-mxfp8", "8.0", "7.5", ("bf16",), ("fp16", "fp32")),
    ("modelopt-nvfp4", "7.5", None, ("fp16",), ("fp32",)),
    ("compressed-fp8", "7.5", None, ("fp16", "fp32"), ()),
    ("compressed-mxfp4", "8.0", "7.5", ("bf16", "fp16", "fp32"), ()),
    ("quark-fp8", "8.9", "8.6", ("bf16", "fp16"), ("fp32",)),
    ("quark-int4", "7.5", None, ("fp16",), ("fp32",)),
    ("fp8", "7.5", None, ("fp16",), ("fp32",)),
    ("awq", "7.5", None, ("fp16",), ("fp32",)),
    ("gptq", "7.5", None, ("fp16",), ("fp32",)),
]


@pytest.mark.parametrize(("scheme", "least", "below", "taken", "refused"), NEEDS, ids=[row[0] for row in NEEDS])
def test_the_least_capability_and_the_dtypes_of_a_scheme(scheme, least, below, taken, refused):
    for dtype in taken:
        check(scheme, arch=least, dtype=dtype)
    if below is not None:
        with pytest.raises(InputError, match=rf"from compute capability {least} on, this GPU has {below}"):
            check(scheme, arch=below, dtype="fp16")
    for dtype in refused:
        with pytest.raises(InputError, match=f"not {dtype}"):
            check(scheme, arch=least, dtype=dtype)


def test_older_releases_are_judged_where_they_were_read():
    with pytest.raises(InputError, match=r"this GPU has 7\.5"):
        check("mxfp4", "vllm@0.12", arch="7.5", dtype="fp16")
    check("mxfp4", "vllm@0.11", arch="7.5", dtype="fp16")
    check("quark-fp8", "vllm@0.32", arch="8.0")


def test_a_gpu_without_a_capability_is_not_judged_by_it():
    model = spec(LLAMA, quantization_config=SCHEMES["fp_quant"])
    asked = deployment(arch="gfx942")
    for given in (asked, replace(asked, gpu=None)):
        find_engine("vllm").pooled.check(model, given)
