"""The Python face: names, numbers and strings in, frozen plans and tidy frames out."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from os import PathLike
from typing import TYPE_CHECKING, Any

from kvplan.core.errors import InputError
from kvplan.core.hardware import Gpu
from kvplan.core.model import ModelSpec
from kvplan.core.plan import Plan, plan_memory
from kvplan.core.serving import resolve
from kvplan.sources.load import load_model

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MemoryPlan", "curve", "estimate", "load_model"]


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
    engine: str = "exact",
    attention: str = "flash",
    max_num_batched_tokens: int | None = None,
    gpu: Gpu | str | None = None,
    num_gpus: int | None = None,
    gpu_memory_utilization: float = 1.0,
) -> MemoryPlan:
    """What serving `model` takes: weights, cache, attention, activations and overhead, per GPU.

    `seq_len` is the number of tokens held per sequence (default: 4096, or the model's own limit if lower);
    `encoder_seq_len` an encoder's, by default the same; `num_gpus` is tp · pp. Raises InputError for what makes
    no sense, UnsupportedError for an unknown architecture, HubError where a Hub id cannot be read.
    """
    spec = _model(model)
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
        engine=engine,
        attention=attention,
        max_num_batched_tokens=max_num_batched_tokens,
        gpu=_gpu(gpu),
        num_gpus=num_gpus,
        gpu_memory_utilization=gpu_memory_utilization,
    )
    plan = plan_memory(spec, serving)
    return MemoryPlan(**{field.name: getattr(plan, field.name) for field in fields(plan)})


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
