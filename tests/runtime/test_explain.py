"""`kvplan.runtime.explain`: figures of logs beside kvplan's, worked by hand, and public observations as a whole."""

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kvplan
from kvplan.core.errors import InputError
from kvplan.runtime.explain import Explanation, Row, explain
from kvplan.runtime.explain.answer import around, exactly, make_row
from kvplan.runtime.observation import FIGURES, Figure, Observation
from kvplan.sources.gpus import find_gpu, load_gpus
from kvplan.sources.load import load_model

DATA = Path(__file__).parents[1] / "data"
LOGS = DATA / "logs"
GIB = 2**30
H100 = find_gpu("H100")
UNITS = {"num_tokens": "tokens", "concurrency_len": "tokens", "needed_len": "tokens", "estimated_max_len": "tokens"}
UNITS |= {"num_blocks": "blocks", "max_concurrency": "x", "full_tokens": "tokens", "swa_tokens": "tokens"}
UNITS |= {"state_slots": "seqs", "cells": "cells", "swa_cells": "cells", "utilization": "share"}


def figure(value: float, unit: str = "GiB", *, rank: str | None = None) -> Figure:
    whole = unit in ("tokens", "blocks", "seqs", "cells", "share")
    return Figure(value=value, unit=unit, half_step=0.0 if whole else 0.005, line_number=1, rank=rank)


def observed(engine: str = "vllm", version: str | None = "0.19.0", **given: Any) -> Observation:
    """An observation; numbers among the arguments are its figures, a tuple is one rank's each."""
    names = {"model", "options", "facts", "errors", "gpu", "num_gpus", "unread"}
    about = {name: given.pop(name) for name in list(given) if name in names}
    figures = {}
    for name, value in given.items():
        values = value if isinstance(value, tuple) else (value,)
        unit = UNITS.get(name, "GiB")
        figures[name] = tuple(
            figure(one, unit, rank=None if len(values) == 1 else f"TP{i}") for i, one in enumerate(values)
        )
    return Observation(engine=engine, version=version, figures=figures, **about)


# Qwen/Qwen3-8B on H100, vLLM 0.19.0 (llm-d-incubation/llm-d-planner): 36 layers · 8 heads · 128 · 2 · 2 = 147,456 bytes
# a token, a block of 16 is 2,359,296; 57.50 GiB are 26,168.9 of them, and 26,168 // 512 a request is 51.109.
QWEN = observed(
    model="Qwen/Qwen3-8B",
    options={"max_model_len": 8192, "gpu_memory_utilization": 0.95, "max_num_batched_tokens": 8192, "tp": 1},
    device_total=79.19, utilization=0.95, requested=75.23,
    weights=15.27, activation_peak=2.21, non_torch=0.25, graph_estimate=0.84, graphs=0.96,
    kv_memory=57.5, num_blocks=26168, num_tokens=418688, max_concurrency=51.11, concurrency_len=8192,
)  # fmt: skip


def explained(observation: Observation = QWEN, gpu: str | None = "H100", **how: Any) -> Explanation:
    model = load_model(how.pop("model", observation.model), offline=True)
    return explain(observation, model, gpu=find_gpu(gpu) if gpu else None, known_gpus=load_gpus(), **how)


def row(explanation: Explanation, section: str, name: str, rank: str | None = None) -> Row:
    found = [one for one in explanation.rows if (one.section, one.name, one.rank) == (section, name, rank)]
    assert len(found) == 1, [(one.section, one.name, one.rank) for one in explanation.rows]
    return found[0]


def changed(observation: Observation = QWEN, **figures: float | None) -> Observation:
    """The same with figures replaced, or left out."""
    kept = dict(observation.figures)
    for name, value in figures.items():
        kept.pop(name, None)
        if value is not None:
            kept[name] = (figure(value, UNITS.get(name, "GiB")),)
    return replace(observation, figures=kept)


class TestVerdicts:
    def test_by_hand(self) -> None:
        assert make_row("account", "a", (100, 2), around(101, 1)).verdict == "equal"
        assert make_row("account", "a", (100, 2), around(110, 9)).verdict == "near"
        assert make_row("account", "a", (100, 2), around(110, 7)).verdict == "off"
        assert make_row("account", "a", (100, 2), None).verdict == "unknown"
        assert make_row("given", "a", (100, 0), (104, 99, 109), rounding=True).verdict == "equal"
        assert make_row("given", "a", (110, 0), (104, 99, 109), rounding=True).verdict == "off"

    def test_the_difference_is_the_prediction_less_the_log(self) -> None:
        made = make_row("account", "a", (200, 0), around(150, 10))
        assert (made.difference, made.relative, made.spread) == (-50, -0.25, 10)

    @given(st.integers(1, 10**12), st.integers(0, 10**12), st.floats(0, 1))
    def test_a_pool_within_the_tolerance_passes_and_an_exact_row_does_not(
        self, seen: int, predicted: int, tolerance: float
    ) -> None:
        pool = make_row("account", "a", (seen, 0), exactly(predicted), judged="pool")
        exact = make_row("account", "a", (seen, 0), exactly(predicted), judged="exact")
        assert pool.is_within(1.0) or predicted > seen
        assert exact.is_within(tolerance) == (exact.verdict == "equal")
        if pool.is_within(tolerance):
            assert pool.verdict == "equal" or abs(predicted - seen) <= tolerance * seen
            assert pool.is_within(min(1.0, 2 * tolerance))


