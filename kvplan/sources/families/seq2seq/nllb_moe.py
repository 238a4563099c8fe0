"""NLLB-MoE: M2M-100 whose every n-th layer routes each token to two experts.

Source: transformers 5.23, models/nllb_moe/.
"""

from kvplan.core.mixers import Mixer
from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import cross, encoder, full
from kvplan.sources.families.bricks.parts import Half, Reading, experts, norm, paired, plain_mlp, replicated
from kvplan.sources.families.seq2seq.sides import Side, Style, attention, read_two_sides

_STYLE = Style(
    family="nllbmoe",
    stored_positions=False,
    embedding_norm=False,
    final_norm=True,
    logits_bias=False,
    across="cross_attention",
)
_ACTIVE = 2


def read_nllb_moe(facts: Facts) -> Reading:
    """NLLB-MoE: norms before each part, positions that are computed, biased experts, two of them a token.

    Source: transformers 5.23, models/nllb_moe/modeling_nllb_moe.py `NllbMoeTop2Router`
    """
    return read_two_sides(facts, _STYLE, encoder_side=_encoder_layers, decoder_side=_decoder_layers)


def _encoder_layers(facts: Facts, side: Side, style: Style) -> list[Layer]:
    own = attention("self_attn", side, style)
    return _layers(facts, side, "encoder", (encoder(side.heads),), own)


def _decoder_layers(facts: Facts, side: Side, style: Style) -> list[Layer]:
    own = (*attention("self_attn", side, style), *attention(style.across, side, style))
    return _layers(facts, side, "decoder", (full(side.heads), cross(side.heads)), own)


def _layers(facts: Facts, side: Side, name: str, mixers: tuple[Mixer, ...], mixing: tuple[Weight, ...]) -> list[Layer]:
    dense, routed = _feeding(facts, side)
    step = facts.integer(f"{name}_sparse_step")
    feeding = [routed if step and (i + 1) % step == 0 else dense for i in range(side.num_layers)]
    after = norm("ff_layer_norm", side.hidden, bias=True)
    halves = [Half(mixing, mixers)] * side.num_layers
    return paired(halves, feeding, after, eager_softmax="model-dtype")


def _feeding(facts: Facts, side: Side) -> tuple[Half, Half]:
    """(a dense feed-forward part, one of experts)."""
    hidden, width, num_experts = side.hidden, side.width, facts.positive("num_experts")
    dense = plain_mlp(hidden, width, up="ffn.fc1", down="ffn.fc2")
    expert = plain_mlp(hidden, width, up="ffn.experts.*.fc1", down="ffn.experts.*.fc2")
    router = replicated("ffn.router.classifier", num_experts, hidden, "router", bias=facts.flag("router_bias"))
    active = min(_ACTIVE, num_experts)
    routed = (*router, *experts(expert, num_experts=num_experts, active=active))
    return Half(dense, activations=2 * width), Half(routed, activations=2 * width * active)
