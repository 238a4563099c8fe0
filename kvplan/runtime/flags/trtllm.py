"""TensorRT-LLM's arguments: those of `trtllm-serve`, and the settings of its YAML file as trees or as dotted names.

Source: tensorrt_llm/commands/serve.py and llmapi/llm_args.py, as in 1.0 to 1.2.
"""

from collections.abc import Mapping

from kvplan.core.errors import InputError
from kvplan.runtime.flags.argument import Argument, Dialect, Options, names
from kvplan.runtime.flags.trtllm_silent import DEFAULTS, SILENT, SILENT_BARE
from kvplan.runtime.flags.values import (
    COUNT,
    COUNT_OR_DEFAULT,
    FRACTION,
    ON,
    WORD,
    count_text,
    counted,
    dtype_value,
    kv_dtype_value,
    positive,
    state_dtype_value,
    switched,
)

_FORMATS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_KV_FORMATS = {"fp8": "fp8", "nvfp4": "nvfp4", "bf16": "bfloat16", "fp16": "float16"}
_KV = "--kv_cache_config."


_ARGUMENTS = (
    Argument("tp", ("--tp_size", "--tensor_parallel_size"), COUNT, older=("tensor_parallel_size",)),
    Argument("pp", ("--pp_size", "--pipeline_parallel_size"), COUNT, older=("pipeline_parallel_size",)),
    Argument("max_model_len", ("--max_seq_len",), COUNT),
    Argument("max_num_seqs", ("--max_batch_size",), COUNT),
    Argument("max_num_batched_tokens", ("--max_num_tokens",), COUNT),
    Argument(
        "gpu_memory_utilization",
        ("--kv_cache_free_gpu_memory_fraction", "--free_gpu_memory_fraction"),
        FRACTION,
        older=("free_gpu_memory_fraction", "kv_cache_config.free_gpu_memory_fraction"),
    ),
    Argument("dtype", ("--dtype",), dtype_value(_FORMATS), in_file=True),
    Argument("kv_dtype", (f"{_KV}dtype",), kv_dtype_value(_KV_FORMATS), in_file=True, older=("kv_cache_dtype",)),
    Argument("kv_memory_bytes", (f"{_KV}max_gpu_total_bytes",), COUNT_OR_DEFAULT, in_file=True),
    Argument("max_pool_tokens", (f"{_KV}max_tokens",), COUNT, in_file=True),
    Argument("block_size", (f"{_KV}tokens_per_block",), COUNT, in_file=True),
    Argument("prefix_caching", (f"{_KV}enable_block_reuse",), ON, in_file=True),
    Argument("state_dtype", (f"{_KV}mamba_ssm_cache_dtype",), state_dtype_value(_FORMATS), in_file=True),
    Argument("attention_dp", ("--enable_attention_dp",), ON, in_file=True),
    Argument(None, ("--cuda_graph_config",), WORD, in_file=True),
    Argument(None, ("--use_cuda_graph",), ON, in_file=True),
    Argument(None, ("--ep_size", "--moe_expert_parallel_size"), WORD, older=("moe_expert_parallel_size",)),
    Argument(None, ("--speculative_config.decoding_type",), WORD, in_file=True),
    Argument(None, ("--speculative_config.max_draft_len",), WORD, in_file=True),
    Argument(None, ("--speculative_config.num_nextn_predict_layers",), WORD, in_file=True),
)
_METHODS = {
    "MTP": "mtp", "Eagle": "eagle", "Eagle3": "eagle3", "NGram": "ngram", "DraftTarget": "draft_model",
    "Draft_Target": "draft_model",
}  # fmt: skip
_DECODING_TYPES = {"mtp": "MTP", "eagle": "Eagle", "eagle3": "Eagle3", "ngram": "NGram", "draft_model": "DraftTarget"}
_JOINT = names("enforce_eager expert_parallel num_speculative_tokens speculative_method")


def _joint_read(args: Mapping[str, object]) -> tuple[Options, tuple[str, ...]]:
    given = {name: value for name, value in args.items() if value is not None}
    return _graphs(args) | _experts(given) | _speculation(given), ()


def _number(args: Mapping[str, object], *names: str) -> int | None:
    for name in names:
        if name in args:
            return counted(name, args[name])
    return None


def _graphs(args: Mapping[str, object]) -> Options:
    if "cuda_graph_config" in args and str(args["cuda_graph_config"]).lower() in ("none", "null"):
        return {"enforce_eager": True}
    return {} if args.get("use_cuda_graph") is None else {"enforce_eager": not switched(args, "use_cuda_graph")}


def _experts(args: Mapping[str, object]) -> Options:
    ranks = _number(args, "ep_size", "moe_expert_parallel_size")
    return {"expert_parallel": True} if ranks is not None and ranks > 1 else {}


def _speculation(args: Mapping[str, object]) -> Options:
    kind = args.get("speculative_config.decoding_type")
    # Layers of an MTP model, each of which drafts one token.
    drafted = _number(args, "speculative_config.max_draft_len", "speculative_config.num_nextn_predict_layers")
    found = {
        "speculative_method": None if kind is None else _METHODS.get(str(kind), str(kind).lower()),
        "num_speculative_tokens": drafted,
    }
    return {name: value for name, value in found.items() if value is not None}


def _joint_write(options: Mapping[str, object]) -> list[str]:
    if not options.get("expert_parallel"):
        return []
    if options.get("tp") in (None, 1):
        raise InputError("TensorRT-LLM spreads experts over tensor-parallel ranks", hint="set `tp` to 2 or more")
    return ["--ep_size", count_text(options["tp"])]


def _joint_settings(options: Mapping[str, object]) -> dict[str, object]:
    """Dotted names → values of what stands in the file and is no option by itself."""
    named: dict[str, object] = {}
    if options.get("enforce_eager"):
        named["cuda_graph_config"] = None
    method, drafted = options.get("speculative_method"), options.get("num_speculative_tokens")
    if method is not None:
        if method not in _DECODING_TYPES:
            hint = f"one of {', '.join(_DECODING_TYPES)}"
            raise InputError(f"TensorRT-LLM cannot be told to speculate by `{method}`", hint=hint)
        named["speculative_config.decoding_type"] = _DECODING_TYPES[str(method)]
    if drafted:
        length = "num_nextn_predict_layers" if method == "mtp" else "max_draft_len"
        named[f"speculative_config.{length}"] = positive(drafted)
    return named


DIALECT = Dialect(
    engine="trtllm",
    arguments=_ARGUMENTS,
    silent=SILENT,
    silent_bare=SILENT_BARE,
    defaults=DEFAULTS,
    joint_options=_JOINT,
    joint_read=_joint_read,
    joint_write=_joint_write,
    joint_settings=_joint_settings,
    nested=True,
)
