"""TensorRT-LLM's PyTorch backend: blocks of 32 tokens, out of a share of what a trial run leaves.

The least verified of the engines: read from its source, and held to figures of public logs. What the trial run
takes is assumed, with a wide spread. The C++ engine path (`GptManager`) is not described here.

Source: TensorRT-LLM 1.2, tensorrt_llm/_torch/pyexecutor/_util.py and resource_manager.py
"""

from dataclasses import replace
from functools import partial

from kvplan.core.cache import Cache
from kvplan.core.engines.deployment import Switches
from kvplan.core.engines.engine import Engine, Pooled
from kvplan.core.engines.trtllm.budget import DEFAULT_SHARE, budget
from kvplan.core.engines.trtllm.checks import check
from kvplan.core.engines.trtllm.layers import MAX_NUM_TOKENS, TOKENS_PER_BLOCK, dealt
from kvplan.core.engines.trtllm.pool import VERSIONS, held, kinds, pool
from kvplan.core.engines.versions import chosen, release
from kvplan.core.hardware import Gpu
from kvplan.core.mixers import (
    ChunkedAttention,
    FullAttention,
    LatentAttention,
    Mixer,
    SharedAttention,
    SlidingAttention,
)
from kvplan.core.model import ModelSpec


def _reserve(cache: Cache, mixer: Mixer) -> Cache:
    """Whole blocks of 32 tokens; without `max_attention_window`, sliding layers keep every token too."""
    if not isinstance(mixer, FullAttention | SlidingAttention | ChunkedAttention | SharedAttention | LatentAttention):
        return cache
    return replace(cache, max_tokens=None, block_size=TOKENS_PER_BLOCK) if cache.bytes_per_token else cache


def _auto_kv_dtype(model: ModelSpec, gpu: Gpu | None, switches: Switches) -> str | None:
    """What modelopt states for the cache: FP8 or NVFP4.

    Source: TensorRT-LLM, llmapi/llm_args.py `KvCacheConfig.dtype`, llmapi/llm_utils.py
    `sync_quant_config_with_kv_cache_config_dtype`: `auto` leaves `kv_cache_quant_algo` as the checkpoint has it
    """
    quant = model.quantization
    stated = quant.kv_cache if quant is not None and quant.method.startswith("modelopt") else None
    return stated if stated in ("fp8", "nvfp4") else None


SWITCHES = frozenset({
    "max_num_seqs", "max_num_batched_tokens", "block_size", "prefix_caching", "enforce_eager", "hybrid_manager",
    "state_dtype", "conv_dtype", "num_speculative_tokens", "speculative_method", "expert_parallel", "attention_dp",
    "max_pool_tokens",
})  # fmt: skip


def profile(version: str | None) -> Engine:
    """Before 1.0, blocks were rounded up."""
    known, newer = chosen("trtllm", version, VERSIONS)
    sized = partial(pool, rounds_up=release(known) < (1, 0))
    return Engine(
        name="trtllm",
        version=known,
        date="2026-11-30",
        reserve=_reserve,
        max_pass_tokens=MAX_NUM_TOKENS,
        # Not fp32: a checkpoint is loaded in the dtype that it states (_torch/model_config.py, `torch_dtype`), and the
        # kernels refuse that one (https://github.com/NVIDIA/TensorRT-LLM/issues/5260).
        kv_dtypes=("bf16", "fp16", "fp8", "nvfp4"),
        pooled=Pooled(
            pool=sized,
            budget=budget,
            held=held,
            kinds=kinds,
            check=check,
            stages=dealt,
            auto_kv_dtype=_auto_kv_dtype,
            default_share=DEFAULT_SHARE,
            switches=SWITCHES,
            caps_pool=True,
        ),
        newer=newer,
    )
