"""Rows of engines' start-up logs: what was printed, and the same asked of kvplan (for `engine_logs.py`).

Columns of `observations.csv` that need words: `model` is the catalog's model of the same architecture, `same_weights`
says that its weights are the checkpoint's, too, stored as `quant` plans; `dated` that the version is by the date of the
report; `inferred` that the model was worked out from the figures. `exception` is why the pool cannot be compared,
`terms_exception` why a term cannot. `max_num_seqs` of unslothai/notebooks is by the rule of the library that starts
vLLM there (unsloth_zoo/vllm_utils.py: 128 up to 2 GB left for the cache, 160 up to 4, 192 up to 8, 224 up to 12); the
rows `grid…` are a table in the same file. `compiled` says whether torch.compile found its cache empty (`cold`) or not
(`warm`); `activation_gib` is as printed, from 0.27 on with the graphs' estimate in it; `consumed_gib` is what a process
took of the device in all, weights among it. Of rows with `terms_exception` "device" the device's bytes were worked out
from the two utilisations that are printed.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kvplan import estimate, kv_pool, load_model
from kvplan.core.dtypes import BF16, parse_dtype, parse_kv_dtype
from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.pool import Budget, KVPool
from kvplan.core.engines.table import find_engine
from kvplan.core.engines.versions import release
from kvplan.core.engines.vllm.activations import activation_peak, moe_workspace_bytes, profile_of, warm_peak_bytes
from kvplan.core.engines.vllm.overheads import COUNTS_ALL
from kvplan.core.hardware import Gpu
from kvplan.core.mixers import LatentAttention
from kvplan.core.model import ModelSpec
from kvplan.core.units import GIB, MIB
from kvplan.core.weights import parse_quant
from kvplan.sources.gpus import find_gpu

DATA = Path(__file__).parent.parent / "tests/data/engines/observations.csv"
LAST_DIGIT = 0.005
"""Half of the last digit that logs print."""
Row = dict[str, str]
Check = tuple[str, float, float, float]
"""(figure, least, most, printed)"""


def observations(path: Path = DATA) -> list[Row]:
    """All rows, empty where nothing was printed."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def number(row: Row, key: str) -> float | None:
    """A figure of a row, None where it is not there."""
    return float(row[key]) if row[key] else None


def whole(row: Row, key: str) -> int | None:
    """The same as a whole number."""
    return int(row[key]) if row[key] else None


def engine_of(row: Row) -> str:
    """Name and version; vLLM's of the sweep where none is stated, the one that kvplan knows for other engines."""
    return f"vllm@{row['version'] or '0.19'}" if row["engine"] == "vllm" else row["engine"]


def arguments(row: Row) -> dict[str, Any]:
    """What a row's flags are in the arguments of `kv_pool`."""
    found: dict[str, Any] = {
        "engine": engine_of(row),
        "tp": whole(row, "tp"),
        "pp": whole(row, "pp"),
        "dcp": whole(row, "dcp"),
        "dtype": row["dtype"] or None,
        "kv_dtype": row["kv_dtype"] or None,
        "max_model_len": whole(row, "concurrency_len") or whole(row, "needed_len") or whole(row, "max_model_len"),
        "max_num_batched_tokens": whole(row, "max_num_batched_tokens"),
    }
    if row["engine"] == "vllm":
        found |= {"max_num_seqs": whole(row, "max_num_seqs"), "gpu": row["gpu"] or None}
        found |= {"block_size": whole(row, "block_size"), "speculative_method": row["speculative"] or None}
    if row["speculative"]:
        found["num_speculative_tokens"] = 1
    return {key: value for key, value in found.items() if value is not None}


def pool_checks(row: Row) -> list[Check]:
    """Figures of the pool with what kvplan says of the printed bytes; none where nothing can be compared."""
    if not row["model"]:
        return []
    if row["engine"] in ("llamacpp", "ik_llama.cpp"):
        return list(_cell_checks(row))
    if row["engine"] == "sglang":
        return list(_slot_checks(row))
    if row["kv_gib"]:
        half = LAST_DIGIT if "." in row["kv_gib"] else 0.5
        low, high = (pool_of(row, float(row["kv_gib"]) + bound) for bound in (-half, half))
        return list(_checks(row, low, high))
    return list(_block_checks(row))


