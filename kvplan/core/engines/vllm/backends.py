"""What an attention backend that is asked for takes: a format of the cache, a GPU, latents or not, a width of heads.

    backend                  cache beside 16 bits     compute capability    reads
    FLASH_ATTN               fp8 on 9.x and 10.x      8.0 to 12.x           keys and values
    FLASHINFER               fp8, nvfp4               8.0 to 12.x           those of heads of 64, 128, 256, 512
    TRITON_ATTN              fp8, scales a token      any                   keys and values
    FLEX_ATTENTION           none                     any                   keys and values, no sinks
    TURBOQUANT               turboquant alone         any                   keys and values
    TRITON_MLA               fp8                      any                   latents
    FLASH_ATTN_MLA           none                     9.x                   latents
    FLASHMLA                 fp8                      9.x                   latents
    CUTLASS_MLA, FLASHINFER_MLA   fp8                 10.x                  latents
    FLASHMLA_SPARSE          fp8 and packed rows      9.x, 10.x             latents that an indexer chooses
    FLASHINFER_MLA_SPARSE    fp8                      10.x                  latents that an indexer chooses

vLLM tries no other where one is named. A device without a compute capability is not judged by it. Held to 0.33, but for
nvfp4, which no release reads but by FlashInfer.

Source: vLLM 0.33, v1/attention/backend.py `validate_configuration`; in v1/attention/backends/ each one's
`supported_kv_cache_dtypes`, `supports_compute_capability`, `supports_head_size`, `is_mla`, `is_sparse`,
`supports_sink`; fa_utils.py 282-313; v1/attention/ops/flashmla.py 51-73; registry.py for the names
"""

from dataclasses import dataclass

from kvplan.core.engines.accelerators import on_rocm
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.vllm import compressed
from kvplan.core.engines.vllm.blocks import BLACKWELL, HOPPER, IMAGE_PREFIXES, asked_backend, shares_caches
from kvplan.core.engines.vllm.devices import architecture
from kvplan.core.engines.vllm.rules import Rules, numbers
from kvplan.core.engines.vllm.specs import TURBOQUANT_PREFIX, has_attention, latent_mixers
from kvplan.core.errors import InputError
from kvplan.core.mixers import StateMixer
from kvplan.core.model import ModelSpec

JUDGED = (0, 33)
SINKS = ("gpt_oss",)
FLASHINFER_WIDTHS = (64, 128, 256, 512)
_GONE = ("XFORMERS", "TREE_ATTN", "TORCH_SDPA")
"""Backends of earlier releases; the last is one for vision towers alone."""
_HALVES, _ALL = ("bf16", "fp16"), ("bf16", "fp16", "fp32")
_LATENTS = "latents"
_SPARSE = "latents that an indexer chooses"
_HEADS = "keys and values"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Backend:
    """What one takes, families of compute capability and formats by kvplan's names; no families = all."""

    caches: tuple[str, ...] = ()
    """Beside those of 16 bits."""
    families: tuple[int, ...] = ()
    reads: str = _HEADS
    dtypes: tuple[str, ...] = _HALVES
    sinks: bool = True


_BACKENDS = {
    "FLASH_ATTN": _Backend(caches=("fp8",), families=(8, 9, 10, 11, 12)),
    "FLASHINFER": _Backend(caches=("fp8", "nvfp4"), families=(8, 9, 10, 11, 12)),
    "TRITON_ATTN": _Backend(caches=("fp8", "int4", "int8", "fp8_per_token_head"), dtypes=_ALL),
    "FLEX_ATTENTION": _Backend(dtypes=_ALL, sinks=False),
    "TURBOQUANT": _Backend(sinks=False),
    "TRITON_MLA": _Backend(caches=("fp8",), reads=_LATENTS),
    "FLASH_ATTN_MLA": _Backend(families=(HOPPER,), reads=_LATENTS),
    "FLASHMLA": _Backend(caches=("fp8",), families=(HOPPER,), reads=_LATENTS),
    "CUTLASS_MLA": _Backend(caches=("fp8",), families=(BLACKWELL,), reads=_LATENTS),
    "FLASHINFER_MLA": _Backend(caches=("fp8",), families=(BLACKWELL,), reads=_LATENTS),
    "FLASHMLA_SPARSE": _Backend(
        caches=("fp8", "fp8_ds_mla", "nvfp4_ds_mla"), families=(HOPPER, BLACKWELL), reads=_SPARSE
    ),
    "FLASHINFER_MLA_SPARSE": _Backend(caches=("fp8",), families=(BLACKWELL,), reads=_SPARSE),
}
_FP8_OF_FLASH, _SINKS_SINCE = (HOPPER, BLACKWELL), 9


