"""What loading a model takes beyond its parameters: rotary tables, padding, blocks of torch's allocator.

"Model loading took N GiB" is the allocator's account of the loaded model: with it vLLM 0.19 is met within 0.1 % for
most checkpoints in full precision (`benchmarks/engine_logs.py`).

Sources: vLLM 0.33, model_executor/layers/rotary_embedding/ (tables), layers/vocab_parallel_embedding.py (vocabulary),
layers/quantization/mxfp4.py (experts); `core.allocator` for blocks.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from math import prod

from kvplan.core.allocator import HUGE_STEP, SMALL_REQUEST, block_bytes, segment_bytes
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.vllm.blocks import BLACKWELL
from kvplan.core.engines.vllm.devices import architecture
from kvplan.core.engines.vllm.drafts import HEADS, draft_layers, held_weights
from kvplan.core.engines.vllm.pool import stages
from kvplan.core.measured import Measured
from kvplan.core.mixers import (
    CompressedAttention,
    LatentAttention,
    LinearAttention,
    Mixer,
    ShortConvolution,
    SlidingAttention,
)
from kvplan.core.model import Layer, ModelSpec, Weight
from kvplan.core.units import MIB, ceil_div, round_up
from kvplan.core.weights import stored_as, weight_bytes

VOCABULARY_STEP = 64
"""Rows that tables of the vocabulary are padded to a multiple of."""
_HIDDEN_STEP, _INTERMEDIATE_STEP = 256, 128
"""What mxfp4 experts are padded to: the width of the model, and of an expert on one rank."""

_UNROTATED = {"mpt", "bloom", "nemotron_h", "jamba", "opt", "gpt2", "gpt_bigcode", "whisper", "bart"}
"""Model types whose attention knows positions in another way, or not at all."""
_PARTLY_ROTATED = {
    "phi": (2, 5), "stablelm": (1, 4), "gpt_neox": (1, 4), "glm": (1, 2), "glm4": (1, 2), "glm4_moe": (1, 2),
    "chatglm": (1, 2), "qwen3_next": (1, 4), "qwen3_5": (1, 4), "qwen3_5_text": (1, 4), "qwen3_5_moe": (1, 4),
    "qwen3_5_moe_text": (1, 4), "minimax_m2": (1, 2), "persimmon": (1, 2), "deepseek_v4": (1, 8),
}  # fmt: skip
"""The share of a head's elements that is rotated (`partial_rotary_factor` and its kin), where it is not all."""
_OF_IMAGES = {
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen2_5_omni", "qwen3_omni_moe", "qwen3_5", "qwen3_5_moe",
}  # fmt: skip
"""Model types with positions in three dimensions, whose table is four times as long (mrope.py)."""
_SCALED_TABLES = {"gemma3": 8}
"""Model types with linearly scaled positions: as many tables as the factor says (linear_scaling_rope.py)."""
_OWN_SLIDING_TABLE = {"gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gemma4", "gemma4_text", "gemma4_unified"}
_FP32_TABLES = {"deepseek_v4"}
"""Model types with tables in fp32: one for layers with entries, one for those without (deepseek_v4/common/rope.py)."""
_KNOWN_POSITIONS = {"gemma3": 131072}
"""`max_position_embeddings` of types whose checkpoints leave it to the class."""

