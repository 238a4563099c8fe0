"""MiniMax M3: grouped-query attention that an indexer thins out in some layers, experts, a vision tower.

Source: transformers 5.23, models/minimax_m3_vl/. Checkpoints also hold layers for multi-token prediction, which the
class does not load.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import class_family, language_model, multimodal, tied_anywhere
from kvplan.sources.families.bricks.latent import Routed, routed_mlp, sparse_layers
from kvplan.sources.families.bricks.mixers import full, named_mixers, read_heads
from kvplan.sources.families.bricks.parts import Half, Reading, gated_mlp, norm, paired, projections, replicated
from kvplan.sources.families.decoders.llama import decoder, head_norms, read_experts
from kvplan.sources.families.towers.minimax_m3 import projector, vision_tower

FULL, SPARSE = "full_attention", "minimax_m3_sparse"


def read_minimax_m3_vl_text(facts: Facts) -> Reading:
    """The text model: by default all layers are full and all are routed.

    Source: transformers 5.23, models/minimax_m3_vl/modeling_minimax_m3_vl.py `MiniMaxM3VLTextModel`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    types = _types(facts, num_layers)
    mixing = {kind: _mixing(facts, hidden, kind) for kind in sorted(set(types))}
    num_experts, active = read_experts(facts, "num_local_experts")
    routed = Routed(
        num_experts=num_experts,
        active=active,
        width=facts.positive("intermediate_size"),
        shared_width=facts.positive("shared_intermediate_size"),
    )
    weights = tuple(replace(w, fixed_bits=None) if w.buffer else w for w in routed_mlp(routed, hidden))
    sparse = Half(weights, activations=routed.activations)
    width = facts.positive("dense_intermediate_size")
    dense = Half(gated_mlp(hidden, width), activations=3 * width)
    norms = (*norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))
    feeding = [sparse if routes else dense for routes in _routing(facts, num_layers)]
    return decoder(facts, paired([mixing[kind] for kind in types], feeding, norms), hidden)


def read_minimax_m3_vl(facts: Facts) -> Reading:
    """MiniMax M3 with its vision tower.

    Source: transformers 5.23, models/minimax_m3_vl/modeling_minimax_m3_vl.py `MiniMaxM3SparseForConditionalGeneration`
    """
    text, vision = language_model(facts), facts.part("vision_config")
    tied = tied_anywhere(facts, facts.part("text_config"))
    family = class_family(facts, "minimax_m3_sparse", "minimax_m3_vl")
    seen = projector(vision, facts, text.hidden_size)
    return multimodal(facts, text, vision_tower(vision), seen, tied=tied, family=family)


def _mixing(facts: Facts, hidden: int, kind: str) -> Half:
    """Attention with a norm on each head's query and key; a sparse layer has an indexer beside it."""
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden)
    weights: tuple[Weight, ...] = (*projections(heads, hidden), *head_norms(heads.head_dim))
    mixers = {FULL: full(heads)}
    if kind == SPARSE:
        num_heads, dim = _index(facts, "index_n_heads"), _index(facts, "index_head_dim")
        weights = (
            *weights,
            *replicated("self_attn.indexer.q_proj", num_heads * dim, hidden, "attention"),
            *replicated("self_attn.indexer.k_proj", dim, hidden, "attention"),
            *norm("self_attn.indexer.q_norm", dim),
            *norm("self_attn.indexer.k_norm", dim),
        )
        mixers[SPARSE] = replace(full(heads), index_dim=dim)
    return Half(weights, tuple(named_mixers(mixers, (kind,))))


def _index(facts: Facts, key: str) -> int:
    """A size of the indexer; older files state it under another name, in an object of its own."""
    old = {"index_n_heads": "sparse_num_index_heads", "index_head_dim": "sparse_index_dim"}[key]
    listed = facts.nested("sparse_attention_config")
    return listed.positive(old) if listed.has(old) else facts.positive(key)


def _types(facts: Facts, num_layers: int) -> tuple[str, ...]:
    """`layer_types`, else the ones and zeros of `sparse_attention_freq`, else all full."""
    types = facts.strings("layer_types", length=num_layers)
    listed = facts.nested("sparse_attention_config")
    if types is None and listed.has("sparse_attention_freq"):
        types = tuple(SPARSE if sparse else FULL for sparse in listed.integers("sparse_attention_freq"))
        if len(types) != num_layers:
            raise listed.wrong("sparse_attention_freq", f"a list of {len(types)}", f"a list of {num_layers}")
    return types or (FULL,) * num_layers


def _routing(facts: Facts, num_layers: int) -> list[bool]:
    """`mlp_layer_types`, else the ones and zeros of `moe_layer_freq`, else all layers route."""
    if facts.has("mlp_layer_types") or not facts.has("moe_layer_freq"):
        return sparse_layers(facts, num_layers, dense=0)
    stated = facts.integers("moe_layer_freq")
    if len(stated) != num_layers:
        raise facts.wrong("moe_layer_freq", f"a list of {len(stated)}", f"a list of {num_layers}, one for each layer")
    return [bool(routes) for routes in stated]
