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
from kvplan.runtime.llamacpp_cache_log import CACHES, buffer, is_draft
from kvplan.runtime.llamacpp_tables_log import TABLES, keep_table
from kvplan.runtime.ollama_log import OLLAMA
from kvplan.runtime.wording import NUMBER, OUT_OF_MEMORY, Dialect, Start, fails, is_ready, wording

_BY = r"(?:llama_context|llama_new_context_with_model|llama_init_from_model|llama_model_load_internal): "
"""Who prints a context's settings: today, to b4500, between, to b1000."""
WORDED_BEFORE = "b4900"
"""The build from which on nothing is printed by the functions of `_OLD`: March 2025."""
_OLD = (
    r"(?:llama_kv_cache_init|llama_new_context_with_model|llama_init_from_model|llm_load_tensors"
    r"|llama_model_load_internal): "
)


def _read_loader(start: Start, found: re.Match[str], line: Line) -> None:
    """A GGUF file is opened; the second of one start is the draft model's."""
    start.last_line = line.number
    if not is_draft(start):
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
    if is_draft(start):
        return
    start.last_line = line.number
    if name in ("n_ctx", "n_ctx_seq", "n_ctx_per_seq"):
        start.facts["n_ctx" if name == "n_ctx" else "n_ctx_seq"] = text
    elif name in ("kv_unified", "flash_attn"):
        if text in ("true", "false", "0", "1", "enabled", "disabled"):
            start.options[_SETTINGS[name]] = text in ("true", "1", "enabled")
    elif text.isdigit():
        start.options[_SETTINGS[name]] = int(text)
        start.facts |= {name: text} if name == "n_seq_max" else {}


