"""SGLang's arguments. Source: sglang/srt/server_args.py and arg_groups/fields of 0.5.23, and what 0.4 and 0.5 had.

Where spellings differ between versions, the one that most of 0.4 to 0.5.23 take is written: `--disable-cuda-graph`,
`--dp-size N --enable-dp-attention`; but `--cuda-graph-max-bs-decode`, because its older form is ambiguous today.
"""

from collections.abc import Mapping

from kvplan.core.errors import InputError
from kvplan.runtime.flags.argument import Argument, Dialect, Options, UnknownValueError, Value, Variable, names
from kvplan.runtime.flags.sglang_silent import DEFAULTS, SILENT, SILENT_BARE, SILENT_MANY
from kvplan.runtime.flags.values import (
    COUNT,
    FRACTION,
    GIBIBYTES,
    OFF,
    ON,
    QUANTIZATION,
    SHARE,
    WORD,
    WORDS,
    count_text,
    counted,
    dtype_value,
    kv_dtype_value,
    positive,
    stages,
    stages_text,
    state_dtype_value,
    switched,
    whole,
    words,
)

_FORMATS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_KV_FORMATS = {"bf16": "bfloat16", "fp8": "fp8_e4m3", "mxfp8": "mxfp8", "nvfp4": "nvfp4", "mxfp4": "fp4_e2m1"}

_DTYPE = dtype_value(_FORMATS)


def _chunk(value: object) -> int:
    if whole(value) <= 0:
        raise UnknownValueError  # no chunks: a pass is as long as its prompts
    return positive(value)


_ARGUMENTS = (
    Argument("max_model_len", ("--context-length",), COUNT),
    Argument("tp", ("--tp-size", "--tensor-parallel-size"), COUNT),
    Argument("pp", ("--pp-size", "--pipeline-parallel-size"), COUNT),
    Argument("dcp", ("--dcp-size", "--decode-context-parallel-size"), COUNT),
    Argument("dtype", ("--dtype",), _DTYPE),
    Argument("kv_dtype", ("--kv-cache-dtype",), kv_dtype_value(_KV_FORMATS)),
    Argument("quant", ("--quantization",), QUANTIZATION),
    Argument("gpu_memory_utilization", ("--mem-fraction-static",), FRACTION),
    Argument("max_num_seqs", ("--max-running-requests",), COUNT),
    Argument("max_num_batched_tokens", ("--chunked-prefill-size",), Value(_chunk, count_text, "a whole number")),
    Argument("max_pool_tokens", ("--max-total-tokens",), COUNT),
    Argument("cpu_offload_bytes", ("--cpu-offload-gb",), GIBIBYTES),
    Argument("block_size", ("--page-size",), COUNT),
    Argument("prefix_caching", ("--disable-radix-cache",), OFF),
    Argument("enforce_eager", ("--disable-cuda-graph",), ON),
    Argument("attention_backend", ("--attention-backend",), WORD),
    Argument("state_dtype", ("--mamba-ssm-dtype",), state_dtype_value(_FORMATS)),
    Argument("swa_full_tokens_ratio", ("--swa-full-tokens-ratio",), SHARE),
    Argument("mamba_full_memory_ratio", ("--mamba-full-memory-ratio",), SHARE),
    Argument(
        "cuda_graph_max_bs", ("--cuda-graph-max-bs-decode", "--cuda-graph-max-bs"), COUNT, older=("cuda_graph_max_bs",)
    ),
    Argument(None, ("--cuda-graph-bs-decode", "--cuda-graph-bs"), WORDS, older=("cuda_graph_bs",)),
    Argument("no_images", ("--language-model-only",), ON),
    Argument(None, ("--dp-size", "--data-parallel-size"), WORD),
    Argument(None, ("--attn-dp-size", "--attention-data-parallel-size"), WORD),
    Argument(None, ("--enable-dp-attention",), ON),
    Argument(None, ("--ep-size", "--expert-parallel-size", "--ep"), WORD),
    Argument(None, ("--enable-ep-moe",), ON),
    Argument(None, ("--speculative-algorithm", "--speculative-algo"), WORD),
    Argument(None, ("--speculative-draft-model-path", "--speculative-draft-model"), WORD),
    Argument(None, ("--speculative-num-steps",), WORD),
    Argument(None, ("--speculative-eagle-topk",), WORD),
    Argument(None, ("--speculative-num-draft-tokens",), WORD),
    Argument(None, ("--enable-lora",), ON),
    Argument(None, ("--lora-paths",), WORDS),
    Argument(None, ("--max-loras-per-batch",), WORD),
    Argument(None, ("--max-lora-rank",), WORD),
    Argument(None, ("--lora-target-modules",), WORDS),
)
_JOINT = names(
    "dp attention_dp expert_parallel num_speculative_tokens speculative_method draft_model max_loras max_lora_rank "
    "lora_target_modules"
)
_METHODS = {"EAGLE": "eagle", "EAGLE3": "eagle3", "NEXTN": "mtp", "STANDALONE": "draft_model", "NGRAM": "ngram"}
_ALGORITHMS = {method: algorithm for algorithm, method in _METHODS.items()}


def _joint_read(args: Mapping[str, object]) -> tuple[Options, tuple[str, ...]]:
    given = {name: value for name, value in args.items() if value is not None}
    adapters, unread = _adapters(given)
    return _graphs(given) | _data_parallel(given) | _experts(given) | _speculation(given) | adapters, unread


def _count(args: Mapping[str, object], name: str) -> int | None:
    return counted(f"--{name.replace('_', '-')}", args[name]) if name in args else None


