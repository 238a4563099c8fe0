"""How many tokens vLLM puts into one block: what the attention kernel wants, and what recurrent states demand.

Source: vLLM 0.33, platforms/interface.py 720-1137; platforms/cuda.py 84-181 for the order of backends
"""

from math import lcm

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.vllm import compressed
from kvplan.core.engines.vllm.devices import architecture
from kvplan.core.engines.vllm.pages import Spec
from kvplan.core.engines.vllm.rules import Rules
from kvplan.core.engines.vllm.specs import (
    TURBOQUANT_PREFIX,
    attention_heads,
    latent_mixers,
    layer_specs,
    skipped_layers,
)
from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.mixers import (
    ChunkedAttention,
    FullAttention,
    SharedAttention,
    SlidingAttention,
    StateMixer,
)
from kvplan.core.model import ModelSpec
from kvplan.core.units import ceil_div

DEFAULT_BLOCK = 16
KERNEL_BLOCKS = {
    "FLASH_ATTN": 16, "FLASHINFER": 16, "TRITON_ATTN": 16, "FLEX_ATTENTION": 16, "TURBOQUANT": 16, "XFORMERS": 16,
    "ROCM_ATTN": 16, "ROCM_AITER_FA": 16, "ROCM_AITER_UNIFIED_ATTN": 16, "TORCH_SDPA": 16, "CPU_ATTN": 128,
    "TREE_ATTN": 16, "FLASH_ATTN_MLA": 16, "TRITON_MLA": 16, "FLASHMLA": 64, "CUTLASS_MLA": 128,
    "FLASHINFER_MLA": 32, "FLASHMLA_SPARSE": 64, "FLASHINFER_MLA_SPARSE": 64, "ROCM_AITER_MLA": 1,
    **dict.fromkeys(compressed.BACKENDS, compressed.BLOCK),
}  # fmt: skip
"""Tokens of the smallest block that a backend's kernels take, where nobody asks for another."""
_BLOCKS_UNKNOWN = frozenset({
    "FLASH_ATTN_DIFFKV", "TRITON_ATTN_DIFFKV", "TRITON_FLASH_ATTN", "TRITON_FLASHINFER", "ROCM_SEGMENTED_ATTN",
    "ROCM_AITER_TRITON_MLA", "ROCM_AITER_MLA_SPARSE", "XPU_MLA_SPARSE", "TOKENSPEED_MLA", "FLASHINFER_MLA_SPARSE_SM120",
    "FLASHINFER_MLA_SPARSE_SM90", "ROCM_FLASHMLA_SPARSE_DSV4", "FLASHMLA_SPARSE_DSV41", "FLASHINFER_MLA_SPARSE_DSV41",
    "ROCM_FLASHMLA_SPARSE_DSV41", "FLASHMLA_MEGA_ATTN_DSV41", "B12X", "FLASH_ATTN_MLA_SPARSE",
    "FLASH_ATTN_MLA_SPARSE_FA4", "MINIMAX_M3_SPARSE", "CUTLASS_MSA", "TRITON_MSA", "STEP5_DSA", "NO_ATTENTION",
    "HPC_ATTN", "CPU_MLA", "AMX_MLA", "ROCM_OCTAVE", "ULTRAQUANT", "CUSTOM",
})  # fmt: skip
"""Further names of v1/attention/backends/registry.py of 0.33."""
MLA_HYBRID_BLOCK = 128
FLASHINFER_BLOCKS = (16, 32, 64, 128, 256, 512, 1024)
"""Those above 64 for grouped queries alone (v1/attention/backends/flashinfer.py 585-608)."""
HOPPER, BLACKWELL = 9, 10
WIDE_HEAD, WIDE_HEAD_BLOCK = 512, 64
IMAGE_PREFIXES = ("gemma3", "gemma4", "gemma4_unified")
"""Model types that attend both ways within an image (transformers_utils/model_arch_config_convertor.py)."""


