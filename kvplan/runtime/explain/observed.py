"""An observation's figures as `explain` needs them: the tightest of all ranks, and each rank's where they differ."""

import re

from kvplan.runtime.explain.answer import Number
from kvplan.runtime.observation import Figure, Observation

_STAGE = re.compile(r"PP(\d+)")
MOST_RANKS = 4
"""Unlike ranks that are all shown; of more, the least and the most."""
_ALL_BYTES = frozenset({"B", "KiB", "MiB", "GiB", "KB", "MB", "GB"})


def amount(figure: Figure) -> tuple[Number, Number]:
    """(value, half step): bytes as whole numbers, counts as such."""
    if figure.unit in _ALL_BYTES:
        return figure.num_bytes, figure.half_step_bytes
    whole_number = float(figure.value).is_integer() and not figure.half_step
    value = int(figure.value) if whole_number else figure.value
    return value, figure.half_step


def one(observation: Observation, name: str) -> Figure | None:
    """The figure of that name; of several ranks the least."""
    found = observation.figures.get(name, ())
    return min(found, key=lambda figure: amount(figure)[0]) if found else None


def number(observation: Observation, name: str) -> tuple[Number, Number] | None:
    """The same as value and half step."""
    figure = one(observation, name)
    return None if figure is None else amount(figure)


def whole(observation: Observation, name: str) -> int | None:
    """The same as a whole number."""
    figure = one(observation, name)
    return None if figure is None else round(amount(figure)[0])


def tightest(observation: Observation, name: str) -> str | None:
    """The rank whose figure of that name is the least; None where that one is not named."""
    figure = one(observation, name)
    return None if figure is None else figure.rank


def of_rank(observation: Observation, name: str, rank: str | None) -> tuple[Number, Number] | None:
    """The figure of that rank, or what all ranks print alike; None where neither is told."""
    found = observation.figures.get(name, ())
    mine = [figure for figure in found if figure.rank == rank]
    values = {amount(figure) for figure in mine or found}
    return next(iter(values)) if len(values) == 1 else None


def each(observation: Observation, name: str) -> list[tuple[str | None, Figure]]:
    """(ranks, figure) of each value: one without ranks where all are equal, a few that differ, else the two ends."""
    by_value: dict[tuple[Number, Number], list[Figure]] = {}
    for figure in observation.figures.get(name, ()):
        by_value.setdefault(amount(figure), []).append(figure)
    values = sorted(by_value, reverse=True)
    if len(values) <= 1:
        return [(None, by_value[value][0]) for value in values]
    if len(values) > MOST_RANKS:
        values = [values[0], values[-1]]
    return [(_names(by_value[value]), by_value[value][0]) for value in values]


def total(observation: Observation, name: str) -> tuple[int, int] | None:
    """All figures of that name together, with what their rounding adds up to."""
    found = [amount(figure) for figure in observation.figures.get(name, ())]
    if not found:
        return None
    return sum(round(value) for value, _ in found), sum(round(half) for _, half in found)


def stage_of(figure: Figure, num_stages: int) -> int | None:
    """The pipeline stage of the rank that printed a figure; None where it is not told."""
    if num_stages == 1:
        return 0
    match = _STAGE.search(figure.rank or "")
    return int(match[1]) if match and int(match[1]) < num_stages else None


def _names(figures: list[Figure]) -> str:
    names = [figure.rank or "the others" for figure in figures]
    if len(names) == 1:
        return names[0]
    return f"{names[0]}, {names[1]}" if len(names) == 2 else f"{names[0]} and {len(names) - 1} more"
