"""SGLang's pools: how many tokens, states and requests the memory holds, and what is allocated for them.

Source: SGLang 0.5.23, sglang/srt/mem_cache/kv_cache_configurator.py `config_from_budget`, `resolve_max_num_reqs`
(lines 3119-3172), mem_cache/memory_pool.py (2567-2650, 4857-4871), managers/scheduler.py (1268-1276)
"""

from dataclasses import dataclass

from kvplan.core.engines.accelerators import accelerator_notes
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.pool import KVPool, PoolGroup
from kvplan.core.engines.sglang import compressed
from kvplan.core.engines.sglang.checks import check
from kvplan.core.engines.sglang.drafts import own_token_bytes
from kvplan.core.engines.sglang.layers import KVLayers, Stage, is_dsa, pool_window, stages
from kvplan.core.engines.sglang.slots import (
    Slots,
    chunked_prefill,
    page_size,
    per_request,
    sliding_held,
    slots_for,
    slots_of,
)
from kvplan.core.engines.sglang.states import (
    SPECULATIVE_REQUESTS,
    StateSplit,
    drafted_tokens,
    running_limit,
    slots_per_request,
    split,
)
from kvplan.core.errors import InputError
from kvplan.core.model import ModelSpec
from kvplan.core.units import GIB, ceil_div, round_up

