"""What images take of vLLM's profile run: as many as fit one step are encoded, and kept beside what they became.

Source: vLLM 0.19, v1/worker/gpu_model_runner.py `profile_run`; v1/core/encoder_cache_manager.py
`compute_mm_encoder_budget`; the models' own limits (image processors) for the tokens of one image.
"""

from dataclasses import replace

from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.vllm.defaults import V1_ENGINE
from kvplan.core.model import ModelSpec, Part
from kvplan.core.units import ceil_div

_TOKENS_OF_IMAGE = {
    "gemma3": 256, "mistral3": 3025, "llama4": 2448, "kimi_vl": 1024, "qwen2_vl": 16384, "qwen2_5_vl": 16384,
    "qwen3_vl": 16384, "qwen3_vl_moe": 16384, "qwen3_5": 16384, "qwen3_5_moe": 16384,
}  # fmt: skip
"""Of the largest image that a type takes; others fill the step."""
_SIDE = {"gemma3": 56}
"""Pixels of an image along the side of one token: 28 for two patches of 14, as most have it."""
_FRAMES = {"qwen2_vl": 2, "qwen2_5_vl": 2, "qwen3_vl": 2, "qwen3_vl_moe": 2, "qwen3_5": 2, "qwen3_5_moe": 2}
"""Times that an image's pixels are repeated, as frames of a film."""
_PATCH = 14
_CHANNELS = 3
TOWERS_LEFT_OUT = (0, 15)
_JOINT = frozenset({"kimi_k25"})
"""Model types whose tower reads neither images nor videos by that name, but a `vision_chunk`."""
NOTHING: frozenset[Part] = frozenset()


def left_out(model: ModelSpec, switches: Switches, release: tuple[int, ...]) -> frozenset[Part]:
    """The tower of images is not loaded where their number is limited to 0; that of sound is counted all the same.

    Up to 0.14 some models' classes did so (pull request 22299); the tower is counted then. Since 0.15 all do
    (pull request 32757), but for those whose tower reads something else, too.

    Source: vLLM 0.33, models/interfaces.py `_mark_tower_model`
    """
    towers: frozenset[Part] = frozenset({"vision"})
    return towers if switches.no_images and release >= TOWERS_LEFT_OUT and model.model_type not in _JOINT else NOTHING


def without_towers(model: ModelSpec, switches: Switches, release: tuple[int, ...]) -> ModelSpec:
    """The model as it is loaded."""
    absent = left_out(model, switches, release)
    return replace(model, embeddings=tuple(w for w in model.embeddings if w.part not in absent)) if absent else model


def has_images(model: ModelSpec, deployment: Deployment) -> bool:
    """Whether a vision tower is loaded and profiled."""
    return not deployment.switches.no_images and any(weight.part == "vision" for weight in model.embeddings)


def encoder_tokens(model: ModelSpec, max_num_batched_tokens: int) -> int:
    """Tokens of the images of one step: whole images, at least one."""
    each = _TOKENS_OF_IMAGE.get(model.model_type, max_num_batched_tokens)
    return max(1, max_num_batched_tokens // each) * each


def held_by_encoder(model: ModelSpec, deployment: Deployment, tokens: int, release: tuple[int, ...]) -> int:
    """Bytes of the images and of what the tower made of them, which stay through the pass of the language model.

    bytes = tokens · (hidden + 3 · side² · frames) · dtype
    """
    if release < V1_ENGINE or not has_images(model, deployment):
        return 0
    side, frames = _SIDE.get(model.model_type, 2 * _PATCH), _FRAMES.get(model.model_type, 1)
    each = model.hidden_size + _CHANNELS * side * side * frames
    return ceil_div(encoder_tokens(model, tokens) * each * deployment.dtype.bits, 8)


def encoder_pass_bytes(model: ModelSpec, deployment: Deployment, tokens: int) -> int:
    """The tower's own pass over these images: a floor, its residuals and the inner part of its widest MLP.

    bytes = patches · (2 · inner + 3 · width) · dtype
    """
    if not has_images(model, deployment):
        return 0
    matrices = [w.shape for w in model.embeddings if w.part == "vision" and w.linear and w.copies > 1]
    if not matrices:
        return 0
    side = _SIDE.get(model.model_type, 2 * _PATCH)
    patches = encoder_tokens(model, tokens) * (side // _PATCH) ** 2
    inner, width = max(max(shape) for shape in matrices), min(min(shape) for shape in matrices)
    return ceil_div(patches * (2 * inner + 3 * width) * deployment.dtype.bits, 8)
