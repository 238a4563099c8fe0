"""Mistral Large 4: latent attention with indexers, layers without positions, layers that share a latent; a tower.

Source: transformers 5.23, models/mistral_large4/. Checkpoints also hold a draft model, which the class does not load.
"""

from dataclasses import dataclass, replace

from kvplan.core.mixers import LatentAttention, SharedAttention
from kvplan.core.model import Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.latent import (
    LatentHeads,
    indexer,
    latent_mixer,
    latent_output,
    latent_query,
    read_latent,
    read_routed,
    routed_mlp,
    shared_indexers,
    sparse_layers,
)
from kvplan.sources.families.bricks.parts import Half, Reading, column, gated_mlp, norm, paired, replicated
from kvplan.sources.families.decoders.llama import decoder


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attending:
    """What tells layers' attention apart."""

    rotary: bool
    keeps: bool
    indexes: bool


def read_mistral_large4_text(facts: Facts) -> Reading:
    """The text model: GLM-5's attention without a compressed query, DeepSeek's experts without a correction.

    Source: transformers 5.23, models/mistral_large4/modeling_mistral_large4.py `MistralLarge4TextModel`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    shared = shared_indexers(facts, num_layers)
    rotary, sources = _rotary(facts, num_layers), _sources(facts, num_layers)
    kinds = [_Attending(rotary=rotary[i], keeps=sources[i] == i, indexes=not shared[i]) for i in range(num_layers)]
    mixing = {kind: _mixing(facts, hidden, kind) for kind in set(kinds)}
    width = facts.positive("intermediate_size")
    dense = Half(gated_mlp(hidden, width), activations=3 * width)
    routed = read_routed(facts, "num_experts")
    sparse = Half(routed_mlp(routed, hidden, corrected=False), activations=routed.activations)
    routes = sparse_layers(facts, num_layers, dense=facts.integer("first_k_dense_replace"))
    norms = (*norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))
    layers = paired([mixing[kind] for kind in kinds], [sparse if r else dense for r in routes], norms)
    reading = decoder(facts, layers, hidden)
    alpha = Weight(
        name="rotary_emb.alpha",
        shape=(facts.positive("qk_rope_head_dim") // 2,),
        part="attention",
        buffer=True,
        fixed_bits=32,
    )
    return replace(reading, embeddings=(*reading.embeddings, alpha))


def _rotary(facts: Facts, num_layers: int) -> list[bool]:
    """For each layer whether it has rotary positions: by default all but every fourth."""
    if facts.has("no_rope_layers"):
        stated = facts.integers("no_rope_layers")
        if len(stated) < num_layers:
            raise facts.wrong("no_rope_layers", f"a list of {len(stated)}", f"a list of {num_layers}, one each layer")
        return [bool(rotary) for rotary in stated[:num_layers]]
    every = facts.positive("no_rope_layer_interval", default=4)
    return [(i + 1) % every != 0 for i in range(num_layers)]


def _sources(facts: Facts, num_layers: int) -> tuple[int, ...]:
    """For each layer the one whose latent it reads: by default its own."""
    sources = facts.integers("kv_source_layers") or tuple(range(num_layers))
    if len(sources) != num_layers:
        raise facts.wrong("kv_source_layers", f"a list of {len(sources)}", f"a list of {num_layers}, one each layer")
    if any(not 0 <= source <= i or sources[source] != source for i, source in enumerate(sources)):
        raise facts.wrong("kv_source_layers", sources, "a list of layers that keep a latent, none after its reader")
    return sources


def _mixing(facts: Facts, hidden: int, kind: _Attending) -> Half:
    """One kind of attention: without positions the rotary part of keys is plain; a reader has no compression."""
    stated = read_latent(facts)
    heads = stated if kind.rotary else replace(stated, nope=stated.key, rope=0)
    bias = facts.flag("attention_bias")
    kept = (
        *replicated("self_attn.kv_a_proj_with_mqa", heads.latent + heads.rope, hidden, "attention", bias=bias),
        *norm("self_attn.kv_a_layernorm", heads.latent),
    )
    expanded = heads.num_heads * (heads.nope + heads.value)
    weights = (
        *latent_query(heads, hidden),
        *(kept if kind.keeps else ()),
        *column("self_attn.kv_b_proj", expanded, heads.latent, "attention", units=heads.num_heads),
        *latent_output(heads, hidden, bias=bias),
        *_softmax_scaling("self_attn", heads.num_heads, split=True),
    )
    if not kind.indexes:
        return Half(weights, (_mixer(heads, kind, 0),))
    index_dim, index = indexer(facts, hidden, hidden)
    scaling = _softmax_scaling("self_attn.indexer", facts.positive("index_n_heads"), split=False)
    index = (*index, *norm("self_attn.indexer.q_input_norm", hidden, bias=True), *scaling)
    return Half((*weights, *index), (_mixer(heads, kind, index_dim),))


def _mixer(heads: LatentHeads, kind: _Attending, index_dim: int) -> LatentAttention | SharedAttention:
    if kind.keeps:
        return latent_mixer(heads, index_dim=index_dim)
    if kind.indexes:
        return replace(latent_mixer(heads, index_dim=index_dim), latent_dim=0, rope_dim=0)
    return SharedAttention(
        num_heads=heads.num_heads, num_kv_heads=heads.num_heads, key_dim=heads.key, value_dim=heads.value
    )


def _softmax_scaling(prefix: str, num_heads: int, *, split: bool) -> tuple[Weight, ...]:
    """A learnt scale and bias for each head's queries."""
    cut = Split(0, num_heads) if split else None
    return tuple(
        Weight(name=f"{prefix}.softmax_scaling.{name}", shape=(num_heads,), part="attention", split=cut)
        for name in ("scale", "bias")
    )
