"""A speed model made from half of a sweep and judged on the other half.

    t = t0 + max(bytes / (bytes_share · BW), flops / (flops_share · F))

Nothing is searched step by step. Calls in the order of their flops per byte are bound by memory up to some place and
by arithmetic after it, so there are as many cases as places, and each is a small least-squares problem with lower
bounds (t0 ≥ 0, shares ≤ `MAX_SHARE`), which is solved by trying which bounds hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from kvplan.core.errors import InputError
from kvplan.core.speed import MAX_SHARE, SpeedModel

FEWEST_POINTS = 4
CHANCE = 1e-3
"""How often, about, noise alone may pass for a second explanation."""
_EXACT = 1e-18
"""A squared relative error below this is rounding: nothing explains better than exactly."""


class Point(NamedTuple):
    """One measured call."""

    num_bytes: float
    flops: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The model, and its errors on calls that it was not made from: (predicted − measured) / measured.

    `median_error`, `p90_error` and `worst_error` are of magnitudes, `bias` is the mean with its sign.
    """

    model: SpeedModel
    num_fitted: int
    num_judged: int
    median_error: float
    p90_error: float
    worst_error: float
    bias: float
    worst_point: int
    """Its place in the list that was given."""
    judged_points: tuple[int, ...]
    """Likewise, those that the model was not made from."""


def fit_speed(
    points: Sequence[tuple[float, float, float]], *, read_bytes_per_second: float, matmul_flops_per_second: float
) -> Fit:
    """Fit t0 and the shares on half of the points (bytes, flops, seconds), judge them on the rest.

    Relative errors count, not seconds, or the longest calls would decide alone. A share comes out as None where no
    fitted call is bound by it. Raises InputError for points of fewer than `FEWEST_POINTS` sizes and for figures that
    no measurement gives.
    """
    measured = [Point(*point) for point in points]
    _refuse(measured, read_bytes_per_second, matmul_flops_per_second)
    fitted, judged = split_points(measured)
    moving = np.array([point.num_bytes for point in measured]) / read_bytes_per_second
    computing = np.array([point.flops for point in measured]) / matmul_flops_per_second
    seconds = np.array([point.seconds for point in measured], dtype=float)
    unknowns = _solve(moving[fitted], computing[fitted], seconds[fitted])
    errors = _predicted(unknowns, moving[judged], computing[judged]) / seconds[judged] - 1
    magnitudes = np.abs(errors)
    overhead, *slowness = (float(unknown) for unknown in unknowns)
    bytes_share, flops_share = (1 / factor if factor else None for factor in slowness)
    return Fit(
        model=SpeedModel(
            overhead_seconds=overhead,
            bytes_share=bytes_share,
            flops_share=flops_share,
            read_bytes_per_second=read_bytes_per_second,
            matmul_flops_per_second=matmul_flops_per_second,
        ),
        num_fitted=len(fitted),
        num_judged=len(judged),
        median_error=float(np.median(magnitudes)),
        p90_error=float(np.quantile(magnitudes, 0.9)),
        worst_error=float(magnitudes.max()),
        bias=float(errors.mean()),
        worst_point=judged[int(magnitudes.argmax())],
        judged_points=tuple(judged),
    )


