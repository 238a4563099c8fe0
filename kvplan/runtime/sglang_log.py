"""SGLang's start-up log, from 0.3 on.

To add a wording: a line in one of the tables, with the versions that word it so; a figure of a new name also in
`observation.FIGURES`.

Sources, by version: 0.4 python/sglang/srt/model_executor/model_runner.py, mem_cache/memory_pool.py,
managers/scheduler.py; 0.5.23 also mem_cache/kv_cache_configurator.py and swa_memory_pool.py. What it prints as `GB` is
2^30 bytes.
"""

import re

from kvplan.runtime.lines import Line
from kvplan.runtime.python_repr import read_items
from kvplan.runtime.wording import (
    EXCEPTION,
    OUT_OF_MEMORY,
    Dialect,
    Start,
    Wording,
    fails,
    fails_vaguely,
    is_ready,
    wording,
)


def _size(key: str, pattern: str, versions: str, **options: object) -> Wording:
    names = re.findall(r"(?<!P)<(\w+)>", pattern)
    units = {
        name: "tokens" if name.endswith("tokens") else "seqs" if name == "state_slots" else "GiB" for name in names
    }
    return wording(key, pattern, versions, units=units, **options)


def _read_args(start: Start, found: re.Match[str], line: Line) -> None:
    """All arguments, defaults included, as the server resolved them."""
    for name, value in read_items(line.text, found.end()).items():
        if value is not None:
            start.args[name] = value


def _read_load(start: Start, found: re.Match[str], line: Line) -> None:
    """What one model took; the second that a rank loads is the draft model."""
    name = "draft_weights" if ("loaded", line.rank) in start.marks else "weights"
    start.marks.add(("loaded", line.rank))
    if found["x_taken"]:
        start.add(name, found["x_taken"], "GiB", line)
    if found["x_free"]:
        start.add("available_after_load", found["x_free"], "GiB", line, last=True)
    if found["x_type"]:
        start.facts.setdefault("architecture" if name == "weights" else "draft_architecture", found["x_type"])


def _pool(start: Start, num_tokens: str | None, line: Line) -> str:
    """Whose keys and values these are: the full or the sliding layers' of the model, or the draft model's."""
    sliding = start.figures.get("swa_tokens")
    pools = sum(1 for name, rank in start.marks if rank == line.rank and name.startswith("pool"))
    start.marks.add((f"pool {pools}", line.rank))
    if sliding and num_tokens and pools < 2:
        full = start.figures["full_tokens"][-1].value
        if float(num_tokens) == sliding[-1].value and (full != sliding[-1].value or pools == 0):
            return "swa_"
        return ""
    return "draft_" if pools else ""


def _read_pool(start: Start, found: re.Match[str], line: Line) -> None:
    tokens = found["x_tokens"]
    pool = _pool(start, tokens, line)
    if tokens and pool == "":
        start.add("num_tokens", tokens, "tokens", line)
    for name, group in (("key_cache", "x_keys"), ("value_cache", "x_values"), ("kv_cache", "x_both")):
        if found[group]:
            start.add(pool + name, found[group], "GiB", line)
    if found["x_dtype"]:
        start.facts.setdefault("kv_dtype", found["x_dtype"].removeprefix("torch."))


def _read_scheduler(start: Start, found: re.Match[str], line: Line) -> None:
    """What the scheduler works with once all is made."""
    for name, option in (
        ("chunked_prefill_size", "max_num_batched_tokens"),
        ("max_running_requests", "max_num_seqs"),
        ("context_len", "max_model_len"),
    ):
        said = re.search(rf"\b{name}=(\d+)", line.text)
        if said:
            start.options[option] = int(said[1])
    free = re.search(r"\bavailable_gpu_mem=(-?[\d.]+) GB", line.text)
    if free and free[1].count(".") < 2 and free[1][-1].isdigit():
        start.add("available_at_end", free[1], "GiB", line)


def _fact(name: str) -> dict[str, object]:
    def read(start: Start, found: re.Match[str], line: Line) -> None:
        del line
        start.facts.setdefault(name, found["x_value"].removeprefix("torch."))

    return {"then": read}


