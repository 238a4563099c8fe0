"""What the suite prints while it runs, a line each."""

from __future__ import annotations

from kvplan.validate.suite.bench import Row
from kvplan.validate.suite.ceilings import Ceilings
from kvplan.validate.suite.correctness import Verdict
from kvplan.validate.suite.device import Device


def device(found: Device) -> str:
    """The device and what drives it."""
    if found.kind == "cpu":
        return f"{found.name}, Triton {found.triton} interpreted: no figure here is a GPU's"
    return f"{found.name}, driver {found.driver}, torch {found.torch}, Triton {found.triton}, {found.date}"


def verdict(found: Verdict) -> str:
    """One check."""
    if found.failure:
        return f"  FAILED {found.name}: {found.failure.kind}: {found.failure.message}"
    return f"  {'ok    ' if found.ok else 'WRONG '} {found.name}: {found.error:.1e} of {found.tolerance:.0e}"


def ceilings(found: Ceilings) -> str:
    """The three ceilings."""

    def told(value: float | None, unit: float, name: str) -> str:
        return "not measured" if value is None else f"{value / unit:,.2f} {name}"

    return "\n".join(
        [
            f"  read    {told(found.read_bytes_per_second, 1e12, 'TB/s')} ({found.read_by})",
            f"  copy    {told(found.copy_bytes_per_second, 1e12, 'TB/s')}",
            f"  matmul  {told(found.matmul_flops_per_second, 1e12, 'TFLOP/s')}",
        ]
    )


def row(found: Row) -> str:
    """One candidate on one case."""
    if found.timing is None:
        why = f"{found.failure.kind}: {found.failure.message}" if found.failure else "no timing"
        return f"    {found.candidate:<28} {why}"
    timing = found.timing
    shares = [f"{found.bytes_per_second or 0:.3g} B/s", f"{(found.flops_per_second or 0) / 1e12:.0f} TFLOP/s"]
    if found.share_of_read is not None:
        shares[0] = f"{(found.bytes_per_second or 0) / 1e9:,.0f} GB/s ({found.share_of_read:.0%} of read)"
    if found.share_of_copy is not None:
        shares[0] = f"{(found.bytes_per_second or 0) / 1e9:,.0f} GB/s ({found.share_of_copy:.0%} of copy)"
    basis = f"  [{found.choice.config}; {found.choice.basis}]" if found.choice else ""
    time = f"{timing.median_seconds * 1e6:>9.1f} µs ±{timing.spread:.0%}"
    return f"    {found.candidate:<28} {time}  {', '.join(shares)}{basis}"
