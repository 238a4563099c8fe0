"""Decoders of fairseq's shape, with LayerNorm, an ungated MLP and biases: opt, xglm, biogpt.

Source: transformers 5.23, models/{opt,xglm,biogpt}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import half_decoder, plain_half
from kvplan.sources.families.bricks.mixers import Heads, equal_heads, full
from kvplan.sources.families.bricks.parts import Reading, causal_head, norm, projections, replicated, table

_OUT = ("q_proj", "k_proj", "v_proj", "out_proj")
_NORMS = ("self_attn_layer_norm", "final_layer_norm")
_PADDING_ROWS = 2
"""Rows of a table of learnt positions that stand before the first position."""


def read_opt(facts: Facts) -> Reading:
    """OPT: the token table may be narrower than the layers (350M), which two projections then make up for.

    Source: transformers 5.23, models/opt/modeling_opt.py
    """
    hidden, vocab = facts.positive("hidden_size"), facts.positive("vocab_size")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    bias, learns = facts.flag("enable_bias"), facts.flag("layer_norm_elementwise_affine")
    attention = projections(heads, hidden, names=_OUT, qkv_bias=bias, out_bias=bias)
    half = plain_half(hidden, facts.positive("ffn_dim"), up="fc1", down="fc2", bias=bias)
    num_layers, positions = facts.layer_count("num_hidden_layers"), facts.positive("max_position_embeddings")
    layers = half_decoder(
        hidden,
        [full(heads)] * num_layers,
        attention,
        [half] * num_layers,
        norm_names=_NORMS if learns else (),
        norm_bias=True,
    )
    narrow = facts.nullable("word_embed_proj_dim") or hidden
    final = facts.flag("do_layer_norm_before") and not facts.flag("_remove_final_layer_norm") and learns
    widen = replicated("project_in", hidden, narrow, "embeddings") if narrow != hidden else ()
    shrink = replicated("project_out", narrow, hidden, "head") if narrow != hidden else ()
    head, tied = causal_head(facts, hidden_size=narrow, vocab_size=vocab)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=(*table("embed_tokens", vocab, narrow), *_positions(positions, hidden), *widen),
        head=(*(norm("final_layer_norm", hidden, bias=True) if final else ()), *shrink, *head),
        tied_embeddings=tied,
        max_seq_len=positions,
    )


def read_xglm(facts: Facts) -> Reading:
    """XGLM: positions are sines. Attention over an encoder is held where the config asks for it, and caches nothing.

    Source: transformers 5.23, models/xglm/modeling_xglm.py
    """
    hidden = facts.positive("d_model")
    heads = equal_heads(facts, hidden, "attention_heads")
    crossing: tuple[Weight, ...] = ()
    if facts.flag("add_cross_attention"):
        norms = norm("encoder_attn_layer_norm", hidden, bias=True)
        crossing = (*_projections(heads, hidden, prefix="encoder_attn"), *norms)
    num_layers = facts.layer_count("num_layers")
    return _decoder(facts, heads, hidden, num_layers, width=facts.positive("ffn_dim"), beside=crossing)


def read_biogpt(facts: Facts) -> Reading:
    """BioGPT: learnt positions.

    Source: transformers 5.23, models/biogpt/modeling_biogpt.py
    """
    hidden = facts.positive("hidden_size")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    positions = _positions(facts.positive("max_position_embeddings"), hidden)
    num_layers, width = facts.layer_count("num_hidden_layers"), facts.positive("intermediate_size")
    return _decoder(facts, heads, hidden, num_layers, width=width, positions=positions, head="output_projection")


def _decoder(
    facts: Facts,
    heads: Heads,
    hidden: int,
    num_layers: int,
    *,
    width: int,
    beside: tuple[Weight, ...] = (),
    positions: tuple[Weight, ...] = (),
    head: str = "lm_head",
) -> Reading:
    """Norms before each half and after the last layer, biases everywhere but in the head, softmax in low precision."""
    vocab = facts.positive("vocab_size")
    layers = half_decoder(
        hidden,
        [full(heads)] * num_layers,
        (*_projections(heads, hidden), *beside),
        [plain_half(hidden, width, up="fc1", down="fc2")] * num_layers,
        norm_names=_NORMS,
        norm_bias=True,
        eager_softmax="model-dtype",
    )
    top, tied = causal_head(facts, hidden_size=hidden, vocab_size=vocab, name=head)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=(*table("embed_tokens", vocab, hidden), *positions),
        head=(*norm("layer_norm", hidden, bias=True), *top),
        tied_embeddings=tied,
        max_seq_len=facts.positions(),
    )


def _projections(heads: Heads, hidden: int, *, prefix: str = "self_attn") -> tuple[Weight, ...]:
    return projections(heads, hidden, prefix=prefix, names=_OUT, qkv_bias=True, out_bias=True)


def _positions(count: int, hidden: int) -> tuple[Weight, ...]:
    return table("embed_positions", count + _PADDING_ROWS, hidden, split=False)
