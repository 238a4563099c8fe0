"""The Python face: names, numbers and strings in, frozen plans and tidy frames out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from operator import index
from os import PathLike
from typing import TYPE_CHECKING, Any

from kvplan.core.boot import plan_pool
from kvplan.core.engines.deployment import Switches
from kvplan.core.engines.engine import Pooled
from kvplan.core.engines.pool import KVPool
from kvplan.core.engines.table import find_engine
from kvplan.core.engines.versions import release
from kvplan.core.errors import InputError, KvplanError
from kvplan.core.hardware import Gpu
from kvplan.core.model import ModelSpec
from kvplan.core.plan import Plan, plan_memory
from kvplan.core.serving import positive, resolve
from kvplan.core.text import join_words, printable
from kvplan.runtime.keywords import in_engines_words_too
from kvplan.sources.load import load_model

if TYPE_CHECKING:
    from typing import BinaryIO

    import pandas as pd

    from kvplan.runtime.explain import Explanation
    from kvplan.runtime.observation import Observation

__all__ = ["KVPool", "MemoryPlan", "curve", "estimate", "explain", "kv_pool", "load_model"]


DEFAULT_GPU = "H100"
"""Whose limits an engine takes for a pool of a known size where no GPU is named: those of most large ones."""
_ON_BY_DEFAULT = ("prefix_caching", "hybrid_manager", "async_scheduling")
"""True says nothing to an engine that has no such switch."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MemoryPlan(Plan):
    """A plan with its views: `to_dict` (the JSON contract), `to_frame`, and a table in notebooks."""

    def to_dict(self) -> dict[str, Any]:
        """The document of `kvplan estimate --json`: schema `kvplan/estimate/1`."""
        from kvplan.report.data import plan_to_dict

        return plan_to_dict(self)

    def to_frame(self) -> "pd.DataFrame":
        """One row a GPU, bytes as whole numbers."""
        from kvplan.report.data import plan_to_frame

        return plan_to_frame(self)

    def _repr_html_(self) -> str:
        from kvplan.report.html import render

        return render(self)


@in_engines_words_too("exact")
def estimate(
    model: ModelSpec | str | PathLike[str],
    *,
    seq_len: int | None = None,
    batch_size: int = 1,
    encoder_seq_len: int | None = None,
    dtype: str | None = None,
    kv_dtype: str | None = None,
    quant: str | None = None,
    tp: int | None = None,
    pp: int = 1,
    dp: int = 1,
    dcp: int = 1,
    pcp: int = 1,
    engine: str = "exact",
    attention: str = "flash",
    max_num_batched_tokens: int | None = None,
    gpu: Gpu | str | None = None,
    num_gpus: int | None = None,
    gpu_memory_utilization: float | None = None,
    draft: ModelSpec | str | PathLike[str] | None = None,
    **switches: Any,
) -> MemoryPlan:
    """What serving `model` takes: weights, cache, attention, activations and overhead, per GPU.

    `seq_len` is the number of tokens held per sequence (default: 4096, or the model's own limit if lower);
    `encoder_seq_len` an encoder's, by default the same; `num_gpus` is tp · pp; `switches` are the engine's own options
    (`core.engines.deployment.Switches`). `draft` is the model that drafts (vLLM, SGLang), by default what the switch
    `draft_model` names. Raises InputError for what makes no sense, UnsupportedError for an unknown
    architecture, HubError where a Hub id cannot be read.
    """
    spec, options = _model(model), read_switches(switches)
    serving = resolve(
        spec,
        seq_len=seq_len,
        batch_size=batch_size,
        encoder_seq_len=encoder_seq_len,
        dtype=dtype,
        kv_dtype=kv_dtype,
        quant=quant,
        tp=tp,
        pp=pp,
        dp=dp,
        dcp=dcp,
        pcp=pcp,
        engine=engine,
        attention=attention,
        max_num_batched_tokens=max_num_batched_tokens,
        gpu=_gpu(gpu),
        num_gpus=num_gpus,
        gpu_memory_utilization=gpu_memory_utilization,
        switches=options,
        draft=read_draft(engine, options, draft),
    )
    plan = plan_memory(spec, serving)
    return MemoryPlan(**{field.name: getattr(plan, field.name) for field in fields(plan)})


