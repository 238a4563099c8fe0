"""What is compiled and judged, one file per kernel; a case is a plan on CPU tensors, as a caller would make it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvplan.validate.kernels.launch import Launch

ALL = ("sm_80", "sm_90", "sm_100", "gfx942")


@dataclass(frozen=True)
class Case:
    """One kernel with one configuration, and what its machine code must show.

    launch: which of the plan's launches is judged. key_bytes: what the loop reads from the cache per key, 0 where the
    ratio of issue to memory time does not matter, and ratio_targets, where it must pass the gate (AMD's loop is not
    counted). tma, warpgroup_mma, warp_specialized: must be there, on sm_90. buffered: the loop's tiles must be at
    least double-buffered. wide_stores: 16 bytes a thread, where what is written is as much as what is read.
    """

    name: str
    plan: Callable[[], Sequence[Launch]]
    targets: tuple[str, ...] = ALL
    launch: int = 0
    key_bytes: int = 0
    ratio_targets: tuple[str, ...] = ("sm_80", "sm_90", "sm_100")
    matrix: bool = True
    tma: bool = False
    warpgroup_mma: bool = False
    warp_specialized: bool = False
    buffered: bool = True
    wide_stores: bool = False