_INPUT_EVERYWHERE = {
    "nemotron_h", "qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "gpt_oss", "mixtral",
    "jamba", "mamba", "falcon_mamba", "cohere2", "gemma2", "gemma3", "gemma3_text", "gemma4", "gemma4_text",
    "gemma4_unified", "granitemoehybrid", "lfm2", "minicpm3", "qwen3_moe", "qwen3_vl_moe", "qwen3_vl_moe_text",
    "qwen2_moe", "dbrx", "olmoe", "phimoe", "stablelm",
}  # fmt: skip
"""Model types whose every pipeline stage holds the table of input tokens."""
_HEAD_EVERYWHERE = {
    "nemotron_h", "qwen3_next", "gpt_oss", "mixtral", "jamba", "falcon_mamba", "qwen3_moe", "qwen3_vl_moe",
    "qwen3_vl_moe_text", "qwen2_moe", "dbrx", "olmoe", "phimoe", "stablelm",
}  # fmt: skip
"""Model types whose every pipeline stage holds the output table, too."""
_DRAFT_LOOKS_UP = {"eagle", "eagle3"}
"""Methods whose drafting layers, on the last stage, share the model's table of input tokens (models/utils.py 863)."""
_WHOLE_INPUT = {"whisper"}
"""Model types whose every tensor-parallel rank holds the whole table of input tokens."""
_WHOLE_TOWER = {"muse_glimmer"}
"""Model types whose every tensor-parallel rank holds the whole vision tower."""
_WHOLE_MLP = {"gpt_bigcode"}
"""Model types whose every tensor-parallel rank holds the whole feed-forward parts: run by transformers' own class."""
_BLACKWELL_EXPERT_STEP = 128
"""Rows that an unquantised expert's part is padded to a multiple of for TensorRT-LLM's kernels.

Source: vLLM 0.33, layers/fused_moe/oracle/unquantized.py 385-396
"""
_LEAST_EXPERT = {"kimi_linear": 256}
"""Rows that an expert has at least on each rank (vLLM 0.33, models/kimi_k3/nvidia/model.py 416-428)."""

_FUSED = (
    (re.compile(r"\b(q|k|v)_proj\b"), "qkv_proj"),
    (re.compile(r"\b(gate|up)_proj\b"), "gate_up_proj"),
    (re.compile(r"\b(w1|w3)\b"), "w13"),
    (re.compile(r"\[\w+\]$"), ""),
)
"""Tensors of a checkpoint that vLLM holds as one."""


def extra_weights(model: ModelSpec, deployment: Deployment, stage: int) -> Measured:
    """Bytes that a stage's fullest rank holds beyond its parameters.

    bytes = rotary tables + tables of the vocabulary that other stages have, too + padded rows of the vocabulary
          + padded experts + what allocator blocks are larger
    """
    start, stop = stages(model, deployment)[stage]
    counts = model.layer_counts(start, stop)
    ends, ends_here = _ends(model, start, stop), stop == model.num_layers
    padding = sum(n * _padding_of_experts(weight, model, deployment) for layer, n in counts for weight in layer.weights)
    drafts = [found.mixer for found in draft_layers(model, deployment) if found.owner is model and ends_here]
    num_bytes = rotary_bytes(model, deployment, [layer for layer, _ in counts], drafts) + padding
    num_bytes += _repeated_tables(model, deployment, ends)
    if model.model_type in _WHOLE_MLP:
        num_bytes += sum(n * _other_ranks(layer.weights, model, deployment) for layer, n in counts)
    num_bytes += sum(_vocabulary_padding(weight, model, deployment) for weight in ends)
    num_bytes += sum(n * _unsplit_bytes(layer.weights, model, deployment) for layer, n in counts)
    num_bytes += _unsplit_bytes(ends, model, deployment)
    num_bytes += _beside_a_draft(model, deployment) if ends_here else 0
    slack = sum(n * _slack_bytes(layer.weights, model, deployment) for layer, n in counts)
    return Measured(
        name="extra weights",
        num_bytes=num_bytes,
        spread_bytes=16 * MIB + num_bytes // 5 + slack,
        source="rotary tables, padding and allocator blocks: vLLM 0.33 rotary_embedding/, vocab_parallel_embedding.py, "
        "mxfp4.py; torch 2.13 CUDACachingAllocator.cpp; held to 'Model loading took' of vLLM 0.5-0.19",
        basis="derived",
    )


