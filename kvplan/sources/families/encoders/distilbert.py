"""DistilBERT and XLM, encoders of one lineage: BERT's layer under other names.

Source: transformers 5.23, models/{distilbert,xlm}/.
"""

from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.encoder_heads import (
    Brick,
    Family,
    Top,
    choose,
    crowned,
    dense,
    scores,
    summary,
    transform,
    vocabulary,
)
from kvplan.sources.families.bricks.mixers import encoder, equal_heads
from kvplan.sources.families.bricks.parts import Reading, norm, num_labels, plain_mlp, projections, replicated, table


def _span(top: Top) -> tuple[Weight, ...]:
    labels = num_labels(top.facts)
    if labels != 2:
        raise top.facts.wrong("num_labels", labels, "2, a span's start and its end")
    return replicated("qa_outputs", labels, top.hidden, "head", bias=True)


_PRE_CLASSIFIER = dense("pre_classifier")
_DISTILBERT = Family(
    classes={
        "Model": (),
        "ForMaskedLM": (transform("vocab_transform", "vocab_layer_norm"), vocabulary("vocab_projector")),
        "ForSequenceClassification": (_PRE_CLASSIFIER, scores("classifier")),
        "ForMultipleChoice": (_PRE_CLASSIFIER, scores("classifier", 1)),
        "ForTokenClassification": (scores("classifier"),),
        "ForQuestionAnswering": (_span,),
    },
)


def span_by_beam(prefix: str = "") -> Brick:
    """The head that searches a span's start, then its end, then whether there is one.

    Source: transformers 5.23, models/xlm/modeling_xlm.py `XLMSQuADHead`
    """

    def brick(top: Top) -> tuple[Weight, ...]:
        hidden = top.hidden
        weights = (
            *replicated("start_logits.dense", 1, hidden, "head", bias=True),
            *replicated("end_logits.dense_0", hidden, 2 * hidden, "head", bias=True),
            *norm("end_logits.LayerNorm", hidden, bias=True),
            *replicated("end_logits.dense_1", 1, hidden, "head", bias=True),
            *replicated("answer_class.dense_0", hidden, 2 * hidden, "head", bias=True),
            *replicated("answer_class.dense_1", 1, hidden, "head"),
        )
        return tuple(replace(weight, name=f"{prefix}{weight.name}", part="head") for weight in weights)

    return brick


def _choice_among_labels(top: Top) -> tuple[Weight, ...]:
    return replicated("logits_proj", 1, num_labels(top.facts), "head", bias=True)


_SUMMARY = summary(projects=True, to_labels=True)
_XLM = Family(
    language=("WithLMHeadModel",),
    classes={
        "Model": (),
        "WithLMHeadModel": (vocabulary("pred_layer.proj"),),
        "ForSequenceClassification": (_SUMMARY,),
        "ForMultipleChoice": (_SUMMARY, _choice_among_labels),
        "ForTokenClassification": (scores("classifier"),),
        "ForQuestionAnsweringSimple": (scores("qa_outputs"),),
        "ForQuestionAnswering": (span_by_beam("qa_outputs."),),
    },
)


def read_distilbert(facts: Facts) -> Reading:
    """DistilBERT: BERT without token types and pooler.

    Source: transformers 5.23, models/distilbert/modeling_distilbert.py
    """
    hidden, positions = facts.positive("dim"), facts.positive("max_position_embeddings")
    embeddings = (
        *table("embeddings.word_embeddings", facts.positive("vocab_size"), hidden),
        *table("embeddings.position_embeddings", positions, hidden, split=False),
        *norm("embeddings.LayerNorm", hidden, bias=True),
    )
    return crowned(
        facts,
        _DISTILBERT,
        choose(facts, _DISTILBERT),
        layers=_layers(
            facts,
            hidden,
            facts.positive("hidden_dim"),
            names=("attention", "sa_layer_norm", "ffn", "output_layer_norm"),
        ),
        embeddings=embeddings,
        hidden=hidden,
        max_seq_len=positions,
    )


def read_xlm(facts: Facts) -> Reading:
    """XLM: an encoder, also where its `causal` makes it look back only; the class hands no cache out.

    Source: transformers 5.23, models/xlm/modeling_xlm.py `XLMModel`
    """
    if not facts.flag("is_encoder"):
        raise facts.wrong("is_encoder", False, "true, as in every class of transformers")
    if facts.flag("asm"):
        raise UnsupportedError(
            "`asm` asks for an adaptive softmax, which kvplan does not count", hint="pass `--set asm=false`"
        )
    hidden, positions = facts.positive("emb_dim"), facts.positive("max_position_embeddings")
    embeddings = [
        *table("embeddings", facts.positive("vocab_size"), hidden),
        *table("position_embeddings", positions, hidden, split=False),
        *norm("layer_norm_emb", hidden, bias=True),
    ]
    languages = facts.integer("n_langs")
    if languages > 1 and facts.flag("use_lang_emb"):
        embeddings += table("lang_embeddings", languages, hidden, split=False)
    return crowned(
        facts,
        _XLM,
        choose(facts, _XLM),
        layers=_layers(facts, hidden, 4 * hidden, names=("attentions.*", "layer_norm1.*", "ffns.*", "layer_norm2.*")),
        embeddings=tuple(embeddings),
        hidden=hidden,
        max_seq_len=positions,
    )


def _layers(facts: Facts, hidden: int, width: int, *, names: tuple[str, str, str, str]) -> list[Layer]:
    """Layers of attention, a norm, a feed-forward part and a norm, by these names."""
    attention, first, mlp, second = names
    heads = equal_heads(facts, hidden, "n_heads")
    linear = ("q_lin", "k_lin", "v_lin", "out_lin")
    weights = (
        *projections(heads, hidden, prefix=attention, names=linear, qkv_bias=True, out_bias=True),
        *norm(first, hidden, bias=True),
        *plain_mlp(hidden, width, up=f"{mlp}.lin1", down=f"{mlp}.lin2"),
        *norm(second, hidden, bias=True),
    )
    layer = Layer(mixers=(encoder(heads),), weights=weights, mlp_activations=2 * width, eager_softmax="model-dtype")
    return [layer] * facts.layer_count("n_layers")
