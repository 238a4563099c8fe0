"""The inverse: figures worked by hand for a pool of a known size, and laws over what `boot` says."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kvplan
from kvplan import InputError, load_model
from kvplan.core.boot import boot
from kvplan.core.fit import Wanted, fit, told
from kvplan.core.fit.places import fewest
from kvplan.core.fit.search import last_true
from kvplan.core.fit.trial import Case
from kvplan.core.hardware import Gpu
from kvplan.core.serving import resolve
from kvplan.core.units import GIB
from tests.models import spec

GQA = spec(num_key_value_heads=8, max_position_embeddings=131072)
"""Llama-3-8B's attention: 32 layers · 8 heads · 128 · 2 (K, V) · 2 bytes = 131,072 bytes a token, 2 MiB a block."""
GEMMA = load_model("google/gemma-3-27b-it")
CHEAP = settings(max_examples=25)


def gpu(gib, arch="9.0"):
    return Gpu(name="test", vendor="NVIDIA", memory_bytes=int(gib * GIB), arch=arch)


def served(model=GQA, gib=24, engine="vllm", length=4096, **given):
    return resolve(model, seq_len=length, engine=engine, gpu=gpu(gib), **given)


def test_one_request_in_a_pool_of_a_known_size():
    # 1 GiB are 512 blocks of 2 MiB; one is the null block, so 511 · 16 = 8176 tokens (vLLM 0.33).
    found = kvplan.fit(GQA, kv_memory_bytes=GIB, max_model_len=-1)
    assert (found.max_model_len, found.concurrency, found.fits) == (8176, 1, True)
    assert found.boot.pool.num_blocks == 512
    # Before 0.24 no block is held back.
    assert kvplan.fit(GQA, engine="vllm@0.21", kv_memory_bytes=GIB, max_model_len=-1).max_model_len == 8192


def test_many_requests_in_a_pool_of_a_known_size():
    # 512 blocks for 4 requests are 128 blocks of 16 tokens each.
    assert kvplan.fit(GQA, kv_memory_bytes=GIB, concurrency=4).max_model_len == 2048
    # 2048 tokens are 128 blocks, 512 / 128 = 4; one token more is 129 blocks, 512 / 129 = 3.97.
    assert kvplan.fit(GQA, kv_memory_bytes=GIB, max_model_len=2048).concurrency == 4
    assert kvplan.fit(GQA, kv_memory_bytes=GIB, max_model_len=2049).concurrency == 3


def test_the_models_own_limit_binds():
    found = kvplan.fit(spec(num_key_value_heads=8), kv_memory_bytes=GIB)
    # 4096 tokens are 256 blocks: two of them.
    assert (found.max_model_len, found.concurrency, found.bound) == (4096, 2, "model")


def test_what_does_not_fit_says_how_much_there_is():
    found = kvplan.fit(GQA, kv_memory_bytes=GIB, max_model_len=4096, concurrency=3)
    assert (found.fits, found.concurrency, found.bound) == (False, 2, "cache")
    yields = {change.code: (change.max_model_len, change.concurrency) for change in found.changes}
    # fp8 halves a block, so 1024 blocks hold 4; 3 requests share 512 blocks: 170 · 16 = 2720 tokens.
    assert yields["kv_dtype"] == (4096, 4)
    assert yields["shorter"] == (2720, 3)
    assert yields["fewer"] == (4096, 2)


def test_a_context_of_llama_cpp_is_that_of_all_requests():
    # 1 GiB are 8192 cells of 131,072 bytes: four sequences of 2048.
    found = kvplan.fit(GQA, engine="llamacpp", kv_memory_bytes=GIB, concurrency=4)
    assert (found.max_model_len, found.serving.seq_len, found.concurrency) == (2048, 8192, 4)
    assert found.serving.switches.max_num_seqs == 4
    # 3000 tokens are 12 · 256 cells: two sequences of 3072 cells fit into 8192, three do not.
    assert kvplan.fit(GQA, engine="llamacpp", kv_memory_bytes=GIB, max_model_len=3000).concurrency == 2


@given(low=st.integers(-50, 50), span=st.integers(0, 200), last=st.integers(0, 200))
def test_bisection_finds_the_last_that_holds(low, span, last):
    high, last = low + span, min(low + last, low + span)
    assert last_true(low, high, lambda n: n <= last) == last