def _graphs(args: Mapping[str, object]) -> Options:
    sizes = args.get("cuda_graph_bs_decode", args.get("cuda_graph_bs"))
    return (
        {"cuda_graph_max_bs": max(counted("--cuda-graph-bs", size) for size in words(sizes))}
        if sizes and words(sizes)
        else {}
    )


def _data_parallel(args: Mapping[str, object]) -> Options:
    replicas, ranks = _count(args, "dp_size"), _count(args, "attn_dp_size")
    if ranks is not None and ranks > 1:
        return {"dp": ranks * (replicas or 1), "attention_dp": True}
    found: Options = {} if replicas is None else {"dp": replicas}
    return found | ({"attention_dp": True} if switched(args, "enable_dp_attention") else {})


def _experts(args: Mapping[str, object]) -> Options:
    spread = switched(args, "enable_ep_moe") or (_count(args, "ep_size") or 1) > 1
    # These ways of sending tokens to experts set ep_size to tp_size (server_args.py, _handle_a2a_moe).
    return {"expert_parallel": True} if spread or args.get("moe_a2a_backend", "none") != "none" else {}


def _speculation(args: Mapping[str, object]) -> Options:
    """With one branch, as many tokens are drafted as there are steps, and one more is verified
    (arg_groups/speculative_hook.py): `num_speculative_tokens` is that number of drafted tokens."""
    algorithm = args.get("speculative_algorithm")
    if algorithm is None:
        return {}
    name, model = str(algorithm).upper(), args.get("speculative_draft_model_path")
    model = None if model == args.get("model_path") else model
    method = "mtp" if name == "EAGLE" and model is None else _METHODS.get(name, name.lower())
    verified, steps = _count(args, "speculative_num_draft_tokens"), _count(args, "speculative_num_steps")
    drafted = steps if verified is None else verified - 1
    return (
        {"speculative_method": method}
        | ({} if model is None else {"draft_model": str(model)})
        | ({"num_speculative_tokens": drafted} if drafted else {})
    )


MAX_LORAS = 8
"""`max_loras_per_batch` where the user says nothing."""


def _adapters(args: Mapping[str, object]) -> tuple[Options, tuple[str, ...]]:
    """Slots for adapters; rank and modules that only the adapters' own files tell are left out of the count."""
    paths = args.get("lora_paths")
    if not (switched(args, "enable_lora") or (paths and "enable_lora" not in args)):
        return {}, ()
    modules = words(args.get("lora_target_modules") or ())
    rank = _count(args, "max_lora_rank")
    if rank is None or not modules:
        return {}, ("--lora-paths",) if paths else ("--enable-lora",)
    found: Options = {"max_loras": _count(args, "max_loras_per_batch") or MAX_LORAS, "max_lora_rank": rank}
    return found | {"lora_target_modules": tuple(modules)}, ()


def _joint_write(options: Mapping[str, object]) -> list[str]:
    line: list[str] = []
    if options.get("dp") is not None:
        line += ["--dp-size", count_text(options["dp"])]
    line += ["--enable-dp-attention"] if options.get("attention_dp") else []
    if options.get("expert_parallel"):
        if options.get("tp") in (None, 1):
            raise InputError("SGLang spreads experts over tensor-parallel ranks", hint="set `tp` to 2 or more")
        line += ["--ep-size", count_text(options["tp"])]
    return line + _written_speculation(options) + _written_adapters(options)


def _written_adapters(options: Mapping[str, object]) -> list[str]:
    if not options.get("max_loras"):
        return []
    modules = words(options.get("lora_target_modules") or ("all",))
    rank = 16 if options.get("max_lora_rank") is None else options["max_lora_rank"]
    limits = ["--max-loras-per-batch", count_text(options["max_loras"]), "--max-lora-rank", count_text(rank)]
    return ["--enable-lora", *limits, "--lora-target-modules", *modules]


def _written_speculation(options: Mapping[str, object]) -> list[str]:
    method, model, drafted = (
        options.get(name) for name in ("speculative_method", "draft_model", "num_speculative_tokens")
    )
    if not (method or model or drafted):
        return []
    algorithm = _ALGORITHMS.get(str(method))
    if algorithm is None or (algorithm == "EAGLE" and model is None):
        hint = f"`speculative_method` is one of {', '.join(_ALGORITHMS)}; eagle has a `draft_model`"
        raise InputError("SGLang cannot be told this way of speculation", hint=hint)
    line = ["--speculative-algorithm", algorithm]
    line += [] if model is None else ["--speculative-draft-model-path", str(model)]
    if not drafted:
        return line
    verified = positive(drafted) + 1
    steps = [] if algorithm == "NGRAM" else ["--speculative-num-steps", str(drafted), "--speculative-eagle-topk", "1"]
    return [*line, *steps, "--speculative-num-draft-tokens", str(verified)]


DIALECT = Dialect(
    engine="sglang",
    arguments=_ARGUMENTS,
    silent=SILENT,
    silent_bare=SILENT_BARE,
    silent_many=SILENT_MANY,
    defaults=DEFAULTS,
    abbreviates=True,
    joint_options=_JOINT,
    joint_read=_joint_read,
    joint_write=_joint_write,
    environment={
        "SGLANG_PP_LAYER_PARTITION": stages,
        "SGLANG_MAMBA_CONV_DTYPE": lambda text: {"conv_dtype": _DTYPE.read(text)},
        "SGLANG_MAMBA_SSM_DTYPE": lambda text: {"state_dtype": _DTYPE.read(text)},
    },
    variables={
        "stage_layers": Variable("SGLANG_PP_LAYER_PARTITION", stages_text),
        "conv_dtype": Variable("SGLANG_MAMBA_CONV_DTYPE", _DTYPE.write),
    },
)
