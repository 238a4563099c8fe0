"""The inverse of `estimate` for Python: what is given is held, what is not is searched."""

from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from kvplan.api import DEFAULT_GPU, _gpu, _model, read_draft, read_switches
from kvplan.core.engines.deployment import Switches
from kvplan.core.engines.table import find_engine
from kvplan.core.engines.versions import release
from kvplan.core.errors import InputError, RefusedError
from kvplan.core.fit import Fit, Wanted
from kvplan.core.fit import fit as fit_serving
from kvplan.core.fit.search import longest
from kvplan.core.fit.trial import Case
from kvplan.core.hardware import Gpu
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving, positive, resolve
from kvplan.runtime.keywords import in_engines_words_too
from kvplan.sources.load import load_model

if TYPE_CHECKING:
    import pandas as pd

    from kvplan.runtime.command import Command

__all__ = ["FitPlan", "ServeCheck", "fit", "serve_check"]

_AUTOMATIC = "--max-model-len auto"
"""vLLM's words for the longest that fits."""


class FitPlan(Fit):
    """An answer with its views: `to_dict` (the JSON contract), `to_frame` (the curve), `command` (a line to paste)."""

    __slots__ = ()

    @property
    def command(self) -> str | None:
        """What starts the engine so; None where its command line cannot say it."""
        from kvplan.runtime.starting import start_line

        return start_line(self.model, self.serving, self.kv_memory_bytes).text

    @property
    def flags(self) -> tuple[str, ...]:
        """The changes in the engine's own words."""
        from kvplan.runtime.starting import in_words

        return tuple(in_words(change, self.serving.engine.name) for change in self.changes)

    def to_dict(self) -> dict[str, Any]:
        """The document of `kvplan fit --json`: schema `kvplan/fit/1`."""
        from kvplan.report.fit_data import fit_to_dict
        from kvplan.runtime.starting import start_line

        return fit_to_dict(self, start_line(self.model, self.serving, self.kv_memory_bytes).text)

    def _repr_html_(self) -> str:
        from kvplan.report.fit import fit_page
        from kvplan.report.html import draw

        return draw(fit_page(self, self.command, self.flags))

    def to_frame(self) -> "pd.DataFrame":
        """The curve: one row a length."""
        import pandas as pd

        from kvplan.report.fit_data import curve_rows

        return pd.DataFrame(curve_rows(self))


@in_engines_words_too("vllm")
def fit(
    model: ModelSpec | str | PathLike[str],
    gpu: Gpu | str | None = None,
    num_gpus: int | None = None,
    engine: str = "vllm",
    max_model_len: int | None = None,
    concurrency: int | None = None,
    *,
    dtype: str | None = None,
    kv_dtype: str | None = None,
    quant: str | None = None,
    tp: int | None = None,
    pp: int | None = None,
    dp: int = 1,
    dcp: int = 1,
    pcp: int = 1,
    gpu_memory_utilization: float | None = None,
    max_num_batched_tokens: int | None = None,
    kv_memory_bytes: int | None = None,
    draft: ModelSpec | str | PathLike[str] | None = None,
    **switches: Any,
) -> FitPlan:
    """The inverse of `estimate`: what is given is held, what is None is searched.

    `max_model_len` (-1: the longest that fits, whatever the model's own limit), `concurrency` (requests of that length
    at once), `num_gpus` (None: the fewest) with `tp` and `pp`; `kv_dtype="best"` is the widest format that fits.
    `kv_memory_bytes` is a pool of a known size; `gpu` then decides only the limits that the engine sets by the device,
    an H100's where none is named. `draft` is the model that drafts (vLLM, SGLang), by default what the switch
    `draft_model` names. Raises InputError for what makes no sense or what the engine refuses; what does not fit is an
    answer: `fits` is False and `changes` say what would do.
    """
    given = {"max_model_len": max_model_len, "concurrency": concurrency, "kv_memory_bytes": kv_memory_bytes}
    for name, number in given.items():
        if number is not None and (name, number) != ("max_model_len", -1):
            positive(name, number)
    options = read_switches(switches)
    want = Wanted(
        max_model_len=None if max_model_len == -1 else max_model_len,
        longest=max_model_len == -1,
        concurrency=concurrency,
        search_layout=tp is None and pp is None and kv_memory_bytes is None and not _is_dealt_out(options),
        num_gpus=num_gpus,
        best_kv_dtype=kv_dtype == "best",
    )
    asked: dict[str, Any] = {
        "dtype": dtype,
        "kv_dtype": None if want.best_kv_dtype else kv_dtype,
        "quant": quant,
        "tp": tp,
        "pp": _stages(tp, pp, num_gpus, pcp * (1 if options.attention_dp else dp)),
        "dp": dp,
        "dcp": dcp,
        "pcp": pcp,
        "num_gpus": num_gpus,
        "engine": engine,
        "gpu": _gpu(gpu),
        "gpu_memory_utilization": gpu_memory_utilization,
        "max_num_batched_tokens": max_num_batched_tokens,
        "switches": options,
        "draft": read_draft(engine, options, draft),
    }
    return _fitted(_model(model), want, asked, kv_memory_bytes)