def rotary_bytes(
    model: ModelSpec, deployment: Deployment, layers: Iterable[Layer], drafts: Iterable[Mixer] = ()
) -> int:
    """Bytes of the tables of cosines and sines, which all layers of one kind share.

        bytes = Σ over kinds: positions · rotated elements of a head · dtype

    A head's rotated elements need half as many cosines and half as many sines. Positions are the model's longest
    request, not the deployment's.
    """
    positions = model.max_seq_len or _KNOWN_POSITIONS.get(model.model_type) or deployment.max_model_len
    if model.model_type in _UNROTATED or any("position" in weight.name for weight in _language_tables(model)):
        return 0
    if model.model_type in _OF_IMAGES:
        positions *= 4
    mixers = [*(mixer for layer in layers for mixer in layer.mixers), *drafts]
    tables = {_table(model, mixer) for mixer in mixers}
    scaled = _SCALED_TABLES.get(model.model_type, 1)
    elements = sum(positions * width * (1 if slides else scaled) for slides, width in tables)
    return ceil_div(elements * (32 if model.model_type in _FP32_TABLES else deployment.dtype.bits), 8)


def _beside_a_draft(model: ModelSpec, deployment: Deployment) -> int:
    """The same of a draft that is named: its rotary table, padding of tables and experts, rests of blocks."""
    draft, method = deployment.draft, deployment.switches.speculative_method
    if draft is None or not (method in HEADS or method == "draft_model"):
        return 0
    held = list(held_weights(model, draft, method))
    num_bytes = _table_of_a_draft(model, draft, deployment)
    num_bytes += sum(n * _padding_of_experts(weight, draft, deployment) for weight, n in held)
    num_bytes += sum(_padded_rows(weight, deployment) for weight, _ in held if weight.part in ("embeddings", "head"))
    inside = [weight for layer in draft.layers for weight in layer.weights]
    num_bytes += sum(n * _unsplit_bytes(layer.weights, draft, deployment) for layer, n in draft.layer_counts())
    return num_bytes + _unsplit_bytes([weight for weight, _ in held if weight not in inside], draft, deployment)


def _table_of_a_draft(model: ModelSpec, draft: ModelSpec, deployment: Deployment) -> int:
    """A draft's table of positions, 0 where the model's is as long and as wide: layers share equal ones.

    A head's is as long as the longest request, where it is made for less (config/speculative.py
    `_maybe_override_draft_max_position_embeddings`).
    """
    if deployment.switches.speculative_method in HEADS:
        draft = replace(draft, max_seq_len=max(draft.max_seq_len or 0, deployment.max_model_len))
    own, known = ({_table(of, m) for layer in of.layers for m in layer.mixers} for of in (draft, model))
    alike = draft.max_seq_len == model.max_seq_len and own <= known
    return 0 if alike else rotary_bytes(draft, deployment, draft.layers)


def _language_tables(model: ModelSpec) -> list[Weight]:
    return [weight for weight in model.embeddings if weight.part == "embeddings"]


def _table(model: ModelSpec, mixer: Mixer) -> tuple[bool, int]:
    """Which table a mixer reads: whether it is one for sliding layers alone, and how wide it is."""
    slides = isinstance(mixer, SlidingAttention) and model.model_type in _OWN_SLIDING_TABLE
    if isinstance(mixer, CompressedAttention):
        slides = not mixer.ratio
    if isinstance(mixer, LinearAttention | ShortConvolution):
        return False, 0
    if isinstance(mixer, LatentAttention):
        return slides, mixer.rope_dim
    share, whole = _PARTLY_ROTATED.get(model.model_type, (1, 1))
    return slides, mixer.key_dim * share // whole


def _ends(model: ModelSpec, start: int, stop: int) -> tuple[Weight, ...]:
    """What stands before a stage's layers and after them."""
    first = model.embeddings if start == 0 else ()
    last = model.head if stop == model.num_layers else ()
    repeated = model.embeddings[:1] if last and start > 0 and model.tied_embeddings else ()
    return (*first, *last, *repeated)


