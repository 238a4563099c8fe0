"""Sweeps as tidy DataFrames: one row a pair of a length and a batch size, bytes as whole numbers."""

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kvplan.core.errors import InputError
from kvplan.core.hardware import Gpu
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving, resolve
from kvplan.core.sweep import Sweep, sweep

if TYPE_CHECKING:
    import pandas as pd

_OPTIONS = tuple(
    name for name in inspect.signature(resolve).parameters if name not in ("model", "seq_len", "batch_size", "gpu")
)


def sweep_frame(
    model: ModelSpec, seq_lens: Sequence[int], batch_sizes: Sequence[int], *, gpu: Gpu | None, **serving: Any
) -> "pd.DataFrame":
    """Every pair of a length and a batch size as a row; bytes are those of the fullest GPU.

    `serving` takes what `kvplan.core.serving.resolve` takes. Raises InputError for an axis or option that makes
    no sense, and where a figure would not fit into 64 bits.
    """
    _check_options(serving)
    lengths, batches = _whole("seq_lens", seq_lens), _whole("batch_sizes", batch_sizes)
    resolved = resolve(model, seq_len=lengths[0], batch_size=batches[0], gpu=gpu, **serving)
    return _to_frame(model, resolved, sweep(model, resolved, lengths, batches))


def _to_frame(model: ModelSpec, serving: Serving, points: Sweep) -> "pd.DataFrame":
    import numpy as np
    import pandas as pd

    num_points = len(points.seq_len)
    capacity = serving.capacity_bytes
    total = points.total_bytes
    unknown = np.full(num_points, capacity is None)
    fits = np.zeros(num_points, dtype=bool) if capacity is None else total <= capacity
    capacities = np.full(num_points, capacity or 0, dtype=np.int64)
    return pd.DataFrame(
        {
            "model": model.id,
            "seq_len": points.seq_len,
            "batch_size": points.batch_size,
            **points.columns,
            "total_bytes": total,
            "capacity_bytes": pd.arrays.IntegerArray(capacities, unknown),
            "fits": pd.arrays.BooleanArray(fits, unknown.copy()),
            "gpu": pd.Series(serving.gpu.name if serving.gpu else pd.NA, index=range(num_points), dtype="string"),
            "gpu_memory_utilization": serving.gpu_memory_utilization,
            "num_gpus": np.full(num_points, serving.num_gpus, dtype=np.int64),
        }
    )


def _check_options(serving: Mapping[str, object]) -> None:
    """Refuse a keyword that no plan knows, with the one that was meant."""
    from difflib import get_close_matches

    for name in serving:
        if name not in _OPTIONS:
            close = get_close_matches(name, _OPTIONS, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"it takes {', '.join(_OPTIONS)}"
            raise InputError(f"a sweep takes no `{name}`", hint=hint)


def _whole(name: str, axis: Sequence[object]) -> list[int]:
    """The axis as Python's own whole numbers, numpy's among them; `core.sweep` checks how large they are."""
    import numpy as np

    numbers = []
    for number in axis:
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise _no_count(name, number)
        numbers.append(int(number))
    if not numbers:
        raise InputError(f"`{name}` is empty", hint="e.g. [1024, 4096, 16384]")
    return numbers


def _no_count(name: str, number: object) -> InputError:
    hint = "whole numbers such as [1024, 4096, 16384], or a range"
    return InputError(f"`{name}` holds {repr(number)[:40]}, not a whole number", hint=hint)