class TestVllm:
    def test_the_rows_come_in_the_order_of_the_account(self) -> None:
        assert [(one.section, one.name) for one in explained().rows] == [
            *(("account", name) for name in ("device", "allowed", "weights", "activation peak", "non-torch")),
            *(("account", name) for name in ("left for the cache", "graphs (estimate)", "graphs (captured)")),
            *(("given", name) for name in ("blocks", "tokens", "requests of 8,192")),
            *(("flags", name) for name in ("blocks", "tokens", "requests of 8,192")),
            *(("arithmetic", name) for name in ("allowed", "left for the cache")),
        ]

    def test_given_the_memory_all_is_equal(self) -> None:
        found = explained()
        blocks = row(found, "given", "blocks")
        assert blocks.low == 57.495 * GIB // 2359296
        assert blocks.high == 57.505 * GIB // 2359296
        assert row(found, "given", "tokens").predicted == 26168 * 16
        assert row(found, "given", "requests of 8,192").predicted == 26168 / 512
        assert {one.verdict for one in found.rows if one.section == "given"} == {"equal"}
        assert found.is_within_tolerance
        assert found.started

    def test_the_account_of_flags_alone(self) -> None:
        found = explained()
        assert row(found, "account", "device").predicted == H100.visible_bytes
        assert row(found, "account", "weights").verdict == "equal"
        left = row(found, "account", "left for the cache")
        assert left.judged == "pool"
        assert abs(left.relative or 1) < 0.01
        assert row(found, "account", "graphs (captured)").why.endswith("not subtracted before 0.21")

    def test_the_logs_own_sums(self) -> None:
        found = explained()
        assert row(found, "arithmetic", "allowed").predicted == round(79.19 * GIB) * 0.95 // 1 + 1
        # 75.23 − 15.27 − 2.21 − 0.25 = 57.50
        assert row(found, "arithmetic", "left for the cache").verdict == "equal"

    @pytest.mark.parametrize("name", ["num_blocks", "num_tokens"])
    def test_a_figure_that_does_not_follow_is_off(self, name: str) -> None:
        seen = round(QWEN.figures[name][0].value * 1.01)
        found = explained(changed(**{name: seen}))
        assert found.outside
        assert not found.is_within_tolerance

    def test_tokens_and_requests_follow_of_each_other_where_no_bytes_are_printed(self) -> None:
        found = explained(changed(kv_memory=None, num_blocks=None), gpu=None)
        assert row(found, "given", "requests of 8,192").verdict == "equal"
        assert not explained(
            changed(kv_memory=None, num_blocks=None, max_concurrency=52.0), gpu=None
        ).is_within_tolerance

    def test_the_tolerance_goes_both_ways(self) -> None:
        less = changed(kv_memory=54.5, num_blocks=None, num_tokens=None, max_concurrency=None)
        assert explained(less).is_within_tolerance  # 5.5 % too much is predicted
        assert not explained(less, tolerance=0.02).is_within_tolerance
        assert explained(less, tolerance=0.2).is_within_tolerance
        assert [one.name for one in explained(less, tolerance=0.02).outside] == ["left for the cache"]

    def test_another_model_is_beyond_it(self) -> None:
        found = explained(model="Qwen/Qwen3-4B")  # as many bytes a token, and half the weights
        assert [one.name for one in found.outside] == ["left for the cache"]
        assert row(found, "account", "weights").verdict == "off"
        assert not explained(model="codellama/CodeLlama-7b-hf").is_within_tolerance

    def test_another_architecture_is_told(self) -> None:
        stated = replace(QWEN, facts={"architecture": "Qwen3ForCausalLM"})
        assert not [note for note in explained(stated).notes if "same model" in note]
        assert [note for note in explained(stated, model="google/gemma-2-9b-it").notes if "same model" in note]

    def test_bytes_that_were_asked_for_are_those_that_are_left(self) -> None:
        asked = replace(QWEN, options={**QWEN.options, "kv_memory_bytes": round(57.5 * GIB)})
        found = explained(asked)
        assert row(found, "account", "left for the cache").verdict == "equal"
        assert row(found, "account", "left for the cache").judged is None
        assert not [one for one in found.rows if one.section == "flags"]

    def test_graphs_are_part_of_the_account_from_021_on(self) -> None:
        newer = explained(replace(QWEN, version="0.33.0"))
        names = [one.name for one in newer.rows if one.section == "account"]
        assert names.index("graphs (estimate)") < names.index("left for the cache")
        assert row(newer, "account", "graphs (captured)").why == "captured after the pool is made"


class TestLaws:
    @settings(max_examples=40)
    @given(st.sets(st.sampled_from(sorted(QWEN.figures))), st.sampled_from(["H100", "L4", None]))
    def test_fewer_figures_never_make_an_exact_one_wrong(self, dropped: set[str], gpu: str | None) -> None:
        found = explained(changed(**dict.fromkeys(dropped)), gpu=gpu)
        assert all(one.verdict == "equal" for one in found.rows if one.judged == "exact")

    @settings(max_examples=60)
    @given(
        st.dictionaries(st.sampled_from(sorted(FIGURES)), st.floats(-1e6, 1e9), min_size=1, max_size=6),
        st.sampled_from(["vllm", "sglang", "trtllm", "llamacpp"]),
        st.sampled_from(["Qwen/Qwen3-8B", "openai/gpt-oss-20b", "Qwen/Qwen3-Next-80B-A3B-Instruct", None]),
        st.booleans(),
    )
    def test_whatever_a_log_prints_is_answered(
        self, printed: dict[str, float], engine: str, name: str | None, failed: bool
    ) -> None:
        """Figures that no engine would print are off, and never an exception."""
        seen = observed(engine, None, model=name, errors=("CUDA out of memory",) if failed else (), **printed)
        model = load_model(name, offline=True) if name else None
        found = explain(seen, model, gpu=H100, known_gpus=load_gpus())
        json.dumps(found.to_dict(), allow_nan=False)


