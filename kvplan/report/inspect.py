"""A model as it was read: its layers and their order, parameters by part, and where each fact came from."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from kvplan._version import __version__
from kvplan.core.cache import caches_of
from kvplan.core.dtypes import BF16
from kvplan.core.mixers import (
    FullAttention,
    LatentAttention,
    LinearAttention,
    Mixer,
    SharedAttention,
    ShortConvolution,
    window_of,
)
from kvplan.core.model import DEFAULTS_FROM, OWN_DEFAULT, Layer, ModelSpec, Weight
from kvplan.core.text import printable
from kvplan.core.units import format_count
from kvplan.core.weights import active_parameters, draft_parameters, num_parameters, sizes_by_part, stored_formats
from kvplan.report.data import plain
from kvplan.report.estimate import model_title, source_line
from kvplan.report.page import Line, Page, Table, percent, plural

MAX_NAMED = 6
"""How many of the facts that a class fills in are named above the table of all facts."""
MAX_PERIOD = 64
"""The longest pattern of layers that is looked for."""


def inspect_document(model: ModelSpec) -> dict[str, Any]:
    """The model for programs: schema `kvplan/inspect/1`."""
    source = model.source
    parts = sizes_by_part(model, model.dtype or BF16, None)
    return {
        "schema": "kvplan/inspect/1",
        "kvplan_version": __version__,
        "id": model.id,
        "source": source.kind,
        "location": source.location,
        "revision": source.revision,
        "notes": list(source.notes),
        "model_type": model.model_type,
        "architecture": model.architecture,
        "dtype": model.dtype.name if model.dtype else None,
        "quantization": _quantization_document(model),
        "hidden_size": model.hidden_size,
        "vocab_size": model.vocab_size,
        "max_seq_len": model.max_seq_len,
        "tied_embeddings": model.tied_embeddings,
        "num_parameters": num_parameters(model),
        "active_parameters": active_parameters(model),
        "stored_bytes": model.stored_weight_bytes,
        "parameters_by_part": {part: size.parameters for part, size in parts.items()},
        "num_layers": model.num_layers,
        "layers_in_words": layers_in_words(model),
        "layer_order": list(model.layer_order),
        "layers": [_layer_document(model, layer, count) for layer, count in model.layer_counts()],
        "embeddings": [_weight_document(weight) for weight in model.embeddings],
        "head": [_weight_document(weight) for weight in model.head],
        "draft": _draft_document(model),
        "facts": [{"key": fact.key, "value": plain(fact.value), "origin": fact.origin} for fact in model.facts],
    }


def inspect_page(model: ModelSpec, *, tensors: bool = False) -> Page:
    """The model for people; `tensors` adds the weights of each distinct layer."""
    tables = [_layers(model), _parts(model)]
    if tensors:
        tables += _tensors(model)
    return Page(
        title=model_title(model, num_parameters(model), active_parameters(model)),
        lines=(
            Line(layers_in_words(model)),
            Line(source_line(model), "faint"),
            Line(_sizes_line(model), "faint"),
            *(Line(line, "faint") for line in (*_draft_lines(model), *_default_lines(model))),
        ),
        tables=(*tables, _facts(model)),
    )


def layers_in_words(model: ModelSpec) -> str:
    """The layers as a person would say it: `10 full + 52 sliding (W = 1,024), 16 KV heads × 128`."""
    counts: dict[tuple[str, str], int] = {}
    for layer, count in model.layer_counts():
        kinds = " and ".join(_kind_in_words(mixer) for mixer in layer.mixers) or "without attention"
        heads = ", ".join(dict.fromkeys(filter(None, map(_heads_in_words, layer.mixers))))
        counts[kinds, heads] = counts.get((kinds, heads), 0) + count
    every = {heads for _, heads in counts if heads}
    if len(every) <= 1:
        words = " + ".join(f"{count} {kinds}" for (kinds, _), count in counts.items())
        return ", ".join([words, *every])
    return " + ".join(f"{count} {kinds}" + (f", {heads}" if heads else "") for (kinds, heads), count in counts.items())


def _kind_in_words(mixer: Mixer) -> str:
    window = window_of(mixer)
    return mixer.kind if window is None else f"{mixer.kind} (W = {window:,})"


def _heads_in_words(mixer: Mixer) -> str:
    """What a token leaves in the cache, or what a sequence does."""
    if isinstance(mixer, ShortConvolution):
        return f"{mixer.channels:,} channels × {mixer.columns}"
    if isinstance(mixer, LinearAttention):
        return f"{plural(mixer.num_heads, 'state')} of {mixer.key_dim} × {mixer.value_dim}"
    if isinstance(mixer, LatentAttention):
        index = f" + {mixer.index_dim}" if mixer.index_dim else ""
        return f"{mixer.latent_dim} + {mixer.rope_dim}{index} for all heads"
    if isinstance(mixer, SharedAttention) or (isinstance(mixer, FullAttention) and not mixer.cached):
        return ""
    value = "" if mixer.key_dim == mixer.value_dim else f"/{mixer.value_dim}"
    return f"{plural(mixer.num_kv_heads, 'KV head')} × {mixer.key_dim}{value}"


def _default_lines(model: ModelSpec) -> list[str]:
    """The sizes that the config leaves to its class; switches that are off are left to the table of facts."""
    taken = [
        f"{fact.key} {fact.value:,}"
        for fact in model.facts
        if fact.origin in (DEFAULTS_FROM, OWN_DEFAULT) and type(fact.value) is int and fact.value > 1
    ]
    if not taken:
        return []
    more = f" and {len(taken) - MAX_NAMED} more" if len(taken) > MAX_NAMED else ""
    return [printable(f"left to the class: {', '.join(taken[:MAX_NAMED])}{more}", max_length=400)]


def layer_names(number: int) -> list[str]:
    """`A`, `B` … `Z`, `A1`, `B1` …: one name for each distinct layer."""
    return [f"{chr(ord('A') + i % 26)}{i // 26 or ''}" for i in range(number)]


def describe_order(order: Sequence[int], names: Sequence[str]) -> str:
    """The layers in order, repetitions folded: `10 × (5 × A, B), 2 × A`."""
    runs = _runs(order)
    words, start = [], 0
    while start < len(runs):
        period, times = _repetition(runs, start)
        body = ", ".join(_run_words(names[index], count) for index, count in runs[start : start + period])
        words.append(body if times == 1 else f"{times} × ({body})")
        start += period * times
    return ", ".join(words)


def describe_mixer(mixer: Mixer) -> str:
    """`sliding, 32 heads, 16 KV heads, window 1,024, dim 128`; `dim 192/128` where keys and values differ."""
    facts = asdict(mixer)
    key, value = facts.pop("key_dim", None), facts.pop("value_dim", None)
    counts = {"num_heads": "heads", "num_kv_heads": "KV heads", "num_key_heads": "key heads"}
    words = [_kind_with_recurrence(mixer)]
    for name, number in facts.items():
        if isinstance(number, bool) or not isinstance(number, int) or not number:
            continue
        plain_name = name.removesuffix("_dim").replace("_", " ")
        words.append(f"{number:,} {counts[name]}" if name in counts else f"{plain_name} {number:,}")
    if key is not None:
        words.append(f"dim {key:,}" if key == value else f"dim {key:,}/{value:,}")
    return ", ".join(words)


def _kind_with_recurrence(mixer: Mixer) -> str:
    """`linear (gated delta)` where it is known which recurrence a linear layer is."""
    if isinstance(mixer, LinearAttention) and mixer.recurrence is not None:
        return f"{mixer.kind} ({mixer.recurrence.replace('_', ' ')})"
    return mixer.kind


def cache_bytes_per_token(model: ModelSpec, layer: Layer) -> int:
    """What one layer's cache grows by with a token, in the checkpoint's dtype, while no window is full."""
    caches = (cache for _, cache in caches_of(layer, model.dtype or BF16))
    return sum(cache.spread_bytes_per_token for cache in caches if not cache.over_encoder)


def fixed_cache_bytes(model: ModelSpec, layer: Layer) -> int:
    """What one layer keeps of a sequence however long it is, in the checkpoint's dtype."""
    return sum(cache.fixed_bytes for _, cache in caches_of(layer, model.dtype or BF16, model_dtype=model.dtype or BF16))


