"""What an engine is told when it starts: formats, layout, limits, and its own switches. None = the engine's default."""

from dataclasses import dataclass, field, fields
from typing import Literal

from kvplan.core.dtypes import DType
from kvplan.core.errors import InputError
from kvplan.core.hardware import Gpu
from kvplan.core.model import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """Options beyond a model, its formats and its layout, under the names of the engines' own flags.

    An engine lists those that it has (`Engine.switches`); another one that is set is an error.
    """

    max_num_seqs: int | None = None
    """SGLang `--max-running-requests`; TensorRT-LLM `--max_batch_size`; llama.cpp `--parallel`."""
    max_num_batched_tokens: int | None = None
    """Of one pass: SGLang `--chunked-prefill-size`; TensorRT-LLM `--max_num_tokens`; llama.cpp `--batch-size`."""
    block_size: int | None = None
    """Tokens of a block: SGLang `--page-size`; TensorRT-LLM `tokens_per_block`."""
    prefix_caching: bool | None = None
    """SGLang: the radix cache; TensorRT-LLM: block reuse."""
    enforce_eager: bool | None = None
    """No CUDA graphs; SGLang `--disable-cuda-graph`."""
    hybrid_manager: bool | None = None
    """vLLM: groups of unlike layers; off with `--disable-hybrid-kv-cache-manager`.

    TensorRT-LLM: a pool for each window, which wants `max_attention_window` to name those of the model's layers.
    """
    async_scheduling: bool | None = None
    num_gpu_blocks_override: int | None = None
    attention_backend: str | None = None
    kv_cache_dtype_skip_layers: tuple[str, ...] = ()
    """vLLM: layers that keep the model's dtype: indices, or `sliding_window`."""
    state_dtype: str | None = None
    """Of recurrent states: vLLM `--mamba-ssm-cache-dtype`, SGLang `--mamba-ssm-dtype`."""
    conv_dtype: str | None = None
    """Of convolutions' columns: vLLM `--mamba-cache-dtype`."""
    num_speculative_tokens: int = 0
    speculative_method: str | None = None
    """`mtp`, `eagle`, `eagle3`, `ngram`, `draft_model` …"""
    draft_model: str | None = None
    heterogeneous_vocab: bool = False
    """vLLM: the draft model's vocabulary is another than the model's, `use_heterogeneous_vocab`."""
    max_loras: int = 0
    """SGLang `--max-loras-per-batch`, with `--enable-lora`."""
    max_lora_rank: int = 16
    lora_target_modules: tuple[str, ...] = ()
    """SGLang: what adapters adapt, e.g. `q_proj`; none named = all that it knows."""
    usage: str | None = None
    """vLLM: `server` (`vllm serve`) or `llm` (the Python class); some defaults differ."""
    stage_layers: tuple[int, ...] = ()
    """Layers of each pipeline stage: vLLM's VLLM_PP_LAYER_PARTITION."""
    expert_parallel: bool = False
    attention_dp: bool = False
    """Attention data-parallel over the tensor-parallel ranks: SGLang `--enable-dp-attention`, TensorRT-LLM too."""
    swa_full_tokens_ratio: float | None = None
    """SGLang: slots of the sliding layers' pool over those of the full layers'."""
    mamba_full_memory_ratio: float | None = None
    """SGLang: bytes for states over bytes for keys and values."""
    states_apart: bool | None = None
    """SGLang: a pool of a given size is for keys and values alone, as its log prints it; states have their own."""
    cuda_graph_max_bs: int | None = None
    max_pool_tokens: int | None = None
    """A cap on the pool: SGLang `--max-total-tokens`, TensorRT-LLM `max_tokens`."""
    num_ubatch_tokens: int | None = None
    """llama.cpp `--ubatch-size`."""
    kv_unified: bool | None = None
    """llama.cpp: one buffer for all sequences."""
    swa_full: bool | None = None
    """llama.cpp: sliding layers keep every token."""
    flash_attention: bool | None = None
    num_gpu_layers: int | None = None
    """llama.cpp `--n-gpu-layers`: the last so many layers, and the output, on the GPU."""
    num_cpu_moe_layers: int = 0
    """llama.cpp `--n-cpu-moe`: the experts of the first so many layers stay with the CPU; `--cpu-moe`: of all."""
    output_last: bool | None = None
    """llama.cpp: layers go to the GPU before the output does, as builds before December 2025 have it (#18148)."""
    tensor_split: tuple[float, ...] = ()
    """llama.cpp: shares of the devices."""
    latent_cache: Literal["alone", "with_values", "expanded"] | None = None
    """llama.cpp: what is kept of latent attention; `engines.llamacpp.architectures.LATENT_CACHES`."""
    cache: Literal["dynamic", "static", "quantized", "quantized_2bit", "quantized_fp8"] | None = None
    """transformers: which of its caches."""
    cpu_offload_bytes: int = 0
    """Of a rank's layers, left in the CPU's memory: vLLM and SGLang `--cpu-offload-gb`, in GiB."""
    no_images: bool = False
    """The vision tower is not loaded, or not profiled: `--language-model-only`, `--limit-mm-per-prompt` of 0."""

    def __post_init__(self) -> None:
        """Raises InputError for a value that is not of the option's kind, or below what makes sense."""
        for option in fields(self):
            name, value = option.name, getattr(self, option.name)
            kind = option.type.__name__ if isinstance(option.type, type) else str(option.type)
            if value != option.default and not _makes_sense(name, value, kind):
                raise InputError(f"`{name}` cannot be {value!r}", hint="see `kvplan fit --help`")

    @property
    def given(self) -> frozenset[str]:
        """The names of the options that were set."""
        return frozenset(f.name for f in fields(self) if getattr(self, f.name) != f.default)


_FROM_ZERO = frozenset({
    "num_speculative_tokens", "max_loras", "num_gpu_layers", "cuda_graph_max_bs", "cpu_offload_bytes",
    "num_cpu_moe_layers",
})  # fmt: skip


def _makes_sense(name: str, value: object, kind: str) -> bool:
    """Whether a value is of the kind that its field's annotation names; counts start at 1, a few at 0."""
    if kind.startswith("bool"):
        return isinstance(value, bool)
    if kind.startswith("tuple"):
        return isinstance(value, tuple)
    if kind.startswith("float"):
        return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    if kind.startswith("int"):
        least = (
            0
            if name
            in ("num_speculative_tokens", "max_loras", "num_gpu_layers", "cuda_graph_max_bs", "cpu_offload_bytes")
            else 1
        )
        return isinstance(value, int) and not isinstance(value, bool) and value >= least
    return isinstance(value, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One way to start an engine for one model."""

    dtype: DType
    """Weights and activations."""
    key_dtype: DType
    value_dtype: DType
    """Of the KV cache; of one vector for both, as in latent attention, `key_dtype` rules."""
    max_model_len: int
    tp: int = 1
    pp: int = 1
    dp: int = 1
    """Replicas; with attention over dp ranks, those of the attention."""
    dcp: int = 1
    """Decode context parallelism: a sequence's tokens lie on so many of the tensor-parallel ranks."""
    pcp: int = 1
    """Prefill context parallelism: the same, on GPUs of its own."""
    gpu: Gpu | None = None
    memory_share: float | None = None
    """`--gpu-memory-utilization`, `--mem-fraction-static`, `--kv_cache_free_gpu_memory_fraction`."""
    switches: Switches = field(default_factory=Switches)
    draft: ModelSpec | None = None
    """The model that `Switches.draft_model` names, where the engine plans one (`Pooled.reads_draft`)."""
