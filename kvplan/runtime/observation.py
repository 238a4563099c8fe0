"""What one start of an engine said: the facts of its log, and nothing that kvplan worked out."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure as it was printed."""

    value: float
    unit: str
    """`GiB`, `MiB`, `tokens`, `blocks`, `x`, `cells` …"""
    half_step: float
    """Half of the last printed digit: the true value lies within `value ± half_step`."""
    line_number: int
    rank: str | None = None
    """The worker that printed it, as its prefix says; None where there is one only."""

    @property
    def num_bytes(self) -> int:
        """The value in bytes, of a size."""
        return round(self.value * _UNITS[self.unit])

    @property
    def half_step_bytes(self) -> int:
        """The rounding in bytes, of a size."""
        return round(self.half_step * _UNITS[self.unit])


_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One start of one engine."""

    engine: str
    """vllm, sglang, trtllm, llamacpp"""
    version: str | None = None
    model: str | None = None
    """As the engine was given it: a Hub id, a folder, a GGUF file."""
    options: dict[str, object] = field(default_factory=dict)
    """What it was told, under the names of `kvplan.fit` and `core.engines.deployment.Switches`."""
    unread: tuple[str, ...] = ()
    """Flags that bear on memory as far as is known, but that kvplan does not know."""
    gpu: str | None = None
    num_gpus: int | None = None
    ranks: tuple[str, ...] = ()
    """Workers that said any of it, as their prefixes name them: `TP0`, `PP1_TP0`, `DP0 TP0 EP0`, `rank 3`, `pid 7`."""
    figures: dict[str, tuple[Figure, ...]] = field(default_factory=dict)
    """By name (see `FIGURES`), each rank's own where several printed it."""
    facts: dict[str, str] = field(default_factory=dict)
    """Words that the log states: the attention backend, the block size that was set, the architecture …"""
    errors: tuple[str, ...] = ()
    """Why it did not start, in its own words."""
    first_line: int = 1
    last_line: int = 1


FIGURES = {
    # What the device has, and what the engine allows itself of it.
    "device_total": "the device's memory as the framework sees it",
    "device_free": "what of it was free before loading",
    "utilization": "the share that the engine allows itself",
    "requested": "device_total · utilization",
    # What is taken before the cache is.
    "weights": "model weights on this rank",
    "draft_weights": "the draft model's weights",
    "activation_peak": "torch's peak over the weights in the profile run",
    "torch_peak": "torch's peak in the profile run, weights included",
    "non_torch": "memory outside torch: contexts, collectives",
    "consumed": "weights and non_torch together, where the log does not part them",
    "non_kv": "weights, activation_peak and non_torch together",
    "peak": "TensorRT-LLM's peak while it profiles",
    "torch_after_load": "what torch holds once the weights are loaded",
    "outside_after_load": "what is held outside torch once the weights are loaded",
    "profile_cache": "the small cache that TensorRT-LLM profiles with",
    "graph_estimate": "what the engine sets aside for CUDA graphs before it captures them",
    "graphs": "what captured graphs took: one figure a capture",
    # The pool.
    "kv_memory": "what is left for the cache",
    "num_blocks": "blocks of the pool",
    "num_cpu_blocks": "blocks of the swap space",
    "block_size": "tokens of a block",
    "num_tokens": "tokens of the pool, as this version counts them",
    "bytes_per_token": "what the engine says that one token takes",
    "max_concurrency": "requests of `concurrency_len` tokens at once",
    "concurrency_len": "the length that max_concurrency is about",
    "needed": "what one request of `needed_len` tokens needs",
    "needed_len": "the length that does not fit",
    "estimated_max_len": "the longest length that the engine says would fit",
    "key_cache": "keys of the pool",
    "value_cache": "values of the pool",
    "kv_cache": "keys and values of the pool",
    "draft_key_cache": "keys of the draft model's pool",
    "draft_value_cache": "values of the draft model's pool",
    "draft_kv_cache": "keys and values of the draft model's pool",
    "full_tokens": "slots of the full layers' pool",
    "swa_tokens": "slots of the sliding layers' pool",
    "swa_key_cache": "keys of the sliding layers' pool",
    "swa_value_cache": "values of the sliding layers' pool",
    "swa_kv_cache": "keys and values of the sliding layers' pool",
    "recurrent_cache": "recurrent states and columns of convolutions together",
    "state_cache": "recurrent states",
    "conv_cache": "columns of convolutions",
    "state_slots": "sequences whose states the pool holds",
    "draft_state_cache": "states kept for each speculated token",
    "draft_conv_cache": "columns of convolutions kept for each speculated token",
    "available_after_load": "what is free once the weights are loaded",
    "available_after": "what is free after the pool was made",
    "available_at_end": "what is free when the engine is ready",
    # llama.cpp, each by device.
    "cells": "cells of llama.cpp's cache",
    "swa_cells": "cells of its sliding layers' cache",
    "cache_layers": "layers that its cache holds",
    "swa_layers": "layers that its sliding layers' cache holds",
    "kv_buffer": "bytes of its cache on one device",
    "swa_kv_buffer": "bytes of its sliding layers' cache on one device",
    "state_buffer": "bytes of its recurrent states on one device",
    "compute_buffer": "its compute buffer on one device",
    "model_buffer": "its weights on one device",
    "context_buffer": "all of its caches on one device together",
    "output_buffer": "its logits",
    "gpu_layers": "layers on the GPUs, the output counted as one",
    "model_layers": "layers there are, the output counted as one",
    # What is expected before it loads.
    "expected_total": "all that Ollama, or llama.cpp's own fitting, expects to allocate",
    "expected_weights": "the weights that Ollama expects",
    "expected_kv_cache": "the cache that Ollama expects",
    "expected_graph": "the compute graph that Ollama expects",
}
"""What logs print, in kvplan's words."""
