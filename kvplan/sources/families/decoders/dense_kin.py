"""Dense decoders close to Llama and Gemma: seed_oss, smollm3, ministral3, nanochat, vaultgemma.

Source: transformers 5.23, models/{seed_oss,smollm3,ministral3,nanochat,vaultgemma}/.
"""

from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import dense_half, half_decoder, plain_half
from kvplan.sources.families.bricks.mixers import (
    alternating,
    layer_mixers,
    read_heads,
    read_window,
    require_divisor,
    typed_mixers,
)
from kvplan.sources.families.bricks.parts import Reading, projections
from kvplan.sources.families.decoders.llama import decoder


def read_seed_oss(facts: Facts) -> Reading:
    """Seed-OSS: Llama whose query, key and value projections have biases of their own switch.

    Source: transformers 5.23, models/seed_oss/modeling_seed_oss.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = read_heads(facts, hidden)
    biases = facts.flag("attention_bias"), facts.flag("attention_out_bias")
    attention = projections(heads, hidden, qkv_bias=biases[0], out_bias=biases[1])
    mixers = layer_mixers(facts, heads, num_layers, window=read_window(facts))
    half = dense_half(hidden, facts.positive("intermediate_size"), bias=facts.flag("mlp_bias"))
    return decoder(facts, half_decoder(hidden, mixers, attention, [half] * num_layers), hidden)


def read_smollm3(facts: Facts) -> Reading:
    """SmolLM3: Llama; with windows on, the layers without rotary positions slide.

    Source: transformers 5.23, models/smollm3/configuration_smollm3.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = read_heads(facts, hidden)
    bias = facts.flag("attention_bias")
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    half = dense_half(hidden, facts.positive("intermediate_size"), bias=facts.flag("mlp_bias"))
    types = facts.strings("layer_types", length=num_layers) or _smollm3_types(facts, num_layers)
    mixers = typed_mixers(heads, read_window(facts), types)
    return decoder(facts, half_decoder(hidden, mixers, attention, [half] * num_layers), hidden)


def read_ministral3(facts: Facts) -> Reading:
    """Ministral 3: Mistral with a head_dim of its own, and a window only where the config states one.

    Source: transformers 5.23, models/ministral3/modeling_ministral3.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden)
    mixers = layer_mixers(facts, heads, num_layers, window=read_window(facts))
    half = dense_half(hidden, facts.positive("intermediate_size"))
    return decoder(facts, half_decoder(hidden, mixers, projections(heads, hidden), [half] * num_layers), hidden)


def read_nanochat(facts: Facts) -> Reading:
    """nanochat: norms that learn nothing, an ungated MLP.

    Source: transformers 5.23, models/nanochat/modeling_nanochat.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = read_heads(facts, hidden)
    bias = facts.flag("attention_bias")
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    half = plain_half(hidden, facts.positive("intermediate_size"), up="mlp.fc1", down="mlp.fc2", bias=False)
    mixers = layer_mixers(facts, heads, num_layers, window=read_window(facts))
    layers = half_decoder(hidden, mixers, attention, [half] * num_layers, norm_names=())
    return decoder(facts, layers, hidden, final_norm=())


def read_vaultgemma(facts: Facts) -> Reading:
    """VaultGemma: Gemma 2 with a norm before each half of a layer and none after.

    Source: transformers 5.23, models/vaultgemma/modeling_vaultgemma.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden)
    require_divisor(facts, "num_attention_heads", heads.num_heads, "hidden_size", hidden)
    bias = facts.flag("attention_bias")
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    half = dense_half(hidden, facts.positive("intermediate_size"))
    types = facts.strings("layer_types", length=num_layers) or alternating(num_layers, 2)
    mixers = typed_mixers(heads, read_window(facts), types)
    names = ("input_layernorm", "pre_feedforward_layernorm")
    return decoder(facts, half_decoder(hidden, mixers, attention, [half] * num_layers, norm_names=names), hidden)


def _smollm3_types(facts: Facts, num_layers: int) -> tuple[str, ...]:
    """Which layers lack rotary positions `no_rope_layers` says (0: lacks), else every `no_rope_layer_interval`-th."""
    if not facts.flag("use_sliding_window") or facts.nullable("sliding_window") is None:
        return ("full_attention",) * num_layers
    rotary = facts.integers("no_rope_layers")
    if not rotary:
        interval = facts.positive("no_rope_layer_interval")
        rotary = tuple(int((i + 1) % interval != 0) for i in range(num_layers))
    if len(rotary) < num_layers:
        raise facts.wrong("no_rope_layers", f"a list of {len(rotary)}", f"a list of {num_layers}")
    return tuple("full_attention" if rotary[i] else "sliding_attention" for i in range(num_layers))
