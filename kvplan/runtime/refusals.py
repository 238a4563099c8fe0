"""What a command line means once its model is known, and what an engine refuses of it before it counts memory."""

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import ModelSpec
from kvplan.core.text import join_words, printable
from kvplan.runtime.command import Command
from kvplan.runtime.flags.argument import key_of, names
from kvplan.runtime.flags.values import switched
from kvplan.runtime.flags.vllm import LIMITS, NOTHING, limits_of_inputs
from kvplan.runtime.flags.vllm_silent import GONE

LONG_CONTEXT = {"vllm": "VLLM_ALLOW_LONG_MAX_MODEL_LEN", "sglang": "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN"}
"""Variables without which an engine refuses a length beyond the model's own."""
_OVERRIDES = {"vllm": "--hf-overrides", "sglang": "--json-model-override-args"}
_SCALED = ("hf-overrides", "hf_overrides", "rope-scaling", "rope_scaling", "json-model-override-args")
JUDGED = (0, 33)
"""The release of vLLM from which on its own source was held against what is said here of chunks and schemes."""
_METHODS = names(
    "awq auto_awq fp8 fbgemm_fp8 fp_quant modelopt modelopt_fp4 modelopt_mxfp8 modelopt_mixed auto_gptq gptq "
    "gptq_marlin awq_marlin humming compressed-tensors experts_int8 quark moe_wna16 torchao inc mxfp4 gpt_oss_mxfp4 "
    "deepseek_v4_fp8 online fp8_per_tensor fp8_per_block fp8_per_channel int8_per_channel_weight_only nvfp4_per_token "
    "mxfp8"
)
"""vLLM 0.33, model_executor/layers/quantization/__init__.py `QuantizationMethods`."""
_FAMILIES = {
    "awq": "awq", "awq_marlin": "awq", "auto_awq": "awq", "gptq": "gptq", "gptq_marlin": "gptq", "auto_gptq": "gptq",
    "gptq_marlin_24": "gptq", "marlin": "gptq", "compressed-tensors": "compressed-tensors", "fp8": "fp8",
    "bitsandbytes": "bitsandbytes",
}  # fmt: skip
"""Schemes by the one whose tensors they read."""
_FROM_CHECKPOINT = frozenset({"awq", "gptq", "compressed-tensors"})
"""Families that an engine does not make of a checkpoint in 16 bits."""
_MADE_ONLINE = names("fp8")
_MADE_UNKNOWN = names(
    "bitsandbytes mxfp4 mxfp8 online fp8_per_tensor fp8_per_block fp8_per_channel int8_per_channel_weight_only "
    "nvfp4_per_token"
)
"""Schemes that an engine makes of a checkpoint in 16 bits, into sizes that are not known here (vLLM 0.33,
model_loader/weight_utils.py 360-383, layers/quantization/online/base.py: linear layers and experts alike)."""
ASKS_FOR_NODES = (0, 12)
"""The first of vLLM's releases that have `--nnodes`; older ones start over Ray where GPUs are too few."""
_SEVERAL_NODES = names("nnodes distributed_executor_backend data_parallel_backend dist_init_addr nccl_init_addr")
_ELSEWHERE_TOO = names("data_parallel_address data_parallel_start_rank data_parallel_hybrid_lb")
"""What tells of replicas that other processes run, without saying how many this one runs."""


IMAGES_ALONE = names(
    "aria bailing_moe_v3_vl blip-2 cohere2_vision deepseek_vl_v2 gemma3 idefics3 kimi_vl lfm2_vl lfm2-vl llama4 llava "
    "llava_next mistral3 molmo moondream3 ovis paddleocr_vl paligemma phi3_v pixtral smolvlm step3_vl"
)
"""Model types that read images and nothing else beside text: vLLM 0.33, their classes' `get_supported_mm_limits`."""


def why_refused(command: Command, model: ModelSpec, release: tuple[int, ...]) -> str | None:
    """The first reason for which the engine does not start with these flags, whatever the memory; None where none.

    `release`: the numbers of its version. Raises UnsupportedError for weights whose size kvplan does not know.
    """
    return next(_reasons(command, model, release), None)


def _reasons(command: Command, model: ModelSpec, release: tuple[int, ...]) -> Iterator[str]:
    found = (
        _refuses_older_flags(command, release),
        refuses_length(command, model),
        _refuses_scheme(command, model, release),
        _refuses_chunks(command, model, release),
        _refuses_level(command, release),
        _misses_the_head(command),
        _refuses_replicas(command, model, release),
        _misses_devices(command) if not _asks_ray(command, release) else None,
    )
    yield from (reason for reason in found if reason is not None)


