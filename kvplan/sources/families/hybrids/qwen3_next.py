"""Qwen3-Next and Qwen3.5: three layers of gated delta net to one of gated full attention; experts or a dense MLP.

Source: transformers 5.23, models/{qwen3_next,qwen3_5,qwen3_5_moe}/. Checkpoints also hold layers for multi-token
prediction, `mtp.*`, which the class does not load.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.delta import DeltaHeads, delta_half
from kvplan.sources.families.bricks.draft import num_draft_layers, qwen_draft
from kvplan.sources.families.bricks.hybrid import by_type, interval_types
from kvplan.sources.families.bricks.mixers import full, read_heads, require_divisor
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    column,
    experts,
    gated_mlp,
    norm,
    paired,
    projections,
    reads_tied,
    replicated,
)
from kvplan.sources.families.decoders.llama import decoder, head_norms, read_experts
from kvplan.sources.families.towers.qwen_vl import qwen3_vl_tower

Fused = tuple[str, str, str, str]
"""The names of the projections that make q, k and v; the gate z; β; the decay a."""
_QWEN3_NEXT: Fused = ("in_proj_qkvz", "in_proj_qkvz", "in_proj_ba", "in_proj_ba")
_NUM_DRAFTS = "mtp_num_hidden_layers"
QWEN3_5: Fused = ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a")


def read_qwen3_next(facts: Facts) -> Reading:
    """Qwen3-Next: every fourth layer is full where the config does not list them; dense MLPs only where it names them.

    Published configs do not say that their checkpoints hold a layer for multi-token prediction; vLLM takes one.

    Source: transformers 5.23, models/qwen3_next/modeling_qwen3_next.py; vLLM 0.33, models/qwen3_next_mtp.py
    """
    sparse = sparse_layers(facts, facts.layer_count("num_hidden_layers"))
    return _read(facts, sparse, fused=_QWEN3_NEXT, num_drafts=num_draft_layers(facts, unstated=1))


def read_qwen3_5_text(facts: Facts) -> Reading:
    """Qwen3.5, text only: Qwen3-Next's layers with a dense MLP.

    Source: transformers 5.23, models/qwen3_5/modeling_qwen3_5.py
    """
    sparse = [False] * facts.layer_count("num_hidden_layers")
    return _read(facts, sparse, fused=QWEN3_5, num_drafts=num_draft_layers(facts, _NUM_DRAFTS))


def read_qwen3_5_moe_text(facts: Facts) -> Reading:
    """Qwen3.5, text only, with experts: every layer routes.

    Source: transformers 5.23, models/qwen3_5_moe/modeling_qwen3_5_moe.py
    """
    sparse = [True] * facts.layer_count("num_hidden_layers")
    return _read(facts, sparse, fused=QWEN3_5, num_drafts=num_draft_layers(facts, _NUM_DRAFTS))


def read_qwen3_5(facts: Facts) -> Reading:
    """Qwen3.5, dense or with experts, and its vision tower, which a `…ForCausalLM` leaves out.

    Source: transformers 5.23, models/qwen3_5/modeling_qwen3_5.py `Qwen3_5ForConditionalGeneration`
    """
    text = language_model(facts)
    if (facts.architecture() or "").endswith("ForCausalLM"):
        tied = reads_tied(facts.part("text_config"))
        return multimodal(facts, text, tied=tied, language_model="ForCausalLM")
    return multimodal(facts, text, qwen3_vl_tower(facts.part("vision_config")))


def _read(facts: Facts, sparse: list[bool], *, fused: Fused, num_drafts: int) -> Reading:
    """`sparse` says which layers route, `fused` which of the delta net's projections are one tensor."""
    hidden = facts.positive("hidden_size")
    mixing = {"full_attention": gated_attention(facts, hidden), "linear_attention": delta_net(facts, hidden, fused)}
    types = facts.strings("layer_types", length=len(sparse)) or interval_types(facts, len(sparse))
    feeding = {is_sparse: _feeding(facts, hidden, is_sparse) for is_sparse in sorted(set(sparse))}
    norms = (*norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))
    layers = paired(by_type(mixing, types), [feeding[is_sparse] for is_sparse in sparse], norms)
    reading = decoder(facts, layers, hidden)
    return qwen_draft(reading, paired([mixing["full_attention"]], [feeding[sparse[-1]]], norms)[0], num_drafts)


