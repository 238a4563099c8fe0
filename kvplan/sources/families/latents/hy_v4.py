"""Hunyuan V4: latent attention with indexers, sinks and an output gate; hyper-connections.

Source: transformers 5.23, models/hy_v4/. Checkpoints also hold layers for multi-token prediction, which the class does
not load.
"""

from dataclasses import replace

from kvplan.core.model import Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.latent import (
    indexer,
    indexer_types,
    latent_attention,
    latent_mixer,
    read_latent,
    read_routed,
    routed_mlp,
    sparse_layers,
)
from kvplan.sources.families.bricks.parts import Half, Reading, column, gated_mlp, norm, paired
from kvplan.sources.families.decoders.llama import decoder
from kvplan.sources.families.latents.deepseek_v4 import hyper_connection, hyper_head

_IN_FP32 = ("k_norm", "weights_proj")


def read_hy_v4(facts: Facts) -> Reading:
    """Hunyuan V4: one indexer for four layers after the first; one dense layer by default.

    Source: transformers 5.23, models/hy_v4/modeling_hy_v4.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    width, streams = facts.positive("intermediate_size"), facts.positive("hc_mult")
    full, borrowed = _mixing(facts, hidden, indexes=True), _mixing(facts, hidden, indexes=False)
    shared = indexer_types(facts, num_layers, [i > 0 and (i - 1) % 4 != 0 for i in range(num_layers)])
    routed = read_routed(facts)
    sparse = Half(routed_mlp(routed, hidden), activations=routed.activations)
    dense = Half(gated_mlp(hidden, width), activations=3 * width)
    routes = sparse_layers(facts, num_layers, dense=1)
    rest = (
        *norm("input_layernorm", hidden),
        *norm("post_attention_layernorm", hidden),
        *hyper_connection(hidden, streams, "attn_hc", rows=2 * streams, scales=2),
        *hyper_connection(hidden, streams, "ffn_hc", rows=2 * streams, scales=2),
    )
    mixing = [borrowed if is_shared else full for is_shared in shared]
    layers = paired(mixing, [sparse if r else dense for r in routes], rest, eager_softmax="sinks")
    reading = decoder(facts, layers, hidden)
    head = tuple(replace(w, fixed_bits=32) if w.part == "head" else w for w in reading.head)
    return replace(reading, head=(*hyper_head(hidden, streams), *head))


def _mixing(facts: Facts, hidden: int, *, indexes: bool) -> Half:
    heads = read_latent(facts)
    if heads.query_rank is None:
        raise facts.wrong("q_lora_rank", None, "a number from 1: the indexer reads the compressed query")
    gate = column("self_attn.gate_proj", heads.num_heads * heads.value, hidden, "attention", units=heads.num_heads)
    cut = Split(0, heads.num_heads)
    sinks = Weight(name="self_attn.sinks", shape=(heads.num_heads,), part="attention", split=cut, fixed_bits=32)
    weights = (*latent_attention(heads, hidden, bias=facts.flag("attention_bias")), *gate, sinks)
    if not indexes:
        return Half(weights, (latent_mixer(heads),))
    index_dim, index = indexer(facts, hidden, heads.query_rank)
    index = tuple(replace(w, fixed_bits=32) if any(name in w.name for name in _IN_FP32) else w for w in index)
    return Half((*weights, *index), (latent_mixer(heads, index_dim=index_dim),))
