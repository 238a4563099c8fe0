"""llama.cpp's arguments: those of `llama-server`. Source: common/arg.cpp and tools/server/README.md (b11434)."""

import re
from collections.abc import Mapping

from kvplan.core.dtypes import parse_kv_dtype, parse_kv_dtypes
from kvplan.core.errors import InputError
from kvplan.core.text import printable
from kvplan.runtime.flags.argument import Argument, Dialect, Options, Value, spelled
from kvplan.runtime.flags.llamacpp_silent import SILENT, SILENT_BARE
from kvplan.runtime.flags.values import (
    COUNT_OR_DEFAULT,
    ON,
    WORD,
    is_on,
    switched,
    whole,
    words,
)

_TYPES = {
    "fp32": "f32", "fp16": "f16", "bf16": "bf16", "q8_0": "q8_0", "q4_0": "q4_0", "q4_1": "q4_1", "iq4_nl": "iq4_nl",
    "q5_0": "q5_0", "q5_1": "q5_1",
}  # fmt: skip
_EVERY_EXPERT = re.compile(
    r"(blk|\\?\.|\.\*|\(?(\[0-9\]|\\d)[+*]\)?)*(ffn_)?(\.\*_?|\((up|down|gate|gate_up|\|){5,7}\)_)?(\(ch\|\))?"
    r"exps(\\?\.|\.\*|\*|weight|\$)*=CPU"
)
"""The ways in which people write that the CPU keeps every expert: `exps=CPU`, `.ffn_.*_exps.=CPU`."""
ALL_LAYERS = 999
"""`-ngl all`: more layers than any model has, as people write it."""


def _flash(value: object) -> object:
    text = str(value).strip().lower()
    return None if text in ("auto", "-1") else is_on(text)


def _gpu_layers(value: object) -> object:
    text = str(value).strip().lower()
    if text in ("auto", "-1"):
        return None
    if text in ("all", "-2"):
        return ALL_LAYERS
    layers = whole(value)
    if layers < 0:
        raise ValueError
    return layers


def mebibytes(value: object) -> int:
    """What `--fit` keeps free of a device: of several the most. Raises InputError for what is no number."""
    try:
        return max(int(part) for part in str(value).split(","))
    except ValueError:
        message = f"`--fit-target {printable(str(value), max_length=40)}` is not a number of MiB"
        raise InputError(message, hint="such as 1024, or one a device: 1024,2048") from None


def _shares(value: object) -> tuple[float, ...]:
    parts = value if isinstance(value, (list, tuple)) else str(value).replace("/", ",").split(",")
    shares = tuple(float(part) for part in parts)
    if not all(0 <= part < 1e9 for part in shares) or not any(shares):
        raise ValueError
    return shares


def _written_shares(value: object) -> str:
    return ",".join(repr(int(part)) if part == int(part) else repr(part) for part in _shares(value))


_FLASH = Value(
    _flash,
    lambda value: "on" if value else "off",
    "on, off or auto",
    maybe=frozenset({"on", "off", "auto", "true", "false", "enabled", "disabled", "0", "1", "-1"}),
)

_ARGUMENTS = (
    Argument("max_model_len", ("-c", "--ctx-size"), COUNT_OR_DEFAULT, name="ctx_size"),
    Argument("max_num_seqs", ("-np", "--parallel"), COUNT_OR_DEFAULT, name="parallel"),
    Argument("max_num_batched_tokens", ("-b", "--batch-size"), COUNT_OR_DEFAULT, name="batch_size"),
    Argument("num_ubatch_tokens", ("-ub", "--ubatch-size"), COUNT_OR_DEFAULT, name="ubatch_size"),
    Argument("kv_unified", ("-kvu", "--kv-unified"), ON, ("--no-kv-unified", "-no-kvu"), name="kv_unified"),
    Argument("swa_full", ("--swa-full",), ON),
    Argument("flash_attention", ("-fa", "--flash-attn"), _FLASH, name="flash_attn"),
    Argument(
        "num_gpu_layers",
        ("-ngl", "--n-gpu-layers", "--gpu-layers"),
        Value(_gpu_layers, lambda value: str(_gpu_layers(value)), "a number of layers, all or auto"),
        name="n_gpu_layers",
    ),
    Argument("num_cpu_moe_layers", ("--n-cpu-moe", "-ncmoe"), COUNT_OR_DEFAULT, name="n_cpu_moe"),
    Argument(None, ("-cmoe", "--cpu-moe"), ON, name="cpu_moe"),
    Argument(None, ("-ot", "--override-tensor"), WORD, name="override_tensor"),
    Argument(
        "tensor_split",
        ("-ts", "--tensor-split"),
        Value(_shares, _written_shares, "a list of shares such as 3,1"),
        name="tensor_split",
    ),
    Argument(
        "num_speculative_tokens",
        ("--spec-draft-n-max", "--draft-max", "--draft", "--draft-n"),
        COUNT_OR_DEFAULT,
        name="spec_draft_n_max",
    ),
    Argument(None, ("--spec-type",), WORD),
    Argument(None, ("-ctk", "--cache-type-k"), WORD, name="cache_type_k"),
    Argument(None, ("-ctv", "--cache-type-v"), WORD, name="cache_type_v"),
    Argument(None, ("-sm", "--split-mode"), WORD, name="split_mode"),
    Argument(None, ("-dev", "--device"), WORD, name="device"),
    Argument(None, ("-fit", "--fit"), WORD, name="fit"),
    Argument(None, ("-fitt", "--fit-target"), Value(mebibytes, str, "MiB, one number a device"), name="fit_target"),
    Argument(None, ("-fitc", "--fit-ctx"), COUNT_OR_DEFAULT, name="fit_ctx"),
    Argument(None, ("--kv-offload", "-kvo"), ON, ("--no-kv-offload", "-nkvo")),
)
_SPECULATION = {
    "draft-simple": "draft_model", "draft-eagle3": "eagle3", "draft-mtp": "mtp", "draft-dflash": "dflash",
    "draft-dspark": "dspark", "ngram-simple": "ngram", "ngram-map-k": "ngram", "ngram-map-k4v": "ngram",
    "ngram-mod": "ngram", "ngram-cache": "ngram",
}  # fmt: skip
_SPEC_TYPES = {method: kind for kind, method in reversed(_SPECULATION.items())}
_JOINT = frozenset({"kv_dtype", "speculative_method"})


