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
from kvplan.runtime.vllm_memory_log import MEMORY, count, option, size
from kvplan.runtime.wording import EXCEPTION, OUT_OF_MEMORY, Dialect, Start, fails, fails_vaguely, is_ready, wording


def _read_version(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    version = (found["x_version"] or "").removeprefix("v")
    if version[:1].isdigit():
        start.version = start.version or version


def _read_args(start: Start, found: re.Match[str], line: Line) -> None:
    """The arguments of the command line, or those of them that are not the defaults."""
    for name, value in read_items(line.text, found.end()).items():
        if value is not None and name not in _NAMESPACE_ONLY:
            start.args[name] = value
    served = start.args.get("served_model_name")
    if isinstance(served, list) and served and isinstance(served[0], str):
        start.facts.setdefault("name", served[0])


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
    if found["x_engine"]:
        start.facts["engine"] = found["x_engine"]
    for name, value in read_items(line.text, found.end()).items():
        if name == "device_config" and isinstance(value, str):
            start.facts.setdefault("device_type", value)
        if name in _CONFIG_KEPT and value is not None:
            plain: object = value.removeprefix("torch.") if isinstance(value, str) else value
            if name == "speculative_config":
                if name in start.args:
                    continue  # among the arguments it is a dict, and whole
                plain = _speculation(str(value))
            start.args["max_model_len" if name == "max_seq_len" else name] = plain


def _speculation(text: str) -> dict[str, object]:
    """The dict of what prints as `SpeculativeConfig(method='mtp', model='…', num_spec_tokens=1)`."""
    told = read_items(text, text.find("(") + 1)
    names = {"method": "method", "model": "model", "num_spec_tokens": "num_speculative_tokens"}
    return {name: told[key] for key, name in names.items() if told.get(key) is not None}


def _fact(name: str) -> dict[str, object]:
    """What a wording's group `x_value` says, under this name; the first to say it is right."""

    def read(start: Start, found: re.Match[str], line: Line) -> None:
        del line
        start.facts.setdefault(name, found["x_value"])

    return {"then": read}


def _set_fact(name: str) -> dict[str, object]:
    """The same where the last to say it is right."""

    def read(start: Start, found: re.Match[str], line: Line) -> None:
        del line
        start.facts[name] = found["x_value"]

    return {"then": read}


def _read_out_of_memory(start: Start, found: re.Match[str], line: Line) -> None:
    """Of a line whose prefix is vLLM's own: it may be the first that is known of a log."""
    start.fail(found["x_words"], line)


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
        "LLM engine",
        r"Initializing an? (?:(?P<x_engine>V\d) )?LLM engine(?: \(v(?P<x_version>[^)\s]+)\))? with config: ",
        "0.1+; V1 from 0.7",
        begins="engine",
        then=_read_config,
    ),
)

_DECISIONS = (
    wording(
        "Chunked prefill is enabled",
        r"Chunked prefill is enabled with max_num_batched_tokens=(?P<x_value>\d+)",
        "0.5+",
        **option("max_num_batched_tokens"),
    ),
    wording(
        "Auto-fit max_model_len:",
        r"Auto-fit max_model_len: (?:reduced from \d+ to|full model context length) (?P<x_value>\d+)",
        "0.14+",
        **option("max_model_len"),
    ),
    wording(
        "Platform plugin",
        r"Platform plugin (?P<x_value>\w+) is activated",
        "0.7+",
        **_fact("device_type"),
    ),
    wording(
        "Block size is set to",
        r"Block size is set to (?P<x_value>\d+) if prefix cache",
        "on Ascend",
        **option("block_size"),
    ),
    wording("Using max model len", r"Using max model len (?P<x_value>\d+)", "0.8.5+", **option("max_model_len")),
    wording(
        "Asynchronous scheduling is enabled",
        r"Asynchronous scheduling is enabled",
        "0.14+",
        **option("async_scheduling", True),
    ),
    wording(
        "Asynchronous scheduling is disabled",
        r"Asynchronous scheduling is disabled",
        "0.14+",
        **option("async_scheduling", False),
    ),
    wording(
        "attention block size to",
        r"Setting attention block size to (?P<x_value>\d+) tokens",
        "0.10.2+",
        **_set_fact("block_size"),
    ),
    wording(
        "kv cache block size to",
        r"Setting kv cache block size to (?P<x_value>\d+)",
        "0.14+",
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
    size(
        "is less than desired GPU memory",
        r"Free memory on device (?:\S+ )?\(<device_free>/<device_total> GiB\) on startup is less than desired GPU "
        r"memory utilization \(<utilization>, <requested> GiB\)",
        "0.8.3+",
        then=fails,
    ),
    wording(
        "No available memory for the cache blocks", r"No available memory for the cache blocks", "0.2+", then=fails
    ),
    count(
        "can be stored in KV cache",
        r"The model's max seq len \(<needed_len>\) is larger than the maximum number of tokens that can be stored in "
        r"KV cache \(<num_tokens>\)",
        "0.2 to 0.10",
        then=fails,
    ),
    count(
        "To serve at least one request",
        r"To serve at least one request with the model'?s?'?s? max seq len \(<needed_len>\)",
        "0.8+",
        then=fails,
    ),
    size(
        "KV cache is needed, which",
        r"To serve at least one request with the models?'s max seq len \(<needed_len>\), \(?<needed> GiB KV cache\)? "
        r"is needed, which is larger than the available KV cache memory \(<kv_memory> GiB\)"
        r"(?:.{0,80}?estimated maximum model length is <estimated_max_len>)?",
        "0.8+",
        weak=True,
        then=fails,
    ),
    count(
        "available Mamba cache blocks",
        r"max_num_seqs \(\d+\) exceeds available Mamba cache blocks \(<state_slots>\)",
        "0.18+",
        then=fails,
    ),
    wording("Error in memory profiling", r"Error in memory profiling\.", "0.5+", then=fails),
    wording("Cannot auto-fit max_model_len", r"Cannot auto-fit max_model_len", "0.14+", then=fails),
    wording(
        "OutOfMemoryError",
        r"\((?:EngineCore|Worker|VllmWorker|RayWorker)[^)]{0,80}\).{0,200}?\bOutOfMemoryError: (?P<x_words>.*)",
        "0.8+",
        then=_read_out_of_memory,
    ),
    wording(
        "core initialization failed",
        r"Engine core initialization failed\. See root cause above",
        "0.9+",
        then=fails_vaguely,
    ),
    wording("EngineCore failed to start", r"EngineCore failed to start", "0.8+", then=fails_vaguely),
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
        *MEMORY,
        *_DECISIONS,
        *_FAILURES,
        *_READY,
        *OUT_OF_MEMORY,
        EXCEPTION,
    ),
    finish=_finish,
)