ENGINE, VERSION = "sglang", "0.5.23"
REQUESTS = (2048, 4096)
"""What `max_running_requests` is held between, where the user says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """What SGLang decides when it starts, for every stage alike."""

    page: int
    tokens: int
    """`max_total_num_tokens`, of one rank of decode context parallelism."""
    slots: tuple[Slots, ...]
    """Of each stage."""
    states: StateSplit
    max_running_requests: int


def pool(model: ModelSpec, deployment: Deployment, kv_memory_bytes: int | None) -> KVPool:
    """The pool of the GPU that sets the limit.

    `kv_memory_bytes` is what is left after weights (`rest` of SGLang's own account): of a hybrid it pays for recurrent
    states as well as for keys and values, unless `states_apart` says that they have had their share. None needs a cap
    on the tokens (`--max-total-tokens`). Raises InputError for what SGLang refuses; where the memory is too small the
    pool holds nothing (`fits_one` False).
    """
    check(model, deployment)
    if compressed.applies(model):
        return compressed.pool(model, deployment, kv_memory_bytes)
    all_stages = stages(model, deployment)
    sizing = size(model, deployment, all_stages, kv_memory_bytes)
    of_draft = own_token_bytes(model, deployment, all_stages[-1].draft_bytes)
    sizes = [_allocated(stage, sizing, slots, of_draft) for stage, slots in zip(all_stages, sizing.slots, strict=True)]
    tightest = sizes.index(max(sizes))
    stage, slots, allocated = all_stages[tightest], sizing.slots[tightest], sizes[tightest]
    length, held_tokens = deployment.max_model_len, sizing.tokens * deployment.dcp
    refusal = _refusal(model, sizing, stage)
    fits = 0 if refusal else min(held_tokens, length)
    page, block = sizing.page, stage.full_bytes + stage.draft_bytes if stage.full else stage.sliding_bytes
    return KVPool(
        engine=ENGINE,
        version=VERSION,
        kv_memory_bytes=allocated if kv_memory_bytes is None else kv_memory_bytes,
        allocated_bytes=allocated,
        block_size=page,
        bytes_per_block=block * page,
        num_blocks=sizing.tokens // page,
        num_tokens=sizing.tokens,
        max_concurrency=0.0 if refusal else _concurrency(model, deployment, sizing),
        max_model_len=length,
        blocks_per_request=ceil_div(ceil_div(length, deployment.dcp), page),
        fits_one=fits >= length,
        longest_request=fits,
        groups=_groups(model, deployment, sizing, stage),
        notes=(refusal,) if refusal else _notes(model, deployment, sizing, stage, slots, of_draft),
    )


def size(
    model: ModelSpec, deployment: Deployment, all_stages: tuple[Stage, ...], kv_memory_bytes: int | None
) -> Sizing:
    """Slots of every stage: the fewest tokens of any, as SGLang agrees on them, at most `--max-total-tokens`."""
    page, window = page_size(model, deployment), pool_window(model)
    cap = deployment.switches.max_pool_tokens
    states = StateSplit(slots=0, draft_bytes=0, kv_bytes=kv_memory_bytes or 0)
    if kv_memory_bytes is not None and not deployment.switches.states_apart:
        # Every rank charges the stage with the most states, so that all come to the same number of slots.
        states = split(kv_memory_bytes, max(stage.state_bytes for stage in all_stages), deployment)
    found = [slots_for(stage, deployment, states.kv_bytes, page, window) for stage in all_stages]
    limits = [slots.total for slots in found if slots.total >= 0]
    if kv_memory_bytes is None:
        _needs_cap(cap, all_stages)
        limits = []
    tokens = min([*limits, *([] if cap is None else [cap])], default=deployment.max_model_len) // page * page
    if kv_memory_bytes is not None and states.kv_bytes <= 0:
        tokens = 0
    slots = tuple(
        stage_slots if stage_slots.total == tokens else slots_of(stage, deployment, tokens, page, window)
        for stage_slots, stage in zip(found, all_stages, strict=True)
    )
    return Sizing(
        page=page, tokens=tokens, slots=slots, states=states,
        max_running_requests=max_running_requests(deployment, tokens, states.slots),
    )  # fmt: skip


def max_running_requests(deployment: Deployment, tokens: int, state_slots: int = 0) -> int:
    """Requests that run at once: the user's number, else ⌊tokens / context · 512⌋ held between 2048 and 4096.

    With drafting, 48 where the user says nothing. Never more than half the tokens, nor than the state slots divided by
    those that each takes.
    """
    asked = running_limit(deployment)
    if asked is None and drafted_tokens(deployment):
        asked = SPECULATIVE_REQUESTS
    if asked is None:
        low, high = REQUESTS
        asked = max(min(tokens * 512 // deployment.max_model_len, high), low)
    requests = min(asked, tokens // 2)
    return min(requests, state_slots // slots_per_request(deployment)) if state_slots else requests


def held(model: ModelSpec, deployment: Deployment, tokens: int, requests: int) -> tuple[int, ...]:
    """Bytes of one GPU of each stage that so many requests of `tokens` tokens hold at most; int64 arrays too.

    Sliding layers with a pool of their own hold the window, what no sweep has taken yet, and the chunks in flight;
    every other layer holds all tokens. A request with recurrent states has as many slots as SGLang sets aside for it.
    """
    if compressed.applies(model):
        return compressed.held(model, deployment, tokens, requests)
    page, window = page_size(model, deployment), pool_window(model)
    length = tokens + (model.encoder_seq_len or 0) if model.has_encoder else tokens
    rows = requests * round_up(ceil_div(length, deployment.dcp), page)
    sliding = 0 if window is None else sliding_held(deployment, page, window, length, requests)
    return tuple(
        rows * (stage.full_bytes + stage.draft_bytes + stage.workspace_token_bytes)
        + sliding * (stage.sliding_bytes + stage.draft_sliding_bytes)
        + requests * slots_per_request(deployment) * stage.state_bytes
        for stage in stages(model, deployment)
    )


def kinds(model: ModelSpec, deployment: Deployment, tokens: int, requests: int) -> dict[str, int]:
    """The same on one GPU by kind of layer; `padding` is what drafting and workspaces take beside them."""
    if compressed.applies(model):
        return {"padding": 0, **compressed.kinds(model, deployment, tokens, requests)}
    page, window = page_size(model, deployment), pool_window(model)
    (stage,) = stages(model, deployment)
    length = tokens + (model.encoder_seq_len or 0) if model.has_encoder else tokens
    rows = requests * round_up(length, page)
    sliding = 0 if window is None else sliding_held(deployment, page, window, length, requests)
    found = {"padding": rows * (stage.draft_bytes + stage.workspace_token_bytes) + sliding * stage.draft_sliding_bytes}
    for group in (*stage.full, *stage.sliding):
        size = group.token_bytes + group.index_bytes
        held_rows = rows if group.window is None else sliding
        found[group.kind] = found.get(group.kind, 0) + held_rows * group.count * size
    if stage.state_bytes:
        found["linear"] = requests * slots_per_request(deployment) * stage.state_bytes
    return found


def _needs_cap(cap: int | None, all_stages: tuple[Stage, ...]) -> None:
    if cap is None or any(stage.state_bytes for stage in all_stages):
        message = "SGLang makes its pool as large as the memory that is left, which is not known here"
        raise InputError(message, hint="give a GPU, or the bytes that are left for the cache")


def _refusal(model: ModelSpec, sizing: Sizing, stage: Stage) -> str | None:
    """Why SGLang does not start, in its words."""
    window = pool_window(model)
    if sizing.tokens < sizing.page:
        if stage.state_bytes and not sizing.states.slots and sizing.states.kv_bytes <= 0:
            return "Hybrid (mamba/linear-attention) state cache is too small to serve any requests"
        return "Not enough memory. Please try to increase --mem-fraction-static"
    sliding = min(slots.sliding for slots in sizing.slots)
    if window is not None and stage.full and stage.sliding and sliding <= window + sizing.page:
        return f"SWA pool ({sliding} tokens) cannot hold even one request: its window has {window} tokens"
    return None


def _allocated(stage: Stage, sizing: Sizing, slots: Slots, of_draft: tuple[int, int]) -> int:
    """Bytes of the tensors: each pool has one page of rows more than slots, states one slot, an indexer whole pages.

    What drafts has pools of its own, with as many rows.

    Source: memory_pool.py, 2567-2650 (`size + page_size`), 4857-4871, `(size + page + 1) // page` pages of the indexer
    """
    page = sizing.page
    if not sizing.tokens:
        return 0
    total = (sizing.states.slots + 1) * stage.state_bytes if sizing.states.slots else 0
    total += sizing.states.draft_bytes if stage.state_bytes else 0
    rows = (max(slots.full, 0) + page) if stage.full else 0
    total += rows * stage.workspace_token_bytes
    total += _draft_bytes(sizing, slots, of_draft)
    for group in stage.full:
        index_rows = (max(slots.full, 0) + page + 1) // page * page if group.kind == "latent_indexed" else rows
        total += group.count * (rows * group.token_bytes + index_rows * group.index_bytes * stage.dcp)
    return total + ((slots.sliding + page) * stage.sliding_bytes if stage.sliding else 0)


def _draft_bytes(sizing: Sizing, slots: Slots, of_draft: tuple[int, int]) -> int:
    """Bytes of the draft's own pools, whose rows are those of the model's."""
    held = (slots.total, slots.sliding)
    return sum((count + sizing.page) * size for count, size in zip(held, of_draft, strict=True) if count > 0)


def _concurrency(model: ModelSpec, deployment: Deployment, sizing: Sizing) -> float:
    """Requests of `max_model_len` tokens at once: by tokens, sliding slots, state slots and running requests."""
    length = deployment.max_model_len + ((model.encoder_seq_len or 0) if model.has_encoder else 0)
    whole = round_up(length, sizing.page)
    limits = [sizing.tokens * deployment.dcp / whole, float(sizing.max_running_requests)]
    window = pool_window(model)
    if window is not None:
        slots = min(s.sliding for s in sizing.slots)
        each = per_request(deployment, sizing.page, window)
        in_flight = sliding_held(deployment, sizing.page, window, 2**40, 0)
        limits.append(max(slots / whole, (slots - in_flight) / each, 0.0))
    if sizing.states.slots:
        limits.append(sizing.states.slots / slots_per_request(deployment))
    return min(limits)


def _groups(model: ModelSpec, deployment: Deployment, sizing: Sizing, stage: Stage) -> tuple[PoolGroup, ...]:
    page, length = sizing.page, ceil_div(deployment.max_model_len, deployment.dcp)
    window = pool_window(model)
    sliding = length if window is None else sliding_held(deployment, page, window, length, 1)
    groups = [_group(group, page, ceil_div(length, page), stage.dcp) for group in stage.full]
    groups += [_group(group, page, ceil_div(sliding, page), 1) for group in stage.sliding]
    if stage.state_layers:
        groups.append(
            PoolGroup(
                kind="linear",
                num_layers=stage.state_layers,
                block_size=deployment.max_model_len,
                page_bytes=ceil_div(stage.state_bytes, stage.state_layers),
                blocks_per_request=slots_per_request(deployment),
            )
        )
    return tuple(groups)


def _group(group: KVLayers, page: int, blocks: int, dcp: int) -> PoolGroup:
    return PoolGroup(
        kind=group.kind,
        num_layers=group.count,
        block_size=page,
        page_bytes=page * (group.token_bytes + group.index_bytes * dcp),
        blocks_per_request=blocks,
        window=group.window,
    )


def _notes(
    model: ModelSpec, deployment: Deployment, sizing: Sizing, stage: Stage, slots: Slots, of_draft: tuple[int, int]
) -> tuple[str, ...]:
    """The figures under the names that SGLang's log has for them; its GB are 2³⁰ bytes."""
    notes = [
        f"max_total_num_tokens={sizing.tokens}, chunked_prefill_size={chunked_prefill(deployment)}, "
        f"max_running_requests={sizing.max_running_requests}, context_len={deployment.max_model_len}"
    ]
    if stage.sliding and stage.full:
        notes.append(
            f"Use sliding window memory pool. full_layer_tokens={slots.full}, swa_layer_tokens={slots.sliding}"
        )
    elif stage.sliding:
        notes.append(f"Use sliding window memory pool (all SWA). swa_layer_tokens={slots.sliding}")
    pools = ((stage.full, max(slots.full, 0)), (stage.sliding, slots.sliding))
    notes += [_kv_note(groups, tokens, sizing.page) for groups, tokens in pools if groups]
    if stage.state_layers:
        size_gb = (sizing.states.slots + 1) * stage.state_bytes / GIB
        notes.append(
            f"Mamba Cache is allocated. max_mamba_cache_size: {sizing.states.slots}, conv_state and ssm_state "
            f"together {size_gb:.2f}GB; {slots_per_request(deployment)} slots are set aside for a running request"
        )
    if any(of_draft):
        size_gb = _draft_bytes(sizing, slots, of_draft) / GIB
        notes.append(f"the draft's own pool has as many tokens, {size_gb:.2f} GB of keys and values")
    if deployment.dcp > 1:
        notes.append(f"the tokens are those of one of {deployment.dcp} ranks of decode context parallelism")
    if is_dsa(model):
        notes.append("DSA: pages of 64 tokens; the indexer's keys are in fp8 with a scale for 128")
    return (*notes, *accelerator_notes(deployment))


def _kv_note(groups: tuple[KVLayers, ...], tokens: int, page: int) -> str:
    rows = tokens + page
    keys = rows * sum(group.count * group.key_bytes for group in groups) / GIB
    both = rows * sum(group.count * group.token_bytes for group in groups) / GIB
    if groups[0].kind.startswith("latent"):
        return f"KV Cache is allocated. #tokens: {tokens}, KV size: {both:.2f} GB"
    return f"KV Cache is allocated. #tokens: {tokens}, K size: {keys:.2f} GB, V size: {both - keys:.2f} GB"
