"""TensorRT-LLM's pools: blocks, tokens and requests that the memory holds.

Source: TensorRT-LLM 1.2, tensorrt_llm/_torch/pyexecutor/resource_manager.py (commit 001541ba):
`calculate_max_num_blocks`, `calculate_max_num_blocks_for_vswa`, `_calculate_max_num_blocks_for_linear_attention`
"""

from dataclasses import dataclass

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.pool import KVPool, PoolGroup
from kvplan.core.engines.trtllm.checks import check
from kvplan.core.engines.trtllm.layers import (
    Stage,
    Window,
    block,
    interval_of,
    max_batch,
    pass_tokens,
    stages_of,
)
from kvplan.core.errors import InputError
from kvplan.core.model import ModelSpec
from kvplan.core.units import GIB, ceil_div, format_bytes, round_up, smaller

VERSIONS = ("0.17", "1.0", "1.2")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizing:
    """What one stage's memory holds."""

    blocks: tuple[int, ...]
    """Of each window's pool."""
    snapshots: int

    @property
    def fewest(self) -> int:
        """Blocks of the pool that is not cut off by a window: the last."""
        return self.blocks[-1] if self.blocks else 2**62


def pool(model: ModelSpec, deployment: Deployment, kv_memory_bytes: int | None, *, rounds_up: bool) -> KVPool:
    """The pool of the stage with the fewest blocks.

        tokens = ⌊bytes / bytes per token⌋, at most `max_tokens`;  blocks = ⌊tokens / 32⌋, before 1.0 rounded up

    `kv_memory_bytes` pays for recurrent states as well. Where windows have pools of their own (`hybrid_manager`, which
    stands for a `max_attention_window` of each layer's own), the bytes are split equally among the distinct windows,
    and `max_tokens` is ignored. Raises InputError for what TensorRT-LLM refuses; where the memory is too small the pool
    holds nothing, and `fits_one` says so.
    """
    check(model, deployment)
    size, length = block(deployment), deployment.max_model_len
    all_stages = stages_of(model, deployment)
    cap = deployment.switches.max_pool_tokens
    if kv_memory_bytes is None and (cap is None or any(stage.state_bytes for stage in all_stages)):
        message = "TensorRT-LLM makes its pool a share of the memory that is left, which is not known here"
        raise InputError(message, hint="give a GPU, or the bytes that are left for the cache")
    sizings = [_size(stage, deployment, kv_memory_bytes, rounds_up) for stage in all_stages]
    tightest = min(range(len(sizings)), key=lambda i: sizings[i].fewest)
    stage, sizing = all_stages[tightest], sizings[tightest]
    pools = list(zip(stage.windows, sizing.blocks, strict=True))
    allocated = sum(window.token_bytes * size * blocks for window, blocks in pools)
    allocated += sizing.snapshots * stage.state_bytes
    tokens, held = sizing.fewest * size, ceil_div(length, size)
    limits = [blocks / _request_blocks(window, length, size) for window, blocks in pools]
    per_request = sum(_request_blocks(window, length, size) for window, _ in pools)
    return KVPool(
        engine="trtllm",
        version=VERSIONS[0] if rounds_up else VERSIONS[-1],
        kv_memory_bytes=allocated if kv_memory_bytes is None else kv_memory_bytes,
        allocated_bytes=allocated,
        block_size=size,
        bytes_per_block=stage.windows[-1].token_bytes * size,
        num_blocks=sizing.fewest,
        num_tokens=tokens,
        max_concurrency=min(*limits, float(max_batch(deployment)) * deployment.pp),
        max_model_len=length,
        blocks_per_request=held if len(pools) == 1 else per_request,
        fits_one=tokens >= length,
        longest_request=min(tokens, length),
        groups=_groups(stage, deployment),
        notes=_notes(stage, sizing, size, allocated),
    )


def held(model: ModelSpec, deployment: Deployment, tokens: int, requests: int) -> tuple[int, ...]:
    """Bytes of one GPU of each stage that so many requests hold at most, in whole blocks; int64 arrays too.

    With a pool for each window, its blocks hold the window, and the tokens of one pass before the oldest are freed.
    With block reuse a recurrent layer keeps a state for every 256 tokens beside the running one.
    """
    return tuple(sum(_held(stage, deployment, tokens, requests).values()) for stage in stages_of(model, deployment))


def kinds(model: ModelSpec, deployment: Deployment, tokens: int, requests: int) -> dict[str, int]:
    """The same on one GPU by kind of layer."""
    (stage,) = stages_of(model, deployment)
    return {"padding": 0, **_held(stage, deployment, tokens, requests)}


