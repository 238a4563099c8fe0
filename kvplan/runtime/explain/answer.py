"""What `explain` answers: rows of observed and predicted figures, advice, and whether all is within tolerance."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

from kvplan.core.measured import Basis
from kvplan.core.serving import Serving
from kvplan.runtime.observation import Observation

Section = Literal["account", "given", "flags", "arithmetic"]
"""account: where the memory goes, from GPU, flags and model · given: what follows exactly of the memory (or the tokens)
that the log states · flags: the same from GPU, flags and model alone · arithmetic: the log's own sums."""
Verdict = Literal["equal", "near", "off", "unknown"]
"""equal: within the printed rounding · near: within the prediction's spread · off: neither · unknown: not predicted."""
Number = int | float

POOL_TOLERANCE = 0.06
"""How far the memory for the cache, predicted from flags alone, may be off: a share of what the log states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of the log beside kvplan's."""

    section: Section
    name: str
    unit: str
    """`bytes`, `tokens`, `blocks`, `requests`, `cells`, `slots`, `layers`."""
    rank: str | None = None
    """The workers that printed it, where they differ."""
    observed: Number
    half_step: Number
    """Half of the last printed digit."""
    predicted: Number | None = None
    low: Number | None = None
    high: Number | None = None
    """The prediction's bounds: its spread, or what the rounding of the figures that it is made of leaves open."""
    basis: Basis | None = None
    verdict: Verdict
    judged: Literal["exact", "pool"] | None = None
    """Whether it decides the exit code: `exact` must be equal, `pool` within the tolerance."""
    why: str = ""

    @property
    def difference(self) -> Number | None:
        """Predicted less observed: below 0 kvplan says too little."""
        return None if self.predicted is None else self.predicted - self.observed

    @property
    def relative(self) -> float | None:
        """The difference as a share of what was observed; None where that is 0, or as good as."""
        if self.difference is None or not self.observed:
            return None
        share = self.difference / self.observed
        return share if isfinite(share) else None

    @property
    def spread(self) -> Number:
        """How far the prediction's farther bound lies."""
        if self.predicted is None or self.low is None or self.high is None:
            return 0
        return max(self.predicted - self.low, self.high - self.predicted)

    def is_within(self, tolerance: float) -> bool:
        """Whether the row lets the log pass."""
        if self.judged is None or self.predicted is None:
            return True
        if self.judged == "exact" or self.verdict == "equal":
            return self.verdict == "equal"
        return abs(self.predicted - self.observed) <= tolerance * abs(self.observed) + self.half_step


def make_row(
    section: Section,
    name: str,
    observed: tuple[Number, Number],
    predicted: tuple[Number, Number, Number] | None,
    *,
    unit: str = "bytes",
    basis: Basis | None = None,
    rounding: bool = False,
    judged: Literal["exact", "pool"] | None = None,
    rank: str | None = None,
    why: str = "",
) -> Row:
    """A row with its verdict.

    `observed` is the value and its half step, `predicted` the value and its bounds; with `rounding` the bounds are what
    printed digits leave open, so that whatever lies between them is equal.
    """
    value, half = observed
    verdict: Verdict = "unknown"
    if predicted is not None:
        middle, low, high = predicted
        slack = half + 1e-9 * abs(value)
        between = low - slack <= value <= high + slack
        is_equal = abs(middle - value) <= slack or (rounding and between)
        verdict = "equal" if is_equal else "near" if between else "off"
    return Row(
        section=section,
        name=name,
        unit=unit,
        rank=rank,
        observed=value,
        half_step=half,
        predicted=None if predicted is None else predicted[0],
        low=None if predicted is None else predicted[1],
        high=None if predicted is None else predicted[2],
        basis=basis if predicted is not None else None,
        verdict=verdict,
        judged=judged if predicted is not None else None,
        why=why,
    )


def exactly(value: Number) -> tuple[Number, Number, Number]:
    """A prediction without spread."""
    return value, value, value


def around(value: int, spread: int) -> tuple[Number, Number, Number]:
    """A prediction with a spread to either side."""
    return value, value - spread, value + spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an engine did not start, and what would have."""

    errors: tuple[str, ...]
    """In its own words."""
    reasons: tuple[str, ...] = ()
    """In kvplan's."""
    remedies: tuple[str, ...] = ()
    """What would have fitted, best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One start of one engine, explained."""

    observation: Observation
    model: str | None
    """None where it is not known; `notes` says why."""
    serving: Serving | None
    """What kvplan takes the engine to have been told; None where that could not be settled."""
    rows: tuple[Row, ...]
    failure: Failure | None = None
    advice: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tolerance: float = POOL_TOLERANCE
    started: bool = True

    @property
    def outside(self) -> tuple[Row, ...]:
        """The rows that are beyond tolerance."""
        return tuple(row for row in self.rows if not row.is_within(self.tolerance))

    @property
    def is_within_tolerance(self) -> bool | None:
        """Whether what is exact is equal, and the pool within the tolerance; None where no row decides."""
        return not self.outside if any(row.judged for row in self.rows) else None

    @property
    def is_compared(self) -> bool:
        """Whether any figure of the log stands beside one of kvplan's, or beside a sum of others."""
        return any(row.predicted is not None for row in self.rows)

    @property
    def is_predicted(self) -> bool:
        """Whether any figure was predicted from the model."""
        return any(row.predicted is not None and row.section != "arithmetic" for row in self.rows)


@dataclass(slots=True, kw_only=True)
class Findings:
    """Rows and notes while they are gathered."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
