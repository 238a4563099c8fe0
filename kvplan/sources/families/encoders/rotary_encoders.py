"""Encoders with rotary positions: Nomic's, GTE, Jina's embeddings 3, EuroBERT, NeoMME.

Source: transformers 5.23, models/{nomic_bert,gte,jina_embeddings_v3,eurobert,neomme}/.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.encoder_heads import (
    Family,
    Top,
    bert_vocabulary,
    choose,
    crowned,
    dense,
    roberta_vocabulary,
    scores,
    transform,
    vocabulary,
)
from kvplan.sources.families.bricks.mixers import Heads, encoder, read_heads, require_divisor
from kvplan.sources.families.bricks.parts import (
    Reading,
    column,
    gated_mlp,
    norm,
    plain_mlp,
    projections,
    replicated,
    table,
)
from kvplan.sources.families.encoders.bert import DENSE_CLASSIFIER, bert_embeddings
from kvplan.sources.families.remote.parts import refuse

_POOLER = dense("pooler.dense")
_NOMIC = Family(
    # The config class has no such field, but an attribute that says so.
    tied=True,
    classes={
        "Model": (),
        "ForMaskedLM": bert_vocabulary(norm_name="layer_norm"),
        "ForSequenceClassification": (_POOLER, scores("classifier")),
        "ForTokenClassification": (scores("classifier"),),
    },
)
_GTE = Family(
    classes={
        "Model": (),
        "ForMaskedLM": (transform("lm_head.dense", "lm_head.layer_norm"), vocabulary("lm_head.decoder")),
        "ForSequenceClassification": (_POOLER, scores("classifier")),
        "ForTokenClassification": (scores("classifier"),),
    },
)
_JINA = Family(
    classes={
        "Model": (_POOLER,),
        "ForMaskedLM": roberta_vocabulary(),
        "ForSequenceClassification": DENSE_CLASSIFIER,
        "ForTokenClassification": (scores("classifier"),),
        "ForQuestionAnswering": (scores("qa_outputs"),),
    },
)


def _biased_as_mlps(top: Top) -> tuple[Weight, ...]:
    return vocabulary("lm_head", bias=top.facts.flag("mlp_bias"))(top)


_EUROBERT = Family(
    classes={
        "Model": (),
        "ForMaskedLM": (_biased_as_mlps,),
        "ForSequenceClassification": (dense("dense"), scores("classifier")),
        "ForTokenClassification": (scores("classifier"),),
    },
)


def _low_rank_vocabulary(top: Top) -> tuple[Weight, ...]:
    if top.tied:
        return ()
    back = replicated("unembedding_projection", top.hidden, top.width, "head")
    return (*back, *column("lm_head", top.vocab, top.width, "head"))


def _multi_vector(top: Top) -> tuple[Weight, ...]:
    return replicated("multi_vector_head.proj", top.facts.positive("embedding_dim"), top.hidden, "head")


_NEOMME = Family(classes={"Model": (), "ForMaskedLM": (_low_rank_vocabulary,), "ForRetrieval": (_multi_vector,)})


def read_nomic_bert(facts: Facts) -> Reading:
    """Nomic's BERT: gated MLPs, no biases, norms after both halves.

    Older files spell its sizes as GPT-2's. The second version, with experts and biases, is refused.

    Source: transformers 5.23, models/nomic_bert/modeling_nomic_bert.py; nomic-ai/nomic-embed-text-v1.5, config.json
    """
    biases = ("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias")
    refuse(facts, "num_experts", *biases, why="which transformers' class does not have")
    hidden, width = facts.positive("hidden_size", "n_embd"), facts.positive("intermediate_size", "n_inner")
    return _post_normed(facts, _NOMIC, gated_mlp(hidden, width), bias=False, activations=3 * width)


def read_gte(facts: Facts, *, family: str | None = None) -> Reading:
    """GTE: gated MLPs whose way out has a bias, as all of attention has. `family` is how its classes are called.

    Source: transformers 5.23, models/gte/modeling_gte.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    up_and_gate = [weight for weight in gated_mlp(hidden, width, bias=True) if weight.shape != (width,)]
    return _post_normed(facts, replace(_GTE, name=family), tuple(up_and_gate), bias=True, activations=3 * width)


