"""SGLang's logs: the figures of each file, typed in from it by hand, and wordings of other versions."""

import pytest

from kvplan.runtime.log import read_log
from tests.runtime.logs import by_rank, printed, read_one


def test_dense():
    seen = read_one("sglang-0.5-qwen3-8b.log")
    assert (seen.engine, seen.model, seen.num_gpus) == ("sglang", "Qwen/Qwen3-8B", 1)
    assert printed(seen) == {
        "device_free": [(78.58, "GiB", 0.005, None)],
        "weights": [(15.28, "GiB", 0.005, None)],
        "available_after_load": [(63.30, "GiB", 0.005, None)],
        "num_tokens": [(375_106, "tokens", 0.0, None)],
        "key_cache": [(25.76, "GiB", 0.005, None)],
        "value_cache": [(25.76, "GiB", 0.005, None)],
        "available_after": [(11.18, "GiB", 0.005, None)],
        "graphs": [(0.72, "GiB", 0.005, None)],
        "available_at_end": [(10.37, "GiB", 0.005, None)],
    }
    assert seen.options["gpu_memory_utilization"] == 0.85
    assert seen.options["max_model_len"] == 40_960
    assert seen.options["max_num_seqs"] == 4096
    assert seen.options["max_num_batched_tokens"] == 8192
    assert seen.options["tp"] == 1
    assert seen.unread == ()
    assert seen.facts == {"attention_backend": "fa3", "architecture": "Qwen3ForCausalLM", "kv_dtype": "bfloat16"}


def test_hybrid_on_four_ranks():
    seen = read_one("sglang-0.5-qwen3-next-tp4.log")
    assert (seen.model, seen.num_gpus, seen.options["tp"]) == ("Qwen/Qwen3-Next-80B-A3B-Instruct", 4, 4)
    for name, value in {
        "device_free": 77.96,
        "weights": 37.60,
        "available_after_load": 40.36,
        "state_slots": 753,
        "conv_cache": 0.31,
        "state_cache": 13.25,
        "num_tokens": 1_319_585,
        "key_cache": 7.55,
        "value_cache": 7.55,
        "available_after": 11.20,
        "graphs": 1.21,
    }.items():
        assert by_rank(seen, name) == {"TP0": value, "TP1": value, "TP2": value, "TP3": value}
    assert by_rank(seen, "available_at_end") == {"TP0": 9.84}
    assert seen.options["max_num_seqs"] == 251
    assert seen.options["max_model_len"] == 262_144


def _figures(lines):
    (seen,) = read_log(lines)
    return {name: [figure.value for figure in figures] for name, figures in seen.figures.items()}


def test_older_lines_say_less():
    assert _figures([
        "[2024-11-20 10:00:00 TP0] Load weight begin. avail mem=78.58 GB",
        "[2024-11-20 10:00:09 TP0] Load weight end. type=LlamaForCausalLM, dtype=torch.bfloat16, avail mem=63.53 GB",
        "[2024-11-20 10:00:09 TP0] Memory pool end. avail mem=8.32 GB",
        "[2024-11-20 10:00:20 TP0] max_total_num_tokens=430915, max_prefill_tokens=16384, max_running_requests=4097, "
        "context_len=131072",
    ]) == {
        "device_free": [78.58], "available_after_load": [63.53], "available_after": [8.32], "num_tokens": [430_915],
    }  # fmt: skip


def test_latent_keys_and_values_are_one():
    assert _figures(["KV Cache is allocated. dtype: torch.bfloat16, #tokens: 1912896, KV size: 14.37 GB"]) == {
        "num_tokens": [1_912_896],
        "kv_cache": [14.37],
    }


def test_sliding_layers_have_a_pool_of_their_own():
    """The pool of the sliding layers is made first; its slots are 0.8 of the others'."""
    assert _figures([
        "Use sliding window memory pool. full_layer_tokens=1165084, swa_layer_tokens=932067",
        "KV Cache is allocated. dtype: torch.bfloat16, #tokens: 932067, K size: 10.67 GB, V size: 10.67 GB",
        "KV Cache is allocated. dtype: torch.bfloat16, #tokens: 1165084, K size: 13.33 GB, V size: 13.33 GB",
        "max_total_num_tokens=1165084, chunked_prefill_size=8192, max_running_requests=4096, context_len=131072",
    ]) == {
        "full_tokens": [1_165_084], "swa_tokens": [932_067], "swa_key_cache": [10.67], "swa_value_cache": [10.67],
        "num_tokens": [1_165_084], "key_cache": [13.33], "value_cache": [13.33],
    }  # fmt: skip


