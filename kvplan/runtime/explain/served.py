"""From what a log states to kvplan's own words: how the model was served, and what had to be taken for granted."""

from collections.abc import Mapping
from typing import Any

from kvplan.core.dtypes import parse_kv_dtypes
from kvplan.core.engines.deployment import Switches
from kvplan.core.engines.table import find_engine
from kvplan.core.engines.versions import release
from kvplan.core.engines.vllm.blocks import KERNEL_BLOCKS, backend_name
from kvplan.core.errors import InputError, KvplanError
from kvplan.core.hardware import Gpu
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving, resolve
from kvplan.core.text import join_words
from kvplan.runtime.explain.llamacpp_build import SMALLEST, build_of
from kvplan.runtime.explain.observed import number, whole
from kvplan.runtime.observation import Observation

_RESOLVED = (
    "dtype", "kv_dtype", "quant", "tp", "pp", "dp", "dcp", "pcp", "gpu_memory_utilization", "max_num_batched_tokens"
)  # fmt: skip
_V1, _V1_ALONE = (0, 8), (0, 11)
"""Releases of vLLM from which on V1 is the default engine, and the only one."""
_APART = frozenset({"max_model_len", "kv_memory_bytes"})
"""Options that are neither a switch nor an argument of `resolve`."""


def serving_of(
    observation: Observation,
    model: ModelSpec,
    gpu: Gpu | None,
    overrides: Mapping[str, Any],
    draft: ModelSpec | None = None,
    seen: Mapping[str, Any] | None = None,
) -> tuple[Serving, list[str]]:
    """How the model was served, and notes on what the log does not say; `seen` is what its ranks tell of options.

    Raises InputError for what makes no sense together, as `core.serving.resolve` does.
    """
    notes: list[str] = []
    options = dict(seen or {}) | dict(observation.options) | _from_facts(observation) | dict(overrides)
    engine, note = _engine(observation)
    notes += note
    known = find_engine(engine).pooled
    names = known.switches if known else frozenset()
    if observation.engine == "vllm" and _is_foreign(options.get("attention_backend")):
        notes.append(f"{options.pop('attention_backend')} is no attention backend of vLLM's own: not counted")
    switches = {name: value for name, value in options.items() if name in names and value is not None}
    foreign = [
        name
        for name, value in options.items()
        if value is not None and name not in names and name not in _RESOLVED and name not in _APART
    ]
    if foreign:
        notes.append(f"not counted: {join_words(f'{name} {options[name]}' for name in sorted(foreign))}")
    if observation.unread:
        notes.append(f"flags that kvplan does not know and that may bear on memory: {' '.join(observation.unread)}")
    given: dict[str, Any] = {name: options[name] for name in _RESOLVED if options.get(name) not in (None, "auto")}
    share = number(observation, "utilization")
    if share is not None and observation.engine == "vllm":
        given.setdefault("gpu_memory_utilization", float(share[0]))
    if model.quantization is not None:
        given.pop("quant", None)  # the log repeats what the checkpoint says itself
    given |= _devices(observation, given, switches)
    if observation.engine == "llamacpp":
        build = build_of(observation, model)
        switches = {**build.switches, **switches}
        notes += build.notes
    serving = resolve(
        model,
        seq_len=_length(observation, options, model),
        engine=engine,
        gpu=gpu,
        switches=Switches(**_as_tuples(switches)),
        draft=draft,
        **given,
    )
    return serving, notes


def _is_foreign(backend: object) -> bool:
    """Whether a plugin registered the backend."""
    return isinstance(backend, str) and backend_name(backend) not in KERNEL_BLOCKS


def is_on_gpus(observation: Observation) -> bool:
    """Whether the engine runs on what kvplan's accounts are of: not on a CPU, an NPU, a TPU."""
    return observation.facts.get("device_type", "cuda").lower() in ("cuda", "gpu", "rocm", "auto")


