"""BERT and its next of kin: an encoder, or a decoder where the config says so.

Types: bert, bert-generation, big_bird, electra, ernie, megatron-bert, rembert, roc_bert, roformer; MiniLM, BGE and
E5 are `bert`. Source: transformers 5.23, models/{bert,bert_generation,big_bird,electra,ernie}/ and its others.
"""

from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Layer, Weight
from kvplan.core.text import printable
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
    summary,
    transform,
    vocabulary,
)
from kvplan.sources.families.bricks.mixers import Heads, encoder, equal_heads, full
from kvplan.sources.families.bricks.parts import Reading, column, norm, plain_mlp, replicated, row, table

_REMBERT_VOCABULARY = (
    transform("cls.predictions.dense", "cls.predictions.LayerNorm"),
    vocabulary("cls.predictions.decoder"),
)


def _rembert_vocabulary(top: Top) -> tuple[Weight, ...]:
    """The way out has a width of its own, so that nothing is tied whatever the config says."""
    top = replace(top, width=top.facts.positive("output_embedding_size"), tied=False)
    return tuple(weight for brick in _REMBERT_VOCABULARY for weight in brick(top))


def _big_bird_span(top: Top) -> tuple[Weight, ...]:
    """A feed-forward part before the two scores of a span."""
    width = top.facts.positive("intermediate_size")
    mlp = plain_mlp(top.hidden, width, up="intermediate.dense", down="output.dense", part="head")
    gain_and_offset = norm("output.LayerNorm", top.hidden, bias=True)
    scored = replicated("qa_outputs", 2, top.hidden, "head", bias=True)
    return tuple(replace(w, name=f"qa_classifier.{w.name}", part="head") for w in (*mlp, *gain_and_offset, *scored))


_POOLER = dense("pooler.dense")
_CLASSIFIER = scores("classifier")
_CHOICE = scores("classifier", 1)
_SPAN = scores("qa_outputs")
_PAIR = scores("cls.seq_relationship", 2)
DENSE_CLASSIFIER = (dense("classifier.dense"), scores("classifier.out_proj"))

