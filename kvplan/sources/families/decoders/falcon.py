"""Falcon: multi-query, grouped-query and multi-head attention, with LayerNorms around a parallel MLP.

Source: transformers 5.23, models/falcon/; for its first, remote-code configs (model types RefinedWeb and
RefinedWebModel) modeling_RW.py of tiiuae/falcon-40b and tiiuae/falcon-7b.
"""

from dataclasses import dataclass, replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads, full, require_divisor
from kvplan.sources.families.bricks.parts import Reading, causal_head, norm, plain_mlp, projections, table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """What one Falcon layer is made of."""

    heads: Heads
    hidden: int
    width: int
    bias: bool
    norms: tuple[str, ...]
    grouped: bool
    """The architecture of the 40B and 180B, which transformers caches with all heads written out."""
    alibi: bool


def read_falcon(facts: Facts) -> Reading:
    """Falcon: grouped KV heads with `new_decoder_architecture`, else one KV head with `multi_query`, else all.

    Source: transformers 5.23, models/falcon/modeling_falcon.py
    """
    hidden, num_heads = facts.positive("hidden_size", "n_embed"), facts.positive("num_attention_heads")
    grouped = facts.flag("new_decoder_architecture", default=False)
    block = _Block(
        heads=_heads(facts, hidden, num_heads, _kv_heads(facts, num_heads, grouped=grouped)),
        hidden=hidden,
        width=facts.positive("ffn_hidden_size", default=4 * hidden),
        bias=facts.flag("bias", default=False),
        norms=_norm_names(
            parallel=facts.flag("parallel_attn", default=True),
            count=facts.positive("num_ln_in_parallel_attn", default=2 if grouped else 1),
        ),
        grouped=grouped,
        alibi=facts.flag("alibi", default=False),
    )
    return _decoder(facts, block, facts.layer_count("num_hidden_layers"), family="falcon")


def read_refined_web(facts: Facts) -> Reading:
    """Falcon under its first name: `n_head`, `n_layer`, and `n_head_kv` only in the 40B's architecture."""
    hidden, num_heads = facts.positive("hidden_size"), facts.positive("n_head", "num_attention_heads")
    grouped = facts.has("n_head_kv")
    multi_query = not grouped and facts.flag("multi_query", default=False)
    kv_heads = facts.positive("n_head_kv") if grouped else (1 if multi_query else num_heads)
    block = _Block(
        heads=_heads(facts, hidden, num_heads, kv_heads),
        hidden=hidden,
        width=4 * hidden,
        bias=facts.flag("bias", default=False),
        norms=_norm_names(parallel=facts.flag("parallel_attn", default=False), count=2 if grouped else 1),
        grouped=grouped,
        alibi=facts.flag("alibi", default=False),
    )
    return _decoder(facts, block, facts.layer_count("n_layer", "num_hidden_layers"), family="RW")


def _kv_heads(facts: Facts, num_heads: int, *, grouped: bool) -> int:
    """`num_kv_heads` decides in the grouped architecture alone."""
    if not grouped and facts.flag("multi_query", default=True):
        return 1
    kv_heads = facts.positive("num_kv_heads", default=num_heads)
    if not grouped and kv_heads != num_heads:
        raise facts.wrong("num_kv_heads", kv_heads, f"{num_heads}, with neither grouped heads nor multi-query")
    require_divisor(facts, "num_kv_heads", kv_heads, "num_attention_heads", num_heads)
    return kv_heads


def _heads(facts: Facts, hidden: int, num_heads: int, kv_heads: int) -> Heads:
    require_divisor(facts, "num_attention_heads", num_heads, "hidden_size", hidden)
    return Heads(num_heads=num_heads, num_kv_heads=kv_heads, head_dim=hidden // num_heads)


def _norm_names(*, parallel: bool, count: int) -> tuple[str, ...]:
    if not parallel:
        return ("input_layernorm", "post_attention_layernorm")
    return ("ln_attn", "ln_mlp") if count == 2 else ("input_layernorm",)


def _layer(block: _Block) -> Layer:
    fused = tuple(f"query_key_value[{piece}]" for piece in "qkv")
    attention = projections(
        block.heads,
        block.hidden,
        prefix="self_attention",
        names=(fused[0], fused[1], fused[2], "dense"),
        qkv_bias=block.bias,
        out_bias=block.bias,
    )
    up, down = "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"
    mlp = plain_mlp(block.hidden, block.width, up=up, down=down, bias=block.bias)
    norms: list[Weight] = []
    for name in block.norms:
        norms += norm(name, block.hidden, bias=True)
    mixer = full(block.heads)
    if block.grouped:
        mixer = replace(mixer, transformers_kv_heads=block.heads.num_heads)
    return Layer(
        mixers=(mixer,),
        weights=(*attention, *mlp, *norms),
        mlp_activations=2 * block.width,
        eager_softmax="alibi" if block.alibi else "masked-copy",
    )


def _decoder(facts: Facts, block: _Block, num_layers: int, *, family: str) -> Reading:
    vocab = facts.positive("vocab_size")
    head, tied = causal_head(facts, hidden_size=block.hidden, vocab_size=vocab, tied_default=True, family=family)
    return Reading(
        hidden_size=block.hidden,
        vocab_size=vocab,
        layers=[_layer(block)] * num_layers,
        embeddings=table("word_embeddings", vocab, block.hidden),
        head=(*norm("ln_f", block.hidden, bias=True), *head),
        tied_embeddings=tied,
        max_seq_len=facts.positions(),
    )
