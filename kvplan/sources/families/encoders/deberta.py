"""DeBERTa, both versions: an encoder whose scores come from contents and relative positions apart.

Source: transformers 5.23, models/{deberta,deberta_v2}/.
"""

from collections.abc import Callable
from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.encoder_heads import Brick, Family, Top, bert_vocabulary, choose, crowned, scores
from kvplan.sources.families.bricks.mixers import Heads, encoder, equal_heads
from kvplan.sources.families.bricks.parts import Reading, column, norm, plain_mlp, projections, replicated, row, table

Attention = Callable[[Facts, Heads, int], tuple[Weight, ...]]


def _vocabulary(top: Top) -> tuple[Weight, ...]:
    """BERT's language head; where `legacy` is off, one that multiplies with the token table itself."""
    if top.facts.flag("legacy"):
        return tuple(weight for brick in bert_vocabulary() for weight in brick(top))
    own = replace(top, width=top.hidden, tied=True)
    weights = [weight for brick in bert_vocabulary() for weight in brick(own)]
    return tuple(replace(w, name=w.name.replace("cls.predictions", "lm_predictions.lm_head")) for w in weights)


def _pooler(top: Top) -> tuple[Weight, ...]:
    width = top.facts.positive("pooler_hidden_size", default=top.hidden)
    if width != top.hidden:
        raise top.facts.wrong("pooler_hidden_size", width, f"the size of what it pools, {top.hidden}")
    return replicated("pooler.dense", width, width, "head", bias=True)


_CLASSES: dict[str, tuple[Brick, ...]] = {
    "Model": (),
    "ForMaskedLM": (_vocabulary,),
    "ForSequenceClassification": (_pooler, scores("classifier")),
    "ForTokenClassification": (scores("classifier"),),
    "ForQuestionAnswering": (scores("qa_outputs"),),
}
_DEBERTA = Family(classes=_CLASSES)
_DEBERTA_V2 = Family(classes={**_CLASSES, "ForMultipleChoice": (_pooler, scores("classifier", 1))}, name="debertav2")


def read_deberta(facts: Facts) -> Reading:
    """DeBERTa: one matrix for queries, keys and values, whose biases leave out the keys.

    Source: transformers 5.23, models/deberta/modeling_deberta.py `DisentangledSelfAttention`
    """
    return _deberta(facts, _DEBERTA, _attention, ())


def read_deberta_v2(facts: Facts) -> Reading:
    """DeBERTa 2 and 3: relative positions in buckets, whose projections may be the contents' own; a convolution.

    Source: transformers 5.23, models/deberta_v2/modeling_deberta_v2.py
    """
    hidden, kernel = facts.positive("hidden_size"), facts.integer("conv_kernel_size", default=0)
    more: list[Weight] = []
    if "layer_norm" in facts.text("norm_rel_ebd", default="none").lower() and facts.flag("relative_attention"):
        more += norm("encoder.LayerNorm", hidden, bias=True)
    if kernel:
        groups = facts.positive("conv_groups", default=1)
        more += [
            Weight(name="encoder.conv.conv.weight", shape=(hidden, hidden // groups, kernel), part="mlp"),
            Weight(name="encoder.conv.conv.bias", shape=(hidden,), part="mlp"),
            *norm("encoder.conv.LayerNorm", hidden, bias=True),
        ]
    return _deberta(facts, _DEBERTA_V2, _attention_v2, tuple(more))


def _deberta(facts: Facts, family: Family, attention: Attention, more: tuple[Weight, ...]) -> Reading:
    hidden, mlp_width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    width = facts.positive("embedding_size", default=hidden)
    heads = equal_heads(facts, hidden, "num_attention_heads")
    weights = (
        *attention(facts, heads, hidden),
        *row("attention.output.dense", hidden, hidden, "attention", units=heads.num_heads, bias=True),
        *norm("attention.output.LayerNorm", hidden, bias=True),
        *plain_mlp(hidden, mlp_width, up="intermediate.dense", down="output.dense"),
        *norm("output.LayerNorm", hidden, bias=True),
    )
    layer = Layer(mixers=(encoder(heads),), weights=weights, mlp_activations=2 * mlp_width, eager_softmax="model-dtype")
    return crowned(
        facts,
        family,
        choose(facts, family),
        layers=[layer] * facts.layer_count("num_hidden_layers"),
        embeddings=(*_embeddings(facts, hidden, width), *more),
        hidden=hidden,
        width=width,
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _embeddings(facts: Facts, hidden: int, width: int) -> tuple[Weight, ...]:
    """Tokens; positions and types where the config has them; relative positions of both signs."""
    weights = list(table("embeddings.word_embeddings", facts.positive("vocab_size"), width))
    positions, types = facts.positive("max_position_embeddings"), facts.integer("type_vocab_size")
    if facts.flag("position_biased_input"):
        weights += table("embeddings.position_embeddings", positions, width, split=False)
    if types:
        weights += table("embeddings.token_type_embeddings", types, width, split=False)
    if width != hidden:
        weights += replicated("embeddings.embed_proj", hidden, width, "embeddings")
    weights += norm("embeddings.LayerNorm", hidden, bias=True)
    if facts.flag("relative_attention"):
        reach = facts.signed("max_relative_positions")
        buckets = facts.signed("position_buckets", default=-1) if facts.model_type == "deberta-v2" else -1
        rows = 2 * (buckets if buckets > 0 else reach if reach > 0 else positions)
        weights += table("encoder.rel_embeddings", rows, hidden, split=False)
    return tuple(weights)


def _attention(facts: Facts, heads: Heads, hidden: int) -> tuple[Weight, ...]:
    prefix = "attention.self"
    query, key, value = (
        column(f"{prefix}.in_proj[{piece}]", hidden, hidden, "attention", units=heads.num_heads, bias=True)
        for piece in "qkv"
    )
    weights = [query[0], key[0], value[0]]
    weights += [replace(query[1], name=f"{prefix}.q_bias"), replace(value[1], name=f"{prefix}.v_bias")]
    if facts.flag("talking_head", default=False):
        for name in ("head_logits_proj", "head_weights_proj"):
            weights += replicated(f"{prefix}.{name}", heads.num_heads, heads.num_heads, "attention")
    if facts.flag("relative_attention"):
        kinds = facts.words("pos_att_type", "|")
        if "c2p" in kinds:
            weights += column(f"{prefix}.pos_proj", hidden, hidden, "attention", units=heads.num_heads)
        if "p2c" in kinds:
            weights += column(f"{prefix}.pos_q_proj", hidden, hidden, "attention", units=heads.num_heads, bias=True)
    return tuple(weights)


def _attention_v2(facts: Facts, heads: Heads, hidden: int) -> tuple[Weight, ...]:
    prefix = "attention.self"
    size = facts.positive("attention_head_size", default=heads.head_dim)
    if size != heads.head_dim:
        raise facts.wrong("attention_head_size", size, f"hidden size / heads, {heads.head_dim}")
    names = ("query_proj", "key_proj", "value_proj", "unused")
    weights = list(projections(heads, hidden, prefix=prefix, names=names, qkv_bias=True)[:-1])
    if facts.flag("relative_attention") and not facts.flag("share_att_key", default=False):
        kinds = facts.words("pos_att_type", "|")
        for kind, name in (("c2p", "pos_key_proj"), ("p2c", "pos_query_proj")):
            if kind in kinds:
                weights += column(f"{prefix}.{name}", hidden, hidden, "attention", units=heads.num_heads, bias=True)
    return tuple(weights)