class TestRanks:
    OSS = observed(
        model="openai/gpt-oss-20b",
        options={"max_model_len": 8192, "tp": 2, "gpu_memory_utilization": 0.9, "max_num_batched_tokens": 8192},
        weights=(7.01, 7.01), non_torch=(2.07, 2.07), activation_peak=(2.87, 2.9), kv_memory=(59.32, 59.29),
        num_tokens=2590464,
    )  # fmt: skip

    def test_ranks_that_agree_are_one_row_and_others_one_each(self) -> None:
        found = explained(self.OSS)
        assert row(found, "account", "weights").observed == round(7.01 * GIB)
        assert row(found, "account", "activation peak", "TP0").observed == round(2.87 * GIB)
        assert row(found, "account", "activation peak", "TP1").observed == round(2.9 * GIB)

    def test_the_tightest_rank_decides(self) -> None:
        left = row(explained(self.OSS), "account", "left for the cache")
        assert left.observed == round(59.29 * GIB)

    def test_many_unlike_ranks_are_the_two_ends(self) -> None:
        many = replace(
            self.OSS,
            figures={**self.OSS.figures, "weights": tuple(figure(7 + i / 100, rank=f"TP{i}") for i in range(8))},
        )
        ranks = [one.rank for one in explained(many).rows if one.name == "weights"]
        assert ranks == ["TP7", "TP0"]

    def test_a_rank_of_a_stage_is_set_beside_its_stage(self) -> None:
        staged = observed(
            model="Qwen/Qwen3-8B", options={"pp": 2, "max_model_len": 8192}, kv_memory=60.0, device_total=79.19
        )
        figures = {"weights": (figure(7.6, rank="PP0"), figure(7.7, rank="PP1"))}
        found = explained(replace(staged, figures={**staged.figures, **figures}))
        first, last = (row(found, "account", "weights", f"PP{i}").predicted or 0 for i in (0, 1))
        # The table of tokens is the first stage's and the head the last's: as large, and not tied.
        assert first > 7 * GIB
        assert last > 7 * GIB
        assert first != last


class TestWithoutAModel:
    def test_the_sums_are_checked(self) -> None:
        found = explain(QWEN, None)
        assert {one.section for one in found.rows} == {"arithmetic"}
        assert found.is_within_tolerance
        assert not found.is_predicted
        assert found.model is None

    def test_a_sum_that_does_not_come_out_decides(self) -> None:
        assert not explain(changed(kv_memory=50.0), None).is_within_tolerance
        assert not explain(changed(requested=70.0), None).is_within_tolerance

    def test_with_a_model_sums_do_not_decide(self) -> None:
        assert explained(changed(requested=75.5)).is_within_tolerance

    def test_options_that_make_no_sense_leave_the_sums(self) -> None:
        found = explained(replace(QWEN, options={**QWEN.options, "tp": 7}))
        assert {one.section for one in found.rows} == {"arithmetic"}
        assert [note for note in found.notes if note.startswith("nothing is predicted")]


class TestGpus:
    def test_without_one_what_follows_of_the_memory_stands(self) -> None:
        bare = changed(device_total=None, requested=None)
        found = explained(bare, gpu=None)
        assert row(found, "account", "weights").predicted is not None
        assert row(found, "account", "left for the cache").verdict == "unknown"
        assert row(found, "given", "tokens").verdict == "equal"
        assert [note for note in found.notes if "--gpu" in note]

    def test_the_logs_sums_imply_its_size(self) -> None:
        # (57.50 + 17.73) / 0.95 = 79.19 GiB
        bare = changed(device_total=None, requested=None, utilization=None, non_kv=17.73)
        found = explained(bare, gpu=None)
        assert "79.19 GiB" in found.notes[0]
        assert "H100-SXM5-80GB" in found.notes[0]
        assert "A100" not in found.notes[0]  # whose steps have 2048 tokens by default
        assert row(found, "account", "left for the cache").judged == "pool"

    def test_the_tokens_of_a_step_tell_likely_devices_apart(self) -> None:
        smaller = replace(QWEN, options={**QWEN.options, "max_num_batched_tokens": 2048})
        assert "A100" in explained(smaller, gpu=None).notes[0]
        assert "H100" not in explained(smaller, gpu=None).notes[0]

    def test_a_device_of_a_size_that_one_only_has_is_taken_as_that(self) -> None:
        t4 = changed(device_total=14.56, requested=None)
        found = explained(t4, gpu=None)
        assert found.serving is not None
        assert found.serving.gpu is not None
        assert found.serving.gpu.name == "T4"
        assert found.serving.gpu.visible_bytes == round(14.56 * GIB)

    def test_a_device_that_the_log_states_is_not_set_against_itself(self) -> None:
        assert row(explained(gpu=None), "account", "device").predicted is None
        assert row(explained(), "account", "device").predicted is not None


