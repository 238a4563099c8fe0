"""What transformers does not build, worked out from the published architecture and not from kvplan.

An entry: `parameters` as published (a repository's own count, see `source` of the catalog file), or left out where
transformers builds the class; `kv`: (bytes that one token costs, bytes at `length`), two bytes an element
unless it says another.
"""

from collections.abc import Iterable
from typing import Any

LENGTH = 8192


def heads(layers: int, kv_heads: int, head_dim: int, length: int = LENGTH, element: int = 2) -> dict[str, Any]:
    """Keys and values of grouped heads in every layer."""
    token = layers * 2 * kv_heads * head_dim * element
    return {"kv": (token, token * length), "length": length}


def latent(layers: int, rank: int, rope: int, index: int = 0) -> dict[str, Any]:
    """One latent and one rotary key for all heads of a layer (DeepSeek-V2, §2.1)."""
    token = layers * (rank + rope + index) * 2
    return {"kv": (token, token * LENGTH), "length": LENGTH}


def compressed(ratios: Iterable[int], window: int = 128, dim: int = 512, index: int = 128) -> dict[str, Any]:
    """DeepSeek-V4, §2.3: a window of vectors in each layer, and entries of 4 (overlapping, indexed) or 128 tokens.

    An open entry is a weighted sum and its weights in fp32, and twice so where entries overlap.
    """
    token = needed = 0
    for ratio in ratios:
        token += dim * 2
        needed += window * dim * 2
        if ratio == 4:
            needed += LENGTH // 4 * (dim + index) * 2 + 2 * 2 * 4 * (dim + index)
        elif ratio:
            needed += LENGTH // ratio * dim * 2 + 2 * 4 * dim
    return {"kv": (token, needed), "length": LENGTH}


FLASH = [0, 0, *[4, 128] * 20, 4]
"""The first 43 of `compress_ratios`; the last is of the layer for multi-token prediction."""

PRO = [128, 128, *[4, 128] * 29, 4]

KIMI_K25 = 1_026_879_376_368 - 60 * 384
"""The repository's count less the routers' correction biases, which are no parameters."""

# 26 layers, of which every third attends: 8 windows of 2048 tokens of one head, 18 recurrent states of 2560 in fp32
# beside 3 columns of a convolution of width 4 (Griffin, §2)
GRIFFIN = {"kv": (8 * 2 * 256 * 2, 8 * 2 * 256 * 2 * 2048 + 18 * (2560 * 4 + 3 * 2560 * 2)), "length": LENGTH}

BY_HAND: dict[str, dict[str, Any]] = {
    "allenai/longformer-base-4096": {"kv": (0, 0), "length": 4096},  # an encoder keeps nothing
    "databricks/dbrx-instruct": heads(40, 8, 128),
    "deepseek-ai/DeepSeek-V4-Flash": compressed(FLASH),
    "deepseek-ai/DeepSeek-V4-Pro": compressed(PRO),
    "deepseek-ai/deepseek-moe-16b-chat": {"parameters": 16_375_728_128, **heads(28, 16, 128, 4096)},
    "google/recurrentgemma-2b": GRIFFIN,
    "inclusionAI/Ling-lite": {"parameters": 16_801_974_272, **heads(28, 4, 128)},
    "internlm/internlm2-chat-7b": {"parameters": 7_737_708_544, **heads(32, 8, 128)},
    "internlm/internlm2_5-7b-chat": {"parameters": 7_737_708_544, **heads(32, 8, 128)},
    "LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct": {"parameters": 7_818_448_896, **heads(32, 8, 128, element=4)},
    "microsoft/Phi-3-vision-128k-instruct": {"parameters": 4_146_621_440, **heads(32, 32, 96)},
    "microsoft/Phi-3.5-vision-instruct": {"parameters": 4_146_621_440, **heads(32, 32, 96)},
    "microsoft/Phi-3.5-MoE-instruct": heads(32, 8, 128),
    "moonshotai/Kimi-K2.5": {"parameters": KIMI_K25, **latent(61, 512, 64)},
    "moonshotai/Kimi-K2.6": {"parameters": KIMI_K25, **latent(61, 512, 64)},
    "nvidia/DeepSeek-V4-Flash-NVFP4": compressed(FLASH),
    "nvidia/DeepSeek-V4-Pro-NVFP4": compressed(PRO),
    "nvidia/Kimi-K2.5-NVFP4": {"parameters": KIMI_K25, **latent(61, 512, 64)},
    "nvidia/Kimi-K2.6-NVFP4": {"parameters": KIMI_K25, **latent(61, 512, 64)},
    "nvidia/Kimi-K2.7-Code-NVFP4": {"parameters": KIMI_K25, **latent(61, 512, 64)},
    # 64 of 162 blocks attend (`block_configs`), 8 groups each; 49 of 80
    "nvidia/Llama-3_1-Nemotron-Ultra-253B-v1": {"parameters": 253_401_268_224, **heads(64, 8, 128)},
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1": {"parameters": 49_867_145_216, **heads(49, 8, 128)},
    "openbmb/MiniCPM-V-4": {"parameters": 4_059_533_040, **heads(32, 2, 128)},
    "Qwen/Qwen-7B": {"parameters": 7_721_324_544, **heads(32, 32, 128)},
    "Qwen/Qwen-72B-Chat": {"parameters": 72_287_920_128, **heads(80, 64, 128)},
    "RedHatAI/DeepSeek-V4-Flash-NVFP4-FP8": compressed(FLASH),
    "zai-org/GLM-4.1V-9B-Thinking": heads(40, 2, 128),
}
