"""Qwen, the first: 1.8B to 72B, and Qwen-VL.

Source: Qwen/Qwen-7B, configuration_qwen.py, modeling_qwen.py; Qwen/Qwen-VL-Chat, visual.py; vLLM 0.33, models/qwen.py.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads, full
from kvplan.sources.families.bricks.parts import Half, Reading, gated_mlp, norm, plain_mlp, projections
from kvplan.sources.families.remote.parts import Names, refuse, remote_decoder, remote_layers
from kvplan.sources.families.towers.bricks import fused_attention, in_tower, loose, patches
from kvplan.sources.families.towers.resampler import resampler

_NAMES = Names(embed="wte", final="ln_f", before=("ln_1", "ln_2"))
_QUERIES = 256


def read_qwen(facts: Facts) -> Reading:
    """Llama with biases on q, k and v alone; `intermediate_size` is the two sides of the gated MLP together.

    The first published files spell their sizes as GPT-2 does. `no_bias` false would add biases to all other matrices.
    """
    refuse(facts, "use_cache_quantization", "audio")
    hidden = facts.positive("hidden_size", "n_embd")
    heads = equal_heads(facts, hidden, "num_attention_heads", "n_head")
    if facts.positive("kv_channels", default=heads.head_dim) != heads.head_dim:
        raise facts.wrong("kv_channels", facts.positive("kv_channels"), f"hidden_size / heads, {heads.head_dim}")
    both = facts.positive("intermediate_size", "ffn_hidden_size")
    if both % 2:
        raise facts.wrong("intermediate_size", both, "an even number: the MLP's two sides together")
    width, bias = both // 2, not facts.flag("no_bias", default=True)
    names = ("c_attn[q]", "c_attn[k]", "c_attn[v]", "c_proj")
    attention = projections(heads, hidden, prefix="attn", names=names, qkv_bias=True, out_bias=bias)
    half = Half(gated_mlp(hidden, width, names=("w2", "w1", "c_proj"), bias=bias), activations=3 * width)
    count = facts.layer_count("num_hidden_layers", "n_layer")
    layers = remote_layers(hidden, [full(heads)] * count, attention, [half] * count, names=_NAMES)
    reading = remote_decoder(
        facts,
        layers,
        hidden,
        names=_NAMES,
        language_model="LMHeadModel",
        vocab=facts.positive("vocab_size", "padded_vocab_size"),
        positions=("seq_length", "n_positions", "max_position_embeddings"),
    )
    tower = _tower(facts.nested("visual")) if facts.has("visual") else ()
    return replace(reading, embeddings=(*reading.embeddings, *tower))


def _tower(facts: Facts) -> tuple[Weight, ...]:
    """Qwen-VL's: a ViT of OpenCLIP without its class token, a resampler whose positions are weights, one matrix."""
    hidden, out, patch = facts.positive("width"), facts.positive("output_dim"), facts.positive("patch_size")
    width = int(hidden * facts.number("mlp_ratio"))
    layer = (
        *fused_attention(facts, hidden, heads_key="heads"),
        *plain_mlp(hidden, width, up="mlp.c_fc", down="mlp.c_proj"),
        *norm("ln_1", hidden, bias=True),
        *norm("ln_2", hidden, bias=True),
    )
    queries = facts.positive("n_queries", default=_QUERIES)
    weights = (
        *patches("conv1", hidden, 3, patch, patch, bias=False),
        loose("positional_embedding", _QUERIES, hidden),
        *norm("ln_pre", hidden, bias=True),
        *in_tower("transformer.resblocks.*", layer, copies=facts.layer_count("layers")),
        *resampler("attn_pool", queries, out, hidden, kept_positions=queries),
        *norm("ln_post", out, bias=True),
        loose("proj", out, out),
    )
    return in_tower("visual", weights)
