"""llama.cpp's context: cells, keys and values, states, buffers on each device; all of it follows from flags alone."""

from kvplan.core.engines.llamacpp.budget import COMPUTE_REST, budget
from kvplan.core.engines.llamacpp.cells import Cells
from kvplan.core.engines.llamacpp.devices import HOST, context_cells, placed
from kvplan.core.engines.llamacpp.memory import Held
from kvplan.core.errors import KvplanError
from kvplan.core.layout import stage_weights
from kvplan.runtime.explain.account import Case
from kvplan.runtime.explain.answer import Row, around, exactly, make_row
from kvplan.runtime.explain.observed import amount, number, total
from kvplan.runtime.observation import Figure

_HOST_NAMES = ("CPU", "CUDA_Host", "ROCm_Host", "Vulkan_Host", "SYCL_Host", "BLAS", "Host")


def llamacpp_rows(case: Case) -> list[Row]:
    """Weights, cells, keys and values, states, what it computes with."""
    context = context_cells(case.model, case.serving.deployment, case.serving.seq_len)
    holds = placed(case.model, case.serving.deployment)
    kept = [(device, held, count) for device, found in holds.items() for held, count in found.items()]
    rows = [
        *_model_buffer(case),
        *_cells(case, context, kept),
        *_caches(case, context, kept),
        *_together(case, context, kept),
    ]
    return rows + _on_devices(case, context, holds) + _compute(case)


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
        count = sum(n for _, held, n in kept if _cache_of(held) == cache)
        if seen is not None and not any(held.kind == "indexer" for _, held, _ in kept):
            name = f"layers with {cache}"
            rows.append(make_row(
                "given", name, seen, exactly(count), unit="layers", basis="exact", judged="exact"
            ))  # fmt: skip
    return rows


def _caches(case: Case, context: Cells, kept: list[tuple[int, Held, int]]) -> list[Row]:
    """Keys and values of all devices, and states: bytes by kind of cache."""
    rows = []
    for key, buffers, name in (
        ("kv_cache", "kv_buffer", "keys and values"),
        ("swa_kv_cache", "swa_kv_buffer", "sliding keys and values"),
        ("recurrent_cache", "state_buffer", "states"),
    ):
        seen = number(case.observation, key) or total(case.observation, buffers)
        groups = [(held, count) for _, held, count in kept if _cache_of(held) == name]
        if seen is None or not groups:
            continue
        predicted = sum(count * held.bytes_for(context) for held, count in groups)
        layers = sum(count for _, count in groups)
        each = groups[0][0].bytes_per_cell
        why = f"{layers} layers, {each:,} bytes a cell" if each else f"{layers} layers, F32"
        rows.append(make_row("given", name, seen, exactly(predicted), basis="exact", judged="exact", why=why))
    return rows


def _together(case: Case, context: Cells, kept: list[tuple[int, Held, int]]) -> list[Row]:
    """All caches of all devices in one figure, where the log tells no more."""
    seen = total(case.observation, "context_buffer")
    if seen is None or case.observation.figures.keys() & {"kv_cache", "kv_buffer", "recurrent_cache", "state_buffer"}:
        return []
    predicted = exactly(sum(count * held.bytes_for(context) for _, held, count in kept))
    why = "keys, values and states, from the table at the end"
    return [make_row("given", "all caches", seen, predicted, basis="exact", judged="exact", why=why)]


def _cache_of(held: Held) -> str:
    """Which of the context's caches it lies in."""
    if not held.bytes_per_cell:
        return "states"
    if held.kind == "indexer":
        return "indexer"
    return "keys and values" if held.window is None else "sliding keys and values"


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
            predicted = sum(count * held.bytes_for(context) for held, count in found.items() if _cache_of(held) == name)
            why = "layers are dealt out by what is free of each device" if len(devices) > 1 else ""
            rows.append(make_row(
                "given", name, amount(figure), exactly(predicted), basis="derived", rank=figure.rank, why=why
            ))  # fmt: skip
    return rows


def _compute(case: Case) -> list[Row]:
    """The compute buffer of the device with the output, and the logits."""
    figures = case.observation.figures.get("compute_buffer", ())
    devices = [figure for figure in figures if not _is_host(figure)]
    rows = []
    try:
        weights = stage_weights(case.model, case.serving)
        accounts = budget(case.model, case.serving.deployment, weights) if case.serving.gpu else ()
    except KvplanError:
        accounts = ()
    if devices:
        largest = max(devices, key=lambda figure: figure.value)
        taken = [item for account in accounts[-1:] for item in account.taken]
        found = [item for item in taken if item.name.startswith("compute buffer")]
        predicted = around(sum(item.num_bytes for item in found), COMPUTE_REST.spread_bytes) if found else None
        rows.append(make_row(
            "account", "compute buffer", amount(largest), predicted, basis="calibrated", rank=largest.rank,
            why="no closed form: logits or mask of one micro-batch, and what logs show on top",
        ))  # fmt: skip
    return rows + _output(case)


def _output(case: Case) -> list[Row]:
    """Logits: a row a sequence, and where embeddings are asked for as well (Ollama does), a hidden state."""
    seen = number(case.observation, "output_buffer")
    if seen is None:
        return []
    sequences = case.serving.switches.max_num_seqs or 1
    logits, hidden = (sequences * width * 4 for width in (case.model.vocab_size, case.model.hidden_size))
    why = "one row of logits a sequence; where embeddings are on, a hidden state more"
    return [make_row("account", "output buffer", seen, (logits, logits, logits + hidden), basis="derived", why=why)]
