"""How many tokens vLLM puts into one block: what the attention kernel wants, and what recurrent states demand.

Source: vLLM 0.33, platforms/interface.py 720-1137; platforms/cuda.py 84-181 for the order of backends
"""

from math import lcm

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.vllm.rules import Rules
from kvplan.core.engines.vllm.specs import architecture, layer_specs
from kvplan.core.errors import InputError
from kvplan.core.mixers import LatentAttention, StateMixer
from kvplan.core.model import ModelSpec
from kvplan.core.units import ceil_div

DEFAULT_BLOCK = 16
KERNEL_BLOCKS = {
    "FLASH_ATTN": 16, "FLASHINFER": 16, "TRITON_ATTN": 16, "FLEX_ATTENTION": 16, "TURBOQUANT": 16, "XFORMERS": 16,
    "ROCM_ATTN": 16, "ROCM_AITER_FA": 16, "ROCM_AITER_UNIFIED_ATTN": 16, "TORCH_SDPA": 16, "CPU_ATTN": 128,
    "TREE_ATTN": 16, "FLASH_ATTN_MLA": 16, "TRITON_MLA": 16, "FLASHMLA": 64, "CUTLASS_MLA": 128,
    "FLASHINFER_MLA": 32, "FLASHMLA_SPARSE": 64, "FLASHINFER_MLA_SPARSE": 64, "ROCM_AITER_MLA": 1,
}  # fmt: skip
"""Tokens of the smallest block that a backend's kernels take, where nobody asks for another."""
MLA_HYBRID_BLOCK = 128


def block_size(model: ModelSpec, deployment: Deployment, rules: Rules, *, aligned: bool) -> int:
    """Tokens of a block of the layers that attend to all tokens.

    Without recurrent layers: as asked, else the backend's. With them, the least multiple of the kernel's block (and of
    the recurrence's chunk) whose page holds a state:

        a = max(kernel block, asked);  MLA: at least 128;  aligned: lcm(a, chunk)
        block = a · ⌈state / (a · bytes of one token)⌉
    """
    asked = deployment.switches.block_size
    base = asked or max(DEFAULT_BLOCK, KERNEL_BLOCKS.get(backend(model, deployment, rules), DEFAULT_BLOCK))
    if asked is None and _mixed_formats(deployment):
        base *= max(1, deployment.dtype.bits // 8)
    specs = [spec for _, spec in layer_specs(model, deployment, rules, base, aligned=aligned)]
    states = [spec for spec in specs if spec.recurrent]
    tokens = [spec.token_bytes for spec in specs if spec.token_bytes and spec.kind != "indexer"]
    if not states or not tokens:
        return base
    if any(spec.is_latent for spec in specs):
        base = max(base, MLA_HYBRID_BLOCK)
    if aligned:
        base = lcm(base, *(spec.chunk for spec in states))
    return base * ceil_div(max(spec.state_bytes for spec in states), base * max(tokens))


def backend(model: ModelSpec, deployment: Deployment, rules: Rules) -> str:
    """The attention backend: as asked, else the one that vLLM tries first on such a GPU."""
    asked = deployment.switches.attention_backend
    if asked:
        name = asked.upper().removesuffix("_VLLM_V1")
        if name not in KERNEL_BLOCKS:
            raise InputError(
                f"`{asked[:40]}` is not an attention backend of vLLM", hint=f"e.g. {', '.join(KERNEL_BLOCKS)}"
            )
        return name
    arch = architecture(deployment)
    if deployment.key_dtype.name.startswith("turboquant"):
        return "TURBOQUANT"
    latents = [mixer for layer in model.layers for mixer in layer.mixers if isinstance(mixer, LatentAttention)]
    if latents and rules.mla:
        return _latent_backend(arch, deployment, rules, sparse=any(mixer.index_dim for mixer in latents))
    if deployment.key_dtype.scale_bits and deployment.key_dtype.group_size is None:
        return "TRITON_ATTN"
    return "FLASHINFER" if arch >= 10 else "FLASH_ATTN"


def _latent_backend(arch: float, deployment: Deployment, rules: Rules, *, sparse: bool) -> str:
    """Hopper: FlashAttention's kernel, for fp8 FlashMLA; Blackwell: FlashInfer's; before Hopper: Triton's.

    Before 0.9.2 FlashMLA was Hopper's for every format, before 0.8 there was Triton's only.
    """
    if sparse:
        return "FLASHMLA_SPARSE" if arch < 10 else "FLASHINFER_MLA_SPARSE"
    if arch >= 10:
        return "FLASHINFER_MLA"
    if arch < 9 or not rules.windows:
        return "TRITON_MLA"
    packed = deployment.key_dtype.bits < 16
    return "FLASHMLA" if packed or not rules.hybrid_groups else "FLASH_ATTN_MLA"


def _mixed_formats(deployment: Deployment) -> bool:
    """Whether some layers keep the model's dtype beside quantised ones: quantised blocks then hold more tokens."""
    names = deployment.switches.kv_cache_dtype_skip_layers
    return bool(names) or deployment.key_dtype.name.startswith("turboquant")


def has_states(model: ModelSpec) -> bool:
    """Whether some layer keeps a state or columns of a convolution."""
    return any(isinstance(mixer, StateMixer) for layer in model.layers for mixer in layer.mixers)