def _read_flash(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    start.options["flash_attention"] = found["x_value"] == "enabled"


def _read_device(start: Start, found: re.Match[str], line: Line) -> None:
    """A device that is used, or one that there is; what was free of it first counts."""
    device, said = found["x_device"], found.groupdict()
    start.gpus[device] = found["x_gpu"].strip()
    start.num_gpus = len(start.gpus)
    if said.get("x_total"):
        start.add("device_total", said["x_total"], "MiB", line, rank=device, weak=True)
    if not is_draft(start):
        start.add("device_free", found["x_free"], "MiB", line, rank=device, weak="x_total" in said)


def _read_file(start: Start, found: re.Match[str], line: Line) -> None:
    """The server names the file that it loads; newer ones print little else unless they are asked to."""
    if not is_draft(start):
        start.last_line = line.number
        start.model = found["x_path"]


def _read_slots(start: Start, found: re.Match[str], line: Line) -> None:
    """How many sequences the server works on at once, how long each may be, and whether they share the cells."""
    del line
    said = found.groupdict()
    if said.get("x_seqs"):
        start.options.setdefault("max_num_seqs", int(said["x_seqs"]))
    if said.get("x_unified"):
        start.options.setdefault("kv_unified", said["x_unified"] == "true")
    if said.get("x_slot"):
        start.facts.setdefault("n_ctx_slot", said["x_slot"])


def _read_total(start: Start, found: re.Match[str], line: Line) -> None:
    """Printed by ggml before anything is loaded; the number is that of the device."""
    start.gpus.setdefault(f"CUDA{found['x_index']}", found["x_gpu"].strip())
    start.num_gpus = len(start.gpus)
    if found["x_total"]:
        start.add("device_total", found["x_total"], "MiB", line, rank=f"CUDA{found['x_index']}")


def _read_layers(start: Start, found: re.Match[str], line: Line) -> None:
    if not is_draft(start):
        start.add("gpu_layers", found["x_gpu_layers"], "layers", line)
        start.add("model_layers", found["x_all_layers"], "layers", line)
        start.options["num_gpu_layers"] = int(found["x_gpu_layers"])


def _read_repeating(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    if not is_draft(start):
        start.facts["repeating_gpu_layers"] = found["x_layers"]


def _read_old(start: Start, found: re.Match[str], line: Line) -> None:
    """Words that newer builds do not use; ik_llama.cpp, whose caches are older ones, still does."""
    del found, line
    start.facts["worded_before"] = WORDED_BEFORE


def _read_build(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    start.version = start.version or f"b{found['x_build']}"


def _read_fact(start: Start, found: re.Match[str], line: Line) -> None:
    """What identifies the model."""
    del line
    names = {
        "arch": "architecture",
        "general.architecture": "architecture",
        "general.name": "name",
        "general.base_model.0.name": "base_model",
    }
    name = found["x_name"]
    if not is_draft(start) and found["x_value"].strip():
        start.facts.setdefault(names.get(name, name.replace(" ", "_")), found["x_value"].strip())


def _read_number(start: Start, found: re.Match[str], line: Line) -> None:
    """What llama.cpp read of the file's metadata, one number for all layers."""
    del line
    if not is_draft(start):
        start.facts.setdefault(f"n_{found['x_name']}", found["x_value"])


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
    wording(
        "loading model '", r"load_model: loading model '(?P<x_path>[^']+)'", "b2200+", begins="load", then=_read_file
    ),
    wording(
        "llama.cpp: loading model from",
        r"llama\.cpp: loading model from (?P<x_path>\S.*?)\s*$",
        "to b1100: files before GGUF",
        begins="load",
        then=_read_loader,
    ),
    wording("loading draft model", r"loading draft model", "llama-server", then=_read_draft),
    wording("constructing llama_context", r"llama_context: constructing llama_context", "b4600+", then=_read_context),
)

_DEVICES = (
    wording(
        "using device",
        rf"using device (?P<x_device>\w+) \((?P<x_gpu>.+?)\)(?: \([\w:.]+\))? - (?P<x_free>{NUMBER}) MiB free",
        "b4000+",
        then=_read_device,
    ),
    wording(
        " MiB free)",
        r"- (?P<x_device>(?!CPU)[A-Za-z]+\d+) +: (?P<x_gpu>.+?) \((?P<x_total>\d+) MiB, (?P<x_free>\d+) MiB free\)",
        "b8000+",
        begins="banner",
        then=_read_device,
    ),
    wording(
        "of device memory vs",
        r"projected to use <expected_total> MiB of (?:device|total) memory vs",
        "b7300+",
        units={"expected_total": "MiB"},
    ),
    wording(
        "n_parallel is set to auto",
        r"n_parallel is set to auto, using n_parallel = (?P<x_seqs>\d+) and kv_unified = (?P<x_unified>true|false)",
        "b7200+",
        then=_read_slots,
    ),
    wording(
        "n_slots = ",
        r"n_slots = (?P<x_seqs>\d+)(?:, n_ctx_slot = (?P<x_slot>\d+))?(?:, kv_unified = '(?P<x_unified>true|false)')?",
        "b1800+",
        then=_read_slots,
    ),
    wording("new slot", r"new slot,? n_ctx(?:_slot)? = (?P<x_slot>\d+)", "b1800+", then=_read_slots),
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
        r"llama_model_loader: - kv +\d+: +"
        r"(?P<x_name>general\.(?:architecture|name|base_model\.0\.name)) +str +=(?P<x_value>.*)",
        "b1100+",
        then=_read_fact,
    ),
    wording(
        "arch  ",
        r"(?:print_info|llm_load_print_meta): (?P<x_name>arch) +=(?P<x_value>.*)",
        "b1100+",
        then=_read_fact,
    ),
    *(
        wording(
            key,
            rf"{key}(?P<x_name>vocab|embd|layer|head|head_kv|swa|embd_head_k|embd_head_v|ff|expert|ctx_train)"
            r" += (?P<x_value>\d+)\s*$",
            versions,
            then=_read_number,
        )
        for key, versions in (("print_info: n_", "b4500+"), ("print_meta: n_", "to b4500"))
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
    wording(
        "repeating layers to GPU",
        r"offloading (?P<x_layers>\d+) repeating layers to GPU",
        "b1100+",
        then=_read_repeating,
    ),
    *(
        wording(key, rf"{_OLD}.{{0,40}}?{key}", "to b4900", then=_read_old)
        for key in ("buffer size", "n_ctx ", "KV self size", "kv self size ")
    ),
    buffer("model_buffer", "model buffer size", "b4500+"),
    buffer("model_buffer", " buffer size", "b1600 to b3800", pattern="buffer size", before="llm_load_tensors: +"),
)

_CONTEXT = (
    *(
        wording(name, rf"{_BY}(?P<x_name>{name.strip()}) += (?P<x_value>\d+)", versions, then=_read_setting)
        for name, versions in (("n_ctx ", "b1100+"), ("n_ctx_seq ", "b7000+"), ("n_ctx_per_seq ", "b4000 to b7000"))
    ),
    wording(
        "< n_ctx_train",
        r"(?P<x_name>n_ctx_seq|n_ctx_per_seq) \((?P<x_value>\d+)\) < n_ctx_train",
        "b4000+",
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

_FAILURES = (
    wording(
        "cudaMalloc failed",
        r"allocating [\d.,]+ MiB on device \d+: cudaMalloc failed: out of memory",
        "b1800+",
        then=fails,
    ),
    wording(
        "failed to allocate",
        r"failed to allocate (?:buffer for kv cache|compute buffers|\w+ buffer)",
        "all",
        then=fails,
    ),
    wording("error loading model", r"error loading model: \S.*", "b1100+", then=fails),
    wording("unable to allocate", r"unable to allocate \S+ buffer", "all", then=fails),
    wording("failed to initialize the context", r"failed to initialize the context", "all", then=fails),
)

_READY = (
    wording("server is listening on", r"server is listening on", "llama-server", then=is_ready),
    wording("llama runner started in", r"llama runner started in", "Ollama", then=is_ready),
    wording("llama-server started in", r"llama-server started in", "Ollama from 2026", then=is_ready),
)


def _carry(before: Start, start: Start) -> None:
    """Ollama says once, for all models that it loads, which version it is and which GPUs there are."""
    if "ollama" in before.facts:
        start.facts["ollama"] = before.facts["ollama"]
        start.gpus, start.num_gpus = dict(before.gpus), before.num_gpus
        start.figures = {name: list(before.figures[name]) for name in ("device_total",) if name in before.figures}


def _finish(start: Start) -> None:
    """`max_model_len` is `-c`, as in `core.engines.llamacpp`: the cells of all sequences together."""
    each = start.facts.get("n_ctx_seq") or start.facts.get("n_ctx_slot") or ""
    if start.facts.get("n_ctx", "").isdigit():
        start.options["max_model_len"] = int(start.facts["n_ctx"])
    elif each.isdigit() and "max_model_len" not in start.options:
        sequences = start.options.get("max_num_seqs", 1)
        shared = bool(start.options.get("kv_unified")) or not isinstance(sequences, int)
        start.options["max_model_len"] = int(each) if shared else int(each) * int(str(sequences))
    types = [start.facts[name] for name in ("type_k", "type_v") if name in start.facts]
    if types:
        start.options["kv_dtype"] = types[0] if len(set(types)) == 1 else "/".join(types)
    _finish_layers(start)
    keep_table(start)


def _finish_layers(start: Start) -> None:
    """Whether the output is one of the layers on the GPU, which the count of the repeating ones tells."""
    layers, repeating = start.options.get("num_gpu_layers"), start.facts.get("repeating_gpu_layers", "")
    whole = [int(figure.value) for figure in start.figures.get("model_layers", ())]
    if repeating.isdigit() and isinstance(layers, int) and 0 < layers < max(whole, default=0):
        start.options["output_last"] = int(repeating) == layers


DIALECT = Dialect(
    engine="llamacpp",
    wordings=(
        *_BEGINNINGS,
        *_DEVICES,
        *_MODEL,
        *_CONTEXT,
        *CACHES,
        *TABLES,
        *OLLAMA,
        *_FAILURES,
        *_READY,
        *OUT_OF_MEMORY,
    ),
    finish=_finish,
    carry=_carry,
    ranks_are_devices=True,
)
