"""The inverse of `estimate` for Python: what is given is held, what is not is searched."""

from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from kvplan.api import DEFAULT_GPU, _gpu, _model, read_draft, read_switches
from kvplan.core.boot import boot
from kvplan.core.engines.deployment import Switches
from kvplan.core.engines.table import find_engine
from kvplan.core.engines.versions import release
from kvplan.core.errors import InputError, RefusedError
from kvplan.core.fit import Fit, Wanted
from kvplan.core.fit import fit as fit_serving
from kvplan.core.fit.by_itself import lowered
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

_LENGTH, _AUTOMATIC = "--max-model-len", ("auto", "-1")
"""vLLM's words for the longest that fits (utils/argparse_utils.py `human_readable_int_or_auto`)."""


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
    is_longest = hasattr(max_model_len, "__index__") and bool(max_model_len == -1)
    max_model_len = None if is_longest else _whole("max_model_len", max_model_len)
    concurrency, kv_memory_bytes = _whole("concurrency", concurrency), _whole("kv_memory_bytes", kv_memory_bytes)
    num_gpus, tp, pp = _whole("num_gpus", num_gpus), _whole("tp", tp), _whole("pp", pp)
    dp, pcp = positive("dp", dp), positive("pcp", pcp)
    options = read_switches(switches)
    want = Wanted(
        max_model_len=max_model_len,
        longest=is_longest,
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


def _whole(name: str, number: int | None) -> int | None:
    return None if number is None else positive(name, number)


def _fitted(
    spec: ModelSpec, want: Wanted, asked: dict[str, Any], kv_memory_bytes: int | None, *, on_gpu: bool = False
) -> FitPlan:
    length = want.max_model_len or spec.max_seq_len
    is_named = asked["gpu"] is not None or kv_memory_bytes is None
    if not is_named:
        asked = {**asked, "gpu": _gpu(DEFAULT_GPU)}
    if want.search_layout:
        serving = _starting_layout(spec, want, {**asked, "seq_len": length})
    else:
        serving = resolve(spec, seq_len=length, **asked)
    found = fit_serving(
        spec, serving, want, kv_memory_bytes=kv_memory_bytes, on_gpu=on_gpu, bigger=_bigger(serving.gpu)
    )
    if not is_named:
        note = f"no GPU is named: the limits that an engine sets by it are those of an {DEFAULT_GPU}"
        found = replace(found, gpu_is_named=False, notes=(*found.notes, note))
    elif kv_memory_bytes is not None and not on_gpu and found.fits:
        found = replace(found, notes=(*found.notes, *_without_room(found, kv_memory_bytes)))
    return FitPlan(**{field.name: getattr(found, field.name) for field in fields(found)})


def _without_room(found: Fit, kv_memory_bytes: int) -> tuple[str, ...]:
    """What the GPU that is named has to say of a pool of a given size, which is looked at alone."""
    try:
        start = boot(found.model, found.serving, kv_memory_bytes, on_gpu=True)
    except InputError:
        return ()  # a GPU without an account has nothing to say
    return () if start.starts else (f"this is of the pool alone, for which the GPU has no room: {start.reasons[-1]}",)


def _is_dealt_out(options: Switches) -> bool:
    """Whether the user says which layers go where: then how many devices there are is said, too."""
    return bool(options.stage_layers or options.tensor_split)


def _starting_layout(spec: ModelSpec, want: Wanted, asked: dict[str, Any]) -> Serving:
    """The narrowest layout that the engine accepts, from which the search goes on."""
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
    model: ModelSpec
    gpu: Gpu | None
    fit: FitPlan | None
    """For the length and the limits that the command sets, or that the engine takes by itself; None where the engine
    refuses the flags as they stand."""
    longest: int | None
    """Tokens of the longest request that the same settings could hold, were the length not limited: at most the model's
    own or the command's; None where none."""

    refusal: str | None = None
    """Why the engine does not even look at the memory."""
    hint: str | None = None
    """What to do about the refusal."""

    @property
    def starts(self) -> bool:
        """Whether the engine starts."""
        return self.fit is not None and self.fit.fits and self.refusal is None

    @property
    def unread(self) -> tuple[str, ...]:
        """Flags that may bear on memory and were not understood: the answer leaves them out."""
        return without_automatic(self.command).unread

    def to_dict(self) -> dict[str, Any]:
        """The document of `kvplan serve-check --json`: schema `kvplan/serve-check/1`."""
        from kvplan.report.fit_data import serve_check_to_dict

        return serve_check_to_dict(
            self.fit, options=self.command.options, unread=self.unread, longest=self.longest,
            flags=() if self.fit is None else self.fit.flags, refusal=self.refusal, hint=self.hint,
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

    if not isinstance(command, str):
        hint = "one text, as it is typed into a shell; `shlex.join` makes one of a list of words"
        raise InputError(f"a command cannot be {command!r:.60}", hint=hint)
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
    from kvplan.runtime.refusals import why_refused, with_model, without_reason
    from kvplan.runtime.starting import devices_of, options_of

    engine = command.profile
    numbers = release(find_engine(engine).version or "")
    command = with_model(command, spec, numbers)
    options: dict[str, Any] = options_of(without_automatic(command))
    kv_memory_bytes = options.pop("kv_memory_bytes", None)
    if gpu is None and kv_memory_bytes is None:
        raise InputError("a command does not say what it runs on", hint="name the GPU, e.g. `--gpu H100`")
    want = _wanted(engine, spec, options)
    names = ("dtype", "kv_dtype", "quant", "gpu_memory_utilization", "max_num_batched_tokens")
    asked: dict[str, Any] = {name: options.pop(name, None) for name in names}
    asked |= {name: options.pop(name, 1) for name in ("tp", "pp", "dp", "dcp", "pcp")}
    asked["pp"] = devices_of(command) or asked["pp"]
    switches = read_switches(options)
    asked |= {"engine": engine, "gpu": gpu, "switches": switches, "draft": read_draft(engine, switches, **how)}
    try:
        want, asked, notes = _by_itself(command, spec, want, asked)
        found = _fitted(spec, want, asked, kv_memory_bytes, on_gpu=gpu is not None)
    except RefusedError as error:
        command = without_reason(command, str(error))
        return ServeCheck(
            command=command, model=spec, gpu=gpu, fit=None, longest=None, refusal=str(error), hint=error.hint or None
        )
    most = _longest(found, want.concurrency, on_gpu=gpu is not None, is_lowered=bool(notes))
    refusal = why_refused(command, spec, numbers)
    command = without_reason(command, refusal)
    found = replace(found, notes=(*notes, *found.notes, *command.notes))
    return ServeCheck(command=command, model=spec, gpu=gpu, fit=found, longest=most, refusal=refusal)


def _by_itself(
    command: "Command", spec: ModelSpec, want: Wanted, asked: dict[str, Any]
) -> tuple[Wanted, dict[str, Any], tuple[str, ...]]:
    """What is wanted and asked once the engine has had its say of it by itself, and what that was."""
    from kvplan.runtime.starting import left_to_fit

    may, length = left_to_fit(command), want.max_model_len or spec.max_seq_len
    if asked["gpu"] is None or length is None or not (may.length or may.layers):
        return want, asked, ()
    found = lowered(spec, resolve(spec, seq_len=length, **asked), length, want.concurrency or 1, may)
    if found is None:
        return want, asked, ()
    switches = replace(asked["switches"], **found.switches)
    as_long_as_fits = may.shortest == 1  # whatever the account's spread does to it
    want = replace(want, max_model_len=None if as_long_as_fits else found.length, longest=as_long_as_fits)
    return want, asked | {"switches": switches}, (found.note,)


def _wanted(engine: str, spec: ModelSpec, options: dict[str, Any]) -> Wanted:
    """What a command asks for; its length is taken out of the options."""
    length, pooled = options.pop("max_model_len", None), find_engine(engine).pooled
    requests: int | None = None
    if length is None:
        length = spec.max_seq_len
    if pooled is not None and pooled.shares_length:
        requests = options.get("max_num_seqs") or 1
        length = None if length is None else max(1, length // requests)
    is_open = length in (None, -1)
    return Wanted(max_model_len=None if is_open else length, longest=is_open, concurrency=requests, hold_limit=True)


def _longest(found: FitPlan, requests: int | None, *, on_gpu: bool, is_lowered: bool) -> int | None:
    """Tokens of the longest request with these settings; where requests share one buffer, one may have all of it."""
    case = Case(
        model=found.model, serving=found.serving, kv_memory_bytes=found.kv_memory_bytes, on_gpu=on_gpu, hold_limit=True
    )
    if is_lowered:
        return found.serving.seq_len if found.serving.switches.kv_unified else found.max_model_len
    most = longest(case, requests)
    if most is None or (found.fits and most.length < found.max_model_len):
        return found.max_model_len if found.fits else None
    if found.serving.switches.kv_unified:
        return min(most.serving.seq_len, max(found.serving.seq_len, case.longest))
    return most.length


def without_automatic(command: "Command") -> "Command":
    """The same with -1 as the length, where the command asks the engine itself for the longest that fits."""
    unread = tuple(flag for flag in command.unread if not _asks_for_the_longest(flag))
    if len(unread) == len(command.unread):
        return command
    return replace(command, options={**command.options, "max_model_len": -1}, unread=unread)


def _asks_for_the_longest(flag: str) -> bool:
    name, _, value = flag.partition(" ")
    return name == _LENGTH and value.strip().lower() in _AUTOMATIC
