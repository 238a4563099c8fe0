"""What vLLM has no attention kernel for, and where its models end: formats, blocks, stages, groups of a recurrence.

Held to vLLM 0.33, whose own planning refused each of these; older releases are not judged, but for the groups.

Sources: v1/attention/backends/ (`validate_configuration` of each backend); v1/core/kv_cache_planning.py 744-870;
config/vllm.py `validate_nvfp4_kv_cache_with_mla`; layers/mamba/mamba_mixer2.py 310-330.
"""

from kvplan.core.engines.accelerators import on_rocm
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.vllm.backends import SINKS
from kvplan.core.engines.vllm.blocks import DEFAULT_BLOCK, HOPPER, IMAGE_PREFIXES
from kvplan.core.engines.vllm.compressed import check_compressed
from kvplan.core.engines.vllm.devices import architecture
from kvplan.core.engines.vllm.rules import Rules, numbers
from kvplan.core.engines.vllm.specs import TURBOQUANT_PREFIX, has_attention, has_states, latent_mixers
from kvplan.core.errors import InputError
from kvplan.core.mixers import (
    ChunkedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    LinearAttention,
    Mixer,
    SharedAttention,
    SlidingAttention,
)
from kvplan.core.model import ModelSpec

JUDGED = (0, 33)
ONE_STAGE = ("gemma3n", "gemma3n_text", "whisper", "zamba2", "mamba2")
"""Model types whose classes are not made for pipeline stages."""
SPARSE_BLOCK = 64


def check_kernels(model: ModelSpec, deployment: Deployment, rules: Rules) -> None:
    """Raises InputError for what no kernel takes."""
    _check_groups(model, deployment)
    check_compressed(model, deployment, numbers(rules))
    if numbers(rules) < JUDGED:
        return
    _check_stages(model, deployment)
    _check_manager(model, deployment)
    _check_block(deployment)
    if latents := latent_mixers(model):
        _check_latents(latents, deployment)
    _check_uneven(model, deployment)
    _check_turboquant(model, deployment)
    _check_states(model, deployment)


def _mixers(model: ModelSpec) -> list[Mixer]:
    return [mixer for layer in model.layers for mixer in layer.mixers]


def _check_groups(model: ModelSpec, deployment: Deployment) -> None:
    """Mamba-2's groups are dealt out, or one is copied to every rank."""
    for mixer in _mixers(model):
        if isinstance(mixer, LinearAttention) and mixer.recurrence == "mamba2":
            groups, tp = mixer.num_key_heads, deployment.tp
            if groups > 1 and groups % tp:
                message = f"{groups} groups of `{model.id}`'s recurrence cannot be dealt out to `tp` {tp}"
                raise InputError(message, hint=f"a `tp` that divides {groups}")


def _check_stages(model: ModelSpec, deployment: Deployment) -> None:
    if deployment.pp > 1 and model.model_type in ONE_STAGE:
        raise InputError(f"vLLM does not deal `{model.model_type}` out to pipeline stages", hint="`--tp` instead")


def _check_manager(model: ModelSpec, deployment: Deployment) -> None:
    if deployment.switches.hybrid_manager is False and has_states(model) and has_attention(model):
        message = f"without its hybrid manager vLLM cannot hold `{model.id}`: states beside keys and values"
        raise InputError(message, hint="leave the hybrid KV cache manager on")


def _check_block(deployment: Deployment) -> None:
    """CUDA's kernels take multiples of 16 (`get_supported_kernel_block_sizes`); those of ROCm take others, too."""
    block, backend = deployment.switches.block_size, deployment.switches.attention_backend or ""
    takes_any = backend.upper().startswith("ROCM") if backend else on_rocm(deployment.gpu)
    if block is not None and block % DEFAULT_BLOCK and not takes_any:
        message = f"no attention kernel of vLLM takes blocks of {block} tokens"
        raise InputError(message, hint=f"a multiple of {DEFAULT_BLOCK}")


def _check_latents(latents: list[LatentAttention], deployment: Deployment) -> None:
    key, arch = deployment.key_dtype, architecture(deployment)
    if (key.scale_bits and key.group_size is None) or key.name in ("nvfp4", "int8", "int4"):
        hint = "`--kv-dtype fp8`, or that of the model"
        raise InputError(f"vLLM has no kernel for latents in {key.name}", hint=hint)
    if not any(mixer.index_dim for mixer in latents):
        return
    if arch < 9:
        raise InputError(f"sparse attention needs compute capability 9.0, this GPU has {arch}", hint="e.g. an H100")
    block = deployment.switches.block_size
    if block is not None and block % SPARSE_BLOCK and not on_rocm(deployment.gpu):
        raise InputError(f"blocks of {block} tokens fit no sparse kernel", hint=f"`--block-size {SPARSE_BLOCK}`")
    if deployment.dcp > 1 and arch < 10 and key.bits > 8:
        raise InputError("with `dcp` the sparse kernel reads an fp8 cache only", hint="`--kv-dtype fp8`")


def _check_uneven(model: ModelSpec, deployment: Deployment) -> None:
    """Keys wider than values: FlashAttention's kernel alone, with fp8 on Hopper alone, without scales a token."""
    key = deployment.key_dtype
    uneven = (SlidingAttention, FullAttention)
    odd = any(isinstance(mixer, uneven) and mixer.key_dim != mixer.value_dim for mixer in _mixers(model))
    if odd and key.bits < 16 and not (key.name == "fp8" and int(architecture(deployment)) == HOPPER):
        message = f"vLLM has no kernel for `{model.id}`'s keys and values of unlike width in {key.name} on this GPU"
        raise InputError(message, hint="a KV cache in the model's dtype")


def _check_turboquant(model: ModelSpec, deployment: Deployment) -> None:
    if not deployment.key_dtype.name.startswith(TURBOQUANT_PREFIX):
        return
    windows = any(isinstance(mixer, SlidingAttention | ChunkedAttention | CrossAttention) for mixer in _mixers(model))
    if windows or latent_mixers(model) or model.model_type in (*SINKS, *IMAGE_PREFIXES):
        message = f"turboquant's kernel takes none of `{model.id}`'s windows, latents, sinks or images"
        raise InputError(message, hint="`--kv-dtype fp8`")


def _check_states(model: ModelSpec, deployment: Deployment) -> None:
    kda = any(isinstance(mixer, LinearAttention) and mixer.recurrence == "kda" for mixer in _mixers(model))
    if kda and deployment.switches.state_dtype in ("float16", "fp16"):
        raise InputError("KDA's states are fp32 or bf16", hint="leave `--mamba-ssm-cache-dtype` out")


def check_sharing(model: ModelSpec, bounds: list[tuple[int, int]], rules: Rules) -> None:
    """A layer that reads another's cache must stand on that one's stage.

    Raises InputError where a stage begins behind all layers that keep a cache.
    """
    if numbers(rules) < JUDGED:
        return
    kept = [i for i, kind in enumerate(model.layer_order) if _keeps(model, kind)]
    for start, _ in bounds[1:]:
        if kept and start > kept[-1] and any(isinstance(mixer, SharedAttention) for mixer in _mixers(model)):
            message = f"layers from {start} of `{model.id}` read caches of another pipeline stage"
            raise InputError(message, hint="fewer stages, `--tp` instead")


def _keeps(model: ModelSpec, kind: int) -> bool:
    return any(not isinstance(mixer, SharedAttention) for mixer in model.layers[kind].mixers)