def _repeated_tables(model: ModelSpec, deployment: Deployment, ends: tuple[Weight, ...]) -> int:
    """Tables of the vocabulary that a stage holds without reading them, and what a rank holds of other ranks' rows.

    Source: vLLM 0.33's own classes, built on a CPU, their parameters counted for each stage and rank
    """
    kind, dtype, quant = model.model_type, deployment.dtype, model.quantization
    inputs = [weight for weight in model.embeddings if _is_table(weight, model)]
    heads = [weight for weight in model.head if _is_table(weight, model)]
    last = any(weight in ends for weight in heads)
    drafts = last and deployment.switches.speculative_method in _DRAFT_LOOKS_UP
    held = (inputs if drafts or kind in _INPUT_EVERYWHERE else []) + (heads if kind in _HEAD_EVERYWHERE else [])
    known = [weight.name for weight in ends]
    num_bytes = sum(weight_bytes(weight, dtype, quant, deployment.tp) for weight in held if weight.name not in known)
    whole = [weight for weight in inputs if kind in _WHOLE_INPUT and weight.name in known]
    whole += [weight for weight in ends if kind in _WHOLE_TOWER and weight.part == "vision"]
    return num_bytes + _held_whole(whole, model, deployment)


def _other_ranks(weights: Iterable[Weight], model: ModelSpec, deployment: Deployment) -> int:
    return _held_whole([weight for weight in weights if weight.part == "mlp"], model, deployment)


def _held_whole(weights: Iterable[Weight], model: ModelSpec, deployment: Deployment) -> int:
    """What other ranks' parts of these weights take on each rank."""
    dtype, quant, tp = deployment.dtype, model.quantization, deployment.tp
    return sum(weight_bytes(weight, dtype, quant, 1) - weight_bytes(weight, dtype, quant, tp) for weight in weights)


def _is_table(weight: Weight, model: ModelSpec) -> bool:
    return len(weight.shape) == 2 and weight.shape[0] == model.vocab_size


def _vocabulary_padding(weight: Weight, model: ModelSpec, deployment: Deployment) -> int:
    """Rows that fill a table of the vocabulary up to a multiple of 64, dealt out as its rows are."""
    if weight.part not in ("embeddings", "head") or weight.shape[0] != model.vocab_size:
        return 0
    return _padded_rows(weight, deployment)


def _padded_rows(weight: Weight, deployment: Deployment) -> int:
    if len(weight.shape) != 2:
        return 0
    rows = round_up(weight.shape[0], VOCABULARY_STEP) - weight.shape[0]
    return ceil_div(rows * weight.shape[1] * deployment.dtype.bits, 8 * deployment.tp)