def _feeding(facts: Facts, hidden: int, is_sparse: bool) -> Half:
    mlp, width = (shared_moe if is_sparse else dense_mlp)(facts, hidden)
    return Half(mlp, activations=3 * width)


def gated_attention(facts: Facts, hidden: int) -> Half:
    """Grouped heads, each with a norm and, in q_proj beside its query, a gate of its output."""
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden)
    bias = facts.flag("attention_bias", default=False)
    width = heads.num_heads * heads.head_dim
    gate = column("self_attn.q_proj[gate]", width, hidden, "attention", units=heads.num_heads, bias=bias)
    names = ("q_proj[q]", "k_proj", "v_proj", "o_proj")
    attention = projections(heads, hidden, names=names, qkv_bias=bias, out_bias=bias)
    return Half(weights=(*attention, *gate, *head_norms(heads.head_dim)), mixers=(full(heads),))


def delta_net(facts: Facts, hidden: int, fused: Fused) -> Half:
    """A gated delta net: projections for q, k, v and the gate z, and for β and the decay of each head."""
    heads = DeltaHeads(
        num_heads=facts.positive("linear_num_value_heads"),
        num_key_heads=facts.positive("linear_num_key_heads"),
        key_dim=facts.positive("linear_key_head_dim"),
        value_dim=facts.positive("linear_value_head_dim"),
        columns=facts.positive("linear_conv_kernel_dim"),
    )
    require_divisor(facts, "linear_num_key_heads", heads.num_key_heads, "linear_num_value_heads", heads.num_heads)
    qkv, gate, beta, decay = fused
    return delta_half(
        heads,
        hidden,
        qkv=(f"{qkv}[q]", f"{qkv}[k]", f"{qkv}[v]"),
        gate=f"{gate}[z]",
        beta=f"{beta}[b]",
        decay=f"{decay}[a]",
    )


def sparse_layers(facts: Facts, num_layers: int) -> list[bool]:
    """Which layers route: every `decoder_sparse_step`-th but `mlp_only_layers`; none where there are no experts."""
    facts.refuse_null("decoder_sparse_step")
    dense = set(facts.integers("mlp_only_layers"))
    step = facts.positive("decoder_sparse_step", default=1)
    routed = facts.integer("num_experts") > 0
    return [routed and i not in dense and (i + 1) % step == 0 for i in range(num_layers)]


def dense_mlp(facts: Facts, hidden: int) -> tuple[tuple[Weight, ...], int]:
    """(weights, width) of a dense layer's MLP."""
    width = facts.positive("intermediate_size")
    return gated_mlp(hidden, width), width


def shared_moe(facts: Facts, hidden: int) -> tuple[tuple[Weight, ...], int]:
    """(weights, width that a token uses) of routed experts and a shared one, which a gate of its own weighs."""
    num_experts, active = read_experts(facts, "num_experts")
    width, shared_width = facts.positive("moe_intermediate_size"), facts.integer("shared_expert_intermediate_size")
    expert = gated_mlp(hidden, width, prefix="mlp.experts")
    shared = gated_mlp(hidden, shared_width, prefix="mlp.shared_expert") if shared_width else ()
    weights = (
        *replicated("mlp.gate", num_experts, hidden, "router"),
        *experts(expert, num_experts=num_experts, active=active),
        *shared,
        *replicated("mlp.shared_expert_gate", 1, hidden, "router"),
    )
    return weights, active * width + shared_width
