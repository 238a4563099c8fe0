"""The pool of vLLM and TensorRT-LLM: what follows of the memory that the log states, and of flags alone.

Given the memory, the blocks are known up to what the log rounds away: the pools of the least and the most bytes that
print as the figure does bound each row. Where the log also states blocks or tokens, which are whole, those that give
them bound what follows from there.
"""

from dataclasses import replace

from kvplan.core.boot import Boot
from kvplan.core.engines.pool import KVPool
from kvplan.core.engines.vllm.extras import draft_weights
from kvplan.core.engines.vllm.pool import layout
from kvplan.core.engines.vllm.rules import rules_of
from kvplan.core.errors import KvplanError
from kvplan.core.measured import Basis
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving
from kvplan.runtime.explain.answer import Number, Row, Section, exactly, make_row
from kvplan.runtime.explain.observed import amount, number, stage_of, whole
from kvplan.runtime.observation import Figure, Observation

Ends = tuple[KVPool, KVPool, KVPool]
"""The pool of a size, and those of the least and the most that it may be."""
_MOST_BLOCKS = 2**36


def pool_of(model: ModelSpec, serving: Serving, kv_memory_bytes: int, blocks: int | None = None) -> KVPool:
    """The pool of so many bytes of each GPU; of vLLM also of so many blocks."""
    pooled, deployment = serving.engine.pooled, serving.deployment
    assert pooled is not None
    if blocks is not None:
        deployment = replace(deployment, switches=replace(deployment.switches, num_gpu_blocks_override=blocks))
    return pooled.pool(model, deployment, max(1, kv_memory_bytes))


def pools_of_boot(model: ModelSpec, serving: Serving, found: Boot) -> Ends | None:
    """The pool that the engine's account leaves, and those of its spread's ends; None where nothing is left."""
    left, spread = found.kv_memory_bytes, found.spread_bytes
    if found.pool is None:
        return None
    return found.pool, pool_of(model, serving, max(1, left - spread)), pool_of(model, serving, left + spread)


def pools_of_memory(observation: Observation, model: ModelSpec, serving: Serving) -> Ends | None:
    """The pool of the memory that the log states, and those of its rounding's ends; None where it states none.

    TensorRT-LLM's C++ runtime states what the blocks took, not what it had for them.
    """
    memory = number(observation, "kv_memory")
    if memory is None and serving.engine.name == "trtllm":
        memory = number(observation, "kv_cache")
    if memory is None or memory[0] <= 0:
        return None
    if serving.engine.name == "vllm" and serving.pp > 1 and len(set(map(amount, _memories(observation)))) > 1:
        return _unlike_stages(observation, model, serving)
    middle, low, high = (pool_of(model, serving, round(memory[0] + change * memory[1])) for change in (0, -1, 1))
    return middle, low, high


def _memories(observation: Observation) -> tuple[Figure, ...]:
    return observation.figures["kv_memory"]