_BERT_CLASSES: dict[str, tuple[Brick, ...]] = {
    "Model": (_POOLER,),
    "ForPreTraining": (_POOLER, *bert_vocabulary(), _PAIR),
    "ForMaskedLM": bert_vocabulary(),
    "ForNextSentencePrediction": (_POOLER, _PAIR),
    "ForSequenceClassification": (_POOLER, _CLASSIFIER),
    "ForMultipleChoice": (_POOLER, _CHOICE),
    "ForTokenClassification": (_CLASSIFIER,),
    "ForQuestionAnswering": (_SPAN,),
}
_LANGUAGE = ("ForMaskedLM", "ForCausalLM", "LMHeadModel", "ForPreTraining")
_BERT = Family(classes={**_BERT_CLASSES, "LMHeadModel": bert_vocabulary()}, language=_LANGUAGE, causal="LMHeadModel")
_ERNIE = Family(classes={**_BERT_CLASSES, "ForCausalLM": bert_vocabulary()}, language=_LANGUAGE, causal="ForCausalLM")
_MEGATRON = replace(_ERNIE, name="megatronbert")
_ROC_BERT = replace(_ERNIE, classes={**_ERNIE.classes, "ForPreTraining": (_POOLER, *bert_vocabulary())})
_BIG_BIRD_POOLER = dense("pooler")
_BIG_BIRD = replace(
    _ERNIE,
    classes={
        "Model": (_BIG_BIRD_POOLER,),
        "ForPreTraining": (_BIG_BIRD_POOLER, *bert_vocabulary(), _PAIR),
        "ForMaskedLM": (_BIG_BIRD_POOLER, *bert_vocabulary()),
        "ForCausalLM": (_BIG_BIRD_POOLER, *bert_vocabulary()),
        "ForSequenceClassification": (_BIG_BIRD_POOLER, *DENSE_CLASSIFIER),
        "ForMultipleChoice": (_BIG_BIRD_POOLER, _CHOICE),
        "ForTokenClassification": (_BIG_BIRD_POOLER, _CLASSIFIER),
        "ForQuestionAnswering": (_big_bird_span,),
    },
)
_GENERATION = Family(
    name="bertgeneration",
    plain="Encoder",
    causal="Decoder",
    language=("Decoder",),
    classes={"Encoder": (), "Decoder": (vocabulary("lm_head.decoder", second_bias="lm_head.bias"),)},
)
_ELECTRA_VOCABULARY = (
    transform("generator_predictions.dense", "generator_predictions.LayerNorm"),
    vocabulary("generator_lm_head"),
)
_ELECTRA = Family(
    causal="ForCausalLM",
    classes={
        "Model": (),
        "ForPreTraining": (
            dense("discriminator_predictions.dense"),
            scores("discriminator_predictions.dense_prediction", 1),
        ),
        "ForMaskedLM": _ELECTRA_VOCABULARY,
        "ForCausalLM": _ELECTRA_VOCABULARY,
        "ForSequenceClassification": DENSE_CLASSIFIER,
        "ForMultipleChoice": (summary(projects=True), _CHOICE),
        "ForTokenClassification": (_CLASSIFIER,),
        "ForQuestionAnswering": (_SPAN,),
    },
)
_ROFORMER = Family(
    causal="ForCausalLM",
    classes={
        "Model": (),
        "ForMaskedLM": bert_vocabulary(),
        "ForCausalLM": bert_vocabulary(),
        "ForSequenceClassification": DENSE_CLASSIFIER,
        "ForMultipleChoice": (summary(projects=False), _CHOICE),
        "ForTokenClassification": (_CLASSIFIER,),
        "ForQuestionAnswering": (scores("qa_outputs", 2),),
    },
)
_REMBERT = Family(
    causal="ForCausalLM",
    classes={
        "Model": (_POOLER,),
        "ForMaskedLM": (_rembert_vocabulary,),
        "ForCausalLM": (_rembert_vocabulary,),
        "ForSequenceClassification": (_POOLER, _CLASSIFIER),
        "ForMultipleChoice": (_POOLER, _CHOICE),
        "ForTokenClassification": (_CLASSIFIER,),
        "ForQuestionAnswering": (_SPAN,),
    },
    language=(),
)


def read_bert(facts: Facts) -> Reading:
    """BERT: `BertModel` where no class is named, `BertLMHeadModel` for a decoder.

    Source: transformers 5.23, models/bert/modeling_bert.py
    """
    return _bert(facts, _BERT)


def read_ernie(facts: Facts) -> Reading:
    """ERNIE: BERT, and where `use_task_id` says so a table of tasks.

    Source: transformers 5.23, models/ernie/modeling_ernie.py
    """
    reading = _bert(facts, _ERNIE)
    if not facts.flag("use_task_id"):
        return reading
    tasks = table(
        "embeddings.task_type_embeddings", facts.positive("task_type_vocab_size"), reading.hidden_size, split=False
    )
    return replace(reading, embeddings=(*reading.embeddings, *tasks))


