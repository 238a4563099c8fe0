"""Slots for LoRA adapters in SGLang: buffers that are made before the pool is sized, so the pool pays for them.

Each matrix that adapters may adapt has for each slot a side of rank × inputs and one of outputs × rank; matrices that
SGLang stacks (query, key and value; gate and up) share one module, and to name one of them is to name all.

Source: SGLang 0.5.23, sglang/srt/lora/mem_pool.py `LoRAMemoryPool.init_buffers`, `get_lora_A_shape`,
`get_lora_B_shape`; lora/utils.py `get_default_hidden_dim`, `get_stacked_multiply`, `get_normalized_target_modules`;
model_executor/model_runner.py `initialize`
"""

from math import prod

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.sglang.layers import attention_tp
from kvplan.core.measured import Measured
from kvplan.core.mixers import StateMixer
from kvplan.core.model import Layer, ModelSpec, Weight
from kvplan.core.units import ceil_div, round_up

_STACKED = {
    "q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj", "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj", "q_a_proj": "fused_qkv_a_proj_with_mqa",
    "kv_a_proj_with_mqa": "fused_qkv_a_proj_with_mqa",
}  # fmt: skip
_MODULES = frozenset({*_STACKED.values(), "o_proj", "down_proj", "q_b_proj", "kv_b_proj"})
"""What kvplan finds in a layer of those that SGLang adapts."""
_EXPERTS = {"w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"}
_TABLES = frozenset({"embed_tokens", "lm_head"})
_VOCABULARY_STEP = 64
"""Rows that a dealt-out vocabulary is filled up to a multiple of."""


def lora_slots(model: ModelSpec, deployment: Deployment) -> Measured | None:
    """Buffers for `max_loras` adapters of `max_lora_rank` on one GPU; None without.

        bytes = max_loras · rank · Σ over matrices (inputs + outputs on a rank) · dtype

    As the matrix is dealt out, so is the side that lies along it. Every stage holds them for all layers of the model,
    and of a routed model every layer has those of the experts. The token table's slots are whole on every rank.
    """
    switches = deployment.switches
    if not switches.max_loras:
        return None
    targets = _targets(switches.lora_target_modules)
    layers = [(layer, count) for layer, count in model.layer_counts() if not layer.in_encoder]
    routed = max(_sum(layer, targets, deployment, routed=True) for layer, _ in layers)
    shared = any(_has(layer, "experts") and _has(layer, "mlp") for layer, _ in layers)
    elements = sum(count for _, count in layers) * routed
    for layer, count in layers:
        elements += count * _sum(layer, targets, deployment, routed=False, mlp=shared or not routed)
    elements += _tables(model, deployment, targets)
    num_bytes = ceil_div(switches.max_loras * switches.max_lora_rank * elements * deployment.dtype.bits, 8)
    known = _is_plain(model)
    return Measured(
        name="LoRA slots",
        num_bytes=num_bytes,
        spread_bytes=0 if known and not routed else num_bytes // (10 if known else 3),
        source="SGLang 0.5.23, lora/mem_pool.py: A (loras, stacked · rank, inputs) and B (loras, outputs, rank)",
        basis="derived" if known else "assumed",
    )


def _targets(named: tuple[str, ...]) -> frozenset[str]:
    """The modules that are adapted; all, and both tables, where `all` or nothing is named."""
    if not named or "all" in named:
        return _MODULES | _TABLES
    return frozenset(_STACKED.get(name, name) for name in (text.rpartition(".")[2] for text in named))


def _module(weight: Weight) -> str | None:
    """The module that a matrix belongs to; None for what SGLang does not adapt."""
    if not weight.linear or weight.part not in ("attention", "mlp", "experts"):
        return None
    path = weight.name.partition("[")[0].removesuffix(".weight").rpartition(".")[2]
    name = _EXPERTS.get(path, path) if weight.part == "experts" else path
    name = _STACKED.get(name, name)
    return name if name in _MODULES else None


def _has(layer: Layer, part: str) -> bool:
    return any(weight.part == part and _module(weight) == "gate_up_proj" for weight in layer.weights)


def _sum(layer: Layer, targets: frozenset[str], deployment: Deployment, *, routed: bool, mlp: bool = True) -> int:
    """Inputs and outputs, on a rank, of a layer's routed experts or of everything else; `mlp` of a dense MLP, too."""
    return sum(
        _elements(weight, deployment)
        for weight in layer.weights
        if _module(weight) in targets and (weight.part == "experts") == routed and (mlp or weight.part != "mlp")
    )


def _elements(weight: Weight, deployment: Deployment) -> int:
    if weight.part == "experts" and deployment.switches.expert_parallel:
        return ceil_div(weight.copies, deployment.tp) * sum(weight.shape)
    shape = weight.rank_shape(attention_tp(deployment) if weight.part == "attention" else deployment.tp)
    return weight.copies * sum(shape)


def _tables(model: ModelSpec, deployment: Deployment, targets: frozenset[str]) -> int:
    """Of token table and output head; where both are adapted, SGLang makes the buffers of both twice."""
    vocab, hidden, tp = model.vocab_size, model.hidden_size, deployment.tp
    on_rank = vocab if tp == 1 else min(vocab, ceil_div(round_up(vocab, _VOCABULARY_STEP), tp))
    sizes = {"embed_tokens": vocab + hidden, "lm_head": hidden + on_rank}
    adapted = [size for name, size in sizes.items() if name in targets]
    return len(adapted) * sum(adapted)


def _is_plain(model: ModelSpec) -> bool:
    """Whether every matrix of every layer is one whose module is known: of others SGLang's classes say the shape."""
    for layer in model.layers:
        if any(isinstance(mixer, StateMixer) for mixer in layer.mixers):
            return False
        linear = [weight for weight in layer.weights if weight.linear and weight.part != "router"]
        if any(_module(weight) is None and prod(weight.shape) > model.hidden_size for weight in linear):
            return False
    return True
