"""Many points at once: the same arithmetic as a plan's, on int64 arrays of lengths and batch sizes.

Nothing is computed a second way: the arrays flow through `core.layout` in the place of two numbers.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kvplan.core.errors import InputError
from kvplan.core.layout import GpuUse, stage_uses
from kvplan.core.model import ModelSpec
from kvplan.core.serving import MAX_COUNT, Serving
from kvplan.core.units import larger

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PARTS = ("weights_bytes", "kv_cache_bytes", "activation_bytes", "graph_bytes", "context_bytes")
_LIMIT = 2**58
"""int64 wraps silently above 2⁶³, and arrays hold bits before they hold bytes: 2⁵⁸ bytes are 2⁶¹ bits."""
_MAX_POINTS = 2**24
"""Some 4 GiB of columns; a slip of the finger must not take the machine's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One array per column, one entry per point; all bytes on the GPU that is fullest at that point."""

    seq_len: "NDArray[np.int64]"
    batch_size: "NDArray[np.int64]"
    columns: "dict[str, NDArray[np.int64]]"

    @property
    def total_bytes(self) -> "NDArray[np.int64]":
        """The sum of the parts."""
        total: NDArray[np.int64] = sum(self.columns.values())  # type: ignore[assignment]
        return total


def sweep(model: ModelSpec, serving: Serving, seq_lens: list[int], batch_sizes: list[int]) -> Sweep:
    """Every pair of a length and a batch size; `serving` gives all else, and its encoder length if it is fixed.

    Raises InputError for an empty, impossible or immense axis, and where a figure would not fit into 64 bits.
    """
    import numpy as np

    for name, axis in (("seq_lens", seq_lens), ("batch_sizes", batch_sizes)):
        if not axis or min(axis) < 1 or max(axis) > MAX_COUNT:
            message = f"`{name}` needs at least one number, all from 1 to {MAX_COUNT}"
            raise InputError(message, hint="e.g. [1024, 4096, 16384]")
    if (num_points := len(seq_lens) * len(batch_sizes)) > _MAX_POINTS:
        raise InputError(f"a sweep of {num_points:,} points is more than {_MAX_POINTS:,}", hint="use a coarser axis")
    _refuse_overflow(model, serving, int(max(seq_lens)), int(max(batch_sizes)))
    axes = (np.asarray(axis, dtype=np.int64) for axis in (seq_lens, batch_sizes))
    seq, batch = (grid.ravel() for grid in np.meshgrid(*axes, indexing="ij"))
    uses = stage_uses(model, _at(serving, seq, batch))
    return Sweep(seq_len=seq, batch_size=batch, columns=_fullest(uses, len(seq)))


def _refuse_overflow(model: ModelSpec, serving: Serving, seq_len: int, batch_size: int) -> None:
    """Look at the largest point in Python's unbounded numbers: no figure shrinks along either axis."""
    highest = max(use.total_bytes for use in stage_uses(model, _at(serving, seq_len, batch_size)))
    if max(highest, seq_len * batch_size) >= _LIMIT:
        raise InputError("the largest point of the sweep does not fit into 64 bits", hint="use smaller axes")


def _at(serving: Serving, seq_len: Any, batch_size: Any) -> Serving:
    """The serving at other lengths and batch sizes; an encoder that followed the length follows it still."""
    return replace(
        serving,
        seq_len=seq_len,
        batch_size=batch_size,
        encoder_seq_len=seq_len if serving.encoder_follows else serving.encoder_seq_len,
    )


def _fullest(uses: list[GpuUse], num_points: int) -> "dict[str, NDArray[np.int64]]":
    """The columns of the stage with the highest total, point by point."""
    import numpy as np

    def column(use: GpuUse, name: str) -> "NDArray[np.int64]":
        return np.broadcast_to(np.asarray(getattr(use, name), dtype=np.int64), num_points)

    chosen = {name: column(uses[0], name) for name in PARTS}
    highest: Any = uses[0].total_bytes
    for use in uses[1:]:
        fuller = np.broadcast_to(use.total_bytes > highest, num_points)
        chosen = {name: np.where(fuller, column(use, name), held) for name, held in chosen.items()}
        highest = larger(use.total_bytes, highest)
    return chosen
