"""What the log states of the device stands over the table; what it does not settle is not judged."""

from dataclasses import replace

import kvplan
from kvplan.runtime.explain import Explanation, explain
from kvplan.sources.gpus import find_gpu
from tests.runtime.explaining import QWEN, changed, explained, observed, row

GIB = 2**30


def of_log(model: str | None, *lines: str, **how: object) -> Explanation:
    (found,) = kvplan.explain([line + "\n" for line in lines], model=model, offline=True, **how)
    return found


class TestDevices:
    def test_the_account_is_of_the_memory_that_the_log_states(self) -> None:
        """RTX 5090: 31.34 GiB in the table, of the 31.84 that the driver lists; 0.92 of these are 29.29."""
        seen = observed(
            model="Qwen/Qwen3-8B", options={"max_model_len": 8192, "tp": 1},
            device_total=31.84, device_free=28.1, utilization=0.92, requested=29.29,
        )  # fmt: skip
        found = explained(seen, gpu="RTX 5090")
        assert row(found, "account", "device").verdict == "near"
        allowed = row(found, "account", "allowed")
        assert allowed.verdict == "equal"
        assert allowed.predicted is not None
        assert abs(allowed.predicted - 0.92 * 31.84 * GIB) < 2
        assert found.serving is not None
        assert found.serving.gpu is not None
        assert found.serving.gpu.name == "RTX 5090"

    def test_a_device_of_another_size_is_said(self) -> None:
        found = explained(QWEN, gpu="L4")
        assert any("79.19 GiB of memory, L4 has 21.96 GiB" in note for note in found.notes)
        assert row(found, "account", "allowed").verdict == "equal"

    def test_a_size_alone_names_no_device_whose_memory_the_cpu_shares(self) -> None:
        """119.70 GiB are a GB10's, and may be another device's."""
        found = explained(changed(device_total=119.7, requested=None, kv_memory=57.5), gpu=None)
        assert found.serving is not None
        assert found.serving.gpu is not None
        assert found.serving.gpu.name == "a GPU of 119.70 GiB"
        assert any("GB10" in note and "`--gpu`" in note for note in found.notes)
        left = row(found, "account", "left for the cache")
        assert (left.predicted, left.judged) == (None, None)
        assert "--gpu" in left.why
        assert row(found, "given", "blocks").verdict == "equal"

    def test_what_is_free_tells_a_pool_and_no_device(self) -> None:
        """60.5 · 0.2 GiB are less than weights of 15.26, whether a Jetson's, an NPU's or a GPU's: a third would do."""
        found = of_log(
            None,
            "[2026-03-01 10:00:00] server_args=ServerArgs(model_path='Qwen/Qwen3-8B', mem_fraction_static=0.2, tp_size=1)",
            "[2026-03-01 10:00:01] Load weight begin. avail mem=60.50 GB",
            "[2026-03-01 10:00:09] Load weight end. type=Qwen3ForCausalLM, dtype=torch.bfloat16, avail mem=45.20 GB, "
            "mem usage=15.30 GB.",
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
        )  # fmt: skip
        assert found.serving is not None
        assert found.serving.gpu is not None
        assert found.serving.gpu.name == "a GPU with 60.50 GiB free"
        assert found.failure is not None
        assert any(text.startswith("--mem-fraction-static 0.3") for text in found.failure.remedies)

    def test_what_is_free_is_set_beside_each_device_s_own_context(self) -> None:
        """Four L4 have 0.4 GiB less free than CUDA sees, and no collectives' buffers: 21.63 of 22.03."""
        begin = "[2026-03-01 10:00:01 TP{}] Load weight begin. avail mem=21.63 GB"
        lines = [begin.format(rank) for rank in range(4)]
        assert any("L4" in note and "RTX 4090" not in note for note in of_log("Qwen/QwQ-32B", *lines).notes)
        free = row(of_log("Qwen/QwQ-32B", *lines, gpu="L4"), "account", "free before loading")
        assert free.verdict == "near"

    def test_a_device_without_an_account_is_not_called_unknown(self) -> None:
        """A GB10 is named, and TensorRT-LLM's share of it is not predicted."""
        seen = observed("trtllm", "1.1", model="openai/gpt-oss-120b", options={"tp": 1}, kv_memory=5.95)
        why = row(explained(seen, gpu="GB10"), "account", "left for the cache").why
        assert "GB10" in why
        assert "no GPU" not in why

    def test_npus_of_sglang_are_none(self) -> None:
        found = of_log(
            None,
            "[2026-03-01 10:00:00] server_args=ServerArgs(model_path='Qwen/Qwen3-8B', device='npu', tp_size=1)",
            "[2026-03-01 10:00:01] Load weight begin. avail mem=60.50 GB",
        )  # fmt: skip
        assert found.serving is not None
        assert found.serving.gpu is None
        assert any("it runs on npu" in note for note in found.notes)