def _unlike_stages(observation: Observation, model: ModelSpec, serving: Serving) -> Ends:
    """The pool of stages with unlike memory: that with the fewest blocks rules, which need not have the least bytes.

    Where it is not told which stage printed what, the fewest and the most blocks that it may be are the ends.
    """
    rules, _, _ = rules_of(serving.engine.version)
    sizes = layout(model, serving.deployment, rules).bytes_per_block
    found: list[tuple[int, int, int]] = []
    for figure in _memories(observation):
        value, half = (round(part) for part in amount(figure))
        stage = stage_of(figure, serving.pp)
        widest, narrowest = (max(sizes), min(sizes)) if stage is None else (sizes[stage], sizes[stage])
        found.append((value // widest, (value - half) // widest, (value + half) // narrowest))
    middle, low, high = (
        pool_of(model, serving, max(1, min(blocks[end] for blocks in found)) * max(sizes)) for end in range(3)
    )
    return middle, low, high


def given_rows(observation: Observation, model: ModelSpec, serving: Serving) -> list[Row]:
    """Blocks, tokens and requests of what the log states; of a start that failed, what one request needs."""
    rows = _given_rows(observation, model, serving)
    if serving.engine.name == "vllm" and not _draft_is_known(model, serving):
        rows = [replace(row, judged=None, basis="assumed" if row.basis else None) for row in rows]
    return rows


def _draft_is_known(model: ModelSpec, serving: Serving) -> bool:
    """Whether what drafts is known: its layers hold a cache, too."""
    try:
        draft_weights(model, serving.deployment, serving.pp - 1)
    except KvplanError:
        return False
    return True


def _given_rows(observation: Observation, model: ModelSpec, serving: Serving) -> list[Row]:
    ends = pools_of_memory(observation, model, serving)
    rows = []
    if ends is not None:
        rows += _figure_rows("given", observation, ends, ("num_blocks",), rounding=True)
        if serving.engine.name != "trtllm":  # of which the size that is printed is what was told to it
            rows += _block_size_row(observation, ends[0])
        rows += _failed_rows(observation, ends)
    if serving.engine.name == "vllm":
        return rows + _vllm_rows(observation, model, serving, ends)
    if ends is not None:
        rows += _figure_rows("given", observation, ends, ("num_tokens",), rounding=True)
        rows += _trtllm_rows(observation, ends[0])
    return rows if _format_is_told(observation) else [_of_a_format(row, serving) for row in rows]


def _format_is_told(observation: Observation) -> bool:
    """Whether the log tells what TensorRT-LLM's cache is in: an engine may have been built with another format."""
    told = observation.options.get("kv_dtype") not in (None, "auto")
    return told or bool(observation.figures.keys() & {"kv_memory", "bytes_per_token"})


def _of_a_format(row: Row, serving: Serving) -> Row:
    """A row that is equal shows the format; one that is not may be of another, and is no error of either side."""
    if row.verdict == "equal":
        return row
    why = f"the log does not tell the cache's format: taken as {serving.kv_dtype.name}"
    return replace(row, judged=None, basis="assumed", why=why)


def flags_rows(observation: Observation, ends: Ends, basis: Basis) -> list[Row]:
    """Blocks, tokens and requests from GPU, flags and model alone."""
    figures = ("num_blocks", "num_tokens", "max_concurrency")
    return _figure_rows("flags", observation, ends, figures, basis=basis)


_NAMES = {"num_blocks": ("blocks", "blocks"), "num_tokens": ("tokens", "tokens")}


def _figure_rows(
    section: Section,
    observation: Observation,
    ends: Ends,
    keys: tuple[str, ...],
    *,
    basis: Basis = "exact",
    rounding: bool = False,
) -> list[Row]:
    rows = []
    for key in keys:
        seen = number(observation, key)
        if seen is None or (key == "max_concurrency" and _length(observation) != ends[0].max_model_len):
            continue
        name, unit = _NAMES.get(key, (f"requests of {ends[0].max_model_len:,}", "requests"))
        middle, low, high = (getattr(pool, key) for pool in ends)
        why = _why(key, ends[0]) if section == "given" else ""
        rows.append(
            make_row(
                section,
                name,
                seen,
                (middle, low, high),
                unit=unit,
                basis=basis,
                rounding=rounding,
                judged="exact" if rounding else None,
                why=why,
            )
        )
    return rows


def _vllm_rows(observation: Observation, model: ModelSpec, serving: Serving, ends: Ends | None) -> list[Row]:
    """Tokens of the blocks, requests of the tokens: each from the figure before it that is whole."""
    left = _blocks_open(observation, model, serving, ends)
    if left is None:
        return []
    few, many = (pool_of(model, serving, 1, blocks) for blocks in left)
    middle = min(max(ends[0].num_blocks, left[0]), left[1]) if ends else left[0]
    bounds = pool_of(model, serving, 1, middle), few, many
    keys = ("num_tokens", "max_concurrency") if ends or whole(observation, "num_blocks") else ("max_concurrency",)
    return _figure_rows("given", observation, bounds, keys, rounding=True)


def _blocks_open(
    observation: Observation, model: ModelSpec, serving: Serving, ends: Ends | None
) -> tuple[int, int] | None:
    """(fewest, most) blocks that the log leaves open; None where it tells nothing of them."""
    override = serving.switches.num_gpu_blocks_override
    blocks = override or whole(observation, "num_blocks")
    if blocks:
        return blocks, blocks
    low, high = (ends[1].num_blocks, ends[2].num_blocks) if ends else (1, _MOST_BLOCKS)
    tokens = whole(observation, "num_tokens")
    if tokens is None:
        return (max(1, low), max(1, high)) if ends else None
    first = _first_block(model, serving, tokens, low, high)
    last = _first_block(model, serving, tokens + 1, low, high + 1) - 1
    if first > last or pool_of(model, serving, 1, max(1, first)).num_tokens != tokens:
        return (max(1, low), max(1, high)) if ends else None
    return max(1, first), last


def _first_block(model: ModelSpec, serving: Serving, tokens: int, low: int, high: int) -> int:
    """The fewest blocks from `low` to `high` that hold so many tokens; `high` where none do."""
    while low < high:
        middle = (low + high) // 2
        if pool_of(model, serving, 1, middle).num_tokens >= tokens:
            high = middle
        else:
            low = middle + 1
    return low


def _block_size_row(observation: Observation, pool: KVPool) -> list[Row]:
    """Tokens of a block, where the engine says that it set them or how many there are."""
    stated = observation.facts.get("block_size", "")
    size = whole(observation, "block_size") or (int(stated) if stated.isdigit() else None)
    if size is None:
        return []
    why = "enlarged until a block holds a recurrent state" if any(g.kind == "linear" for g in pool.groups) else ""
    row = make_row(
        "given", "tokens of a block", (size, 0), exactly(pool.block_size),
        unit="tokens", basis="exact", judged="exact", why=why,
    )  # fmt: skip
    return [row]


def _failed_rows(observation: Observation, ends: Ends) -> list[Row]:
    """What the engine says that one request needs, and the longest that it says would fit."""
    rows: list[Row] = []
    pool = ends[0]
    needed, longest = number(observation, "needed"), number(observation, "estimated_max_len")
    if needed is not None and whole(observation, "needed_len") == pool.max_model_len:
        name = f"one request of {pool.max_model_len:,}"
        predicted = exactly(pool.blocks_per_request * pool.bytes_per_block)
        why = f"{pool.blocks_per_request:,} blocks of {pool.bytes_per_block:,} bytes"
        rows.append(make_row("given", name, needed, predicted, basis="exact", judged="exact", why=why))
    if longest is not None:
        bounds = (pool.longest_request, ends[1].longest_request, ends[2].longest_request)
        name = "longest that fits"
        row = make_row("given", name, longest, bounds, unit="tokens", basis="exact", rounding=True, judged="exact")
        rows.append(row)
    return rows


def _trtllm_rows(observation: Observation, pool: KVPool) -> list[Row]:
    """Bytes of a token, and of the tokens that were allocated."""
    rows = []
    each = number(observation, "bytes_per_token")
    per_token = pool.bytes_per_block // pool.block_size
    if each is not None:
        rows.append(make_row("given", "bytes of a token", each, exactly(per_token), basis="exact", judged="exact"))
    held, tokens = number(observation, "kv_cache"), whole(observation, "num_tokens")
    if held is not None and tokens is not None and len(pool.groups) == 1 and "kv_memory" in observation.figures:
        predicted = exactly(tokens * per_token)
        rows.append(make_row("given", f"cache of {tokens:,} tokens", held, predicted, basis="exact", judged="exact"))
    return rows


def _length(observation: Observation) -> int | None:
    return whole(observation, "concurrency_len")


def _why(key: str, pool: KVPool) -> str:
    """How the engine counts."""
    padding: Number = sum(group.padding_layers for group in pool.groups)
    if key == "num_blocks":
        padded = f", padding of {padding} layers that are not there included" if padding else ""
        return f"{pool.bytes_per_block:,} bytes a block{padded}"
    if key == "num_tokens" and any(note.startswith('"GPU KV cache size"') for note in pool.notes):
        return f"counted as blocks // {len(pool.groups)} groups · block size: requests cannot hold as many"
    if key == "max_concurrency":
        return f"{pool.blocks_per_request:,} blocks a request"
    return ""
