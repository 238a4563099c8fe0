"""llama.cpp's start-up log beside kvplan's figures, older builds too: `kvplan.runtime.explain`."""

from dataclasses import replace

import pytest

from kvplan.runtime.explain import explain
from kvplan.runtime.observation import Observation
from tests.runtime.explaining import explained, figure, row


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