def read_megatron_bert(facts: Facts) -> Reading:
    """Megatron-BERT: norms before both halves and after all layers, none over the embeddings.

    Source: transformers 5.23, models/megatron_bert/modeling_megatron_bert.py
    """
    hidden, chosen = facts.positive("hidden_size"), choose(facts, _MEGATRON)
    layers = bert_layers(facts, hidden, chosen, norms=("ln", "ln"))
    return crowned(
        facts,
        _MEGATRON,
        chosen,
        layers=layers,
        embeddings=bert_embeddings(facts, hidden, normed=False),
        hidden=hidden,
        final=norm("encoder.ln", hidden, bias=True),
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def read_roc_bert(facts: Facts) -> Reading:
    """RoCBert: BERT whose tokens also have a sound and a shape, concatenated or added.

    Source: transformers 5.23, models/roc_bert/modeling_roc_bert.py `RoCBertEmbeddings`
    """
    reading = _bert(facts, _ROC_BERT)
    hidden = reading.hidden_size
    sound, shape = facts.positive("pronunciation_embed_dim"), facts.positive("shape_embed_dim")
    senses = [
        *table("embeddings.pronunciation_embed", facts.positive("pronunciation_vocab_size"), sound, split=False),
        *table("embeddings.shape_embed", facts.positive("shape_vocab_size"), shape, split=False),
    ]
    if facts.flag("concat_input"):
        columns = hidden + sound * facts.flag("enable_pronunciation") + shape * facts.flag("enable_shape")
        senses += replicated("embeddings.map_inputs_layer", hidden, columns, "embeddings", bias=True)
    return replace(reading, embeddings=(*reading.embeddings, *senses))


def read_bert_generation(facts: Facts) -> Reading:
    """BertGeneration: BERT without token types and pooler, its vocabulary without a transform.

    Source: transformers 5.23, models/bert_generation/modeling_bert_generation.py
    """
    return _bert(facts, _GENERATION, types=False)


def read_big_bird(facts: Facts) -> Reading:
    """BigBird: BERT with block-sparse attention for long inputs, full attention where it decodes.

    Source: transformers 5.23, models/big_bird/modeling_big_bird.py
    """
    kind = facts.text("attention_type")
    if kind not in ("block_sparse", "original_full"):
        raise facts.wrong("attention_type", kind, "`block_sparse` or `original_full`")
    return _bert(facts, _BIG_BIRD, qkv_bias=facts.flag("use_bias"))


def read_electra(facts: Facts) -> Reading:
    """ELECTRA: BERT whose tables may be narrower than its layers; generator and discriminator differ in their head.

    Source: transformers 5.23, models/electra/modeling_electra.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("embedding_size")
    chosen = choose(facts, _ELECTRA)
    return crowned(
        facts,
        _ELECTRA,
        chosen,
        layers=bert_layers(facts, hidden, chosen),
        embeddings=(*bert_embeddings(facts, width), *_widened(hidden, width)),
        hidden=hidden,
        width=width,
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def read_roformer(facts: Facts) -> Reading:
    """RoFormer: BERT with rotary positions, kept as a table of sines.

    Source: transformers 5.23, models/roformer/modeling_roformer.py
    """
    hidden, positions = facts.positive("hidden_size"), facts.positive("max_position_embeddings")
    width = facts.nullable("embedding_size") or hidden
    chosen = choose(facts, _ROFORMER)
    head_dim = equal_heads(facts, hidden, "num_attention_heads").head_dim
    return crowned(
        facts,
        _ROFORMER,
        chosen,
        layers=bert_layers(facts, hidden, chosen),
        embeddings=(
            *bert_embeddings(facts, width, positions=False),
            *_widened(hidden, width),
            *table("encoder.embed_positions", positions, head_dim, split=False),
        ),
        hidden=hidden,
        width=width,
        max_seq_len=positions,
    )


def read_rembert(facts: Facts) -> Reading:
    """RemBERT: BERT with narrow tables going in and a wide one coming out, never tied.

    Source: transformers 5.23, models/rembert/modeling_rembert.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("input_embedding_size")
    chosen = choose(facts, _REMBERT)
    mapping = replicated("encoder.embedding_hidden_mapping_in", hidden, width, "embeddings", bias=True)
    return crowned(
        facts,
        _REMBERT,
        chosen,
        layers=bert_layers(facts, hidden, chosen),
        embeddings=(*bert_embeddings(facts, width), *mapping),
        hidden=hidden,
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def bert_embeddings(
    facts: Facts, width: int, *, positions: bool = True, types: bool = True, normed: bool = True
) -> tuple[Weight, ...]:
    """Token table, learnt positions, token types, and a norm. Raises UnsupportedError for positions of another kind."""
    kind = facts.text("position_embedding_type", default="absolute")
    if positions and kind != "absolute":
        raise UnsupportedError(
            f"`position_embedding_type` is `{printable(kind)}`, which transformers does not build any more",
            hint="pass `--set position_embedding_type=absolute` to count a table of positions",
        )
    weights = list(table("embeddings.word_embeddings", facts.positive("vocab_size"), width))
    if positions:
        rows = facts.positive("max_position_embeddings")
        weights += table("embeddings.position_embeddings", rows, width, split=False)
    if types:
        weights += table("embeddings.token_type_embeddings", facts.positive("type_vocab_size"), width, split=False)
    if normed:
        weights += norm("embeddings.LayerNorm", width, bias=True)
    return tuple(weights)


def bert_layers(
    facts: Facts,
    hidden: int,
    chosen: Chosen,
    *,
    norms: tuple[str, str] = ("output.LayerNorm", "output.LayerNorm"),
    qkv_bias: bool = True,
    more: tuple[Weight, ...] = (),
) -> list[Layer]:
    """Equal layers of two halves and a norm for each, by name: of an attention, of the layer.

    With cross-attention weights it is still a decoder without an encoder at its side.
    """
    heads = equal_heads(facts, hidden, "num_attention_heads")
    width = facts.positive("intermediate_size")
    crosses = facts.knows("add_cross_attention") and facts.flag("add_cross_attention")
    if crosses and not chosen.decodes:
        raise facts.wrong("add_cross_attention", crosses, "false where `is_decoder` is not true")
    names = ("attention", "crossattention") if crosses else ("attention",)
    attention = [bert_attention(name, heads, hidden, norm_name=norms[0], qkv_bias=qkv_bias) for name in names]
    weights = (
        *(weight for weights in attention for weight in weights),
        *plain_mlp(hidden, width, up="intermediate.dense", down="output.dense"),
        *norm(norms[1], hidden, bias=True),
        *more,
    )
    mixer = full(heads) if chosen.cached else encoder(heads)
    layer = Layer(mixers=(mixer,), weights=weights, mlp_activations=2 * width, eager_softmax="model-dtype")
    return [layer] * facts.layer_count("num_hidden_layers")


def bert_attention(
    prefix: str,
    heads: Heads,
    hidden: int,
    *,
    inner: str = "self",
    norm_name: str = "output.LayerNorm",
    qkv_bias: bool = True,
    source: int | None = None,
) -> tuple[Weight, ...]:
    """An attention and its norm; keys and values come from vectors of size `source`, by default the layer's own."""
    query, key, value, out = (
        f"{prefix}.{name}" for name in (f"{inner}.query", f"{inner}.key", f"{inner}.value", "output.dense")
    )
    units, wide = heads.num_heads, source or hidden
    return (
        *column(query, hidden, hidden, "attention", units=units, bias=qkv_bias),
        *column(key, hidden, wide, "attention", units=units, bias=qkv_bias),
        *column(value, hidden, wide, "attention", units=units, bias=qkv_bias),
        *row(out, hidden, hidden, "attention", units=units, bias=True),
        *norm(f"{prefix}.{norm_name}", hidden, bias=True),
    )


def _bert(facts: Facts, family: Family, *, types: bool = True, qkv_bias: bool = True) -> Reading:
    hidden, chosen = facts.positive("hidden_size"), choose(facts, family)
    return crowned(
        facts,
        family,
        chosen,
        layers=bert_layers(facts, hidden, chosen, qkv_bias=qkv_bias),
        embeddings=bert_embeddings(facts, hidden, types=types),
        hidden=hidden,
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _widened(hidden: int, width: int) -> tuple[Weight, ...]:
    """The step from narrow tables to the layers, where they differ."""
    return replicated("embeddings_project", hidden, width, "embeddings", bias=True) if width != hidden else ()