def test_a_draft_model_is_the_second_that_a_rank_loads():
    assert _figures([
        "[2026-01-01 00:00:00] Load weight begin. avail mem=93.77 GB",
        "[2026-01-01 00:00:09] Load weight end. elapsed=8 s, type=Qwen3_5ForConditionalGeneration, avail mem=71.6 GB, mem usage=22.11 GB.",
        "[2026-01-01 00:00:09] Mamba Cache is allocated. max_mamba_cache_size: 64, conv_state size: 0.07GB, ssm_state size: 3.05GB intermediate_ssm_state_cache size: 48.75GB intermediate_conv_window_cache size: 0.43GB",
        "[2026-01-01 00:00:10] KV Cache is allocated. #tokens: 171008, K size: 5.22 GB, V size: 5.22 GB",
        "[2026-01-01 00:00:10] Memory pool end. avail mem=14.05 GB",
        "[2026-01-01 00:00:11] Load weight end. elapsed=1 s, type=Qwen3_5ForCausalLMMTP, avail mem=8.59 GB, mem usage=5.46 GB.",
        "[2026-01-01 00:00:12] KV Cache is allocated. #tokens: 171008, K size: 0.33 GB, V size: 0.33 GB",
        "[2026-01-01 00:00:12] Memory pool end. avail mem=7.93 GB",
        "[2026-01-01 00:00:20] Capture target verify CUDA graph end. elapsed=6.90 s, mem usage=6.13 GB, avail mem=1.80 GB.",
        "[2026-01-01 00:00:22] Capture draft verify CUDA graph end. elapsed=1.96 s, mem usage=1.17 GB, avail mem=0.63 GB.",
    ]) == {
        "device_free": [93.77], "weights": [22.11], "available_after_load": [8.59], "state_slots": [64],
        "conv_cache": [0.07], "state_cache": [3.05], "draft_state_cache": [48.75], "draft_conv_cache": [0.43],
        "num_tokens": [171_008], "key_cache": [5.22], "value_cache": [5.22], "available_after": [7.93],
        "draft_weights": [5.46], "draft_key_cache": [0.33], "draft_value_cache": [0.33], "graphs": [6.13, 1.17],
    }  # fmt: skip


@pytest.mark.parametrize("words", [
    "Not enough memory. Please try to increase --mem-fraction-static.",
    "Not enough memory; max_mamba_cache_size=3, mamba_ratio=5, resulting max_num_reqs=0",
    "Capture cuda graph failed: CUDA out of memory.",
    "The memory capacity is unbalanced. Some GPUs may be occupied by other processes.",
])  # fmt: skip
def test_why_it_did_not_start(words):
    (seen,) = read_log(["server_args=ServerArgs(model_path='a/b', tp_size=1, port=1)", f"RuntimeError: {words}"])
    assert seen.errors[0].startswith(words[:20])
    assert seen.model == "a/b"


def test_an_exception_of_the_scheduler():
    (seen,) = read_log([
        "server_args=ServerArgs(model_path='a/b', tp_size=1, port=1)",
        "[2026-01-01 00:00:00 TP0] Scheduler hit an exception: Traceback (most recent call last):",
        "AssertionError: 28 heads are not divisible by 8",
    ])  # fmt: skip
    assert seen.errors == ("AssertionError: 28 heads are not divisible by 8",)


def test_ranks_of_older_versions():
    (seen,) = read_log([f"[gpu={rank}] Load weight begin. avail mem=78.5{rank} GB" for rank in (0, 1)])
    assert by_rank(seen, "device_free") == {"TP0": 78.50, "TP1": 78.51}


def test_a_second_server_is_a_second_start():
    one = ["server_args=ServerArgs(model_path='a/b', tp_size=2)", "Load weight begin. avail mem=78.00 GB"]
    first, second = read_log([*one, *[line.replace("a/b", "c/d").replace("78.00", "79.00") for line in one]])
    assert (first.model, second.model) == ("a/b", "c/d")
    assert [figure.value for figure in second.figures["device_free"]] == [79.0]


def test_ranks_of_data_parallel_attention():
    line = "[2026-01-01 00:00:00 DP{0} TP{0} EP{0}] Load weight end. type=DeepseekV3ForCausalLM, avail mem=75.11 GB, mem usage=107.{0}7 GB."
    (seen,) = read_log([line.format(rank) for rank in (0, 1)])
    assert by_rank(seen, "weights") == {"DP0 TP0 EP0": 107.07, "DP1 TP1 EP1": 107.17}