class TestFailures:
    # 40,960 · 147,456 = 5.625 GiB; 3.46 GiB are 1,574 blocks: 25,184 tokens.
    LONG = observed(
        model="Qwen/Qwen3-8B", errors=("To serve at least one request … KV cache is needed",),
        options={"max_model_len": 40960, "max_num_batched_tokens": 2048, "gpu_memory_utilization": 0.9},
        weights=15.27, kv_memory=3.46, needed=5.62, needed_len=40960, estimated_max_len=25184,
    )  # fmt: skip

    def test_what_it_needed_and_the_longest_are_exact(self) -> None:
        found = explained(self.LONG, gpu="L4")
        assert row(found, "given", "one request of 40,960").predicted == 40960 * 147456
        assert row(found, "given", "longest that fits").predicted == 25184
        assert not found.started
        assert found.is_within_tolerance

    def test_what_would_have_fitted(self) -> None:
        failure = explained(self.LONG, gpu="L4").failure
        assert failure is not None
        assert any("--max-model-len 25184" in text for text in failure.remedies)
        assert any("fp8" in text for text in failure.remedies)
        assert any("over 2 GPUs" in text for text in failure.remedies)
        assert not any("--gpu-memory-utilization" in text for text in failure.remedies)  # 0.9 + 2.2 / 22 is all of it

    def test_a_higher_share_where_one_is_enough(self) -> None:
        lower = replace(self.LONG, options={**self.LONG.options, "gpu_memory_utilization": 0.8})
        failure = explained(lower, gpu="L4").failure
        assert failure is not None
        # 5.625 − 3.46 = 2.165 GiB of 21.96 are 0.0986: 0.9, whose tenth of the device is 2.20 GiB.
        assert "--gpu-memory-utilization 0.9 gives the cache 2.20 GiB more" in failure.remedies

    def test_each_remedy_is_one(self) -> None:
        """The engine that is told what a remedy says has room for one request."""
        shorter = kvplan.kv_pool(
            "Qwen/Qwen3-8B", engine="vllm@0.19", kv_memory_bytes=round(3.46 * GIB), max_model_len=25184
        )
        assert shorter.fits_one
        one_more = kvplan.kv_pool(
            "Qwen/Qwen3-8B", engine="vllm@0.19", kv_memory_bytes=round(3.46 * GIB), max_model_len=25185
        )
        assert not one_more.fits_one

    def test_less_was_free_than_was_wanted(self) -> None:
        taken = observed(
            model="Qwen/Qwen3-8B", errors=("Free memory on device is less than desired",),
            device_free=40.0, device_total=79.19, requested=71.27, utilization=0.9,
        )  # fmt: skip
        failure = explain(taken, None).failure
        assert failure is not None
        assert failure.remedies[0].endswith("a share of 0.5")  # 40 / 79.19 = 0.505

    def test_out_of_memory_while_loading(self) -> None:
        """Qwen3-32B in bf16 on an L4: 61 GiB of weights, of which four GPUs hold 15.3 GiB each."""
        oom = observed(
            model="Qwen/Qwen3-32B", errors=("CUDA out of memory. Tried to allocate 50 MiB",), device_total=22.03
        )
        failure = explained(oom, gpu="L4").failure
        assert failure is not None
        assert any(text.startswith("weights (61.0") for text in failure.reasons)
        assert any(text.startswith("tensor parallelism over ") for text in failure.remedies)

    def test_out_of_memory_in_the_trial_run(self) -> None:
        oom = changed(
            replace(QWEN, errors=("CUDA out of memory",)),
            kv_memory=None, num_blocks=None, num_tokens=None, max_concurrency=None, graphs=None,
        )  # fmt: skip
        failure = explained(oom).failure
        assert failure is not None
        assert any("max_num_batched_tokens" in text for text in failure.remedies)

    def test_out_of_memory_once_the_pool_is_made(self) -> None:
        oom = changed(replace(QWEN, errors=("CUDA out of memory",)), utilization=0.99, graphs=None, requested=78.4)
        full = replace(oom, options={**QWEN.options, "gpu_memory_utilization": 0.99})
        failure = explained(full).failure
        assert failure is not None
        assert any(text.startswith("--gpu-memory-utilization 0.9") for text in failure.remedies)

    def test_as_many_requests_as_states(self) -> None:
        stated = observed(
            model="Qwen/Qwen3-Next-80B-A3B-Instruct", state_slots=37, options={"tp": 4, "max_model_len": 8192},
            errors=("max_num_seqs (256) exceeds available Mamba cache blocks (37)",),
        )  # fmt: skip
        failure = explained(stated).failure
        assert failure is not None
        assert failure.remedies[0].startswith("--max-num-seqs 37 ")

    def test_sglang_is_told_a_higher_share(self) -> None:
        """Weights of 15.26 GiB in half of an L4's 22 GiB leave nothing; 0.73 of it leaves what 1,024 tokens need."""
        low = observed(
            "sglang", None, model="Qwen/Qwen3-8B", errors=("Not enough memory. Please try to increase --mem-fraction-static.",),
            options={"gpu_memory_utilization": 0.5, "max_model_len": 1024}, weights=15.27, device_free=21.4,
        )  # fmt: skip
        failure = explained(low, gpu="L4").failure
        assert failure is not None
        share = float(next(text for text in failure.remedies if text.startswith("--mem-fraction-static")).split()[1])
        assert 0.7 < share < 0.8

    def test_the_longest_context_of_llama_cpp(self) -> None:
        """Llama-2-7B: 524,288 bytes a cell, 4,096 MiB are 8,192 cells."""
        lacks = Observation(
            engine="llamacpp", version="b11434", model="meta-llama/Llama-2-7b", options={"max_model_len": 16384},
            errors=("failed to allocate buffer for kv cache",),
            figures={
                "device_free": (figure(8096, "MiB", rank="CUDA0"),), "model_buffer": (figure(4000, "MiB", rank="CUDA0"),)
            },
        )  # fmt: skip
        failure = explained(lacks, gpu="RTX 4090").failure
        assert failure is not None
        assert failure.remedies == ("-c 8192 is the longest context that fits into 4 GiB",)

    def test_no_error_no_failure(self) -> None:
        assert explained().failure is None


class TestAdvice:
    def test_requests_at_once_cost_activations(self) -> None:
        text = next(text for text in explained().advice if text.startswith("max_num_seqs"))
        assert text.startswith("max_num_seqs 1,024")
        fewer = replace(QWEN, options={**QWEN.options, "max_num_seqs": 256})
        assert not [text for text in explained(fewer).advice if text.startswith("max_num_seqs")]

    def test_an_fp8_cache_holds_twice_as_much(self) -> None:
        assert "an fp8 KV cache would hold 2.00 times" in " ".join(explained().advice)
        packed = replace(QWEN, options={**QWEN.options, "kv_dtype": "fp8"})
        assert "fp8" not in " ".join(explained(packed).advice)

    def test_no_fp8_on_a_gpu_that_has_none(self) -> None:
        assert "an fp8 KV cache would hold" in " ".join(explained(gpu="A100").advice)  # FlashInfer's kernels read it
        assert "fp8" not in " ".join(explained(replace(QWEN, version="0.33.0"), gpu="T4").advice)

    def test_what_nobody_uses_is_told(self) -> None:
        # 79.19 − 71.27 = 7.92 GiB, less 0.96 of graphs and 0.49 of a context
        idle = changed(
            replace(QWEN, options={**QWEN.options, "gpu_memory_utilization": 0.9}), requested=71.27, utilization=0.9
        )
        assert [text for text in explained(idle).advice if text.startswith("6.47 GiB of the GPU are neither used")]

    def test_graphs_without_room_are_told(self) -> None:
        full = changed(requested=78.4, utilization=0.99, graphs=1.1)
        text = next(text for text in explained(full).advice if text.startswith("a share of 0.99"))
        assert "graphs take 1.10 GiB" in text
        assert not [text for text in explained().advice if "lower it" in text]

    def test_another_process_is_told(self) -> None:
        assert explained(changed(device_free=60.0)).advice[0].startswith("about 19.19 GiB of the GPU were taken")
        assert "another process" not in " ".join(explained(changed(device_free=78.7)).advice)


