"""A figure that somebody measured, with its spread and its source: never a bare number in a formula."""

from dataclasses import dataclass
from typing import Literal

Basis = Literal["exact", "derived", "calibrated", "assumed"]
"""What a figure rests on; `core.evidence` says what the words mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Bytes with their spread, and where they stand."""

    name: str
    num_bytes: int
    spread_bytes: int
    """How far observations lie from it, to either side."""
    source: str
    basis: Basis = "calibrated"


def loaded(num_bytes: int, *, offloaded_bytes: int = 0, basis: Basis = "exact") -> Measured:
    """The weights of a rank; at most so many where the CPU keeps some, since it keeps whole tensors of them."""
    source = "the model's tensors"
    if offloaded_bytes:
        source, basis = f"{source}, less what the CPU keeps", "derived"
    return Measured(name="weights", num_bytes=num_bytes, spread_bytes=0, source=source, basis=basis)
