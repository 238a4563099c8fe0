"""vLLM's pool, held to what vLLM 0.33's own planning made of 436 configurations, and to the numbers of its unit tests.

`tests/data/engines/vllm.jsonl`: the engine's code, run with its device queries stubbed: a configuration, flags, a budget,
and the groups, blocks, tokens and concurrency that came out (`make_vllm.py` ran it). `configs.jsonl` has the configurations.
"""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan import InputError, UnsupportedError
from kvplan.core.dtypes import parse_dtype, parse_kv_dtypes
from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.table import find_engine
from kvplan.core.engines.vllm.drafts import draft_class
from kvplan.core.engines.vllm.groups import bytes_per_block, groups_of
from kvplan.core.engines.vllm.pages import Holding, Spec, blocks_for
from kvplan.core.engines.vllm.pool import layout
from kvplan.core.engines.vllm.rules import RULES, rules_of
from kvplan.core.hardware import Gpu
from kvplan.sources.catalog import load
from tests.models import LLAMA, spec

DATA = Path(__file__).parents[2] / "data" / "engines"
ROWS = [json.loads(line) for line in (DATA / "vllm.jsonl").read_text().splitlines()]
GIB = 2**30


@cache
def configs():
    rows = map(json.loads, (DATA / "configs.jsonl").read_text().splitlines())
    return {row["model"]: row["config"] for row in rows}


def deployment(**given):
    arch = given.pop("arch", "9.0")
    dtype = parse_dtype(given.pop("dtype", "bf16"))
    kv_dtype = given.pop("kv_dtype", "auto")
    key, value = (dtype, dtype) if kv_dtype == "auto" else parse_kv_dtypes(kv_dtype)
    names = {name: given.pop(name) for name in ("tp", "pp", "dcp", "pcp", "max_model_len") if name in given}
    gpu = Gpu(name="a GPU", memory_bytes=80 * GIB, arch=arch)
    return Deployment(
        dtype=dtype,
        key_dtype=key,
        value_dtype=value,
        gpu=gpu,
        switches=Switches(**given),
        **{"max_model_len": 8192} | names,
    )


def pool(model, num_bytes, version="vllm", **given):
    return find_engine(version).pooled.pool(model, deployment(**given), num_bytes)


def draft_of(row):
    """The model that drafts, read as the class that vLLM runs it as."""
    config = row.get("draft")
    if config is None:
        return None
    config = configs()[config] if isinstance(config, str) else config
    known = draft_class(spec(config), row["switches"]["speculative_method"])
    return spec(config if known is None else config | {"architectures": [known]})


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_pool_is_what_the_engine_plans(row):
    switches = {name: tuple(v) if isinstance(v, list) else v for name, v in row["switches"].items()}
    how = {name: row[name] for name in ("dtype", "kv_dtype", "tp", "pp", "dcp", "max_model_len")}
    model = spec(configs()[row["model"]])
    asked = replace(deployment(arch=row["gpu"], **how, **switches), draft=draft_of(row))
    found = find_engine("vllm").pooled.pool(model, asked, row["kv_memory_bytes"])
    want = row["expect"]
    assert found.num_blocks == want["num_blocks"]
    assert found.num_tokens == want["num_tokens"]
    assert found.max_concurrency == want["max_concurrency"]
    if "bytes_per_block" in want:
        assert found.bytes_per_block == want["bytes_per_block"]
    if len(found.groups) > 1:
        laid = layout(model, asked, RULES_NOW)
        pages = [group.page_bytes() if laid.is_packed else group.first.page_bytes for group in laid.groups]
        ours = [[g.num_layers, g.block_size, page] for g, page in zip(found.groups, pages, strict=True)]
        assert sorted(ours) == sorted(want["groups"])


# vLLM's own tests (tests/v1/core/test_kv_cache_utils.py): block 16, 2 KV heads of 64 in fp32, window 1, length 16.
def layer(kind, head_dim=64, window=None):
    token = 2 * 2 * head_dim * 4
    return Spec(kind=kind, block_size=16, token_bytes=token, shape=(2, head_dim), window=window)


FULL, SLIDING = layer("full"), layer("sliding", window=1)
RULES_NOW = rules_of(None)[0]