def _held(stage: Stage, deployment: Deployment, tokens: int, requests: int) -> dict[str, int]:
    size, interval = block(deployment), interval_of(deployment)
    found: dict[str, int] = {}
    for window in stage.windows:
        kept = tokens if window.window is None else smaller(tokens, window.window + pass_tokens(deployment))
        rows = requests * round_up(kept, size)
        for kind, token_bytes in window.layers:
            found[kind] = found.get(kind, 0) + rows * token_bytes
    if stage.state_bytes:
        found["linear"] = requests * (1 + (tokens // interval if interval else 0)) * stage.state_bytes
    return found


def _size(stage: Stage, deployment: Deployment, num_bytes: int | None, rounds_up: bool) -> _Sizing:
    size, cap = block(deployment), deployment.switches.max_pool_tokens
    if num_bytes is None:
        assert cap is not None
        return _Sizing(blocks=tuple(_blocks(cap, size, rounds_up) for _ in stage.windows), snapshots=0)
    if stage.state_bytes:
        return _hybrid(stage, deployment, num_bytes)
    shares = [num_bytes / len(stage.windows) / window.token_bytes for window in stage.windows]
    if len(shares) > 1:
        return _Sizing(blocks=tuple(int(share // size) for share in shares), snapshots=0)
    tokens = num_bytes // stage.windows[0].token_bytes if shares else 2**62
    tokens = tokens if cap is None else min(tokens, cap)
    return _Sizing(blocks=(_blocks(tokens, size, rounds_up),), snapshots=0)


def _hybrid(stage: Stage, deployment: Deployment, num_bytes: int) -> _Sizing:
    """Tokens and states at an affine cost.

        tokens = ⌊(bytes − max_batch · pp · state) / (attention + ⌊state / 256⌋)⌋
        states = max_batch · pp + 1 + drafted + ⌊tokens / 256⌋          the last two terms with block reuse only

    Source: resource_manager.py `_calculate_max_num_blocks_for_linear_attention`
    """
    interval, requests = interval_of(deployment), max_batch(deployment) * deployment.pp
    attention = sum(window.token_bytes for window in stage.windows)
    left = num_bytes - requests * stage.state_bytes
    if left <= 0:
        return _Sizing(blocks=tuple(0 for _ in stage.windows), snapshots=0)
    tokens = left // max(attention + (stage.state_bytes // interval if interval else 0), 1)
    cap = deployment.switches.max_pool_tokens
    tokens = tokens if cap is None else min(tokens, cap)
    drafted = deployment.switches.num_speculative_tokens if deployment.switches.speculative_method else 0
    snapshots = requests + 1 + drafted + (tokens // interval if interval else 0)
    return _Sizing(blocks=tuple(tokens // block(deployment) for _ in stage.windows), snapshots=snapshots)


def _blocks(tokens: int, size: int, rounds_up: bool) -> int:
    return ceil_div(tokens, size) if rounds_up else tokens // size


def _request_blocks(window: Window, length: int, size: int) -> int:
    return ceil_div(length if window.window is None else min(window.window, length), size)


def _groups(stage: Stage, deployment: Deployment) -> tuple[PoolGroup, ...]:
    size, length = block(deployment), deployment.max_model_len
    groups = [
        PoolGroup(
            kind=window.layers[0][0],
            num_layers=len(window.layers),
            block_size=size,
            page_bytes=ceil_div(size * window.token_bytes, len(window.layers)),
            blocks_per_request=_request_blocks(window, length, size),
            window=window.window,
        )
        for window in stage.windows
    ]
    if stage.state_layers:
        page = ceil_div(stage.state_bytes, stage.state_layers)
        groups.append(
            PoolGroup(
                kind="linear", num_layers=stage.state_layers, block_size=length, page_bytes=page, blocks_per_request=1
            )
        )
    return tuple(groups)


def _notes(stage: Stage, sizing: _Sizing, size: int, allocated: int) -> tuple[str, ...]:
    """The figures in the words of TensorRT-LLM's log."""
    notes = [
        f"[MemUsageChange] Allocated {allocated / GIB:.2f} GiB for max tokens in paged KV cache "
        f"({sizing.fewest * size})",
        f"Number of blocks in KV cache primary pool: {sizing.fewest}",
    ]
    if len(stage.windows) > 1:
        notes += [
            f"Window size = {window.window or 'max_seq_len'}, primary_blocks: {blocks}"
            for window, blocks in zip(stage.windows, sizing.blocks, strict=True)
        ]
    if sizing.snapshots:
        notes.append(f"{sizing.snapshots} states of {format_bytes(stage.state_bytes)} are kept beside the blocks")
    notes.append("TensorRT-LLM is the least verified engine: read from its source, held to a few figures of logs")
    return tuple(notes)
