"""Models that see and make embeddings: ColPali, ColQwen2, ModernVBERT; JEV, which decides; a filter of private data.

Source: transformers 5.23, models/{colpali,colqwen2,modernvbert,colmodernvbert,jev,openai_privacy_filter}/.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model
from kvplan.sources.families.bricks.mixers import encoder, read_heads
from kvplan.sources.families.bricks.parts import (
    Reading,
    class_suffix,
    column,
    norm,
    num_labels,
    reads_tied,
    replicated,
    table,
    unknown_class,
)
from kvplan.sources.families.decoders.gpt_oss import gpt_oss_parts
from kvplan.sources.families.towers.table import tower_of

_PRIVACY_LABELS = 33


def read_late_interaction(facts: Facts) -> Reading:
    """ColPali, ColQwen2, ColModernVBERT: a model that sees, and an embedding for each of its tokens.

    Source: transformers 5.23, models/colpali/modeling_colpali.py `ColPaliForRetrieval`, alike in its kin
    """
    if class_suffix(facts) not in (None, "ForRetrieval"):
        raise unknown_class(facts)
    seeing = language_model(facts, "vlm_config")
    size = facts.positive("embedding_dim")
    head = replicated("embedding_proj_layer", size, seeing.hidden_size, "head", bias=True)
    return replace(seeing, head=(*seeing.head, *head))


def read_jev(facts: Facts) -> Reading:
    """JEV: a language model whose last token is scored against a few answers.

    Source: transformers 5.23, models/jev/modeling_jev.py
    """
    if class_suffix(facts) not in (None, "ForDecision"):
        raise unknown_class(facts)
    text, hidden = language_model(facts), facts.positive("hidden_size")
    if hidden != text.hidden_size:
        raise facts.wrong("hidden_size", hidden, f"that of `text_config`, {text.hidden_size}")
    head = replicated("proj", facts.positive("num_verbalizers"), hidden, "head", bias=True)
    return replace(text, head=(*text.head, *head))


def read_modernvbert(facts: Facts) -> Reading:
    """ModernVBERT: ModernBERT that sees, through squares of neighbouring patches.

    Source: transformers 5.23, models/modernvbert/modeling_modernvbert.py
    """
    text, vision = facts.part("text_config"), facts.part("vision_config")
    reading, factor = language_model(facts), facts.positive("pixel_shuffle_factor")
    square = vision.positive("hidden_size") * factor**2
    connector = replicated("connector.modality_projection", reading.hidden_size, square, "vision")
    suffix = "Model" if facts.bare else class_suffix(facts) or "Model"
    tied = suffix == "ForMaskedLM" and reads_tied(facts)
    head = _modernvbert_head(facts, text, suffix, reading, tied=tied)
    return replace(
        reading,
        embeddings=(*reading.embeddings, *tower_of(vision, "vision_model"), *connector),
        head=(*reading.head, *head),
        tied_embeddings=tied,
    )


def read_openai_privacy_filter(facts: Facts) -> Reading:
    """OpenAI's privacy filter: gpt-oss's layers that look both ways, and a label for each token.

    Source: transformers 5.23, models/openai_privacy_filter/modeling_openai_privacy_filter.py
    """
    suffix = "Model" if facts.bare else class_suffix(facts) or "ForTokenClassification"
    hidden, vocab = facts.positive("hidden_size"), facts.positive("vocab_size")
    heads = read_heads(facts, hidden)
    attention, moe, width = gpt_oss_parts(facts, heads, hidden)
    weights = (*attention, *moe, *norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))
    layer = Layer(mixers=(encoder(heads),), weights=weights, mlp_activations=3 * width, eager_softmax="sinks")
    if suffix not in ("Model", "ForTokenClassification"):
        raise unknown_class(facts)
    labels = num_labels(facts, default=_PRIVACY_LABELS)
    head = replicated("score", labels, hidden, "head", bias=True) if suffix != "Model" else ()
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=[layer] * facts.layer_count("num_hidden_layers"),
        embeddings=table("embed_tokens", vocab, hidden),
        head=(*norm("norm", hidden), *head),
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _modernvbert_head(facts: Facts, text: Facts, suffix: str, reading: Reading, *, tied: bool) -> tuple[Weight, ...]:
    hidden = reading.hidden_size
    if suffix == "Model":
        return ()
    name = "projection_head" if suffix == "ForMaskedLM" else "head"
    after = norm(f"{name}.norm", hidden, bias=text.flag("norm_bias"))
    step = (
        *replicated(f"{name}.dense", hidden, hidden, "head", bias=text.flag("classifier_bias")),
        *(replace(weight, part="head") for weight in after),
    )
    if suffix == "ForMaskedLM":
        matrix = column("lm_head", reading.vocab_size, hidden, "head", bias=text.flag("decoder_bias"))
        return (*step, *(matrix[1:] if tied else matrix))
    if suffix in ("ForSequenceClassification", "ForTokenClassification"):
        return (*step, *replicated("classifier", num_labels(facts), hidden, "head", bias=True))
    raise unknown_class(facts)
