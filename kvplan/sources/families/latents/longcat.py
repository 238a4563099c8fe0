"""LongCat-Flash: layers of two latent attentions and two dense MLPs, with routed experts across both.

Source: transformers 5.23, models/longcat_flash/. Checkpoints also hold a layer for multi-token prediction, which the
class does not load.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.draft import joining, named_draft, num_draft_layers
from kvplan.sources.families.bricks.latent import (
    LatentHeads,
    correction,
    latent_attention,
    latent_mixer,
    read_latent,
)
from kvplan.sources.families.bricks.parts import Reading, experts, gated_mlp, norm, replicated, table
from kvplan.sources.families.decoders.llama import decoder

_DRAFT_NORMS = ("input_layernorm", "post_attention_layernorm", "enorm", "hnorm")


def read_longcat_flash(facts: Facts) -> Reading:
    """LongCat-Flash: one layer has two mixers; `num_hidden_layers`, where stated, counts these.

    Source: transformers 5.23, models/longcat_flash/modeling_longcat_flash.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("ffn_hidden_size")
    num_layers = facts.layer_count("num_hidden_layers") // 2 if facts.has("num_hidden_layers") else None
    num_layers = num_layers or facts.layer_count("num_layers")
    heads = read_latent(facts)
    if heads.query_rank is None:
        raise facts.wrong("q_lora_rank", None, "a number from 1")
    if facts.has("qk_head_dim") and facts.positive("qk_head_dim") != heads.key:
        raise facts.wrong("qk_head_dim", facts.positive("qk_head_dim"), f"{heads.key}, as its two parts")
    bias, mixer = facts.flag("attention_bias"), latent_mixer(heads)
    halves = tuple(
        weight
        for i in (0, 1)
        for weight in (
            *latent_attention(heads, hidden, bias=bias, prefix=f"self_attn.{i}"),
            *gated_mlp(hidden, width, prefix=f"mlps.{i}"),
            *norm(f"input_layernorm.{i}", hidden),
            *norm(f"post_attention_layernorm.{i}", hidden),
        )
    )
    routed, expert_activations = _experts(facts, hidden)
    layer = Layer(mixers=(mixer, mixer), weights=(*halves, *routed), mlp_activations=max(3 * width, expert_activations))
    return _with_draft(facts, decoder(facts, [layer] * num_layers, hidden), heads, width)


def _with_draft(facts: Facts, reading: Reading, heads: LatentHeads, width: int) -> Reading:
    """One dense layer with one mixer, and a copy of the token table; published configs do not say how many.

    Source: vLLM 0.33, models/longcat_flash_mtp.py, which takes one
    """
    hidden = reading.hidden_size
    weights = (
        *latent_attention(heads, hidden, bias=facts.flag("attention_bias")),
        *gated_mlp(hidden, width, prefix="transformer_layer.mlp"),
        *joining("eh_proj", hidden, linear=True),
        *(w for name in _DRAFT_NORMS for w in norm(name, hidden)),
    )
    layer = Layer(mixers=(latent_mixer(heads),), weights=weights, mlp_activations=3 * width)
    shared = (*norm("norm", hidden), *table("embed_tokens", reading.vocab_size, hidden))
    return named_draft(reading, [layer] * num_draft_layers(facts, unstated=1), shared=shared)


def _experts(facts: Facts, hidden: int) -> tuple[tuple[Weight, ...], int]:
    """(weights, activations) of the routed part: some experts compute nothing and hand their input on.

    The class holds gates for these all the same, which no token passes through.

    Source: transformers 5.23, models/longcat_flash/modeling_longcat_flash.py `LongcatFlashExperts`
    """
    num_experts, idle = facts.positive("n_routed_experts"), facts.integer("zero_expert_num")
    active, width = facts.positive("moe_topk"), facts.positive("expert_ffn_hidden_size")
    if active > num_experts + idle:
        raise facts.wrong("moe_topk", active, f"at most the number of experts, {num_experts + idle}")
    at_work = min(active, num_experts)
    expert = gated_mlp(hidden, width, prefix="mlp.experts")
    unused = experts(expert[:2], num_experts=idle, active=0) if idle else ()
    router = replicated(
        "mlp.router.classifier", num_experts + idle, hidden, "router", bias=facts.flag("router_bias", default=False)
    )
    weights = (
        *router,
        replace(correction(num_experts + idle, name="mlp.router.e_score_correction_bias"), fixed_bits=None),
        *experts(expert, num_experts=num_experts, active=at_work),
        *(replace(weight, name=f"{weight.name}[unused]", idle=True) for weight in unused),
    )
    return weights, 3 * at_work * width
