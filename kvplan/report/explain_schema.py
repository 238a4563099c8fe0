"""The published shape of `kvplan explain --json`, as types; `kvplan.report.schema` writes it out."""

from typing import Annotated, Any, Literal

from pydantic import Field, with_config
from typing_extensions import TypedDict

Positive = Annotated[int, Field(ge=1)]
Number = int | float
Verdict = Literal["equal", "near", "off", "unknown"]
Basis = Literal["exact", "derived", "calibrated", "assumed"]

described = with_config(use_attribute_docstrings=True)


@described
class Figure(TypedDict):
    """One figure as it was printed."""

    name: str
    value: Number
    unit: str
    half_step: float
    """Half of the last printed digit."""
    rank: str | None
    line: Positive


@described
class ExplainRow(TypedDict):
    """One figure of the log beside kvplan's."""

    section: Literal["account", "given", "flags", "arithmetic"]
    """account: where the memory goes; given: what follows exactly of what the log states; flags: from GPU, flags and
    model alone; arithmetic: the log's own sums."""
    name: str
    rank: str | None
    """The workers that printed it, where they differ."""
    unit: Literal["bytes", "tokens", "blocks", "requests", "cells", "slots", "layers"]
    observed: Number
    half_step: Number
    predicted: Number | None
    low: Number | None
    high: Number | None
    """Bounds of the prediction: its spread, or what the rounding of the figures behind it leaves open."""
    difference: Number | None
    """Predicted less observed."""
    relative: float | None
    basis: Basis | None
    verdict: Verdict
    judged: Literal["exact", "pool"] | None
    """Whether it decides `within_tolerance`: exact must be equal, the pool within the tolerance."""
    why: str


@described
class FailureInfo(TypedDict):
    """Why the engine did not start."""

    errors: list[str]
    """In its own words."""
    reasons: list[str]
    remedies: list[str]


@described
class StartInfo(TypedDict):
    """One start of one engine."""

    engine: Literal["vllm", "sglang", "trtllm", "llamacpp"]
    engine_version: str | None
    model: str | None
    """null where it is not known."""
    model_in_log: str | None
    gpu: str | None
    num_gpus: int | None
    tp: Positive
    pp: Positive
    dp: Positive
    started: bool
    lines: Annotated[list[int], Field(min_length=2, max_length=2)]
    """The first and the last line of the log that tell of it."""
    options: dict[str, Any]
    """What the engine was told, under kvplan's names."""
    unread_flags: list[str]
    facts: dict[str, str]
    figures: list[Figure]
    rows: list[ExplainRow]
    failure: FailureInfo | None
    advice: list[str]
    notes: list[str]
    predicted: bool
    """False where only the log's own sums were checked."""
    tolerance: Annotated[float, Field(ge=0, le=1)]
    within_tolerance: bool | None
    outside_tolerance: list[str]
    """`section: name` of the rows that are beyond it."""


@described
class ExplainDocument(TypedDict):
    """What `kvplan explain --json` prints. Bytes are whole numbers; consumers must tolerate new keys."""

    schema: Literal["kvplan/explain/1"]
    kvplan_version: str
    starts: Annotated[list[StartInfo], Field(min_length=1)]
    """In the order of the log."""
    within_tolerance: bool | None
    """Of the last start."""
