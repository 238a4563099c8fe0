"""Ling and Ring, 1 to 2.0: `bailing_moe` and `bailing_moe_v2`.

Source: inclusionAI/Ling-lite and Ling-mini-2.0, configuration_bailing_moe.py and configuration_bailing_moe_v2.py,
modeling_bailing_moe.py and modeling_bailing_moe_v2.py; vLLM 0.33, models/bailing_moe.py.
"""

from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import class_family
from kvplan.sources.families.bricks.halves import dense_half
from kvplan.sources.families.bricks.latent import Routed, correction
from kvplan.sources.families.bricks.mixers import Heads, full
from kvplan.sources.families.bricks.moe import routed_half
from kvplan.sources.families.bricks.parts import Half, Reading, norm, projections, replicated
from kvplan.sources.families.decoders.llama import read_experts
from kvplan.sources.families.remote.parts import (
    LLAMA,
    Names,
    grouped_heads,
    not_passed_through,
    remote_decoder,
    remote_layers,
)

_NAMES = Names(embed="word_embeddings")


def read_bailing_moe(facts: Facts) -> Reading:
    """Ling-lite, Ling-plus and Ling 2.0: grouped heads in one matrix, routed experts beside shared ones.

    The second version's routers have a correction, which the Hub counts as parameters, and its class holds the
    layers that predict ahead. Biases beyond q, k and v (`use_bias`) mean other matrices to the repository's class
    than to vLLM's, and are refused.
    """
    if facts.flag("use_bias", default=True):
        raise UnsupportedError(
            "`use_bias` is true, or unstated, which means true: the repository's class and vLLM's disagree on it",
            hint="pass `--set use_bias=false`, which all published models state",
        )
    hidden, count = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads, family = grouped_heads(facts, hidden), class_family(facts, "bailingmoev2", "bailingmoe")
    second = family == "bailingmoev2" and (facts.architecture() is not None or facts.model_type == "bailing_moe_v2")
    attention, sparse = _attention(facts, heads, hidden), _routed(facts, hidden, corrected=second)
    dense = dense_half(hidden, facts.positive("intermediate_size"))
    first = facts.integer("first_k_dense_replace", default=0)
    feeding = [dense if i < first else sparse for i in range(count)]
    layers = remote_layers(hidden, [full(heads)] * count, attention, feeding)
    reading = remote_decoder(facts, layers, hidden, names=_NAMES, family=family)
    ahead = facts.integer("num_nextn_predict_layers", default=0) if second else 0
    weights = _ahead((*attention, *sparse.weights), hidden)
    return replace(reading, head=(*reading.head, *not_passed_through(weights, copies=ahead)))


def _attention(facts: Facts, heads: Heads, hidden: int) -> tuple[Weight, ...]:
    names = ("query_key_value[q]", "query_key_value[k]", "query_key_value[v]", "dense")
    bias = facts.flag("use_qkv_bias", default=False)
    head_norms = (
        *norm("attention.query_layernorm", heads.head_dim),
        *norm("attention.key_layernorm", heads.head_dim),
    )
    return (
        *projections(heads, hidden, prefix="attention", names=names, qkv_bias=bias),
        *(head_norms if facts.flag("use_qk_norm", default=False) else ()),
    )


def _routed(facts: Facts, hidden: int, *, corrected: bool) -> Half:
    """Experts under either spelling of their numbers, and the shared ones as one MLP."""
    num_experts, active = read_experts(facts, "num_experts", "n_routed_experts")
    width = facts.positive("moe_intermediate_size")
    shared_width = facts.positive("moe_shared_expert_intermediate_size", default=width)
    shared = facts.integer("num_shared_experts", "n_shared_experts", default=0) * shared_width
    routed = Routed(num_experts=num_experts, active=active, width=width, shared_width=shared)
    corrected = facts.flag("moe_router_enable_expert_bias", default=corrected)
    beside = (correction(num_experts, name="mlp.gate.expert_bias"),) if corrected else ()
    return routed_half(routed, hidden, beside=beside)


def _ahead(layer: tuple[Weight, ...], hidden: int) -> tuple[Weight, ...]:
    """A layer that predicts one token further: a routed layer after a matrix that joins state and token.

    Source: inclusionAI/Ling-flash-2.0, modeling_bailing_moe_v2.py `BailingMoeV2MTPLayer`
    """
    norms = (*LLAMA.before, "enorm", "hnorm", "final_layernorm")
    weights = (
        *layer,
        *replicated("eh_proj", hidden, 2 * hidden, "mlp"),
        *(weight for name in norms for weight in norm(name, hidden)),
    )
    return tuple(replace(weight, name=f"ahead.*.{weight.name}") for weight in weights)
