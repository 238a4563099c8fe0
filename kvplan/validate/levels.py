"""How much is tried: which loads, which calls, how much memory, how long each is timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvplan.core.units import GIB, MIB
from kvplan.validate.case import Case

Loads = list[tuple[int, int]]
"""(sequences, tokens of each)."""

_DECODE: Loads = [
    (1, 2048), (1, 32_768), (4, 8192), (16, 4096), (32, 8192), (64, 2048), (128, 1024), (64, 8192),
    (1, 131_072), (8, 1024), (8, 32_768), (256, 2048), (2, 65_536), (32, 1024), (16, 16_384), (128, 4096),
]  # fmt: skip
_PREFILL: Loads = [
    (1, 1024), (1, 8192), (4, 2048), (2, 4096), (1, 16_384), (8, 1024), (16, 2048), (4, 8192), (1, 32_768), (1, 2048),
    (2, 8192), (8, 2048),
]  # fmt: skip
_ENCODER: Loads = [
    (1, 512),
    (8, 512),
    (64, 512),
    (32, 256),
    (128, 512),
    (256, 128),
    (16, 512),
    (64, 128),
    (4, 512),
    (32, 512),
]
_STATES: Loads = [(batch, 1) for batch in (1, 8, 32, 64, 128, 256, 512, 16, 4, 192)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One of `LEVELS`; memory is that of the caches that are really allocated."""

    name: str
    host_bytes: int
    device_share: float
    num_loads: int
    shapes: tuple[tuple[int, int, int], ...]
    """(sequences, queries, keys) of single calls, on a GPU."""
    host_shapes: tuple[tuple[int, int, int], ...]
    minutes: float
    """After that nothing new is started, unless told otherwise."""
    job_seconds: float
    """How long one job may take."""
    effort: Mapping[str, Any] = field(default_factory=dict)

    def loads(self, case: Case) -> dict[str, Loads]:
        """By phase: what a kind of layer is timed at; nothing where no kernel takes it."""
        if case.kernel is None:
            return {}
        if case.kind == "linear":
            return {"decode": _STATES[: self.num_loads]}
        if case.kind in ("encoder", "sparse"):
            return {"prefill": _ENCODER[: self.num_loads] if case.kind == "encoder" else _PREFILL[: self.num_loads]}
        decode = _DECODE[: self.num_loads]
        if case.is_latent:  # a token is a tenth of others': as many bytes take more of them
            decode = [(4 * batch, tokens) for batch, tokens in decode]
        if case.kind in ("cross", "chunked"):  # a chunk's prefill is not timed: the suite knows no such pattern
            return {"decode": decode}
        return {"decode": decode, "prefill": _PREFILL[: min(self.num_loads, len(_PREFILL))]}


LEVELS = {
    level.name: level
    for level in (
        Level(
            name="quick",
            host_bytes=512 * MIB,
            device_share=0.25,
            num_loads=10,
            shapes=((1, 2048, 2048), (8, 1, 4096)),
            host_shapes=((1, 128, 128),),
            minutes=2,
            job_seconds=150,
            effort={"rounds": 5, "max_seconds": 0.3, "max_replay_seconds": 0.05},
        ),
        Level(
            name="standard",
            host_bytes=2 * GIB,
            device_share=0.5,
            num_loads=12,
            shapes=((1, 2048, 2048), (4, 1024, 1024), (8, 1, 4096)),
            host_shapes=((1, 256, 256), (2, 128, 128), (4, 1, 512)),
            minutes=15,
            job_seconds=240,
            effort={"rounds": 8, "max_seconds": 1.0, "max_replay_seconds": 0.1},
        ),
        Level(
            name="full",
            host_bytes=6 * GIB,
            device_share=0.85,
            num_loads=16,
            shapes=((1, 1024, 1024), (1, 4096, 4096), (4, 1024, 1024), (8, 1, 4096), (32, 1, 8192)),
            host_shapes=((1, 256, 256), (1, 512, 512), (2, 128, 128), (4, 1, 512), (1, 1, 2048)),
            minutes=60,
            job_seconds=600,
            effort={"rounds": 8, "max_seconds": 0.6, "max_replay_seconds": 0.05},
        ),
    )
}