@pytest.mark.parametrize(
    ("layers", "available", "hybrid", "sizes", "num_blocks"),
    [
        ([FULL, FULL], 1048576, True, [2], 32),
        ([FULL, SLIDING], 1048576, True, [1, 1], 64),
        ([FULL, SLIDING], 1048576, False, [2], 32),
        ([FULL, SLIDING, SLIDING, FULL, SLIDING, SLIDING], 1048576, True, [2, 2, 2], 32),
        ([FULL] * 3 + [SLIDING] * 7, 1572864, True, [3, 3, 2, 2], 32),
        ([FULL] * 6 + [SLIDING] * 5, 3145728, True, [6, 5], 32),
        ([layer("full", 128), FULL], 1572864, True, [2], 32),
        ([FULL, layer("sliding", 32, window=1)], 524288, True, [1, 1], 32),
        ([FULL, layer("sliding", 96, window=1)], 1048576, True, [1, 1], 42),
    ],
)
def test_groups_of_the_engines_own_tests(layers, available, hybrid, sizes, num_blocks):
    groups = groups_of(list(enumerate(layers)), RULES_NOW, hybrid=hybrid)
    assert sorted(len(group.layers) for group in groups) == sorted(sizes)
    assert available // bytes_per_block(groups) == num_blocks


def test_groups_interleave_so_that_stages_share_them():
    layers = [FULL, SLIDING, SLIDING, FULL, SLIDING, SLIDING]
    groups = groups_of(list(enumerate(layers)), RULES_NOW, hybrid=True)
    assert [[i for i, _ in group.layers] for group in groups] == [[0, 3], [1, 4], [2, 5]]


def test_smaller_pages_get_longer_blocks():
    groups = groups_of([(0, FULL), (1, layer("sliding", 32, window=1))], RULES_NOW, hybrid=True)
    assert [group.first.block_size for group in groups] == [16, 32]


def holding(**changes):
    plain = {"in_flight_tokens": 1024, "extra_tokens": 0, "encoder_tokens": 0, "dcp": 1, "aligned": False}
    return Holding(**{**plain, "num_speculative_tokens": 0, **changes})


def test_blocks_of_one_request_by_hand():
    window = Spec(kind="sliding", block_size=16, token_bytes=1, window=1024)
    assert blocks_for(window, 16384, holding()) == 129  # ⌈(1023 + 1024) / 16⌉ + 1, vLLM's own test
    assert blocks_for(FULL, 16384, holding()) == 1024
    assert blocks_for(FULL, 16384, holding(dcp=8)) == 128
    chunk = Spec(kind="chunked", block_size=16, token_bytes=1, window=8192)
    assert blocks_for(chunk, 1_000_000, holding()) == 576  # (8192 + 1024) / 16
    state = Spec(kind="linear", block_size=528, state_bytes=1, recurrent=True, checkpoints=1)
    assert blocks_for(state, 16384, holding()) == 1
    assert blocks_for(state, 16384, holding(aligned=True)) == 3
    assert blocks_for(state, 16384, holding(aligned=True, num_speculative_tokens=2)) == 5


def test_a_model_without_caches_has_no_groups():
    assert groups_of([], RULES_NOW, hybrid=True) == []


def test_start_up_check_holds_one_block_back():
    # 32 layers · 2 · 32 heads · 128 · 2 bytes · 16 = 8 MiB a block; 8 GiB = 1024 blocks = 16,384 tokens.
    llama = spec({**LLAMA, "torch_dtype": "float16"})
    short = pool(llama, 8 * GIB, dtype="fp16", max_model_len=16384, max_num_batched_tokens=8192)
    assert (short.num_blocks, short.fits_one, short.longest_request) == (1024, False, 16368)
    before = pool(llama, 8 * GIB, "vllm@0.19", dtype="fp16", max_model_len=16385, max_num_batched_tokens=8192)
    assert (before.fits_one, before.longest_request) == (False, 16384)


def test_older_versions_check_all_stages_against_one_rank():
    # Qwen3-30B-A3B: 48 layers · 2,048 bytes a token; a log of 0.15 at pp 2 with 3.18 GiB says 34,736 at most.
    model = load("Qwen/Qwen3-30B-A3B")
    longest = [
        pool(model, int((3.18 + half) * GIB), "vllm@0.15.2", pp=2, max_model_len=262_144, max_num_batched_tokens=2048)
        for half in (-0.005, 0.005)
    ]
    assert longest[0].longest_request <= 34_736 <= longest[1].longest_request
    assert longest[0].num_tokens > 2 * 34_000


def test_deepseek_v32_packs_rows_on_hopper_and_not_on_blackwell():
    model = load("deepseek-ai/DeepSeek-V3.2")
    sizes = {}
    for name, arch, kv_dtype in (("bf16", "9.0", "auto"), ("h100", "9.0", "fp8"), ("b200", "10.0", "fp8")):
        found = pool(model, 60 * GIB, tp=8, arch=arch, kv_dtype=kv_dtype, max_num_batched_tokens=8192)
        assert (found.block_size, len(found.groups), found.groups[0].num_layers) == (64, 1, 122)
        sizes[name] = found.bytes_per_block
    assert sizes == {"bf16": 5_012_736, "h100": 3_076_352, "b200": 2_764_032}


