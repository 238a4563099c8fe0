"""What a compiled kernel must be: each gate is a sentence if it fails."""

from __future__ import annotations

from collections.abc import Iterator

from kvplan.validate.aot.artefact import Artefact
from kvplan.validate.aot.cases import Case
from kvplan.validate.kernels.machine import MACHINES

MAX_ISSUE_RATIO = 0.6
MIN_WARPGROUP_BATCH = 4


def failures(case: Case, artefact: Artefact) -> list[str]:
    """The gates that this artefact fails, empty if it may ship."""
    return [*broken(case, artefact), *_too_many_instructions(case, artefact)]


def broken(case: Case, artefact: Artefact) -> list[str]:
    """The gates that no configuration may fail, however slow the machine's memory."""
    return [*_resources(artefact), *_instructions(case, artefact), *_buffering(case, artefact)]


def _resources(artefact: Artefact) -> Iterator[str]:
    limit = MACHINES[artefact.target].max_shared_bytes
    if artefact.spills or artefact.stack_bytes:
        yield f"spills: {artefact.spills} accesses, {artefact.stack_bytes} bytes of stack"
    if artefact.shared_bytes > limit:
        yield f"{artefact.shared_bytes} bytes of shared memory, {limit} are allowed"


def _instructions(case: Case, artefact: Artefact) -> Iterator[str]:
    hopper = artefact.target == "sm_90"
    if case.matrix and not artefact.warpgroup_mma + artefact.warp_mma:
        yield "no matrix instruction"
    if not artefact.wide_copies + artefact.tma_loads:
        yield "no 16-byte load"
    if artefact.narrow_copies > artefact.wide_copies + artefact.tma_loads:
        # page ids and scales, a few bytes per key, may be narrow; keys and values may not
        yield f"{artefact.narrow_copies} copies of fewer than 8 bytes, {artefact.wide_copies} of 16"
    if case.wide_stores and not artefact.wide_stores:
        yield "no 16-byte store"
    if case.tma and hopper and not artefact.tma_loads:
        yield "no TMA load"
    if case.warpgroup_mma and hopper and not artefact.warpgroup_mma:
        yield "no warpgroup matrix instruction"
    if case.warpgroup_mma and hopper and 0 < artefact.warpgroup_batch < MIN_WARPGROUP_BATCH:
        yield f"warpgroup products are serialised, {artefact.warpgroup_batch} between two waits"
    if case.warp_specialized and hopper and not artefact.register_moves:
        yield "not warp-specialised"


def _buffering(case: Case, artefact: Artefact) -> Iterator[str]:
    # AMD's pipeline prefetches into registers
    if case.buffered and artefact.buffer_depth < 2 and not artefact.target.startswith("gfx"):
        yield f"tiles are not double-buffered: {', '.join(artefact.buffers) or 'none in shared memory'}"


def _too_many_instructions(case: Case, artefact: Artefact) -> Iterator[str]:
    if case.key_bytes and artefact.target in case.ratio_targets:
        ratio = artefact.issue_ratio
        if ratio is None:
            yield "no loop was found to count"
        elif ratio >= MAX_ISSUE_RATIO:
            yield f"issue / HBM is {ratio:.2f}, less than {MAX_ISSUE_RATIO} is allowed"
