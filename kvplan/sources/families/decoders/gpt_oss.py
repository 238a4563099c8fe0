"""gpt-oss: attention sinks, biases everywhere, experts fused over gate and up.

Source: transformers 5.23, models/gpt_oss/.
"""

from kvplan.core.model import Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads, alternating, read_heads, read_window, typed_mixers
from kvplan.sources.families.bricks.parts import Reading, experts, projections, replicated
from kvplan.sources.families.decoders.llama import decoder, decoder_layers, read_experts


def read_gpt_oss(facts: Facts) -> Reading:
    """gpt-oss: every second layer slides, the first one too; all MLPs are routed experts.

    Source: transformers 5.23, models/gpt_oss/modeling_gpt_oss.py
    """
    hidden = facts.positive("hidden_size")
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden, num_kv_heads=8, head_dim=64)
    attention, moe, width = gpt_oss_parts(facts, heads, hidden)
    num_layers = facts.layer_count("num_hidden_layers")
    types = facts.strings("layer_types", length=num_layers) or alternating(num_layers, 2)
    mixers = typed_mixers(heads, read_window(facts, default=128), types)
    layers = decoder_layers(mixers, attention, moe, hidden, width, eager_softmax="sinks")
    return decoder(facts, layers, hidden)


def gpt_oss_parts(facts: Facts, heads: Heads, hidden: int) -> tuple[tuple[Weight, ...], tuple[Weight, ...], int]:
    """(attention with its sinks, experts with their router, width of the experts that a token uses)."""
    bias = facts.flag("attention_bias", default=True)
    sinks = Weight(name="self_attn.sinks", shape=(heads.num_heads,), part="attention", split=Split(0, heads.num_heads))
    attention = (*projections(heads, hidden, qkv_bias=bias, out_bias=bias), sinks)
    width = facts.positive("intermediate_size")
    num_experts, active = read_experts(facts, "num_local_experts", "num_experts")
    moe = (
        *replicated("mlp.router", num_experts, hidden, "router", bias=True),
        *experts(_expert(hidden, width), num_experts=num_experts, active=active),
    )
    return attention, moe, width * active


def _expert(hidden: int, width: int) -> tuple[Weight, ...]:
    """One expert; gate and up rows alternate, so tensor parallelism deals out pairs of them."""
    pairs = Split(0, width)
    return (
        Weight(name="mlp.experts.gate_up_proj", shape=(2 * width, hidden), part="experts", split=pairs, linear=True),
        Weight(name="mlp.experts.gate_up_proj_bias", shape=(2 * width,), part="experts", split=pairs),
        Weight(name="mlp.experts.down_proj", shape=(hidden, width), part="experts", split=Split(1, width), linear=True),
        Weight(name="mlp.experts.down_proj_bias", shape=(hidden,), part="experts"),
    )