@CHEAP
@given(
    gib=st.floats(18, 90),
    requests=st.integers(1, 40),
    engine=st.sampled_from(["vllm", "vllm@0.11", "sglang", "trtllm", "llamacpp"]),
)
def test_the_longest_fits_and_a_token_more_does_not(gib, requests, engine):
    serving = served(gib=gib, engine=engine)
    found = fit(GQA, serving, Wanted(concurrency=requests))
    case = Case(model=GQA, serving=serving)
    limits = {None, requests}
    if not found.fits:
        assert all(case.at(1, limit).concurrency < requests for limit in limits)
        return
    assert boot(GQA, found.serving).starts
    assert case.at(found.max_model_len, found.serving.switches.max_num_seqs).concurrency >= requests
    if found.max_model_len < GQA.max_seq_len:
        assert all(case.at(found.max_model_len + 1, limit).concurrency < requests for limit in limits)


@CHEAP
@given(gib=st.floats(18, 90), length=st.integers(1, 60_000), engine=st.sampled_from(["vllm", "sglang", "llamacpp"]))
def test_so_many_requests_fit_and_one_more_does_not(gib, length, engine):
    serving = served(gib=gib, engine=engine, length=length)
    found = fit(GQA, serving, Wanted(max_model_len=length))
    case = Case(model=GQA, serving=serving)
    if not found.fits:
        assert case.at(length, 1).concurrency == 0
        return
    assert case.at(length, found.serving.switches.max_num_seqs).concurrency == found.concurrency
    assert case.at(length, found.concurrency + 1).concurrency <= found.concurrency


def test_the_limit_of_requests_costs_memory_and_is_searched_with_it():
    # A vocabulary of 152,000: the sampler of 1024 rows takes more than that of as many as the cache holds.
    model = spec(num_key_value_heads=8, vocab_size=152_064, max_position_embeddings=131072)
    serving = resolve(model, seq_len=16384, engine="vllm", gpu=gpu(80))
    own, found = boot(model, serving).pool.max_concurrency, fit(model, serving, Wanted(max_model_len=16384))
    assert found.concurrency >= int(own)
    limit = found.serving.switches.max_num_seqs
    assert limit in (None, found.concurrency)
    assert fit(model, replace(serving, switches=replace(serving.switches, max_num_seqs=4)), Wanted(
        max_model_len=16384
    )).concurrency == 4  # fmt: skip


@settings(max_examples=10)
@given(gib=st.floats(18, 60), more=st.floats(0, 30), requests=st.integers(1, 16))
def test_more_memory_never_gives_less(gib, more, requests):
    want = Wanted(concurrency=requests)
    small, large = (fit(GQA, served(gib=size), want) for size in (gib, gib + more))
    assert large.fits >= small.fits
    if small.fits:
        assert large.max_model_len >= small.max_model_len


@CHEAP
@given(gib=st.floats(20, 60), length=st.integers(256, 20_000), requests=st.integers(1, 8))
def test_the_least_share_is_the_least(gib, length, requests):
    found = fit(GQA, served(gib=gib, length=length), Wanted(max_model_len=length, concurrency=requests))
    least, safe = found.share.least, found.share.safe

    def holds(share):
        serving = replace(served(gib=gib, length=length), gpu_memory_utilization=share, share_stated=True)
        limit = found.serving.switches.max_num_seqs
        return Case(model=GQA, serving=serving).at(length, limit).concurrency >= requests

    if least is None:
        assert not holds(safe)
        return
    assert holds(least)
    assert least == 0.01 or not holds(round(least - 0.01, 2))
    # What is safe leaves room for what lies outside, at the far end of its spread; a hundredth more does not.
    account = found.boot.accounts[0]
    outside = sum(item.num_bytes + item.spread_bytes for item in account.untaken)
    assert outside <= account.device_bytes * (1 - safe) + 1
    assert outside > account.device_bytes * (1 - safe - 0.01) - 1 or safe == 0.99