def block_size(model: ModelSpec, deployment: Deployment, rules: Rules, *, aligned: bool) -> int:
    """Tokens of a block of the layers that attend to all tokens: as asked, else the backend's, then as many as needed.

    With recurrent layers, the least multiple of the kernel's block (and of the recurrence's chunk) whose page holds a
    state:

        a = max(kernel block, asked);  MLA: at least 128;  aligned: lcm(a, chunk)
        block = a · ⌈state / (a · bytes of one token)⌉

    Where some layers keep the model's dtype, the quantised ones' page also holds the least block of those.
    """
    if compressed.applies(model):
        asked_backend(model, deployment)
        return deployment.switches.block_size or compressed.BLOCK
    base = deployment.switches.block_size or _kernel_block(model, deployment, rules)
    quantised = [spec for _, spec in layer_specs(model, deployment, rules, base, aligned=aligned, all_quantised=True)]
    base = _for_states(quantised, base, aligned=aligned)
    return max(base, _for_plain_layers(model, deployment, rules, base))


def shared_page(model: ModelSpec, deployment: Deployment, rules: Rules, block: int) -> int | None:
    """Bytes that sliding and recurrent layers' pages are padded to where some layers keep the model's dtype."""
    if not skipped_layers(model, deployment):
        return None
    quantised, plain = _token_bytes(model, deployment, rules)
    return None if plain == quantised else block * quantised


