"""How many ranks served a model where no flag says it: as many as the prefixes of the log's lines name."""

from dataclasses import replace

import pytest

import kvplan
from kvplan.runtime.explain import Explanation
from kvplan.runtime.explain.ranks import Degrees, degrees_of
from kvplan.runtime.log import read_log
from kvplan.sources.load import load_model
from tests.runtime.explaining import observed, row

GIB = 2**30
LLAMA = load_model("meta-llama/Llama-3.1-70B-Instruct", offline=True)  # 64 heads of queries, 8 of keys
EXPERTS = load_model("openai/gpt-oss-120b", offline=True)


def degrees(engine: str, *ranks: str, model: kvplan.ModelSpec = LLAMA, **about: object) -> Degrees:
    seen = observed(engine, None, num_gpus=about.pop("num_gpus", None))
    return degrees_of(replace(seen, ranks=ranks), about, model)


@pytest.mark.parametrize(
    ("engine", "ranks", "options"),
    [
        ("sglang", ("TP0", "TP1", "TP2", "TP3"), {"tp": 4}),
        ("vllm", ("TP0", "TP1"), {"tp": 2}),
        ("vllm", ("DP0", "TP0", "TP1"), {"tp": 2}),
        ("vllm", ("PP0_TP0", "PP0_TP1", "PP1_TP0", "PP1_TP1"), {"tp": 2, "pp": 2}),
        ("sglang", ("PP0", "PP1"), {"tp": 1, "pp": 2}),
        ("vllm", ("DP0_TP0", "DP0_TP1", "DP1_TP0", "DP1_TP1"), {"tp": 2, "dp": 2}),
        ("vllm", ("DP0",), {}),
        ("sglang", (), {}),
    ],
    ids=["four", "two", "beside the engine", "stages", "stages alone", "replicas", "the one engine", "none"],
)  # fmt: skip
def test_all_ranks_are_seen(engine: str, ranks: tuple[str, ...], options: dict[str, int]) -> None:
    found = degrees(engine, *ranks)
    assert found.options == options
    assert found.is_settled


@pytest.mark.parametrize(
    ("engine", "ranks", "options"),
    [
        ("sglang", ("TP0",), {"tp": 1}),  # SGLang to 0.4.5 calls the only one so
        ("vllm", ("TP0",), {"tp": 2}),  # vLLM does not
        ("sglang", ("TP0", "TP10", "TP14"), {"tp": 16}),  # 15 does not divide 64 heads
        ("sglang", ("TP8", "TP9", "TP10", "TP11"), {"tp": 16}),  # another node's are missing
        ("sglang", ("DP0 TP0 EP0", "DP1 TP1 EP1"),
         {"tp": 2, "dp": 2, "attention_dp": True, "expert_parallel": True}),
        ("sglang", ("DP0 TP0", "DP0 TP1", "DP1 TP0", "DP1 TP1"), {"tp": 2, "dp": 2}),
        ("vllm", ("pid 7", "pid 8"), {}),
        ("vllm", ("rank 0", "rank 1"), {"tp": 2}),
    ],
    ids=["TP0 alone", "TP0 of vLLM", "gaps", "one node of two", "attention over dp", "replicas", "pids", "processes"],
)  # fmt: skip
def test_another_number_would_print_the_same(engine: str, ranks: tuple[str, ...], options: dict[str, object]) -> None:
    found = degrees(engine, *ranks)
    assert found.options == options
    assert not found.is_settled
    assert "no flag" in found.notes[0]


def test_replicas_share_the_experts_of_a_model_and_nothing_else() -> None:
    ranks = ("DP0_TP0", "DP0_TP1", "DP1_TP0", "DP1_TP1")
    assert degrees("vllm", *ranks).is_settled
    assert not degrees("vllm", *ranks, model=EXPERTS).is_settled


def test_a_flag_stands_over_what_is_seen() -> None:
    assert degrees("sglang", "TP0", "TP1", tp=8) == Degrees()


