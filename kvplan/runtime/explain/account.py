"""Where the memory of one GPU goes: the log's account beside the engine's as kvplan predicts it.

vLLM prints its account term by term; SGLang what is free before and after each step; TensorRT-LLM the peak of a trial
run. To add a term: a line in the function of its engine.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isqrt
from typing import Literal

from kvplan.core.boot import Boot
from kvplan.core.device import visible_bytes
from kvplan.core.engines.pool import Budget
from kvplan.core.engines.sglang.drafts import draft_weights as sglang_draft
from kvplan.core.engines.trtllm.loading import loaded as trtllm_loaded
from kvplan.core.engines.versions import release
from kvplan.core.engines.vllm.extras import draft_weights, lora_slots
from kvplan.core.engines.vllm.loading import extra_weights
from kvplan.core.engines.vllm.measured import SUBTRACTS_GRAPHS
from kvplan.core.engines.vllm.overheads import COUNTS_ALL, graphs
from kvplan.core.hardware import Gpu
from kvplan.core.layout import stage_weights
from kvplan.core.measured import Basis, Measured, loaded
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving
from kvplan.core.units import format_bytes
from kvplan.core.weights import weight_bytes
from kvplan.runtime.explain.answer import Row, around, exactly, make_row
from kvplan.runtime.explain.doubt import Doubts
from kvplan.runtime.explain.observed import amount, each, number, stage_of
from kvplan.runtime.explain.served import is_on_gpus, kv_memory_option
from kvplan.runtime.observation import Observation

DRIVERS_DIFFER = 100
"""Drivers report up to a hundredth more or less of one kind of device (`sources/gpus.py`)."""
_BASES: tuple[Basis, ...] = ("exact", "derived", "calibrated", "assumed")
LOAD = Measured(
    name="loading",
    num_bytes=0,
    spread_bytes=256 * 2**20,
    source="free memory before and after loading differs by more than tensors: libraries' contexts, allocator blocks",
    basis="assumed",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One start, its model, and what kvplan makes of flags alone."""

    observation: Observation
    model: ModelSpec
    serving: Serving
    boot: Boot | None
    """None where no GPU is known."""
    told_gpu: Gpu | None = None
    """The GPU that was named, as the table has it; None where the log's own figures stand for one that nobody named:
    they are not set against themselves."""
    doubts: Doubts = field(default_factory=Doubts)

    def accounts(self) -> tuple[Budget, ...]:
        """One a pipeline stage, as predicted; none without a GPU."""
        return self.boot.accounts if self.boot else ()

    def weights(self) -> list[list[Measured]]:
        """What loading takes, on the fullest rank of each stage; no GPU is needed to know that."""
        sizes = stage_weights(self.model, self.serving)
        if self.serving.engine.name == "trtllm":
            return [
                [*trtllm_loaded(self.model, self.serving.deployment, stage, size)] for stage, size in enumerate(sizes)
            ]
        found = [[loaded(size, offloaded_bytes=self.serving.switches.cpu_offload_bytes)] for size in sizes]
        if self.serving.engine.name == "vllm":
            for stage, items in enumerate(found):
                more = (extra_weights, lora_slots, draft_weights)
                extra = [make(self.model, self.serving.deployment, stage) for make in more]
                items += [item for item in extra if item is not None]
        return found


def worst_basis(items: Iterable[Measured]) -> Basis:
    """What the least certain of several figures rests on."""
    return max((item.basis for item in items), key=_BASES.index, default="exact")


def account_rows(case: Case) -> list[Row]:
    """The account in the order in which the engine makes it."""
    of_engine = {"vllm": _vllm, "sglang": _sglang, "trtllm": _trtllm}.get(case.serving.engine.name)
    return [] if of_engine is None else [*_device(case), *of_engine(case)]


def _device(case: Case) -> list[Row]:
    """The device as the framework sees it."""
    seen, gpu = number(case.observation, "device_total"), case.told_gpu
    if seen is None:
        return []
    if gpu is None:
        return [make_row("account", "device", seen, None, why="no GPU is named")]
    device = visible_bytes(gpu)
    low, high = device - device // DRIVERS_DIFFER, device + device // DRIVERS_DIFFER
    why = f"{gpu.name}: drivers differ by up to 1 %"
    if gpu.memory_bytes is not None and gpu.memory_bytes > high:
        high, why = gpu.memory_bytes, f"{why}, and some keep nothing of its {format_bytes(gpu.memory_bytes)} back"
    return [make_row("account", "device", seen, (device, low, high), basis="derived", why=why)]