class TestNegativePools:
    # gemma-4-26B-A4B: 5 full layers of 2 heads · 512, keys and values alike in 16 bits; 25 sliding ones of 8 · 256.
    LINES = (
        "[2026-03-01 10:00:00] server_args=ServerArgs(model_path='google/gemma-4-26B-A4B-it', page_size=1, tp_size=1)",
        "Use sliding window memory pool. full_layer_tokens=-1000, swa_layer_tokens=-800",
    )

    def test_it_is_a_start_that_failed_for_want_of_so_much(self) -> None:
        found = of_log(None, *self.LINES)
        assert not found.started
        assert found.failure is not None
        assert "full_layer_tokens=-1000" in found.failure.errors[0]
        lacking = 1000 * 5 * 2 * 512 * 2 * 2 + 800 * 25 * 8 * 256 * 2 * 2
        assert any(f"{lacking / 2**20:.2f} MiB less than nothing" in text for text in found.failure.reasons)

    def test_tokens_below_nothing_are_equal_to_nothing(self) -> None:
        found = of_log(None, *self.LINES)
        assert not [one for one in found.rows if one.judged]


class TestStandIns:
    LINE = "INFO 05-01 21:12:23 [gpu_model_runner.py:4879] Model loading took {} GiB memory and 26.3 seconds"

    def test_weights_of_another_owner_are_assumed(self) -> None:
        seen = "INFO 05-01 21:11:40 [core.py:109] Initializing a V1 LLM engine (v0.20.0) with config: model='{}', "
        seen += "dtype=torch.bfloat16, max_seq_len=8192, tensor_parallel_size=1"
        found = of_log(None, seen.format("somebody/Qwen3-8B"), self.LINE.format("16.00"))
        weights = row(found, "account", "weights")
        assert (found.model, weights.basis) == ("Qwen/Qwen3-8B", "assumed")
        assert "`somebody/Qwen3-8B`" in weights.why
        own = row(of_log(None, seen.format("Qwen/Qwen3-8B"), self.LINE.format("15.28")), "account", "weights")
        assert own.basis == "derived"

    def test_a_pool_that_rests_on_them_is_not_judged(self) -> None:
        model = kvplan.load_model("Qwen/Qwen3-8B", offline=True)
        (own, other) = (explain(QWEN, model, gpu=find_gpu("H100"), stands_in=stands_in) for stands_in in (False, True))
        assert row(own, "account", "left for the cache").judged == "pool"
        assert row(other, "account", "left for the cache").judged is None
        assert row(other, "given", "tokens").judged == "exact"


