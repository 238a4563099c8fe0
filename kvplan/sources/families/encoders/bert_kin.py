"""BERT's layers with something beside them: what a page looks like, entities, a narrow waist; retrievers.

Types: dpr, layoutlm, lilt, luke, mobilebert, splinter. Source: transformers 5.23, models/{dpr,layoutlm,lilt,luke,
mobilebert,splinter}/.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.encoder_heads import (
    Brick,
    Chosen,
    Family,
    Top,
    bert_vocabulary,
    choose,
    crowned,
    dense,
    scores,
    transform,
)
from kvplan.sources.families.bricks.mixers import encoder, equal_heads
from kvplan.sources.families.bricks.parts import Reading, column, norm, num_labels, plain_mlp, replicated, table
from kvplan.sources.families.encoders.bert import DENSE_CLASSIFIER, bert_attention, bert_embeddings, bert_layers

_POOLER = dense("pooler.dense")
_CLASSIFIER, _SPAN = scores("classifier"), scores("qa_outputs")
_PAGE = ("x_position_embeddings", "y_position_embeddings", "h_position_embeddings", "w_position_embeddings")


def _reader_scores(top: Top) -> tuple[Weight, ...]:
    span = replicated("qa_outputs", 2, _encoding_size(top.facts, top.hidden), "head", bias=True)
    return (*span, *replicated("qa_classifier", 1, _encoding_size(top.facts, top.hidden), "head", bias=True))


def _wide_scores(times: int, *, bias: bool) -> Brick:
    def brick(top: Top) -> tuple[Weight, ...]:
        return replicated("classifier", num_labels(top.facts), times * top.hidden, "head", bias=bias)

    return brick


def _luke_vocabulary(top: Top) -> tuple[Weight, ...]:
    """Two vocabularies: of words, whose matrix is its own, and of entities, whose matrix is the table where tied."""
    width, entities = top.facts.positive("entity_emb_size"), top.facts.positive("entity_vocab_size")
    words = Top(facts=top.facts, hidden=top.hidden, vocab=top.vocab, width=top.hidden, tied=False)
    second = Top(facts=top.facts, hidden=top.hidden, vocab=entities, width=width, tied=top.tied)
    matrix = column("lm_head.decoder", top.vocab, top.hidden, "head", bias=True)
    bias = replace(matrix[1], name="lm_head.bias")
    prefix = "entity_predictions"
    entity_matrix = column(f"{prefix}.decoder", entities, width, "head", bias=True)
    return (
        *transform("lm_head.dense", "lm_head.layer_norm")(words),
        *matrix,
        *(() if top.tied else (bias,)),
        *transform(f"{prefix}.transform.dense", f"{prefix}.transform.LayerNorm")(second),
        *(() if top.tied else entity_matrix[:1]),
        replace(entity_matrix[1], name=f"{prefix}.bias"),
    )


def _mobile_vocabulary(top: Top) -> tuple[Weight, ...]:
    """The tied table and columns of its own beside it, as wide together as a layer."""
    own = Top(facts=top.facts, hidden=top.hidden, vocab=top.vocab, width=top.hidden, tied=top.tied)
    extra = Weight(
        name="cls.predictions.dense.weight", shape=(top.hidden - top.width, top.vocab), part="head", linear=True
    )
    step, table_brick = bert_vocabulary()
    return (*step(own), *table_brick(top), *((extra,) if top.hidden > top.width else ()))


def _mobile_pooler(top: Top) -> tuple[Weight, ...]:
    return _POOLER(top) if top.facts.flag("classifier_activation") else ()


def _span_heads(top: Top) -> tuple[Weight, ...]:
    """Splinter's question tokens ask for a start and an end, each by a transform of its own."""
    names = ("query_start_transform", "query_end_transform", "start_transform", "end_transform")
    steps = [transform(f"splinter_qass.{name}.dense", f"splinter_qass.{name}.LayerNorm")(top) for name in names]
    ends = [
        replicated(f"splinter_qass.{name}", top.hidden, top.hidden, "head")
        for name in ("start_classifier", "end_classifier")
    ]
    return tuple(weight for weights in (*steps, *ends) for weight in weights)


