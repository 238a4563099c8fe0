"""What llama.cpp prints while it loads: its tools, llama-server, the runners of Ollama.

To add a wording: a line in one of the tables, with the builds that word it so; a figure of a new name also in
`observation.FIGURES`. A figure's rank is the device that it lies on.

Sources: b11434 src/llama-context.cpp, llama-kv-cache.cpp, llama-kv-cache-iswa.cpp, llama-memory-recurrent.cpp,
llama-model.cpp, llama-model-loader.cpp; the prefixes of older builds (`llm_load_tensors`, `llama_kv_cache_init`,
`llama_kv_cache_unified`, `llama_new_context_with_model`) from b1600, b3800, b5100 and b6000. The messages of Ollama's
own scheduler are in `ollama_log`.
"""

import re

from kvplan.runtime.lines import Line
from kvplan.runtime.ollama_log import OLLAMA
from kvplan.runtime.wording import NUMBER, OUT_OF_MEMORY, Dialect, Start, Wording, fails, is_ready, wording

_BY = r"(?:llama_context|llama_new_context_with_model|llama_init_from_model): "
"""Who prints a context's settings: today, to b4500, between."""

_DRAFT = {"model_buffer": "draft_weights", "kv_cache": "draft_kv_cache"}
"""What is kept of a draft model, and under which name; the rest of what its load prints is not."""


def _is_draft(start: Start) -> bool:
    return ("draft", None) in start.marks


def _add(start: Start, name: str, text: str, unit: str, line: Line, rank: str | None = None) -> None:
    if _is_draft(start):
        if name not in _DRAFT:
            return
        name = _DRAFT[name]
    start.add(name, text, unit, line, rank=rank)


def _buffer(name: str, key: str, versions: str, *, pattern: str | None = None, before: str = "") -> Wording:
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
    if _is_draft(start):
        return
    if said.get("x_type_k"):
        _set_types(start, said["x_type_k"], said.get("x_type_v") or said["x_type_k"])
    if said.get("x_streams"):
        start.options.setdefault("max_num_seqs", int(said["x_seqs"]))
        start.options.setdefault("kv_unified", said["x_seqs"] != said["x_streams"])


def _set_types(start: Start, key_type: str, value_type: str) -> None:
    start.facts.setdefault("type_k", key_type)
    start.facts.setdefault("type_v", value_type)


