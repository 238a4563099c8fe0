"""What of llama.cpp depends on the build: as the log itself shows it, else by its number or its wording.

    latents         with values since #12801 (2025-04-15), alone since #19067 (2026-01-25), else expanded
    layers          the output first since #18148 (2025-12-18)
    windows         honoured since #13194 (2025-05-20), whole before
    sequences       share one buffer before #14363 (2025-07-16)

Between two builds of known dates a number decides nothing: `settled` says so, and what rests on it is not judged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvplan.core.dtypes import DType, parse_kv_dtypes
from kvplan.core.engines.llamacpp.architectures import EXPANDED, LATENT_CACHES, WINDOWED, architecture_of
from kvplan.core.engines.versions import release
from kvplan.core.errors import InputError
from kvplan.core.mixers import LatentAttention
from kvplan.core.model import ModelSpec
from kvplan.runtime.explain.observed import number
from kvplan.runtime.observation import Observation

SMALLEST = 1000
"""Numbers below are a fork's own count."""
_LATENTS_FROM = (5033, 5200)
"""(A build of 2025-04-03, one of the end of that month): latents with values between them."""
_ALONE_FROM = (7710, 7917)
"""(2026-01-11, 2026-02-02)."""
_OUTPUT_FIRST_FROM = (7394, 7552)
"""(2025-12-14, 2025-12-29)."""
_WINDOWS_FROM, _STREAMS_FROM = 5430, 5900
_LIKE = 0.01
"""How far the printed share of values may lie off, for their rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What the log's build does otherwise than the one that kvplan was checked against."""

    switches: Mapping[str, Any] = field(default_factory=dict)
    """What goes without saying with it."""
    notes: tuple[str, ...] = ()
    settled: bool = True
    """Whether what it keeps of latents is known."""
    is_old: bool = False
    """From before March 2025, by its number or its words: n_ctx is what it says, not a multiple of 256."""


def build_of(observation: Observation, model: ModelSpec) -> Build:
    """The build of a log, as far as it bears on this model's cache."""
    count, worded = _number(observation), "worded_before" in observation.facts
    is_old = worded or (count is not None and count < _LATENTS_FROM[0])
    switches: dict[str, Any] = {}
    notes: list[str] = []
    if worded and count is None and observation.version is None:
        before = observation.facts["worded_before"]
        notes.append(f"worded as builds before {before}, and ik_llama.cpp: planned by their rules where they differ")
    elif is_old:
        notes.append("planned by the rules of its time where kvplan knows that they differ")
    if is_old:
        switches["flash_attention"] = False
    if is_old or (count is not None and count <= _OUTPUT_FIRST_FROM[0]):
        switches["output_last"] = True
    if is_old or (count is not None and count < _STREAMS_FROM):
        switches["kv_unified"] = True
    windowless = is_old or (count is not None and count < _WINDOWS_FROM and "swa_cells" not in observation.figures)
    if windowless and architecture_of(model) in WINDOWED:
        switches["swa_full"] = True
        notes.append("builds before May 2025 honour no window: every layer holds all tokens")
    layout, settled = _layout(observation, model, count, is_old=is_old)
    if layout is not None:
        switches["latent_cache"] = layout
        notes += [] if layout == "alone" else [f"of latent attention it holds {LATENT_CACHES[layout]}"]
    return Build(switches=switches, notes=tuple(notes), settled=settled, is_old=is_old)


def _number(observation: Observation) -> int | None:
    """The build's number; None where a fork counts by itself, or nothing is said."""
    numbers = release(observation.version or "")
    return numbers[0] if len(numbers) == 1 and numbers[0] >= SMALLEST else None


def _layout(observation: Observation, model: ModelSpec, count: int | None, *, is_old: bool) -> tuple[str | None, bool]:
    """(one of `LATENT_CACHES`, whether that is known); None of a model that has no choice."""
    mixers = [m for layer in model.layers for m in layer.mixers if isinstance(m, LatentAttention) and m.latent_dim]
    if not mixers or architecture_of(model) in EXPANDED:
        return None, True
    stated = observation.options.get("latent_cache")
    seen = str(stated) if stated in LATENT_CACHES else _seen(observation, mixers[0])
    if seen is not None:
        return seen, True
    if is_old:
        return "expanded", True
    if count is None:
        return None, False
    if _LATENTS_FROM[1] <= count <= _ALONE_FROM[0]:
        return "with_values", False
    return None, count >= _ALONE_FROM[1]


def _seen(observation: Observation, mixer: LatentAttention) -> str | None:
    """By the keys and values that the log prints apart: values are 8/9 of the keys, 2/3, or none."""
    keys, values = number(observation, "key_cache"), number(observation, "value_cache")
    if keys is None or values is None or not keys[0]:
        return None
    key, value = _types(observation)
    width = mixer.latent_dim + mixer.rope_dim
    shares = {
        "alone": 0.0,
        "with_values": value.vector_bytes(mixer.latent_dim) / key.vector_bytes(width),
        "expanded": value.vector_bytes(mixer.num_heads * mixer.value_dim)
        / key.vector_bytes(mixer.num_heads * mixer.key_dim),
    }
    alike = [name for name, share in shares.items() if abs(values[0] / keys[0] - share) <= _LIKE]
    return alike[0] if len(alike) == 1 else None


def _types(observation: Observation) -> tuple[DType, DType]:
    try:
        key, value = parse_kv_dtypes(str(observation.options.get("kv_dtype") or "f16"))
    except InputError:
        key, value = parse_kv_dtypes("f16")
    return key, value
