"""TensorRT-LLM's start-up log: the PyTorch backend, and the C++ engines' lines that have the same words.

To add a wording: a line in one of the tables, with the versions that word it so; a figure of a new name also in
`observation.FIGURES`. The cache is made twice, a small one to profile with and then the real one: the last counts.

Sources: tensorrt_llm/_torch/pyexecutor/_util.py and model_loader.py of 1.0 to 1.2, cpp/tensorrt_llm/batch_manager/
kvCacheManager.cpp of 0.9 to 1.2.
"""

import re

from kvplan.runtime.lines import Line
from kvplan.runtime.python_repr import read_items
from kvplan.runtime.wording import OUT_OF_MEMORY, Dialect, Start, Wording, fails, is_ready, wording

_VERSION = r"(?P<x_version>\d+(?:\.\d+)*(?:\.?(?:dev|rc|a|b|post)\d+)*)"
_UNITS = {
    "num_blocks": "blocks",
    "num_cpu_blocks": "blocks",
    "num_tokens": "tokens",
    "block_size": "tokens",
    "bytes_per_token": "B",
    "utilization": "share",
}


def _said(key: str, pattern: str, versions: str, **options: object) -> Wording:
    names = re.findall(r"(?<!P)<(\w+)>", pattern)
    options = {"last": True, **options}
    return wording(key, pattern, versions, units={name: _UNITS.get(name, "GiB") for name in names}, **options)


def _read_engine_limit(start: Start, found: re.Match[str], line: Line) -> None:
    """What a C++ engine was built for."""
    del line
    start.options[_ENGINE_LIMITS[found["x_name"]]] = int(found["x_value"])


_ENGINE_LIMITS = {
    "maxBatchSize": "max_num_seqs", "maxSequenceLen": "max_model_len", "maxNumTokens": "max_num_batched_tokens"
}  # fmt: skip


def _read_engine_file(start: Start, found: re.Match[str], line: Line) -> None:
    """The C++ runtime loads what was built before, in a format that its log does not tell."""
    del found, line
    start.facts["runs"] = "an engine file"


