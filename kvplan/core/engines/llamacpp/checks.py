"""What llama.cpp refuses before it allocates anything, and what kvplan cannot say of it.

Source: llama.cpp b11434, src/llama-context.cpp `llama_init_from_model`
"""

from kvplan.core.dtypes import DType
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.llamacpp.architectures import (
    LATENT_CACHES,
    SHARES_ONE_WIDTH,
    architecture_of,
    latent_cache,
)
from kvplan.core.engines.llamacpp.cells import check_sizes
from kvplan.core.engines.llamacpp.devices import split_of
from kvplan.core.errors import InputError
from kvplan.core.mixers import (
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    SlidingAttention,
)
from kvplan.core.model import ModelSpec

FORMATS = ("fp32", "fp16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""What `--cache-type-k` and `--cache-type-v` take (common/arg.cpp `kv_cache_types`)."""


def check(model: ModelSpec, deployment: Deployment) -> None:
    """Raises InputError for what llama.cpp refuses, and for a layout that kvplan does not know of it."""
    check_sizes(deployment)
    _check_device(deployment)
    _check_formats(model, deployment)
    _check_layout(model, deployment)
    crosses = any(isinstance(m, CrossAttention) for layer in model.layers for m in layer.mixers)
    if crosses and architecture_of(model) != "t5":
        raise InputError(
            f"llama.cpp does not run `{model.model_type}`: of models with cross-attention it has T5 alone",
            hint="another engine, e.g. `transformers`",
        )


def _check_device(deployment: Deployment) -> None:
    """ggml has backends for GPUs of any maker (ggml/src/ggml-cuda, -hip, -metal, -sycl, -vulkan), none for others."""
    gpu = deployment.gpu
    if gpu is not None and (gpu.vendor in ("Google", "AWS") or gpu.name.startswith("Gaudi")):
        raise InputError(f"{gpu.name} is no device that llama.cpp has a backend for", hint="a GPU, or another engine")


def _check_layout(model: ModelSpec, deployment: Deployment) -> None:
    ways = {"tp": deployment.tp, "dcp": deployment.dcp, "pcp": deployment.pcp}
    for name, count in ways.items():
        if count > 1:
            raise InputError(
                f"kvplan knows llama.cpp's split by whole layers only, not `{name}` of {count}",
                hint="`pp` or `tensor_split` deals layers to devices (`--split-mode layer`)",
            )
    split = deployment.switches.tensor_split
    if split and deployment.pp not in (1, len(split)):
        raise InputError(
            f"`tensor_split` names {len(split)} devices, `pp` is {deployment.pp}", hint="leave one of them out"
        )
    if deployment.memory_share is not None:
        raise InputError(
            "llama.cpp has no share of a device's memory", hint="it takes what `-c` asks for; leave the share out"
        )
    split_of(model, deployment)


def _check_formats(model: ModelSpec, deployment: Deployment) -> None:
    for dtype in (deployment.key_dtype, deployment.value_dtype):
        if dtype.name not in FORMATS:
            raise InputError(
                f"`{dtype.name}` is not a format of llama.cpp's cache", hint=f"one of {', '.join(FORMATS)}"
            )
    transposed = deployment.switches.flash_attention is False and not _has_one_vector(model, deployment)
    if _in_blocks(deployment.value_dtype) and transposed:
        raise InputError(
            f"llama.cpp keeps values in {deployment.value_dtype.name} with flash attention only",
            hint="leave flash attention on, or values in fp16",
        )
    layout = deployment.switches.latent_cache
    if layout is not None and layout not in LATENT_CACHES:
        raise InputError(f"`latent_cache` cannot be `{layout[:40]}`", hint=f"one of {', '.join(LATENT_CACHES)}")
    if deployment.key_dtype != deployment.value_dtype and _has_one_vector(model, deployment):
        raise InputError(
            f"llama.cpp keeps keys and values of `{model.model_type}` in one format, not "
            f"{deployment.key_dtype.name} and {deployment.value_dtype.name}",
            hint="they are one vector: name one format",
        )
    for keys, values in sorted(_head_dims(model, deployment)):
        for dtype, dim in ((deployment.key_dtype, keys), (deployment.value_dtype, values)):
            if dtype.group_size and dim % dtype.group_size:
                raise InputError(
                    f"heads of {dim} elements are no whole blocks of {dtype.group_size} of {dtype.name}",
                    hint="fp16, bf16 or fp32",
                )


def _in_blocks(dtype: DType) -> bool:
    return dtype.group_size is not None


def _has_one_vector(model: ModelSpec, deployment: Deployment) -> bool:
    """Whether keys and values are the same vector: latents alone, DeepSeek V4."""
    latent = any(isinstance(m, LatentAttention) for layer in model.layers for m in layer.mixers)
    alone = latent and latent_cache(model, deployment) == "alone"
    return alone or architecture_of(model) in SHARES_ONE_WIDTH


def _head_dims(model: ModelSpec, deployment: Deployment) -> set[tuple[int, int]]:
    """(elements of a key, of a value) for each kind of vector that the cache holds; 0 where there is none."""
    dims: set[tuple[int, int]] = set()
    layout = latent_cache(model, deployment)
    for layer in model.layers:
        for mixer in layer.mixers:
            if isinstance(mixer, LatentAttention) and layout != "expanded":
                values = mixer.latent_dim if layout == "with_values" else 0
                dims |= {(mixer.latent_dim + mixer.rope_dim, values), (mixer.index_dim, 0)}
            elif isinstance(mixer, CompressedAttention):
                dims |= {(mixer.head_dim, 0), (mixer.index_dim, 0)}
            elif isinstance(mixer, FullAttention | SlidingAttention | ChunkedAttention | LatentAttention):
                dims.add((mixer.key_dim, mixer.value_dim))
            if isinstance(mixer, FullAttention):
                dims.add((mixer.index_dim, 0))
    return dims
