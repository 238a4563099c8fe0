"""The machine a plan is for: one accelerator, its published figures, and what was measured on one of its kind.

The table itself is data and lives in `kvplan.sources.gpus`; to add a card, add a line there.
A plain dataclass, not pydantic: `kvplan gpus` and every cold start read the whole table.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredDevice:
    """What `kvplan validate` measured on one device of a kind; a rate is None where none was measured."""

    context_bytes: int
    """What a process takes of the device before its first tensor."""
    read_bytes_per_second: float | None = None
    copy_bytes_per_second: float | None = None
    """Read and written bytes together."""
    matmul_flops_per_second: float | None = None
    source: str
    """The device, what drove it, when, and the record that keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One device as the driver lists it; rates are dense, None means not known or not supported."""

    name: str
    vendor: str = ""
    memory_bytes: int | None
    """What the driver reports, before any process runs; None where memory is unified or unknown."""
    memory_note: str = ""
    """Where `memory_bytes` comes from, or why there is none."""
    visible_bytes: int | None = None
    """What CUDA or HIP sees of it, in public start-up logs: what engines take their share of; None = not published."""
    marketed_gb: float | None = None
    """The size on the box, in the maker's own GB."""
    bandwidth_bytes_per_second: float | None = None
    bf16_flops: float | None = None
    fp16_flops: float | None = None
    fp8_flops: float | None = None
    interconnect_bytes_per_second: float | None = None
    """To its peers, both directions together, as makers quote it."""
    arch: str = ""
    """CUDA compute capability such as `9.0`, or the maker's architecture such as `gfx942`."""
    source: str = ""
    note: str = ""
    measured: MeasuredDevice | None = None