def _misses_the_head(command: Command) -> str | None:
    """vLLM, config/speculative.py `__post_init__`: a head has to be named, where other methods stand for their own."""
    method = command.options.get("speculative_method")
    if command.engine != "vllm" or method not in ("eagle", "eagle3") or command.options.get("draft_model"):
        return None
    return f"`--speculative-config` asks for `{method}` and names no `model` that drafts"


def without_reason(command: Command, refusal: str | None) -> Command:
    """The same, where what a refusal names is understood, whatever else its flags may bear on."""

    def is_named(flag: str) -> bool:
        name = flag.partition(" ")[0]
        return f"`{name if key_of(name) in GONE else flag}`" in (refusal or "")

    return replace(command, unread=tuple(flag for flag in command.unread if not is_named(flag)))


def _refuses_older_flags(command: Command, release: tuple[int, ...]) -> str | None:
    """Source: vLLM 0.33, entrypoints/common/cli_args.py `make_arg_parser`"""
    gone = [f"`--{name.replace('_', '-')}`" for name in command.arguments if name in GONE]
    if command.engine != "vllm" or release < JUDGED or not gone:
        return None
    assumed = "" if command.version else "; nothing names an older release"
    return f"vLLM {'.'.join(map(str, release))} no longer has {join_words(gone)}{assumed}"


def refuses_length(command: Command, model: ModelSpec) -> str | None:
    """Why the engine refuses a command's length: it is more than the model states, and nothing allows that.

    Sources: vLLM, config/model.py `_get_and_verify_max_len`; SGLang, configs/model_config.py `_derive_context_length`
    """
    variable, length = LONG_CONTEXT.get(command.engine), command.options.get("max_model_len")
    if variable is None or model.max_seq_len is None or not isinstance(length, int) or length <= model.max_seq_len:
        return None
    allowed = command.environment.get(variable, "0").lower() in ("1", "true")
    if allowed or any(word in flag for flag in command.unread for word in _SCALED):
        return None
    return (
        f"{command.engine} refuses requests of {length:,} tokens: the model states {model.max_seq_len:,}; {variable}=1"
        f" allows more, and so do scaled positions (`{_OVERRIDES[command.engine]}`)"
    )


def _scheme(command: Command) -> str | None:
    given = command.arguments.get("quantization", command.arguments.get("q"))
    if given is None or command.engine not in LONG_CONTEXT or (command.engine == "vllm" and given in NOTHING):
        return None
    return str(given).strip().lower()


def _refuses_scheme(command: Command, model: ModelSpec, release: tuple[int, ...]) -> str | None:
    """Why the engine refuses the scheme that is named: it has none such, or the checkpoint is not stored so.

    Sources: vLLM 0.33, config/model.py `_verify_quantization`; model_loader/weight_utils.py `get_quant_config`, of
    which SGLang has its own copy
    """
    scheme = _scheme(command)
    if scheme is None:
        return None
    flag = f"`--quantization {printable(scheme, max_length=40)}`"
    if command.engine == "vllm" and release >= JUDGED and scheme not in _METHODS:
        return f"vLLM {'.'.join(map(str, release))} has no such scheme: {flag}"
    wanted, stored = _FAMILIES.get(scheme), _stored(model)
    if stored is None and scheme in _MADE_UNKNOWN:
        message = f"how much {command.engine} holds of weights that it quantises as it loads them, by {flag}, "
        hint = "take a checkpoint that is stored so, and leave the flag out"
        raise UnsupportedError(f"{message}is not known to kvplan", hint=hint)
    if stored is None and wanted in _FROM_CHECKPOINT:
        return f"{flag} needs a checkpoint that is stored so, and the config of `{model.id}` states no quantisation"
    family = None if stored is None else _FAMILIES.get(stored)
    if wanted is not None and family is not None and wanted != family:
        return f"`{model.id}` is stored in {stored}, which does not match {flag}"
    return None


def _stored(model: ModelSpec) -> str | None:
    """As `quant_method` has it."""
    if model.quantization is None:
        return None
    return model.quantization.method.partition(" ")[0].replace("compressed_tensors", "compressed-tensors")


_WHOLE = "--no-enable-chunked-prefill"


def _refuses_chunks(command: Command, model: ModelSpec, release: tuple[int, ...]) -> str | None:
    """Source: vLLM 0.33, config/scheduler.py `verify_max_model_len`; where nobody sets a limit it is the length."""
    tokens = command.options.get("max_num_batched_tokens")
    length = command.options.get("max_model_len", model.max_seq_len)
    whole = command.engine == "vllm" and command.arguments.get("enable_chunked_prefill") is False
    if not whole or release < JUDGED or not isinstance(tokens, int) or not isinstance(length, int) or tokens >= length:
        return None
    return (
        f"with `{_WHOLE}` a prompt is one pass: `--max-num-batched-tokens {tokens}` is less than the "
        f"{length:,} tokens of a request"
    )


