"""Decoders of GPT-2's kin whose classes come with their repository: jais, codeshell.

Source: inceptionai/jais-13b, configuration_jais.py, modeling_jais.py; WisdomShell/CodeShell-7B,
configuration_codeshell.py, modeling_codeshell.py.
"""

from dataclasses import replace

from kvplan.core.model import EagerSoftmax
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import plain_half
from kvplan.sources.families.bricks.mixers import equal_heads, full, require_divisor
from kvplan.sources.families.bricks.parts import Half, Reading, gated_mlp, projections, table
from kvplan.sources.families.remote.parts import Names, refuse, remote_decoder, remote_layers

_NAMES = Names(embed="wte", final="ln_f", before=("ln_1", "ln_2"))
_FUSED = ("c_attn[q]", "c_attn[k]", "c_attn[v]", "c_proj")


def read_jais(facts: Facts) -> Reading:
    """Jais: GPT-2 with ALiBi and, where `activation_function` is `swiglu`, a gated MLP; the head is tied.

    Source: inceptionai/jais-13b, configuration_jais.py (`position_embedding_type` "learned"), modeling_jais.py
    `JAISMLP`; vLLM 0.33, models/jais.py
    """
    refuse(facts, "add_cross_attention")
    hidden, positions = facts.positive("hidden_size", "n_embd"), facts.positive("n_positions")
    heads = equal_heads(facts, hidden, "num_attention_heads", "n_head")
    attention = projections(heads, hidden, prefix="attn", names=_FUSED, qkv_bias=True, out_bias=True)
    width = facts.positive("n_inner", default=4 * hidden)
    half = plain_half(hidden, width, up="mlp.c_fc", down="mlp.c_proj")
    if facts.text("activation_function", default="gelu") == "swiglu":
        half = Half(gated_mlp(hidden, width, names=("c_fc2", "c_fc", "c_proj"), bias=True), activations=3 * width)
    kind = facts.text("position_embedding_type", default="learned")
    if kind not in ("alibi", "learned"):
        raise facts.wrong("position_embedding_type", kind, "`alibi` or `learned`")
    count = facts.layer_count("num_hidden_layers", "n_layer")
    softmax: EagerSoftmax = "alibi" if kind == "alibi" else "model-dtype"
    layers = remote_layers(
        hidden, [full(heads)] * count, attention, [half] * count, names=_NAMES, norm_bias=True, eager_softmax=softmax
    )
    reading = remote_decoder(
        facts,
        layers,
        hidden,
        names=_NAMES,
        language_model="LMHeadModel",
        norm_bias=True,
        tied_default=True,
        positions=("n_positions",),
    )
    learnt = table("wpe", positions, hidden, split=False) if kind == "learned" else ()
    return replace(reading, embeddings=(*reading.embeddings, *learnt))


def read_codeshell(facts: Facts) -> Reading:
    """CodeShell 7B: GPT-2's layer with grouped heads and rotary positions; the head is tied.

    Source: WisdomShell/CodeShell-7B, configuration_codeshell.py, modeling_codeshell.py `CodeShellAttention`
    """
    hidden = facts.positive("hidden_size", "n_embd")
    heads = equal_heads(facts, hidden, "num_attention_heads", "n_head")
    if facts.flag("group_query_attention"):
        groups = facts.positive("num_query_groups")
        require_divisor(facts, "num_query_groups", groups, "n_head", heads.num_heads)
        heads = replace(heads, num_kv_heads=groups)
    kind, width = facts.text("position_embedding_type"), facts.positive("n_inner", default=4 * hidden)
    if kind not in ("rope", "learned_absolute"):
        raise facts.wrong("position_embedding_type", kind, "`rope` or `learned_absolute`")
    attention = projections(heads, hidden, prefix="attn", names=_FUSED, qkv_bias=True, out_bias=True)
    half = plain_half(hidden, width, up="mlp.c_fc", down="mlp.c_proj")
    count = facts.layer_count("num_hidden_layers", "n_layer")
    layers = remote_layers(hidden, [full(heads)] * count, attention, [half] * count, names=_NAMES, norm_bias=True)
    reading = remote_decoder(
        facts, layers, hidden, names=_NAMES, norm_bias=True, tied_default=True, positions=("n_positions",)
    )
    learnt = table("wpe", facts.positive("n_positions"), hidden, split=False) if kind == "learned_absolute" else ()
    return replace(reading, embeddings=(*reading.embeddings, *learnt))