def split_points(points: Sequence[Point]) -> tuple[list[int], list[int]]:
    """(fitted, judged): the places of the points, half each; the judged ones are spread evenly over the sizes.

    The points with the fewest and the most flops per byte, and as far as half of the points allows it the smallest and
    the largest, are fitted in any case: the model is judged between what it has seen.
    """
    order = sorted(range(len(points)), key=lambda i: points[i])
    by_intensity = sorted(order, key=lambda i: points[i].flops / points[i].num_bytes)
    ends = list(dict.fromkeys([by_intensity[0], by_intensity[-1], order[-1], order[0]]))[: len(points) // 2]
    between = [i for i in order if i not in ends]
    num_judged = min(len(points) // 2, len(between))
    judged = [between[(2 * turn + 1) * len(between) // (2 * num_judged)] for turn in range(num_judged)]
    return [i for i in order if i not in judged], judged


def _refuse(points: list[Point], *ceilings: float) -> None:
    for i, point in enumerate(points):
        if not all(map(isfinite, point)) or min(point.num_bytes, point.seconds) <= 0 or point.flops < 0:
            message = f"point {i} is no measured call: {', '.join(map(str, point))}"
            raise InputError(message, hint="bytes, flops and seconds, above 0")
    if not all(isfinite(ceiling) and ceiling > 0 for ceiling in ceilings):
        raise InputError("a ceiling is not above 0", hint="measure the machine's ceilings first")
    num_sizes = len({(point.num_bytes, point.flops) for point in points})
    if num_sizes < FEWEST_POINTS:
        message = f"calls of {num_sizes} sizes are too few to fit and to judge a speed"
        raise InputError(message, hint=f"measure at least {FEWEST_POINTS}, short ones and long ones")


def _predicted(unknowns: Any, moving: Any, computing: Any) -> Any:
    """`SpeedModel.seconds` of many calls; a side without a share is zero, and so left out."""
    overhead, per_moving, per_computing = unknowns
    return overhead + np.maximum(per_moving * moving, per_computing * computing)


def _solve(moving: Any, computing: Any, seconds: Any) -> Any:
    """(t0, 1 / bytes share, 1 / flops share), 0 for a side that binds no call.

    Three explanations in turn: all calls bound by the side that binds most of them at the ceilings, all by the other
    one, or some by each. Some always fit noise a little better, so a later one must leave less squared error E than
    noise would: (E / E_before)^(d / 2) < `CHANCE`, d points more than unknowns.

    Source: E / E_before is Beta(d/2, 1/2) where one unknown more fits noise, e.g. Seber and Lee, Linear Regression
    Analysis, §4.3
    """
    order = np.argsort(computing / moving, kind="stable")
    moving, computing, seconds = moving[order], computing[order], seconds[order]
    num = len(seconds)
    memory, arithmetic = (2, [num]), (2, [0])
    ends = [arithmetic, memory] if np.median(computing / moving) > 1 else [memory, arithmetic]
    best, least = None, np.inf
    for num_unknowns, places in [*ends, (3, list(range(1, num)))]:
        found = [_least_squares(place, moving, computing, seconds) for place in places]
        squares, unknowns = min(found, key=lambda pair: pair[0])
        squares = max(squares, num * _EXACT)
        if (squares / least) ** ((num - num_unknowns) / 2) < CHANCE:
            best, least = unknowns, squares
    return best


def _least_squares(place: int, moving: Any, computing: Any, seconds: Any) -> tuple[float, Any]:
    """The best unknowns if memory binds the first `place` calls and arithmetic the rest, and their squared error."""
    scale = np.median(seconds)
    first = np.arange(len(seconds)) < place
    columns = np.stack([np.full_like(seconds, scale), moving * first, computing * ~first], axis=1) / seconds[:, None]
    used = columns.any(axis=0)
    unknowns = np.zeros(3)
    unknowns[used] = _bounded(columns[:, used], np.array([0.0, 1 / MAX_SHARE, 1 / MAX_SHARE])[used])
    unknowns[0] *= scale
    errors = _predicted(unknowns, moving, computing) / seconds - 1
    return float(errors @ errors), unknowns


def _bounded(columns: Any, lower: Any) -> Any:
    """x ≥ `lower` that brings columns · x closest to 1: of all choices of bounds that hold, the best allowed one."""
    best, least = lower, np.inf
    for held in product((False, True), repeat=len(lower)):
        free = ~np.array(held)
        x = lower.copy()
        if free.any():
            x[free] = np.linalg.lstsq(columns[:, free], 1 - columns[:, ~free] @ lower[~free], rcond=None)[0]
        rest = columns @ x - 1
        if (x >= lower).all() and rest @ rest < least:
            best, least = x, rest @ rest
    return best