@in_engines_words_too("vllm")
def kv_pool(
    model: ModelSpec | str | PathLike[str],
    *,
    engine: str = "vllm",
    kv_memory_bytes: int | None = None,
    max_model_len: int | None = None,
    dtype: str | None = None,
    kv_dtype: str | None = None,
    tp: int | None = None,
    pp: int = 1,
    dp: int = 1,
    dcp: int = 1,
    pcp: int = 1,
    gpu: Gpu | str | None = None,
    num_gpus: int | None = None,
    gpu_memory_utilization: float | None = None,
    max_num_batched_tokens: int | None = None,
    draft: ModelSpec | str | PathLike[str] | None = None,
    **switches: Any,
) -> KVPool:
    """What `engine` makes of `kv_memory_bytes` of each GPU: blocks, tokens, requests of `max_model_len` tokens.

    Without `kv_memory_bytes` it is what the engine's account of `gpu` leaves; with it, `gpu` decides the limits that
    the engine sets by the device: an H100's where none is named. Of SGLang's hybrids it is what keys and values get,
    as the log prints them; what the account leaves pays for states, too. `max_model_len` is by default the model's own
    limit; -1 takes the longest that fits. `switches` are the engine's options (`core.engines.deployment.Switches`):
    block_size, max_num_seqs, prefix_caching, hybrid_manager, async_scheduling …, also as the engine spells them.
    `draft` is the model that drafts (vLLM, SGLang), by default what the switch `draft_model` names.
    Raises InputError for what makes no sense or what the engine refuses.
    """
    if gpu is None and kv_memory_bytes is not None:
        gpu = DEFAULT_GPU
    spec = _model(model)
    length = max_model_len if max_model_len not in (None, -1) else spec.max_seq_len
    if length is None:
        raise InputError(f"`{spec.id}` states no longest length", hint="give `max_model_len`")
    options = read_switches(_without_what_goes_without_saying(engine, switches))
    serving = resolve(
        spec,
        seq_len=length,
        dtype=dtype,
        kv_dtype=kv_dtype,
        tp=tp,
        pp=pp,
        dp=dp,
        dcp=dcp,
        pcp=pcp,
        engine=engine,
        gpu=_gpu(gpu),
        num_gpus=num_gpus,
        gpu_memory_utilization=gpu_memory_utilization,
        max_num_batched_tokens=max_num_batched_tokens,
        switches=options,
        draft=read_draft(engine, options, draft),
    )
    if kv_memory_bytes is not None:
        kv_memory_bytes = positive("kv_memory_bytes", kv_memory_bytes)
    found = plan_pool(spec, serving, kv_memory_bytes)
    if max_model_len != -1 or found.longest_request in (0, length):
        return found
    return plan_pool(spec, replace(serving, seq_len=found.longest_request), kv_memory_bytes)


def explain(
    log: "Iterable[str] | str | PathLike[str] | BinaryIO",
    *,
    model: ModelSpec | str | PathLike[str] | None = None,
    gpu: Gpu | str | None = None,
    engine: str | None = None,
    tolerance: float | None = None,
    offline: bool = False,
    timeout_seconds: float = 14.0,
    **overrides: Any,
) -> "list[Explanation]":
    """What an engine printed when it started beside what kvplan predicts: one answer for each start in the log.

    `log` is a path (`.gz` too), a binary stream or lines. `model` and `gpu` stand over what the log names, `engine`
    (`NAME` or `NAME@VERSION`) over its version, `overrides` over its options (`kv_pool`'s names). A model that the
    log names and that cannot be loaded leaves the log's own sums. `tolerance` is the share by which the memory for
    the cache, predicted from flags alone, may be off: 0.06. Raises InputError where no start of an engine is found.
    """
    from kvplan.runtime.explain import explain as explain_start
    from kvplan.runtime.log import read_log
    from kvplan.sources.from_log import gpu_of_log
    from kvplan.sources.gpus import load_gpus

    if tolerance is not None and not 0 <= tolerance <= 1:
        raise InputError(f"`tolerance` is {tolerance!r}, not a share from 0 to 1", hint="0.06 means 6 %")
    given, stated = (None if model is None else _model(model)), _gpu(gpu)
    answers = []
    for seen in _starts(read_log(log), engine):
        device, about_gpu = (stated, "") if stated is not None else gpu_of_log(seen.gpu)
        spec, about_model = _model_of_log(seen, offline, timeout_seconds) if given is None else (given, "")
        if given is not None and seen.model and seen.model != given.id:
            about_model = f"the log names {printable(seen.model)}: taken as {given.id}, as was asked"
        draft, about_draft = _draft_of_log(seen, overrides, offline, timeout_seconds)
        notes = tuple(note for note in (about_model, about_gpu, about_draft) if note)
        answers.append(
            explain_start(
                seen,
                spec,
                gpu=device,
                overrides=overrides,
                tolerance=tolerance,
                notes=notes,
                known_gpus=load_gpus(),
                draft=draft,
                stands_in=given is None and _stands_in(seen.model, spec),
            )
        )
    return answers