@pytest.mark.parametrize(
    ("flags", "tokens"),
    [
        ({"async_scheduling": True, "max_num_batched_tokens": 8192}, 628_654),
        ({"async_scheduling": False, "max_num_batched_tokens": 8192}, 1_047_212),
    ],
)
def test_a_window_keeps_what_is_in_flight(flags, tokens):
    model = load("mistralai/Mistral-7B-v0.1")
    found = pool(model, 48 * GIB + 12_345, max_model_len=32768, **flags)
    assert found.num_tokens == tokens


@pytest.mark.parametrize(
    ("flags", "block"),
    [
        ({}, 576), ({"prefix_caching": False}, 544), ({"tp": 4}, 320), ({"kv_dtype": "fp8"}, 1088),
        ({"num_speculative_tokens": 2, "prefix_caching": False}, 560),
    ],
)  # fmt: skip
def test_blocks_grow_to_hold_a_state(flags, block):
    # Qwen3-Next: 49,152 + 1,048,576 bytes of columns and states, 2 · 2 · 256 · 2 = 2,048 bytes a token.
    # With 2 speculative tokens the columns are 5 · 8,192 · 2 = 81,920: ⌈1,130,496 / 2,048 / 16⌉ · 16 = 560.
    model = load("Qwen/Qwen3-Next-80B-A3B-Instruct")
    assert pool(model, 40 * GIB, max_num_batched_tokens=8192, **flags).block_size == block


@pytest.mark.parametrize(
    ("model", "version", "gib", "length", "flags", "tokens", "requests"),
    [
        # Public start-up logs: what was available, and what the engine made of it.
        ("google/gemma-3-27b-it", "0.19", 19.53, 8192, {}, 36_560, 4.46),
        ("google/gemma-2-27b-it", "0.19", 20.59, 8192, {}, 58_672, 7.16),
        ("openai/gpt-oss-20b", "0.19", 59.32, 8192, {"tp": 2}, 2_591_776, 316.07),
        ("Qwen/Qwen3-8B", "0.9.2", 18.69, 40960, {}, 136_080, 3.32),
        # A latent of 576 elements is padded to 640: 27 · 640 · 2 · 16 = 552,960 bytes a block.
        ("deepseek-ai/DeepSeek-V2-Lite", "0.7", 14.96, 100_000, {}, 464_880, 4.65),
        # EAGLE adds a layer: 33 · 4,096 · 16 bytes a block.
        (
            "meta-llama/Llama-3.1-8B",
            "0.9.1",
            51.63,
            131_072,
            {"num_speculative_tokens": 3, "speculative_method": "eagle"},
            410_128,
            3.13,
        ),
        # States of 30 layers in fp32, an fp8 cache: blocks of 2,096 tokens.
        ("Qwen/Qwen3.5-35B-A3B", "0.17.1rc1", 5.18, 262_144, {"kv_dtype": "fp8"}, 134_144, None),
    ],
)
def test_printed_tokens_and_requests_of_older_versions(model, version, gib, length, flags, tokens, requests):
    low, high = (
        pool(load(model), int((gib + half) * GIB), f"vllm@{version}", max_model_len=length,
             max_num_batched_tokens=8192, **flags)
        for half in (-0.005, 0.005)
    )  # fmt: skip
    assert low.num_tokens <= tokens <= high.num_tokens
    if requests is None:
        return
    assert round(low.max_concurrency, 2) <= requests <= round(high.max_concurrency, 2)


def test_rules_run_from_old_to_new_and_a_newer_version_says_so():
    assert list(RULES) == sorted(RULES, key=lambda version: tuple(map(int, version.split("."))))
    assert find_engine("vllm").newer is None
    assert find_engine("vllm@0.33.2").newer is None
    assert find_engine("vllm@0.41").newer == "0.41"
    assert find_engine("vllm@0.19.1").version == "0.19.1"
    with pytest.raises(InputError, match="knows no version of vllm as old as"):
        find_engine("vllm@0.0.1")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"tp": 3}, "32 attention heads of `test/model` cannot be dealt out to `tp` 3"),
        ({"tp": 4, "dcp": 3}, "`dcp` 3 does not divide `tp` 4"),
        ({"tp": 8, "dcp": 2}, "`dcp` 2 needs 2 replicas of each KV head"),
        ({"pcp": 2}, "`pcp` needs latent attention"),
        ({"arch": "7.5"}, "has no bf16"),
        ({"arch": "7.5", "dtype": "fp16", "kv_dtype": "fp8"}, "reads an fp8 KV cache from compute capability 8.9 on"),
        ({"arch": "8.0", "kv_dtype": "fp8_per_token_head"}, "reads an fp8 KV cache from compute capability 8.9 on"),
        ({"kv_dtype": "fp8/bf16"}, "vLLM holds keys and values in one format"),
        ({"pp": 2, "stage_layers": (10, 10)}, "10, 10 are not 32 layers on 2 stages"),
        ({"max_num_seqs": 512, "max_num_batched_tokens": 256}, "is less than `max_num_seqs` 512"),
        ({"num_speculative_tokens": 3}, "3 speculative tokens, but nothing says what drafts them"),
        ({"block_size": 24}, "no attention kernel of vLLM takes blocks of 24 tokens"),
    ],
)
def test_what_the_engine_refuses_is_refused(flags, sentence):
    model = spec({**LLAMA, "num_key_value_heads": 8})
    with pytest.raises(InputError, match=sentence):
        find_engine("vllm").pooled.check(model, deployment(**flags))


