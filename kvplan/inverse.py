"""The inverse of `estimate` for Python: what is given is held, what is not is searched."""

from dataclasses import fields
from os import PathLike
from typing import TYPE_CHECKING, Any

from kvplan.api import _gpu, _model, read_switches
from kvplan.core.errors import InputError
from kvplan.core.fit import Fit, Wanted
from kvplan.core.fit import fit as fit_serving
from kvplan.core.hardware import Gpu
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving, positive, resolve

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FitPlan", "fit"]


class FitPlan(Fit):
    """An answer with its views: `to_dict` (the JSON contract), `to_frame` (the curve), `command` (a line to paste)."""

    __slots__ = ()

    @property
    def command(self) -> str | None:
        """What starts the engine so; None where its command line cannot say it."""
        from kvplan.runtime.starting import start_line

        return start_line(self.model, self.serving, self.kv_memory_bytes).text

    def to_dict(self) -> dict[str, Any]:
        """The document of `kvplan fit --json`: schema `kvplan/fit/1`."""
        from kvplan.report.fit_data import fit_to_dict
        from kvplan.runtime.starting import start_line

        return fit_to_dict(self, start_line(self.model, self.serving, self.kv_memory_bytes).text)

    def to_frame(self) -> "pd.DataFrame":
        """The curve: one row a length."""
        import pandas as pd

        from kvplan.report.fit_data import curve_rows

        return pd.DataFrame(curve_rows(self))


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
    **switches: Any,
) -> FitPlan:
    """The inverse of `estimate`: what is given is held, what is None is searched.

    `max_model_len` (-1: the longest that fits, whatever the model's own limit), `concurrency` (requests of that length
    at once), `num_gpus` (None: the fewest) with `tp` and `pp`; `kv_dtype="best"` is the widest format that fits.
    `kv_memory_bytes` is a pool of a known size instead of a GPU. Raises InputError for what makes no sense or what the
    engine refuses; what does not fit is an answer: `fits` is False and `changes` say what would do.
    """
    spec = _model(model)
    if concurrency is not None:
        positive("concurrency", concurrency)
    if max_model_len not in (None, -1):
        positive("max_model_len", max_model_len)
    if kv_memory_bytes is not None:
        positive("kv_memory_bytes", kv_memory_bytes)
    options = read_switches(switches)
    dealt = options.stage_layers or options.tensor_split
    want = Wanted(
        max_model_len=None if max_model_len == -1 else max_model_len,
        longest=max_model_len == -1,
        concurrency=concurrency,
        search_layout=tp is None and pp is None and kv_memory_bytes is None and not dealt,
        num_gpus=num_gpus,
        best_kv_dtype=kv_dtype == "best",
    )
    asked: dict[str, Any] = {
        "seq_len": want.max_model_len or spec.max_seq_len,
        "dtype": dtype,
        "kv_dtype": None if want.best_kv_dtype else kv_dtype,
        "quant": quant,
        "dp": dp,
        "dcp": dcp,
        "pcp": pcp,
        "engine": engine,
        "gpu": _gpu(gpu),
        "gpu_memory_utilization": gpu_memory_utilization,
        "max_num_batched_tokens": max_num_batched_tokens,
        "switches": options,
    }
    serving = (
        _starting_layout(spec, want, asked)
        if want.search_layout
        else resolve(spec, tp=tp, pp=_stages(tp, pp, num_gpus), num_gpus=num_gpus, **asked)
    )
    found = fit_serving(spec, serving, want, kv_memory_bytes=kv_memory_bytes, bigger=_bigger(asked["gpu"]))
    return FitPlan(**{field.name: getattr(found, field.name) for field in fields(found)})


def _starting_layout(spec: ModelSpec, want: Wanted, asked: dict[str, Any]) -> Serving:
    """The narrowest layout that the engine accepts, from which the search goes on."""
    if want.num_gpus is not None:
        positive("num_gpus", want.num_gpus)
    refusal: InputError | None = None
    for tp in (1, 2, 4, 8):
        try:
            return resolve(spec, tp=tp, **asked)
        except InputError as error:
            refusal = refusal or error
    raise refusal or InputError("no layout is accepted", hint="give `tp` and `pp`")


def _stages(tp: int | None, pp: int | None, num_gpus: int | None) -> int:
    """Pipeline stages: as given, else what `tp` leaves of the GPUs."""
    if pp is None and tp and num_gpus and num_gpus % tp == 0:
        return num_gpus // tp
    return 1 if pp is None else pp


def _bigger(gpu: Gpu | None) -> tuple[Gpu, ...]:
    """GPUs of the same maker with more memory, the smallest first."""
    if gpu is None or gpu.memory_bytes is None or not gpu.vendor:
        return ()
    from kvplan.sources.gpus import load_gpus

    own = gpu.memory_bytes
    larger = [other for other in load_gpus() if other.vendor == gpu.vendor and (other.memory_bytes or 0) > own]
    return tuple(sorted(larger, key=lambda other: (other.memory_bytes or 0, other.name)))
