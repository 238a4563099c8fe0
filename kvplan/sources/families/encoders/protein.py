"""ESM-2 and ESM C: encoders of proteins.

Source: transformers 5.23, models/{esm,esmc}/.
"""

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.encoder_heads import Family, Top, choose, crowned, dense, scores, transform
from kvplan.sources.families.bricks.mixers import encoder, read_heads
from kvplan.sources.families.bricks.parts import Reading, column, gated_mlp, norm, projections, replicated, table
from kvplan.sources.families.encoders.bert import DENSE_CLASSIFIER, bert_layers


def _esm_vocabulary(top: Top) -> tuple[Weight, ...]:
    """RoBERTa's language head with one bias, kept apart from the matrix."""
    matrix, bias = column("lm_head.decoder", top.vocab, top.hidden, "head", bias=True)
    return (*transform("lm_head.dense", "lm_head.layer_norm")(top), bias, *(() if top.tied else (matrix,)))


def _esmc_vocabulary(top: Top) -> tuple[Weight, ...]:
    matrix = column("lm_head.decoder", top.vocab, top.hidden, "head", bias=True)
    return (*transform("lm_head.dense", "lm_head.layer_norm")(top), *matrix)


_ESM = Family(
    classes={
        "Model": (dense("pooler.dense"),),
        "ForMaskedLM": (_esm_vocabulary,),
        "ForSequenceClassification": DENSE_CLASSIFIER,
        "ForTokenClassification": (scores("classifier"),),
    },
)
_ESMC = Family(
    language=(),
    classes={
        "Model": (),
        "ForMaskedLM": (_esmc_vocabulary,),
        "ForSequenceClassification": DENSE_CLASSIFIER,
        "ForTokenClassification": (scores("score"),),
    },
)


def read_esm(facts: Facts) -> Reading:
    """ESM-2: BERT's layers with norms before both halves, and a head that sees contacts in all their scores.

    Source: transformers 5.23, models/esm/modeling_esm.py
    """
    hidden, chosen = facts.positive("hidden_size"), choose(facts, _ESM)
    if chosen.decodes:
        raise facts.wrong("is_decoder", True, "false, as its layers keep no cache")
    kind, positions = facts.text("position_embedding_type"), facts.positive("max_position_embeddings")
    if kind not in ("absolute", "rotary"):
        raise facts.wrong("position_embedding_type", kind, "`absolute` or `rotary`")
    embeddings = list(table("embeddings.word_embeddings", facts.positive("vocab_size"), hidden))
    if kind == "absolute":
        embeddings += table("embeddings.position_embeddings", positions, hidden, split=False)
    else:
        pairs = hidden // facts.positive("num_attention_heads") // 2
        name = "rotary_embeddings.inv_freq"
        embeddings.append(Weight(name=name, shape=(pairs,), part="embeddings", buffer=True, fixed_bits=32))
    if facts.flag("emb_layer_norm_before"):
        embeddings += norm("embeddings.layer_norm", hidden, bias=True)
    layers = bert_layers(facts, hidden, chosen, norms=("LayerNorm", "LayerNorm"))
    maps = len(layers) * facts.positive("num_attention_heads")
    return crowned(
        facts,
        _ESM,
        chosen,
        layers=layers,
        embeddings=tuple(embeddings),
        hidden=hidden,
        final=(
            *norm("encoder.emb_layer_norm_after", hidden, bias=True),
            *replicated("contact_head.regression", 1, maps, "head", bias=True),
        ),
        max_seq_len=positions,
    )


def read_esmc(facts: Facts) -> Reading:
    """ESM C: Llama's layers that look both ways, a norm over all heads' queries and one over their keys.

    Source: transformers 5.23, models/esmc/modeling_esmc.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = read_heads(facts, hidden)
    if heads.num_heads * heads.head_dim != hidden or heads.num_kv_heads != heads.num_heads:
        raise facts.wrong("head_dim", heads.head_dim, "what makes queries and keys as wide as `hidden_size`")
    bias = facts.flag("attention_bias")
    weights = (
        *projections(heads, hidden, qkv_bias=bias, out_bias=bias),
        *norm("self_attn.q_norm", hidden),
        *norm("self_attn.k_norm", hidden),
        *gated_mlp(hidden, width, bias=facts.flag("mlp_bias")),
        *norm("input_layernorm", hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
    )
    layer = Layer(mixers=(encoder(heads),), weights=weights, mlp_activations=3 * width, eager_softmax="model-dtype")
    return crowned(
        facts,
        _ESMC,
        choose(facts, _ESMC),
        layers=[layer] * facts.layer_count("num_hidden_layers"),
        embeddings=table("embed_tokens", facts.positive("vocab_size"), hidden),
        hidden=hidden,
        final=norm("norm", hidden),
        max_seq_len=facts.positive("max_position_embeddings"),
    )