def pool_of(row: Row, gib: float) -> KVPool:
    """The pool of so many GiB."""
    return kv_pool(row["model"], kv_memory_bytes=max(1, round(gib * GIB)), **arguments(row))


def _checks(row: Row, low: KVPool, high: KVPool, *, blocks: bool = True) -> Iterator[Check]:
    """Bytes are printed to half of their last digit, so a figure may lie between two."""
    figures: list[tuple[str, Callable[[KVPool], float], float]] = [
        ("num_blocks", lambda pool: pool.num_blocks, 0),
        ("num_tokens", lambda pool: pool.num_tokens, 0),
        ("concurrency", lambda pool: pool.max_concurrency, 1.02 * LAST_DIGIT),
        ("estimated_max_len", lambda pool: pool.longest_request, 0),
        ("needed_gib", lambda pool: pool.blocks_per_request * pool.bytes_per_block / GIB, 1.02 * LAST_DIGIT),
    ]
    for key, figure, rounding in figures[0 if blocks else 1 :]:
        seen = number(row, key)
        if seen is not None and (key != "concurrency" or row["concurrency_len"]):
            yield key, figure(low) - rounding, figure(high) + rounding, seen


def _block_checks(row: Row) -> Iterator[Check]:
    """Without the pool's bytes: what the printed blocks, or tokens of one group, make of tokens and requests."""
    blocks, tokens = whole(row, "num_blocks"), whole(row, "num_tokens")
    one = kv_pool(row["model"], kv_memory_bytes=GIB, **arguments(row)) if blocks or tokens else None
    if one is None or (blocks is None and len(one.groups) > 1):
        return
    count = blocks if blocks is not None else (tokens or 0) // one.block_size
    # Tokens may leave out the block that holds nothing.
    pools = [
        kv_pool(row["model"], kv_memory_bytes=GIB, num_gpu_blocks_override=count + more, **arguments(row))
        for more in ((0,) if blocks is not None else (0, 1))
    ]
    yield from _checks(row, pools[0], pools[-1], blocks=False)


def _slot_checks(row: Row) -> Iterator[Check]:
    """SGLang prints what keys and values take, after states have their share, with one page more than the tokens."""
    tokens = whole(row, "num_tokens")
    sizes = [float(row[key]) for key in ("kv_gb", "k_gb", "v_gb") if row[key]]
    if tokens is None or not sizes:
        return
    pool = kv_pool(row["model"], kv_memory_bytes=64 * GIB, **({"max_model_len": 4096} | arguments(row)))
    token_bytes = sum(g.num_layers * g.page_bytes / g.block_size for g in pool.groups if g.kind != "linear")
    gib, half = sum(sizes), LAST_DIGIT * len(sizes)
    least, most = ((gib + bound) * GIB / token_bytes for bound in (-half, half))
    yield "num_tokens", least - pool.block_size, most, tokens


def _cell_checks(row: Row) -> Iterator[Check]:
    """llama.cpp prints cells, layers and bytes of each of its caches: the bytes of one layer's cell."""
    seen, cells, layers = number(row, "kv_mib"), whole(row, "llamacpp_cells"), whole(row, "llamacpp_layers")
    if seen is None or not cells or not layers:
        return
    names = {"f16": "fp16", "f32": "fp32"}
    formats = (row[key] for key in ("type_k", "type_v") if row[key] and not row[key].startswith("("))
    cache = "/".join(names.get(each, each) for each in formats)
    asked: dict[str, Any] = {"kv_dtype": cache, "latent_cache": _latent_cache(row)}
    pool = kv_pool(row["model"], engine="llamacpp", max_model_len=whole(row, "llamacpp_ctx") or 4096, **asked)
    streams = whole(row, "llamacpp_seqs") or 1
    found = [
        streams * cells * layers * group.page_bytes / group.block_size / MIB
        for group in pool.groups
        if group.kind != "linear" and group.num_layers == layers
    ]
    if found:
        yield "kv_mib", min(found) - 2 * LAST_DIGIT, max(found) + 2 * LAST_DIGIT, seen


