"""llama.cpp's context: cells, keys and values, states, buffers on each device; all of it follows from flags alone."""

from dataclasses import replace
from typing import Literal

from kvplan.core.engines.llamacpp.budget import COMPUTE_REST, computed
from kvplan.core.engines.llamacpp.cells import Cells
from kvplan.core.engines.llamacpp.devices import HOST, context_cells, placed, shares_of, split_of
from kvplan.core.engines.llamacpp.memory import Held
from kvplan.core.layout import stage_weights
from kvplan.core.measured import Basis
from kvplan.core.units import format_bytes
from kvplan.runtime.explain.account import Case
from kvplan.runtime.explain.answer import Row, around, exactly, make_row
from kvplan.runtime.explain.llamacpp_build import build_of
from kvplan.runtime.explain.observed import amount, number, total
from kvplan.runtime.observation import Figure, Observation

_HOST_NAMES = ("CPU", "CUDA_Host", "ROCm_Host", "Vulkan_Host", "SYCL_Host", "BLAS", "Host")


def llamacpp_rows(case: Case) -> list[Row]:
    """Weights, cells, keys and values, states, what it computes with."""
    context = _context(case)
    holds = placed(case.model, case.serving.deployment)
    kept = [(device, held, count) for device, found in holds.items() for held, count in found.items()]
    rows = [
        *_model_buffer(case),
        *_cells(case, context, kept),
        *_caches(case, context, kept),
        *_together(case, context, kept),
        *_estimate(case, context, kept),
    ]
    return rows + _on_devices(case, context, holds) + _compute(case, context)


def _context(case: Case) -> Cells:
    """The context that was made; the n_ctx of older builds is what they say, and no multiple of 256."""
    context = context_cells(case.model, case.serving.deployment, case.serving.seq_len)
    if build_of(case.observation, case.model).is_old and context.n_stream == 1:
        return replace(context, n_ctx_seq=case.serving.seq_len)
    return context


_Judged = tuple[Basis, Literal["exact"] | None, str]
"""(what a prediction rests on, whether it is judged, why not)."""


def _judged(case: Case) -> _Judged:
    """What the bytes of a cache rest on: nothing is judged that the log leaves open."""
    if not build_of(case.observation, case.model).settled:
        return "assumed", None, "neither the build nor the sizes say whether latents are expanded"
    if _is_ollamas(case) and any(held.window is not None for holds in _holds(case) for held in holds):
        return "assumed", None, "Ollama's own engine gives windows room by rules of its own"
    return "exact", "exact", ""


_NO_LENGTH = "the log does not say how long the context is"


def _length_is_told(case: Case) -> bool:
    """By the log, or by who asks: without it no cache can be predicted."""
    told = "max_model_len" in case.observation.options or "cells" in case.observation.figures
    return told or case.serving.seq_len != case.model.max_seq_len


def _is_ollamas(case: Case) -> bool:
    """Whether the figures are those of Ollama's own engine, which has no other caches than llama.cpp but one sum."""
    return "ollama_engine" in case.observation.facts and "n_ctx" not in case.observation.facts


def _holds(case: Case) -> list[dict[Held, int]]:
    return list(placed(case.model, case.serving.deployment).values())


def read_rows(observation: Observation) -> list[Row]:
    """What the log says of its memory, where there is no model to predict it by."""
    rows = []
    for section, name, keys in _READ:
        seen = next((found for key in keys if (found := total(observation, key)) is not None), None)
        if seen is not None:
            rows.append(make_row(section, name, seen, None))
    for key, name, unit in (("cells", "cells", "cells"), ("cache_layers", "layers with keys and values", "layers")):
        count = number(observation, key)
        if count is not None:
            rows.append(make_row("given", name, count, None, unit=unit))
    return rows


_READ: tuple[tuple[Literal["account", "given"], str, tuple[str, ...]], ...] = (
    ("account", "model buffers", ("model_buffer", "expected_weights")),
    ("account", "compute buffers", ("compute_buffer",)),
    ("account", "output buffer", ("output_buffer",)),
    ("given", "keys and values", ("kv_cache", "kv_buffer")),
    ("given", "sliding keys and values", ("swa_kv_cache", "swa_kv_buffer")),
    ("given", "states", ("recurrent_cache", "state_buffer")),
    ("given", "all caches", ("context_buffer",)),
    ("given", "keys and values, expected", ("expected_kv_cache",)),
)
"""(section, name, the figures that say it, the first that the log has)."""


def read_note(observation: Observation) -> list[str]:
    """The numbers of the file that the log prints."""
    told = {name: text for name, text in observation.facts.items() if name.startswith("n_") and name not in _SETTINGS}
    arch = observation.facts.get("architecture")
    words = [*([f"architecture {arch}"] if arch else []), *(f"{name} {text}" for name, text in told.items())]
    return [f"of its file the log says {', '.join(words)}"] if words else []


