"""llama.cpp: a context of fixed cells, allocated when it starts; full, sliding and recurrent caches side by side.

Checked against build b11434: to the byte against libllama's own figures without weights. `Deployment.max_model_len` is
`-c`; `max_num_seqs` is n_seq_max, 1 where nothing is said, as in libllama, while llama-server by itself takes 4 that
share one buffer. Forks (ik_llama.cpp) and much older builds differ: they held latents expanded (see `latent_cache`),
and windows whole (`swa_full`), and gave the GPU the output last (`output_last`).
"""

from dataclasses import replace

from kvplan.core.cache import Cache
from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.engine import Engine, Pooled
from kvplan.core.engines.llamacpp.budget import budget
from kvplan.core.engines.llamacpp.cells import DEFAULT_UBATCH, PAD
from kvplan.core.engines.llamacpp.checks import FORMATS, check
from kvplan.core.engines.llamacpp.devices import dealt
from kvplan.core.engines.llamacpp.memory import STATE_BYTES, state_elements
from kvplan.core.engines.llamacpp.pool import held, pool
from kvplan.core.engines.pool import KVPool
from kvplan.core.engines.versions import chosen
from kvplan.core.hardware import Gpu
from kvplan.core.mixers import LinearAttention, Mixer, ShortConvolution
from kvplan.core.model import ModelSpec

_VERSION = "b11434"
_SWITCHES = frozenset({
    "max_num_seqs", "max_num_batched_tokens", "num_ubatch_tokens", "kv_unified", "swa_full", "flash_attention",
    "num_gpu_layers", "num_cpu_moe_layers", "tensor_split", "num_speculative_tokens", "speculative_method",
    "output_last", "latent_cache",
})  # fmt: skip


def _reserve(cache: Cache, mixer: Mixer) -> Cache:
    """One sequence's cells in 256s, states in F32; every token of a windowed layer, as most architectures hold them.

    Which windows are honoured depends on the model, which this does not see: `Pooled.held` is exact.
    """
    if isinstance(mixer, LinearAttention):
        return replace(cache, fixed_bytes=STATE_BYTES * state_elements(mixer))
    if isinstance(mixer, ShortConvolution):
        return replace(cache, fixed_bytes=STATE_BYTES * max(mixer.columns - 1, 0) * mixer.channels)
    if not cache.bytes_per_token:
        return cache
    return replace(cache, block_size=PAD, max_tokens=None)


def _pool(model: ModelSpec, deployment: Deployment, kv_memory_bytes: int | None) -> KVPool:
    return pool(model, deployment, kv_memory_bytes, version=_VERSION)


def _auto_kv_dtype(model: ModelSpec, gpu: Gpu | None, switches: Switches) -> str:
    """F16 whatever the model computes in (src/llama-context.cpp `llama_context_default_params`)."""
    return "fp16"


LLAMACPP = Engine(
    name="llamacpp",
    version=_VERSION,
    date="2026-11",
    reserve=_reserve,
    max_pass_tokens=DEFAULT_UBATCH,
    kv_dtypes=FORMATS,
    pooled=Pooled(
        pool=_pool,
        budget=budget,
        held=held,
        check=check,
        default_share=None,
        auto_kv_dtype=_auto_kv_dtype,
        switches=_SWITCHES,
        shares_length=True,
        stages=dealt,
        splits_layers=True,
    ),
)


def profile(version: str | None) -> Engine:
    """The one build that kvplan knows; an older one is refused, a newer one has its profile."""
    _, newer = chosen("llamacpp", version, (_VERSION,))
    return replace(LLAMACPP, newer=newer) if newer else LLAMACPP