def test_lengths_are_searched_where_more_tokens_take_less_memory():
    # vLLM's first engine reads more than 32,768 tokens in chunks of 512 and so profiles less: a length between may fail
    # where a longer one starts (vllm-project/vllm#10517).
    model = spec(num_key_value_heads=8, vocab_size=152_064, max_position_embeddings=40_000)
    serving = resolve(model, seq_len=40_000, engine="vllm@0.5", gpu=gpu(26))
    case = Case(model=model, serving=serving)
    found = fit(model, serving, Wanted())
    longest = max(length for length in range(1, 40_001, 61) if case.at(length).concurrency)
    assert found.max_model_len >= longest
    assert case.at(found.max_model_len).concurrency
    assert case.at(32_768).concurrency < case.at(32_769).concurrency


def test_the_fewest_gpus_and_one_fewer_would_not_do():
    model = load_model("meta-llama/Llama-2-70b")
    found = kvplan.fit(model, "H100", concurrency=64)
    assert (found.serving.tp, found.serving.pp) == (3, 1) or found.serving.num_gpus == found.serving.tp
    assert found.fits
    fewer = kvplan.fit(model, "H100", found.serving.num_gpus - 1, max_model_len=4096, concurrency=64)
    assert not fewer.fits
    assert {change.code for change in fewer.changes} >= {"shorter", "num_gpus"}
    # What fewer GPUs hold is told beside the answer.
    assert [change.code for change in found.changes] == ["fewer_gpus"] * len(found.changes) != []


def test_between_powers_of_two_heads_have_to_divide():
    # 671 GB of weights are 168 GB on each of 4 GPUs, more than they have; 128 heads divide over none of 5, 6 and 7.
    assert kvplan.fit("deepseek-ai/DeepSeek-V3", "H200").serving.num_gpus == 8
    nine_heads = spec(num_attention_heads=9, num_key_value_heads=3, hidden_size=9 * 128, intermediate_size=98304)
    assert [laid.num_gpus for laid in fewest(nine_heads, served(nine_heads, gib=1000))][:4] == [1, 2, 3, 4]
    # llama.cpp deals out whole layers: any number of devices does.
    devices = fewest(GQA, served(gib=100, engine="llamacpp"))
    assert [next(devices).num_gpus for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]


def test_layouts_stay_within_a_node_and_divide_heads():
    model = load_model("meta-llama/Llama-2-70b")
    layouts = {n: kvplan.fit(model, "H100", n).serving for n in (6, 8, 12, 16)}
    # 64 heads and 8 KV heads: tp 3, 6 divide neither; past 8 GPUs pipeline stages.
    assert {n: (s.tp, s.pp) for n, s in layouts.items()} == {6: (2, 3), 8: (8, 1), 12: (4, 3), 16: (8, 2)}
    with pytest.raises(InputError, match="no layout over 89 GPUs"):
        kvplan.fit(model, "H100", 89)


def test_the_widest_format_that_fits():
    # Of 1 GiB, 4096 tokens of 131,072 bytes are a half: two requests in bf16, four in fp8, no 8 in either; 7 in nvfp4,
    # which Hopper's kernels read from 0.32 on: 64 bytes and 8 of scales are 72 / 256 of a head in bf16.
    formats = {
        n: kvplan.fit(GQA, kv_memory_bytes=GIB, max_model_len=4096, concurrency=n, kv_dtype="best") for n in (2, 4, 7)
    }
    assert {n: f.serving.kv_dtype.name for n, f in formats.items()} == {2: "bf16", 4: "fp8", 7: "nvfp4"}
    # Turing has no kernel for fp8: there int8 with its scales holds 3 where fp16 holds 2.
    old = resolve(GQA, seq_len=4096, engine="vllm", gpu=gpu(24, arch="7.5"))
    want = Wanted(max_model_len=4096, concurrency=3, best_kv_dtype=True)
    assert fit(GQA, old, want, kv_memory_bytes=GIB).serving.kv_dtype.name == "int8"


def test_every_change_does_what_it_says():
    model = load_model("Qwen/Qwen3-8B")
    asked = {"max_model_len": 20480, "concurrency": 2}
    found = kvplan.fit(model, "L4", 1, **asked)
    assert not found.fits
    assert {change.code for change in found.changes} >= {"kv_dtype", "shorter", "fewer", "quant", "num_gpus"}
    for change in found.changes:
        started = boot(model, change.serving)
        assert started.starts, change.code
        assert change.concurrency >= (1 if change.code == "fewer" else 2)
        assert started.pool.max_concurrency >= change.concurrency
    by_code = {change.code: change for change in found.changes}
    options = dict(by_code["num_gpus"].options)
    assert kvplan.fit(model, "L4", tp=options["tp"], pp=options["pp"], **asked).fits


