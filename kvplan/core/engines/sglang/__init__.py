"""SGLang: two pools of token slots at most, one of recurrent states, sized by what weights leave.

`layers` says what one token takes, `states` what a recurrent state takes, `slots` how many of them the bytes give,
`pool` what is made of it, `budget` where the bytes come from, `drafts` and `adapters` what is loaded beside the model,
`checks` what is refused, `compressed` DeepSeek-V4.

Source: SGLang 0.5.23, sglang/srt/
"""

from dataclasses import replace
from functools import partial

from kvplan.core.cache import Cache
from kvplan.core.engines.deployment import Switches
from kvplan.core.engines.engine import Engine, Pooled
from kvplan.core.engines.sglang.budget import budget
from kvplan.core.engines.sglang.checks import check
from kvplan.core.engines.sglang.drafts import auto_dtype
from kvplan.core.engines.sglang.layers import dealt
from kvplan.core.engines.sglang.pool import ENGINE, VERSION, held, kinds, pool
from kvplan.core.engines.versions import chosen, release
from kvplan.core.hardware import Gpu
from kvplan.core.mixers import Mixer
from kvplan.core.model import ModelSpec


def _reserve(cache: Cache, mixer: Mixer) -> Cache:
    """Every layer keeps every token: whether sliding ones have a pool of their own, the model's class decides."""
    return cache if cache.max_tokens is None else replace(cache, max_tokens=None)


def _auto_kv_dtype(model: ModelSpec, gpu: Gpu | None, switches: Switches) -> str | None:
    """modelopt's FP8, and no other format or method.

    Source: SGLang 0.5.23, mem_cache/kv_cache_dtype.py `configure_kv_cache_dtype`
    """
    quant = model.quantization
    return "fp8" if quant is not None and quant.method.startswith("modelopt") and quant.kv_cache == "fp8" else None


OLDEST = "0.4"
"""From here on the pools are laid out alike, as far as public logs show."""
SWITCHES = frozenset({
    "max_num_seqs", "max_num_batched_tokens", "block_size", "prefix_caching", "enforce_eager", "attention_backend",
    "state_dtype", "conv_dtype", "num_speculative_tokens", "speculative_method", "draft_model", "stage_layers",
    "expert_parallel", "attention_dp", "swa_full_tokens_ratio", "mamba_full_memory_ratio", "cuda_graph_max_bs",
    "max_pool_tokens", "no_images", "states_apart", "cpu_offload_bytes", "max_loras", "max_lora_rank",
    "lora_target_modules",
})  # fmt: skip

SGLANG = Engine(
    name=ENGINE,
    version=VERSION,
    date="2026-11-30",
    reserve=_reserve,
    max_pass_tokens=8192,
    kv_dtypes=("fp32", "bf16", "fp16", "fp8", "nvfp4", "mxfp4", "mxfp8"),
    pooled=Pooled(
        pool=pool,
        budget=budget,
        held=held,
        kinds=kinds,
        check=check,
        stages=dealt,
        auto_dtype=auto_dtype,
        auto_kv_dtype=_auto_kv_dtype,
        default_share=None,
        reads_draft=frozenset({"eagle", "eagle3", "mtp", "draft_model"}),
        switches=SWITCHES,
    ),
)


DRAFT_FIRST = (0, 5, 14)
"""From here on what drafts is loaded before the pools are sized (managers/scheduler.py `init_memory_pools`)."""


def profile(version: str | None) -> Engine:
    """The one that kvplan knows, also for older versions, which it was not checked against."""
    found, newer = chosen(ENGINE, version, (OLDEST, VERSION))
    asked = version if found == OLDEST else newer
    if asked is None or SGLANG.pooled is None:
        return SGLANG
    sized = partial(budget, draft_first=release(asked) >= DRAFT_FIRST)
    return replace(SGLANG, newer=asked, pooled=replace(SGLANG.pooled, budget=sized))
