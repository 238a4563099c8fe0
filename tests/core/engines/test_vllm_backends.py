"""Which backend takes what where it is asked for: vLLM 0.33, v1/attention/backend.py `validate_configuration`."""

from dataclasses import replace

import pytest

from kvplan import InputError, UnsupportedError
from kvplan.core.engines.table import find_engine
from tests.command import refusal_of
from tests.core.engines.test_vllm import configs, deployment
from tests.models import spec

LLAMA, PHI = "llama-3.1-8b", "phi-3-mini-4k"
LATENT, CHOSEN, OSS = "deepseek-v3", "deepseek-v3.2", "gpt-oss-20b"


def check(name, backend, version="vllm", **given):
    find_engine(version).pooled.check(spec(configs()[name]), deployment(attention_backend=backend, **given))


TAKEN = [
    (LLAMA, "FLASH_ATTN", {"kv_dtype": "fp8"}),
    (LLAMA, "FLASH_ATTN", {"kv_dtype": "fp8", "arch": "10.0"}),
    (LLAMA, "FLASH_ATTN", {"arch": "8.0"}),
    (LLAMA, "FLASHINFER", {"kv_dtype": "nvfp4", "arch": "10.0"}),
    (LLAMA, "FLASHINFER", {"kv_dtype": "fp8", "arch": "8.0"}),
    (LLAMA, "TRITON_ATTN", {"kv_dtype": "int8_per_token_head", "arch": "7.5", "dtype": "fp16"}),
    (LLAMA, "TRITON_ATTN", {"dtype": "fp32"}),
    (LLAMA, "TURBOQUANT", {"kv_dtype": "turboquant_k8v4"}),
    (LLAMA, "flash_attn_vllm_v1", {}),
    (OSS, "TRITON_ATTN", {"arch": "8.0"}),
    (OSS, "FLASH_ATTN", {}),
    (LATENT, "FLASHMLA", {"kv_dtype": "fp8"}),
    (LATENT, "TRITON_MLA", {"kv_dtype": "fp8", "arch": "12.0"}),
    (LATENT, "CUTLASS_MLA", {"kv_dtype": "fp8", "arch": "10.0"}),
    (CHOSEN, "FLASHMLA_SPARSE", {"kv_dtype": "fp8_ds_mla"}),
    ("gemma-3-27b", "FLASHINFER", {"no_images": True}),
]
REFUSED = [
    (LLAMA, "FLASH_ATTN", {"kv_dtype": "nvfp4"}, "no KV cache in nvfp4"),  # flash_attn.py 290
    (LLAMA, "TRITON_ATTN", {"kv_dtype": "nvfp4", "arch": "10.0"}, "no KV cache in nvfp4"),  # triton_attn.py 326
    (LLAMA, "FLASH_ATTN", {"kv_dtype": "fp8", "arch": "8.9"}, "no KV cache in fp8"),  # fa_utils.py 306
    (LLAMA, "FLASH_ATTN", {"kv_dtype": "int8_per_token_head"}, "no KV cache in int8"),
    (LLAMA, "FLEX_ATTENTION", {"kv_dtype": "fp8"}, "no KV cache in fp8"),
    (LLAMA, "TURBOQUANT", {}, "no KV cache in bf16"),  # turboquant_attn.py 184
    (LLAMA, "FLASH_ATTN", {"kv_dtype": "turboquant_k8v4"}, "no KV cache in turboquant"),
    (LLAMA, "FLASH_ATTN", {"arch": "7.5", "dtype": "fp16"}, r"needs compute capability 8\.x"),
    (LLAMA, "FLASHINFER", {"arch": "7.5", "dtype": "fp16"}, r"needs compute capability 8\.x"),  # flashinfer.py 696
    (LLAMA, "FLASH_ATTN", {"dtype": "fp32"}, "not fp32"),
    (LLAMA, "FLASHMLA", {}, "reads latents, and `test/model` has keys and values"),
    (LATENT, "FLASH_ATTN", {}, "reads keys and values, and `test/model` has latents"),
    (LATENT, "FLASHMLA_SPARSE", {}, "latents that an indexer chooses, and `test/model` has latents"),
    (CHOSEN, "FLASHMLA", {}, "reads latents, and `test/model` has latents that"),
    (LATENT, "FLASHMLA", {"arch": "10.0"}, r"needs compute capability 9\.x"),  # v1/attention/ops/flashmla.py 56
    (LATENT, "CUTLASS_MLA", {}, r"needs compute capability 10\.x"),
    (LATENT, "FLASH_ATTN_MLA", {"kv_dtype": "fp8"}, "no KV cache in fp8"),  # flashattn_mla.py 42
    (OSS, "FLASH_ATTN", {"arch": "8.0"}, "no sinks"),  # flash_attn.py 474
    (OSS, "FLEX_ATTENTION", {}, "no sinks"),
    (PHI, "FLASHINFER", {}, "does not take the attention"),  # heads of 96
    ("gemma-3-27b", "FLASHINFER", {}, "does not take the attention"),
    (LLAMA, "NOPE", {}, "not an attention backend of vLLM"),
    (LLAMA, "XFORMERS", {}, r"not an attention backend of vLLM 0\.33"),
]


@pytest.mark.parametrize(("name", "backend", "given"), TAKEN, ids=range(len(TAKEN)))
def test_what_a_backend_takes(name, backend, given):
    check(name, backend, **given)


@pytest.mark.parametrize(("name", "backend", "given", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_it_does_not_take(name, backend, given, words):
    with pytest.raises(InputError, match=words):
        check(name, backend, **given)


def test_older_releases_are_judged_by_nvfp4_alone():
    check(LLAMA, "XFORMERS", "vllm@0.10")
    check(LLAMA, "FLASH_ATTN", "vllm@0.32", kv_dtype="fp8", arch="8.9")
    with pytest.raises(InputError, match="FLASH_ATTN reads no nvfp4"):
        check(LLAMA, "FLASH_ATTN", "vllm@0.32", kv_dtype="nvfp4", arch="10.0")


def test_a_device_without_a_capability_is_not_judged_by_it():
    asked = deployment(attention_backend="CUTLASS_MLA")
    for gpu in (None, replace(asked.gpu, arch="gfx950")):
        find_engine("vllm").pooled.check(spec(configs()[LATENT]), replace(asked, gpu=gpu))


def test_a_backend_whose_blocks_are_not_known_is_no_refusal():
    with pytest.raises(UnsupportedError, match="`HPC_ATTN` takes is not known"):
        check(LLAMA, "HPC_ATTN")


def test_a_command_is_answered():
    line = "vllm serve Qwen/Qwen3-0.6B --attention-backend"
    assert refusal_of(f"{line} NOPE", "H100") == "`NOPE` is not an attention backend of vLLM"
    assert refusal_of(f"{line} auto", "H100") is None
    assert refusal_of(f"VLLM_ATTENTION_BACKEND=auto {line} FLASH_ATTN", "H100") is None
