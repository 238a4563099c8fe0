"""Idefics 1: idefics, a Llama that looks at images by gated cross-attention.

Source: transformers 5.23, models/idefics/.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import dense_half, half_decoder
from kvplan.sources.families.bricks.mixers import Heads, equal_heads, full, require_divisor
from kvplan.sources.families.bricks.parts import Reading, column, gated_mlp, norm, projections, replicated, table
from kvplan.sources.families.decoders.llama import decoder, head_norms
from kvplan.sources.families.towers.bricks import in_tower, loose
from kvplan.sources.families.towers.clip import clip_tower


def read_idefics(facts: Facts) -> Reading:
    """Idefics 1: a Llama, before every `cross_layer_interval`-th layer of which a gated one looks at the images.

    Those make the keys and values of the images anew at each step, and keep none.

    Source: transformers 5.23, models/idefics/modeling_idefics.py `IdeficsModel`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads, interval = equal_heads(facts, hidden, "num_attention_heads"), facts.positive("cross_layer_interval")
    require_divisor(facts, "cross_layer_interval", interval, "num_hidden_layers", num_layers)
    vision = facts.part("vision_config")
    feed = dense_half(hidden, facts.positive("intermediate_size"))
    layers = half_decoder(hidden, [full(heads)] * num_layers, projections(heads, hidden), [feed] * num_layers)
    looking = _looking(facts, layers[0], heads, hidden, vision.positive("embed_dim"))
    reading = decoder(
        facts,
        [looking if i % interval == 0 else layer for i, layer in enumerate(layers)],
        hidden,
        language_model="ForVisionText2Text",
    )
    towers = clip_tower(vision, "vision_model", hidden_key="embed_dim")
    if facts.flag("use_resampler"):
        resampler = _resampler(facts.part("perceiver_config"), vision.positive("embed_dim"))
        towers = (*towers, *in_tower("perceiver_resampler", resampler))
    reading = _with_more_words(reading, facts.integer("additional_vocab_size"))
    return replace(reading, embeddings=(*reading.embeddings, *towers))


def _looking(facts: Facts, layer: Layer, heads: Heads, hidden: int, seen: int) -> Layer:
    """A layer with the gated one before it.

    Source: transformers 5.23, models/idefics/modeling_idefics.py `IdeficsGatedCrossAttentionLayer`
    """
    kind = facts.text("alpha_type")
    if kind not in ("float", "vector"):
        raise facts.wrong("alpha_type", kind, "`float` or `vector`")
    gate = (1,) if kind == "float" else (1, 1, hidden)
    gated = "gated_cross_attn"
    query, _, _, out = projections(heads, hidden, prefix=f"{gated}.cross_attn")
    _, key, value, _ = projections(heads, seen, prefix=f"{gated}.cross_attn")
    weights = (
        Weight(name=f"{gated}.alpha_cross_attn", shape=gate, part="attention"),
        Weight(name=f"{gated}.alpha_dense", shape=gate, part="mlp"),
        *(query, key, value, out),
        *(head_norms(heads.head_dim) if facts.flag("qk_layer_norms") else ()),
        *gated_mlp(hidden, facts.positive("intermediate_size"), prefix=f"{gated}.mlp"),
        *norm(f"{gated}.input_layernorm", hidden),
        *norm(f"{gated}.post_attention_layernorm", hidden),
    )
    return replace(layer, weights=(*layer.weights, *weights))


def _with_more_words(reading: Reading, count: int) -> Reading:
    """`count` more words, in a table of their own; the head has as many more rows, unless it is the table."""
    if not count:
        return reading
    more = table("embed_tokens.additional_embedding", count, reading.hidden_size)
    has_head = any(weight.name == "lm_head.weight" for weight in reading.head)
    rows = column("lm_head.additional_fc", count, reading.hidden_size, "head") if has_head else ()
    return replace(reading, embeddings=(*reading.embeddings, *more), head=(*reading.head, *rows))


def _resampler(facts: Facts, seen: int) -> tuple[Weight, ...]:
    """A few learnt queries that attend over the patches of an image, and a plain MLP, in each of its blocks.

    Source: transformers 5.23, models/idefics/perceiver.py `IdeficsPerceiverResampler`
    """
    head_dim = facts.positive("resampler_head_dim")
    width, normed = facts.positive("resampler_n_heads") * head_dim, facts.flag("qk_layer_norms_perceiver")
    block = (
        *norm("0.context_layer_norm", seen, bias=True),
        *norm("0.latents_layer_norm", seen, bias=True),
        *(weight for k in ("q", "k") if normed for weight in norm(f"0.{k}_layer_norm", head_dim, bias=True)),
        *(weight for k in ("q", "k", "v") for weight in replicated(f"0.{k}_proj", width, seen, "vision")),
        *replicated("0.output_proj", seen, width, "vision"),
        *norm("1.ln", seen, bias=True),
        *replicated("1.fc", 4 * seen, seen, "vision"),
        *replicated("1.c_proj", seen, 4 * seen, "vision"),
    )
    return (
        loose("latents", facts.positive("resampler_n_latents"), seen),
        *in_tower("blocks.*", block, copies=facts.layer_count("resampler_depth")),
        *norm("layer_norm", seen, bias=True),
    )