class TestSglang:
    def test_keys_and_values_of_the_printed_tokens(self) -> None:
        # 375,106 tokens and a page of one more · 36 layers · 8 · 128 · 2 bytes = 25.757 GiB of keys, as much of values.
        seen = observed("sglang", None, model="Qwen/Qwen3-8B", num_tokens=375106, key_cache=25.76, value_cache=25.76)
        found = explained(seen, gpu=None)
        assert row(found, "given", "keys").predicted == 375107 * 36 * 8 * 128 * 2
        assert found.is_within_tolerance
        wrong = explained(changed(seen, num_tokens=376106), gpu=None)
        assert [one.name for one in wrong.outside] == ["keys", "values"]

    def test_a_pool_of_sliding_layers(self) -> None:
        # gpt-oss-20b: 12 full and 12 sliding layers of 2,048 bytes; sliding slots are ⌊0.8 · full⌋.
        seen = observed(
            "sglang", None, model="openai/gpt-oss-20b", full_tokens=1165084, swa_tokens=932067,
            key_cache=13.33, value_cache=13.33, swa_key_cache=10.67, swa_value_cache=10.67,
        )  # fmt: skip
        found = explained(seen, gpu=None)
        assert row(found, "given", "sliding tokens").predicted == 932067
        assert row(found, "given", "sliding keys").predicted == 932068 * 12 * 8 * 64 * 2
        assert found.is_within_tolerance


class TestLlamaCpp:
    # Gemma-3-27B, 32,768 cells, 4 sequences in one buffer: sliding cells min(32768, 1024 · 4 + 512) = 4,608.
    GEMMA = Observation(
        engine="llamacpp",
        version="b11434",
        model="google/gemma-3-27b-it",
        options={"max_model_len": 32768, "max_num_seqs": 4, "kv_unified": True, "num_ubatch_tokens": 512},
        figures={
            "cells": (figure(32768, "cells"),),
            "swa_cells": (figure(4608, "cells"),),
            "kv_buffer": (figure(2560.0, "MiB", rank="CUDA0"),),
            "swa_kv_buffer": (figure(1872.0, "MiB", rank="CUDA0"),),
        },
    )

    def test_cells_and_buffers(self) -> None:
        found = explained(self.GEMMA, gpu="RTX 4090")
        assert row(found, "given", "keys and values").predicted == 10 * 32768 * 16 * 128 * 4 == 2560 * 2**20
        assert row(found, "given", "sliding keys and values").predicted == 52 * 4608 * 16 * 128 * 4 == 1872 * 2**20
        assert found.is_within_tolerance

    def test_layers_are_dealt_out_by_what_is_free(self) -> None:
        two = replace(
            self.GEMMA,
            figures={
                **self.GEMMA.figures,
                "device_free": (figure(20000, "MiB", rank="CUDA0"), figure(20000, "MiB", rank="CUDA1")),
                "kv_buffer": (figure(1280.0, "MiB", rank="CUDA0"), figure(1280.0, "MiB", rank="CUDA1")),
                "swa_kv_buffer": (figure(936.0, "MiB", rank="CUDA0"), figure(936.0, "MiB", rank="CUDA1")),
            },
        )
        found = explained(two, gpu="RTX 4090")
        parts = [row(found, "given", "keys and values", f"CUDA{i}").predicted for i in (0, 1)]
        assert sum(part or 0 for part in parts) == 2560 * 2**20
        assert found.is_within_tolerance

    def test_weights_of_a_file_that_was_not_read_are_not_known(self) -> None:
        loaded = replace(
            self.GEMMA, figures={**self.GEMMA.figures, "model_buffer": (figure(15000, "MiB", rank="CUDA0"),)}
        )
        assert row(explained(loaded, gpu=None), "account", "model buffers").verdict == "unknown"