def check_backend(model: ModelSpec, deployment: Deployment, rules: Rules) -> None:
    """Raises InputError for a backend that vLLM has not, or that takes not what it is asked for."""
    name = asked_backend(model, deployment)
    known = _BACKENDS.get(name)
    if numbers(rules) < JUDGED:
        if known is not None and deployment.key_dtype.name == "nvfp4" and "nvfp4" not in known.caches:
            raise InputError(f"{name} reads no nvfp4 KV cache", hint="leave `--attention-backend` out")
        return
    if name in _GONE:
        message = f"`{name}` is not an attention backend of vLLM {rules.version}"
        raise InputError(message, hint=f"e.g. {', '.join(_BACKENDS)}")
    if known is None or compressed.applies(model) or not has_attention(model):
        return
    if on_rocm(deployment.gpu):
        return  # platforms/rocm.py takes others in their place
    refusal = _refusal(name, known, model, deployment, rules)
    if refusal is not None:
        raise InputError(f"{name} {refusal}", hint="leave `--attention-backend` out")


def _refusal(name: str, known: _Backend, model: ModelSpec, deployment: Deployment, rules: Rules) -> str | None:
    latents, arch = latent_mixers(model) if rules.mla else [], _capability(deployment)
    sparse = any(mixer.index_dim for mixer in latents)
    reads = _SPARSE if sparse else _LATENTS if latents else _HEADS
    if known.reads != reads:
        return f"reads {known.reads}, and `{model.id}` has {reads}"
    if arch is not None and known.families and int(arch) not in known.families:
        families = ", ".join(f"{family}.x" for family in known.families)
        return f"needs compute capability {families}, this GPU has {arch}"
    if deployment.dtype.name not in known.dtypes:
        return f"runs in {' or '.join(known.dtypes)}, not {deployment.dtype.name}"
    if not _reads_format(name, known, deployment.key_dtype.name, arch, deployment.dtype.name):
        return f"reads no KV cache in {deployment.key_dtype.name} on this GPU ({arch})"
    if model.model_type in SINKS and not _knows_sinks(name, known, arch):
        return f"knows no sinks on this GPU ({arch}), which `{model.id}` has"
    if name == "FLASHINFER" and not _flashinfer_takes(model, deployment):
        return f"does not take the attention of `{model.id}`"
    return None


def _capability(deployment: Deployment) -> float | None:
    gpu = deployment.gpu
    return architecture(deployment) if gpu is not None and gpu.arch.replace(".", "", 1).isdecimal() else None


def _knows_sinks(name: str, known: _Backend, arch: float | None) -> bool:
    return known.sinks and (name == "TRITON_ATTN" or arch is None or arch >= _SINKS_SINCE)


def _reads_format(name: str, known: _Backend, key: str, arch: float | None, dtype: str) -> bool:
    if name == "TURBOQUANT" or key.startswith(TURBOQUANT_PREFIX):
        return name == "TURBOQUANT" and key.startswith(TURBOQUANT_PREFIX)
    if key in _HALVES or key == dtype:
        return True
    return key in known.caches and (name != "FLASH_ATTN" or arch is None or int(arch) in _FP8_OF_FLASH)


def _flashinfer_takes(model: ModelSpec, deployment: Deployment) -> bool:
    return flashinfer_widths(model) and (deployment.switches.no_images or not images_in_order(model))


def flashinfer_widths(model: ModelSpec) -> bool:
    """Whether FlashInfer's kernels have all of a model's widths of heads."""
    return head_widths(model) <= {*FLASHINFER_WIDTHS}


def images_in_order(model: ModelSpec) -> bool:
    """Whether a model attends both ways within an image, which FlashInfer's kernels do not."""
    return model.model_type in IMAGE_PREFIXES and not shares_caches(model)


def head_widths(model: ModelSpec) -> set[int]:
    """Elements of the keys of every kind of layer that attends."""
    return {mixer.key_dim for layer in model.layers for mixer in layer.mixers if not isinstance(mixer, StateMixer)}