_DPR = Family(
    plain="QuestionEncoder",
    classes={"QuestionEncoder": (), "ContextEncoder": (), "Reader": (_reader_scores,)},
    language=(),
)
_LAYOUTLM = Family(
    classes={
        "Model": (_POOLER,),
        "ForMaskedLM": (_POOLER, *bert_vocabulary()),
        "ForSequenceClassification": (_POOLER, _CLASSIFIER),
        "ForTokenClassification": (_POOLER, _CLASSIFIER),
        "ForQuestionAnswering": (_POOLER, _SPAN),
    },
)
_LILT = Family(
    classes={
        "Model": (_POOLER,),
        "ForSequenceClassification": DENSE_CLASSIFIER,
        "ForTokenClassification": (_CLASSIFIER,),
        "ForQuestionAnswering": (_SPAN,),
    },
)
_LUKE = Family(
    classes={
        "Model": (_POOLER,),
        "ForMaskedLM": (_POOLER, _luke_vocabulary),
        "ForEntityClassification": (_POOLER, _CLASSIFIER),
        "ForEntityPairClassification": (_POOLER, _wide_scores(2, bias=False)),
        "ForEntitySpanClassification": (_POOLER, _wide_scores(3, bias=True)),
        "ForSequenceClassification": (_POOLER, _CLASSIFIER),
        "ForMultipleChoice": (_POOLER, scores("classifier", 1)),
        "ForTokenClassification": (_CLASSIFIER,),
        "ForQuestionAnswering": (_SPAN,),
    },
    # What is tied there is the table of entities.
    language=(),
)
_MOBILEBERT = Family(
    language=("ForMaskedLM", "ForPreTraining"),
    classes={
        "Model": (_mobile_pooler,),
        "ForPreTraining": (_mobile_pooler, _mobile_vocabulary, scores("cls.seq_relationship", 2)),
        "ForMaskedLM": (_mobile_vocabulary,),
        "ForNextSentencePrediction": (_mobile_pooler, scores("cls.seq_relationship", 2)),
        "ForSequenceClassification": (_mobile_pooler, _CLASSIFIER),
        "ForMultipleChoice": (_mobile_pooler, scores("classifier", 1)),
        "ForTokenClassification": (_CLASSIFIER,),
        "ForQuestionAnswering": (_SPAN,),
    },
)
_SPLINTER = Family(
    classes={"Model": (), "ForQuestionAnswering": (_span_heads,), "ForPreTraining": (_span_heads,)}, language=()
)


def read_dpr(facts: Facts) -> Reading:
    """DPR: BERT without a pooler as an encoder of questions or passages, or as a reader that scores both.

    Source: transformers 5.23, models/dpr/modeling_dpr.py
    """
    hidden, chosen = facts.positive("hidden_size"), choose(facts, _DPR)
    size = facts.integer("projection_dim")
    projection = replicated("encode_proj", size, hidden, "head", bias=True) if size else ()
    return _with_tables(facts, _DPR, chosen, bert_layers(facts, hidden, chosen), final=projection)


def read_layoutlm(facts: Facts) -> Reading:
    """LayoutLM: BERT with tables of where on the page a word stands, and how large.

    Source: transformers 5.23, models/layoutlm/modeling_layoutlm.py
    """
    hidden, chosen = facts.positive("hidden_size"), choose(facts, _LAYOUTLM)
    places = facts.positive("max_2d_position_embeddings")
    page = [weight for name in _PAGE for weight in table(f"embeddings.{name}", places, hidden, split=False)]
    layers = [replace(layer, eager_softmax="fp32") for layer in bert_layers(facts, hidden, chosen)]
    return _with_tables(facts, _LAYOUTLM, chosen, layers, more=tuple(page))