def _latent_cache(row: Row) -> str | None:
    """How a build of llama.cpp keeps latents, as its sizes tell: older ones as keys and values of every head."""
    keys, values = number(row, "k_mib"), number(row, "v_mib")
    if not keys or not values:
        return None
    mixers = [mixer for layer in load_model(row["model"], offline=True).layers for mixer in layer.mixers]
    latents = [mixer for mixer in mixers if isinstance(mixer, LatentAttention)]
    alike = [mixer for mixer in latents if abs(keys * mixer.value_dim - values * mixer.key_dim) < 0.01 * values]
    return "expanded" if alike else None


@dataclass(frozen=True, slots=True)
class Account:
    """What was printed of one row, and what kvplan says from flags alone: GiB, requests."""

    row: Row
    printed: dict[str, float]
    predicted: dict[str, float]


_KEYS = {
    "weights": "weights_gib",
    "activations": "activation_gib",
    "non-torch": "non_torch_gib",
    "consumed": "consumed_gib",
    "graphs": "graph_gib",
    "graphs (estimate)": "graph_estimate_gib",
    "pool": "kv_gib",
    "concurrency": "concurrency",
}
ANY_GPU = "H100-SXM5-80GB"
"""Weights are the same on all of one kind."""
_SPOILT = {
    "adapters": {"weights", "pool", "concurrency"},
    "layout": set(_KEYS),
    "device": {"pool", "concurrency"},
    "runner": {"activations", "consumed", "graphs", "pool", "concurrency"},
    "unified": {"pool", "concurrency", "consumed"},
    "limits": {"activations", "pool", "concurrency"},
    "utilization": {"pool", "concurrency"},
}
"""What a row cannot say: adapters of unknown rank are in its weights; its layout or its limits are not
stated; its terms do not add up to the pool at the stated utilisation."""


def account_of(row: Row) -> Account | None:
    """A row's account beside kvplan's, weights alone where no GPU is known; None where the model is not."""
    if not row["model"] or row["engine"] != "vllm":
        return None
    if not (row["gpu"] or row["device_gib"]):
        found = account_of({**row, "gpu": ANY_GPU}) if row["weights_gib"] and row["version"] else None
        return found and Account(row, {n: gib for n, gib in found.printed.items() if n == "weights"}, found.predicted)
    engine = find_engine(engine_of(row)).pooled
    assert engine is not None
    model, deployment = deployed(row)
    budgets = engine.budget(model, deployment, weights_of(row))
    least = min(budget.kv_memory_bytes for budget in budgets) + _not_compiled(row, model, deployment)
    predicted = _terms(budgets[0])
    predicted["pool"] += _not_compiled(row, model, deployment) / GIB
    predicted |= _as_printed(row, model, deployment, predicted)
    predicted["concurrency"] = engine.pool(model, deployment, max(0, least)).max_concurrency
    spoilt = _SPOILT.get(row["terms_exception"], {"weights"} if row["terms_exception"] else set())
    if not row["same_weights"] or row["quantization"] == "bitsandbytes":
        spoilt = spoilt | {"weights", "consumed", "pool", "concurrency"}
    if not row["utilization"] or row["exception"] in ("rounded", "unified", "patched"):
        spoilt = spoilt | {"pool", "concurrency"}
    if not row["version"]:
        spoilt = set(_KEYS) - ({"weights"} - spoilt)
    printed = {name: float(row[key]) for name, key in _KEYS.items() if row[key] and name not in spoilt}
    if printed.get("graphs", 0.0) < 0 or not predicted["graphs"]:
        printed.pop("graphs", None)
    if not predicted["graphs (estimate)"]:
        printed.pop("graphs (estimate)", None)
    return Account(row, printed, predicted)


