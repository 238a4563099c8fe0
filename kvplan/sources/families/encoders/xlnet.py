"""XLNet: layers that keep what goes into them, and make keys and values of it anew.

Source: transformers 5.23, models/xlnet/.
"""

from kvplan.core.mixers import LatentAttention, Mixer
from kvplan.core.model import Layer, Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.encoder_heads import Chosen, Family, choose, crowned, scores, summary, vocabulary
from kvplan.sources.families.bricks.mixers import Heads, encoder, equal_heads
from kvplan.sources.families.bricks.parts import Reading, norm, plain_mlp, table
from kvplan.sources.families.encoders.distilbert import span_by_beam

_SUMMARY = summary(projects=True)
_XLNET = Family(
    usual="LMHeadModel",
    language=("LMHeadModel",),
    classes={
        "Model": (),
        "LMHeadModel": (vocabulary("lm_loss"),),
        "ForSequenceClassification": (_SUMMARY, scores("logits_proj")),
        "ForMultipleChoice": (_SUMMARY, scores("logits_proj", 1)),
        "ForTokenClassification": (scores("classifier"),),
        "ForQuestionAnsweringSimple": (scores("qa_outputs"),),
        "ForQuestionAnswering": (span_by_beam(),),
    },
)


def read_xlnet(facts: Facts) -> Reading:
    """XLNet: relative positions with a projection of their own, segments and three biases a head.

    Source: transformers 5.23, models/xlnet/modeling_xlnet.py
    """
    hidden, width = facts.positive("d_model"), facts.positive("d_inner")
    chosen, heads = choose(facts, _XLNET), equal_heads(facts, hidden, "n_head")
    size = facts.positive("d_head", default=heads.head_dim)
    if size != heads.head_dim:
        raise facts.wrong("d_head", size, f"`d_model` / `n_head`, {heads.head_dim}")
    weights = (
        *_attention(heads, hidden),
        *norm("rel_attn.layer_norm", hidden, bias=True),
        *plain_mlp(hidden, width, up="ff.layer_1", down="ff.layer_2"),
        *norm("ff.layer_norm", hidden, bias=True),
    )
    layer = Layer(
        mixers=(_mixer(facts, chosen, heads, hidden),),
        weights=weights,
        mlp_activations=2 * width,
        eager_softmax="model-dtype",
    )
    mask = Weight(name="mask_emb", shape=(1, 1, hidden), part="embeddings")
    return crowned(
        facts,
        _XLNET,
        chosen,
        layers=[layer] * facts.layer_count("n_layer"),
        embeddings=(*table("word_embedding", facts.positive("vocab_size"), hidden), mask),
        hidden=hidden,
    )


def _mixer(facts: Facts, chosen: Chosen, heads: Heads, hidden: int) -> Mixer:
    """A layer that generates keeps its input of the last `mem_len` tokens, of all where that is null or 0.

    Every head's keys and values are projected from that one vector, as from a latent. What the other classes hand
    out beside their scores nobody reads.

    Source: transformers 5.23, models/xlnet/modeling_xlnet.py `XLNetModel.cache_mem`
    """
    if chosen.suffix not in ("LMHeadModel", "Model") or not facts.flag("use_mems_eval"):
        return encoder(heads)
    kept = facts.nullable("mem_len")
    return LatentAttention(
        num_heads=heads.num_heads,
        latent_dim=hidden,
        rope_dim=0,
        key_dim=heads.head_dim,
        value_dim=heads.head_dim,
        window=kept + 1 if kept else None,
    )


def _attention(heads: Heads, hidden: int) -> tuple[Weight, ...]:
    """Projections as tensors of their own, no linear layers: out too, and one for relative positions."""
    count, size = heads.num_heads, heads.head_dim
    projections = [
        Weight(name=f"rel_attn.{name}", shape=(hidden, count, size), part="attention", split=Split(1, count))
        for name in "qkvor"
    ]
    biases = [
        Weight(name=f"rel_attn.{name}", shape=(count, size), part="attention", split=Split(0, count))
        for name in ("r_r_bias", "r_s_bias", "r_w_bias")
    ]
    segments = Weight(name="rel_attn.seg_embed", shape=(2, count, size), part="attention", split=Split(1, count))
    return (*projections, *biases, segments)