def _joint_read(args: Mapping[str, object]) -> tuple[Options, tuple[str, ...]]:
    options, unread = _cache_types(args)
    if args.get("spec_type") not in (None, "none"):
        kinds = words(args["spec_type"])
        method = _SPECULATION.get(kinds[0])
        if method is None or len(kinds) > 1:
            unread.append(spelled("--spec-type", ",".join(kinds)))
        else:
            options["speculative_method"] = method
    if switched(args, "cpu_moe") or _EVERY_EXPERT.fullmatch(str(args.get("override_tensor", ""))):
        options["num_cpu_moe_layers"] = ALL_LAYERS
    elif args.get("override_tensor") is not None:
        unread.append(spelled("-ot", args["override_tensor"]))
    if str(args.get("device", "")).strip() == "none":
        options["num_gpu_layers"] = 0
    if args.get("split_mode") not in (None, "layer", "none"):
        unread.append(spelled("--split-mode", args["split_mode"]))
    if args.get("kv_offload") is not None and not switched(args, "kv_offload"):
        unread.append("--no-kv-offload")
    return options, tuple(unread)


def _cache_types(args: Mapping[str, object]) -> tuple[Options, list[str]]:
    """Keys and values apart; what is not given is f16."""
    given = [str(args.get(name) or "f16") for name in ("cache_type_k", "cache_type_v")]
    if all(args.get(name) is None for name in ("cache_type_k", "cache_type_v")):
        return {}, []
    try:
        key, value = (parse_kv_dtype(text).name for text in given)
    except InputError:
        flags = zip(("--cache-type-k", "--cache-type-v"), given, strict=True)
        return {}, [spelled(flag, text) for flag, text in flags]
    return {"kv_dtype": key if key == value else f"{key}/{value}"}, []


def _joint_write(options: Mapping[str, object]) -> list[str]:
    line: list[str] = []
    if options.get("kv_dtype") not in (None, "auto"):
        types = [dtype.name for dtype in parse_kv_dtypes(str(options["kv_dtype"]))]
        for name in types:
            if name not in _TYPES:
                raise InputError(f"llama.cpp has no cache of {name}", hint=f"one of {', '.join(_TYPES)}")
        line += ["-ctk", _TYPES[types[0]], "-ctv", _TYPES[types[1]]]
    method = options.get("speculative_method")
    if method is not None:
        if method not in _SPEC_TYPES:
            raise InputError(f"llama.cpp cannot speculate by `{method}`", hint=f"one of {', '.join(_SPEC_TYPES)}")
        line += ["--spec-type", _SPEC_TYPES[str(method)]]
    return line


_VARIABLES = {
    "LLAMA_ARG_CTX_SIZE": "ctx_size", "LLAMA_ARG_N_PARALLEL": "parallel", "LLAMA_ARG_BATCH": "batch_size",
    "LLAMA_ARG_UBATCH": "ubatch_size", "LLAMA_ARG_KV_UNIFIED": "kv_unified", "LLAMA_ARG_SWA_FULL": "swa_full",
    "LLAMA_ARG_FLASH_ATTN": "flash_attn", "LLAMA_ARG_N_GPU_LAYERS": "n_gpu_layers",
    "LLAMA_ARG_TENSOR_SPLIT": "tensor_split", "LLAMA_ARG_CACHE_TYPE_K": "cache_type_k",
    "LLAMA_ARG_CACHE_TYPE_V": "cache_type_v", "LLAMA_ARG_SPLIT_MODE": "split_mode",
    "LLAMA_ARG_KV_OFFLOAD": "kv_offload", "LLAMA_ARG_MODEL": "model", "LLAMA_ARG_HF_REPO": "hf_repo",
    "LLAMA_ARG_CPU_MOE": "cpu_moe", "LLAMA_ARG_N_CPU_MOE": "n_cpu_moe",
    "LLAMA_ARG_OVERRIDE_TENSOR": "override_tensor", "LLAMA_ARG_DEVICE": "device",
}  # fmt: skip

DIALECT = Dialect(
    engine="llamacpp",
    arguments=_ARGUMENTS,
    silent=SILENT,
    silent_bare=SILENT_BARE,
    joint_options=_JOINT,
    joint_read=_joint_read,
    joint_write=_joint_write,
    argument_variables=_VARIABLES,
)