def sliding_block(model: ModelSpec, deployment: Deployment, rules: Rules, token_bytes: int, page_bytes: int) -> int:
    """Tokens of the largest block of a sliding layer that a kernel takes and a page holds.

    Source: vLLM 0.33, attention.py `_largest_kernel_block_within`
    """
    least = DEFAULT_BLOCK
    if int(architecture(deployment)) == BLACKWELL:
        least = _kernel_block(model, deployment, rules)
    if least == DEFAULT_BLOCK and backend(model, deployment, rules) == "FLASHINFER":
        sizes = FLASHINFER_BLOCKS if _is_grouped(model) else FLASHINFER_BLOCKS[:3]
        return max((size for size in sizes if size * token_bytes <= page_bytes), default=least)
    if least != DEFAULT_BLOCK:
        return least
    return max(least, page_bytes // (least * token_bytes) * least)


def _is_grouped(model: ModelSpec) -> bool:
    mixers = [mixer for layer in model.layers for mixer in layer.mixers if not isinstance(mixer, StateMixer)]
    return all(mixer.num_heads > mixer.num_kv_heads for mixer in mixers)


def _kernel_block(model: ModelSpec, deployment: Deployment, rules: Rules) -> int:
    """Where nobody asks for another; 64 for kernels of wide heads: fp8 on Hopper, images' prefixes on Blackwell.

    Source: vLLM 0.33, v1/attention/backends/flash_attn.py 300-334, triton_flashinfer.py
    """
    dims = {mixer.key_dim for layer in model.layers for mixer in layer.mixers if not isinstance(mixer, StateMixer)}
    arch = int(architecture(deployment))
    if rules.prefill_checkpoints and not deployment.switches.attention_backend:
        fp8 = deployment.key_dtype.name == "fp8"
        if arch == HOPPER and fp8 and WIDE_HEAD in dims and not latent_mixers(model):
            return WIDE_HEAD_BLOCK
        if (
            arch == BLACKWELL
            and model.model_type in IMAGE_PREFIXES
            and dims <= {256, WIDE_HEAD}
            and not shares_caches(model)
        ):
            return WIDE_HEAD_BLOCK
    return max(DEFAULT_BLOCK, KERNEL_BLOCKS.get(backend(model, deployment, rules), DEFAULT_BLOCK))


def shares_caches(model: ModelSpec) -> bool:
    """Of Gemma 4, the models for devices: they share caches between layers, and read images' tokens in order."""
    return any(isinstance(mixer, SharedAttention) for layer in model.layers for mixer in layer.mixers)


def _for_states(specs: list[Spec], base: int, *, aligned: bool) -> int:
    states = [spec for spec in specs if spec.recurrent]
    tokens = [spec.token_bytes for spec in specs if spec.token_bytes and spec.kind != "indexer"]
    if not states or not tokens:
        return base
    if any(spec.is_latent for spec in specs):
        base = max(base, MLA_HYBRID_BLOCK)
    if aligned:
        base = lcm(base, *(spec.chunk for spec in states))
    return base * ceil_div(max(spec.state_bytes for spec in states), base * max(tokens))


def _for_plain_layers(model: ModelSpec, deployment: Deployment, rules: Rules, base: int) -> int:
    """The least multiple of `base` quantised tokens whose page holds the kernel's least block of plain ones."""
    if not skipped_layers(model, deployment):
        return base
    quantised, plain = _token_bytes(model, deployment, rules)
    least = _kernel_block(model, deployment, rules)
    return base * ceil_div(least * plain, base * quantised) if plain != quantised else base


def _token_bytes(model: ModelSpec, deployment: Deployment, rules: Rules) -> tuple[int, int]:
    """(quantised, in the model's dtype) bytes of a token with the model's most heads and widest head.

    Before the first layer's backend packs scales, quantised elements are counted as a byte each: so it is where the
    first layer is plain, as turboquant's always is, but for nvfp4, whose backend is the plain one's.

    Source: vLLM 0.33, platforms/interface.py 826-937
    """
    every = [mixer for layer in model.layers for mixer in layer.mixers]
    mixers = [mixer for mixer in every if isinstance(mixer, FullAttention | SlidingAttention | ChunkedAttention)]
    heads = max((attention_heads(mixer, deployment) for mixer in mixers), default=1)
    width = max((mixer.key_dim for mixer in mixers), default=1)
    plain = 2 * heads * deployment.dtype.vector_bytes(width)
    first = min((i for i, kind in enumerate(model.layer_order) if _attends(model, kind)), default=0)
    skipped = skipped_layers(model, deployment)
    name = deployment.key_dtype.name
    if name.startswith(TURBOQUANT_PREFIX) or (name != "nvfp4" and first in skipped):
        return 2 * heads * width, plain
    return heads * (deployment.key_dtype.vector_bytes(width) + deployment.value_dtype.vector_bytes(width)), plain


def _attends(model: ModelSpec, kind: int) -> bool:
    return any(not isinstance(mixer, StateMixer) for mixer in model.layers[kind].mixers)


def backend(model: ModelSpec, deployment: Deployment, rules: Rules) -> str:
    """The attention backend: as asked, else the one that vLLM tries first on such a GPU."""
    if asked := asked_backend(model, deployment):
        return asked
    arch = architecture(deployment)
    if deployment.key_dtype.name.startswith("turboquant"):
        return "TURBOQUANT"
    latents = latent_mixers(model)
    if latents and rules.mla:
        return _latent_backend(arch, deployment, rules, sparse=any(mixer.index_dim for mixer in latents))
    if deployment.key_dtype.scale_bits and deployment.key_dtype.group_size is None:
        return "TRITON_ATTN"
    family, narrow = int(arch), deployment.key_dtype.bits < 16
    return "FLASHINFER" if family == BLACKWELL or (narrow and family != HOPPER) else "FLASH_ATTN"


def backend_name(asked: str) -> str:
    """As vLLM calls it now: 0.8 to 0.10 spelt some with `_VLLM_V1`."""
    return asked.upper().removesuffix("_VLLM_V1")


def asked_backend(model: ModelSpec, deployment: Deployment) -> str:
    """What was asked for, "" for nothing. Raises InputError for a backend that is not vLLM's, or not such a model's.

    UnsupportedError for one of which nothing more is known.
    """
    asked = deployment.switches.attention_backend or ""
    name = backend_name(asked)
    foreign = name in compressed.BACKENDS and not compressed.applies(model)
    if name in _BLOCKS_UNKNOWN:
        message = f"what blocks `{name}` takes is not known to kvplan"
        raise UnsupportedError(message, hint="leave `--attention-backend` out: the account is of what vLLM then takes")
    if name and (foreign or name not in KERNEL_BLOCKS):
        whose = f"an attention backend of `{model.model_type}`" if foreign else "an attention backend of vLLM"
        raise InputError(f"`{asked[:40]}` is not {whose}", hint=f"e.g. {', '.join(KERNEL_BLOCKS)}")
    return name


def _latent_backend(arch: float, deployment: Deployment, rules: Rules, *, sparse: bool) -> str:
    """Hopper: FlashAttention's kernel, for fp8 FlashMLA; Blackwell: FlashInfer's; before Hopper, and on 12.x: Triton's.

    Before 0.9.2 FlashMLA was Hopper's for every format, before 0.8 there was Triton's only.
    """
    if sparse:
        return "FLASHMLA_SPARSE" if arch < 10 else "FLASHINFER_MLA_SPARSE"
    if int(arch) in (BLACKWELL, 11):
        return "FLASHINFER_MLA"
    if int(arch) != HOPPER or not rules.windows:
        return "TRITON_MLA"
    packed = deployment.key_dtype.bits < 16
    return "FLASHMLA" if packed or not rules.hybrid_groups else "FLASH_ATTN_MLA"
