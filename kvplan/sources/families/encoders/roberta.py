"""RoBERTa and what is built on it: BGE-M3, E5, Granite's embeddings and most rerankers are of these types.

Types: camembert, data2vec-text, longformer, mpnet, roberta, roberta-prelayernorm, xlm-roberta, xlm-roberta-xl, xmod.
Source: transformers 5.23, models/{roberta,xlm_roberta,camembert,data2vec,longformer,mpnet,xmod}/ and others.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.encoder_heads import (
    Chosen,
    Family,
    choose,
    crowned,
    dense,
    roberta_vocabulary,
    scores,
)
from kvplan.sources.families.bricks.mixers import encoder, equal_heads
from kvplan.sources.families.bricks.parts import Reading, column, norm, plain_mlp, projections, replicated, table
from kvplan.sources.families.encoders.bert import DENSE_CLASSIFIER, bert_embeddings, bert_layers

_POOLER = dense("pooler.dense")
_ROBERTA = Family(
    causal="ForCausalLM",
    classes={
        "Model": (_POOLER,),
        "ForCausalLM": roberta_vocabulary(),
        "ForMaskedLM": roberta_vocabulary(),
        "ForSequenceClassification": DENSE_CLASSIFIER,
        "ForMultipleChoice": (_POOLER, scores("classifier", 1)),
        "ForTokenClassification": (scores("classifier"),),
        "ForQuestionAnswering": (scores("qa_outputs"),),
    },
)
_ENCODING = replace(
    _ROBERTA, causal=None, classes={name: top for name, top in _ROBERTA.classes.items() if name != "ForCausalLM"}
)


def read_roberta(facts: Facts) -> Reading:
    """RoBERTa: BERT's layers and tables; the first position is the one after the padding token's number.

    Source: transformers 5.23, models/roberta/modeling_roberta.py
    """
    hidden, chosen = facts.positive("hidden_size"), choose(facts, _family(facts))
    layers = bert_layers(facts, hidden, chosen)
    return _roberta(facts, chosen, hidden, layers)


def read_roberta_prelayernorm(facts: Facts) -> Reading:
    """RoBERTa with its norms before both halves, and one after all layers.

    Source: transformers 5.23, models/roberta_prelayernorm/modeling_roberta_prelayernorm.py
    """
    hidden, chosen = facts.positive("hidden_size"), choose(facts, _family(facts))
    layers = bert_layers(facts, hidden, chosen, norms=("LayerNorm", "intermediate.LayerNorm"))
    return _roberta(facts, chosen, hidden, layers, final=norm("LayerNorm", hidden, bias=True))


def read_xlm_roberta_xl(facts: Facts) -> Reading:
    """XLM-RoBERTa XL: norms before both halves and after all layers, none over the embeddings.

    Source: transformers 5.23, models/xlm_roberta_xl/modeling_xlm_roberta_xl.py
    """
    hidden, chosen = facts.positive("hidden_size"), choose(facts, _family(facts))
    layers = bert_layers(facts, hidden, chosen, norms=("self_attn_layer_norm", "LayerNorm"))
    return _roberta(facts, chosen, hidden, layers, final=norm("encoder.LayerNorm", hidden, bias=True), normed=False)


def read_xmod(facts: Facts) -> Reading:
    """X-MOD: RoBERTa with an adapter for each language in every layer, of which a text passes through one.

    Source: transformers 5.23, models/xmod/modeling_xmod.py `XmodOutput`
    """
    hidden, chosen = facts.positive("hidden_size"), choose(facts, _family(facts))
    narrow = hidden // facts.positive("adapter_reduction_factor")
    if not narrow:
        raise facts.wrong("adapter_reduction_factor", facts.positive("adapter_reduction_factor"), f"at most {hidden}")
    adapter = (
        *replicated("output.adapter_modules.*.dense1", narrow, hidden, "mlp", bias=True),
        *replicated("output.adapter_modules.*.dense2", hidden, narrow, "mlp", bias=True),
    )
    languages = len(facts.strings("languages") or ())
    adapters = [replace(weight, copies=languages, active_copies=1) for weight in adapter] if languages else []
    if facts.flag("adapter_layer_norm"):
        adapters += norm("output.adapter_layer_norm", hidden, bias=True)
    layers = bert_layers(facts, hidden, chosen, more=tuple(adapters))
    final = norm("encoder.LayerNorm", hidden, bias=True) if facts.flag("pre_norm") else ()
    return _roberta(facts, chosen, hidden, layers, final=final)


def read_longformer(facts: Facts) -> Reading:
    """Longformer: RoBERTa with a second set of projections, for the tokens that attend to all others.

    Source: transformers 5.23, models/longformer/modeling_longformer.py `LongformerSelfAttention`
    """
    hidden, chosen = facts.positive("hidden_size"), choose(facts, _ENCODING)
    heads = equal_heads(facts, hidden, "num_attention_heads")
    second = [
        weight
        for name in ("query_global", "key_global", "value_global")
        for weight in column(f"attention.self.{name}", hidden, hidden, "attention", units=heads.num_heads, bias=True)
    ]
    layers = bert_layers(facts, hidden, chosen, more=tuple(second))
    return _roberta(facts, chosen, hidden, layers, family=_ENCODING)


def read_mpnet(facts: Facts) -> Reading:
    """MPNet: RoBERTa without token types, and one table of relative positions for all layers.

    Source: transformers 5.23, models/mpnet/modeling_mpnet.py
    """
    hidden, chosen = facts.positive("hidden_size"), choose(facts, _ENCODING)
    heads, width = equal_heads(facts, hidden, "num_attention_heads"), facts.positive("intermediate_size")
    names = ("q", "k", "v", "o")
    weights = (
        *projections(heads, hidden, prefix="attention.attn", names=names, qkv_bias=True, out_bias=True),
        *norm("attention.LayerNorm", hidden, bias=True),
        *plain_mlp(hidden, width, up="intermediate.dense", down="output.dense"),
        *norm("output.LayerNorm", hidden, bias=True),
    )
    layer = Layer(mixers=(encoder(heads),), weights=weights, mlp_activations=2 * width, eager_softmax="model-dtype")
    buckets = facts.positive("relative_attention_num_buckets")
    relative = table("encoder.relative_attention_bias", buckets, heads.num_heads, split=False)
    layers = [layer] * facts.layer_count("num_hidden_layers")
    reading = _roberta(facts, chosen, hidden, layers, family=_ENCODING, types=False)
    return replace(reading, embeddings=(*reading.embeddings, *relative))


def _family(facts: Facts) -> Family:
    return replace(_ROBERTA, name=facts.model_type.replace("-", ""))


def _roberta(
    facts: Facts,
    chosen: Chosen,
    hidden: int,
    layers: list[Layer],
    *,
    family: Family = _ROBERTA,
    final: tuple[Weight, ...] = (),
    normed: bool = True,
    types: bool = True,
) -> Reading:
    """The tables around the layers; positions count from the padding token's number on, so that fewer are left.

    Source: transformers 5.23, models/roberta/modeling_roberta.py `create_position_ids_from_input_ids`
    """
    positions = facts.positive("max_position_embeddings") - facts.integer("pad_token_id", default=1) - 1
    return crowned(
        facts,
        family,
        chosen,
        layers=layers,
        embeddings=bert_embeddings(facts, hidden, types=types, normed=normed),
        hidden=hidden,
        final=final,
        max_seq_len=positions if positions > 0 else None,
    )
