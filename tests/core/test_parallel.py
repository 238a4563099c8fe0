"""Layouts that engines have beyond tensor and pipeline parallelism: experts, attention and tokens over ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan import InputError, estimate, kv_pool, load_model
from kvplan.core.engines.deployment import Switches
from kvplan.core.layout import stage_weights
from kvplan.core.serving import resolve
from tests.models import LLAMA, spec

GIB = 2**30
# Mixtral's shape at one layer's size: 8 experts of 3 · 4096 · 14336, attention of 4096 · (4096 + 1024 + 1024 + 4096).
EXPERT, ATTENTION = 3 * 4096 * 14336, 4096 * (4096 + 1024 + 1024 + 4096)


def weights(model, **how):
    switches = Switches(**{name: how.pop(name) for name in ("expert_parallel", "attention_dp") if name in how})
    return stage_weights(model, resolve(model, seq_len=64, engine=how.pop("engine", "vllm"), switches=switches, **how))


def mixtral():
    return load_model("mistralai/Mixtral-8x7B-v0.1")


def test_experts_are_dealt_out_whole():
    cut, dealt = weights(mixtral(), tp=2)[0], weights(mixtral(), tp=2, expert_parallel=True)[0]
    assert cut == dealt  # 8 experts halved, or 4 of them whole
    assert weights(mixtral(), tp=2, dp=2, expert_parallel=True)[0] == dealt - 32 * 2 * EXPERT * 2
    # Of 16 ranks each has one of 8 experts, more than a sixteenth of each.
    assert weights(mixtral(), tp=16, expert_parallel=True)[0] == weights(mixtral(), tp=16)[0] + 32 * EXPERT // 2 * 2


def test_attention_over_data_parallel_ranks_is_held_whole():
    plain = weights(mixtral(), tp=8, engine="sglang")[0]
    apart = weights(mixtral(), tp=8, dp=8, engine="sglang", attention_dp=True)[0]
    # tp 8: an eighth of the query heads, one of 8 KV heads; apart: all of them.
    assert apart - plain == 32 * 2 * (ATTENTION - ATTENTION // 8)


def test_gpus_are_counted_with_their_replicas():
    def gpus(**how):
        return resolve(spec(), seq_len=64, engine="vllm", **how).num_gpus

    assert gpus(tp=2, pp=2) == 4
    assert gpus(tp=2, pp=2, dp=3) == 12
    assert resolve(spec(), seq_len=64, engine="vllm", dp=2, num_gpus=8).tp == 4
    sglang = resolve(spec(), seq_len=64, engine="sglang", tp=4, dp=4, switches=Switches(attention_dp=True))
    assert (sglang.num_gpus, sglang.attention_tp) == (4, 1)


def test_decode_context_parallelism_takes_no_gpus_and_doubles_tokens():
    model = load_model("meta-llama/Llama-2-70b")
    plain, halved = (kv_pool(model, kv_memory_bytes=8 * GIB, tp=16, dcp=dcp, max_model_len=4096) for dcp in (1, 2))
    assert (plain.num_blocks, halved.num_tokens) == (halved.num_blocks, 2 * plain.num_tokens)


def test_an_uneven_pipeline_is_ruled_by_its_tightest_stage():
    # 32 layers of 16,384 bytes a token, 16 tokens a block: 24 of them are 6 MiB.
    found = kv_pool(spec(), kv_memory_bytes=6 * GIB, pp=2, stage_layers=(8, 24), max_model_len=4096)
    assert (found.bytes_per_block, found.num_blocks) == (6 * 2**20, 1024)
    even = kv_pool(spec(), kv_memory_bytes=6 * GIB, pp=2, max_model_len=4096)
    assert even.num_blocks == 1536


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ({"engine": "exact", "dp": 2}, "`dp` is an engine's"),
        ({"engine": "transformers", "dcp": 2}, "`dcp` is an engine's"),
        ({"engine": "vllm", "dp": 0}, "`dp` is 0"),
        ({"engine": "sglang", "tp": 4, "dp": 3, "attention_dp": True}, "`dp` 3 does not divide `tp` 4"),
        ({"engine": "vllm", "swa_full": True}, "engine `vllm` has no option `swa_full`"),
        ({"engine": "exact", "block_size": 16}, "engine `exact` has no option `block_size`"),
        ({"engine": "vllm", "blocksize": 16}, "`blocksize` is no option of vllm"),
        ({"engine": "vllm", "max_num_seqs": -1}, "`max_num_seqs` cannot be -1"),
    ],
)
def test_layouts_and_options_that_make_no_sense(how, word):
    with pytest.raises(InputError, match=word):
        estimate(spec(), seq_len=64, **how)


@given(tp=st.sampled_from([1, 2, 4, 8]), pp=st.integers(1, 4), batch=st.integers(1, 8), n=st.integers(1, 9000))
def test_rows_of_a_pool_sum_to_what_is_reserved(tp, pp, batch, n):
    model = spec({**LLAMA, "num_key_value_heads": 8})
    plan = estimate(model, seq_len=n, batch_size=batch, engine="vllm", tp=tp, pp=pp)
    assert sum(row.reserved_bytes for row in plan.kv_cache.layers) == plan.kv_cache.reserved_bytes
    assert plan.kv_cache.reserved_bytes >= plan.kv_cache.needed_bytes
    assert sum(use.kv_cache_bytes for use in plan.per_gpu) >= plan.kv_cache.reserved_bytes
