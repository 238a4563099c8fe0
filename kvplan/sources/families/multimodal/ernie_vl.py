"""ERNIE 4.5-VL: ernie4_5_vl_moe and its text model, whose experts are of two kinds, for text and for images.

Source: transformers 5.23, models/ernie4_5_vl_moe/.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.halves import dense_half, half_decoder
from kvplan.sources.families.bricks.latent import sparse_layers
from kvplan.sources.families.bricks.mixers import full, read_heads
from kvplan.sources.families.bricks.parts import Half, Reading, experts, gated_mlp, projections, replicated
from kvplan.sources.families.decoders.llama import decoder, read_experts
from kvplan.sources.families.towers.ernie_vl import resampler
from kvplan.sources.families.towers.table import tower_of, vision_part

_WIDTHS = (1536, 512)


def read_ernie4_5_vl_moe(facts: Facts) -> Reading:
    """ERNIE 4.5-VL: tower, resampler, text model.

    Source: transformers 5.23, models/ernie4_5_vl_moe/modeling_ernie4_5_vl_moe.py
    """
    text, vision = language_model(facts), vision_part(facts)
    return multimodal(facts, text, tower_of(vision), resampler(vision, text.hidden_size))


def read_ernie4_5_vl_moe_text(facts: Facts) -> Reading:
    """The text model of ERNIE 4.5-VL: the first layer dense, where `mlp_layer_types` does not say otherwise.

    Source: transformers 5.23, models/ernie4_5_vl_moe/modeling_ernie4_5_vl_moe.py `Ernie4_5_VLMoeDecoderLayer`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads, bias = read_heads(facts, hidden), facts.flag("use_bias")
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    dense = dense_half(hidden, facts.positive("intermediate_size"), bias=bias)
    sparse = _sparse_half(facts, hidden, bias=bias)
    feeding = [sparse if routes else dense for routes in sparse_layers(facts, num_layers, dense=1)]
    return decoder(facts, half_decoder(hidden, [full(heads)] * num_layers, attention, feeding), hidden)


def _sparse_half(facts: Facts, hidden: int, *, bias: bool) -> Half:
    """Two sets of experts: a token of text passes through the first alone, and through the shared one.

    Both routers stay in fp32, and so does each one's correction, a parameter here.
    """
    num_experts, active = read_experts(facts, "moe_num_experts", active_key="moe_k")
    widths = facts.integers("moe_intermediate_size") or _WIDTHS
    if len(widths) != 2 or min(widths) < 1:
        raise facts.wrong("moe_intermediate_size", widths, "two numbers from 1")
    shared = facts.integer("moe_num_shared_experts") * widths[0]
    weights = (
        *_routed("mlp.text_moe", num_experts, active, widths[0], hidden),
        *_routed("mlp.vision_moe", num_experts, 0, widths[1], hidden),
        *(gated_mlp(hidden, shared, prefix="mlp.shared_experts", bias=bias) if shared else ()),
    )
    return Half(weights, activations=3 * (active * max(widths) + shared))


def _routed(prefix: str, num_experts: int, active: int, width: int, hidden: int) -> tuple[Weight, ...]:
    gate = replicated(f"{prefix}.gate", num_experts, hidden, "router")
    statics = Weight(
        name=f"{prefix}.gate.moe_statics.e_score_correction_bias",
        shape=(1, num_experts),
        part="router",
        fixed_bits=32,
    )
    expert = gated_mlp(hidden, width, prefix=f"{prefix}.experts")
    routed = experts(expert, num_experts=num_experts, active=active)
    return (*(replace(weight, fixed_bits=32) for weight in gate), statics, *routed)