def kv_memory_option(observation: Observation) -> int | None:
    """Bytes for the cache that the user asked for outright."""
    given = observation.options.get("kv_memory_bytes")
    return given if isinstance(given, int) else None


def _engine(observation: Observation) -> tuple[str, list[str]]:
    """`NAME@VERSION`, or the oldest profile that kvplan has where the log's version is older, and a note."""
    name, version = observation.engine, observation.version
    worded = observation.facts.get("worded_as")
    if name == "vllm" and version is not None and (runs := _other_generation(observation, version)):
        generation = observation.facts["engine"]
        return f"{name}@{runs}", [f"vllm {version} ran its {generation} engine: planned as {runs}, which has no other"]
    if version is None and worded is not None:
        note = f"the log states no version of {name}: worded as {worded}, `--engine {name}@VERSION` says which"
        return f"{name}@{worded}", [note]
    if version is None and "worded_before" in observation.facts:
        return name, []  # `build_of` says what it is taken as
    if version is None:
        newest = find_engine(name).version
        return name, [f"the log states no version of {name}: taken as {newest}, `--engine {name}@VERSION` says which"]
    try:
        engine = find_engine(f"{name}@{version}")
    except KvplanError:
        newest = find_engine(name).version
        if name == "llamacpp" and release(version)[:1] < (SMALLEST,):
            return name, [f"{name} {version} is a fork's own count of builds: taken as {newest}"]
        return name, [f"{name} {version} is older than what kvplan was checked against: taken as {newest}"]
    if engine.newer:
        checked = find_engine(name).version
        return f"{name}@{version}", [f"{name} {version} is newer than {checked}, which kvplan was checked against"]
    return f"{name}@{version}", []


def _other_generation(observation: Observation, version: str) -> str | None:
    """The release that ran by default the engine, V0 or V1, that this log speaks of and that its own does not.

    0.6.4 to 0.10 have both; V1 is the default from 0.8 on.
    """
    said, number = observation.facts.get("engine"), release(version)
    if said == "V0" and _V1 <= number < _V1_ALONE:
        return "0.7.3"
    return "0.8.0" if said == "V1" and number < _V1 else None


def _from_facts(observation: Observation) -> dict[str, Any]:
    """What the log states in words and not as an option: the backend, the format of the cache."""
    found: dict[str, Any] = {}
    backend = observation.facts.get("attention_backend", "")
    if observation.engine == "vllm" and "attention_backend" not in observation.options and backend in KERNEL_BLOCKS:
        found["attention_backend"] = backend
    stated = observation.facts.get("kv_dtype")
    if stated and observation.options.get("kv_dtype") in (None, "auto"):
        try:
            parse_kv_dtypes(stated)
        except InputError:
            return found
        found["kv_dtype"] = stated
    return found


def _length(observation: Observation, options: Mapping[str, Any], model: ModelSpec) -> int:
    """Tokens of the longest request: what the log's concurrency is about, else the option, else the model's own."""
    for name in ("concurrency_len", "needed_len"):
        if observation.engine != "llamacpp" and (length := whole(observation, name)):
            return length
    length = options.get("max_model_len") or (whole(observation, "cells") if observation.engine == "llamacpp" else None)
    length = length or model.max_seq_len
    if not isinstance(length, int):
        raise InputError("the log states no longest request, nor does the model", hint="`--set max_model_len=…`")
    return length


def _devices(observation: Observation, given: Mapping[str, Any], switches: dict[str, Any]) -> dict[str, Any]:
    """llama.cpp deals layers out over its devices, by what is free of each where nothing else was said."""
    if observation.engine != "llamacpp" or "tensor_split" in switches or given.get("pp"):
        return {}
    free = [figure.value for figure in observation.figures.get("device_free", ())]
    if len(free) > 1:
        switches["tensor_split"] = tuple(free)
        return {"pp": len(free)}
    return {}


def _as_tuples(switches: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in switches.items()}
