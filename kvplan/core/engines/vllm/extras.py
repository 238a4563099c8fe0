"""What options add to vLLM's weights: slots for adapters, what drafts and its buffers.

Sources: vLLM 0.33, lora/layers/ (column_parallel_linear.py, row_parallel_linear.py, logits_processor.py,
vocal_parallel_embedding.py); models/deepseek_mtp.py, models/llama_eagle.py, models/llama_eagle3.py;
v1/worker/gpu/spec_decode/ and, of the older runner, v1/spec_decode/llm_base_proposer.py.
"""

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.vllm import compressed
from kvplan.core.engines.vllm.defaults import default_max_num_batched_tokens
from kvplan.core.engines.vllm.drafts import (
    HEADS,
    OWN_LAYERS,
    WITHOUT_MODEL,
    assumed_layer,
    head_rows,
    held_weights,
    pass_layers,
)
from kvplan.core.engines.vllm.pool import stages
from kvplan.core.engines.vllm.runner import runs_on_v2
from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.measured import Measured
from kvplan.core.model import ModelSpec, Weight
from kvplan.core.units import MIB, ceil_div
from kvplan.core.weights import layer_bytes, weight_bytes

_CHECKED = (0, 33)
_ROWS_OF_HEADS = 32_000
_ADAPTED = ("attention", "mlp", "experts")


def lora_slots(model: ModelSpec, deployment: Deployment, stage: int) -> Measured | None:
    """Buffers for `max_loras` adapters of `max_lora_rank`; None without.

        bytes = max_loras · rank · Σ over matrices (inputs + outputs on a rank) · dtype

    As the matrix is dealt out, so is the side of the adapter that lies along it; the other side is whole. The first and
    the last stage hold slots for the tables of the vocabulary, too.
    """
    switches = deployment.switches
    if not switches.max_loras:
        return None
    start, stop = stages(model, deployment)[stage]
    elements = sum(
        count * _adapter_elements(weight, deployment.tp)
        for layer, count in model.layer_counts(start, stop)
        for weight in layer.weights
    )
    elements += (model.vocab_size + model.hidden_size) * ((start == 0) + (stop == model.num_layers))
    num_bytes = ceil_div(switches.max_loras * switches.max_lora_rank * elements * deployment.dtype.bits, 8)
    return Measured(
        name="LoRA slots",
        num_bytes=num_bytes,
        spread_bytes=num_bytes // 10,
        source="vLLM 0.33, lora/layers/: stacked A (loras, 1, rank, inputs) and B (loras, 1, outputs, rank)",
        basis="derived",
    )


def _adapter_elements(weight: Weight, tp: int) -> int:
    if not weight.linear or weight.part not in _ADAPTED:
        return 0
    rows, columns = weight.rank_shape(tp)
    return weight.copies * (rows + columns)


def _states_of_streams(model: ModelSpec, deployment: Deployment) -> int:
    """The states of a step's tokens in all streams of hyper-connections, which DeepSeek-V4's draft reads.

    tokens of a step · streams · hidden · dtype

    Source: vLLM 0.33, models/deepseek_v4/nvidia/model.py 902-911
    """
    if not compressed.applies(model):
        return 0
    width = max((weight.shape[1] for weight in model.head if weight.name == "hc_head.hc_fn"), default=0)
    tokens = default_max_num_batched_tokens(deployment, _CHECKED)
    return ceil_div(tokens * width * deployment.dtype.bits, 8)


def draft_weights(model: ModelSpec, deployment: Deployment, stage: int) -> Measured | None:
    """What is loaded to draft with, on the last stage; None where nothing drafts, or what does has no weights.

        a draft model   all of it, in the model's dtype and its own scheme, dealt out as the model is
        a head          its layers and the matrix that joins; of the tables what the model has not (`held_weights`)
        mtp             the checkpoint's own layers, dealt out as the model's
        not known       one layer like the model's last, and a matrix of 2 (EAGLE-3: 3) · hidden × hidden

    Raises UnsupportedError for a draft model that was not read or another method, whose weights nothing here tells.
    """
    method, draft = deployment.switches.speculative_method, deployment.draft
    if method in WITHOUT_MODEL or stage != deployment.pp - 1:
        return None
    if method in OWN_LAYERS:
        return _own_layers(model if draft is None or draft.draft is None else draft, deployment)
    if draft is not None and (method in HEADS or method == "draft_model"):
        return _of_named(model, draft, deployment)
    if method not in HEADS:
        hint = "leave its bytes off the utilisation, or take `ngram`, `mtp`, `eagle` or `eagle3`"
        raise UnsupportedError(f"what `{method}` loads to draft with is not known to kvplan", hint=hint)
    return _assumed_head(model, deployment, method)


