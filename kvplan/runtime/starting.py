"""The line that starts an engine as a serving says."""

from dataclasses import dataclass
from pathlib import Path

from kvplan.core.boot import plan_pool
from kvplan.core.engines.llamacpp.pool import FIT_MARGIN_MIB
from kvplan.core.errors import InputError
from kvplan.core.fit import Change, told
from kvplan.core.fit.by_itself import SHORTEST, ByItself
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving
from kvplan.core.units import MIB
from kvplan.runtime.command import Command, write_command
from kvplan.runtime.flags.llamacpp import ALL_LAYERS, mebibytes
from kvplan.runtime.refusals import LONG_CONTEXT

_NOT_SAID = {
    "llamacpp": ("pp", "dp", "dtype", "gpu_memory_utilization", "output_last", "latent_cache"),
    "trtllm": ("dp",),
}
"""What an engine takes from the machine, the build or the file: llama.cpp splits layers over the devices it sees."""

LLAMA_SERVER = {"max_num_seqs": 4, "kv_unified": True}
"""What `llama-server` takes where `--parallel` is not said, unlike libllama: tools/server/server.cpp, b11434."""


def options_of(command: Command) -> dict[str, object]:
    """A command's options, with what the program sets by itself, and with shares for the devices that there are."""
    options = dict(command.options)
    if command.engine != "llamacpp":
        return options
    if "max_num_seqs" not in options:
        options |= LLAMA_SERVER
    shares = _shares(command)[: devices_of(command)]
    if options.pop("tensor_split", None) is not None and len(shares) > 1 and any(shares):
        options["tensor_split"] = shares
    if command.num_devices == 0:
        options["num_gpu_layers"] = 0
    return options


def devices_of(command: Command) -> int | None:
    """GPUs over which llama.cpp deals layers; None where nothing says it.

    The fewest of those that have a share, that `--device` names and that it sees; one of them with `--split-mode none`.
    Source: llama.cpp b11434, src/llama.cpp `llama_model_load_from_file_impl`, src/llama-model.cpp `load_tensors`
    """
    if command.engine != "llamacpp":
        return None
    named = [name for name in str(command.arguments.get("device", "")).split(",") if name.strip()]
    counts = [len(named), len(_shares(command)), command.num_devices or 0]
    if command.arguments.get("split_mode") == "none":
        counts.append(1)
    return min((count for count in counts if count), default=None)


def _shares(command: Command) -> tuple[float, ...]:
    shares = command.options.get("tensor_split")
    return tuple(shares) if isinstance(shares, tuple | list) else ()


def left_to_fit(command: Command) -> ByItself:
    """What an engine may change by itself; llama.cpp nothing that is set.

    Source: llama.cpp b11434, common/fit.cpp `common_params_fit_impl`
    """
    given = command.arguments
    if command.engine == "sglang":
        return ByItself(length=True, shortest=1, step=1, how="SGLang starts, and takes requests of {:,} tokens at most")
    if command.engine != "llamacpp" or str(given.get("fit", "on")).lower() in ("off", "0", "false"):
        return ByItself()
    told = command.options.keys() & {"num_gpu_layers", "num_cpu_moe_layers", "tensor_split"}
    free, shortest = given.get("fit_target"), given.get("fit_ctx")
    return ByItself(
        length="max_model_len" not in command.options,
        layers=not told and "override_tensor" not in given,
        free_bytes=(FIT_MARGIN_MIB if free is None else mebibytes(free)) * MIB,
        shortest=SHORTEST if shortest is None else int(str(shortest)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StartLine:
    """A line to paste."""

    text: str | None
    """None where the engine's command line cannot say it."""
    notes: tuple[str, ...] = ()


def start_line(model: ModelSpec, serving: Serving, kv_memory_bytes: int | None = None) -> StartLine:
    """What starts the engine so; weights that are planned in a format that it cannot make need another checkpoint."""
    engine = serving.engine.name
    options = {name: value for name, value in told(model, serving).items() if name not in _NOT_SAID.get(engine, ())}
    notes = []
    if engine == "llamacpp":
        options.setdefault("max_num_seqs", 1)
        options.setdefault("num_gpu_layers", ALL_LAYERS)  # unsaid, `--fit` would keep 1 GiB of a GPU free
        if serving.num_gpus > 1:
            options.setdefault("tensor_split", (1.0,) * serving.num_gpus)
    if kv_memory_bytes is not None and engine in ("vllm", "trtllm"):
        options["kv_memory_bytes"] = kv_memory_bytes
    if kv_memory_bytes is not None and engine == "sglang":
        options.setdefault("max_pool_tokens", plan_pool(model, serving, kv_memory_bytes).num_tokens)
    if options.get("quant") not in (None, "fp8") or (engine in ("llamacpp", "trtllm") and "quant" in options):
        notes.append(f"put a checkpoint in {options.pop('quant')} in the place of `{model.id}`")
    beyond = model.max_seq_len is not None and serving.seq_len > model.max_seq_len and engine in LONG_CONTEXT
    allowing = f"{LONG_CONTEXT[engine]}=1 " if beyond else ""
    try:
        return StartLine(text=allowing + write_command(engine, _name(model, engine), options), notes=tuple(notes))
    except InputError as error:
        return StartLine(text=None, notes=(*notes, f"no command line can be given: {error}"))


def _name(model: ModelSpec, engine: str) -> str:
    """As the engine takes it: a name of the Hub, a folder, a GGUF file."""
    source = model.source
    if source.kind in ("catalog", "hub"):
        return f"{model.id.rpartition('/')[2]}.gguf" if engine == "llamacpp" else model.id
    path = Path(source.location)
    return str(path.parent) if path.suffix == ".json" and engine != "llamacpp" else str(path)


def in_words(change: Change, engine: str) -> str:
    """A change as flags of the engine, or in words where it is no flag: `--kv-cache-dtype fp8`, `2 × RTX 4090`."""
    options, words = dict(change.options), []
    serving = change.serving
    if "gpu" in options:
        words.append(f"{serving.num_gpus} × {options.pop('gpu')}" if serving.num_gpus > 1 else str(options.pop("gpu")))
    if "num_gpus" in options:
        count = options.pop("num_gpus")
        words.append(f"{count} GPU:" if count == 1 else f"{count} GPUs:")
    if "concurrency" in options:
        words.append(f"at most {options.pop('concurrency')} requests at once")
    if "quant" in options:
        words.append(f"weights in {options.pop('quant')}")
    words += [
        f"without `{_flag(engine, name)}`" + ("" if len(options) == 1 else ",")
        for name in options
        if options[name] is None
    ]
    left = {name: value for name, value in options.items() if value != 1 or name not in ("tp", "pp")}
    left = {name: value for name, value in left.items() if name not in _NOT_SAID.get(engine, ())}
    try:
        # What stands in a file follows as a comment.
        line = write_command(engine, "MODEL", left).partition("MODEL")[2].replace("\n", " ").strip()
    except InputError:
        line = ", ".join(f"{name} {value}" for name, value in left.items())
    return " ".join((*words, line)).rstrip(" :")


def _flag(engine: str, name: str) -> str:
    """How the engine calls an option."""
    return write_command(engine, "MODEL", {name: 1}).partition("MODEL ")[2].partition(" ")[0]
