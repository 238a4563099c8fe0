"""What of a prediction rests on something that the log does not settle, and so is shown and not judged."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvplan.core.text import printable
from kvplan.runtime.explain.answer import Row

_OF_THE_DEVICE = ("free at the start", "free before loading", "allowed", "left for the cache")
_OF_THE_WEIGHTS = ("weights", "weights and activation peak", "weights and non-torch", "left for the cache", "pools")


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """What was taken for granted."""

    ranks: bool = False
    """How many ranks share the model: every figure of one rank follows of it."""
    device: bool = False
    """Which kind of device it is: its account follows of it."""
    weights: bool = False
    """Whether the checkpoint is the one of the log: another owner's stands in for it."""


def without_doubtful(rows: Sequence[Row], doubts: Doubts, model_in_log: str | None) -> list[Row]:
    """The rows, those that rest on what is in doubt as assumed and not judged."""
    return [_row(row, doubts, model_in_log) for row in rows]


def _row(row: Row, doubts: Doubts, model_in_log: str | None) -> Row:
    of_flags = row.section == "flags"
    of_device = of_flags or (row.section == "account" and row.name in _OF_THE_DEVICE)
    of_weights = of_flags or (row.section == "account" and row.name in _OF_THE_WEIGHTS)
    if row.predicted is None or row.section == "arithmetic":
        return row
    if doubts.weights and row.section == "account" and row.name == "weights":
        other = f"`{printable(model_in_log or '', max_length=60)}` may store them in another way"
        row = replace(row, why=f"{row.why}; {other}" if row.why else other)
    if doubts.device and of_device:
        why = "its memory may be the CPU's, too: `--gpu` says whose it is"
        return replace(row, predicted=None, low=None, high=None, basis=None, verdict="unknown", judged=None, why=why)
    if doubts.ranks or (doubts.weights and of_weights):
        return replace(row, basis="assumed", judged=None)
    return row
