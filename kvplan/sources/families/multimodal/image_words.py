"""Models for which images are words: janus, emu3 and chameleon.

Source: transformers 5.23, models/{janus,emu3,chameleon}/.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.mixers import layer_mixers, read_heads, read_window, require_divisor
from kvplan.sources.families.bricks.parts import Reading, gated_mlp, projections, reads_tied, replicated
from kvplan.sources.families.decoders.llama import decoder, decoder_layers, read_llama
from kvplan.sources.families.towers.bricks import in_tower, loose
from kvplan.sources.families.towers.janus import janus_tower
from kvplan.sources.families.towers.vqgan import chameleon_vqgan, emu3_vqgan, janus_vqgan


def read_janus(facts: Facts) -> Reading:
    """Janus: a tower to see, a VQ-GAN to draw, and between the text model and either an MLP.

    Source: transformers 5.23, models/janus/modeling_janus.py `JanusModel`
    """
    text, vision, words = language_model(facts), facts.part("vision_config"), facts.part("vq_config")
    dim, count = words.positive("embed_dim"), words.positive("num_embeddings")
    width = words.positive("projection_dim")
    head = (
        *replicated("proj_out", width, words.positive("image_token_embed_dim"), "vision", bias=True),
        *replicated("vision_head", count, width, "vision", bias=True),
    )
    seen, out = vision.positive("hidden_size"), vision.positive("projection_dim")
    return multimodal(
        facts,
        text,
        janus_tower(vision),
        _aligner("aligner", seen, out, vision.positive("depth")),
        janus_vqgan(words),
        (loose("generation_embeddings.weight", count, dim),),
        _aligner("generation_aligner", dim, width, words.positive("num_hidden_layers")),
        in_tower("generation_head", head),
    )


def read_emu3(facts: Facts) -> Reading:
    """Emu3: images are words of the text model's own vocabulary, which a VQ-GAN reads and draws.

    Its `…ForCausalLM` is the text model alone.

    Source: transformers 5.23, models/emu3/modeling_emu3.py `Emu3ForConditionalGeneration`
    """
    text = language_model(facts)
    if (facts.architecture() or "").endswith("ForCausalLM"):
        tied = reads_tied(facts.part("text_config"))
        return multimodal(facts, text, tied=tied, language_model="ForCausalLM")
    return multimodal(facts, text, emu3_vqgan(facts.part("vq_config")))


def read_emu3_text(facts: Facts) -> Reading:
    """The text model of Emu3: Llama, under its own name.

    Source: transformers 5.23, models/emu3/modeling_emu3.py `Emu3ForCausalLM`
    """
    return read_llama(facts, family="emu3")


def read_chameleon(facts: Facts) -> Reading:
    """Chameleon: images are words of its own vocabulary, which a VQ-GAN reads; norms of each head's own.

    Source: transformers 5.23, models/chameleon/modeling_chameleon.py `ChameleonForConditionalGeneration`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    facts.refuse_null("num_key_value_heads")
    stated = read_heads(facts, hidden)
    require_divisor(facts, "num_attention_heads", stated.num_heads, "hidden_size", hidden)
    heads, bias = replace(stated, head_dim=hidden // stated.num_heads), facts.flag("attention_bias")
    norms = (
        Weight(name=f"self_attn.{piece}_norm.{kind}", shape=(count, heads.head_dim), part="norms")
        for piece, count in (("q", heads.num_heads), ("k", heads.num_kv_heads))
        for kind in ("weight", "bias")
    )
    attention = (*projections(heads, hidden, qkv_bias=bias, out_bias=bias), *norms)
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    mlp = gated_mlp(hidden, width, bias=facts.flag("mlp_bias"))
    layers = decoder_layers(mixers, attention, mlp, hidden, width)
    reading = decoder(facts, layers, hidden, language_model="ForConditionalGeneration")
    return replace(reading, embeddings=(*reading.embeddings, *chameleon_vqgan(facts.part("vq_config"))))


def _aligner(name: str, seen: int, out: int, depth: int) -> tuple[Weight, ...]:
    """`depth` linears, the first of which changes the width."""
    return in_tower(
        name,
        (
            *replicated("fc1", out, seen, "vision", bias=True),
            *in_tower("hidden_layers", replicated("*", out, out, "vision", bias=True), copies=depth - 1),
        ),
    )
