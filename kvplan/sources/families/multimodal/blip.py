"""BLIP, BLIP-2 and InstructBLIP: models that describe images.

Source: transformers 5.23, models/{blip,blip_2,instructblip,instructblipvideo}/.
"""

from dataclasses import dataclass, replace

from kvplan.core.mixers import Mixer
from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, tied_anywhere, whole_language_model
from kvplan.sources.families.bricks.encoder_heads import Top, bert_vocabulary
from kvplan.sources.families.bricks.mixers import cross, encoder, equal_heads, full
from kvplan.sources.families.bricks.parts import (
    Reading,
    class_suffix,
    norm,
    plain_mlp,
    replicated,
    table,
    unknown_class,
)
from kvplan.sources.families.encoders.bert import bert_attention
from kvplan.sources.families.towers.blip import blip_tower, image_tokens, q_former
from kvplan.sources.families.towers.bricks import loose

_GENERATION = "ForConditionalGeneration"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """BLIP's text side, of which a class holds an encoder, a decoder or both."""

    hidden: int
    tables: tuple[Weight, ...]
    encoding: list[Layer]
    decoding: list[Layer]


def read_blip(facts: Facts) -> Reading:
    """BLIP: BERT's layers, each with cross-attention to the image, which the class for questions reads first.

    The decoder keeps keys and values of its own tokens, and of all the image's, or of the question's.

    Source: transformers 5.23, models/blip/modeling_blip.py
    """
    suffix = class_suffix(facts) or _GENERATION
    text, vision = facts.part("text_config"), facts.part("vision_config")
    image_hidden = vision.positive("hidden_size")
    side = _blip_text(text, image_hidden)
    tied = tied_anywhere(facts, text)
    if suffix in (_GENERATION, "ForQuestionAnswering"):
        asks = suffix == "ForQuestionAnswering"
        top = Top(facts=text, hidden=side.hidden, vocab=text.positive("vocab_size"), width=side.hidden, tied=tied)
        layers = [*(side.encoding if asks else ()), *side.decoding]
        tables = (*_named("text_encoder", side.tables), *side.tables) if asks else side.tables
        head = tuple(weight for brick in bert_vocabulary() for weight in brick(top))
    else:
        layers, tables, head, tied = side.encoding, side.tables, _match(facts, suffix, side.hidden, image_hidden), False
    return Reading(
        hidden_size=side.hidden,
        vocab_size=text.positive("vocab_size"),
        layers=layers,
        embeddings=(*tables, *blip_tower(vision)),
        head=head,
        tied_embeddings=tied,
        max_seq_len=text.positive("max_position_embeddings"),
        encoder_seq_len=image_tokens(vision) if suffix == _GENERATION else None,
    )


def read_blip2(facts: Facts) -> Reading:
    """BLIP-2: a Q-Former turns the image into a few tokens of a language model, OPT or T5, that has its own head.

    Source: transformers 5.23, models/blip_2/modeling_blip_2.py
    """
    suffix = class_suffix(facts, "blip2")
    if suffix not in (None, _GENERATION, "Model"):
        raise unknown_class(facts)
    return _queried(facts, whole_language_model(facts), reads_text=False)


def read_instructblip(facts: Facts) -> Reading:
    """InstructBLIP: BLIP-2 whose Q-Former reads the instruction too.

    Source: transformers 5.23, models/instructblip/modeling_instructblip.py
    """
    suffix = class_suffix(facts)
    if suffix not in (None, _GENERATION, "Model"):
        raise unknown_class(facts)
    text = language_model(facts) if suffix == "Model" else whole_language_model(facts)
    return _queried(facts, text, reads_text=True)


def _queried(facts: Facts, text: Reading, *, reads_text: bool) -> Reading:
    vision, former = facts.part("vision_config"), facts.part("qformer_config")
    hidden = former.positive("hidden_size")
    seen = (
        *blip_tower(vision),
        loose("query_tokens", 1, facts.positive("num_query_tokens"), hidden),
        *q_former(former, vision.positive("hidden_size"), reads_text=reads_text),
        *replicated("language_projection", text.hidden_size, hidden, "vision", bias=True),
    )
    return replace(text, embeddings=(*text.embeddings, *seen))


def _blip_text(facts: Facts, image_hidden: int) -> _Text:
    """Every layer holds cross-attention, also an encoder's."""
    if not facts.flag("is_decoder"):
        raise facts.wrong("is_decoder", False, "true, as BLIP's layers need it to see the image")
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    weights = (
        *bert_attention("attention", heads, hidden),
        *bert_attention("crossattention", heads, hidden, source=image_hidden),
        *plain_mlp(hidden, width, up="intermediate.dense", down="output.dense"),
        *norm("output.LayerNorm", hidden, bias=True),
    )

    def layers(*mixers: Mixer) -> list[Layer]:
        layer = Layer(mixers=mixers, weights=weights, mlp_activations=2 * width, eager_softmax="model-dtype")
        return [layer] * facts.layer_count("num_hidden_layers")

    positions = facts.positive("max_position_embeddings")
    tables = (
        *table("embeddings.word_embeddings", facts.positive("vocab_size"), hidden),
        *table("embeddings.position_embeddings", positions, hidden, split=False),
        *norm("embeddings.LayerNorm", hidden, bias=True),
    )
    return _Text(
        hidden=hidden, tables=tables, encoding=layers(encoder(heads)), decoding=layers(full(heads), cross(heads))
    )


def _match(facts: Facts, suffix: str, hidden: int, image_hidden: int) -> tuple[Weight, ...]:
    """What the classes hold that compare a text with an image."""
    if suffix == "ForImageTextRetrieval":
        shared = facts.positive("image_text_hidden_size")
        return (
            *replicated("vision_proj", shared, image_hidden, "head", bias=True),
            *replicated("text_proj", shared, hidden, "head", bias=True),
            *replicated("itm_head", 2, hidden, "head", bias=True),
        )
    if suffix == "Model":
        shared = facts.positive("projection_dim")
        return (
            *replicated("text_model.pooler.dense", hidden, hidden, "head", bias=True),
            *replicated("visual_projection", shared, image_hidden, "head"),
            *replicated("text_projection", shared, hidden, "head"),
            loose("logit_scale", part="head"),
        )
    raise unknown_class(facts)


def _named(prefix: str, weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    return tuple(replace(weight, name=f"{prefix}.{weight.name}") for weight in weights)
