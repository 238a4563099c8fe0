"""Which formats of the cache vLLM's attention kernels read, on which GPU.

fp8           FlashAttention's on Hopper, FlashInfer's from 8.0 on; Triton's, which take the rest, from 8.9 on
nvfp4         FlashInfer's alone: those for 10.x, and from 0.32 the FA2 ones for 8.x, 9.x and 12.x too
scales a token   Triton's alone

Source: vLLM 0.33, v1/attention/backends/flashinfer.py `supports_kv_cache_dtype`, `supports_combination`; triton_attn.py
`TritonAttentionImpl.__init__`, mla/triton_mla.py, in which the sentence about 8.9 is from 0.24 and 0.26 on.
"""

from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.vllm import compressed
from kvplan.core.engines.vllm.backends import (
    FLASHINFER_WIDTHS,
    SINKS,
    check_backend,
    flashinfer_widths,
    head_widths,
    images_in_order,
)
from kvplan.core.engines.vllm.blocks import BLACKWELL, backend
from kvplan.core.engines.vllm.devices import architecture
from kvplan.core.engines.vllm.rules import Rules, numbers
from kvplan.core.engines.vllm.specs import latent_mixers
from kvplan.core.errors import InputError
from kvplan.core.hardware import Gpu
from kvplan.core.mixers import CrossAttention
from kvplan.core.model import ModelSpec

PACKED = "_ds_mla"
NATIVE_FP8 = 8.9
"""The compute capability from which Triton's kernels read fp8."""
TRITON_REFUSES, LATENTS_REFUSE = (0, 24), (0, 26)
"""The releases that say so when they start; older ones fail in the kernel."""
FLASHINFER_FROM = 8.0
_MODELOPT_CACHES = {"fp8": (0, 14), "nvfp4": (0, 20)}
_FP8_BY_SCHEME = (0, 15)
_FP8_ON_BLACKWELL = {"glm_moe_dsa": (0, 32), "glm5_next": (0, 33), "glm5_next_text": (0, 33)}
"""model_executor/models/config.py `GlmMoeDsaForCausalLM`, `Glm5NextModelConfig`."""
FP4_ON_FA2 = (0, 32)
FP4_FAMILIES = (8, 9, 10, 12)


def auto_kv_dtype(model: ModelSpec, gpu: Gpu | None, switches: Switches, release: tuple[int, ...]) -> str | None:
    """What `--kv-cache-dtype auto` is where it is not the model's dtype; None where it is.

    DeepSeek-V4          packed rows, from 0.30
    GLM-5                fp8 on compute capability 10, from 0.32
    modelopt             FP8 from 0.14, NVFP4 from 0.20, where the checkpoint has scales for its cache
    compressed-tensors   FP8 from 0.15, but not for latent attention, whose layers do not ask

    Source: vLLM, utils/torch_utils.py `get_kv_cache_quant_algo_string`; layers/attention/attention.py
    `Attention.__init__` (before 0.16 attention/layer.py); pull requests 29980 and 30141
    """
    if compressed.applies(model):
        return (
            "fp8_ds_mla" if release >= compressed.BY_ITSELF_SINCE and not compressed.asks_plain(gpu, switches) else None
        )
    since = _FP8_ON_BLACKWELL.get(model.model_type)
    if since is not None and release >= since and gpu is not None and gpu.arch.partition(".")[0] == str(BLACKWELL):
        return "fp8"
    quant = model.quantization
    if quant is None or quant.kv_cache is None:
        return None
    if quant.method.startswith("modelopt"):
        since = _MODELOPT_CACHES.get(quant.kv_cache)
        return quant.kv_cache if since is not None and release >= since else None
    asked = quant.method == "compressed-tensors" and quant.kv_cache == "fp8" and not latent_mixers(model)
    return "fp8" if asked and release >= _FP8_BY_SCHEME else None


