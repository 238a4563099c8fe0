"""What options add to vLLM's weights: slots for adapters, layers that draft.

Sources: vLLM 0.33, lora/layers/ (column_parallel_linear.py, row_parallel_linear.py, logits_processor.py,
vocal_parallel_embedding.py); models/deepseek_mtp.py, models/llama_eagle.py, models/llama_eagle3.py.
"""

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.vllm import compressed
from kvplan.core.engines.vllm.defaults import default_max_num_batched_tokens
from kvplan.core.engines.vllm.pool import stages
from kvplan.core.errors import InputError
from kvplan.core.measured import Measured
from kvplan.core.model import ModelSpec, Weight
from kvplan.core.units import MIB, ceil_div
from kvplan.core.weights import layer_bytes, weight_bytes

_CHECKED = (0, 33)
_ADAPTED = ("attention", "mlp", "experts")
_WITHOUT_WEIGHTS = {None, "ngram", "ngram_gpu", "suffix", "mtp_none"}
_OWN_LAYERS = {"mtp", "deepseek_mtp", "qwen3_next_mtp", "glm4_moe_mtp", "ernie_mtp", "mimo_mtp", "longcat_flash_mtp"}
_HEADS = {"eagle": 2, "eagle3": 3}
"""States of the model that the first matrix of a drafting head takes in."""


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
    """Layers that draft on the last stage; None where nothing drafts, or what does has no weights.

        mtp      the checkpoint's own layers, dealt out as the model's
        eagle    one layer like the model's last, and a matrix of 2 (EAGLE-3: 3) · hidden × hidden

    Raises InputError for a draft model or another method, whose weights nothing here tells.
    """
    method = deployment.switches.speculative_method
    if method in _WITHOUT_WEIGHTS or stage != deployment.pp - 1:
        return None
    tp, dtype, quant = deployment.tp, deployment.dtype, model.quantization
    if method in _OWN_LAYERS:
        if model.draft is None:
            hint = "another method, or a model that stores such layers"
            raise InputError(f"`{model.id}` stores no layers for multi-token prediction", hint=hint)
        held = sum(weight_bytes(weight, dtype, quant, tp) for weight in model.draft.weights)
        held += _states_of_streams(model, deployment)
        return Measured(
            name="draft weights",
            num_bytes=held,
            spread_bytes=8 * MIB + held // 20,
            source="the checkpoint's layers for multi-token prediction",
            basis="derived",
        )
    if method not in _HEADS:
        hint = "leave its bytes off the utilisation, or take `ngram`, `mtp`, `eagle` or `eagle3`"
        raise InputError(f"what `{method}` loads to draft with is not known", hint=hint)
    layer = layer_bytes(model.layers[model.layer_order[-1]], dtype, None, tp)
    joint = ceil_div(_HEADS[method] * model.hidden_size**2 * dtype.bits, 8)
    return Measured(
        name="draft weights",
        num_bytes=layer + joint,
        spread_bytes=layer,
        source="assumed: one layer like the model's last, and a matrix that joins its states; embeddings and output "
        "head are the model's (vLLM 0.33, models/llama_eagle.py, llama_eagle3.py)",
        basis="assumed",
    )
