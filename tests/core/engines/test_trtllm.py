"""TensorRT-LLM's pools, held to figures of public start-up logs and to its formulas worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan import InputError, UnsupportedError, estimate, load_model
from kvplan.core.dtypes import parse_dtype, parse_kv_dtype
from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.table import find_engine
from kvplan.sources.gpus import find_gpu
from tests.models import LLAMA, spec

GIB = 2**30
SMOL = spec(
    LLAMA, hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536
)
GQA = spec(LLAMA, num_key_value_heads=8)
QWEN_SMALL = spec(LLAMA, hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2)
QWEN_LARGE = spec(LLAMA, hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2)
QWEN3 = spec(LLAMA, num_hidden_layers=36, num_key_value_heads=8)


def deployment(kv_dtype="bf16", gpu=None, **given):
    names = {n: given.pop(n) for n in ("tp", "pp", "dp", "dcp", "max_model_len", "memory_share") if n in given}
    key = parse_kv_dtype(kv_dtype)
    shape = {"max_model_len": 4096} | names
    return Deployment(
        dtype=parse_dtype("bf16"), key_dtype=key, value_dtype=key, gpu=gpu, switches=Switches(**given), **shape
    )


def profile(version="trtllm"):
    return find_engine(version).pooled


def pool(model, num_bytes, version="trtllm", **given):
    return profile(version).pool(model, deployment(**given), num_bytes)


# (model, format, tokens of a block, bytes of one token, GiB that the log prints, tokens or blocks times their size)
LOGS = {
    "SmolLM2-135M": (SMOL, "bf16", 32, 23_040, 9.06, 422_048),
    "Llama-3.1-8B fp8": (GQA, "fp8", 32, 65_536, 16.05, 263_008),
    "Qwen2.5-0.5B": (QWEN_SMALL, "bf16", 64, 12_288, 2.18, 190_656),
    "Qwen2.5-1.5B": (QWEN_LARGE, "bf16", 64, 28_672, 7.31, 273_792),
    "32 layers, 1.2.1": (GQA, "bf16", 32, 131_072, 1.56, 12_800),
    "8B on H100": (GQA, "bf16", 64, 131_072, 26.91, 220_480),
    "36 layers fp8": (QWEN3, "fp8", 32, 73_728, 2.33, 33_984),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_logged_pool(name):
    model, kv_dtype, size, per_token, printed, tokens = LOGS[name]
    given = {"kv_dtype": kv_dtype, "block_size": size}
    found = pool(model, tokens * per_token, **given)
    assert (found.num_tokens, found.bytes_per_block) == (tokens, per_token * size)
    assert f"Allocated {printed:.2f} GiB for max tokens in paged KV cache ({tokens})" in found.notes[0]
    # One byte less is one block less: the log's memory lies between this and the next block.
    assert pool(model, tokens * per_token - 1, **given).num_tokens == tokens - size


def test_blocks_were_rounded_up_before_1_0():
    # A log of an older release: max_tokens 86,711 made 86,720 tokens, at 73,728 bytes 5.95 GiB.
    older, newer = (
        pool(QWEN3, 6 * GIB, version, kv_dtype="fp8", max_pool_tokens=86_711) for version in ("trtllm@0.17", "trtllm")
    )
    assert (older.num_tokens, newer.num_tokens) == (86_720, 86_688)
    assert "Allocated 5.95 GiB" in older.notes[0]
    assert profile("trtllm@1.0").pool(QWEN3, deployment(max_pool_tokens=33), None).num_tokens == 32


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        (GQA, {}, 32 * 8 * 256 * 2),
        (GQA, {"tp": 4}, 32 * 2 * 256 * 2),
        (GQA, {"tp": 16}, 32 * 1 * 256 * 2),
        (GQA, {"tp": 4, "dp": 4, "attention_dp": True}, 32 * 8 * 256 * 2),
        # 2048 / 2 + 2048 / 16
        (GQA, {"kv_dtype": "nvfp4"}, 32 * 1152),
        (load_model("deepseek-ai/DeepSeek-V3"), {"tp": 8}, 61 * 576 * 2),
        (load_model("deepseek-ai/DeepSeek-V3"), {"speculative_method": "mtp", "num_speculative_tokens": 1}, 62 * 1152),
        (load_model("deepseek-ai/DeepSeek-V3.2"), {"kv_dtype": "fp8"}, 61 * (576 + 132)),
        (load_model("google/gemma-3-27b-it"), {}, 507_904),
    ],
    ids=["heads", "tp4", "tp16", "attention-dp", "nvfp4", "latent", "mtp", "indexed", "sliding"],
)
def test_bytes_of_one_token(model, given, expected):
    assert pool(model, 64 * GIB, **given).bytes_per_block == 32 * expected


def test_windows_share_the_bytes_equally():
    # gpt-oss-20b: 12 layers of each kind, 2048 bytes a token each; half of 8 GiB for the 128 and half for the rest.
    model = load_model("openai/gpt-oss-20b")
    found = pool(model, 8 * GIB, hybrid_manager=True, max_model_len=131_072)
    blocks = 4 * GIB // (12 * 2048) // 32
    assert (found.num_blocks, found.num_tokens) == (blocks, blocks * 32)
    assert [(group.window, group.blocks_per_request) for group in found.groups] == [(128, 4), (None, 4096)]
    assert found.max_concurrency == min(blocks / 4, blocks / 4096)
    # `max_tokens` is ignored there, and a window as long as a request is none.
    assert pool(model, 8 * GIB, hybrid_manager=True, max_pool_tokens=64).num_tokens == found.num_tokens
    assert len(pool(model, 8 * GIB, hybrid_manager=True, max_model_len=128).groups) == 1
    assert pool(model, 8 * GIB, max_pool_tokens=64).num_tokens == 64


def test_states_are_an_affine_cost():
    # Qwen3-Next: 36 states of (8192 · 3 · 2 + 32 · 128 · 128 · 4) bytes, 12 attention layers of 2048 a token.
    model = load_model("Qwen/Qwen3-Next-80B-A3B-Instruct")
    state, attention = 36 * (8192 * 6 + 32 * 128 * 128 * 4), 12 * 2048
    found = pool(model, 40 * GIB, max_num_seqs=16)
    tokens = (40 * GIB - 16 * state) // (attention + state // 256)
    assert found.num_blocks == tokens // 32
    assert f"{16 + 1 + tokens // 256} states" in found.notes[2]
    without = pool(model, 40 * GIB, max_num_seqs=16, prefix_caching=False)
    assert without.num_blocks == (40 * GIB - 16 * state) // attention // 32
    # 2048 requests by default: 158 GB of states.
    assert not pool(model, 40 * GIB).fits_one


def test_stages():
    # 32 layers over 3 stages: 11, 11, 10
    found = pool(GQA, GIB, pp=3)
    assert found.num_tokens == GIB // (11 * 4096) // 32 * 32
    assert profile().held(GQA, deployment(pp=3), 33, 2) == tuple(layers * 4096 * 64 * 2 for layers in (11, 11, 10))


def test_the_account():
    gpu = find_gpu("H100")
    (account,) = profile().budget(GQA, deployment(gpu=gpu), (16 * GIB,))
    # (device − peak) · 0.9
    peak = sum(item.num_bytes for item in account.taken)
    assert account.kv_memory_bytes == int((gpu.visible_bytes - peak) * 0.9)
    weights = next(item for item in account.taken if item.name == "weights")
    assert weights.num_bytes == 16 * GIB
    assert {item.basis for item in account.taken if item is not weights} == {"assumed"}
    assert account.spread_bytes > GIB
    with pytest.raises(InputError, match="GPU"):
        profile().budget(GQA, deployment(), (GIB,))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tp": 3}, "32 heads"),
        ({"dcp": 2}, "context parallelism"),
        ({"pp": 64}, "stages"),
        ({"speculative_method": "mtp"}, "multi-token"),
    ],
)
def test_what_it_refuses(given, words):
    with pytest.raises(InputError) as error:
        pool(GQA, GIB, **given)
    assert words in str(error.value)


def test_what_cannot_be_told():
    with pytest.raises(InputError, match="not known"):
        pool(GQA, None)
    with pytest.raises(InputError, match="one format"):
        profile().pool(GQA, replace(deployment(), value_dtype=parse_kv_dtype("fp8")), GIB)
    with pytest.raises(InputError, match="does not serve"):
        pool(load_model("openai/whisper-large-v3"), GIB)
    with pytest.raises(InputError, match="no attention"):
        pool(load_model("BAAI/bge-m3"), GIB)
    with pytest.raises(UnsupportedError, match="compressed"):
        pool(load_model("deepseek-ai/DeepSeek-V4-Flash"), GIB)
    with pytest.raises(UnsupportedError, match="mamba1"):
        pool(load_model("ai21labs/AI21-Jamba-1.5-Mini"), GIB)
    assert not pool(GQA, 1000).fits_one


@given(st.integers(1, 20_000), st.integers(1, 64))
def test_whole_blocks_are_held(tokens, requests):
    (held,) = profile().held(GQA, deployment(), tokens, requests)
    need = requests * tokens * 131_072
    assert need <= held < need + requests * 32 * 131_072
    assert sum(profile().kinds(GQA, deployment(), tokens, requests).values()) == held


def test_held_takes_arrays():
    tokens, requests = np.array([[1, 500, 70_000]]), np.array([[1], [32]])
    for name, switches in (("openai/gpt-oss-20b", {"hybrid_manager": True}), ("Qwen/Qwen3-Next-80B-A3B-Instruct", {})):
        (table,) = profile().held(load_model(name), deployment(**switches), tokens, requests)
        for i, r in enumerate((1, 32)):
            for j, t in enumerate((1, 500, 70_000)):
                assert table[i][j] == profile().held(load_model(name), deployment(**switches), t, r)[0]


def test_version():
    assert find_engine("tensorrt-llm@1.2.1").version == "1.2"
    assert find_engine("trtllm@2.0").newer == "2.0"
    with pytest.raises(InputError, match=r"0\.9"):
        find_engine("trtllm@0.9")


def test_a_checkpoint_in_fp32_is_to_be_converted():
    model = spec(LLAMA, torch_dtype="float32")
    with pytest.raises(InputError, match="fp32") as error:
        estimate(model, engine="trtllm")
    assert "--dtype bf16" in error.value.hint
    with pytest.raises(InputError) as error:
        estimate(model, engine="trtllm", kv_dtype="fp32", dtype="bf16")
    assert "--dtype" not in error.value.hint
    assert estimate(model, engine="trtllm", dtype="bf16").kv_cache.dtype == "bf16"