def read_jina_embeddings_v3(facts: Facts) -> Reading:
    """Jina's embeddings 3 as transformers builds them: RoBERTa with rotary positions, no adapters.

    Source: transformers 5.23, models/jina_embeddings_v3/modeling_jina_embeddings_v3.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    mlp = plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2")
    return _post_normed(facts, _JINA, mlp, bias=True, activations=2 * width)


def read_eurobert(facts: Facts) -> Reading:
    """EuroBERT: Llama's layers that look both ways.

    Source: transformers 5.23, models/eurobert/modeling_eurobert.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = read_heads(facts, hidden)
    require_divisor(facts, "num_attention_heads", heads.num_heads, "hidden_size", hidden)
    bias = facts.flag("attention_bias")
    weights = (
        *projections(heads, hidden, qkv_bias=bias, out_bias=bias),
        *gated_mlp(hidden, width, bias=facts.flag("mlp_bias")),
        *norm("input_layernorm", hidden),
        *norm("post_attention_layernorm", hidden),
    )
    layer = Layer(mixers=(encoder(heads),), weights=weights, mlp_activations=3 * width)
    return crowned(
        facts,
        _EUROBERT,
        choose(facts, _EUROBERT),
        layers=[layer] * facts.layer_count("num_hidden_layers"),
        embeddings=table("embed_tokens", facts.positive("vocab_size"), hidden),
        hidden=hidden,
        final=norm("norm", hidden),
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def read_neomme(facts: Facts) -> Reading:
    """NeoMME: an encoder of text and of image patches; tables of low rank, gated attention, norms without weights.

    Source: transformers 5.23, models/neomme/modeling_neomme.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    rank, vocab = facts.positive("embedding_rank"), facts.positive("vocab_size")
    heads = read_heads(facts, hidden)
    embeddings = (
        *table("embed_tokens.word_embeddings", vocab, rank),
        *replicated("embed_tokens.embedding_projection", hidden, rank, "embeddings"),
        *_patches(facts, hidden),
        *table("value_embeddings", vocab, heads.num_kv_heads * heads.head_dim),
    )
    bias, gate_width = facts.flag("attention_bias"), heads.num_heads * heads.head_dim
    names = ("q_proj", "k_proj", "v_proj", "output_projection.o_proj")
    weights = (
        *projections(heads, hidden, names=names, qkv_bias=bias, out_bias=bias),
        *column("self_attn.output_projection.gate_proj", gate_width, hidden, "attention", units=heads.num_heads),
        Weight(name="self_attn.exclusive_self_attention.alpha", shape=(heads.num_heads,), part="attention"),
        *plain_mlp(hidden, width, up="mlp.up_proj", down="mlp.down_proj", bias=facts.flag("mlp_bias")),
        Weight(name="lambdas", shape=(2,), part="norms"),
    )
    layer = Layer(mixers=(encoder(heads),), weights=weights, mlp_activations=2 * width)
    return crowned(
        facts,
        _NEOMME,
        choose(facts, _NEOMME),
        layers=[layer] * facts.layer_count("num_hidden_layers"),
        embeddings=embeddings,
        hidden=hidden,
        width=rank,
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _patches(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """What makes a vector of the three colours of a patch's pixels."""
    pixels = 3 * facts.positive("patch_size") ** 2
    weights = (
        *norm("norm", pixels, bias=True),
        *replicated("up_proj", 2 * hidden, pixels, "vision"),
        *replicated("down_proj", hidden, 2 * hidden, "vision", bias=True),
    )
    return tuple(replace(weight, name=f"patch_embeddings.{weight.name}", part="vision") for weight in weights)


def _post_normed(facts: Facts, family: Family, mlp: tuple[Weight, ...], *, bias: bool, activations: int) -> Reading:
    """BERT's tables without positions, and layers with a norm after each half."""
    hidden, num_heads = facts.positive("hidden_size", "n_embd"), facts.positive("num_attention_heads", "n_head")
    size = facts.positive("head_dim", default=hidden // num_heads)
    heads = Heads(num_heads=num_heads, num_kv_heads=num_heads, head_dim=size)
    weights = (
        *projections(heads, hidden, qkv_bias=bias, out_bias=bias),
        *norm("post_attention_layernorm", hidden, bias=True),
        *mlp,
        *norm("post_mlp_layernorm", hidden, bias=True),
    )
    layer = Layer(mixers=(encoder(heads),), weights=weights, mlp_activations=activations, eager_softmax="model-dtype")
    return crowned(
        facts,
        family,
        choose(facts, family),
        layers=[layer] * facts.layer_count("num_hidden_layers", "n_layer"),
        embeddings=bert_embeddings(facts, hidden, positions=False),
        hidden=hidden,
        max_seq_len=facts.positive("max_position_embeddings", "n_positions"),
    )