def test_processes_of_tensorrt_llm_are_tp_times_pp() -> None:
    assert degrees("trtllm", num_gpus=4).options == {"tp": 4}
    assert not degrees("trtllm", num_gpus=4).is_settled
    stages = degrees("trtllm", num_gpus=4, pp=2)
    assert (stages.options, stages.is_settled) == ({"tp": 2}, True)
    assert degrees("trtllm", num_gpus=1) == Degrees()


def of_log(model: str, *lines: str) -> Explanation:
    (found,) = kvplan.explain(list(lines), model=model, offline=True)
    return found


def sglang_lines(ranks: "list[int]") -> list[str]:
    """Qwen3-32B over 4 ranks: 64 layers · 2 heads · 128 · 2 bytes are 32,768 bytes of keys a token, 0.31 GiB of 10,001."""
    pool = "KV Cache is allocated. #tokens: 10000, K size: 0.31 GB, V size: 0.31 GB"
    return [f"[2026-03-01 10:00:00 TP{rank}] {pool}\n" for rank in ranks]


def test_figures_of_a_rank_are_set_against_a_rank() -> None:
    found = of_log("Qwen/Qwen3-32B", *sglang_lines([0, 1, 2, 3]))
    assert found.serving is not None
    assert found.serving.tp == 4
    assert any("TP0 to TP3 are seen, taken as tp 4" in note for note in found.notes)
    keys = row(found, "given", "keys")
    assert (keys.predicted, keys.verdict, keys.judged) == (10_001 * 32_768, "equal", "exact")


def test_figures_of_ranks_without_a_number_are_not_judged() -> None:
    """TP0 alone: what it printed may be a fourth of the model's, and is no error of anybody's."""
    keys = row(of_log("Qwen/Qwen3-32B", *sglang_lines([0])), "given", "keys")
    assert (keys.verdict, keys.judged, keys.basis) == ("off", None, "assumed")


def test_figures_of_vllm_s_workers() -> None:
    """Llama-3.1-70B over 4 ranks: 80 · 2 heads · 128 · 2 · 2 = 81,920 bytes a token; 5 GiB are 65,536 tokens."""
    found = of_log(
        "meta-llama/Llama-3.1-70B-Instruct",
        *(f"(Worker_TP{rank} pid={60 + rank}) INFO 06-21 07:20:29 [gpu_worker.py:466] Available KV cache memory: 5.00 GiB\n"
          for rank in range(4)),
        "(EngineCore pid=34) INFO 06-21 07:20:29 [kv_cache_utils.py:1733] GPU KV cache size: 65,536 tokens\n",
        "(EngineCore pid=34) INFO 06-21 07:20:29 [kv_cache_utils.py:1734] Maximum concurrency for 8,192 tokens per request:"
        " 8.00x\n",
    )  # fmt: skip
    assert row(found, "given", "tokens").verdict == "equal"
    assert found.is_within_tolerance


def test_the_ranks_of_a_log_are_kept() -> None:
    (seen,) = read_log(sglang_lines([0, 3]))
    assert seen.ranks == ("TP0", "TP3")
    (seen,) = read_log(["[2026-03-01 10:00:00 DP1 ATTN_CP0 TP3 EP3] Memory pool end. avail mem=2.09 GB\n"])
    assert seen.ranks == ("DP1 ATTN_CP0 TP3 EP3",)


def test_the_process_that_starts_others_is_alone_in_its_world() -> None:
    size = "[TensorRT-LLM][INFO] MPI size: {}, rank: 0\n"
    loaded = "[TensorRT-LLM][INFO] Loaded engine size: 3404 MiB\n"
    (seen,) = read_log([size.format(4), size.format(1), loaded])
    assert seen.num_gpus == 4
    (seen,) = read_log([f"[1,{rank}]<stdout>:{loaded}" for rank in (0, 3)])
    assert seen.num_gpus == 4


def test_a_model_that_is_not_known_hides_no_ranks() -> None:
    (found,) = kvplan.explain(sglang_lines([0, 2]), offline=True)
    assert (found.model, found.to_dict()["tp"]) == (None, 3)
