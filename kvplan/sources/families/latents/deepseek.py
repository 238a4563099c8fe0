"""DeepSeek V2 to V3.2 and what is built like them: latent attention, then routed and shared experts.

Source: transformers 5.23, models/{deepseek_v2,deepseek_v3,deepseek_v32,glm_moe_dsa,glm4_moe_lite,axk1}/. Checkpoints
also hold a layer for multi-token prediction, which the classes do not load.
"""

from dataclasses import replace
from typing import Literal

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.draft import numbered_draft
from kvplan.sources.families.bricks.latent import (
    Routed,
    indexer,
    latent_attention,
    latent_mixer,
    read_latent,
    read_routed,
    routed_mlp,
    shared_indexers,
    sparse_layers,
)
from kvplan.sources.families.bricks.mixers import require_divisor
from kvplan.sources.families.bricks.parts import Half, Reading, gated_mlp, norm, paired
from kvplan.sources.families.decoders.llama import decoder

_Drafts = Literal["plain", "tables"]
"""Whether the checkpoints' layers for multi-token prediction have copies of token table and head: DeepSeek's and
GLM-4.7-Flash's do, GLM-5's do not."""


def read_deepseek_v2(facts: Facts) -> Reading:
    """DeepSeek V2: its MLPs can have biases, its routers have no correction.

    Source: transformers 5.23, models/deepseek_v2/modeling_deepseek_v2.py
    """
    hidden, num_heads = facts.positive("hidden_size"), facts.positive("num_attention_heads")
    require_divisor(facts, "num_attention_heads", num_heads, "hidden_size", hidden)
    num_experts = facts.positive("n_routed_experts", "num_experts")
    if facts.has("num_experts_per_tok"):
        routed = read_routed(facts, "num_experts")
    else:
        # The class's own default is null, with which it can be built but not run: then no expert is set aside.
        width = facts.positive("moe_intermediate_size")
        shared_width = facts.integer("n_shared_experts") * width
        routed = Routed(num_experts=num_experts, active=num_experts, width=width, shared_width=shared_width)
    bias = facts.flag("mlp_bias")
    sparse = _sparse(routed, routed_mlp(routed, hidden, corrected=False, shared_bias=bias))
    return _decoder(facts, [_attention(facts)], sparse, dense=facts.integer("first_k_dense_replace"), mlp_bias=bias)


def read_deepseek_v3(facts: Facts) -> Reading:
    """DeepSeek V3 and R1, and the text model of Kimi K2.5.

    Source: transformers 5.23, models/deepseek_v3/modeling_deepseek_v3.py
    """
    routed = read_routed(facts)
    sparse = _sparse(routed, routed_mlp(routed, facts.positive("hidden_size")))
    return _decoder(facts, [_attention(facts)], sparse, dense=facts.integer("first_k_dense_replace"), drafts="tables")


def read_deepseek_v32(facts: Facts) -> Reading:
    """DeepSeek V3.2: V3 with an indexer in each layer, which keeps a key of its own.

    Source: transformers 5.23, models/deepseek_v32/modeling_deepseek_v32.py
    """
    return _indexed(facts, shared=[False] * facts.layer_count("num_hidden_layers"), drafts="tables")


def read_glm_moe_dsa(facts: Facts) -> Reading:
    """GLM-5: DeepSeek V3.2 where some layers may take the choice of an earlier layer's indexer.

    Source: transformers 5.23, models/glm_moe_dsa/modeling_glm_moe_dsa.py
    """
    return _indexed(facts, shared=shared_indexers(facts, facts.layer_count("num_hidden_layers")), drafts="plain")


def read_glm4_moe_lite(facts: Facts) -> Reading:
    """GLM-4.7-Flash: DeepSeek V3 whose layers `mlp_layer_types` tells apart, one dense layer by default.

    Source: transformers 5.23, models/glm4_moe_lite/modeling_glm4_moe_lite.py
    """
    routed = read_routed(facts)
    sparse = _sparse(routed, routed_mlp(routed, facts.positive("hidden_size")))
    return _decoder(facts, [_attention(facts)], sparse, dense=1, drafts="tables")


