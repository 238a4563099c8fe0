"""DeepSeek-V4 in SGLang: pools of whole tokens, of entries, and of what waits to become one.

Read from SGLang's source only: no log or run was at hand to hold the figures to.

Source: SGLang, sglang/srt/model_executor/pool_configurator.py `DSV4PoolConfigurator` (commit 003fca80),
mem_cache/deepseek_v4_memory_pool.py `get_compress_state_ring_size`
"""

from collections import Counter
from math import ceil

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.pool import KVPool, PoolGroup
from kvplan.core.engines.sglang.layers import pp_bounds
from kvplan.core.engines.sglang.slots import sliding_held
from kvplan.core.engines.sglang.states import running_limit
from kvplan.core.errors import InputError
from kvplan.core.mixers import CompressedAttention
from kvplan.core.model import ModelSpec
from kvplan.core.units import ceil_div, round_up

PAGE = 256
SWA_RATIO = 0.1
ROPE_DIM = 64
"""`qk_rope_head_dim` of every published DeepSeek-V4 config: the elements that are held in bf16, not fp8."""
_REQUESTS = (2048, 4096)


def applies(model: ModelSpec) -> bool:
    """Whether the model's layers fold tokens into entries."""
    return any(isinstance(mixer, CompressedAttention) for layer in model.layers for mixer in layer.mixers)


def vector_bytes(head_dim: int) -> int:
    """One vector: fp8 with 8 bytes of scales, its rotary part in bf16. 512 → 448 + 128 + 8 = 584."""
    return head_dim - ROPE_DIM + 2 * ROPE_DIM + 8


def sliding_bytes(mixer: CompressedAttention, ring: int) -> float:
    """Bytes of one slot of a layer's window: its vector, and with overlap the part of a ring that waits beside it.

    vector + ring / window · 4 · (head_dim + index_dim) · 4; what waits without overlap goes by requests
    """
    waiting = ring / mixer.window * 16 * (mixer.head_dim + mixer.index_dim) if mixer.overlaps else 0.0
    return vector_bytes(mixer.head_dim) + waiting


def entry_bytes(mixer: CompressedAttention) -> int:
    """Bytes of one entry: a vector, and its key for an indexer in fp8 with a scale for 128."""
    return vector_bytes(mixer.head_dim) + mixer.index_dim + mixer.index_dim // 128 * 4 if mixer.ratio else 0


def fixed_bytes(layers: list[CompressedAttention], requests: int, drafting: bool) -> int:
    """What waits in layers whose entries do not overlap: a ring of the ratio's length for each request, in fp32."""
    total = 0
    for mixer in layers:
        if mixer.ratio and not mixer.overlaps:
            ring = mixer.ratio * (2 if drafting else 1)
            total += round_up((requests + 2) * ring + 1, 128) * 2 * mixer.head_dim * 4
    return total