def _runs(order: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for index in order:
        if runs and runs[-1][0] == index:
            runs[-1] = (index, runs[-1][1] + 1)
        else:
            runs.append((index, 1))
    return runs


def _repetition(runs: list[tuple[int, int]], start: int) -> tuple[int, int]:
    """(period, times) of the repetition from `start` that covers most runs; (1, 1) where there is none."""
    best = (1, 1)
    for period in range(2, min(MAX_PERIOD, (len(runs) - start) // 2) + 1):
        block, times = runs[start : start + period], 1
        while runs[start + times * period : start + (times + 1) * period] == block:
            times += 1
        if times > 1 and period * times > best[0] * best[1]:
            best = (period, times)
    return best


def _run_words(name: str, count: int) -> str:
    return name if count == 1 else f"{count} × {name}"


def _sizes_line(model: ModelSpec) -> str:
    dtype = model.dtype.name if model.dtype else "not stated"
    quantization = _quantization_words(model)
    words = [f"hidden {model.hidden_size:,}", f"vocabulary {model.vocab_size:,}", f"dtype {dtype}{quantization}"]
    if model.max_seq_len is not None:
        words.append(f"{model.max_seq_len:,} positions")
    words.append("output head tied to the embeddings" if model.tied_embeddings else "embeddings not tied")
    return ", ".join(words)


def _quantization_words(model: ModelSpec) -> str:
    quantization = model.quantization
    if quantization is None:
        return ""
    names = [name for name in stored_formats(model) if name != "plain"]
    words = ", ".join(names) if quantization.understood else "not modelled"
    return f" quantised by {printable(quantization.method)} ({words})"


def _quantization_document(model: ModelSpec) -> dict[str, Any] | None:
    quantization = model.quantization
    if quantization is None:
        return None
    formats = stored_formats(model) if quantization.understood else {}
    return {
        "method": quantization.method,
        "understood": quantization.understood,
        "exact": quantization.exact,
        "bits": quantization.bits,
        "kv_cache": quantization.kv_cache,
        "formats": [
            {"name": name, "parameters": size.parameters, "total_bytes": size.total_bytes}
            for name, size in formats.items()
        ],
    }


def _draft_lines(model: ModelSpec) -> list[str]:
    if model.draft is None:
        return []
    layers = plural(model.draft.num_layers, "layer")
    parameters = format_count(draft_parameters(model))
    return [f"beside it: {layers} for multi-token prediction, {parameters} parameters, not loaded by default"]


def _draft_document(model: ModelSpec) -> dict[str, Any] | None:
    """What is stored for multi-token prediction, in none of the other figures; null where nothing is known of it."""
    if model.draft is None:
        return None
    return {
        "num_layers": model.draft.num_layers,
        "num_parameters": draft_parameters(model),
        "cache_bytes_per_token": sum(cache_bytes_per_token(model, layer) for layer in model.draft.layers),
        "layers": [_layer_document(model, layer, 1) for layer in model.draft.layers],
        "shared": [_weight_document(weight) for weight in model.draft.shared],
    }


def _layers(model: ModelSpec) -> Table:
    """The distinct layers under the order they stand in; one row a mixer."""
    names = layer_names(len(model.layers))
    has_fixed = any(fixed_cache_bytes(model, layer) for layer in model.layers)
    rows = []
    for i, (name, layer) in enumerate(zip(names, model.layers, strict=True)):
        mixers = [describe_mixer(mixer) for mixer in layer.mixers] or ["none"]
        parameters = sum(weight.num_parameters for weight in layer.weights)
        per_token = cache_bytes_per_token(model, layer)
        count = str(model.layer_order.count(i))
        fixed = (f"{fixed_cache_bytes(model, layer):,}",) if has_fixed else ()
        rows.append((name, count, mixers[0], f"{parameters:,}", f"{per_token:,}", *fixed))
        rows += [("", "", f"and {mixer}", "", "", *([""] * has_fixed)) for mixer in mixers[1:]]
    return Table(
        title=f"Layers: {describe_order(model.layer_order, names)}",
        header=("", "count", "attention", "parameters", "bytes/token", *(["bytes/sequence"] * has_fixed)),
        align="lrlrr" + "r" * has_fixed,
        rows=tuple(rows),
    )


def _parts(model: ModelSpec) -> Table:
    sizes = sizes_by_part(model, model.dtype or BF16, None)
    whole = num_parameters(model)
    rows: list[tuple[str, ...]] = [
        (part, f"{size.parameters:,}", percent(size.parameters, whole), "") for part, size in sizes.items()
    ]
    bars = [size.parameters / whole if whole else 0.0 for size in sizes.values()]
    rows.append(("all", f"{whole:,}", "", ""))
    return Table(
        title="Parameters by part",
        header=("", "parameters", "share", ""),
        align="lrrl",
        rows=tuple(rows),
        bars=(*bars, 0.0),
    )


def _tensors(model: ModelSpec) -> list[Table]:
    names = layer_names(len(model.layers))
    groups: list[tuple[str, Iterable[Weight]]] = [("embeddings", model.embeddings)]
    groups += [(f"layer {name}", layer.weights) for name, layer in zip(names, model.layers, strict=True)]
    groups.append(("head", model.head))
    return [
        Table(
            title=f"Tensors: {group}",
            header=("name", "shape", "copies", "split over tp", "parameters"),
            align="llrlr",
            rows=tuple(_tensor_row(weight) for weight in weights),
        )
        for group, weights in groups
        if weights
    ]


def _tensor_row(weight: Weight) -> tuple[str, ...]:
    split = f"axis {weight.split.axis} in {weight.split.units:,}" if weight.split else "replicated"
    shape = " × ".join(f"{size:,}" for size in weight.shape)
    return (printable(weight.name), shape, f"{weight.copies:,}", split, f"{weight.num_parameters:,}")


def _facts(model: ModelSpec) -> Table:
    rows = tuple((printable(fact.key), _value(fact.value), printable(fact.origin)) for fact in model.facts)
    return Table(title="Facts", header=("key", "value", "from"), align="lll", rows=rows)


def _value(value: object) -> str:
    """A fact as JSON would write it, a long one cut short."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, tuple):
        return printable(", ".join(str(item) for item in value), max_length=48)
    return printable(str(value), max_length=48)


def _layer_document(model: ModelSpec, layer: Layer, count: int) -> dict[str, Any]:
    return {
        "count": count,
        "attention": [{"kind": mixer.kind, **asdict(mixer)} for mixer in layer.mixers],
        "in_encoder": layer.in_encoder,
        "fixed_bytes_per_sequence": fixed_cache_bytes(model, layer),
        "parameters": sum(weight.num_parameters for weight in layer.weights),
        "active_parameters": sum(weight.active_parameters for weight in layer.weights),
        "cache_bytes_per_token": cache_bytes_per_token(model, layer),
        "tensors": [_weight_document(weight) for weight in layer.weights],
    }


def _weight_document(weight: Weight) -> dict[str, Any]:
    split = None if weight.split is None else {"axis": weight.split.axis, "units": weight.split.units}
    return {
        "name": weight.name,
        "shape": list(weight.shape),
        "part": weight.part,
        "copies": weight.copies,
        "active_copies": weight.copies if weight.active_copies is None else weight.active_copies,
        "parameters": weight.num_parameters,
        "split": split,
    }