class TestOlderLlamaCpp:
    """Logs of builds whose cache was another one, by their number, their words, or the sizes that they print."""

    R1 = "deepseek-ai/DeepSeek-R1"
    # DeepSeek-R1, 61 layers, 2048 cells, f16: 128 heads of 192 and of 128, or a latent of 512 + 64.
    HEADS = (61 * 2048 * 128 * 192 * 2, 61 * 2048 * 128 * 128 * 2)
    LATENT = 61 * 2048 * 576 * 2

    def cached(self, keys: float, values: float | None, version: str | None = None, **facts: str) -> Observation:
        figures = {"kv_cache": (figure((keys + (values or 0)) / 2**20, "MiB"),)}
        if values is not None:
            figures |= {
                "key_cache": (figure(keys / 2**20, "MiB"),), "value_cache": (figure(values / 2**20, "MiB"),),
            }  # fmt: skip
        return Observation(
            engine="llamacpp", version=version, model=self.R1, figures=figures, facts=facts,
            options={"max_model_len": 2048, "max_num_seqs": 1, "kv_dtype": "f16"},
        )  # fmt: skip

    def test_keys_and_values_say_what_is_kept_of_latents(self) -> None:
        for keys, values in (self.HEADS, (self.LATENT, 0), (self.LATENT, 61 * 2048 * 512 * 2)):
            found = explained(self.cached(keys, values), gpu=None)
            told = row(found, "given", "keys and values")
            assert (told.predicted, told.verdict, told.judged) == (keys + values, "equal", "exact")

    def test_older_builds_hold_every_head(self) -> None:
        for seen in (
            self.cached(sum(self.HEADS), None, worded_before="b4900"),
            self.cached(sum(self.HEADS), None, "b3800"),
        ):
            told = row(explained(seen, gpu=None), "given", "keys and values")
            assert (told.predicted, told.judged) == (9760 * 2**20, "exact")

    @pytest.mark.parametrize("version", [None, "b5100", "b6000", "b7800", "b484"])
    def test_what_nothing_says_is_not_judged(self, version: str | None) -> None:
        """No sizes of keys and values, and a build that may hold latents in one way or the other."""
        found = explained(self.cached(self.LATENT, None, version), gpu=None)
        told = row(found, "given", "keys and values")
        assert (told.judged, told.basis) == (None, "assumed")
        assert "neither the build nor the sizes" in told.why
        assert found.is_within_tolerance is None

    def test_newer_builds_hold_latents_alone(self) -> None:
        told = row(explained(self.cached(self.LATENT, None, "b9000"), gpu=None), "given", "keys and values")
        assert (told.predicted, told.judged) == (self.LATENT, "exact")

    def test_windows_and_layers_of_an_older_build(self) -> None:
        """Gemma-2-2B, 26 layers of 4 heads of 256, 13 of them with a window: all hold 5000 cells, 10 are on the GPU."""
        each = 5000 * 4 * 256 * 2 * 2
        seen = Observation(
            engine="llamacpp", model="google/gemma-2-2b", facts={"worded_before": "b4900"},
            options={"max_model_len": 5000, "num_gpu_layers": 10},
            figures={
                "kv_cache": (figure(26 * each / 2**20, "MiB"),),
                "kv_buffer": (
                    figure(10 * each / 2**20, "MiB", rank="CUDA0"), figure(16 * each / 2**20, "MiB", rank="CPU"),
                ),
            },
        )  # fmt: skip
        found = explained(seen, gpu=None)
        assert row(found, "given", "keys and values").predicted == 26 * each
        assert row(found, "given", "keys and values", "CUDA0").predicted == 10 * each
        assert row(found, "given", "keys and values", "CPU").predicted == 16 * each
        assert not any("sliding" in one.name for one in found.rows)
        assert found.is_within_tolerance

    def test_rows_of_logits_that_no_log_counts(self) -> None:
        """Qwen3-8B, a row of 151,936 · 4 bytes: unknown without n_seq_max; with slots alone, one more may be there."""
        seen = Observation(
            engine="llamacpp", model="Qwen/Qwen3-8B", figures={"output_buffer": (figure(1.16, "MiB"),)},
            facts={"worded_before": "b4900"}, options={"max_model_len": 4096},
        )  # fmt: skip
        assert row(explained(seen, gpu=None), "account", "output buffer").verdict == "unknown"
        slots = replace(seen, options={"max_model_len": 4096, "max_num_seqs": 1})
        assert row(explained(slots, gpu=None), "account", "output buffer").verdict == "near"
        stated = replace(slots, facts={**seen.facts, "n_seq_max": "1"})
        assert row(explained(stated, gpu=None), "account", "output buffer").verdict == "off"

    def test_the_compute_buffer_needs_no_gpu(self) -> None:
        """Qwen2.5-72B, 64 heads without flash attention: 512 · 16384 · (2 + 4 · 64), and 56 MiB that logs show on top."""
        seen = Observation(
            engine="llamacpp", model="Qwen/Qwen2.5-72B-Instruct", facts={"worded_before": "b4900"},
            figures={"compute_buffer": (figure(2144.0, "MiB", rank="CUDA0"),)},
            options={"max_model_len": 16384, "num_ubatch_tokens": 512},
        )  # fmt: skip
        told = row(explained(seen, gpu=None), "account", "compute buffer", "CUDA0")
        assert told.predicted == 512 * 16384 * 258 + 56 * 2**20
        assert told.verdict == "near"
        fork = replace(seen, options={**seen.options, "latent_cache": "alone"})
        assert "ik_llama.cpp" in row(explained(fork, gpu=None), "account", "compute buffer", "CUDA0").why

    def test_what_ollama_expects(self) -> None:
        """Qwen2.5-72B: 80 layers · 64000 · 8 · 128 · 4 bytes are 19.53 GiB."""
        seen = Observation(
            engine="llamacpp", model="Qwen/Qwen2.5-72B-Instruct", options={"max_model_len": 64000},
            figures={"expected_kv_cache": (replace(figure(19.5, "GiB"), half_step=0.05),)},
        )  # fmt: skip
        told = row(explained(seen, gpu=None), "given", "keys and values, expected")
        assert (told.predicted, told.verdict, told.judged) == (80 * 64000 * 4096, "equal", None)
        assert explained(replace(seen, options={}), gpu=None).rows == ()

    def test_a_plan_whose_context_nobody_states_is_not_judged(self) -> None:
        figures = {"context_buffer": (figure(95.0, "MiB", rank="Vulkan0"),)}
        seen = Observation(
            engine="llamacpp", version="b11434", model="Qwen/Qwen3-8B", figures=figures, facts={"breakdown": "planned"}
        )
        told = row(explained(seen, gpu=None), "given", "all caches")
        assert (told.predicted, told.why) == (None, "the log does not say how long the context is")
        half = row(explained(replace(seen, options={"max_model_len": 8192}), gpu=None), "given", "all caches")
        assert (half.predicted, half.judged) == (8192 * 147_456, None)
        assert "the log does not say the cache's format" in half.why
        stated = replace(seen, options={"max_model_len": 8192, "kv_dtype": "f16"})
        assert row(explained(stated, gpu=None), "given", "all caches").judged == "exact"

    def test_the_one_sum_of_ollamas_own_engine(self) -> None:
        """Its cache line is of all layers, and its windows have room by rules of its own: Gemma-3-12B, 4096 cells."""
        figures = {
            "kv_buffer": (figure(768.0, "MiB", rank="CUDA0"),), "compute_buffer": (figure(92.0, "MiB", rank="CUDA0"),),
        }  # fmt: skip
        seen = Observation(
            engine="llamacpp", model="google/gemma-3-12b-it", figures=figures, facts={"ollama_engine": "yes"}
        )
        told = row(explained(seen, gpu=None), "given", "keys and values")
        assert (told.predicted, told.why) == (None, "the log does not say how long the context is")
        stated = explained(replace(seen, options={"max_model_len": 4096}), gpu=None)
        told = row(stated, "given", "keys and values")
        # 8 full layers of 4096 cells and 40 of 1024 + 512, 8 heads of 256: 8192 bytes a cell
        assert (told.predicted, told.judged) == ((8 * 4096 + 40 * 1536) * 8192, None)
        assert "Ollama's own engine" in row(stated, "account", "compute buffer", "CUDA0").why

    def test_layers_of_which_nobody_says_how_many_are_with_the_cpu(self) -> None:
        """Qwen3-8B, 4096 cells: 36 layers · 4096 · 4096 bytes."""
        figures = {
            "kv_buffer": (figure(400.0, "MiB", rank="CUDA0"), figure(176.0, "MiB", rank="CUDA_Host")),
        }
        seen = Observation(
            engine="llamacpp", version="b11434", model="Qwen/Qwen3-8B", options={"max_model_len": 4096}, figures=figures
        )
        found = explained(seen, gpu=None)
        assert row(found, "given", "keys and values").verdict == "equal"
        assert row(found, "given", "keys and values", "CUDA0").verdict == "unknown"
        told = explained(replace(seen, options={"max_model_len": 4096, "num_gpu_layers": 26}), gpu=None)
        assert row(told, "given", "keys and values", "CUDA0").predicted == 25 * 16 * 2**20

    def test_what_was_read_is_shown_without_a_model(self) -> None:
        seen = Observation(
            engine="llamacpp", facts={"architecture": "llama", "n_layer": "32", "n_ctx": "4096"},
            figures={"kv_buffer": (figure(300.0, "MiB", rank="CUDA0"), figure(212.0, "MiB", rank="CPU"))},
        )  # fmt: skip
        found = explain(seen, None)
        told = row(found, "given", "keys and values")
        assert (told.observed, told.predicted) == (512 * 2**20, None)
        assert "of its file the log says architecture llama, n_layer 32" in found.notes
        assert found.is_within_tolerance is None