def pool(model: ModelSpec, deployment: Deployment, kv_memory_bytes: int | None) -> KVPool:
    """tokens = ⌊(bytes − fixed) / bytes per token⌋ in whole pages, the fewest of any stage."""
    if kv_memory_bytes is None:
        message = "SGLang makes its pools as large as the memory that is left, which is not known here"
        raise InputError(message, hint="give a GPU, or the bytes that are left for the cache")
    page = _page(deployment)
    found = []
    for layers in _stages(model, deployment):
        each = _token_bytes(layers, deployment)
        fixed = fixed_bytes(layers, _requests(deployment, int(kv_memory_bytes / each)), _drafts(deployment))
        found.append((int(max(kv_memory_bytes - fixed, 0) / each) // page * page, each, fixed, layers))
    tokens, each, fixed, layers = min(found, key=lambda stage: stage[0])
    cap = deployment.switches.max_pool_tokens
    tokens = tokens if cap is None else min(tokens, cap // page * page)
    length, requests = deployment.max_model_len, _requests(deployment, tokens)
    sliding = int(tokens * _ratio(deployment)) // page * page
    return KVPool(
        engine="sglang",
        version="0.5.23",
        kv_memory_bytes=kv_memory_bytes,
        allocated_bytes=ceil(each * (tokens + page)) + fixed if tokens else 0,
        block_size=page,
        bytes_per_block=int(each * page),
        num_blocks=tokens // page,
        num_tokens=tokens,
        max_concurrency=min(tokens / round_up(length, page), float(requests)),
        max_model_len=length,
        blocks_per_request=ceil_div(length, page),
        fits_one=tokens >= length,
        longest_request=min(tokens, length),
        groups=_groups(layers, deployment, page),
        notes=(
            f"DSV4 pool sizes: full={tokens}, swa={sliding}, c4={tokens // 4}, c128={tokens // 128}",
            f"max_total_num_tokens={tokens}, max_running_requests={requests}, context_len={length}",
            "read from SGLang's source; no run was at hand to compare with",
        ),
    )


def held(model: ModelSpec, deployment: Deployment, tokens: int, requests: int) -> tuple[int, ...]:
    """Bytes of each stage: entries of every token, and the slots of sliding layers that requests hold at most."""
    return tuple(sum(_held(layers, deployment, tokens, requests).values()) for layers in _stages(model, deployment))


def kinds(model: ModelSpec, deployment: Deployment, tokens: int, requests: int) -> dict[str, int]:
    """The same on one GPU by kind of layer."""
    (layers,) = _stages(model, deployment)
    return _held(layers, deployment, tokens, requests)


def _held(layers: list[CompressedAttention], deployment: Deployment, tokens: int, requests: int) -> dict[str, int]:
    page, drafting = _page(deployment), _drafts(deployment)
    window = max(mixer.window for mixer in layers) - 1
    slots = sliding_held(deployment, page, window, tokens, requests)
    found = {"sliding": slots * ceil(sum(sliding_bytes(mixer, _ring(deployment)) for mixer in layers))}
    for mixer in layers:
        if mixer.ratio:
            kind = "compressed_indexed" if mixer.index_dim else "compressed"
            entries = requests * (round_up(tokens, page) // mixer.ratio) * entry_bytes(mixer)
            waiting = requests * ceil_div(fixed_bytes([mixer], _REQUESTS[0], drafting), _REQUESTS[0])
            found[kind] = found.get(kind, 0) + entries + waiting
    return found


def _groups(layers: list[CompressedAttention], deployment: Deployment, page: int) -> tuple[PoolGroup, ...]:
    length = deployment.max_model_len
    window = max(mixer.window for mixer in layers)
    slots = sliding_held(deployment, page, window - 1, length, 1)
    sliding = PoolGroup(
        kind="sliding",
        num_layers=len(layers),
        block_size=page,
        page_bytes=page * vector_bytes(layers[0].head_dim),
        blocks_per_request=ceil_div(slots, page),
        window=window,
    )
    counts = Counter(mixer for mixer in layers if mixer.ratio)
    folded = (
        PoolGroup(
            kind=mixer.kind,
            num_layers=count,
            block_size=page,
            page_bytes=page // mixer.ratio * entry_bytes(mixer),
            blocks_per_request=ceil_div(length, page),
        )
        for mixer, count in counts.items()
    )
    return (sliding, *folded)


def _stages(model: ModelSpec, deployment: Deployment) -> list[list[CompressedAttention]]:
    mixers = [
        [mixer for mixer in model.layers[i].mixers if isinstance(mixer, CompressedAttention)] for i in model.layer_order
    ]
    bounds = pp_bounds(model.num_layers, deployment)
    return [[mixer for layer in mixers[start:stop] for mixer in layer] for start, stop in bounds]


def _token_bytes(layers: list[CompressedAttention], deployment: Deployment) -> float:
    """Bytes of one token of the full pool over a stage's layers, a drafting layer's share included."""
    ratio = _ratio(deployment)
    total = sum(
        ratio * sliding_bytes(mixer, _ring(deployment)) + entry_bytes(mixer) / max(mixer.ratio, 1) for mixer in layers
    )
    return total * (len(layers) + 1) / len(layers) if _drafts(deployment) else total


def _ring(deployment: Deployment) -> int:
    return 16 if _drafts(deployment) else 8


def _ratio(deployment: Deployment) -> float:
    given = deployment.switches.swa_full_tokens_ratio
    return SWA_RATIO if given is None else given


def _drafts(deployment: Deployment) -> bool:
    return deployment.switches.speculative_method not in (None, "ngram")


def _page(deployment: Deployment) -> int:
    page = deployment.switches.block_size or PAGE
    if page % 128:
        raise InputError(
            f"SGLang keeps DeepSeek-V4's cache in pages of 128 tokens or multiples, not {page}", hint="256"
        )
    return page


def _requests(deployment: Deployment, tokens: int) -> int:
    asked = running_limit(deployment)
    if asked is None:
        low, high = _REQUESTS
        asked = max(min(tokens * 512 // deployment.max_model_len, high), low)
    return min(asked, tokens // 2)
