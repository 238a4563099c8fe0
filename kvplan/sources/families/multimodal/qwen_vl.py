"""Qwen that sees: qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_vl_moe, and their text models.

Source: transformers 5.23, models/{qwen2_vl,qwen2_5_vl,qwen3_vl,qwen3_vl_moe}/.
"""

from collections.abc import Callable

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import flat_text, multimodal, tied_anywhere
from kvplan.sources.families.bricks.mixers import Heads, full, read_heads, require_divisor
from kvplan.sources.families.bricks.parts import Reading, experts, gated_mlp, norm, projections, replicated
from kvplan.sources.families.decoders.llama import decoder, decoder_layers, head_norms, qwen_mixers, read_experts
from kvplan.sources.families.table import reader_of
from kvplan.sources.families.towers.qwen_vl import qwen2_5_vl_tower, qwen2_vl_tower, qwen3_vl_tower


def read_qwen2_vl(facts: Facts) -> Reading:
    """Qwen2-VL; published files write the text model's keys at their top level.

    Source: transformers 5.23, models/qwen2_vl/modeling_qwen2_vl.py `Qwen2VLForConditionalGeneration`
    """
    return _seeing(facts, qwen2_vl_tower)


def read_qwen2_5_vl(facts: Facts) -> Reading:
    """Qwen2.5-VL; published files write the text model's keys at their top level.

    Source: transformers 5.23, models/qwen2_5_vl/modeling_qwen2_5_vl.py `Qwen2_5_VLForConditionalGeneration`
    """
    return _seeing(facts, qwen2_5_vl_tower)


def read_qwen3_vl(facts: Facts) -> Reading:
    """Qwen3-VL, dense or with experts: what its file says of tying is the whole model's alone.

    Source: transformers 5.23, models/qwen3_vl/modeling_qwen3_vl.py `Qwen3VLForConditionalGeneration`
    """
    text = facts.part("text_config")
    return multimodal(facts, reader_of(text.model_type)(text), qwen3_vl_tower(facts.part("vision_config")))


def _seeing(facts: Facts, tower: Callable[[Facts], tuple[Weight, ...]]) -> Reading:
    text = flat_text(facts)
    reading = reader_of(text.model_type)(text)
    return multimodal(facts, reading, tower(facts.part("vision_config")), tied=tied_anywhere(facts, text))


def read_qwen2_vl_text(facts: Facts) -> Reading:
    """The text model of Qwen2-VL and Qwen2.5-VL: Qwen2 whose heads always share the hidden size.

    Source: transformers 5.23, models/qwen2_vl/modeling_qwen2_vl.py `Qwen2VLAttention`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    stated = read_heads(facts, hidden)
    require_divisor(facts, "num_attention_heads", stated.num_heads, "hidden_size", hidden)
    dim = hidden // stated.num_heads
    heads = Heads(num_heads=stated.num_heads, num_kv_heads=stated.num_kv_heads, head_dim=dim)
    attention = projections(heads, hidden, qkv_bias=True)
    layers = decoder_layers(qwen_mixers(facts, heads), attention, gated_mlp(hidden, width), hidden, width)
    return decoder(facts, layers, hidden)


def read_qwen3_vl_text(facts: Facts) -> Reading:
    """The text model of Qwen3-VL: Qwen3 without windows.

    Source: transformers 5.23, models/qwen3_vl/modeling_qwen3_vl.py `Qwen3VLTextModel`
    """
    facts.refuse_null("head_dim")
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads, attention = _attention(facts, hidden)
    mixers = [full(heads)] * facts.layer_count("num_hidden_layers")
    return decoder(facts, decoder_layers(list(mixers), attention, gated_mlp(hidden, width), hidden, width), hidden)


def read_qwen3_vl_moe_text(facts: Facts) -> Reading:
    """The text model of Qwen3-VL with experts: every `decoder_sparse_step`-th layer routes, but `mlp_only_layers`.

    Source: transformers 5.23, models/qwen3_vl_moe/modeling_qwen3_vl_moe.py `Qwen3VLMoeTextDecoderLayer`
    """
    hidden = facts.positive("hidden_size")
    heads, attention = _attention(facts, hidden)
    num_layers = facts.layer_count("num_hidden_layers")
    dense, step = set(facts.integers("mlp_only_layers")), facts.positive("decoder_sparse_step")
    sparse = [i not in dense and (i + 1) % step == 0 for i in range(num_layers)]
    norms = (*norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))
    built = {}
    for routes in set(sparse):
        mlp, width = (_experts if routes else _dense)(facts, hidden)
        weights = (*attention, *mlp, *norms)
        built[routes] = Layer(mixers=(full(heads),), weights=weights, mlp_activations=3 * width)
    return decoder(facts, [built[routes] for routes in sparse], hidden)


def _attention(facts: Facts, hidden: int) -> tuple[Heads, tuple[Weight, ...]]:
    heads, bias = read_heads(facts, hidden), facts.flag("attention_bias")
    return heads, (*projections(heads, hidden, qkv_bias=bias, out_bias=bias), *head_norms(heads.head_dim))


def _dense(facts: Facts, hidden: int) -> tuple[tuple[Weight, ...], int]:
    width = facts.positive("intermediate_size")
    return gated_mlp(hidden, width), width


def _experts(facts: Facts, hidden: int) -> tuple[tuple[Weight, ...], int]:
    """(weights, width that a token uses) of a router and its experts."""
    num_experts, active = read_experts(facts, "num_experts", "num_local_experts")
    width = facts.positive("moe_intermediate_size")
    routed = experts(gated_mlp(hidden, width, prefix="mlp.experts"), num_experts=num_experts, active=active)
    return (*replicated("mlp.gate", num_experts, hidden, "router"), *routed), active * width