class TestTensorRtLlm:
    def test_tokens_of_the_bytes_that_the_runtime_prints(self) -> None:
        """Llama-2-7B: 32 · 32 · 128 · 2 · 2 = 524,288 bytes a token; 64 GiB are 131,072."""
        found = of_log(
            "meta-llama/Llama-2-7b-hf",
            "[TensorRT-LLM][INFO] Allocate 68719476736 bytes for k/v cache. ",
            "[TensorRT-LLM][INFO] Using 131072 tokens in paged KV cache.",
        )
        tokens = row(found, "given", "tokens")
        assert (tokens.predicted, tokens.verdict, tokens.judged) == (131_072, "equal", "exact")

    def test_a_format_that_is_not_told_is_no_error(self) -> None:
        """Twice the tokens: an engine with an 8-bit cache, of which the runtime says nothing."""
        lines = (
            "[TensorRT-LLM][INFO] Number of tokens per block: 64.",
            "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 64.00 GiB for max tokens in paged KV cache (262144).",
        )
        found = of_log("meta-llama/Llama-2-7b-hf", *lines)
        tokens = row(found, "given", "tokens")
        assert (tokens.predicted, tokens.verdict, tokens.judged, tokens.basis) == (131_072, "off", None, "assumed")
        assert "fp16" in tokens.why
        assert not [one for one in found.rows if one.judged]

    def test_the_size_of_an_engine_file_is_no_exact_figure(self) -> None:
        """Llama-2-7B over 4 ranks, each with the whole table of inputs: 12.55 / 4 + 0.244 · 3 / 4 = 3.32 GiB."""
        found = of_log(
            "meta-llama/Llama-2-7b-hf",
            "[TensorRT-LLM][INFO] MPI size: 4, rank: 0",
            "[TensorRT-LLM][INFO] Loaded engine size: 3404 MiB",
        )
        weights = row(found, "account", "weights")
        assert (weights.verdict, weights.basis) == ("near", "assumed")
        assert weights.predicted is not None
        assert round(weights.predicted / GIB, 2) == 3.32

    def test_padding_of_mxfp4_experts(self) -> None:
        """36 · 128 · 3 · (2944² − 2880²) · 17 / 32 bytes are 2.55 GiB beside the checkpoint's 60.77."""
        seen = observed("trtllm", "1.1", model="openai/gpt-oss-120b", options={"tp": 1}, torch_after_load=63.5)
        weights = row(explained(seen, gpu=None), "account", "weights")
        padding = 36 * 128 * 3 * (2944**2 - 2880**2) * 17 // 32
        bare = row(explained(replace(seen, engine="sglang", figures=observed(weights=60.8).figures), gpu=None),
                   "account", "weights")  # fmt: skip
        assert weights.predicted == padding + (bare.predicted or 0)
        assert (weights.verdict, weights.basis) == ("near", "assumed")

    def test_what_torch_holds_is_more_than_tensors(self) -> None:
        seen = observed("trtllm", "1.1", model="Qwen/Qwen3-8B", options={"tp": 1}, torch_after_load=15.3)
        assert row(explained(seen, gpu=None), "account", "weights").basis == "derived"


class TestKvcached:
    VIRTUAL = "[kvcached][INFO] VirtualKV Cache is allocated. #tokens: 9999, K size: 1.00 GB, V size: 1.00 GB"
    PHYSICAL = "[kvcached][INFO] Physical KV Cache limits by --mem-fraction-static: #tokens: 9999, K size: 0.69 GB, V size: 0.69 GB"

    def test_addresses_are_no_memory(self) -> None:
        """Qwen3-8B: 10,000 · 36 · 8 · 128 · 2 bytes of keys are 0.687 GiB."""
        found = of_log("Qwen/Qwen3-8B", self.VIRTUAL, self.PHYSICAL)
        assert row(found, "given", "keys").verdict == "equal"


def test_a_page_that_is_not_told_is_left_open() -> None:
    """9984 tokens are 39 pages of 256, 624 of 16: between 1 and 256 more rows are there."""
    size = (9984 + 256) * 36 * 8 * 128 * 2 / GIB
    line = f"[2026-03-01 10:00:00] KV Cache is allocated. #tokens: 9984, K size: {size:.2f} GB, V size: {size:.2f} GB"
    assert row(of_log("Qwen/Qwen3-8B", line), "given", "keys").verdict == "equal"
    told = "[2026-03-01 10:00:00] server_args=ServerArgs(model_path='Qwen/Qwen3-8B', page_size=1, tp_size=1)"
    assert row(of_log("Qwen/Qwen3-8B", told, line), "given", "keys").verdict == "off"
