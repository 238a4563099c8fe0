"""What vLLM 0.33's own planning refused, what it keeps in which format, and what its ranks hold beyond a share."""

import pytest

from kvplan import InputError, UnsupportedError, estimate
from kvplan.core.dtypes import TURBOQUANT, parse_kv_dtypes
from kvplan.core.engines.table import find_engine
from kvplan.core.engines.vllm.loading import extra_weights
from kvplan.core.layout import stage_weights
from kvplan.core.serving import resolve
from tests.core.engines.test_vllm import ROWS, configs, deployment, draft_of, pool
from tests.models import spec

DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def check(name, version="vllm", **given):
    find_engine(version).pooled.check(spec(configs()[name]), deployment(**given))


REFUSED = [
    ("nemotron-h-8b", {"tp": 16}, "8 groups"),
    ("nemotron-h-8b", {"hybrid_manager": False}, "hybrid manager"),
    ("lfm2-1.2b", {"hybrid_manager": False}, "hybrid manager"),
    ("gemma-3n-e4b", {"pp": 2}, "pipeline stages"),
    ("whisper-large-v3", {"pp": 2, "dtype": "fp16"}, "pipeline stages"),
    ("zamba2-7b", {"pp": 2}, "pipeline stages"),
    ("mamba-codestral", {"pp": 2}, "pipeline stages"),
    ("gemma-4-e4b", {"pp": 4}, "another pipeline stage"),
    ("deepseek-v3", {"kv_dtype": "int8_per_token_head"}, "latents in int8"),
    ("deepseek-v3", {"kv_dtype": "fp8_per_token_head"}, "latents in fp8_per_token_head"),
    ("deepseek-v3", {"kv_dtype": "nvfp4", "arch": "10.0"}, "latents in nvfp4"),
    ("deepseek-v3.2", {"arch": "8.0"}, "compute capability 9.0"),
    ("deepseek-v3.2", {"block_size": 32}, "blocks of 32"),
    ("deepseek-v3.2", {"tp": 8, "dcp": 4}, "fp8 cache only"),
    ("mistral-7b-v0.1", {"kv_dtype": "turboquant_k8v4"}, "turboquant"),
    ("gpt-oss-20b", {"kv_dtype": "turboquant_4bit_nc"}, "turboquant"),
    ("phi-3-mini-4k", {"kv_dtype": "nvfp4", "arch": "10.0"}, "nvfp4"),
    ("gemma-4-26b", {"kv_dtype": "nvfp4", "arch": "10.0"}, "nvfp4"),
    ("mimo-v2-flash", {"kv_dtype": "fp8", "arch": "10.0"}, "unlike width"),
    ("kimi-linear-48b-a3b", {"state_dtype": "float16"}, "fp32 or bf16"),
]


@pytest.mark.parametrize(("name", "given", "words"), REFUSED)
def test_what_the_engine_refuses(name, given, words):
    with pytest.raises(InputError, match=words):
        check(name, **given)


def test_what_it_takes_is_not_refused():
    """Each beside one of the refusals above."""
    check("nemotron-h-8b", tp=8, pp=2)
    check("gemma-4-e4b", pp=2)
    check("gemma-2-9b", hybrid_manager=False)
    check("deepseek-v3", kv_dtype="fp8")
    check("deepseek-v3.2", kv_dtype="fp8", tp=8, dcp=4, block_size=64)
    check("mimo-v2-flash", kv_dtype="fp8")
    check("llama-3.1-8b", kv_dtype="turboquant_3bit_nc")
    check("llama-3.1-8b", kv_dtype="nvfp4", arch="10.0")


def test_older_releases_are_not_judged_by_the_newest():
    check("gemma-3n-e4b", "vllm@0.20", pp=2)


def test_models_that_were_dropped():
    model = {"model_type": "mpt", "d_model": 64, "n_heads": 4, "n_layers": 2, "vocab_size": 64, "max_seq_len": 64}
    find_engine("vllm@0.28").pooled.check(spec(model), deployment())
    with pytest.raises(UnsupportedError, match="does not run `mpt`"):
        find_engine("vllm").pooled.check(spec(model), deployment())


