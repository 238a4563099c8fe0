"""vLLM's start-up log, from 0.5 on: V0 and V1.

To add a wording: a line in one of the tables, with the versions that word it so; a figure of a new name also in
`observation.FIGURES`.

Sources, by version: 0.6 vllm/worker/worker.py, model_runner.py, executor/gpu_executor.py, engine/llm_engine.py; 0.8 to
0.20 vllm/v1/worker/gpu_worker.py, gpu_model_runner.py, v1/core/kv_cache_utils.py, v1/engine/core.py; 0.21 to 0.33 also
v1/core/kv_cache_planning.py, v1/worker/gpu/model_runner.py. vLLM prints 2^30 bytes as `GB` before 0.9 and as `GiB`
since; from 0.9 on most sizes are `round(x, 2)`, which drops a last zero.
"""

import re

from kvplan.runtime.lines import Line
from kvplan.runtime.python_repr import read_items
from kvplan.runtime.wording import OUT_OF_MEMORY, Dialect, Start, Wording, fails, is_ready, wording

_GIB = dict.fromkeys(
    (
        "weights", "activation_peak", "non_torch", "consumed", "non_kv", "graphs", "graph_estimate", "kv_memory",
        "requested", "device_total", "device_free", "needed",
    ),
    "GiB",
)  # fmt: skip


def _size(key: str, pattern: str, versions: str, **options: object) -> Wording:
    return wording(key, pattern, versions, units={**_GIB, "utilization": "share"}, places=2, **options)


def _count(key: str, pattern: str, versions: str, **options: object) -> Wording:
    names = re.findall(r"(?<!P)<(\w+)>", pattern)
    unit = {"num_blocks": "blocks", "num_cpu_blocks": "blocks", "max_concurrency": "x", "state_slots": "seqs"}
    return wording(key, pattern, versions, units={name: unit.get(name, "tokens") for name in names}, **options)