def _padding_of_experts(weight: Weight, model: ModelSpec, deployment: Deployment) -> int:
    """What the kernels of mxfp4 experts want beyond the checkpoint's rows and columns, with the scales.

    Gate and up: 2 · round_up(I / tp, 128) × round_up(hidden, 256); down: round_up(hidden, 256) × round_up(I / tp, 128).
    """
    stored = stored_as(weight, model.quantization)
    if stored is None:
        return _padding_of_rows(weight, _LEAST_EXPERT.get(model.model_type, 0), deployment)
    if stored.name != "mxfp4" or weight.part != "experts" or weight.split is None:
        return 0
    rows, columns = weight.rank_shape(deployment.tp)
    if weight.split.axis == 0:
        halves = 2 if weight.shape[0] == 2 * weight.split.units else 1
        padded = halves * round_up(rows // halves, _INTERMEDIATE_STEP), round_up(columns, _HIDDEN_STEP)
    else:
        padded = round_up(rows, _HIDDEN_STEP), round_up(columns, _INTERMEDIATE_STEP)
    return weight.copies * (stored.bytes_of(*padded) - stored.bytes_of(rows, columns))


def _padding_of_rows(weight: Weight, least: int, deployment: Deployment) -> int:
    """What fills an expert's part on one rank up to `least` rows, or columns; on Blackwell to a multiple of 128."""
    tp = deployment.tp
    if weight.part != "experts" or weight.split is None or deployment.switches.expert_parallel:
        return 0
    shape, axis = list(weight.rank_shape(tp)), weight.split.axis
    parts = max(1, weight.shape[axis] // weight.split.units)
    rows = shape[axis] // parts
    wanted = max(rows, least) if tp > 1 else rows
    if int(architecture(deployment)) == BLACKWELL:
        wanted = round_up(wanted, _BLACKWELL_EXPERT_STEP)
    shape[axis] = parts * (wanted - rows)
    return ceil_div(weight.copies * prod(shape) * deployment.dtype.bits, 8)


def _unsplit_bytes(weights: Iterable[Weight], model: ModelSpec, deployment: Deployment) -> int:
    """What the blocks of a layer's tensors are larger than the tensors.

    A block of 1 MiB and more keeps a rest of up to 1 MiB: of a segment of its own (10 MiB and more, in steps of 2 MiB),
    or of the 20 MiB that smaller ones share.
    """
    sizes: dict[tuple[str, int], int] = {}
    for weight in weights:
        # All experts of a layer are one tensor; the equal layers of a tower are as many.
        tensors = 1 if weight.part == "experts" else weight.copies
        key = _held_as(weight.name), tensors
        sizes[key] = sizes.get(key, 0) + _elements_bytes(weight, model, deployment) // tensors
    return sum(tensors * _rest(size) for (_, tensors), size in sizes.items())


def _slack_bytes(weights: Iterable[Weight], model: ModelSpec, deployment: Deployment) -> int:
    """The most that blocks of freed memory, which loading cuts anew, are larger than a layer's tensors.

    A rest of up to 1 MiB stays with each tensor that is no multiple of the 2 MiB by which memory is asked for. vLLM
    0.28-0.31 held 98 MiB more of Qwen2.5-1.5B than its tensors, 187 MiB more of Qwen2.5-7B-AWQ; 0.19 held none.
    """
    sizes: dict[tuple[str, int, int], int] = {}
    for weight in weights:
        tensors = 1 if weight.part == "experts" else weight.copies
        for i, size in enumerate(_sizes(weight, model, deployment)):
            key = _held_as(weight.name), tensors, i
            sizes[key] = sizes.get(key, 0) + size // tensors
    return sum(
        tensors * SMALL_REQUEST for (_, tensors, _), size in sizes.items() if size >= SMALL_REQUEST and size % HUGE_STEP
    )


def _sizes(weight: Weight, model: ModelSpec, deployment: Deployment) -> list[int]:
    """Bytes of a weight's elements on a rank, then of each tensor beside them."""
    stored = stored_as(weight, model.quantization)
    if stored is None:
        return [weight_bytes(weight, deployment.dtype, None, deployment.tp)]
    rows, columns = weight.rank_shape(deployment.tp)
    return [weight.copies * tensor.bytes_of(rows, columns) for tensor in stored.tensors]


def _elements_bytes(weight: Weight, model: ModelSpec, deployment: Deployment) -> int:
    """Bytes of a weight's elements on a rank, without what a quantised one has beside them."""
    return _sizes(weight, model, deployment)[0]


def _held_as(name: str) -> str:
    for pattern, fused in _FUSED:
        name = pattern.sub(fused, name)
    return name


def _rest(num_bytes: int) -> int:
    """Bytes that one tensor's block keeps on average beyond the tensor."""
    block = block_bytes(num_bytes)
    if block <= SMALL_REQUEST:
        return block - num_bytes
    segment = segment_bytes(block)
    tensors = segment // block
    rest = segment - tensors * block
    return block - num_bytes + (rest // tensors if rest <= SMALL_REQUEST else 0)