class TestTheDoor:
    CACHE = "llama_kv_cache_unified:      CUDA0 KV buffer size =  {:.2f} MiB"

    def test_an_older_build_of_llama_cpp_may_be_named(self) -> None:
        """DeepSeek-R1, 2048 cells: every head of 61 layers, 9760 MiB; the line itself may be of any build to b8000."""
        lines = ["llama_context: n_ctx         = 2048", self.CACHE.format(9760)]
        told = {
            version: row(
                kvplan.explain(lines, model=TestOlderLlamaCpp.R1, engine=version)[0], "given", "keys and values"
            )
            for version in ("llamacpp", "llamacpp@b4950", "llamacpp@b9000")
        }
        assert {version: (one.verdict, one.judged) for version, one in told.items()} == {
            "llamacpp": ("off", None), "llamacpp@b4950": ("equal", "exact"), "llamacpp@b9000": ("off", "exact"),
        }  # fmt: skip
        for wrong in ("llamacpp@newest", "llamacpp@"):
            with pytest.raises(InputError):
                kvplan.explain(lines, engine=f"{wrong}x")

    def test_a_file_without_a_known_name_is_planned_by_its_numbers_or_its_base(self) -> None:
        """Llama-3.1-8B's: 32 layers · 8192 · 8 · 128 · 4 bytes are 1024 MiB."""
        head = "llama_model_loader: loaded meta data with 36 key-value pairs and 292 tensors from /blobs/sha256-ab (version GGUF V3)"
        rest = ["llama_context: n_ctx         = 8192", self.CACHE.format(1024)]
        numbers = {
            "n_ctx_train": 131072, "n_embd": 4096, "n_layer": 32, "n_head": 32, "n_head_kv": 8, "n_swa": 0,
            "n_embd_head_k": 128, "n_embd_head_v": 128, "n_ff": 14336, "n_expert": 0, "n_vocab": 128256,
        }  # fmt: skip
        said = [
            "print_info: arch             = llama",
            *(f"print_info: {name} = {value}" for name, value in numbers.items()),
        ]
        base = ["llama_model_loader: - kv 9: general.base_model.0.name str = Llama 3.1 8B"]
        for lines, note in ((said, "by the numbers that the log prints"), (base, "which its file names as its base")):
            (found,) = kvplan.explain([head, *lines, *rest], offline=True)
            assert row(found, "given", "keys and values").verdict == "equal"
            assert any(note in one for one in found.notes)
        (unknown,) = kvplan.explain([head, *said[:4], *rest], offline=True)
        assert row(unknown, "given", "keys and values").verdict == "unknown"

    def test_the_logs_that_are_kept(self) -> None:
        """What is exact is equal in every one of them."""
        for path in sorted(LOGS.glob("*.log")):
            for found in kvplan.explain(path, offline=True):
                assert [one.name for one in found.rows if one.judged == "exact" and one.verdict != "equal"] == [], (
                    path.name
                )
                assert any(one.judged == "exact" for one in found.rows), path.name

    def test_lines_will_do(self) -> None:
        lines = (LOGS / "vllm-0.19-codellama-7b.log").read_text(encoding="utf-8").splitlines()
        assert kvplan.explain(lines, offline=True)[0].model == "codellama/CodeLlama-7b-hf"

    def test_every_prefix_of_a_log_is_explained_or_refused(self) -> None:
        lines = (LOGS / "vllm-0.19-too-long.log").read_text(encoding="utf-8").splitlines()
        with pytest.raises(InputError, match="no start of an engine"):
            kvplan.explain(lines[:2], offline=True)
        for end in range(len(lines), 2, -7):
            answers = kvplan.explain(lines[:end], offline=True)
            assert all(answer.is_within_tolerance is not False for answer in answers), end

    def test_options_given_here_stand_over_the_logs(self) -> None:
        path = LOGS / "vllm-0.19-codellama-7b.log"
        found = kvplan.explain(path, offline=True, max_num_seqs=64)[0]
        assert found.serving is not None
        assert found.serving.switches.max_num_seqs == 64

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"tolerance": 2.0}, "tolerance"),
            ({"engine": "sglang"}, "no start of sglang .* it is of vllm"),
            ({"engine": "nothing"}, "not an engine"),
            ({"gpu": "no such"}, "no GPU named"),
        ],
        ids=["tolerance", "other engine", "no engine", "no gpu"],
    )
    def test_refusals(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            kvplan.explain(LOGS / "vllm-0.19-codellama-7b.log", offline=True, **given)

    def test_a_model_that_cannot_be_loaded_leaves_the_sums(self) -> None:
        log = (
            (LOGS / "vllm-0.33-llama.log")
            .read_text(encoding="utf-8")
            .replace("meta-llama/Llama-3.1-8B-Instruct", "nobody/nothing")
        )
        found = kvplan.explain(log.splitlines(), offline=True)[0]
        assert found.model is None
        assert found.is_within_tolerance
        assert any("`--model` says which" in note for note in found.notes)


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


def test_a_version_that_is_not_stated_is_that_of_the_wording() -> None:
    told = explained(replace(QWEN, version=None, facts={"worded_as": "0.19"}))
    assert told.serving is not None
    assert told.serving.engine.version == "0.19"
    assert any("worded as 0.19" in note for note in told.notes)


def test_the_share_that_the_engine_prints_counts_where_no_flag_is_told() -> None:
    options = {name: value for name, value in QWEN.options.items() if name != "gpu_memory_utilization"}
    told = explained(replace(QWEN, options=options))
    assert told.serving is not None
    assert told.serving.gpu_memory_utilization == 0.95


def test_what_is_no_gpu_is_not_taken_for_one() -> None:
    """61.27 GiB are those of an NPU; a Jetson has as many."""
    seen = replace(changed(device_total=61.27, requested=None), gpu=None, facts={"device_type": "npu"})
    told = explained(seen, gpu=None)
    assert told.serving is not None
    assert told.serving.gpu is None
    assert any("npu" in note for note in told.notes)
    assert row(told, "account", "graphs (captured)").predicted is None
    assert row(told, "given", "tokens").verdict == "equal"


def test_a_draft_model_that_is_not_known_leaves_nothing_to_judge() -> None:
    """Its layers hold a cache, too: fewer tokens than the model alone would have are no error."""
    options = dict(QWEN.options) | {"speculative_method": "dflash", "num_speculative_tokens": 7}
    told = explained(replace(changed(num_tokens=380_000, num_blocks=None, max_concurrency=None), options=options))
    assert row(told, "given", "tokens").judged is None
    assert told.is_within_tolerance is None


def test_the_table_with_which_llama_cpp_ends() -> None:
    """Qwen3-8B, 8192 cells: 8192 · 147,456 bytes are 1152 MiB."""
    figures = {"context_buffer": (figure(1152.0, "MiB", rank="CUDA0"), figure(0.0, "MiB", rank="Host"))}
    seen = Observation(
        engine="llamacpp", version="b9000", model="Qwen/Qwen3-8B", figures=figures,
        options={"max_model_len": 8192, "max_num_seqs": 1},
    )  # fmt: skip
    told = explained(seen, gpu=None)
    assert (row(told, "given", "all caches").predicted, row(told, "given", "all caches").verdict) == (
        1152 * 2**20,
        "equal",
    )


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


@pytest.mark.parametrize(
    ("version", "said", "planned"),
    [("0.8.5", "V0", "0.7.3"), ("0.8.5", "V1", "0.8.5"), ("0.7.3", "V1", "0.8.0"), ("0.11.0", "V0", "0.11.0")],
)
def test_which_engine_of_a_release_ran(version: str, said: str, planned: str) -> None:
    """On an H100 V0 has 256 requests at once by default, V1 1,024 from 0.8 on: its sampler takes four times as much."""
    seen = replace(QWEN, version=version, facts={**QWEN.facts, "engine": said})
    told = explained(seen)
    assert told.serving is not None
    assert told.serving.engine.version == planned
    assert any("engine: planned as" in note for note in told.notes) is (planned != version)


def test_a_backend_of_a_plugin_hides_nothing() -> None:
    told = explained(replace(QWEN, options={**QWEN.options, "attention_backend": "BRIDGE_ATTN"}))
    assert row(told, "given", "tokens").verdict == "equal"
    assert any(note.startswith("BRIDGE_ATTN is no attention backend") for note in told.notes)


def test_what_would_do_without_a_model() -> None:
    failed = ("To serve at least one request with the model's max seq len (262144), 36.0 GiB KV cache is needed",)
    seen = observed(errors=failed, needed=36.0, needed_len=262144, kv_memory=6.94, estimated_max_len=50512)
    failure = explain(seen, None).failure
    assert failure is not None
    assert failure.remedies == ("--max-model-len 50512 is what the engine says would fit",)
    # 5.60 allowed of 8, and 1.05 more than that taken: 6.65 of 8 are 0.83.
    short = observed(
        errors=("No available memory for the cache blocks",), device_total=8.0, requested=5.6, kv_memory=-1.05
    )
    failure = explain(short, None).failure
    assert failure is not None
    assert failure.remedies == ("a share of 0.84 is the least that leaves anything for the cache",)


def test_a_log_of_which_nothing_is_compared_lets_nothing_pass() -> None:
    told = explain(observed(weights=5.0), None)
    assert (told.is_within_tolerance, told.is_compared) == (None, False)
    weights = explained(observed(model="Qwen/Qwen3-8B", weights=15.27))
    assert (weights.is_within_tolerance, weights.is_compared) == (None, True)
