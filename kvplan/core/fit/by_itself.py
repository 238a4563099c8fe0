"""What an engine makes of a start that does not fit as it stands.

SGLang starts with any pool, and takes requests no longer than it (managers/tp_worker.py, `max_req_len`). llama.cpp's
`--fit`, on by default, shortens the context, then leaves layers with the CPU:

    1. nothing is changed where `--fit-target`, 1024 MiB, of every device stay free
    2. without `-c` the context is shortened, to `--fit-ctx`, 4096 tokens, at least
    3. without `-ngl` and `-ts` what does not fit stays with the CPU: experts first, then whole layers

Source: llama.cpp b11434, common/fit.cpp `common_params_fit_impl`. It shares out parts of layers, too, which is finer.
"""

from dataclasses import dataclass, replace

from kvplan.core.boot import overhang
from kvplan.core.device import visible_bytes
from kvplan.core.fit.search import first_true, longest
from kvplan.core.fit.trial import Case
from kvplan.core.layout import as_loaded
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving

SHORTEST = 4096
_CELLS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ByItself:
    """What an engine may change by itself, and how far."""

    length: bool = False
    layers: bool = False
    free_bytes: int = 0
    """What stays free of each device."""
    shortest: int = SHORTEST
    step: int = _CELLS
    """The context is a multiple of it."""
    how: str = "`--fit` shortens the context to {:,} tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """What was changed, and in words."""

    length: int
    """Tokens of one request."""
    switches: dict[str, int]
    note: str


def lowered(model: ModelSpec, serving: Serving, length: int, requests: int, may: ByItself) -> Lowered | None:
    """The settings with which `requests` of `length` are held in the place of `serving`; None where none are.

    None, too, where nothing has to be changed.
    """
    gpu = serving.gpu
    if gpu is None or not (may.length or may.layers) or visible_bytes(gpu) <= may.free_bytes:
        return None
    rest = replace(gpu, visible_bytes=visible_bytes(gpu) - may.free_bytes)
    case = Case(model=as_loaded(model, serving.engine), serving=replace(serving, gpu=rest), hold_limit=True)
    asked = case.at(length)
    if asked.concurrency >= requests or any(overhang(account) for account in asked.boot.accounts):
        return None  # what finds no room outside the share is not asked for before it is wanted
    if not may.length:
        return _on_the_cpu(case, length, requests)
    streams = 1 if serving.switches.kv_unified else requests
    least = min(length, may.shortest * streams // requests)
    found = longest(case, requests)
    cells = 0 if found is None else found.length * requests // may.step * may.step
    if cells >= least * requests:
        return Lowered(length=cells // requests, switches={}, note=may.how.format(cells))
    left = _on_the_cpu(case, least, requests) if may.layers else None
    if left is None or least == length:
        return left
    return replace(left, note=f"{left.note}, and shortens the context to {least * requests:,} tokens")


def _on_the_cpu(case: Case, length: int, requests: int) -> Lowered | None:
    count, held = case.model.num_layers, case.serving.switches

    def holds(**switches: int) -> bool:
        told = replace(case.serving, switches=replace(held, **switches))  # type: ignore[arg-type]
        return replace(case, serving=told).at(length).concurrency >= requests

    if case.model.has_experts:
        kept = first_true(1, count, lambda layers: holds(num_cpu_moe_layers=layers))
        if kept is not None:
            note = f"`--fit` leaves the experts of about {kept} of {count} layers with the CPU: slower"
            return Lowered(length=length, switches={"num_cpu_moe_layers": kept}, note=note)
    kept = first_true(1, count, lambda layers: holds(num_gpu_layers=count + 1 - layers))
    if kept is None:
        return None
    note = f"`--fit` leaves about {kept} of {count} layers with the CPU: slower"
    return Lowered(length=length, switches={"num_gpu_layers": count + 1 - kept}, note=note)
