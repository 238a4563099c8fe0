"""GIT, Kosmos-2 and 2.5, Florence-2: models that describe images, each with a tower of its own.

Source: transformers 5.23, models/{git,kosmos2,kosmos2_5,florence2}/.
"""

from dataclasses import replace

from kvplan.core.mixers import Mixer
from kvplan.core.model import EagerSoftmax, Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal, tied_anywhere
from kvplan.sources.families.bricks.mixers import cross, equal_heads, full
from kvplan.sources.families.bricks.parts import Reading, causal_head, norm, plain_mlp, projections, replicated, table
from kvplan.sources.families.encoders.bert import bert_attention
from kvplan.sources.families.towers.bricks import in_tower, loose
from kvplan.sources.families.towers.clip import clip_tower
from kvplan.sources.families.towers.florence import florence_projector, florence_tower
from kvplan.sources.families.towers.kosmos import patch_text_tower

_OUT_PROJ = ("q_proj", "k_proj", "v_proj", "out_proj")


def read_git(facts: Facts) -> Reading:
    """GIT: BERT's layers as a decoder, the image's tokens before the text's, as in it.

    Source: transformers 5.23, models/git/modeling_git.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads, vocab = equal_heads(facts, hidden, "num_attention_heads"), facts.positive("vocab_size")
    weights = (
        *bert_attention("attention", heads, hidden),
        *plain_mlp(hidden, width, up="intermediate.dense", down="output.dense"),
        *norm("output.LayerNorm", hidden, bias=True),
    )
    layer = Layer(mixers=(full(heads),), weights=weights, mlp_activations=2 * width, eager_softmax="model-dtype")
    positions = facts.positive("max_position_embeddings")
    head, tied = causal_head(facts, hidden_size=hidden, vocab_size=vocab, name="output", bias=True)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=[layer] * facts.layer_count("num_hidden_layers"),
        embeddings=(
            *table("embeddings.word_embeddings", vocab, hidden),
            *table("embeddings.position_embeddings", positions, hidden, split=False),
            *norm("embeddings.LayerNorm", hidden, bias=True),
            *_git_vision(facts, hidden),
        ),
        head=head,
        tied_embeddings=tied,
        max_seq_len=positions,
    )


def read_kosmos2(facts: Facts) -> Reading:
    """Kosmos-2: CLIP's tower, of whose patches learnt queries make a fixed number of tokens.

    Source: transformers 5.23, models/kosmos2/modeling_kosmos2.py
    """
    text, vision = facts.part("text_config"), facts.part("vision_config")
    tower = clip_tower(vision, "vision_model.model")
    seen = _latent_queries(facts, text, vision)
    return multimodal(facts, language_model(facts), tower, seen, tied=tied_anywhere(facts, text), family="kosmos2")


def read_kosmos2_5(facts: Facts) -> Reading:
    """Kosmos-2.5: a tower of Pix2Struct's kind for pages of text, read out by learnt queries.

    Source: transformers 5.23, models/kosmos2_5/modeling_kosmos2_5.py
    """
    text, vision = facts.part("text_config"), facts.part("vision_config")
    seen = _latent_queries(facts, text, vision)
    tied = text.flag("tie_word_embeddings")
    return multimodal(facts, language_model(facts), patch_text_tower(vision), seen, tied=tied, family="kosmos25")


def read_kosmos2_text(facts: Facts) -> Reading:
    """Kosmos-2's text side: norms within both halves too; positions are sines, kept nowhere.

    Source: transformers 5.23, models/kosmos2/modeling_kosmos2.py `Kosmos2TextBlock`
    """
    return _kosmos_text(facts, segments=0, inner_norm=True, softmax="model-dtype")


def read_kosmos2_5_text(facts: Facts) -> Reading:
    """Kosmos-2.5's text side: Kosmos-2's without the norm within attention, with two kinds of segments.

    Source: transformers 5.23, models/kosmos2_5/modeling_kosmos2_5.py `Kosmos2_5TextBlock`
    """
    return _kosmos_text(facts, segments=2, inner_norm=False, softmax="fp32")


def read_florence2(facts: Facts) -> Reading:
    """Florence-2: the image's tokens before the prompt's, through the encoder of BART.

    Source: transformers 5.23, models/florence2/modeling_florence2.py
    """
    vision = facts.part("vision_config")
    return multimodal(facts, language_model(facts), florence_tower(vision), florence_projector(vision))


def _git_vision(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """CLIP's tower, a projection with a norm, and for a video's frames a vector each."""
    vision = facts.part("vision_config")
    seen = vision.positive("hidden_size")
    projection = (
        *replicated("visual_projection.0", hidden, seen, "vision", bias=True),
        *norm("visual_projection.1", hidden, bias=True),
    )
    frames = facts.nullable("num_image_with_embedding") or 0
    frame = loose("img_temporal_embedding.*", 1, 1, seen)
    return (
        *clip_tower(vision, "image_encoder.vision_model"),
        *in_tower("visual_projection", projection),
        *((replace(frame, copies=frames),) if frames else ()),
    )


def _kosmos_text(facts: Facts, *, segments: int, inner_norm: bool, softmax: EagerSoftmax) -> Reading:
    hidden, width = facts.positive("embed_dim"), facts.positive("ffn_dim")
    heads, vocab = equal_heads(facts, hidden, "attention_heads"), facts.positive("vocab_size")
    crosses = facts.knows("add_cross_attention") and facts.flag("add_cross_attention")
    mixers: tuple[Mixer, ...] = (full(heads), cross(heads)) if crosses else (full(heads),)
    attention = projections(heads, hidden, names=_OUT_PROJ, qkv_bias=True, out_bias=True)
    second = projections(heads, hidden, prefix="encoder_attn", names=_OUT_PROJ, qkv_bias=True, out_bias=True)
    weights = (
        *attention,
        *(norm("self_attn.inner_attn_ln", hidden, bias=True) if inner_norm else ()),
        *norm("self_attn_layer_norm", hidden, bias=True),
        *((*second, *norm("encoder_attn_layer_norm", hidden, bias=True)) if crosses else ()),
        *plain_mlp(hidden, width, up="ffn.fc1", down="ffn.fc2"),
        *norm("ffn.ffn_layernorm", width, bias=True),
        *norm("final_layer_norm", hidden, bias=True),
    )
    layer = Layer(mixers=mixers, weights=weights, mlp_activations=2 * width, eager_softmax=softmax)
    more = table("segment_emb", segments, hidden, split=False) if segments else ()
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=[layer] * facts.layer_count("layers"),
        embeddings=(*table("embed_tokens", vocab, hidden), *more),
        head=norm("layer_norm", hidden, bias=True),
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _latent_queries(facts: Facts, text: Facts, vision: Facts) -> tuple[Weight, ...]:
    """Learnt queries that attend to the tower's output, once it has the text's width."""
    hidden = text.positive("embed_dim")
    heads = equal_heads(text, hidden, "attention_heads")
    weights = (
        loose("latent_query", facts.positive("latent_query_num"), hidden),
        *replicated("dense", hidden, vision.positive("hidden_size"), "vision", bias=True),
        *projections(heads, hidden, prefix="x_attn", names=_OUT_PROJ, qkv_bias=True, out_bias=True),
    )
    return in_tower("image_to_text_projection", weights)