def _read_version(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    start.version = start.version or found["x_version"]


def _read_windows(start: Start, found: re.Match[str], line: Line) -> None:
    """Tokens below nothing are why it cannot start, whatever it says next, or does not."""
    if found["full_tokens"].startswith("-"):
        start.fail(found[0], line)


_WORDINGS = (
    wording("ServerArgs(", r"ServerArgs\(", "0.3+", begins="process", then=_read_args),
    wording(
        "sglang version",
        r"[Ss][Gg][Ll]ang version:? v?(?P<x_version>\d+\.\d+[\w.]*)",
        "images that say so",
        begins="process",
        then=_read_version,
    ),
    _size("Load weight begin", r"Load weight begin\. avail mem=<device_free> GB", "0.3+", weak=True, begins="load"),
    wording(
        "Load weight end",
        r"Load weight end\.(?:.{0,200}?\btype=(?P<x_type>\w+))?(?:.{0,300}?avail mem=(?P<x_free>-?\d+\.\d+) GB)?"
        r"(?:.{0,40}?mem usage=(?P<x_taken>-?\d+\.\d+) GB)?",
        "0.3+; what it took from 0.4.1",
        then=_read_load,
    ),
    _size(
        "Use sliding window memory pool",
        r"Use sliding window memory pool\. full_layer_tokens=<full_tokens>, swa_layer_tokens=<swa_tokens>",
        "0.4.9+",
        then=_read_windows,
    ),
    _size(
        "Mamba Cache is allocated",
        r"Mamba Cache is allocated\.(?: max_mamba_cache_size: <state_slots>,)? conv_state size: <conv_cache> ?GB, "
        r"ssm_state size: <state_cache> ?GB"
        r"(?:,? ?intermediate_ssm_state_cache size: <draft_state_cache> ?GB)?"
        r"(?:,? ?intermediate_conv_window_cache size: <draft_conv_cache> ?GB)?",
        "0.5.2+",
    ),
    wording(
        "KV Cache is allocated",
        r"\bKV Cache is allocated\.(?: dtype: (?P<x_dtype>[\w.]+),)?(?: #tokens: (?P<x_tokens>\d+),)?"
        r"(?: K size: (?P<x_keys>\d+\.\d+) GB, V size: (?P<x_values>\d+\.\d+) GB| KV size: (?P<x_both>\d+\.\d+) GB)",
        "0.3.6+; dtype from 0.5.4",
        then=_read_pool,
    ),
    wording(
        ", K size: ",
        r"Physical KV Cache limits by --mem-fraction-static: #tokens: (?P<x_tokens>\d+),"
        r"(?P<x_dtype>)(?P<x_both>) K size: (?P<x_keys>\d+\.\d+) GB, V size: (?P<x_values>\d+\.\d+) GB",
        "kvcached: its `VirtualKV Cache` is a range of addresses, and no memory",
        then=_read_pool,
    ),
    _size("Memory pool end", r"Memory pool end\. avail mem=<available_after> GB", "0.3+", last=True),
    _size(
        "raph end.",
        r"Capture [\w ]*?(?:cuda|CUDA|npu|NPU|hip|HIP) ?[Gg]raph end\..{0,80}?mem usage=<graphs> GB",
        "0.4+; of each capture from 0.5.15",
    ),
    _size("max_total_num_tokens=", r"max_total_num_tokens=<num_tokens>, ", "0.3+", then=_read_scheduler),
    wording(
        "Attention backend not specified",
        r"Attention backend not specified\. Use (?P<x_value>\w+) backend",
        "0.5+",
        **_fact("attention_backend"),
    ),
    wording("Using KV cache dtype", r"Using KV cache dtype: (?P<x_value>[\w.]+)", "0.5.4+", **_fact("kv_dtype")),
    wording("Not enough memory", r"Not enough memory[.;:] ?(?:Please try|max_mamba_cache_size)", "0.1+", then=fails),
    wording("Capture cuda graph failed", r"Capture (?:cuda|CUDA) graph failed", "0.4+", then=fails),
    wording("memory capacity is unbalanced", r"The memory capacity is unbalanced", "0.4+", then=fails),
    wording("The server is fired up", r"The server is fired up and ready to roll", "0.2+", then=is_ready),
    wording("hit an exception", r"Scheduler hit an exception", "0.3+", then=fails_vaguely),
    *OUT_OF_MEMORY,
    EXCEPTION,
)


def _finish(start: Start) -> None:
    if isinstance(start.args.get("model_path"), str):
        start.model = str(start.args["model_path"])
    device = start.args.get("device")
    if isinstance(device, str) and device not in ("cuda", "auto"):
        start.facts.setdefault("device_type", device)


DIALECT = Dialect(engine="sglang", wordings=_WORDINGS, finish=_finish)