def read_lilt(facts: Facts) -> Reading:
    """LiLT: RoBERTa, and beside it a narrow stack of the same layers for where words stand.

    Source: transformers 5.23, models/lilt/modeling_lilt.py
    """
    hidden, ratio = facts.positive("hidden_size"), facts.positive("channel_shrink_ratio")
    if hidden % ratio or (hidden // facts.positive("num_attention_heads")) % ratio:
        raise facts.wrong("channel_shrink_ratio", ratio, f"a divisor of hidden size {hidden} and of a head's size")
    narrow, chosen = hidden // ratio, choose(facts, _LILT)
    heads = equal_heads(facts, narrow, "num_attention_heads")
    beside = (*bert_attention("attention", heads, narrow), *_narrow_mlp(facts, narrow, ratio))
    places, positions = facts.positive("max_2d_position_embeddings"), facts.positive("max_position_embeddings")
    page = [w for name in _PAGE for w in table(f"layout_embeddings.{name}", places, hidden // 6, split=False)]
    page += table("layout_embeddings.box_position_embeddings", positions, narrow, split=False)
    page += replicated("layout_embeddings.box_linear_embeddings", narrow, hidden, "embeddings", bias=True)
    page += norm("layout_embeddings.LayerNorm", narrow, bias=True)
    layers = bert_layers(facts, hidden, chosen, more=tuple(replace(w, name=f"layout.{w.name}") for w in beside))
    return _with_tables(facts, _LILT, chosen, layers, more=tuple(page))


def read_luke(facts: Facts) -> Reading:
    """LUKE: RoBERTa whose sequence goes on with entities, to which words attend by queries of their own.

    Source: transformers 5.23, models/luke/modeling_luke.py
    """
    hidden, chosen = facts.positive("hidden_size"), choose(facts, _LUKE)
    heads, width = equal_heads(facts, hidden, "num_attention_heads"), facts.positive("entity_emb_size")
    queries: list[Weight] = []
    if facts.flag("use_entity_aware_attention"):
        for name in ("w2e_query", "e2w_query", "e2e_query"):
            full_name = f"attention.self.{name}"
            queries += column(full_name, hidden, hidden, "attention", units=heads.num_heads, bias=True)
    positions, types = facts.positive("max_position_embeddings"), facts.positive("type_vocab_size")
    entities = [*table("entity_embeddings.entity_embeddings", facts.positive("entity_vocab_size"), width)]
    if width != hidden:
        entities += replicated("entity_embeddings.entity_embedding_dense", hidden, width, "embeddings")
    entities += table("entity_embeddings.position_embeddings", positions, hidden, split=False)
    entities += table("entity_embeddings.token_type_embeddings", types, hidden, split=False)
    entities += norm("entity_embeddings.LayerNorm", hidden, bias=True)
    layers = bert_layers(facts, hidden, chosen, more=tuple(queries))
    return _with_tables(facts, _LUKE, chosen, layers, more=tuple(entities))


def read_splinter(facts: Facts) -> Reading:
    """Splinter: BERT whose question tokens point at spans.

    Source: transformers 5.23, models/splinter/modeling_splinter.py
    """
    hidden, chosen = facts.positive("hidden_size"), choose(facts, _SPLINTER)
    layers = [replace(layer, eager_softmax="fp32") for layer in bert_layers(facts, hidden, chosen)]
    return _with_tables(facts, _SPLINTER, chosen, layers)


def read_mobilebert(facts: Facts) -> Reading:
    """MobileBERT: layers with a narrow waist, in which several small feed-forward parts follow each other.

    Source: transformers 5.23, models/mobilebert/modeling_mobilebert.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("embedding_size")
    if width > hidden:
        raise facts.wrong("embedding_size", width, f"at most `hidden_size`, {hidden}")
    seen = width * (3 if facts.flag("trigram_input") else 1)
    positions, types = facts.positive("max_position_embeddings"), facts.positive("type_vocab_size")
    embeddings = (
        *table("embeddings.word_embeddings", facts.positive("vocab_size"), width),
        *table("embeddings.position_embeddings", positions, hidden, split=False),
        *table("embeddings.token_type_embeddings", types, hidden, split=False),
        *replicated("embeddings.embedding_transformation", hidden, seen, "embeddings", bias=True),
        *norm("embeddings.LayerNorm", hidden, bias=True),
    )
    return crowned(
        facts,
        _MOBILEBERT,
        choose(facts, _MOBILEBERT),
        layers=[_waisted_layer(facts, hidden)] * facts.layer_count("num_hidden_layers"),
        embeddings=embeddings,
        hidden=hidden,
        width=width,
        max_seq_len=positions,
    )


def _waisted_layer(facts: Facts, hidden: int) -> Layer:
    waisted = facts.flag("use_bottleneck")
    inner = facts.positive("intra_bottleneck_size") if waisted else hidden
    heads, width = equal_heads(facts, inner, "num_attention_heads"), facts.positive("intermediate_size")
    source = inner if facts.flag("use_bottleneck_attention") else hidden
    query, query_bias, key, key_bias, value, value_bias, *rest = bert_attention("attention", heads, inner)
    value = replace(value, shape=(inner, source))
    mlp = _feed_forward("intermediate", "output", inner, width)
    small = [replace(w, name=f"ffn.*.{w.name}", copies=facts.positive("num_feedforward_networks") - 1) for w in mlp]
    weights = [query, query_bias, key, key_bias, value, value_bias, *rest, *mlp, *(w for w in small if w.copies)]
    if waisted:
        weights += _normed("output.bottleneck", hidden, inner)
        weights += _normed("bottleneck.input", inner, hidden)
        weights += _normed("bottleneck.attention", inner, hidden) if facts.flag("key_query_shared_bottleneck") else ()
    activations = 2 * width
    return Layer(
        mixers=(encoder(heads),), weights=tuple(weights), mlp_activations=activations, eager_softmax="model-dtype"
    )


def _normed(name: str, rows: int, columns: int) -> tuple[Weight, ...]:
    return (*replicated(f"{name}.dense", rows, columns, "mlp", bias=True), *norm(f"{name}.LayerNorm", rows, bias=True))


def _feed_forward(up: str, down: str, hidden: int, width: int) -> tuple[Weight, ...]:
    mlp = plain_mlp(hidden, width, up=f"{up}.dense", down=f"{down}.dense")
    return (*mlp, *norm(f"{down}.LayerNorm", hidden, bias=True))


def _narrow_mlp(facts: Facts, narrow: int, ratio: int) -> tuple[Weight, ...]:
    width = facts.positive("intermediate_size") // ratio
    if not width:
        raise facts.wrong("intermediate_size", facts.positive("intermediate_size"), f"at least {ratio}")
    return _feed_forward("intermediate", "output", narrow, width)


def _encoding_size(facts: Facts, hidden: int) -> int:
    return facts.integer("projection_dim") or hidden


def _with_tables(
    facts: Facts,
    family: Family,
    chosen: Chosen,
    layers: list[Layer],
    *,
    more: tuple[Weight, ...] = (),
    final: tuple[Weight, ...] = (),
) -> Reading:
    hidden = facts.positive("hidden_size")
    return crowned(
        facts,
        family,
        chosen,
        layers=layers,
        embeddings=(*bert_embeddings(facts, hidden), *more),
        hidden=hidden,
        final=final,
        max_seq_len=facts.positive("max_position_embeddings"),
    )