def _starts(found: "list[Observation]", engine: str | None) -> "list[Observation]":
    """The starts of one engine, or of all; its version replaced where `engine` says one."""
    name, _, version = (engine or "").partition("@")
    if engine is not None:
        older_too = find_engine(name).name == "llamacpp" and release(version)
        name = find_engine(name if older_too else engine).name  # of llama.cpp's older builds `build_of` has the rules
    kept = [seen for seen in found if not name or seen.engine == name]
    if not kept:
        others = f"; it is of {join_words(sorted({seen.engine for seen in found}))}" if found else ""
        raise InputError(
            f"no start of {name or 'an engine'} was found in the log{others}",
            hint="a log of vLLM, SGLang, TensorRT-LLM or llama.cpp from where it starts, at level INFO",
        )
    return [replace(seen, version=version) if version else seen for seen in kept]


def _model_of_log(seen: "Observation", offline: bool, timeout_seconds: float) -> tuple[ModelSpec | None, str]:
    """(the model, how it was found) of what a log names; (None, why not) where it cannot be loaded."""
    from kvplan.sources.from_log import model_of_log, model_of_numbers

    name, title = seen.model, seen.facts.get("name")
    if name is None and title is None:
        return None, "the log names no model: `--model` says which it is"
    try:
        return model_of_log(name or "", title=title, offline=offline, timeout_seconds=timeout_seconds)
    except KvplanError as error:
        if (printed := model_of_numbers(seen.facts, name)) is not None:
            return printed
        if (base := seen.facts.get("base_model")) is not None:
            return _base_of_log(base, str(error))
        return None, f"the model is not known: {error}; `--model` says which it is"


def _stands_in(name: str | None, found: ModelSpec | None) -> bool:
    """Whether a model is another owner's than the one that a log names by its Hub id."""
    if found is None or not name or name.count("/") != 1 or name.startswith((".", "~", "/")):
        return False
    return "/" in found.id and name.partition("/")[0].lower() != found.id.partition("/")[0].lower()


def _base_of_log(base: str, why_not: str) -> tuple[ModelSpec | None, str]:
    """The model that a file says it was made from: of the same shape, as a rule."""
    from kvplan.sources.from_log import model_of_log

    try:
        model, _ = model_of_log("", title=base, offline=True)
    except KvplanError:
        return None, f"the model is not known: {why_not}; `--model` says which it is"
    return model, f"the model is taken as {model.id}, which its file names as its base; `--model` says which it is"


def _draft_of_log(
    seen: "Observation", overrides: Mapping[str, Any], offline: bool, timeout_seconds: float
) -> tuple[ModelSpec | None, str]:
    """(the model that drafts, why it is not known) of what a log or the user names."""
    options = {**seen.options, **overrides}
    given = {name: options.get(name) for name in ("draft_model", "speculative_method")}
    try:
        found = read_draft(seen.engine, read_switches(given), offline=offline, timeout_seconds=timeout_seconds)
    except KvplanError as error:
        return None, str(error)
    return found, ""


def _without_what_goes_without_saying(engine: str, given: dict[str, Any]) -> dict[str, Any]:
    pooled = find_engine(engine).pooled
    foreign = set(_ON_BY_DEFAULT) - (pooled.switches if pooled is not None else frozenset())
    return {name: value for name, value in given.items() if not (value is True and name in foreign)}


