"""Why engines did not start, what would have done, and advice: `kvplan.runtime.explain`."""

from dataclasses import replace

import kvplan
from kvplan.runtime.explain import explain
from kvplan.runtime.observation import Observation
from tests.runtime.explaining import GIB, QWEN, changed, explained, figure, observed, row


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