def _vllm(case: Case) -> list[Row]:
    now = release(case.serving.engine.version or "")
    rows = _vllm_start(case)
    rows += _weights(case)
    # From 0.27 on the peak is printed with the graphs' estimate in it.
    peak = ("activation peak", "CUDA graphs (estimate)") if now >= COUNTS_ALL else ("activation peak",)
    rows += _terms(case, "activation peak", "activation_peak", peak)
    loaded = ("weights", "extra weights", "LoRA slots", "draft weights")
    rows += _terms(case, "weights and activation peak", "torch_peak", (*loaded, "activation peak"))
    rows += _terms(case, "non-torch", "non_torch", ("non-torch",))
    if "non_torch" not in case.observation.figures:
        rows += _terms(case, "weights and non-torch", "consumed", (*loaded, "non-torch", "sampler states"))
    if now >= SUBTRACTS_GRAPHS:
        rows += _terms(case, "graphs (estimate)", "graph_estimate", ("CUDA graphs (estimate)",))
    rows += _left(case)
    if now < SUBTRACTS_GRAPHS:
        rows += _graphs(case, "graphs (estimate)", "graph_estimate", estimated=True)
    return rows + _graphs(case, "graphs (captured)", "graphs", estimated=False)


def _vllm_start(case: Case) -> list[Row]:
    """What was free at the start, and what the share allows."""
    rows, accounts = [], case.accounts()
    free, allowed = number(case.observation, "device_free"), number(case.observation, "requested")
    if free is not None:
        context = [item for account in accounts[:1] for item in account.untaken if item.name == "CUDA context"]
        predicted = [around(account.device_bytes - item.num_bytes, item.spread_bytes)
                     for account, item in zip(accounts, context, strict=False)]  # fmt: skip
        rows.append(make_row(
            "account", "free at the start", free, predicted[0] if predicted else None,
            basis="calibrated", why="the device less this process's own context",
        ))  # fmt: skip
    if allowed is not None:
        usable = accounts[0].usable_bytes if accounts else None
        predicted_share = None if usable is None else around(usable, usable // DRIVERS_DIFFER)
        why = f"{case.serving.gpu_memory_utilization:g} of the device"
        rows.append(make_row("account", "allowed", allowed, predicted_share, basis="derived", why=why))
    return rows


def _weights(
    case: Case, why: str = "", load: Measured | None = None, key: str = "weights", beside: Measured | None = None
) -> list[Row]:
    """What loading took of each rank; `load` is what the log's way of telling it adds to the spread.

    `beside` is what every rank holds that the model's account does not have.
    """
    stages, rows = case.weights(), []
    for rank, figure in each(case.observation, key):
        stage = stage_of(figure, len(stages))
        fullest = max(range(len(stages)), key=lambda i: sum(item.num_bytes for item in stages[i]))
        items = [*stages[fullest if stage is None else stage], *([] if beside is None else [beside])]
        spread = isqrt(sum(item.spread_bytes**2 for item in items))
        num_bytes = sum(item.num_bytes for item in items)
        if load is not None:
            spread += load.spread_bytes + num_bytes // 100
        basis = worst_basis(items if load is None else [*items, load])
        predicted = around(num_bytes, spread)
        rows.append(make_row(
            "account", "weights", amount(figure), predicted, basis=basis, rank=rank, why=why or _made_of(items)
        ))  # fmt: skip
    return rows


def _terms(case: Case, name: str, key: str, items: tuple[str, ...]) -> list[Row]:
    """Rows of a term that the engine subtracts: predicted as the sum of the account's items of these names."""
    rows = []
    for rank, figure in each(case.observation, key):
        account = _account_of(case, stage_of(figure, case.serving.pp))
        found = [item for item in account.taken if item.name in items] if account else []
        predicted = None
        if found:
            spread = isqrt(sum(item.spread_bytes**2 for item in found))
            predicted = around(sum(item.num_bytes for item in found), spread)
        rows.append(make_row(
            "account", name, amount(figure), predicted, basis=worst_basis(found), rank=rank, why=_made_of(found)
        ))  # fmt: skip
    return rows


def _made_of(items: list[Measured]) -> str:
    """What beside the main item counts."""
    rest = [item for item in items[1:] if item.num_bytes]
    return ", ".join(f"{format_bytes(item.num_bytes)} of {item.name}" for item in rest) + " included" if rest else ""


def _account_of(case: Case, stage: int | None) -> Budget | None:
    accounts = case.accounts()
    if not accounts:
        return None
    if stage is not None and stage < len(accounts):
        return accounts[stage]
    return min(accounts, key=lambda account: account.kv_memory_bytes)


def _left(case: Case) -> list[Row]:
    """What is left for the cache, of the tightest rank: it decides."""
    seen = number(case.observation, "kv_memory")
    if seen is None:
        return []
    asked = kv_memory_option(case.observation)
    if asked is not None:
        why = "as `--kv-cache-memory-bytes` asked"
        return [make_row("account", "left for the cache", seen, exactly(asked), basis="exact", why=why)]
    found = _account_of(case, None)
    if found is None:
        return [make_row("account", "left for the cache", seen, None, why=why_nothing(case))]
    predicted = around(found.kv_memory_bytes, found.spread_bytes)
    basis = worst_basis(found.taken)
    return [make_row("account", "left for the cache", seen, predicted, basis=basis, judged=pool_judge(basis))]


def why_nothing(case: Case) -> str:
    """Why kvplan says nothing of what is left for the cache."""
    if case.serving.gpu is None:
        return "no GPU is known: `--gpu` names it"
    return f"kvplan could make no account of {case.serving.gpu.name}: a note says why"


def pool_judge(basis: Basis) -> Literal["pool"] | None:
    """Only an account that rests on measurements decides the exit code."""
    return None if basis == "assumed" else "pool"


def _graphs(case: Case, name: str, key: str, *, estimated: bool) -> list[Row]:
    """Graphs beside the budget: before 0.21 nothing is subtracted for them."""
    rows = []
    now = release(case.serving.engine.version or "")
    for rank, figure in each(case.observation, key):
        stage = stage_of(figure, case.serving.pp) or 0
        found = graphs(case.model, case.serving.deployment, now, stage, estimated=estimated)
        predicted = around(found.num_bytes, found.spread_bytes) if found and is_on_gpus(case.observation) else None
        before = "outside what the share allows: not subtracted before 0.21" if now < SUBTRACTS_GRAPHS else ""
        why = before or "captured after the pool is made"
        rows.append(make_row("account", name, amount(figure), predicted, basis="calibrated", rank=rank, why=why))
    return rows


def _sglang(case: Case) -> list[Row]:
    """Free before loading, what loading took, and what the pools got of the rest."""
    rows, accounts = [], case.accounts()
    free = number(case.observation, "device_free")
    if free is not None:
        predicted = None
        if accounts and case.told_gpu is not None:
            context = accounts[0].taken[0]
            predicted = around(accounts[0].device_bytes - context.num_bytes, context.spread_bytes)
        why = "the device less CUDA's context"
        rows.append(make_row("account", "free before loading", free, predicted, basis="calibrated", why=why))
    why = "the log tells what was free before and after, which is more than tensors"
    return rows + _weights(case, why, LOAD) + _draft_rows(case, why)


def _draft_rows(case: Case, why: str) -> list[Row]:
    """What SGLang loads to draft with, which its log tells as a second model."""
    found = sglang_draft(case.model, case.serving.deployment)
    if found is None:
        return []
    spread = found.spread_bytes + LOAD.spread_bytes + found.num_bytes // 100
    predicted, basis = around(found.num_bytes, spread), worst_basis([found, LOAD])
    return [
        make_row("account", "draft weights", amount(figure), predicted, basis=basis, rank=rank, why=why)
        for rank, figure in each(case.observation, "draft_weights")
    ]


def _trtllm(case: Case) -> list[Row]:
    if case.observation.facts.get("runs") == "an engine file":
        return [*_engine_file(case), *_left(case)]
    key = "weights" if "weights" in case.observation.figures else "torch_after_load"
    return [*_weights(case, key=key), *_left(case)]


def _engine_file(case: Case) -> list[Row]:
    """The size of a built engine, whose format the log does not tell; each rank holds all of the table of inputs.

    Source: TensorRT-LLM, `trtllm-build` and `convert_checkpoint.py`: `use_parallel_embedding` is off by default
    """
    tables = [weight for weight in case.model.embeddings if weight.part == "embeddings"]
    tp, dtype, quant = case.serving.tp, case.serving.dtype, case.model.quantization
    more = sum(weight_bytes(one, dtype, quant, 1) - weight_bytes(one, dtype, quant, tp) for one in tables)
    why = "as large as an engine in the model's own format: the log does not tell which it was built in"
    beside = Measured(
        name="table of inputs of other ranks",
        num_bytes=more,
        spread_bytes=more,
        source="off by default",
        basis="assumed",
    )
    return _weights(case, why, beside=beside)
