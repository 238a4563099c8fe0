"""Bytes into slots of tokens: SGLang's full pool and its pool of sliding layers.

Source: SGLang 0.5.23, sglang/srt/model_executor/pool_configurator.py (`DefaultPoolConfigurator` 637-653,
`HybridSWAPoolConfigurator` 656-921, `SWAChunkCapPoolConfigurator` 924-1042)
"""

from dataclasses import dataclass

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.sglang.layers import Stage, is_dsa
from kvplan.core.engines.sglang.states import drafted_tokens, running_limit
from kvplan.core.model import ModelSpec
from kvplan.core.units import GIB, round_up, smaller

DEFAULT_SWA_RATIO = 0.8
EVICTION_INTERVAL = 128
"""SGLANG_SWA_EVICTION_INTERVAL: steps between two sweeps of what windows have left behind."""
CHUNKS_IN_FLIGHT = 2
"""With the overlap scheduler, which is the default."""

PAGE_SIZES = {"fa4": 128, "flashmla": 64, "cutlass_mla": 128, "trtllm_mla": 64, "trtllm_mha": 64}
"""Backends that ask for pages of more than one token."""

CHUNKED_PREFILL = ((20, 2048), (35, 4096), (60, 4096), (160, 8192))
"""(GiB of a device below which, `chunked_prefill_size`); above, 16384.

Source: arg_groups/memory_hook.py `handle_gpu_memory_settings`
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """Tokens that the pools of one stage hold."""

    full: int
    """Of the full pool; 0 where every layer slides."""
    sliding: int = 0

    @property
    def total(self) -> int:
        """`max_total_num_tokens`."""
        return self.full or self.sliding


def page_size(model: ModelSpec, deployment: Deployment) -> int:
    """Tokens of a page: 1, but 64 for DSA, and what some attention backends ask for."""
    if deployment.switches.block_size is not None:
        return deployment.switches.block_size
    return 64 if is_dsa(model) else PAGE_SIZES.get(deployment.switches.attention_backend or "", 1)


def chunked_prefill(deployment: Deployment) -> int:
    """Tokens of one prefill pass; 4096 where the device is not known."""
    if deployment.switches.max_num_batched_tokens is not None:
        return deployment.switches.max_num_batched_tokens
    if deployment.gpu is None or deployment.gpu.memory_bytes is None:
        return 4096
    return next((size for gib, size in CHUNKED_PREFILL if deployment.gpu.memory_bytes < gib * GIB), 16384)


def cell_size(stage: Stage, deployment: Deployment) -> float:
    """Bytes of one token of `max_total_num_tokens` over all layers; a fraction where sliding layers have a pool.

    one pool   Σ layers + draft
    two pools  full · (L_full + draft) + ratio · sliding · (L_sliding + draft)        all sliding: no ratio
    """
    if not stage.sliding:
        return stage.full_bytes + stage.draft_bytes + stage.workspace_token_bytes
    if not stage.full:
        return stage.sliding_bytes + stage.draft_sliding_bytes + stage.draft_bytes
    # SGLang's own order of operations, in doubles: gpt-oss-20b's 44,236.8 comes out as it does there.
    sliding = sum(swa_ratio(deployment) * group.token_bytes * group.count for group in stage.sliding)
    return stage.full_bytes + stage.draft_bytes + sliding + swa_ratio(deployment) * stage.draft_sliding_bytes


def swa_ratio(deployment: Deployment) -> float:
    """Slots of sliding layers over those of full ones."""
    given = deployment.switches.swa_full_tokens_ratio
    return DEFAULT_SWA_RATIO if given is None else given


def slots_for(stage: Stage, deployment: Deployment, kv_bytes: int, page: int, window: int | None = None) -> Slots:
    """The slots that `kv_bytes` give, after states have had their share.

    one pool: tokens = ⌊bytes / cell⌋ in whole pages; two: sliding = ⌊tokens · ratio⌋ in whole pages. Without the radix
    cache and with `max_running_requests`, sliding layers get what so many requests hold, and full ones the rest.
    A stage without keys and values sets no limit: its slots are -1.
    """
    cell = cell_size(stage, deployment)
    if not cell:
        return Slots(full=-1)
    cap = swa_cap(deployment, page, window)
    if cap is not None and stage.full and stage.sliding:
        left = kv_bytes - cap * (stage.sliding_bytes + stage.draft_sliding_bytes)
        full = max(left, 0) // (stage.full_bytes + stage.draft_bytes) // page * page
        return Slots(full=full, sliding=cap)
    return slots_of(stage, deployment, int(kv_bytes // cell), page)


def slots_of(stage: Stage, deployment: Deployment, tokens: int, page: int, window: int | None = None) -> Slots:
    """The slots where `max_total_num_tokens` is `tokens`, because another stage or the user says so."""
    tokens = tokens // page * page
    if not stage.sliding:
        return Slots(full=tokens)
    if not stage.full:
        return Slots(full=0, sliding=tokens)
    cap = swa_cap(deployment, page, window)
    sliding = int(tokens * swa_ratio(deployment)) // page * page if cap is None else min(cap, tokens)
    return Slots(full=tokens, sliding=sliding)


def swa_cap(deployment: Deployment, page: int, window: int | None) -> int | None:
    """Slots of sliding layers by the number of requests; None where SGLang goes by the ratio."""
    requests = running_limit(deployment)
    if requests is None or deployment.switches.prefix_caching is not False or window is None:
        return None
    return round_up(sliding_tokens(deployment, page, window, requests), page)


def sliding_tokens(deployment: Deployment, page: int, window: int, requests: int) -> int:
    """The most slots of sliding layers that so many long requests hold at once.

    requests · (window + interval · draft + page + step) + chunks in flight · chunk + page
    """
    chunk = chunked_prefill(deployment) // (deployment.dp if deployment.switches.attention_dp else 1)
    return requests * per_request(deployment, page, window) + CHUNKS_IN_FLIGHT * chunk + page


def per_request(deployment: Deployment, page: int, window: int) -> int:
    """Slots of sliding layers that one decoding request holds at most: what no sweep has taken yet, and the next."""
    drafted = drafted_tokens(deployment)
    step = 2 * drafted if drafted else page
    return window + EVICTION_INTERVAL * max(drafted, 1) + page + step


def sliding_held(deployment: Deployment, page: int, window: int, tokens: int, requests: int) -> int:
    """Slots of sliding layers that requests of `tokens` tokens hold at most; int64 arrays too."""
    every_token = requests * round_up(tokens, page)
    return smaller(every_token, sliding_tokens(deployment, page, window, requests))