def _refuses_level(command: Command, release: tuple[int, ...]) -> str | None:
    """Source: vLLM 0.33, engine/arg_utils.py `get_kwargs`, which reads a JSON object; 0.8 took a bare level, too."""
    given = str(command.arguments.get("compilation_config", "")).strip()
    if command.engine != "vllm" or release < JUDGED or not given.isdecimal():
        return None
    return f"`--compilation-config {given}` is no JSON object: its level is `-O{given}`"


def _misses_devices(command: Command) -> str | None:
    """Whether the process sees fewer GPUs than its layout takes; those of several nodes are not counted.

    Source: vLLM 0.33, config/parallel.py 1068; SGLang and TensorRT-LLM, too, set a device for each rank
    """
    if command.num_devices is None or command.engine == "llamacpp":
        return None
    given = {name for name, value in command.arguments.items() if value not in (None, "mp", "1", 1)}
    replicas = _own_replicas(command)
    if given & _SEVERAL_NODES or replicas is None:
        return None
    ranks = replicas * prod(_degree(command, name) for name in ("tp", "pp", "pcp"))
    if ranks <= command.num_devices:
        return None
    taken = "one GPU" if ranks == 1 else f"{ranks} GPUs"
    seen = {0: "none", 1: "one" if ranks == 1 else "one GPU"}.get(command.num_devices, f"{command.num_devices} GPUs")
    return f"the layout takes {taken}, and the process sees {seen}"


def _degree(command: Command, name: str) -> int:
    degree = command.options.get(name, 1)
    return degree if isinstance(degree, int) else 1


def _own_replicas(command: Command) -> int | None:
    """Replicas of data parallelism that this process starts; None where the command does not say it.

    Source: vLLM 0.33, engine/arg_utils.py `create_engine_config`
    """
    if command.options.get("attention_dp"):
        return 1
    if _is_one_of_several(command):
        return 1
    local = command.arguments.get("data_parallel_size_local")
    if local is not None:
        return int(str(local)) if str(local).isdecimal() else None
    given = {name for name, value in command.arguments.items() if value is not None and value is not False}
    return None if given & _ELSEWHERE_TOO else _degree(command, "dp")


def _is_one_of_several(command: Command) -> bool:
    """Whether each replica is a process of its own, behind a balancer that is not vLLM's."""
    if command.engine != "vllm":
        return False
    return command.arguments.get("data_parallel_rank") is not None or switched(
        command.arguments, "data_parallel_external_lb"
    )


def _refuses_replicas(command: Command, model: ModelSpec, release: tuple[int, ...]) -> str | None:
    """Sources: vLLM 0.33, engine/arg_utils.py `create_engine_config`; config/parallel.py `_validate_parallel_config`"""
    if command.engine != "vllm" or release < JUDGED:
        return None
    replicas, local = _degree(command, "dp"), command.arguments.get("data_parallel_size_local")
    if replicas > 1 and _is_one_of_several(command) and not model.has_experts:
        return (
            f"`{model.id}` has no experts, and vLLM spreads no such model over processes that a rank is given "
            "to (`--data-parallel-rank`): each replica is a server of its own, without flags of data parallelism"
        )
    if local is not None and str(local).isdecimal() and int(str(local)) > replicas:
        return f"`--data-parallel-size-local {local}` is more than `--data-parallel-size` {replicas}"
    return None


def _asks_ray(command: Command, release: tuple[int, ...]) -> bool:
    """Whether vLLM looks for Ray's other nodes by itself where this one has too few GPUs."""
    return command.engine == "vllm" and release < ASKS_FOR_NODES


def with_model(command: Command, model: ModelSpec, release: tuple[int, ...]) -> Command:
    """The command as the model and the engine's release make it read.

    What the flags say of a checkpoint in 16 bits is left out openly; 0 images leave out the tower of a model that reads
    nothing else.
    """
    missing = _misses_devices(command) if _asks_ray(command, release) else None
    notes = (*command.notes, f"{missing}: only Ray's further nodes have more") if missing else command.notes
    scheme, unread, options = _scheme(command), list(command.unread), dict(command.options)
    if scheme is not None and model.quantization is None and scheme not in _MADE_ONLINE:
        told = f"--quantization {printable(scheme)}"
        unread += [] if told in unread or _FAMILIES.get(scheme) else [told]
    if command.engine == "vllm" and model.model_type in IMAGES_ALONE:
        limits = limits_of_inputs(command.arguments)
        if limits.get("image") == "0":
            options["no_images"] = True
            unread = [flag for flag in unread if not flag.startswith(LIMITS)]
    return replace(command, options=options, unread=tuple(unread), notes=notes)