def _not_compiled(row: Row, model: ModelSpec, deployment: Deployment) -> int:
    """What a start that found its compile cache keeps for the pool more than a first one."""
    if row["compiled"] != "warm":
        return 0
    now = release(row["version"])
    return activation_peak(model, deployment, now, 0).num_bytes - warm_peak_bytes(model, deployment, now, 0)


def _as_printed(row: Row, model: ModelSpec, deployment: Deployment, predicted: dict[str, float]) -> dict[str, float]:
    """Activations and what was consumed, summed as the version prints them."""
    now = release(row["version"] or "0.19")
    peak = predicted["activations"] - _not_compiled(row, model, deployment) / GIB
    if now < COUNTS_ALL:
        return {"activations": peak}
    staying = moe_workspace_bytes(profile_of(model, deployment, now, 0)) / GIB
    consumed = predicted["weights"] + predicted["non-torch"] + predicted["sampler states"] + staying
    return {"activations": peak - staying + predicted["graphs (estimate)"], "consumed": consumed}


def deployed(row: Row) -> tuple[ModelSpec, Deployment]:
    """The row's model, with the quantisation that its checkpoint has, and its flags."""
    model = load_model(row["model"], offline=True)
    if row["quant"]:
        model = replace(model, quantization=parse_quant(row["quant"]))
    dtype = parse_dtype(row["dtype"]) if row["dtype"] else model.dtype or BF16
    cache = parse_kv_dtype(row["kv_dtype"]) if row["kv_dtype"] else dtype
    length = whole(row, "max_model_len") or whole(row, "concurrency_len") or model.max_seq_len or 8192
    switches = Switches(
        max_num_seqs=whole(row, "max_num_seqs"),
        max_num_batched_tokens=whole(row, "max_num_batched_tokens"),
        enforce_eager=True if row["enforce_eager"] == "1" else None,
    )
    deployment = Deployment(
        dtype=dtype,
        key_dtype=cache,
        value_dtype=cache,
        max_model_len=length,
        tp=whole(row, "tp") or 1,
        pp=whole(row, "pp") or 1,
        dp=whole(row, "dp") or 1,
        gpu=_gpu(row),
        memory_share=number(row, "utilization"),
        switches=switches,
    )
    return model, deployment


def _gpu(row: Row) -> Gpu:
    """The GPU, with the bytes that the log says the engine sees."""
    device = number(row, "device_gib")
    seen = None if device is None else round(device * GIB)
    if not row["gpu"]:
        return Gpu(name="", memory_bytes=seen, visible_bytes=seen)
    gpu = find_gpu(row["gpu"])
    return gpu if seen is None else replace(gpu, visible_bytes=seen)


def weights_of(row: Row) -> tuple[int, ...]:
    """Bytes of each stage's weights on the fullest rank."""
    layout = {key: whole(row, key) or 1 for key in ("tp", "pp")}
    formats = {key: row[key] or None for key in ("dtype", "quant")}
    plan = estimate(row["model"], seq_len=512, **layout, **formats)  # type: ignore[arg-type]
    stages: dict[int, int] = {}
    for use in plan.per_gpu:
        stages[use.stage] = max(use.weights_bytes, stages.get(use.stage, 0))
    return tuple(stages[stage] for stage in sorted(stages))


def _terms(budget: Budget) -> dict[str, float]:
    """The account of the stage that prints first, under the names of the tables: GiB."""
    found = {item.name: item.num_bytes / GIB for item in (*budget.taken, *budget.untaken)}
    estimate = found.get("CUDA graphs (estimate)", 0.0)
    return {
        "weights": found["weights"] + found["extra weights"],
        "activations": found["activation peak"],
        "non-torch": found["non-torch"],
        "sampler states": found.get("sampler states", 0.0),
        "graphs": found.get("CUDA graphs", 0.0),
        "graphs (estimate)": estimate,
        "pool": budget.kv_memory_bytes / GIB,
        "margin": budget.spread_bytes / GIB,
    }