def _own_layers(model: ModelSpec, deployment: Deployment) -> Measured:
    if model.draft is None:
        hint = "another method, or a model that stores such layers"
        raise InputError(f"`{model.id}` stores no layers for multi-token prediction", hint=hint)
    held = sum(
        weight_bytes(weight, deployment.dtype, model.quantization, deployment.tp) for weight in model.draft.weights
    )
    held += _states_of_streams(model, deployment)
    return Measured(
        name="draft weights",
        num_bytes=held,
        spread_bytes=8 * MIB + held // 20,
        source="the checkpoint's layers for multi-token prediction",
        basis="derived",
    )


def _of_named(model: ModelSpec, draft: ModelSpec, deployment: Deployment) -> Measured:
    """Held to the parameters of vLLM's own classes; EAGLE-3's also has an int64 for each token that it knows.

    A head of the whole vocabulary may be the model's: a checkpoint that leaves it out, or stores the same, has none.
    The matrix that joins is counted as unquantised, which a quantised head's need not be.
    """
    method, dtype, tp = deployment.switches.speculative_method, deployment.dtype, deployment.tp
    tensors = held_weights(model, draft, method)
    sizes = [(weight, count * weight_bytes(weight, dtype, draft.quantization, tp)) for weight, count in tensors]
    held, spread = sum(size for _, size in sizes), 0
    if method == "eagle3" and head_rows(draft) != model.vocab_size:
        held += 8 * head_rows(draft)
    elif method == "eagle3":
        spread = sum(size for weight, size in sizes if weight.part == "head" and len(weight.shape) == 2)
    if method in HEADS and draft.quantization is not None:
        spread += sum(size for weight, size in sizes if weight.name.startswith("fc."))
    if deployment.switches.heterogeneous_vocab:  # v1/spec_decode/vocab_mapping.py: ids both ways, and a mask
        held += 9 * draft.vocab_size + 8 * model.vocab_size
    source = f"the tensors of `{draft.id}`" + ("" if method == "draft_model" else " that are not the model's own")
    return Measured(name="draft weights", num_bytes=held, spread_bytes=spread, source=source, basis="derived")


def _assumed_head(model: ModelSpec, deployment: Deployment, method: str) -> Measured:
    """EAGLE-3's attention reads a token beside a state, and its output head has 32,000 rows in public heads."""
    dtype, tp, layer = deployment.dtype, deployment.tp, assumed_layer(model)
    held = layer_bytes(layer, dtype, None, tp) + ceil_div(HEADS[method] * model.hidden_size**2 * dtype.bits, 8)
    source = "assumed: one layer like the model's last, and a matrix that joins its states; tables are the model's"
    if method == "eagle3":
        matrices = [weight for weight in layer.weights if weight.part == "attention" and len(weight.shape) == 2]
        held += sum(weight_bytes(w, dtype, None, tp) for w in matrices if w.shape[1] == model.hidden_size)
        held += ceil_div(_ROWS_OF_HEADS * model.hidden_size * dtype.bits, 8 * tp)
        source += ", but for an output head of 32,000 tokens"
    return Measured(
        name="draft weights",
        num_bytes=held,
        spread_bytes=layer_bytes(layer, dtype, None, tp),
        source=f"{source} (vLLM 0.33, models/llama_eagle.py, llama_eagle3.py)",
        basis="assumed",
    )


def draft_buffers(model: ModelSpec, deployment: Deployment, release: tuple[int, ...], stage: int) -> Measured | None:
    """What stays allocated to draft with, on the last stage: a step's token ids, positions and vectors.

        bytes = tokens of a step · (vectors · hidden of the draft · dtype + 24)

    The newer runner keeps the states that a head reads, one vector a token, and none for a whole model; the older one
    states and embeddings for both.
    """
    layers = pass_layers(model, deployment)
    if not layers or stage != deployment.pp - 1:
        return None
    vectors = int(deployment.switches.speculative_method in HEADS) if runs_on_v2(model, deployment, release) else 2
    width = (deployment.draft or model).hidden_size
    tokens = default_max_num_batched_tokens(deployment, release)
    return Measured(
        name="draft buffers",
        num_bytes=tokens * (ceil_div(vectors * width * deployment.dtype.bits, 8) + 24),
        spread_bytes=8 * MIB,
        source="vLLM 0.33, v1/worker/gpu/spec_decode/target_dependent_ar/speculator.py, standalone_ar/speculator.py; "
        "v1/spec_decode/llm_base_proposer.py",
        basis="derived",
    )
