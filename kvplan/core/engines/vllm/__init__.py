"""vLLM: a pool of equal blocks that all layers share, sized by what a profile run leaves of the device.

The pool: `rules` what changed between versions, `pages` what a cache is, `specs` a layer's, `states` a recurrent one's,
`compressed` DeepSeek-V4's, `blocks` tokens of a block, `groups` which layers share blocks, `packed` unlike pages in one
block, `pool` what memory holds; `drafts` what drafts beside the model; `check` and `kernels` what is refused, `devices`
what is asked of a GPU.
The account: `defaults`, `runner`, `measured`, `activations`, `compiling`, `encoder`, `loading`, `extras`, `overheads`,
summed up in `budget`.
"""

from functools import partial

from kvplan.core.cache import Cache
from kvplan.core.dtypes import TURBOQUANT
from kvplan.core.engines.deployment import Switches
from kvplan.core.engines.engine import Engine, Pooled
from kvplan.core.engines.vllm import drafts, pool
from kvplan.core.engines.vllm.budget import budget
from kvplan.core.engines.vllm.check import check
from kvplan.core.engines.vllm.defaults import auto_dtype, default_max_num_seqs
from kvplan.core.engines.vllm.encoder import left_out
from kvplan.core.engines.vllm.formats import auto_kv_dtype
from kvplan.core.engines.vllm.rules import numbers, rules_of
from kvplan.core.mixers import Mixer

DATE = "2026-11-22"
_FOREIGN = {
    "swa_full_tokens_ratio", "mamba_full_memory_ratio", "states_apart", "max_pool_tokens", "num_ubatch_tokens",
    "kv_unified", "swa_full", "flash_attention", "num_gpu_layers", "num_cpu_moe_layers", "tensor_split", "attention_dp",
    "cache", "lora_target_modules", "output_last", "latent_cache",
}  # fmt: skip


def _reserve(cache: Cache, mixer: Mixer) -> Cache:
    """What a layer needs; blocks belong to groups of layers, and are counted there (`pool.held`)."""
    return cache


def profile(version: str | None) -> Engine:
    """The rules of `version`, or of the newest that is known. Raises InputError for one older than 0.5."""
    rules, known, newer = rules_of(version)
    return Engine(
        name="vllm",
        version=known,
        date=DATE,
        reserve=_reserve,
        max_pass_tokens=8192,
        kv_dtypes=(
            "fp32", "bf16", "fp16", "fp8", "int8", "int4", "fp8_per_token_head", "nvfp4", "fp8_ds_mla", "nvfp4_ds_mla",
            *TURBOQUANT,
        ),
        pooled=Pooled(
            pool=partial(pool.pool, rules=rules),
            budget=partial(budget, rules=rules),
            held=partial(pool.held, rules=rules),
            kinds=partial(pool.kinds, rules=rules),
            check=partial(check, rules=rules),
            stages=pool.stages,
            default_share=rules.default_share,
            switches=frozenset(Switches.__dataclass_fields__) - _FOREIGN,
            auto_dtype=partial(auto_dtype, release=numbers(rules)),
            auto_kv_dtype=partial(auto_kv_dtype, release=numbers(rules)),
            reads_draft=drafts.READ,
            assumes_draft=drafts.ASSUMED,
            draft_class=drafts.draft_class,
            leaves_out=partial(left_out, release=numbers(rules)),
            runs_at_once=partial(default_max_num_seqs, release=numbers(rules)),
        ),
        newer=newer,
    )  # fmt: skip
