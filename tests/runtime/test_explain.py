"""`kvplan.runtime.explain`: figures of logs beside kvplan's, worked by hand, and public observations as a whole."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.runtime.explain import explain
from kvplan.runtime.explain.answer import around, exactly, make_row
from kvplan.runtime.observation import FIGURES
from kvplan.sources.gpus import load_gpus
from kvplan.sources.load import load_model
from tests.runtime.explaining import GIB, H100, QWEN, changed, explained, figure, observed, row


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


def test_a_log_of_which_nothing_is_compared_lets_nothing_pass() -> None:
    told = explain(observed(weights=5.0), None)
    assert (told.is_within_tolerance, told.is_compared) == (None, False)
    weights = explained(observed(model="Qwen/Qwen3-8B", weights=15.27))
    assert (weights.is_within_tolerance, weights.is_compared) == (None, True)