def check_formats(model: ModelSpec, deployment: Deployment, rules: Rules) -> None:
    """Raises InputError for a format that the GPU or its kernels do not have."""
    arch = architecture(deployment)
    key = deployment.key_dtype
    if key != deployment.value_dtype and not key.name.startswith("turboquant"):
        raise InputError("vLLM holds keys and values in one format", hint="name one, e.g. `--kv-dtype fp8`")
    if deployment.dtype.name == "bf16" and arch < 8:
        name = deployment.gpu.name if deployment.gpu else "this GPU"
        raise InputError(f"{name} has no bf16: its compute capability is {arch}", hint="`--dtype fp16`")
    check_backend(model, deployment, rules)
    if key.name in ("fp8", "fp8_per_token_head") and arch < NATIVE_FP8:
        _check_fp8(model, deployment, rules, arch)
    if key.name.endswith(PACKED):
        _check_packed(model, key.name, arch)
    if key.name == "nvfp4":
        _check_fp4(model, deployment, rules, arch)


def _check_fp8(model: ModelSpec, deployment: Deployment, rules: Rules, arch: float) -> None:
    """Before compute capability 8.9, a model whose attention only Triton's kernels take has no fp8 cache."""
    latents = bool(latent_mixers(model)) and rules.mla
    if numbers(rules) < (LATENTS_REFUSE if latents else TRITON_REFUSES):
        return
    if not (latents or _only_triton(model, deployment, rules, arch)):
        return
    message = f"the kernel for `{model.id}` reads an fp8 KV cache from compute capability {NATIVE_FP8} on"
    hint = f"`--kv-dtype {deployment.dtype.name}`" if latents else f"`--kv-dtype int8` or {deployment.dtype.name}"
    raise InputError(f"{message}, this GPU has {arch}", hint=hint)


def _check_packed(model: ModelSpec, name: str, arch: float) -> None:
    """DeepSeek's packed rows, which sparse latent attention alone reads; those of NVFP4 on compute capability 10.x.

    Source: vLLM 0.33, v1/attention/backends/mla/: flashmla_sparse.py, flashinfer_mla_sparse.py and its _sm120
    """
    if compressed.applies(model):
        return
    if not any(mixer.index_dim for mixer in latent_mixers(model)):
        message = f"{name} packs the rows of sparse latent attention, which `{model.id}` has not"
        raise InputError(message, hint="`--kv-dtype fp8`")
    if name.startswith("nvfp4") and int(arch) != BLACKWELL:
        message = f"{name} needs compute capability {BLACKWELL}.x, this GPU has {arch}"
        raise InputError(message, hint="`--kv-dtype fp8_ds_mla`")


def _only_triton(model: ModelSpec, deployment: Deployment, rules: Rules, arch: float) -> bool:
    if deployment.key_dtype.name != "fp8" or deployment.switches.attention_backend:
        return backend(model, deployment, rules) == "TRITON_ATTN"
    return arch < FLASHINFER_FROM or model.model_type in SINKS or not _flashinfer_takes(model)


def _check_fp4(model: ModelSpec, deployment: Deployment, rules: Rules, arch: float) -> None:
    family = int(arch)
    known = FP4_FAMILIES if numbers(rules) >= FP4_ON_FA2 else (BLACKWELL,)
    if family not in known:
        message = f"an nvfp4 KV cache needs compute capability {', '.join(f'{n}.x' for n in known)}"
        raise InputError(f"{message}, this GPU has {arch}", hint="`--kv-dtype fp8` or int4")
    if family != BLACKWELL and deployment.dcp > 1:
        raise InputError(f"with `dcp` no kernel reads an nvfp4 KV cache on this GPU ({arch})", hint="`--kv-dtype fp8`")
    narrow = family != BLACKWELL and (min(FLASHINFER_WIDTHS) in head_widths(model) or model.model_type in SINKS)
    crosses = any(isinstance(mixer, CrossAttention) for layer in model.layers for mixer in layer.mixers)
    if latent_mixers(model) or (not narrow and not crosses and _flashinfer_takes(model)):
        return
    message = f"FlashInfer's nvfp4 kernel does not take the attention of `{model.id}` on this GPU"
    sizes = FLASHINFER_WIDTHS if family == BLACKWELL else FLASHINFER_WIDTHS[1:]
    raise InputError(
        message,
        hint=f"`--kv-dtype fp8`; it takes heads of {', '.join(map(str, sizes))}, and no images' prefixes",
    )


def _flashinfer_takes(model: ModelSpec) -> bool:
    return flashinfer_widths(model) and not images_in_order(model)