@pytest.mark.parametrize(
    ("name", "option"), [("openai/gpt-oss-120b", "num_cpu_moe_layers"), ("Qwen/Qwen3-32B", "num_gpu_layers")]
)
def test_llamacpp_leaves_as_few_layers_with_the_cpu_as_will_do(name, option):
    model = load_model(name)
    found = kvplan.fit(model, "RTX4090", 1, engine="llamacpp", max_model_len=8192)
    change = next(change for change in found.changes if change.code == option)
    number, step = change.options[option], 1 if option == "num_gpu_layers" else -1
    assert boot(model, change.serving).starts
    one_less = replace(change.serving, switches=replace(change.serving.switches, **{option: number + step}))
    assert not boot(model, one_less).starts


def test_the_range_is_what_the_account_spreads_to():
    found = kvplan.fit("Qwen/Qwen3-8B", "H100", 1, max_model_len=8192)
    low, high = found.concurrency_range
    pool, spread = found.boot.pool, found.boot.spread_bytes
    each = pool.blocks_per_request * pool.bytes_per_block
    assert low < found.max_concurrency < high
    assert high - low == pytest.approx(2 * spread / each, abs=0.01)
    longest = kvplan.fit("Qwen/Qwen3-8B", "L4", 1)
    assert longest.sure_max_model_len < longest.max_model_len


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "llamacpp"])
@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "Qwen/Qwen3-Next-80B-A3B-Instruct", "openai/gpt-oss-20b"])
def test_the_answer_lies_within_its_range(engine, name):
    found = kvplan.fit(name, "H100", 4, engine=engine, max_model_len=8192)
    low, high = found.concurrency_range
    assert found.fits
    assert low <= found.max_concurrency <= high


def test_the_curve_passes_through_the_answer():
    found = kvplan.fit(GEMMA, "H100", 1, max_model_len=65536)
    points = {point.max_model_len: point for point in found.curve}
    assert points[65536].concurrency == found.concurrency
    assert {2048, 4096, 8192} <= set(points)
    held = [point.concurrency for point in found.curve]
    assert held == sorted(held, reverse=True)
    # Where a window is full: 1023 + 2 · 8192 tokens in whole blocks, and one more.
    assert 17424 in points


def test_what_the_engine_is_told_is_what_was_set():
    found = kvplan.fit("Qwen/Qwen3-8B", "H100", 2, max_model_len=8192, kv_dtype="fp8", enforce_eager=True)
    options = told(found.model, found.serving)
    assert options.items() >= {"max_model_len": 8192, "kv_dtype": "fp8", "tp": 2, "enforce_eager": True}.items()
    assert "gpu_memory_utilization" not in options
    assert found.command.startswith("vllm serve Qwen/Qwen3-8B --max-model-len 8192")


def test_a_length_beyond_the_models_is_noted():
    assert "more than the 4,096" in " ".join(kvplan.fit(spec(), "H100", 1, max_model_len=8192).notes)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"engine": "exact", "gpu": "H100"}, "reserves no pool"),
        ({}, "needs a GPU, or the bytes of the pool"),
        ({"gpu": "GB10"}, "memory"),
        ({"gpu": "H100", "concurrency": 0}, "`concurrency` is 0"),
        ({"gpu": "H100", "max_model_len": -2}, "`max_model_len` is -2"),
        ({"gpu": "H100", "num_gpus": 0}, "`num_gpus` is 0"),
        ({"gpu": "H100", "nonsense": 1}, "`nonsense` is no option"),
        ({"gpu": "H100", "swa_full": True}, "has no option `swa_full`"),
    ],
    ids=["no pool", "no gpu", "unknown memory", "no requests", "negative", "no gpus", "unknown", "another engine's"],
)
def test_what_cannot_be_answered(asked, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        kvplan.fit(GQA, **asked)
    assert caught.value.hint


def test_a_model_without_a_cache_is_refused():
    with pytest.raises(InputError, match="keeps no cache"):
        kvplan.fit("BAAI/bge-small-en-v1.5", "H100")