def read_switches(given: dict[str, Any]) -> Switches:
    """The engine's options by name; None means its default. Raises InputError for a name that no engine has."""
    names = Switches.__dataclass_fields__
    if unknown := sorted(set(given) - set(names)):
        raise InputError(f"`{unknown[0]}` is no option of any engine", hint=f"one of {', '.join(names)}")
    return Switches(**{name: _plain(value) for name, value in given.items() if value is not None})


def _plain(value: Any) -> Any:
    """A list or an array as a tuple, another library's whole number as Python's."""
    if isinstance(value, list) or getattr(value, "ndim", None):
        return tuple(value if isinstance(value, list) else value.tolist())
    return index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else value


def read_draft(
    engine: str, switches: Switches, draft: ModelSpec | str | PathLike[str] | None = None, **how: Any
) -> ModelSpec | None:
    """The model that drafts, read as any model is (`how` is `load_model`'s); None where the engine plans none.

    A head's config often names a plain class: it is read as the one that the engine runs (`Pooled.draft_class`). What
    `draft_model` alone names, and the engine's profile can do without (`Pooled.assumes_draft`), is None where it
    cannot be read. Raises what `load_model` raises, with the draft named in its words.
    """
    named, method = switches.draft_model if draft is None else draft, switches.speculative_method
    if draft is not None and method is None:
        name = draft.id if isinstance(draft, ModelSpec) else draft
        message = f"nothing says how `{printable(str(name), max_length=100)}` drafts"
        raise InputError(message, hint="`speculative_method`: eagle3, eagle or draft_model")
    if named is None or method is None:
        return None
    pooled = find_engine(engine).pooled
    if pooled is None or method not in pooled.reads_draft:
        if draft is not None:
            message = f"engine `{find_engine(engine).name}` is planned without a draft model for `{method}`"
            raise InputError(message, hint="leave `draft` out: it would change nothing")
        return None
    if isinstance(named, ModelSpec):
        return named
    try:
        return _read_as(named, method, pooled, how)
    except KvplanError as error:
        if draft is None and method in pooled.assumes_draft:
            return None
        hint = "a local folder with the draft's config.json will do"
        raise type(error)(
            f"the draft model cannot be read: {error}", hint=f"{error.hint}; {hint}" if error.hint else hint
        ) from error


def _read_as(named: str | PathLike[str], method: str, pooled: Pooled, how: Mapping[str, Any]) -> ModelSpec:
    found = load_model(named, **how)
    known = pooled.draft_class(found, method) if pooled.draft_class is not None else None
    return found if known is None else load_model(named, overrides={"architectures": [known]}, **how)


def curve(
    model: ModelSpec | str | PathLike[str],
    *,
    seq_lens: Iterable[int],
    batch_sizes: Iterable[int] = (1,),
    gpu: Gpu | str | None = None,
    **serving: Any,
) -> "pd.DataFrame":
    """Memory over context lengths and batch sizes: a tidy frame, one row a pair, bytes as whole numbers.

    Columns: model, seq_len, batch_size; weights_bytes, kv_cache_bytes, activation_bytes, graph_bytes, context_bytes,
    total_bytes (all on the fullest GPU); capacity_bytes, fits, gpu, gpu_memory_utilization, num_gpus.
    `serving` takes what `estimate` takes.
    """
    from kvplan.report.frame import sweep_frame

    spec = _model(model)
    frame: pd.DataFrame = sweep_frame(spec, list(seq_lens), list(batch_sizes), gpu=_gpu(gpu), **serving)
    return frame


def _model(model: ModelSpec | str | PathLike[str]) -> ModelSpec:
    if isinstance(model, ModelSpec):
        return model
    if not isinstance(model, str | PathLike):
        raise InputError(f"a model cannot be {model!r}", hint="give a name, a path, or what load_model returns")
    return load_model(model)


def _gpu(gpu: Gpu | str | None) -> Gpu | None:
    if gpu is None or isinstance(gpu, Gpu):
        return gpu
    if not isinstance(gpu, str):
        raise InputError(f"`gpu` cannot be {gpu!r}", hint='give a name like "H100", a size like "80GiB", or a Gpu')
    from kvplan.sources.records import named_gpu

    return named_gpu(gpu)
