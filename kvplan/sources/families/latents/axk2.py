"""A.X K2: DeepSeek V3.2's attention with an output gate, and norms that a small MLP gates.

Source: transformers 5.23, models/axk2/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.latent import (
    indexer,
    latent_keys,
    latent_mixer,
    latent_output,
    read_latent,
    read_routed,
    routed_mlp,
)
from kvplan.sources.families.bricks.parts import Half, Reading, column, gated_mlp, norm, paired, replicated
from kvplan.sources.families.decoders.llama import decoder
from kvplan.sources.families.latents.deepseek import routing_layers


def read_axk2(facts: Facts) -> Reading:
    """A.X K2: every layer has an indexer; the norm before a routed part is gated, before a dense one it is plain.

    Source: transformers 5.23, models/axk2/modeling_axk2.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    routes = routing_layers(facts)
    routed = read_routed(facts)
    sparse = Half(
        (*routed_mlp(routed, hidden), *_gated_norm(facts, "post_attention_layernorm", hidden)),
        activations=routed.activations,
    )
    dense = Half((*gated_mlp(hidden, width), *norm("post_attention_layernorm", hidden)), activations=3 * width)
    mixing = [_mixing(facts, hidden)] * len(routes)
    rest = _gated_norm(facts, "input_layernorm", hidden)
    layers = paired(mixing, [sparse if is_sparse else dense for is_sparse in routes], rest)
    return decoder(facts, layers, hidden)


def _mixing(facts: Facts, hidden: int) -> Half:
    """Query and output gate come from one projection, of the compressed query before and after its norm."""
    heads = read_latent(facts)
    rank = heads.query_rank
    if rank is None:
        raise facts.wrong("q_lora_rank", None, "a number from 1: indexer and output gate read the compressed query")
    index_dim, index = indexer(facts, hidden, rank)
    bias, width = facts.flag("attention_bias"), heads.num_heads * (heads.key + heads.value)
    weights = (
        *replicated("self_attn.q_a_proj", rank, hidden, "attention", bias=bias),
        *norm("self_attn.q_a_layernorm", rank),
        *column("self_attn.q_gate_proj", width, 2 * rank, "attention", units=heads.num_heads),
        *latent_keys(heads, hidden, bias=bias),
        *latent_output(heads, hidden, bias=bias),
        *index,
    )
    return Half(weights, (latent_mixer(heads, index_dim=index_dim),))


def _gated_norm(facts: Facts, name: str, hidden: int) -> tuple[Weight, ...]:
    rank = facts.positive("gated_norm_rank")
    return (
        *norm(f"{name}.norm", hidden),
        *replicated(f"{name}.mlp.fc1", rank, hidden, "norms"),
        *replicated(f"{name}.mlp.fc2", hidden, rank, "norms"),
    )
