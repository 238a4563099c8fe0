"""Pools, sums and stages, and public observations as a whole: `kvplan.runtime.explain`."""

import csv
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

import kvplan
from kvplan.runtime.explain import explain
from kvplan.runtime.observation import Observation
from kvplan.sources.gpus import find_gpu
from kvplan.sources.load import load_model
from tests.runtime.explaining import DATA, GIB, LOGS, explained, figure, observed, row

COLUMNS = {
    "weights_gib": "weights", "non_torch_gib": "non_torch", "activation_gib": "activation_peak", "graph_gib": "graphs",
    "kv_gib": "kv_memory", "num_blocks": "num_blocks", "num_tokens": "num_tokens", "concurrency": "max_concurrency",
    "concurrency_len": "concurrency_len", "needed_len": "needed_len", "needed_gib": "needed",
    "estimated_max_len": "estimated_max_len", "device_gib": "device_total", "k_gb": "key_cache", "v_gb": "value_cache",
    "kv_gb": "kv_cache",
}  # fmt: skip
OPTIONS = ("tp", "pp", "dp", "dcp", "max_model_len", "max_num_seqs", "max_num_batched_tokens")


def of_row(line: dict[str, str]) -> Observation:
    """One public observation; those that state no version are of 0.19 or older, as their words show."""
    options: dict[str, Any] = {name: int(line[name]) for name in OPTIONS if line[name]}
    options |= {name: line[name] for name in ("dtype", "kv_dtype") if line[name]}
    options |= {"enforce_eager": True} if line["enforce_eager"] == "1" else {}
    options |= {"gpu_memory_utilization": float(line["utilization"])} if line["utilization"] else {}
    if line["speculative"]:
        options |= {"speculative_method": line["speculative"], "num_speculative_tokens": 1}
    return observed(
        line["engine"],
        line["version"] or ("0.19" if line["engine"] == "vllm" else None),
        model=line["model"],
        options=options,
        **{name: float(line[column]) for column, name in COLUMNS.items() if line[column]},
    )


def test_sums_are_those_of_the_tightest_rank() -> None:
    """21.21 + 0.56 + 0.36 of 23.35 GiB leave 1.22 on one rank, 0.37 + 0.20 leave 1.57 on the other."""
    seen = observed(
        requested=(23.35, 23.35), weights=(21.21, 21.21), activation_peak=(0.37, 0.56), non_torch=(0.2, 0.36),
        kv_memory=(1.57, 1.22),
    )  # fmt: skip
    sums = row(explain(seen, None), "arithmetic", "left for the cache")
    assert (sums.observed, sums.verdict) == (round(1.22 * GIB), "equal")


def test_no_sum_is_made_of_figures_of_unlike_ranks() -> None:
    """The account of the tightest rank is not told: nothing is added up."""
    seen = observed(requested=23.35, kv_memory=(1.57, 1.22, 1.4))
    others = {name: (figure(value, rank="TP0"), figure(value + 0.1, rank="TP2")) for name, value in (
        ("weights", 21.21), ("activation_peak", 0.37), ("non_torch", 0.2)
    )}  # fmt: skip
    seen = replace(seen, figures=seen.figures | others)
    assert not explain(seen, None).rows


# Qwen3-8B in stages of 12 and 24 layers: a block of 16 tokens is 12 · 65,536 = 786,432 and 1,572,864 bytes. 12 GiB are
# 16,384 blocks of the first stage and 8192 of the second; 16 GiB of the second are 10,922.67.
STAGES = {"pp": 2, "stage_layers": (12, 24), "tp": 1, "max_model_len": 8192}


@pytest.mark.parametrize(
    ("ranks", "blocks"),
    [((12, 16), 10_922), ((6, 16), 8192), ((12, 9), 6144)],
    ids=["fewest bytes do not rule", "first stage", "second stage"],
)
def test_the_stage_with_the_fewest_blocks_rules(ranks: tuple[int, int], blocks: int) -> None:
    memory = tuple(figure(float(value), rank=f"PP{stage}") for stage, value in enumerate(ranks))
    seen = observed(model="Qwen/Qwen3-8B", options=STAGES, num_blocks=blocks, num_tokens=16 * blocks)
    told = explained(replace(seen, figures=seen.figures | {"kv_memory": memory}), gpu=None)
    assert row(told, "given", "blocks").predicted == blocks
    assert row(told, "given", "blocks").verdict == "equal"
    assert row(told, "given", "tokens").verdict == "equal"


def test_stages_that_are_not_told_leave_the_blocks_open() -> None:
    """Either may be the one: from 12 GiB of the second stage to 12 GiB of the first."""
    memory = (figure(12.0, rank="pid 1"), figure(16.0, rank="pid 2"))
    seen = observed(model="Qwen/Qwen3-8B", options=STAGES, num_blocks=10_922)
    told = row(explained(replace(seen, figures=seen.figures | {"kv_memory": memory}), gpu=None), "given", "blocks")
    assert told.verdict == "equal"
    assert told.low is not None
    assert told.high is not None
    assert told.low <= 8192 < 16_384 <= told.high


def test_the_peak_of_torch_holds_the_weights() -> None:
    """0.6.2 to 0.6.4: 17.06 of 15.0 weights and the rest; 23.58 · 0.9 − 17.06 − 0.35 = 3.81."""
    seen = observed(
        version="0.6.3.post1", model="meta-llama/Llama-3.1-8B-Instruct",
        options={"max_model_len": 20_000, "max_num_batched_tokens": 20_000, "tp": 1},
        device_total=23.58, utilization=0.9, weights=14.99, torch_peak=17.06, non_torch=0.35, kv_memory=3.81,
        num_blocks=1952, max_concurrency=1.56, concurrency_len=20_000,
    )  # fmt: skip
    told = explained(seen, gpu=None)
    assert row(told, "account", "weights and activation peak").verdict == "near"
    assert row(told, "arithmetic", "left for the cache").verdict == "equal"


def test_pools_of_a_log_that_was_cut_are_not_judged() -> None:
    """Between the cache of the states and that of keys and values the log tells of one of them alone."""
    lines = (LOGS / "sglang-0.5-qwen3-next-tp4.log").read_text(encoding="utf-8").splitlines()
    end = max(i for i, line in enumerate(lines) if "Mamba Cache is allocated" in line)
    (told,) = kvplan.explain([line for line in lines[: end + 1] if "KV Cache is allocated" not in line], offline=True)
    assert row(told, "flags", "pools").judged is None
    assert told.is_within_tolerance


def test_public_observations() -> None:
    """Every exact figure is equal, but for rows with a named exception."""
    with (DATA / "engines" / "observations.csv").open(encoding="utf-8") as file:
        lines = [one for one in csv.DictReader(file) if one["engine"] in ("vllm", "sglang", "trtllm") and one["model"]]
    counts: Counter[str] = Counter()
    for line in lines:
        found = explain(
            of_row(line), load_model(line["model"], offline=True), gpu=find_gpu(line["gpu"]) if line["gpu"] else None
        )
        judged = [one for one in found.rows if one.judged == "exact"]
        wrong = [f"{one.name}: {one.predicted} for {one.observed}" for one in judged if one.verdict != "equal"]
        if not line["exception"]:
            assert not wrong, (line["id"], wrong)
        counts["equal" if judged and not wrong else "wrong" if wrong else "nothing exact"] += 1
    assert counts["equal"] >= 90, counts
