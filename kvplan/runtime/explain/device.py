"""The GPU that a log is about: how much memory it has, as printed or as figures imply, and which kind that may be.

What the log states stands over the table of GPUs, whose figures are those of other drivers. A size alone names no
device whose memory the CPU shares: an engine counts that in another way, and an NPU of another maker may be as large.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvplan.core.device import visible_bytes
from kvplan.core.engines.sglang.budget import context_of
from kvplan.core.engines.versions import release
from kvplan.core.engines.vllm.defaults import default_max_num_batched_tokens
from kvplan.core.hardware import Gpu
from kvplan.core.serving import Serving
from kvplan.core.text import join_words, printable
from kvplan.core.units import format_bytes
from kvplan.runtime.explain.observed import number
from kvplan.runtime.explain.served import is_on_gpus, kv_memory_option
from kvplan.runtime.observation import Observation

NEAREST = 100
"""A device is like one of the table where they differ by at most a hundredth: so much drivers differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The serving on the device that the log is about."""

    serving: Serving
    notes: tuple[str, ...] = ()
    is_settled: bool = True
    """False where figures fit devices that an engine accounts for in unlike ways."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    """Bytes of a device that the log does not name, and how they are known."""

    num_bytes: int
    how: str
    free_bytes: int | None = None
    """Where that is all that is told: what of it was free, a context less than what the framework sees."""


def with_device(observation: Observation, serving: Serving, known: Sequence[Gpu]) -> Found:
    """The serving on a GPU as large as the log says, or as its sums imply; on the one that is named, else on that.

    A GPU that is named keeps its name, its kind and its rates; its memory is what the log states.
    """
    if observation.engine == "llamacpp":
        return Found(serving=serving)
    gpu = serving.gpu
    if gpu is None and not is_on_gpus(observation):
        kind = printable(observation.facts["device_type"])
        return Found(serving=serving, notes=(f"it runs on {kind}: kvplan's accounts are of GPUs",))
    if gpu is not None and (gpu.memory_bytes is not None or gpu.visible_bytes is not None):
        return _as_stated(observation, serving, gpu)
    size = _size(observation, serving)
    if size is None:
        return Found(serving=serving)
    if gpu is not None:
        return Found(serving=replace(serving, gpu=replace(gpu, visible_bytes=size.num_bytes)))
    return _unnamed(serving, size, known)


def _as_stated(observation: Observation, serving: Serving, gpu: Gpu) -> Found:
    """The GPU that is named, with the memory that the log states where the table's does not print as that."""
    stated = number(observation, "device_total")
    if stated is None or gpu.memory_bytes is None or stated[0] <= 0:
        return Found(serving=serving)
    num_bytes, listed = round(stated[0]), visible_bytes(gpu)
    if abs(num_bytes - listed) <= stated[1]:
        return Found(serving=serving)
    notes: tuple[str, ...] = ()
    if not listed - listed // NEAREST <= num_bytes <= max(listed + listed // NEAREST, gpu.memory_bytes):
        told = f"the log states {format_bytes(num_bytes)} of memory, {gpu.name} has {format_bytes(listed)}"
        notes = (f"{told}: the account is of what the log states",)
    return Found(serving=replace(serving, gpu=replace(gpu, visible_bytes=num_bytes)), notes=notes)


def _size(observation: Observation, serving: Serving) -> _Size | None:
    """How large a device is that the log does not name: as printed, or as its own sums imply.

    vLLM before 0.10.2 prints no device unless it debugs, SGLang what is free of it.
    """
    stated, cache, rest, free = (
        number(observation, name) for name in ("device_total", "kv_memory", "non_kv", "device_free")
    )
    if stated is not None:
        return _Size(num_bytes=round(stated[0]), how="as the log states")
    if cache is not None and rest is not None and kv_memory_option(observation) is None:
        num_bytes = round((cache[0] + rest[0]) / serving.gpu_memory_utilization)
        return _Size(num_bytes=num_bytes, how="as its sums imply: (cache + rest) / share")
    if observation.engine == "sglang" and free is not None:
        context = context_of(None, serving.tp * serving.pp)
        return _Size(num_bytes=round(free[0]) + context.num_bytes, how="", free_bytes=round(free[0]))
    return None


def _unnamed(serving: Serving, size: _Size, known: Sequence[Gpu]) -> Found:
    """The one device of that size, where one only is known and others are not as large; else one without a name.

    Of several, those whose default for the tokens of a step is the log's come first: vLLM takes fewer on an A100 than
    on an H100.
    """
    alike = [gpu for gpu in known if _is_alike(gpu, size, serving.tp * serving.pp)]
    if serving.engine.name == "vllm":
        alike = [gpu for gpu in alike if _has_the_tokens(serving, gpu)] or alike
    shared = [gpu for gpu in alike if gpu.memory_bytes is None]
    alike = [gpu for gpu in alike if gpu.memory_bytes is not None]
    told = f"the log names no GPU; it has {format_bytes(size.num_bytes)}, {size.how}"
    name = f"a GPU of {format_bytes(size.num_bytes)}"
    if size.free_bytes is not None:
        told = f"the log names no GPU; {format_bytes(size.free_bytes)} of it are free"
        name = f"a GPU with {format_bytes(size.free_bytes)} free"
    gpu = Gpu(
        name=name,
        memory_bytes=size.num_bytes,
        visible_bytes=size.num_bytes,
        memory_note="as the log states",
    )
    if len(alike) == 1 and not shared:
        context = context_of(alike[0], serving.tp * serving.pp).num_bytes
        num_bytes = size.num_bytes if size.free_bytes is None else size.free_bytes + context
        gpu = replace(alike[0], visible_bytes=num_bytes)
        note = f"{told}: taken as {gpu.name}, the only one of that size that kvplan knows; `--gpu` names another"
    elif alike:
        if not shared and len({one.arch for one in alike}) == 1 and size.free_bytes is None:
            gpu = replace(alike[0], name=name, visible_bytes=size.num_bytes)
        note = f"{told}, like {join_words(one.name for one in alike)}; `--gpu` says which"
    else:
        note = f"{told}; `--gpu` names it"
    if shared:
        note += f"; {join_words(one.name for one in shared)} may have as much, where the CPU shares it"
    return Found(serving=replace(serving, gpu=gpu), notes=(note,), is_settled=not shared or size.free_bytes is not None)


def _is_alike(gpu: Gpu, size: _Size, num_ranks: int) -> bool:
    """Whether a device may be the one of that size; where only its free memory is told, with its own context."""
    if gpu.visible_bytes is None:
        return False
    if size.free_bytes is None:
        return abs(gpu.visible_bytes - size.num_bytes) * NEAREST <= size.num_bytes
    context = context_of(gpu, num_ranks)
    off = abs(gpu.visible_bytes - size.free_bytes - context.num_bytes)
    return off <= context.spread_bytes + gpu.visible_bytes // NEAREST


def _has_the_tokens(serving: Serving, gpu: Gpu) -> bool:
    """Whether vLLM would read as many tokens a step on this GPU as the log states."""
    switches = serving.switches
    bare = replace(serving.deployment, gpu=gpu, switches=replace(switches, max_num_batched_tokens=None))
    default = default_max_num_batched_tokens(bare, release(serving.engine.version or ""))
    return switches.max_num_batched_tokens in (None, default)