def test_cross_attention_of_images_was_charged_like_full_attention():
    # Llama-3.2-11B-Vision: 40 layers · 2 · 8 heads · 128 · 2 bytes · 16 tokens.
    found = pool(load("meta-llama/Llama-3.2-11B-Vision-Instruct"), 4 * GIB, "vllm@0.6.3", max_num_batched_tokens=2048)
    assert (found.bytes_per_block, len(found.groups)) == (40 * 4096 * 16, 1)


def test_models_that_it_does_not_run_are_refused():
    check = find_engine("vllm").pooled.check
    with pytest.raises(UnsupportedError, match=r"vLLM 0\.33 does not run `t5`"):
        check(load("google-t5/t5-large"), deployment())
    find_engine("vllm@0.9").pooled.check(load("meta-llama/Llama-3.2-11B-Vision-Instruct"), deployment())


def test_a_recurrence_that_it_does_not_run_is_refused():
    with pytest.raises(UnsupportedError, match="does not run the recurrence"):
        pool(load("google/recurrentgemma-2b"), GIB, max_num_batched_tokens=2048)


MODELS = st.sampled_from(
    ["meta-llama/Llama-3.1-8B", "google/gemma-3-27b-it", "openai/gpt-oss-20b", "deepseek-ai/DeepSeek-V3",
     "Qwen/Qwen3-Next-80B-A3B-Instruct", "mistralai/Mistral-7B-v0.1", "ai21labs/AI21-Jamba-1.5-Mini"]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    name=MODELS, length=st.integers(1, 200_000), kib=st.integers(1, 60 * 2**20), version=st.sampled_from(list(RULES))
)
def test_laws_of_the_pool(name, length, kib, version):
    given_ = {"max_model_len": length, "max_num_batched_tokens": 2048}
    found = pool(load(name), kib * 1024, f"vllm@{version}", **given_)
    assert found.allocated_bytes <= found.kv_memory_bytes
    assert found.kv_memory_bytes - found.allocated_bytes < found.bytes_per_block
    more = pool(load(name), kib * 2048, f"vllm@{version}", **given_)
    assert more.num_tokens >= found.num_tokens
    # Tight: the longest request fits, one token more does not.
    rules = rules_of(version)[0]
    laid = layout(load(name), deployment(**given_), rules)
    usable = found.num_blocks - int(rules.null_block)
    assert found.longest_request == 0 or laid.request_blocks(found.longest_request) <= usable
    assert found.fits_one or laid.request_blocks(found.longest_request + 1) > usable


@settings(max_examples=40, deadline=None)
@given(name=MODELS, tokens=st.integers(1, 100_000), requests=st.integers(1, 64))
def test_what_requests_hold_is_at_least_what_they_need(name, tokens, requests):
    from kvplan import estimate

    model = load(name)
    need = estimate(model, seq_len=tokens, batch_size=requests).kv_cache
    states = sum(row.needed_bytes for row in need.layers if row.kind in ("linear", "conv"))
    held = find_engine("vllm").pooled.held(model, deployment(max_num_batched_tokens=2048), tokens, requests)
    # States: vLLM keeps a column less, and states in the model's dtype where transformers has fp32.
    assert sum(held) >= need.needed_bytes - states


def test_lengths_may_be_arrays():
    import numpy as np

    model = load("google/gemma-3-27b-it")
    held = find_engine("vllm").pooled.held
    how = deployment(max_num_batched_tokens=2048)
    tokens = np.array([1, 1000, 5000, 131072], dtype=np.int64)
    assert held(model, how, tokens, 3)[0].tolist() == [held(model, how, int(n), 3)[0] for n in tokens]


def test_override_replaces_the_number_of_blocks():
    found = pool(spec(), 48 * GIB, max_num_batched_tokens=2048, num_gpu_blocks_override=777)
    assert found.num_blocks == 777
    assert replace(found).num_tokens == 777 * 16
