"""GLM: glm, glm4, glm4_moe.

Source: transformers 5.23, models/{glm,glm4,glm4_moe}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.draft import numbered_draft
from kvplan.sources.families.bricks.halves import BEFORE_BOTH, dense_half, half_decoder
from kvplan.sources.families.bricks.latent import Routed, correction
from kvplan.sources.families.bricks.mixers import Heads, layer_mixers, read_heads, read_window
from kvplan.sources.families.bricks.moe import routed_half
from kvplan.sources.families.bricks.parts import Reading, gated_mlp, projections
from kvplan.sources.families.decoders.llama import decoder, decoder_layers, head_norms, read_experts


def read_glm(facts: Facts) -> Reading:
    """GLM-4 9B (chat) and GLM-Edge: biases on q, k and v, gate and up in one matrix.

    Source: transformers 5.23, models/glm/modeling_glm.py
    """
    return _dense(facts, BEFORE_BOTH)


def read_glm4(facts: Facts) -> Reading:
    """GLM-4-0414 and GLM-Z1: GLM with a norm after each half of a layer too.

    Source: transformers 5.23, models/glm4/modeling_glm4.py
    """
    return _dense(facts, (*BEFORE_BOTH, "post_self_attn_layernorm", "post_mlp_layernorm"))


def read_glm4_moe(facts: Facts) -> Reading:
    """GLM-4.5, 4.6 and 4.7: after the first dense layers routed experts and shared ones, which are one wide MLP.

    Checkpoints also hold a layer for multi-token prediction, which the class does not load. GLM-4.5's has copies of
    token table and output head; GLM-4.6's has not, and no config tells them apart: here they are counted.

    Source: transformers 5.23, models/glm4_moe/modeling_glm4_moe.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = read_heads(facts, hidden)
    attention = _attention(facts, heads)
    if facts.flag("use_qk_norm"):
        attention = (*attention, *head_norms(heads.head_dim))
    num_experts, active = read_experts(facts, "n_routed_experts")
    width = facts.positive("moe_intermediate_size")
    shared = facts.integer("n_shared_experts") * width
    sizes = Routed(num_experts=num_experts, active=active, width=width, shared_width=shared)
    sparse = routed_half(sizes, hidden, beside=(correction(num_experts),))
    dense = dense_half(hidden, facts.positive("intermediate_size"))
    num_dense = facts.integer("first_k_dense_replace")
    feeding = [dense if i < num_dense else sparse for i in range(num_layers)]
    mixers = layer_mixers(facts, heads, num_layers, window=read_window(facts))
    reading = decoder(facts, half_decoder(hidden, mixers, attention, feeding), hidden)
    return numbered_draft(facts, reading, half_decoder(hidden, mixers[-1:], attention, [sparse])[0], copies=True)


def _dense(facts: Facts, norm_names: tuple[str, ...]) -> Reading:
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    facts.refuse_null("head_dim")
    heads = read_heads(facts, hidden)
    mlp = gated_mlp(hidden, width, names=("gate_up_proj[gate]", "gate_up_proj[up]", "down_proj"))
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    layers = decoder_layers(mixers, _attention(facts, heads), mlp, hidden, width, norm_names=norm_names)
    return decoder(facts, layers, hidden)


def _attention(facts: Facts, heads: Heads) -> tuple[Weight, ...]:
    """`attention_bias` speaks of q, k and v alone."""
    return projections(heads, facts.positive("hidden_size"), qkv_bias=facts.flag("attention_bias"))