def test_full_layers_larger_than_padded_sliding_ones_stop_the_engine():
    """Gemma 2, whose layers 0 (sliding) and 3 (full) keep bf16: vLLM stops at `AssertionError`."""
    model = spec(configs()["gemma-2-9b"])
    with pytest.raises(UnsupportedError, match="assertion"):
        pool(model, 2**35, kv_dtype="fp8", kv_cache_dtype_skip_layers=("0", "3"))


# vLLM 0.33, layers/quantization/turboquant/config.py: keys ⌈D·bits/8⌉, below 8 bits + 2; values ⌈D·bits/8⌉ + 4.
@pytest.mark.parametrize(
    ("name", "head_of_128"),
    [
        ("turboquant_k8v4", 128 + 68),
        ("turboquant_4bit_nc", 66 + 68),
        ("turboquant_k3v4_nc", 50 + 68),
        ("turboquant_3bit_nc", 50 + 52),
    ],
)
def test_turboquant_keeps_two_layers_at_either_end_plain(name, head_of_128):
    key, value = parse_kv_dtypes(name)
    assert key.vector_bytes(128) + value.vector_bytes(128) == head_of_128
    found = pool(spec(configs()["llama-3.1-8b"]), 2**35, kv_dtype=name)
    plain = 2 * 2 * 128
    assert found.block_size == 32
    assert found.bytes_per_block == 8 * 32 * (28 * head_of_128 + 4 * plain)


def test_every_turboquant_format_has_a_case():
    assert set(TURBOQUANT) == {"turboquant_k8v4", "turboquant_4bit_nc", "turboquant_k3v4_nc", "turboquant_3bit_nc"}


def test_a_model_without_attention_caches_no_prefixes_unless_asked():
    model = spec(configs()["mamba-codestral"])
    assert pool(model, 2**35).blocks_per_request == 1
    assert pool(model, 2**35, prefix_caching=True).blocks_per_request == 3


def test_gated_delta_rules_have_checkpoints_on_hopper_alone():
    """FlashInfer's prefill gives states out, on Blackwell from CUDA 13 on (mamba/gdn/qwen_gdn_linear_attn.py)."""
    model = spec(configs()["qwen3-next"])
    pools = {arch: pool(model, 2**35, arch=arch, tp=4) for arch in ("8.9", "9.0", "10.0")}
    states = {arch: found.groups[0].blocks_per_request for arch, found in pools.items()}
    assert states == {"8.9": 2, "9.0": 3, "10.0": 2}
    assert [pools[arch].block_size for arch in ("9.0", "10.0")] == [320, 272]
    assert [arch for arch, found in pools.items() if any("CUDA 13" in note for note in found.notes)] == ["10.0"]


def test_the_cache_that_an_engine_takes_by_itself():
    """model_executor/models/config.py `GlmMoeDsaForCausalLM`: from 0.32 on, on compute capability 10 alone."""
    model, asked = spec(configs()["glm-5.1"]), {"tp": 8, "seq_len": 4096}
    for engine, gpu, held in (("vllm", "B200", "fp8"), ("vllm@0.31", "B200", "bf16"), ("vllm", "H200", "bf16")):
        assert estimate(model, engine=engine, gpu=gpu, **asked).serving.kv_dtype.name == held
    assert estimate(model, engine="vllm", gpu="B200", kv_dtype="bf16", **asked).serving.kv_dtype.name == "bf16"


# Sharded and staged models of which vLLM's classes hold more than a share; a table of the vocabulary is 1-2 % of most.
LARGER = [row for row in ROWS if row["tp"] * row["pp"] > 1 and "weight_bytes" in row]


@pytest.mark.parametrize("row", LARGER, ids=[row["id"] for row in LARGER])
def test_no_rank_is_promised_less_than_it_holds(row):
    how = {name: tuple(v) if isinstance(v, list) else v for name, v in row["switches"].items()}
    model, asked = spec(configs()[row["model"]]), deployment(arch=row["gpu"], **how)
    serving = resolve(
        model,
        seq_len=row["max_model_len"],
        dtype=DTYPES[row["dtype"]],
        tp=row["tp"],
        pp=row["pp"],
        engine="vllm",
        gpu=asked.gpu,
        switches=asked.switches,
        draft=draft_of(row),
    )
    shares = stage_weights(model, serving)
    held = [share + extra_weights(model, serving.deployment, i).num_bytes for i, share in enumerate(shares)]
    assert all(ours > 0.995 * theirs for ours, theirs in zip(held, row["weight_bytes"], strict=True))