def _read_version(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    start.version = start.version or found["x_version"]


def _read_args(start: Start, found: re.Match[str], line: Line) -> None:
    for name, value in read_items(line.text, found.end()).items():
        if value is not None:
            start.args.setdefault(name, value)


def _read_limits(start: Start, found: re.Match[str], line: Line) -> None:
    """What the executor works with; said for the run that profiles too, so the last counts."""
    del line
    start.options["max_model_len"] = int(found["x_length"])
    start.options["max_num_batched_tokens"] = int(found["x_tokens"])
    start.options["max_num_seqs"] = int(found["x_batch"])


def _read_share(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    if found["utilization"]:
        start.options["gpu_memory_utilization"] = round(float(found["utilization"]), 6)


def _read_snapshot(start: Start, found: re.Match[str], line: Line) -> None:
    """The folder in the Hub's cache that the weights come from names the model."""
    del line
    start.facts.setdefault("snapshot", found["x_model"].replace("--", "/", 1))


def _read_block_size(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    start.options["block_size"] = int(found["block_size"])


def _read_world(start: Start, found: re.Match[str], line: Line) -> None:
    """How many processes there are; the one that asks others to work is alone in a world of its own."""
    del line
    start.num_gpus = max(int(found["x_size"]), start.num_gpus or 0)


_WORDINGS = (
    wording(
        "TensorRT-LLM version",
        rf"TensorRT-LLM version:? {_VERSION}",
        "to 1.1",
        begins="banner",
        then=_read_version,
    ),
    wording("TensorRT LLM version", rf"TensorRT LLM version:? {_VERSION}", "1.2+", begins="banner", then=_read_version),
    wording("LLM Args", r"LLM Args:?\s*(?:\w+\()?", "1.0+", then=_read_args),
    wording("LlmArgs(", r"\w*LlmArgs\(", "1.0+", then=_read_args),
    wording(
        "/snapshots/", r"models--(?P<x_model>[\w.\-]+?--[\w.\-]+)/snapshots/", "all", owned=False, then=_read_snapshot
    ),
    wording("MPI size:", r"MPI size: (?P<x_size>\d+)", "C++", then=_read_world),
    wording(
        "TRTGptModel max",
        r"TRTGptModel (?P<x_name>maxBatchSize|maxSequenceLen|maxNumTokens): (?P<x_value>\d+)",
        "0.5+, C++",
        then=_read_engine_limit,
    ),
    wording(
        "Loaded engine size:",
        r"Loaded engine size: <weights> MiB",
        "0.5+, C++",
        units={"weights": "MiB"},
        then=_read_engine_file,
    ),
    _said("for model weights", r"Use <weights> GB for model weights", "1.0+"),
    _said("(inside torch) in", r"weights \(inside torch\).{0,40}?: <torch_after_load> GiB", "0.18+"),
    _said(
        "(outside torch) in",
        r"weights \(outside torch\).{0,40}?: <outside_after_load> GiB",
        "0.20+",
    ),
    _said("dynamically allocated during", r"during inference \(inside torch\).{0,40}?: <activation_peak> GiB", "0.18+"),
    _said("used outside torch", r"Memory used outside torch \(e\.g\..{0,60}?: <non_torch> GiB", "0.18+"),
    _said(
        "Peak memory during memory usage",
        r"Peak memory during memory usage profiling \(torch \+ non-torch\): <peak> GiB, available KV cache memory when "
        r"calculating max tokens: <kv_memory> GiB(?:, fraction is set <utilization>)?(?:, kv size (?:per token )?is "
        r"<bytes_per_token>)?(?:\.? device total memory <device_total> GiB)?"
        r"(?:.{0,50}?(?:tmp kv_mem|during profiling) <profile_cache> GiB)?",
        "0.17+; the share from 0.18",
        then=_read_share,
    ),
    _said("Estimated max memory in KV cache", r"Estimated max memory in KV cache ?: <kv_memory> GiB", "0.18+"),
    _said(
        "max tokens in paged KV cache (",
        r"Allocated <kv_cache> GiB for max tokens in paged KV cache \(<num_tokens>\)",
        "0.5+",
    ),
    wording(
        "for k/v cache", r"Allocate <kv_cache> bytes for k/v cache", "0.5 to 0.9", units={"kv_cache": "B"}, last=True
    ),
    _said("tokens in paged KV cache", r"Using <num_tokens> (?:total )?tokens in paged KV cache", "0.5 to 0.9"),
    wording(
        "tokens in paged KV cache: ",
        r"Max tokens in paged KV cache: <num_tokens>\. Allocating <kv_cache> bytes",
        "0.9 to 0.11",
        units={**_UNITS, "kv_cache": "B"},
        last=True,
    ),
    _said("in KV cache primary pool:", r"Number of blocks in KV cache primary pool: <num_blocks>", "0.8 to 0.20"),
    _said("in KV cache secondary pool:", r"in KV cache secondary pool: <num_cpu_blocks>", "0.9 to 0.20"),
    _said("Number of tokens per block:", r"Number of tokens per block: <block_size>", "0.8+", then=_read_block_size),
    _said(
        "Max KV cache blocks per sequence",
        r"tokens per block=<block_size>, primary blocks=<num_blocks>, secondary blocks=<num_cpu_blocks>",
        "1.0+",
        then=_read_block_size,
    ),
    _said(
        "calculating max tokens in paged kv cache",
        r"max tokens in paged kv cache: total: <device_total> GiB, available: <available_after_load> GiB",
        "0.9 to 0.20, C++",
    ),
    wording(
        "max_num_requests=",
        r"max_seq_len=(?P<x_length>\d+), max_num_requests=\d+, max_num_tokens=(?P<x_tokens>\d+), "
        r"max_batch_size=(?P<x_batch>\d+)",
        "1.0+",
        then=_read_limits,
    ),
    wording(
        "[SequenceInfo:]",
        r"max_seq_len=(?P<x_length>\d+), self\.max_batch_size=(?P<x_batch>\d+), self\.page_size=\d+, "
        r"self\.max_num_tokens=(?P<x_tokens>\d+)",
        "1.1+, AutoDeploy",
        then=_read_limits,
    ),
    wording(
        "Total GPU memory (GiB):",
        r"Total GPU memory \(GiB\): <device_total>",
        "1.0+, of a start that failed",
        units={"device_total": "GiB"},
    ),
    wording("could not be created:", r"The following component could not be created: .*", "1.0+", then=fails),
    wording("insufficient GPU memory", r"(?:Executor creation .{0,20})?insufficient GPU memory", "1.0+", then=fails),
    wording("Application startup complete", r"Application startup complete", "all", owned=False, then=is_ready),
    *OUT_OF_MEMORY,
)


def _drop_trial(start: Start) -> None:
    """The pool of the trial run, where the log ends before the real one."""
    profiled = max((figure.line_number for figure in start.figures.get("peak", ())), default=0)
    for name in ("num_blocks", "num_cpu_blocks", "num_tokens", "kv_cache"):
        kept = [figure for figure in start.figures.pop(name, []) if figure.line_number > profiled]
        if kept:
            start.figures[name] = kept


def _finish(start: Start) -> None:
    _drop_trial(start)
    for name in ("model", "model_path"):
        if start.model is None and isinstance(start.args.get(name), str):
            start.model = str(start.args[name])
    start.model = start.model or start.facts.get("snapshot")
    ranks = [int(rank.removeprefix("rank ")) for rank in start.ranks if rank.startswith("rank ")]
    start.num_gpus = start.num_gpus or max(ranks, default=-1) + 1 or None


DIALECT = Dialect(engine="trtllm", wordings=_WORDINGS, finish=_finish)