def _read_types(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    if not _is_draft(start):
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


def _read_loader(start: Start, found: re.Match[str], line: Line) -> None:
    """A GGUF file is opened; the second of one start is the draft model's."""
    start.last_line = line.number
    if not _is_draft(start):
        start.model = found["x_path"]


def _read_draft(start: Start, found: re.Match[str], line: Line) -> None:
    del found, line
    start.marks.add(("draft", None))


def _read_context(start: Start, found: re.Match[str], line: Line) -> None:
    """A second context of one load is that of its multi-token prediction."""
    del found, line
    start.marks.discard(("sliding", None))
    if start.figures.keys() & {"cells", "kv_buffer", "kv_cache"}:
        start.marks.add(("draft", None))


_SETTINGS = {
    "n_seq_max": "max_num_seqs",
    "n_batch": "max_num_batched_tokens",
    "n_ubatch": "num_ubatch_tokens",
    "kv_unified": "kv_unified",
    "flash_attn": "flash_attention",
}


def _read_setting(start: Start, found: re.Match[str], line: Line) -> None:
    """One line of the context's settings: `llama_context: n_ctx = 8192`."""
    name, text = found["x_name"], found["x_value"]
    if _is_draft(start):
        return
    start.last_line = line.number
    if name in ("n_ctx", "n_ctx_seq", "n_ctx_per_seq"):
        start.facts["n_ctx" if name == "n_ctx" else "n_ctx_seq"] = text
    elif name in ("kv_unified", "flash_attn"):
        if text in ("true", "false", "0", "1", "enabled", "disabled"):
            start.options[_SETTINGS[name]] = text in ("true", "1", "enabled")
    elif text.isdigit():
        start.options[_SETTINGS[name]] = int(text)


def _read_flash(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    start.options["flash_attention"] = found["x_value"] == "enabled"


def _read_device(start: Start, found: re.Match[str], line: Line) -> None:
    device = found["x_device"]
    start.gpus[device] = found["x_gpu"].strip()
    start.num_gpus = len(start.gpus)
    if not _is_draft(start):
        start.add("device_free", found["x_free"], "MiB", line, rank=device)


def _read_total(start: Start, found: re.Match[str], line: Line) -> None:
    """Printed by ggml before anything is loaded; the number is that of the device."""
    start.gpus.setdefault(f"CUDA{found['x_index']}", found["x_gpu"].strip())
    start.num_gpus = len(start.gpus)
    if found["x_total"]:
        start.add("device_total", found["x_total"], "MiB", line, rank=f"CUDA{found['x_index']}")


def _read_layers(start: Start, found: re.Match[str], line: Line) -> None:
    if not _is_draft(start):
        start.add("gpu_layers", found["x_gpu_layers"], "layers", line)
        start.add("model_layers", found["x_all_layers"], "layers", line)
        start.options["num_gpu_layers"] = int(found["x_gpu_layers"])


def _read_build(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    start.version = start.version or f"b{found['x_build']}"


def _read_fact(start: Start, found: re.Match[str], line: Line) -> None:
    """What identifies the model."""
    del line
    names = {"arch": "architecture", "general.architecture": "architecture", "general.name": "name"}
    name = found["x_name"]
    if not _is_draft(start) and found["x_value"].strip():
        start.facts.setdefault(names.get(name, name.replace(" ", "_")), found["x_value"].strip())


_BEGINNINGS = (
    wording("build", r"\bbuild(?:_info)?: b?(?P<x_build>\d{3,6})\b", "b1600+", begins="banner", then=_read_build),
    wording("main: build =", r"main: build = (?P<x_build>\d{3,6})\b", "to b4000", begins="banner", then=_read_build),
    wording(
        "loaded meta data with",
        r"llama_model_loader: loaded meta data with \d+ key-value pairs and \d+ tensors from (?P<x_path>.+?) \(version",
        "b1100+",
        begins="load",
        then=_read_loader,
    ),
    wording("loading draft model", r"loading draft model", "llama-server", then=_read_draft),
    wording("constructing llama_context", r"llama_context: constructing llama_context", "b4600+", then=_read_context),
)

_DEVICES = (
    wording(
        "using device",
        rf"using device (?P<x_device>\w+) \((?P<x_gpu>[^()]+)\)(?: \([\w:.]+\))? - (?P<x_free>{NUMBER}) MiB free",
        "b4000+",
        then=_read_device,
    ),
    wording(
        ", compute capability",
        r"Device (?P<x_index>\d+): (?P<x_gpu>[^,]+), compute capability [\d.]+(?:, VMM: \w+)?"
        r"(?:.{0,80}?VRAM: (?P<x_total>\d+) MiB)?",
        "b1600+, CUDA",
        begins="banner",
        then=_read_total,
    ),
)

_MODEL = (
    wording(
        "general.",
        r"llama_model_loader: - kv +\d+: +(?P<x_name>general\.(?:architecture|name)) +str +=(?P<x_value>.*)",
        "b1100+",
        then=_read_fact,
    ),
    wording(
        "arch  ",
        r"(?:print_info|llm_load_print_meta): (?P<x_name>arch) +=(?P<x_value>.*)",
        "b1100+",
        then=_read_fact,
    ),
    wording(
        "print_info: file",
        r"print_info: (?P<x_name>file type|file size) +=(?P<x_value>.*)",
        "b4500+",
        then=_read_fact,
    ),
    wording(
        "layers to GPU",
        r"offloaded (?P<x_gpu_layers>\d+)/(?P<x_all_layers>\d+) layers to GPU",
        "b1100+",
        then=_read_layers,
    ),
    _buffer("model_buffer", "model buffer size", "b4500+"),
    _buffer("model_buffer", " buffer size", "b1600 to b3800", pattern="buffer size", before="llm_load_tensors: +"),
)

_CONTEXT = (
    wording(
        "n_ctx",
        rf"{_BY}"
        r"(?P<x_name>n_ctx|n_ctx_seq|n_ctx_per_seq) += (?P<x_value>\d+)",
        "b1100+",
        then=_read_setting,
    ),
    wording(
        "_seq_max ",
        rf"{_BY}(?P<x_name>n_seq_max) += (?P<x_value>\d+)",
        "b4000+",
        then=_read_setting,
    ),
    wording(
        "batch ",
        rf"{_BY}"
        r"(?P<x_name>n_batch|n_ubatch) += (?P<x_value>\d+)",
        "b2000+",
        then=_read_setting,
    ),
    wording(
        "flash_attn ",
        rf"{_BY}(?P<x_name>flash_attn) += (?P<x_value>\w+)",
        "b2700+",
        then=_read_setting,
    ),
    wording("kv_unified ", r"llama_context: (?P<x_name>kv_unified) += (?P<x_value>\w+)", "b5900+", then=_read_setting),
    wording(
        "Flash Attention was auto",
        r"Flash Attention was auto, set to (?P<x_value>enabled|disabled)",
        "b6300+",
        then=_read_flash,
    ),
)

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
        rf"(?:c\^KV \((?P<x_latent>\w+)\): +{NUMBER} MiB|K \((?P<x_type_k>\w+)\): +(?P<x_keys>{NUMBER}) MiB, "
        rf"V \((?P<x_type_v>\w+)\): +(?P<x_values>{NUMBER}) MiB)",
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
    _buffer("kv_buffer", "KV buffer size", "b1600+"),
    wording(
        "S (f",
        rf"llama_(?:memory|kv_cache)_recurrent: size = +(?P<x_size>{NUMBER}) MiB \( *(?P<x_cells>\d+) cells,[^)]*\), "
        rf"R \(\w+\): +(?P<x_conv>{NUMBER}) MiB, S \(\w+\): +(?P<x_state>{NUMBER}) MiB",
        "b5300+",
        then=_read_state,
    ),
    _buffer("state_buffer", "RS buffer size", "b6000+"),
    _buffer("compute_buffer", "compute buffer size", "b1600+"),
    _buffer("output_buffer", "output buffer size", "b2000+"),
)

_FAILURES = (
    wording(
        "failed to allocate",
        r"failed to allocate (?:buffer for kv cache|compute buffers|\w+ buffer)",
        "all",
        then=fails,
    ),
    wording("unable to allocate", r"unable to allocate \S+ buffer", "all", then=fails),
    wording("failed to initialize the context", r"failed to initialize the context", "all", then=fails),
)

_READY = (
    wording("server is listening on", r"server is listening on", "llama-server", then=is_ready),
    wording("llama runner started in", r"llama runner started in", "Ollama", then=is_ready),
)


def _carry(before: Start, start: Start) -> None:
    """Ollama says once, for all models that it loads, which version it is and which GPUs there are."""
    if "ollama" in before.facts:
        start.facts["ollama"] = before.facts["ollama"]
        start.gpus, start.num_gpus = dict(before.gpus), before.num_gpus
        start.figures = {name: list(before.figures[name]) for name in ("device_total",) if name in before.figures}


def _finish(start: Start) -> None:
    """`max_model_len` is `-c`, as in `core.engines.llamacpp`: the cells of all sequences together."""
    if start.facts.get("n_ctx", "").isdigit():
        start.options["max_model_len"] = int(start.facts["n_ctx"])
    types = [start.facts[name] for name in ("type_k", "type_v") if name in start.facts]
    if types:
        start.options["kv_dtype"] = types[0] if len(set(types)) == 1 else "/".join(types)


DIALECT = Dialect(
    engine="llamacpp",
    wordings=(
        *_BEGINNINGS,
        *_DEVICES,
        *_MODEL,
        *_CONTEXT,
        *_CACHE,
        *OLLAMA,
        *_FAILURES,
        *_READY,
        *OUT_OF_MEMORY,
    ),
    finish=_finish,
    carry=_carry,
    ranks_are_devices=True,
)