def _fitted(spec: ModelSpec, want: Wanted, asked: dict[str, Any], kv_memory_bytes: int | None) -> FitPlan:
    length = want.max_model_len or spec.max_seq_len
    is_named = asked["gpu"] is not None or kv_memory_bytes is None
    if not is_named:
        asked = {**asked, "gpu": _gpu(DEFAULT_GPU)}
    if want.search_layout:
        serving = _starting_layout(spec, want, {**asked, "seq_len": length})
    else:
        serving = resolve(spec, seq_len=length, **asked)
    found = fit_serving(spec, serving, want, kv_memory_bytes=kv_memory_bytes, bigger=_bigger(serving.gpu))
    if not is_named:
        note = f"no GPU is named: the limits that an engine sets by it are those of an {DEFAULT_GPU}"
        found = replace(found, notes=(*found.notes, note))
    return FitPlan(**{field.name: getattr(found, field.name) for field in fields(found)})


def _is_dealt_out(options: Switches) -> bool:
    """Whether the user says which layers go where: then how many devices there are is said, too."""
    return bool(options.stage_layers or options.tensor_split)


def _starting_layout(spec: ModelSpec, want: Wanted, asked: dict[str, Any]) -> Serving:
    """The narrowest layout that the engine accepts, from which the search goes on."""
    if want.num_gpus is not None:
        positive("num_gpus", want.num_gpus)
    refusal: InputError | None = None
    for tp in (1, 2, 4, 8):
        try:
            return resolve(spec, **{**asked, "tp": tp, "pp": 1, "num_gpus": None})
        except InputError as error:
            refusal = refusal or error
    raise refusal or InputError("no layout is accepted", hint="give `tp` and `pp`")


def _stages(tp: int | None, pp: int | None, num_gpus: int | None, replicas: int) -> int:
    """Pipeline stages: as given, else what `tp` and replicas leave of the GPUs."""
    if pp is None and tp and num_gpus and num_gpus % (tp * replicas) == 0:
        return num_gpus // (tp * replicas)
    return 1 if pp is None else pp


