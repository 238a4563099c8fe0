"""BERT and the embedding models built on it (BGE, E5): an encoder, or a decoder where the config says so.

Source: transformers 5.23, models/bert/.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.mixers import Heads, encoder, equal_heads, full
from kvplan.sources.families.parts import (
    Reading,
    class_suffix,
    column,
    norm,
    num_labels,
    plain_mlp,
    projections,
    replicated,
    table,
    unknown_class,
)

_POOLED = ("Model", "ForPreTraining", "ForSequenceClassification", "ForMultipleChoice", "ForNextSentencePrediction")
_LANGUAGE = ("ForMaskedLM", "LMHeadModel", "ForPreTraining")
# Where `is_decoder` is set, the other classes run the same decoder but hand its cache to nobody.
_CACHING = ("Model", "LMHeadModel")


def read_bert(facts: Facts) -> Reading:
    """BERT: `BertModel` where no class is named, `BertLMHeadModel` for a decoder.

    Source: transformers 5.23, models/bert/modeling_bert.py
    """
    hidden, vocab = facts.positive("hidden_size"), facts.positive("vocab_size")
    decodes = facts.flag("is_decoder", default=False)
    suffix = class_suffix(facts) or ("LMHeadModel" if decodes else "Model")
    positions = facts.positive("max_position_embeddings")
    tied = facts.flag("tie_word_embeddings", default=True)
    embeddings = (
        *table("embeddings.word_embeddings", vocab, hidden),
        *table("embeddings.position_embeddings", positions, hidden, split=False),
        *table("embeddings.token_type_embeddings", facts.positive("type_vocab_size", default=2), hidden, split=False),
        *norm("embeddings.LayerNorm", hidden, bias=True),
    )
    layer = _layer(facts, hidden, decodes=decodes, cached=decodes and suffix in _CACHING)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=[layer] * facts.layer_count("num_hidden_layers"),
        embeddings=embeddings,
        head=_head(facts, suffix, hidden, vocab, tied=tied),
        tied_embeddings=tied and suffix in _LANGUAGE,
        max_seq_len=positions,
    )


def _layer(facts: Facts, hidden: int, *, decodes: bool, cached: bool) -> Layer:
    """A post-norm layer; one with cross-attention weights is still a decoder without an encoder at its side."""
    heads = equal_heads(facts, hidden, "num_attention_heads")
    width = facts.positive("intermediate_size")
    crosses = facts.flag("add_cross_attention", default=False)
    if crosses and not decodes:
        raise facts.wrong("add_cross_attention", crosses, "false where `is_decoder` is not true")
    weights = (
        *_attention("attention", heads, hidden),
        *(_attention("crossattention", heads, hidden) if crosses else ()),
        *plain_mlp(hidden, width, up="intermediate.dense", down="output.dense"),
        *norm("output.LayerNorm", hidden, bias=True),
    )
    mixer = full(heads) if cached else encoder(heads)
    return Layer(mixers=(mixer,), weights=weights, mlp_activations=2 * width, eager_softmax="model-dtype")


def _attention(prefix: str, heads: Heads, hidden: int) -> tuple[Weight, ...]:
    names = ("self.query", "self.key", "self.value", "output.dense")
    weights = projections(heads, hidden, prefix=prefix, names=names, qkv_bias=True, out_bias=True)
    return (*weights, *norm(f"{prefix}.output.LayerNorm", hidden, bias=True))


def _head(facts: Facts, suffix: str, hidden: int, vocab: int, *, tied: bool) -> tuple[Weight, ...]:
    """The pooler of the classes that have one, and what each class puts on top."""
    pooler = replicated("pooler.dense", hidden, hidden, "head", bias=True) if suffix in _POOLED else ()
    language = _language_head(hidden, vocab, tied=tied) if suffix in _LANGUAGE else ()
    top = {
        "ForPreTraining": ("cls.seq_relationship", 2),
        "ForNextSentencePrediction": ("cls.seq_relationship", 2),
        "ForMultipleChoice": ("classifier", 1),
        "ForSequenceClassification": ("classifier", None),
        "ForTokenClassification": ("classifier", None),
        "ForQuestionAnswering": ("qa_outputs", None),
    }
    if suffix not in (*top, *_POOLED, *_LANGUAGE):
        raise unknown_class(facts)
    if suffix not in top:
        return (*pooler, *language)
    name, labels = top[suffix]
    return (*pooler, *language, *replicated(name, labels or num_labels(facts), hidden, "head", bias=True))


def _language_head(hidden: int, vocab: int, *, tied: bool) -> tuple[Weight, ...]:
    """A transform, and the vocabulary: tied, only its bias; untied, a matrix that brings a second bias."""
    gain_and_offset = norm("cls.predictions.transform.LayerNorm", hidden, bias=True)
    transform = (
        *replicated("cls.predictions.transform.dense", hidden, hidden, "head", bias=True),
        *(replace(weight, part="head") for weight in gain_and_offset),
    )
    decoder = column("cls.predictions.decoder", vocab, hidden, "head", bias=True)
    bias = replace(decoder[1], name="cls.predictions.bias")
    return (*transform, bias, *(() if tied else decoder))