_SETTINGS = ("n_ctx", "n_ctx_seq", "n_ctx_slot", "n_seq_max")


def _is_host(figure: Figure) -> bool:
    return bool(figure.rank) and str(figure.rank).startswith(_HOST_NAMES)


def _model_buffer(case: Case) -> list[Row]:
    """Weights of all devices: a file's own where it was read, else there is nothing to set beside them."""
    seen = total(case.observation, "model_buffer")
    if seen is None:
        return []
    if case.model.source.kind != "gguf":
        why = f"`{case.model.id}` was not read from the GGUF file, whose tensors have types of their own"
        return [make_row("account", "model buffers", seen, None, why=why)]
    predicted = sum(stage_weights(case.model, case.serving))
    why = "the token table is held once more where it is the output, too"
    return [make_row("account", "model buffers", seen, around(predicted, predicted // 50), basis="derived", why=why)]


def _cells(case: Case, context: Cells, kept: list[tuple[int, Held, int]]) -> list[Row]:
    rows = []
    windows = [held for _, held, _ in kept if held.window is not None]
    sliding = context.sliding(windows[0].window or 0) if windows else None
    for key, name, predicted in (("cells", "cells", context.n_ctx_seq), ("swa_cells", "sliding cells", sliding)):
        seen = number(case.observation, key)
        if seen is not None and predicted is not None:
            why = "min(n_ctx, window · sequences + n_ubatch) in 256s" if key == "swa_cells" else "n_ctx in 256s"
            rows.append(make_row(
                "given", name, seen, exactly(predicted), unit="cells", basis="exact", judged="exact", why=why
            ))  # fmt: skip
    for key, cache in (("cache_layers", "keys and values"), ("swa_layers", "sliding keys and values")):
        seen = number(case.observation, key)
        count = sum(n for _, held, n in kept if _cache_of(held, in_one=_is_one_cache(case)) == cache)
        if seen is not None and not any(held.kind == "indexer" for _, held, _ in kept):
            name = f"layers with {cache}"
            rows.append(make_row(
                "given", name, seen, exactly(count), unit="layers", basis="exact", judged="exact"
            ))  # fmt: skip
    return rows


def _caches(case: Case, context: Cells, kept: list[tuple[int, Held, int]]) -> list[Row]:
    """Keys and values of all devices, and states: bytes by kind of cache."""
    rows = []
    basis, judged, open_ = _judged(case)
    in_one = _is_one_cache(case)
    for key, buffers, name in (
        ("kv_cache", "kv_buffer", "keys and values"),
        ("swa_kv_cache", "swa_kv_buffer", "sliding keys and values"),
        ("recurrent_cache", "state_buffer", "states"),
    ):
        seen = number(case.observation, key) or total(case.observation, buffers)
        groups = [(held, count) for _, held, count in kept if _cache_of(held, in_one=in_one) == name]
        if seen is None or not groups:
            continue
        predicted = sum(count * held.bytes_for(context) for held, count in groups)
        layers = sum(count for _, count in groups)
        each = groups[0][0].bytes_per_cell
        why = f"{layers} layers, {each:,} bytes a cell" if each else f"{layers} layers, F32"
        why = f"{why}; {open_}" if open_ else why
        if _length_is_told(case):
            row = make_row("given", name, seen, exactly(predicted), basis=basis, judged=judged, why=why)
        else:
            row = make_row("given", name, seen, None, why=_NO_LENGTH)
        rows.append(row)
    return rows


def _is_one_cache(case: Case) -> bool:
    """Whether sliding layers lie in the cache of the others: builds that knew no other, without one of their own."""
    told = case.observation.figures.keys() & {"swa_cells", "swa_kv_cache", "swa_kv_buffer"}
    return (bool(case.serving.switches.swa_full) or _is_ollamas(case)) and not told


def _together(case: Case, context: Cells, kept: list[tuple[int, Held, int]]) -> list[Row]:
    """All caches of all devices in one figure, where the log tells no more."""
    seen = total(case.observation, "context_buffer")
    if seen is None or case.observation.figures.keys() & {"kv_cache", "kv_buffer", "recurrent_cache", "state_buffer"}:
        return []
    predicted = exactly(sum(count * held.bytes_for(context) for _, held, count in kept))
    if not _length_is_told(case):
        return [make_row("given", "all caches", seen, None, why=_NO_LENGTH)]
    planned = case.observation.facts.get("breakdown") == "planned"
    table = "the plan before the load" if planned else "the table at the end"
    basis, judged, open_ = _judged(case)
    if planned and "kv_dtype" not in case.observation.options:
        basis, judged, open_ = "assumed", None, "the log does not say the cache's format"
    why = f"keys, values and states, from {table}" + (f"; {open_}" if open_ else "")
    return [make_row("given", "all caches", seen, predicted, basis=basis, judged=judged, why=why)]


def _estimate(case: Case, context: Cells, kept: list[tuple[int, Held, int]]) -> list[Row]:
    """Keys and values as Ollama expects them before it loads, by a formula of its own.

    Source: Ollama 0.5, fs/ggml/ggml.go `GraphSize`: n_ctx · layers · (keys + values) of a token
    """
    seen = number(case.observation, "expected_kv_cache")
    if seen is None or "max_model_len" not in case.observation.options:
        return []
    if any(held.kind not in ("full", "sliding") for _, held, _ in kept):
        return []
    predicted = exactly(sum(count * held.bytes_for(context) for _, held, count in kept))
    why = "what Ollama expected before the load, by a formula of its own"
    return [make_row("given", "keys and values, expected", seen, predicted, basis="derived", why=why)]


def _cache_of(held: Held, *, in_one: bool = False) -> str:
    """Which of the context's caches it lies in."""
    if not held.bytes_per_cell:
        return "states"
    if held.kind == "indexer":
        return "indexer"
    return "keys and values" if held.window is None or in_one else "sliding keys and values"


def _on_devices(case: Case, context: Cells, holds: dict[int, dict[Held, int]]) -> list[Row]:
    """Keys and values on each device, where there are several."""
    rows = []
    for key, name in (("kv_buffer", "keys and values"), ("swa_kv_buffer", "sliding keys and values")):
        figures = case.observation.figures.get(key, ())
        devices = [figure for figure in figures if not _is_host(figure)]
        if len(figures) < 2 or len(devices) > len(holds) - 1:
            continue
        for index, figure in [*enumerate(devices), *((HOST, f) for f in figures if _is_host(f))]:
            found = holds.get(index, {})
            predicted = sum(
                count * held.bytes_for(context)
                for held, count in found.items()
                if _cache_of(held, in_one=_is_one_cache(case)) == name
            )
            why = "layers are dealt out by what is free of each device" if len(devices) > 1 else ""
            if case.serving.switches.num_gpu_layers is None and any(map(_is_host, figures)):
                rows.append(make_row(
                    "given", name, amount(figure), None, rank=figure.rank, why="the log does not say how many layers"
                ))  # fmt: skip
                continue
            rows.append(make_row(
                "given", name, amount(figure), exactly(predicted), basis="derived", rank=figure.rank, why=why
            ))  # fmt: skip
    return rows


def _compute(case: Case, context: Cells) -> list[Row]:
    """The compute buffer of the device with the output, and the logits; no GPU needs to be known for them."""
    figures = case.observation.figures.get("compute_buffer", ())
    devices = [figure for figure in figures if not _is_host(figure)]
    rows = []
    if devices:
        largest = max(devices, key=lambda figure: figure.value)
        deployment = case.serving.deployment
        has_output = split_of(case.model, deployment).output == len(shares_of(deployment)) - 1
        taken = computed(case.model, deployment, context, has_output=has_output)
        num_bytes = sum(item.num_bytes for item in taken if item.name.startswith("compute buffer"))
        other = _computes_otherwise(case)
        predicted = None if other else around(num_bytes, COMPUTE_REST.spread_bytes)
        why = other or "no closed form: logits or mask of one micro-batch, and what logs show on top"
        rows.append(make_row(
            "account", "compute buffer", amount(largest), predicted, basis="calibrated", rank=largest.rank, why=why
        ))  # fmt: skip
    return rows + _output(case)


def _computes_otherwise(case: Case) -> str:
    """Why the buffer cannot be predicted: its length, or who computes in ways of its own; "" where it can."""
    if not _length_is_told(case):
        return _NO_LENGTH
    if "latent_cache" in case.observation.options:
        return "ik_llama.cpp computes latent attention in ways of its own"
    if _is_ollamas(case):
        return "Ollama's own engine computes in ways of its own"
    return ""


def _output(case: Case) -> list[Row]:
    """Logits: a row a sequence, and where embeddings are asked for as well (Ollama does), a hidden state.

    llama-server kept one sequence more for a system prompt until b3912 (#9857, 2024-10-12), which no log of slots says.
    """
    seen = number(case.observation, "output_buffer")
    if seen is None:
        return []
    logits, hidden = case.model.vocab_size * 4, case.model.hidden_size * 4
    stated, is_old = case.serving.switches.max_num_seqs, build_of(case.observation, case.model).is_old
    if is_old and stated is None:
        why = f"a row of {format_bytes(logits)} a sequence, and the log does not say how many there are"
        return [make_row("account", "output buffer", seen, None, why=why)]
    rows = stated or 1
    most = rows + 1 if is_old and "n_seq_max" not in case.observation.facts else rows
    bounds = (rows * logits, rows * logits, most * (logits + hidden))
    why = "one row of logits a sequence; where embeddings are on, a hidden state more"
    if most > rows:
        why += "; before October 2024 one row more for a system prompt"
    return [make_row("account", "output buffer", seen, bounds, basis="derived", why=why)]
