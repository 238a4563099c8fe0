"""vLLM's arguments. Source: vllm/engine/arg_utils.py and vllm/config of 0.33.0, and what 0.8.5 and 0.11.0 had."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kvplan.core.dtypes import TURBOQUANT
from kvplan.core.errors import InputError
from kvplan.runtime.flags.argument import Argument, Dialect, Options, UnknownValueError, Value, Variable, names, spelled
from kvplan.runtime.flags.values import (
    COUNT,
    FRACTION,
    GIBIBYTES,
    OFF,
    ON,
    QUANTIZATION,
    WORD,
    WORDS,
    count_text,
    counted,
    dtype_value,
    kv_dtype_value,
    positive,
    refused,
    stages,
    stages_text,
    state_dtype_value,
    switched,
    tree,
    word,
    words,
)
from kvplan.runtime.flags.vllm_silent import DEFAULTS, SILENT, SILENT_BARE, SILENT_MANY

_FORMATS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_KV_FORMATS = {
    "bf16": "bfloat16", "fp16": "float16", "fp8": "fp8", "int8": "int8_per_token_head", "int4": "int4_per_token_head",
    "fp8_per_token_head": "fp8_per_token_head", "nvfp4": "nvfp4", "fp8_ds_mla": "fp8_ds_mla",
    "nvfp4_ds_mla": "nvfp4_ds_mla", **{name: name for name in TURBOQUANT},
}  # fmt: skip
_DTYPES = ("auto", "half", "float16", "bfloat16", "float", "float32")
"""vLLM 0.33, config/model.py `ModelDType`, which 0.8 had, too."""
LIMITS = "--limit-mm-per-prompt"
_KV_WORDS = frozenset({
    "auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc", "fp8_ds_mla", "nvfp4_ds_mla",
    "turboquant_k8v4", "turboquant_4bit_nc", "turboquant_k3v4_nc", "turboquant_3bit_nc", "octave_k3v4", "octave_k3v3",
    "octave_k3v3_compact", "ultraquant_4bit", "int4_per_token_head", "int8_per_token_head", "fp8_per_token_head",
    "nvfp4", "nvfp4_4over6",
})  # fmt: skip
"""vLLM 0.33, config/cache.py `CacheDType`: older releases have fewer."""
NOTHING = ("", "None")
"""Words that say nothing: vLLM, engine/arg_utils.py `optional_type`."""
_UNITS = dict(zip("kmgtKMGT", (10**3, 10**6, 10**9, 10**12, 2**10, 2**20, 2**30, 2**40), strict=True))


def _human(value: object) -> int:
    """`16k` = 16,000, `16K` = 16,384, `25.6k`: vllm/utils/argparse_utils.py, human_readable_int."""
    text = str(value).strip()
    unit = _UNITS.get(text[-1:])
    if unit is None:
        return positive(value)
    return positive(int(float(text[:-1]) * unit) if text[-1].islower() else int(text[:-1]) * unit)


def _length(value: object) -> int:
    if str(value).strip().lower() in ("-1", "auto"):
        raise UnknownValueError  # the longest that fits: vLLM works it out when it starts
    return _human(value)


def _backend(value: object) -> str | None:
    """FLASH_ATTN, also where a log prints `<AttentionBackendEnum.FLASH_ATTN: '…'>`; None for auto."""
    found = re.search(r"AttentionBackendEnum\.(\w+)", str(value))
    name = found[1] if found else word(value).upper()
    return None if name == "AUTO" else name


def _quantization(value: object) -> object:
    return None if value in NOTHING else QUANTIZATION.read(value)


_SIZES = "a positive whole number, such as 8192, 8k (8000) or 8K (8192)"
_HUMAN = Value(_human, count_text, _SIZES)
_LENGTH = Value(_length, count_text, _SIZES)

_ARGUMENTS = (
    Argument("max_model_len", ("--max-model-len",), _LENGTH),
    Argument("tp", ("--tensor-parallel-size", "-tp"), COUNT),
    Argument("pp", ("--pipeline-parallel-size", "-pp"), COUNT),
    Argument("dp", ("--data-parallel-size", "-dp"), COUNT),
    Argument("dcp", ("--decode-context-parallel-size", "-dcp"), COUNT),
    Argument("pcp", ("--prefill-context-parallel-size", "-pcp"), COUNT),
    Argument("dtype", ("--dtype",), dtype_value(_FORMATS)),
    Argument("kv_dtype", ("--kv-cache-dtype",), kv_dtype_value(_KV_FORMATS)),
    Argument("quant", ("--quantization", "-q"), replace(QUANTIZATION, read=_quantization)),
    Argument("gpu_memory_utilization", ("--gpu-memory-utilization", "--device-memory-utilization"), FRACTION),
    Argument("kv_memory_bytes", ("--kv-cache-memory-bytes",), _HUMAN),
    Argument("max_num_seqs", ("--max-num-seqs",), COUNT),
    Argument("cpu_offload_bytes", ("--cpu-offload-gb",), GIBIBYTES),
    Argument("max_num_batched_tokens", ("--max-num-batched-tokens",), _HUMAN),
    Argument("block_size", ("--block-size",), COUNT),
    Argument("prefix_caching", ("--enable-prefix-caching",), ON, ("--no-enable-prefix-caching",)),
    Argument("enforce_eager", ("--enforce-eager",), ON, ("--no-enforce-eager",)),
    Argument("hybrid_manager", ("--disable-hybrid-kv-cache-manager",), OFF, ("--no-disable-hybrid-kv-cache-manager",)),
    Argument("async_scheduling", ("--async-scheduling",), ON, ("--no-async-scheduling",)),
    Argument("num_gpu_blocks_override", ("--num-gpu-blocks-override",), COUNT),
    Argument("attention_backend", ("--attention-backend",), Value(_backend, str, "a backend")),
    Argument("kv_cache_dtype_skip_layers", ("--kv-cache-dtype-skip-layers",), WORDS),
    Argument("state_dtype", ("--mamba-ssm-cache-dtype",), state_dtype_value(_FORMATS)),
    Argument("conv_dtype", ("--mamba-cache-dtype",), state_dtype_value(_FORMATS)),
    Argument("expert_parallel", ("--enable-expert-parallel", "-ep"), ON, ("--no-enable-expert-parallel",)),
    Argument("cuda_graph_max_bs", ("--max-cudagraph-capture-size",), COUNT),
    Argument(None, ("--cudagraph-capture-sizes", "--cuda-graph-sizes"), WORDS, older=("cuda_graph_sizes",)),
    Argument(None, ("--speculative-config", "-sc"), WORD),
    Argument(None, ("--spec-method",), WORD),
    Argument(None, ("--spec-model",), WORD),
    Argument(None, ("--spec-tokens",), WORD),
    Argument(None, ("--speculative-model",), WORD),  # this one and the next: up to 0.8
    Argument(None, ("--num-speculative-tokens",), WORD),
    Argument(None, ("--enable-lora",), ON, ("--no-enable-lora",)),
    Argument(None, ("--max-loras",), WORD),
    Argument(None, ("--max-lora-rank",), WORD),
    Argument(None, ("--language-model-only",), ON, ("--no-language-model-only",)),
    Argument(None, ("--limit-mm-per-prompt",), WORD),
    Argument(None, ("--compilation-config", "-cc"), WORD),
    Argument(None, ("--optimization-level",), WORD),
    Argument(None, ("--attention-config", "-ac"), WORD),
    Argument(None, ("--config",), WORD),
    Argument(None, ("--nnodes", "-n"), WORD),
    Argument(None, ("--data-parallel-rank", "-dpn"), WORD),
    Argument(None, ("--data-parallel-start-rank", "-dpr"), WORD),
    Argument(None, ("--data-parallel-size-local", "-dpl"), WORD),
    Argument(None, ("--data-parallel-address", "-dpa"), WORD),
    Argument(None, ("--data-parallel-backend", "-dpb"), WORD),
    Argument(None, ("--data-parallel-hybrid-lb", "-dph"), ON, ("--no-data-parallel-hybrid-lb",)),
    Argument(None, ("--data-parallel-external-lb", "-dpe"), ON, ("--no-data-parallel-external-lb",)),
    Argument(None, ("--enable-chunked-prefill",), ON, ("--no-enable-chunked-prefill",)),
)
_JOINT = names(
    "num_speculative_tokens speculative_method draft_model heterogeneous_vocab max_loras max_lora_rank no_images usage"
)


def _joint_read(args: Mapping[str, object]) -> tuple[Options, tuple[str, ...]]:
    options: Options = {}
    unread: list[str] = []
    for read in (_speculation, _graphs, _attention, _images):
        found, unclear = read({name: value for name, value in args.items() if value is not None})
        options |= found
        unread += unclear
    if args.get("enable_chunked_prefill") is not None and not switched(args, "enable_chunked_prefill"):
        unread.append("--no-enable-chunked-prefill")  # the longest prompt is then one pass
    if args.get("config"):
        unread.append(spelled("config", args["config"]))  # a file of further arguments
    return options | _adapters(args), tuple(unread)


_MTP_BY_MODEL = "_mtp"  # deepseek_mtp, qwen3_next_mtp …: since 0.11 all of them are called mtp
_SPECULATION_FLAGS = {
    "spec_method": "method", "spec_model": "model", "spec_tokens": "num_speculative_tokens",
    "speculative_model": "model", "num_speculative_tokens": "num_speculative_tokens",
}  # fmt: skip
_SPECULATION_SILENT = names(
    "prompt_lookup_max prompt_lookup_min disable_padded_drafter_batch revision code_revision rejection_sample_method "
    "draft_sample_method suffix_decoding_max_tree_depth suffix_decoding_max_cached_requests acceptance_method "
    "suffix_decoding_max_spec_factor suffix_decoding_min_token_prob synthetic_acceptance_rates disable_logprobs "
    "synthetic_acceptance_length disable_by_batch_size use_local_argmax_reduction disable_log_stats "
    "posterior_threshold posterior_alpha token_acceptance_method draft_load_config disable_mqa_scorer"
)


_SUFFIX_TREE = 24
"""`suffix_decoding_max_tree_depth`, which is also how many tokens are drafted where nothing else says it."""


def _speculation(args: Mapping[str, object]) -> tuple[Options, list[str]]:
    config = tree(args.get("speculative_config") or {}, "--speculative-config")
    for name, key in _SPECULATION_FLAGS.items():
        config |= {key: args[name]} if name in args else {}
    method, model = config.pop("method", None), config.pop("model", None)
    if method is None and model in ("ngram", "[ngram]"):
        method, model = "ngram", None
    if method is None and model is not None:
        method = _method_by_name(str(model))
    if method is not None:
        method = "mtp" if str(method).endswith(_MTP_BY_MODEL) else str(method)
    tokens = config.pop("num_speculative_tokens", None)
    if method == "suffix" and tokens is None:
        tokens = config.get("suffix_decoding_max_tree_depth") or _SUFFIX_TREE
    other = str(config.get("use_heterogeneous_vocab")).lower()
    if other in ("true", "false"):
        del config["use_heterogeneous_vocab"]
    found = {
        "num_speculative_tokens": None if tokens is None else counted(_drafted_by(args), tokens),
        "speculative_method": method,
        "draft_model": None if model is None else str(model),
        "heterogeneous_vocab": True if other == "true" else None,
    }
    unread = [
        spelled(f"--speculative-config.{key}", value)
        for key, value in config.items()
        if value is not None and key not in _SPECULATION_SILENT
    ]
    return {name: value for name, value in found.items() if value is not None}, unread


def _drafted_by(args: Mapping[str, object]) -> str:
    """The flag that says how many tokens are drafted."""
    given = next((name for name in ("num_speculative_tokens", "spec_tokens") if name in args), None)
    return "--speculative-config.num_speculative_tokens" if given is None else f"--{given.replace('_', '-')}"


def _method_by_name(model: str) -> str:
    """What vLLM takes a draft for where nothing says it (config/speculative.py `__post_init__`)."""
    names = (("eagle-", "eagle"), ("eagle3", "eagle3"), ("dflash", "dflash"), ("dspark", "dspark"))
    return next((method for part, method in names if part in model.lower()), "draft_model")


_COMPILED = "--compilation-config"
_LEVELS = ("0", "1", "2", "3")


def _graphs(args: Mapping[str, object]) -> tuple[Options, list[str]]:
    level = args.get("optimization_level")
    typed = isinstance(level, str) and level.startswith("{")  # up to 0.10 `-O` took the compilation's settings
    given = level if typed else args.get("compilation_config") or {}
    # Releases with `from_cli` took a bare level.
    config = {"level": given} if str(given) in _LEVELS else tree(given, _COMPILED)
    level = str(config.get("level", "")) if typed or level is None else str(level)
    sizes = config.get("cudagraph_capture_sizes") or args.get("cudagraph_capture_sizes") or args.get("cuda_graph_sizes")
    found: Options = {}
    unread: list[str] = []
    if config.get("max_cudagraph_capture_size"):
        found["cuda_graph_max_bs"] = counted(
            f"{_COMPILED}.max_cudagraph_capture_size", config["max_cudagraph_capture_size"]
        )
    elif sizes and words(sizes):
        found["cuda_graph_max_bs"] = max(counted("--cudagraph-capture-sizes", size) for size in words(sizes))
    mode = "" if config.get("cudagraph_mode") is None else str(config["cudagraph_mode"]).upper()
    if "NONE" in mode or mode == "0" or level == "0" or config.get("use_cudagraph") is False:
        found["enforce_eager"] = True
    elif mode and "FULL_AND_PIECEWISE" not in mode:
        unread.append(spelled(f"{_COMPILED}.cudagraph_mode", mode))
    if level == "1":
        unread.append("-O1")
    if str(config.get("mode")).endswith(("0", "NONE", "NONE: 0>")) and not mode:
        unread.append(spelled(f"{_COMPILED}.mode", config["mode"]))
    return found, unread


def _attention(args: Mapping[str, object]) -> tuple[Options, list[str]]:
    config = tree(args.get("attention_config") or {}, "--attention-config")
    backend = config.pop("backend", None)
    unread = [
        spelled(f"--attention-config.{key}", value) for key, value in config.items() if value not in (None, False)
    ]
    name = None if backend is None else _backend(backend)
    return ({} if name is None else {"attention_backend": name}), unread


def _adapters(args: Mapping[str, object]) -> Options:
    if not switched(args, "enable_lora"):
        return {}
    found: Options = {"max_loras": counted("--max-loras", args.get("max_loras") or 1)}
    if args.get("max_lora_rank") is not None:
        found["max_lora_rank"] = counted("--max-lora-rank", args["max_lora_rank"])
    return found


def _images(args: Mapping[str, object]) -> tuple[Options, list[str]]:
    """A vision tower is left out where every kind of input that it reads is limited to 0 (vllm/config/multimodal.py):
    0 images alone do not do that for a model that reads videos, which have a limit of their own."""
    if switched(args, "language_model_only"):
        return {"no_images": True}, []
    limits = limits_of_inputs(args)
    if limits.get("image") == limits.get("video") == "0":
        return {"no_images": True}, []
    shown = {kind: int(limit) if limit.isdecimal() else limit for kind, limit in limits.items()}
    return {}, [spelled(LIMITS, json.dumps(shown))] if "0" in limits.values() else []


def limits_of_inputs(args: Mapping[str, object]) -> dict[str, str]:
    """How many images, videos … one prompt may have, of those that are limited."""
    given = args.get("limit_mm_per_prompt") or {}
    if isinstance(given, str) and "=" in given:
        given = dict(pair.partition("=")[::2] for pair in given.split(","))  # up to 0.8: image=0,video=0
    return {kind: _limit(value) for kind, value in tree(given, LIMITS).items()}


def _limit(value: Any) -> str:
    return str(value.get("count", "")) if isinstance(value, Mapping) else str(value)


def _joint_write(options: Mapping[str, object]) -> list[str]:
    if options.get("usage") not in (None, "server"):
        raise InputError("vLLM's Python class has no command line", hint="leave `usage` out, or say `server`")
    tokens = options.get("num_speculative_tokens")
    named = {
        "method": options.get("speculative_method"),
        "model": options.get("draft_model"),
        "num_speculative_tokens": positive(tokens) if tokens else None,
        "use_heterogeneous_vocab": options.get("heterogeneous_vocab") or None,
    }
    config = {key: value for key, value in named.items() if value is not None}
    line = ["--speculative-config", json.dumps(config)] if config else []
    if options.get("max_loras"):
        line += ["--enable-lora", "--max-loras", count_text(options["max_loras"])]
        rank = options.get("max_lora_rank")
        line += [] if rank is None else ["--max-lora-rank", count_text(rank)]
    return [*line, "--language-model-only"] if options.get("no_images") else line


def _expand(word: str) -> list[str]:
    """`-O3`, `-O=3` and `-O.mode=3`, which stand for two arguments (vllm/utils/argparse_utils.py)."""
    if not word.startswith("-O"):
        return [word]
    rest = word[2:].removeprefix("=")
    if rest.startswith("."):
        return [f"--compilation-config{rest}"]
    return ["--optimization-level", rest] if rest else ["--optimization-level"]


def _refuse(args: Mapping[str, object]) -> None:
    """What a command line cannot say; a log may print words of a newer release."""
    dtype = args.get("dtype")
    if dtype is not None and str(dtype) not in _DTYPES:
        raise refused("--dtype", dtype, f"one of {', '.join(_DTYPES)}")
    name = args.get("kv_cache_dtype")
    if name is not None and word(name).lower() not in _KV_WORDS:
        raise refused("--kv-cache-dtype", name, "a format of vLLM's cache, such as fp8")


def _unread(text: str) -> Options:
    raise UnknownValueError


def _v1(text: str) -> Options:
    if text.strip() == "0":
        raise UnknownValueError  # the engine before V1 sizes its memory by other rules
    return {}


DIALECT = Dialect(
    engine="vllm",
    abbreviates=True,
    arguments=_ARGUMENTS,
    silent=SILENT,
    silent_bare=SILENT_BARE,
    silent_many=SILENT_MANY,
    defaults=DEFAULTS,
    joint_options=_JOINT,
    joint_read=_joint_read,
    joint_write=_joint_write,
    variables={"stage_layers": Variable("VLLM_PP_LAYER_PARTITION", stages_text)},
    expand=_expand,
    refuse=_refuse,
    environment={
        "VLLM_PP_LAYER_PARTITION": stages,
        "VLLM_ATTENTION_BACKEND": lambda text: {"attention_backend": _backend(text)},
        "VLLM_USE_V1": _v1,
        "VLLM_MLA_DISABLE": _unread,
        "VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE": _unread,
        "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": _unread,
    },
)
