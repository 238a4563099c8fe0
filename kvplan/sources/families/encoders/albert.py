"""ALBERT: one set of weights for many layers.

Source: transformers 5.23, models/albert/.
"""

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.encoder_heads import Family, choose, crowned, dense, scores, transform, vocabulary
from kvplan.sources.families.bricks.mixers import encoder, equal_heads
from kvplan.sources.families.bricks.parts import Reading, norm, plain_mlp, projections, replicated
from kvplan.sources.families.encoders.bert import bert_embeddings

_POOLER = dense("pooler")
_VOCABULARY = (
    transform("predictions.dense", "predictions.LayerNorm"),
    vocabulary("predictions.decoder", second_bias="predictions.bias"),
)
_ALBERT = Family(
    language=("ForMaskedLM", "ForPreTraining"),
    classes={
        "Model": (_POOLER,),
        "ForPreTraining": (_POOLER, *_VOCABULARY, scores("sop_classifier.classifier")),
        "ForMaskedLM": _VOCABULARY,
        "ForSequenceClassification": (_POOLER, scores("classifier")),
        "ForMultipleChoice": (_POOLER, scores("classifier", 1)),
        "ForTokenClassification": (scores("classifier"),),
        "ForQuestionAnswering": (scores("qa_outputs"),),
    },
)


def read_albert(facts: Facts) -> Reading:
    """ALBERT: narrow tables, and layers in `num_hidden_groups` groups that share their weights.

    Source: transformers 5.23, models/albert/modeling_albert.py `AlbertTransformer`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("embedding_size")
    mapping = replicated("encoder.embedding_hidden_mapping_in", hidden, width, "embeddings", bias=True)
    return crowned(
        facts,
        _ALBERT,
        choose(facts, _ALBERT),
        layers=_layers(facts, hidden),
        embeddings=(*bert_embeddings(facts, width), *mapping),
        hidden=hidden,
        width=width,
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _layers(facts: Facts, hidden: int) -> list[Layer]:
    """The layers as they run; a group's weights stand in the first of its layers, the others hold none.

        group of layer i = ⌊i · groups / layers⌋

    A group runs `inner_group_num` layers in turn, each with weights of its own.
    """
    steps, groups = facts.layer_count("num_hidden_layers"), facts.layer_count("num_hidden_groups")
    if groups > steps:
        raise facts.wrong("num_hidden_groups", groups, f"at most `num_hidden_layers`, {steps}")
    inner = facts.layer_count("inner_group_num")
    heads, mlp_width = equal_heads(facts, hidden, "num_attention_heads"), facts.positive("intermediate_size")

    def layer(weights: tuple[Weight, ...]) -> Layer:
        return Layer(
            mixers=(encoder(heads),), weights=weights, mlp_activations=2 * mlp_width, eager_softmax="model-dtype"
        )

    names = ("query", "key", "value", "dense")
    first, again = (
        layer(
            (
                *projections(heads, hidden, prefix="attention", names=names, qkv_bias=True, out_bias=True),
                *norm("attention.LayerNorm", hidden, bias=True),
                *plain_mlp(hidden, mlp_width, up="ffn", down="ffn_output"),
                *norm("full_layer_layer_norm", hidden, bias=True),
            )
        ),
        layer(()),
    )
    of = [int(i / (steps / groups)) for i in range(steps)]
    return [first if i == 0 or of[i] != of[i - 1] else again for i in range(steps) for _ in range(inner)]