def read_axk1(facts: Facts) -> Reading:
    """A.X K1: DeepSeek V3 with a norm after each routed part; every `moe_layer_freq`-th layer routes.

    Source: transformers 5.23, models/axk1/modeling_axk1.py
    """
    routed, hidden = read_routed(facts), facts.positive("hidden_size")
    weights = tuple(replace(w, fixed_bits=None) if w.buffer else w for w in routed_mlp(routed, hidden))
    sparse = _sparse(routed, (*weights, *norm("mlp.post_mlp_layernorm", hidden)))
    return _decoder(facts, [_attention(facts)], sparse, routes=routing_layers(facts))


def read_mistral4(facts: Facts) -> Reading:
    """Mistral 4: DeepSeek V3 without a correction in its routers, all layers sparse by default.

    Source: transformers 5.23, models/mistral4/modeling_mistral4.py
    """
    routed = read_routed(facts)
    sparse = _sparse(routed, routed_mlp(routed, facts.positive("hidden_size"), corrected=False))
    return _decoder(facts, [_attention(facts)], sparse, dense=facts.integer("first_k_dense_replace"))


def routing_layers(facts: Facts) -> list[bool]:
    """For each layer whether it routes: `mlp_layer_types`, else by the older keys, which have no class default.

    Source: transformers 5.23, models/axk1/configuration_axk1.py
    """
    num_layers = facts.layer_count("num_hidden_layers")
    if facts.has("mlp_layer_types"):
        return sparse_layers(facts, num_layers, dense=0)
    dense = facts.integer("first_k_dense_replace", default=1)
    every = facts.positive("moe_layer_freq", default=1)
    return [i >= dense and i % every == 0 for i in range(num_layers)]


def _indexed(facts: Facts, *, shared: list[bool], drafts: _Drafts) -> Reading:
    """Layers with an indexer each, but those that are `shared`."""
    hidden, heads = facts.positive("hidden_size"), read_latent(facts)
    if heads.query_rank is None:
        raise facts.wrong("q_lora_rank", None, "a number from 1: the indexer reads the compressed query")
    index_dim, weights = indexer(facts, hidden, heads.query_rank)
    plain = latent_attention(heads, hidden, bias=facts.flag("attention_bias"))
    full = Half((*plain, *weights), (latent_mixer(heads, index_dim=index_dim),))
    borrowed = Half(plain, (latent_mixer(heads),))
    routed = read_routed(facts, "num_experts")
    sparse = _sparse(routed, routed_mlp(routed, hidden))
    mixing = [borrowed if is_shared else full for is_shared in shared]
    return _decoder(facts, mixing, sparse, dense=facts.integer("first_k_dense_replace"), drafts=drafts)


def _attention(facts: Facts) -> Half:
    heads = read_latent(facts)
    bias = facts.flag("attention_bias")
    return Half(latent_attention(heads, facts.positive("hidden_size"), bias=bias), (latent_mixer(heads),))


def _sparse(routed: Routed, weights: tuple[Weight, ...]) -> Half:
    return Half(weights, activations=routed.activations)


def _decoder(
    facts: Facts,
    mixing: list[Half],
    sparse: Half,
    *,
    dense: int = 0,
    routes: list[bool] | None = None,
    mlp_bias: bool = False,
    drafts: _Drafts | None = None,
) -> Reading:
    """A decoder with one half of `mixing` a layer, or the same for all; the first `dense` do not route.

    With `drafts` its checkpoints hold layers for multi-token prediction: each like a routed layer with the first
    layer's attention, which has an indexer of its own wherever there are any.
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    num_layers = facts.layer_count("num_hidden_layers")
    plain = Half(gated_mlp(hidden, width, bias=mlp_bias), activations=3 * width)
    if routes is None:
        routes = sparse_layers(facts, num_layers, dense=dense)
    halves = mixing * num_layers if len(mixing) == 1 else mixing
    norms = (*norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))
    layers = paired(halves, [sparse if is_sparse else plain for is_sparse in routes], norms)
    reading = decoder(facts, layers, hidden)
    if drafts is None:
        return reading
    return numbered_draft(facts, reading, paired(mixing[:1], [sparse], norms)[0], copies=drafts == "tables")
