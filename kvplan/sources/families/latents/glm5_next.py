"""GLM-5.3-Flash: Kimi delta attention in three of four layers, latent attention with a pooling indexer in the fourth.

Source: transformers 5.23, models/glm5_next/. Checkpoints also hold a layer for multi-token prediction, which the class
does not load.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import flat_text, multimodal
from kvplan.sources.families.bricks.delta import DeltaHeads, by_head, delta_core
from kvplan.sources.families.bricks.latent import (
    indexer,
    latent_attention,
    latent_mixer,
    read_latent,
    read_routed,
    routed_mlp,
    shared_indexers,
    sparse_layers,
)
from kvplan.sources.families.bricks.parts import Half, Reading, column, gated_mlp, norm, paired, replicated
from kvplan.sources.families.bricks.per_layer import own_or
from kvplan.sources.families.decoders.llama import decoder
from kvplan.sources.families.latents.deepseek_v4 import hyper_connection
from kvplan.sources.families.table import reader_of
from kvplan.sources.families.towers.glm5_next import vision_tower

LINEAR, INDEXED, FULL = "linear_attention", "indexed_attention", "full_attention"
_OLD_NAMES = {FULL: INDEXED, "deepseek_sparse_attention": INDEXED}
_IN_FP32 = ("conv1d", "dt_bias", "A_log")


def read_glm5_next_text(facts: Facts) -> Reading:
    """The text model: three dense layers by default, hyper-connections around both halves of each.

    Source: transformers 5.23, models/glm5_next/modeling_glm5_next.py `Glm5NextTextModel`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    kinds = list(zip(_types(facts, num_layers), shared_indexers(facts, num_layers), strict=True))
    linear = _delta(facts, hidden)
    latent = {shared: _latent(facts, hidden, indexes=not shared) for shared in (False, True)}
    mixing = [linear if kind == LINEAR else latent[shared] for kind, shared in kinds]
    width, routed = facts.positive("intermediate_size"), read_routed(facts)
    sparse = Half(routed_mlp(routed, hidden), activations=routed.activations)
    dense = Half(gated_mlp(hidden, width), activations=3 * width)
    feeding = [sparse if routes else dense for routes in sparse_layers(facts, num_layers, dense=3)]
    streams = facts.positive("hc_mult")
    connections = tuple(
        weight
        for name in ("attn_hc", "ffn_hc")
        for weight in hyper_connection(hidden, streams, name, rows=(2 + streams) * streams, scales=3, matrix_bits=None)
    )
    norms = (*norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))
    return decoder(facts, paired(mixing, feeding, (*norms, *connections)), hidden)


def read_glm5_next(facts: Facts) -> Reading:
    """GLM-5.3-Flash with its vision tower; the text model's facts may stand at the top.

    Source: transformers 5.23, models/glm5_next/modeling_glm5_next.py `Glm5NextForConditionalGeneration`
    """
    inner = flat_text(facts)
    text = reader_of(inner.model_type)(inner)
    return multimodal(facts, text, vision_tower(facts.part("vision_config")))


def _types(facts: Facts, num_layers: int) -> tuple[str, ...]:
    """`layer_types`, by default every fourth layer latent; only these two kinds are known."""
    types = facts.strings("layer_types", length=num_layers) or tuple(
        LINEAR if i % 4 != 3 else INDEXED for i in range(num_layers)
    )
    types = tuple(_OLD_NAMES.get(name, name) for name in types)
    if unknown := set(types) - {LINEAR, INDEXED}:
        raise facts.wrong("layer_types", min(unknown), f"a list of {LINEAR} and {INDEXED}")
    return types


def _latent(facts: Facts, hidden: int, *, indexes: bool) -> Half:
    """Latent attention without positions; its indexer folds the keys of `index_kpool` tokens into one.

    Source: transformers 5.23, models/glm5_next/modeling_glm5_next.py `Glm5NextTextIndexer`
    """
    heads = read_latent(facts)
    if heads.rope:
        raise facts.wrong("qk_rope_head_dim", heads.rope, "0: latent layers have no positions")
    if heads.query_rank is None:
        raise facts.wrong("q_lora_rank", None, "a number from 1: the indexer reads the compressed query")
    weights = latent_attention(heads, hidden, bias=facts.flag("attention_bias"))
    if not indexes:
        return Half(weights, (latent_mixer(heads),))
    pool, (dim, index) = facts.positive("index_kpool"), indexer(facts, hidden, heads.query_rank)
    prefix = "self_attn.indexer.index_kpool_compress"
    folding = (
        Weight(name=f"{prefix}_ape", shape=(pool, dim), part="attention"),
        Weight(name=f"{prefix}_gate", shape=(dim, hidden), part="attention"),
    )
    return Half((*weights, *index, *folding), (latent_mixer(heads, index_dim=dim, index_pool=pool),))


def _delta(facts: Facts, hidden: int) -> Half:
    """Kimi delta attention: decay and output gate through as few elements as a head has.

    Source: transformers 5.23, models/glm5_next/modeling_glm5_next.py `Glm5NextTextLinearAttention`
    """
    older = facts.nested("linear_attn_config")
    dim = own_or(older, "head_dim", facts.positive("linear_head_dim"))
    num_heads = own_or(older, "num_heads", facts.positive("linear_num_heads"))
    columns = own_or(older, "short_conv_kernel_size", facts.positive("linear_conv_kernel_dim"))
    heads = DeltaHeads(num_heads=num_heads, num_key_heads=num_heads, key_dim=dim, value_dim=dim, columns=columns)
    weights = (
        *delta_core(heads, hidden, "self_attn", ("q_proj", "k_proj", "v_proj"), "o_norm", "o_proj"),
        *column("self_attn.b_proj", num_heads, hidden, "attention"),
        *_low_rank("self_attn.forget_gate.f", heads, hidden),
        *_low_rank("self_attn.g", heads, hidden),
        by_head("self_attn.forget_gate.dt_bias", heads.value_width, units=num_heads),
        by_head("self_attn.forget_gate.A_log", num_heads),
    )
    kept = tuple(replace(w, fixed_bits=32) if any(name in w.name for name in _IN_FP32) else w for w in weights)
    return Half(kept, (heads.mixer("kda"),))


def _low_rank(name: str, heads: DeltaHeads, hidden: int) -> tuple[Weight, ...]:
    return (
        *replicated(f"{name}_a_proj", heads.value_dim, hidden, "attention"),
        *column(f"{name}_b_proj", heads.value_width, heads.value_dim, "attention", units=heads.num_heads),
    )