def _bigger(gpu: Gpu | None) -> tuple[Gpu, ...]:
    """GPUs of the same maker with more memory, the smallest first."""
    if gpu is None or gpu.memory_bytes is None or not gpu.vendor:
        return ()
    from kvplan.sources.gpus import load_gpus

    own = gpu.memory_bytes
    larger = [other for other in load_gpus() if other.vendor == gpu.vendor and (other.memory_bytes or 0) > own]
    return tuple(sorted(larger, key=lambda other: (other.memory_bytes or 0, other.name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeCheck:
    """A command line, judged as it stands."""

    command: "Command"
    fit: FitPlan
    """For the length and the limits that the command sets, or that the engine takes by itself."""
    longest: int | None
    """Tokens of the longest request that the same flags could hold, at most the model's own; None where none."""

    refusal: str | None = None
    """Why the engine does not even look at the memory."""

    @property
    def starts(self) -> bool:
        """Whether the engine starts."""
        return self.fit.fits and self.refusal is None

    @property
    def unread(self) -> tuple[str, ...]:
        """Flags that may bear on memory and were not understood: the answer leaves them out."""
        return tuple(flag for flag in self.command.unread if flag != _AUTOMATIC)

    def to_dict(self) -> dict[str, Any]:
        """The document of `kvplan serve-check --json`: schema `kvplan/serve-check/1`."""
        from kvplan.report.fit_data import serve_check_to_dict

        command = self.command
        return serve_check_to_dict(
            self.fit, options=command.options, unread=self.unread, longest=self.longest, flags=self.fit.flags,
            refusal=self.refusal,
        )  # fmt: skip


def serve_check(
    command: str,
    gpu: Gpu | str | None = None,
    *,
    model: ModelSpec | str | PathLike[str] | None = None,
    engine: str | None = None,
    offline: bool = False,
    timeout_seconds: float = 14.0,
) -> ServeCheck:
    """Whether a command line such as `vllm serve …` starts on `gpu`: the engine's own start-up check, before it runs.

    `model` stands in for the one that the command names, `engine` (NAME@VERSION) over the version that it tells. The
    GPUs are as many as its flags ask for. Raises InputError for a text that starts no engine or another one, and
    without a GPU.
    """
    from kvplan.runtime.command import names_no_model, read_command

    read = read_command(command, engine)
    named = model if model is not None else read.model
    if named is None:
        raise names_no_model(read)
    how: dict[str, Any] = {"offline": offline, "timeout_seconds": timeout_seconds}
    return judge(read, named if isinstance(named, ModelSpec) else load_model(named, **how), _gpu(gpu), **how)


def judge(command: "Command", spec: ModelSpec, gpu: Gpu | None, **how: Any) -> ServeCheck:
    """The same for a command that was read, and its model; `how` says where a draft model is read from.

    A RefusedError is an answer here: it does not start.
    """
    from kvplan.runtime.refusals import why_refused, with_model
    from kvplan.runtime.starting import options_of

    engine = f"{command.engine}@{command.version}" if command.version else command.engine
    profile = find_engine(engine)
    numbers = release(profile.version or "")
    command = with_model(command, spec, numbers)
    options: dict[str, Any] = options_of(command)
    length, kv_memory_bytes = options.pop("max_model_len", None), options.pop("kv_memory_bytes", None)
    if gpu is None and kv_memory_bytes is None:
        raise InputError("a command does not say what it runs on", hint="name the GPU, e.g. `--gpu H100`")
    pooled, requests = profile.pooled, None
    length = spec.max_seq_len if length is None else length
    if pooled is not None and pooled.shares_length:
        requests = options.get("max_num_seqs") or 1
        length = None if length is None else max(1, length // requests)
    want = Wanted(
        max_model_len=None if _is_automatic(command) else length,
        longest=length is None or _is_automatic(command),
        concurrency=requests,
        hold_limit=True,
    )
    names = ("dtype", "kv_dtype", "quant", "gpu_memory_utilization", "max_num_batched_tokens")
    asked: dict[str, Any] = {name: options.pop(name, None) for name in names}
    asked |= {name: options.pop(name, 1) for name in ("tp", "pp", "dp", "dcp", "pcp")}
    switches = read_switches(options)
    asked |= {"engine": engine, "gpu": gpu, "switches": switches, "draft": read_draft(engine, switches, **how)}
    try:
        found = _fitted(spec, want, asked, kv_memory_bytes)
    except RefusedError as error:
        error.exit_code = 1
        raise
    found, refusal = _noted(found, command), why_refused(command, spec, numbers)
    case = Case(model=found.model, serving=found.serving, kv_memory_bytes=kv_memory_bytes, hold_limit=True)
    most = longest(case, requests)
    return ServeCheck(command=command, fit=found, longest=None if most is None else most.length, refusal=refusal)


def _noted(found: FitPlan, command: "Command") -> FitPlan:
    return replace(found, notes=(*found.notes, *command.notes))


def _is_automatic(command: "Command") -> bool:
    """Whether the engine itself is asked for the longest length that fits."""
    return command.options.get("max_model_len") == -1 or _AUTOMATIC in command.unread
