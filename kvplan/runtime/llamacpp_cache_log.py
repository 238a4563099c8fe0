"""What llama.cpp prints of its caches and buffers; its tables of memory are in `llamacpp_tables_log`.

Sources as in `llamacpp_log`, whose dialect they are of.
"""

import re

from kvplan.runtime.lines import Line
from kvplan.runtime.wording import NUMBER, Start, Wording, wording

_DRAFT = {"model_buffer": "draft_weights", "kv_cache": "draft_kv_cache"}
"""What is kept of a draft model, and under which name; the rest of what its load prints is not."""


def is_draft(start: Start) -> bool:
    """Whether what is printed now is of the draft model."""
    return ("draft", None) in start.marks


def _add(start: Start, name: str, text: str, unit: str, line: Line, rank: str | None = None) -> None:
    if is_draft(start):
        if name not in _DRAFT:
            return
        name = _DRAFT[name]
    start.forget_passing(name)
    start.add(name, text, unit, line, rank=rank)


def buffer(name: str, key: str, versions: str, *, pattern: str | None = None, before: str = "") -> Wording:
    """A line about one device: `CUDA0 KV buffer size = 128.00 MiB`."""

    def read(start: Start, found: re.Match[str], line: Line) -> None:
        mine = f"swa_{name}" if name == "kv_buffer" and ("sliding", None) in start.marks else name
        _add(start, mine, found["x_size"], "MiB", line, rank=found["x_device"])

    device = r"(?P<x_device>[A-Za-z]\w*(?:-\w+)*(?:\[[^\]]*\])?) +"
    return wording(key, before + device + (pattern or key) + rf" += +(?P<x_size>{NUMBER}) MiB", versions, then=read)


def _read_cache(start: Start, found: re.Match[str], line: Line) -> None:
    """The cache as a whole: of the full layers, or of the sliding ones where the line before said so."""
    sliding = "swa_" if ("sliding", None) in start.marks else ""
    said = found.groupdict()
    _add(start, f"{sliding}kv_cache", said["x_size"], "MiB", line)
    for group, name, unit in (
        ("x_keys", "key_cache", "MiB"),
        ("x_values", "value_cache", "MiB"),
        ("x_cells", "cells", "cells"),
    ):
        if said.get(group):
            _add(start, sliding + name, said[group], unit, line)
    if said.get("x_layers"):
        _add(start, "swa_layers" if sliding else "cache_layers", said["x_layers"], "layers", line)
    if is_draft(start):
        return
    if said.get("x_latent"):
        _read_latent(start, said["x_latent"], said.get("x_transposed"))
    if said.get("x_type_k"):
        _set_types(start, said["x_type_k"], said.get("x_type_v") or said["x_type_k"])
    if said.get("x_streams"):
        start.options.setdefault("max_num_seqs", int(said["x_seqs"]))
        start.options.setdefault("kv_unified", said["x_seqs"] != said["x_streams"])


def _read_latent(start: Start, latent_type: str, transposed_type: str | None) -> None:
    """ik_llama.cpp keeps the latent, and with `-mla 1` its values transposed beside it, in a type of their own."""
    _set_types(start, latent_type, transposed_type or latent_type)
    start.options.setdefault("latent_cache", "with_values" if transposed_type else "alone")


def _set_types(start: Start, key_type: str, value_type: str) -> None:
    start.facts.setdefault("type_k", key_type)
    start.facts.setdefault("type_v", value_type)


def _read_types(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    if not is_draft(start):
        _set_types(start, found["x_type_k"], found["x_type_v"])


def _read_iswa(start: Start, found: re.Match[str], line: Line) -> None:
    """Two caches follow each other: that of the full layers, then that of the sliding ones."""
    sliding = found["x_which"] == "SWA"
    start.marks.discard(("sliding", None))
    if sliding:
        start.marks.add(("sliding", None))
    _add(start, "swa_cells" if sliding else "cells", found["x_cells"], "cells", line)


def _read_full_size(start: Start, found: re.Match[str], line: Line) -> None:
    del found, line
    start.options["swa_full"] = True


def _read_state(start: Start, found: re.Match[str], line: Line) -> None:
    for group, name, unit in (
        ("x_size", "recurrent_cache", "MiB"),
        ("x_cells", "state_slots", "seqs"),
        ("x_conv", "conv_cache", "MiB"),
        ("x_state", "state_cache", "MiB"),
    ):
        _add(start, name, found[group], unit, line)


_CACHE = (
    wording(
        "SWA KV cache, size",
        r"creating +(?P<x_which>SWA|non-SWA) KV cache, size = (?P<x_cells>\d+) cells",
        "b5430+",
        then=_read_iswa,
    ),
    wording("using full-size SWA cache", r"using full-size SWA cache", "b5430+", then=_read_full_size),
    wording(
        "KV self size",
        rf"KV self size += +(?P<x_size>{NUMBER}) MiB, "
        rf"(?:c\^KV \((?P<x_latent>\w+)\): +{NUMBER} MiB(?:, kv\^T \((?P<x_transposed>\w+)\))?"
        rf"|K \((?P<x_type_k>\w+)\): +(?P<x_keys>{NUMBER}) MiB, V \((?P<x_type_v>\w+)\): +(?P<x_values>{NUMBER}) MiB)",
        "b1600 to b5100; c^KV in ik_llama.cpp",
        then=_read_cache,
    ),
    wording(
        " cells,",
        rf"llama_kv_cache\w*: size = +(?P<x_size>{NUMBER}) MiB \( *(?P<x_cells>\d+) cells, +(?P<x_layers>\d+) layers, "
        rf"(?: *(?P<x_seqs>\d+)/(?P<x_streams>\d+) seqs)?[^)]*\)"
        rf"(?:, K \((?P<x_type_k>\w+)\): +(?P<x_keys>{NUMBER}) MiB)?"
        rf"(?:, V \((?P<x_type_v>\w+)\): +(?P<x_values>{NUMBER}) MiB)?",
        "b5100+",
        then=_read_cache,
    ),
    wording(
        "type_k = ",
        r"kv_size = \d+, .{0,60}?type_k = '(?P<x_type_k>\w+)', type_v = '(?P<x_type_v>\w+)'",
        "b4500 to b5300",
        then=_read_types,
    ),
    buffer("kv_buffer", "KV buffer size", "b1600+"),
    wording(
        "S (f",
        rf"llama_(?:memory|kv_cache)_recurrent: size = +(?P<x_size>{NUMBER}) MiB \( *(?P<x_cells>\d+) cells,[^)]*\), "
        rf"R \(\w+\): +(?P<x_conv>{NUMBER}) MiB, S \(\w+\): +(?P<x_state>{NUMBER}) MiB",
        "b5300+",
        then=_read_state,
    ),
    buffer("state_buffer", "RS buffer size", "b6000+"),
    buffer("compute_buffer", "compute buffer size", "b1600+"),
    buffer("output_buffer", "output buffer size", "b2000+"),
)

CACHES = (
    *_CACHE,
    wording(
        "kv self size ",
        r"kv self size += +(?P<x_size>[\d.,]+) Mi?B",
        "to b1600: 2^20 bytes, whatever the unit is called",
        then=_read_cache,
    ),
)
"""Figures of all builds."""