def _read_version(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    start.version = start.version or found["x_version"].removeprefix("v")


def _read_args(start: Start, found: re.Match[str], line: Line) -> None:
    """The arguments of the command line, or those of them that are not the defaults."""
    for name, value in read_items(line.text, found.end()).items():
        if value is not None and name not in _NAMESPACE_ONLY:
            start.args[name] = value


_NAMESPACE_ONLY = frozenset({
    "subparser", "dispatch_function", "tokenizer_pool_type", "max_seq_len_to_capture", "lora_extra_vocab_size",
    "max_prompt_adapters", "max_prompt_adapter_token", "multi_step_stream_outputs", "spec_decoding_acceptance_method",
    "use_tqdm_on_load", "additional_config",
})  # fmt: skip
"""What `args: Namespace(…)`, which prints every argument, has besides those that were given."""

_CONFIG_KEPT = frozenset({
    "model", "revision", "dtype", "max_seq_len", "tensor_parallel_size", "pipeline_parallel_size",
    "data_parallel_size", "decode_context_parallel_size", "prefill_context_parallel_size", "quantization",
    "enforce_eager", "kv_cache_dtype", "enable_prefix_caching", "speculative_config",
})  # fmt: skip


def _read_config(start: Start, found: re.Match[str], line: Line) -> None:
    """What the engine made of its arguments; it stands over them."""
    _read_version(start, found, line)
    for name, value in read_items(line.text, found.end()).items():
        if name in _CONFIG_KEPT and value is not None:
            plain = value.removeprefix("torch.") if isinstance(value, str) else value
            if name == "speculative_config" and "speculative_config" in start.args:
                continue  # here it is an object's repr, among the arguments a dict
            start.args["max_model_len" if name == "max_seq_len" else name] = plain


def _fact(name: str) -> dict[str, object]:
    """What a wording's group `x_value` says, under this name; the first to say it is right."""

    def read(start: Start, found: re.Match[str], line: Line) -> None:
        del line
        start.facts.setdefault(name, found["x_value"])

    return {"then": read}


def _option(name: str, value: object = None) -> dict[str, object]:
    """What the engine says that it decided, under kvplan's name."""

    def read(start: Start, found: re.Match[str], line: Line) -> None:
        del line
        start.options[name] = int(found["x_value"].replace(",", "")) if value is None else value

    return {"then": read}


def _read_padding(start: Start, found: re.Match[str], line: Line) -> None:
    """Layers that pad a group, one number for each kind that needs some; 0.21 and later plan twice and say it twice."""
    del line
    known = start.facts.get("padding_layers", "").split()
    if found["x_value"] not in known:
        start.facts["padding_layers"] = " ".join([*known, found["x_value"]])


def _read_backend(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    name = found["x_value"].rpartition(".")[2].strip().upper().replace(" ", "_")
    start.facts.setdefault("attention_backend", "FLASH_ATTN" if name == "FLASH_ATTENTION" else name)


_BEGINNINGS = (
    wording("█  version ", r"█  version (?P<x_version>\S+)", "0.14+", begins="process", then=_read_version),
    wording(
        "vLLM API server version",
        r"vLLM API server version (?P<x_version>\S+)",
        "0.4+",
        begins="process",
        then=_read_version,
    ),
    wording("args: Namespace(", r"args: Namespace\(", "0.4 to 0.8", begins="process", then=_read_args),
    wording("non-default args: {", r"non-default args: \{", "0.8+", begins="process", then=_read_args),
    wording(
        "LLM engine (v",
        r"Initializing an? (?:V\d )?LLM engine \(v(?P<x_version>[^)\s]+)\) with config: ",
        "0.2+; V1 from 0.7",
        begins="engine",
        then=_read_config,
    ),
)

_LOADING = (
    _size("Model loading took", r"Model loading took <weights> G", "0.7+", begins="load"),
    _size("Loading model weights took", r"Loading model weights took <weights> G", "0.3 to 0.7", begins="load"),
)

_MEMORY_V0 = (
    _size(
        "x gpu_memory_utilization",
        r"total_gpu_memory \(<device_total>GiB\) x gpu_memory_utilization \(<utilization>\) = <requested>GiB",
        "0.6.4 to 0.10",
    ),
    _size("model weights take", r"model weights take <weights>GiB", "0.6.4 to 0.10", weak=True),
    _size("non_torch_memory takes", r"non_torch_memory takes <non_torch>GiB", "0.6.4 to 0.10"),
    _size("activation peak memory takes", r"activation peak memory takes <activation_peak>GiB", "0.6.4 to 0.10"),
    _size("reserved for KV Cache is", r"reserved for KV Cache is <kv_memory>GiB", "0.6.4 to 0.10"),
    _count(
        "CPU blocks:",
        r"# (?:GPU|cuda|CUDA|rocm|xpu|hpu|neuron|npu) blocks: <num_blocks>, # CPU blocks: <num_cpu_blocks>",
        "0.2 to 0.10",
    ),
)

_MEMORY_V1 = (
    _size("Available KV cache memory:", r"Available KV cache memory: <kv_memory> GiB", "0.8.3+"),
    _size(
        "memory for KV Cache as specified by",
        r"(?:nitial free memory:? <device_free> GiB[,;] )?[Rr]eserved <kv_memory> GiB memory for KV Cache as "
        r"specified by",
        "0.11+",
    ),
    _size("Total non KV cache memory:", r"Total non KV cache memory: <non_kv>GiB", "0.10+, debug"),
    _size("torch peak memory increase:", r"torch peak memory increase: <activation_peak>GiB", "0.10+, debug"),
    _size("forward increase memory:", r"non-torch forward increase memory: <non_torch>GiB", "0.10+, debug"),
    _size("weights memory:", r"weights memory: <weights>GiB", "0.10+, debug", weak=True),
    _size(
        "Desired GPU memory utilization is",
        r"Free memory on device (?:\S+ )?\(<device_free>/<device_total> GiB\) on startup\. "
        r"Desired GPU memory utilization is \(<utilization>, <requested> GiB\)",
        "0.10.2+",
    ),
    _size("GiB for weight", r"Actual usage(?: is|:) <weights> GiB for weight", "0.10.2 to 0.20", weak=True),
    _size("for consumed memory", r"<consumed> GiB for consumed memory", "0.27+"),
    _size("for peak activation", r"<activation_peak> GiB for peak activation", "0.10.2+", weak=True),
    _size("for non-torch memory", r"<non_torch> GiB for non-torch memory", "0.10.2 to 0.20", weak=True),
    _size("for CUDAGraph memory", r"<graphs> GiB for CUDAGraph memory", "0.10.2+", weak=True),
    _size("Current kv cache memory in use", r"kv cache memory in use is <kv_memory> GiB", "0.12+", weak=True),
)

_GRAPHS = (
    _size("Graph capturing finished", r"Graph capturing finished in \d+ secs?, took <graphs> GiB", "0.5+"),
    _size("Estimated CUDA graph memory:", r"Estimated CUDA graph memory: <graph_estimate> GiB", "0.19+"),
    _size(
        "CUDA graph pool memory:",
        r"CUDA graph pool memory: <graphs> GiB \(actual\), <graph_estimate> GiB \(estimated\)",
        "0.19+",
        weak=True,
    ),
)

_POOL = (
    _count("KV cache size:", r"KV cache size: <num_tokens> tokens", "0.7+"),
    _count(
        "Maximum concurrency for",
        r"Maximum concurrency for <concurrency_len> tokens per request: <max_concurrency>x",
        "0.5.1+",
    ),
    _count("num_gpu_blocks is:", r"num_gpu_blocks is: <num_blocks>", "0.8+, debug"),
    _count(
        "num_gpu_blocks_override=",
        r"Overriding num_gpu_blocks=\d+ with num_gpu_blocks_override=(?P<x_value>\d+)",
        "0.5+",
        **_option("num_gpu_blocks_override"),
    ),
)

_DECISIONS = (
    wording(
        "Chunked prefill is enabled",
        r"Chunked prefill is enabled with max_num_batched_tokens=(?P<x_value>\d+)",
        "0.5+",
        **_option("max_num_batched_tokens"),
    ),
    wording("Using max model len", r"Using max model len (?P<x_value>\d+)", "0.8.5+", **_option("max_model_len")),
    wording(
        "Asynchronous scheduling is enabled",
        r"Asynchronous scheduling is enabled",
        "0.14+",
        **_option("async_scheduling", True),
    ),
    wording(
        "Asynchronous scheduling is disabled",
        r"Asynchronous scheduling is disabled",
        "0.14+",
        **_option("async_scheduling", False),
    ),
    wording(
        "attention block size to",
        r"Setting attention block size to (?P<x_value>\d+) tokens",
        "0.10.2+",
        **_fact("block_size"),
    ),
    wording(
        "Padding mamba page size",
        r"Padding mamba page size by (?P<x_value>[\d.]+%)",
        "0.10.2+",
        **_fact("page_padding"),
    ),
    wording("padding layers, may waste", r"Add (?P<x_value>\d+) padding layers", "0.10+", then=_read_padding),
    wording(
        "Resolved architecture",
        r"Resolved architectures?: (?P<x_value>\w+)",
        "0.10+",
        **_fact("architecture"),
    ),
    wording(
        "backend",
        r"Using (?P<x_value>AttentionBackendEnum\.\w+|[A-Z][A-Z0-9_]+(?= attention )|Flash ?Attention|FlashInfer"
        r"|FlashMLA|Cutlass MLA|Triton(?: MLA| Attention)?|XFormers|FlexAttention|ROCmFlashAttention|Torch SDPA)"
        r" (?:attention )?backend(?! for)",
        "0.4+",
        then=_read_backend,
    ),
    wording(
        "data type to store kv cache",
        r"Using (?P<x_value>\w+) data type to store kv cache",
        "0.5+",
        **_fact("kv_dtype"),
    ),
)

_FAILURES = (
    _size(
        "is less than desired GPU memory",
        r"Free memory on device (?:\S+ )?\(<device_free>/<device_total> GiB\) on startup is less than desired GPU "
        r"memory utilization \(<utilization>, <requested> GiB\)",
        "0.8.3+",
        then=fails,
    ),
    wording(
        "No available memory for the cache blocks", r"No available memory for the cache blocks", "0.2+", then=fails
    ),
    _count(
        "can be stored in KV cache",
        r"The model's max seq len \(<needed_len>\) is larger than the maximum number of tokens that can be stored in "
        r"KV cache \(<num_tokens>\)",
        "0.2 to 0.10",
        then=fails,
    ),
    wording(
        "To serve at least one request",
        r"To serve at least one request with the models?'s max seq len \(<needed_len>\), \(?<needed> GiB KV cache\)? "
        r"is needed, which is larger than the available KV cache memory \(<kv_memory> GiB\)"
        r"(?:.{0,80}?estimated maximum model length is <estimated_max_len>)?",
        "0.8+",
        units={**_GIB, "needed_len": "tokens", "estimated_max_len": "tokens"},
        places=2,
        weak=True,
        then=fails,
    ),
    _count(
        "available Mamba cache blocks",
        r"max_num_seqs \(\d+\) exceeds available Mamba cache blocks \(<state_slots>\)",
        "0.18+",
        then=fails,
    ),
    wording("Error in memory profiling", r"Error in memory profiling\.", "0.5+", then=fails),
)

_READY = (
    wording("Application startup complete", r"Application startup complete", "server", owned=False, then=is_ready),
)


def _finish(start: Start) -> None:
    for name in ("model", "model_tag"):
        if start.model is None and isinstance(start.args.get(name), str):
            start.model = str(start.args[name])


DIALECT = Dialect(
    engine="vllm",
    wordings=(
        *_BEGINNINGS,
        *_LOADING,
        *_MEMORY_V0,
        *_MEMORY_V1,
        *_GRAPHS,
        *_POOL,
        *_DECISIONS,
        *_FAILURES,
        *_READY,
        *OUT_OF_MEMORY,
    ),
    finish=_finish,
)
