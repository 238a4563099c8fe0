"""BERT's kin that save on attention or on matrices: Nyströmformer, YOSO, MRA, SqueezeBERT, ConvBERT.

Source: transformers 5.23, models/{nystromformer,yoso,mra,squeezebert,convbert}/.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Part, Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.encoder_heads import (
    Chosen,
    Family,
    bert_vocabulary,
    choose,
    crowned,
    dense,
    scores,
    summary,
    transform,
    vocabulary,
)
from kvplan.sources.families.bricks.mixers import Heads, encoder, equal_heads, require_divisor
from kvplan.sources.families.bricks.parts import Reading, column, norm, plain_mlp, replicated, row, table
from kvplan.sources.families.encoders.bert import DENSE_CLASSIFIER, bert_embeddings, bert_layers

# The position tables have two rows more than positions.
_POSITION_OFFSET = 2

_POOLER = dense("pooler.dense")
_SPARSE = Family(
    classes={
        "Model": (),
        "ForMaskedLM": bert_vocabulary(),
        "ForSequenceClassification": DENSE_CLASSIFIER,
        "ForMultipleChoice": (dense("pre_classifier"), scores("classifier", 1)),
        "ForTokenClassification": (scores("classifier"),),
        "ForQuestionAnswering": (scores("qa_outputs", 2),),
    },
)
_SQUEEZEBERT = Family(
    classes={
        "Model": (_POOLER,),
        "ForMaskedLM": (_POOLER, *bert_vocabulary()),
        "ForSequenceClassification": (_POOLER, scores("classifier")),
        "ForMultipleChoice": (_POOLER, scores("classifier", 1)),
        "ForTokenClassification": (_POOLER, scores("classifier")),
        "ForQuestionAnswering": (_POOLER, scores("qa_outputs")),
    },
)
_CONVBERT = Family(
    classes={
        "Model": (),
        "ForMaskedLM": (
            transform("generator_predictions.dense", "generator_predictions.LayerNorm"),
            vocabulary("generator_lm_head"),
        ),
        "ForSequenceClassification": DENSE_CLASSIFIER,
        "ForMultipleChoice": (summary(projects=False), scores("classifier", 1)),
        "ForTokenClassification": (scores("classifier"),),
        "ForQuestionAnswering": (scores("qa_outputs"),),
    },
)


def read_nystromformer(facts: Facts) -> Reading:
    """Nyströmformer: attention by landmarks, and a convolution over each head's values.

    Source: transformers 5.23, models/nystromformer/modeling_nystromformer.py
    """
    return _sparse(facts, _convolution(facts, facts.nullable("conv_kernel_size")))


def read_yoso(facts: Facts) -> Reading:
    """YOSO: attention by hashing, a convolution over each head's values where `conv_window` says so.

    Source: transformers 5.23, models/yoso/modeling_yoso.py
    """
    return _sparse(facts, _convolution(facts, facts.nullable("conv_window")))


def read_mra(facts: Facts) -> Reading:
    """MRA: attention at several resolutions; the numbers of its positions are in the checkpoint.

    Source: transformers 5.23, models/mra/modeling_mra.py
    """
    reading, positions = _sparse(facts), facts.positive("max_position_embeddings")
    name = "embeddings.position_ids"
    numbers = Weight(name=name, shape=(1, positions), part="embeddings", buffer=True, fixed_bits=64)
    return replace(reading, embeddings=(*reading.embeddings, numbers))


def read_squeezebert(facts: Facts) -> Reading:
    """SqueezeBERT: BERT whose matrices are grouped convolutions: each group reads its own channels only.

    Source: transformers 5.23, models/squeezebert/modeling_squeezebert.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    if facts.positive("embedding_size") != hidden:
        raise facts.wrong("embedding_size", facts.positive("embedding_size"), f"`hidden_size`, {hidden}")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    weights = (
        *_grouped(facts, "attention.query", hidden, hidden, "q_groups"),
        *_grouped(facts, "attention.key", hidden, hidden, "k_groups"),
        *_grouped(facts, "attention.value", hidden, hidden, "v_groups"),
        *_grouped(facts, "post_attention.conv1d", hidden, hidden, "post_attention_groups"),
        *norm("post_attention.layernorm", hidden, bias=True),
        *_grouped(facts, "intermediate.conv1d", width, hidden, "intermediate_groups"),
        *_grouped(facts, "output.conv1d", hidden, width, "output_groups"),
        *norm("output.layernorm", hidden, bias=True),
    )
    layer = Layer(mixers=(encoder(heads),), weights=weights, mlp_activations=2 * width, eager_softmax="model-dtype")
    return crowned(
        facts,
        _SQUEEZEBERT,
        choose(facts, _SQUEEZEBERT),
        layers=[layer] * facts.layer_count("num_hidden_layers"),
        embeddings=bert_embeddings(facts, hidden),
        hidden=hidden,
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def read_convbert(facts: Facts) -> Reading:
    """ConvBERT: half of a layer's heads are attention, the other half convolutions whose kernels the text makes.

    Source: transformers 5.23, models/convbert/modeling_convbert.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("embedding_size")
    chosen = choose(facts, _CONVBERT)
    if chosen.decodes:
        raise facts.wrong("is_decoder", True, "false, as its convolutions look both ways")
    projection = replicated("embeddings_project", hidden, width, "embeddings", bias=True) if width != hidden else ()
    return crowned(
        facts,
        _CONVBERT,
        chosen,
        layers=[_conv_layer(facts, hidden)] * facts.layer_count("num_hidden_layers"),
        embeddings=(*bert_embeddings(facts, width), *projection),
        hidden=hidden,
        width=width,
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _sparse(facts: Facts, more: tuple[Weight, ...] = ()) -> Reading:
    hidden, positions = facts.positive("hidden_size"), facts.positive("max_position_embeddings")
    chosen = choose(facts, _SPARSE)
    places = table("embeddings.position_embeddings", positions + _POSITION_OFFSET, hidden, split=False)
    return crowned(
        facts,
        _SPARSE,
        chosen,
        layers=_encoding(facts, hidden, chosen, more),
        embeddings=(*bert_embeddings(facts, hidden, positions=False), *places),
        hidden=hidden,
        max_seq_len=positions,
    )


def _encoding(facts: Facts, hidden: int, chosen: Chosen, more: tuple[Weight, ...]) -> list[Layer]:
    if facts.flag("add_cross_attention"):
        raise facts.wrong("add_cross_attention", True, "false, as the class has no decoder")
    return bert_layers(facts, hidden, chosen, more=more)


def _convolution(facts: Facts, kernel: int | None) -> tuple[Weight, ...]:
    """One kernel a head, along the tokens."""
    heads = facts.positive("num_attention_heads")
    if not kernel:
        return ()
    return (
        Weight(name="attention.self.conv.weight", shape=(heads, 1, kernel, 1), part="attention", split=Split(0, heads)),
    )


def _grouped(facts: Facts, name: str, rows: int, columns: int, key: str) -> tuple[Weight, ...]:
    groups = facts.positive(key)
    require_divisor(facts, key, groups, "the channels that go in", columns)
    require_divisor(facts, key, groups, "the channels that come out", rows)
    part: Part = "attention" if "attention" in name else "mlp"
    return (
        Weight(name=f"{name}.weight", shape=(rows, columns // groups, 1), part=part),
        Weight(name=f"{name}.bias", shape=(rows,), part=part),
    )


def _conv_layer(facts: Facts, hidden: int) -> Layer:
    """`head_ratio` times fewer heads, half as wide; the convolutions fill the other half of the output."""
    num_heads, mlp_width = facts.positive("num_attention_heads"), facts.positive("intermediate_size")
    require_divisor(facts, "num_attention_heads", num_heads, "hidden size", hidden)
    ratio, groups = facts.positive("head_ratio"), facts.positive("num_groups")
    num_heads = max(1, num_heads // ratio)
    if hidden % (2 * num_heads):
        raise facts.wrong("head_ratio", ratio, f"what leaves heads that divide {hidden // 2}")
    heads = Heads(num_heads=num_heads, num_kv_heads=num_heads, head_dim=hidden // 2 // num_heads)
    for whole in (hidden, mlp_width):
        require_divisor(facts, "num_groups", groups, "both widths, such as", whole)
    mlp = plain_mlp(hidden, mlp_width, up="intermediate.dense", down="output.dense")
    if groups > 1:
        mlp = tuple(_in_groups(weight, groups) for weight in mlp)
    weights = (*_half_attention(facts, heads, hidden), *mlp, *norm("output.LayerNorm", hidden, bias=True))
    return Layer(mixers=(encoder(heads),), weights=weights, mlp_activations=2 * mlp_width, eager_softmax="model-dtype")


def _half_attention(facts: Facts, heads: Heads, hidden: int) -> tuple[Weight, ...]:
    """Attention as wide as half a layer, and what makes the convolutions' kernels and their input."""
    prefix, half, kernel = "attention.self", hidden // 2, facts.positive("conv_kernel_size")
    linear = [
        weight
        for name in ("query", "key", "value", "conv_out_layer")
        for weight in column(f"{prefix}.{name}", half, hidden, "attention", units=heads.num_heads, bias=True)
    ]
    return (
        *linear,
        Weight(name=f"{prefix}.key_conv_attn_layer.bias", shape=(half, 1), part="attention"),
        Weight(name=f"{prefix}.key_conv_attn_layer.depthwise.weight", shape=(hidden, 1, kernel), part="attention"),
        Weight(name=f"{prefix}.key_conv_attn_layer.pointwise.weight", shape=(half, hidden, 1), part="attention"),
        *replicated(f"{prefix}.conv_kernel_layer", heads.num_heads * kernel, half, "attention", bias=True),
        *row("attention.output.dense", hidden, hidden, "attention", bias=True),
        *norm("attention.output.LayerNorm", hidden, bias=True),
    )


def _in_groups(weight: Weight, groups: int) -> Weight:
    """A matrix as one of each group, that reads and writes its own share."""
    if not weight.linear:
        return weight
    rows, columns = weight.shape
    return replace(weight, shape=(groups, columns // groups, rows // groups), split=None, linear=False)
