"""Decoders whose classes come with their repository and keep more than keys and values: yuan, rwkv5.

Source: IEITYuan/Yuan2-2B-hf and Yuan2-M32-hf, yuan_hf_model.py; RWKV/rwkv-5-world-3b, modeling_rwkv5.py.
"""

from dataclasses import replace

from kvplan.core.mixers import LinearAttention, ShortConvolution
from kvplan.core.model import Layer, Part, Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import class_family
from kvplan.sources.families.bricks.halves import dense_half
from kvplan.sources.families.bricks.mixers import Heads, full, require_divisor
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    column,
    experts,
    gated_mlp,
    norm,
    plain_mlp,
    projections,
    replicated,
    row,
)
from kvplan.sources.families.remote.parts import LLAMA, Names, refuse, remote_decoder
from kvplan.sources.families.towers.bricks import patches

_YUAN_KERNEL = 2
_RWKV = Names(embed="embeddings", final="ln_out", head="head")


def read_yuan(facts: Facts) -> Reading:
    """Yuan 2: queries and keys are made of what two convolutions over the newest tokens leave, values of the input.

    The class keeps the inputs of the last two tokens beside keys and values, from which the next token's
    convolutions start. `moe_config` makes the MLPs routed, by a router with a query, a key and a value of its own.
    Whether the head is tied has to be stated.

    Source: yuan_hf_model.py `LocalizedFiltering`, `YuanAttention`, `ParallelAttention_router`; YUAN 2.0,
    https://arxiv.org/abs/2311.15786
    """
    refuse(facts, "use_shareqk")
    facts.flag("tie_word_embeddings")
    hidden, num_heads = facts.positive("hidden_size"), facts.positive("num_attention_heads")
    inner = facts.positive("attention_projection_size", default=hidden)
    require_divisor(facts, "num_attention_heads", num_heads, "the width of attention", inner)
    heads = Heads(num_heads=num_heads, num_kv_heads=num_heads, head_dim=inner // num_heads)
    filters = (
        *patches("self_attn.lf_gate.conv1", hidden // 2, hidden, _YUAN_KERNEL, 1),
        *patches("self_attn.lf_gate.conv2", hidden, hidden // 2, _YUAN_KERNEL, 1),
        *norm("self_attn.lf_gate.output_layernorm", hidden),
    )
    attention = (*projections(heads, hidden), *(replace(weight, part="attention") for weight in filters))
    if facts.has("moe_config"):
        half = _yuan_experts(facts.nested("moe_config"), hidden)
    else:
        half = dense_half(hidden, facts.positive("intermediate_size"))
    layer = Layer(
        mixers=(full(heads), ShortConvolution(channels=hidden, columns=2)),
        weights=(*attention, *half.weights, *(w for name in LLAMA.before for w in norm(name, hidden))),
        mlp_activations=half.activations,
    )
    return remote_decoder(facts, [layer] * facts.layer_count("num_hidden_layers"), hidden)


def _yuan_experts(facts: Facts, hidden: int) -> Half:
    """Experts as wide as `ffn_hidden_size`, and the router that attends over them."""
    num_experts, active = facts.positive("moe_num_experts"), facts.positive("moe_top_k")
    width = facts.positive("ffn_hidden_size")
    if active > num_experts:
        raise facts.wrong("moe_top_k", active, f"at most the number of experts, {num_experts}")
    if not facts.flag("gated_linear_unit"):
        raise facts.wrong("gated_linear_unit", False, "true, as Yuan2-M32 has it")
    expert = gated_mlp(hidden, width, prefix="mlp.experts", names=("w1[gate]", "w1[up]", "w2"))
    router = [replicated(f"mlp.gate.{name}", num_experts, hidden, "router") for name in ("query", "key", "value")]
    weights = (
        *(weight for piece in router for weight in piece),
        *experts(expert, num_experts=num_experts, active=active),
    )
    return Half(weights, activations=3 * active * width)


def read_rwkv5(facts: Facts) -> Reading:
    """RWKV-5 "Eagle" World: one matrix of head_size² for each head in fp32, and the last token's input of each half.

    An unstated width is 3.5 · hidden, a multiple of 32. The head has weights of its own, whatever the config says of
    tying. No KV cache at all.

    Source: RWKV/rwkv-5-world-1b5, configuration_rwkv5.py, modeling_rwkv5.py `Rwkv5SelfAttention`,
    `Rwkv5FeedForward`, `Rwkv5Model.forward`; Eagle and Finch, https://arxiv.org/abs/2404.05892
    """
    hidden, count = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    inner, size = facts.positive("attention_hidden_size", default=hidden), facts.positive("head_size")
    if inner != hidden:
        raise facts.wrong("attention_hidden_size", inner, f"`hidden_size`, {hidden}")
    require_divisor(facts, "head_size", size, "hidden_size", hidden)
    width = facts.positive("intermediate_size", default=int(hidden * 3.5) // 32 * 32)
    num_heads = hidden // size
    mixer = LinearAttention(
        num_heads=num_heads,
        num_key_heads=num_heads,
        key_dim=size,
        value_dim=size,
        conv_channels=2 * hidden,
        conv_columns=1,
        recurrence="rwkv",
    )
    mixing = _rwkv_mixing(hidden, num_heads, size)
    weights = (*mixing, *_rwkv_feeding(hidden, width), *_layer_norms(hidden, "ln1", "ln2"))
    layer = Layer(mixers=(mixer,), weights=weights, mlp_activations=2 * width)
    before = replace(layer, weights=(*weights, *_layer_norms(hidden, "pre_ln")))
    family = class_family(facts, "rwkv5", "rwkv")
    layers = [before, *[layer] * (count - 1)]
    return remote_decoder(
        facts, layers, hidden, names=_RWKV, family=family, norm_bias=True, tied=False, positions=("context_length",)
    )


def _rwkv_mixing(hidden: int, num_heads: int, size: int) -> tuple[Weight, ...]:
    """Receptance, key, value and gate, a decay and a bonus for each element of a head, a norm for each head."""
    projected = ("receptance", "key", "value", "gate")
    pieces = [column(f"attention.{name}", hidden, hidden, "attention", units=num_heads) for name in projected]
    by_head = Split(0, num_heads)
    return (
        *(weight for piece in pieces for weight in piece),
        *row("attention.output", hidden, hidden, "attention", units=num_heads),
        *(
            Weight(name=f"attention.{name}", shape=(num_heads, size), part="attention", split=by_head)
            for name in ("time_decay", "time_faaaa")
        ),
        *_shifts("attention", "attention", hidden, "key", "value", "receptance", "gate"),
        *norm("attention.ln_x", hidden, bias=True),
    )


def _rwkv_feeding(hidden: int, width: int) -> tuple[Weight, ...]:
    return (
        *plain_mlp(hidden, width, up="feed_forward.key", down="feed_forward.value", bias=False),
        *replicated("feed_forward.receptance", hidden, hidden, "mlp"),
        *_shifts("feed_forward", "mlp", hidden, "key", "receptance"),
    )


def _shifts(prefix: str, part: Part, hidden: int, *names: str) -> tuple[Weight, ...]:
    """How much of the last token's input is mixed in, element by element."""
    return tuple(Weight(name=f"{prefix}.time_mix_{name}", shape=(1, 1, hidden), part=part) for name in names)


def _layer_norms(hidden: int, *names: str) -> tuple[Weight, ...]:
    return tuple(weight for name in names for weight in norm(name, hidden, bias=True))
