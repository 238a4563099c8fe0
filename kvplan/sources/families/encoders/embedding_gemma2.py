"""EmbeddingGemma 2: Gemma 4's layers looking both ways, with its towers, and one embedding out.

Source: transformers 5.23, models/embedding_gemma2/.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model
from kvplan.sources.families.bricks.kv_sharing import layer_gate, normed_attention
from kvplan.sources.families.bricks.mixers import Heads, alternating, encoder, require_divisor
from kvplan.sources.families.bricks.parts import (
    Reading,
    class_suffix,
    gated_mlp,
    norm,
    replicated,
    table,
    unknown_class,
)
from kvplan.sources.families.bricks.per_layer import layer_overrides
from kvplan.sources.families.towers.gemma4 import audio_tower, embedder, vision_tower

_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
_OVERRIDABLE = frozenset(("head_dim", "num_key_value_heads"))


def read_embedding_gemma2(facts: Facts) -> Reading:
    """EmbeddingGemma 2 with the towers that its config has.

    Source: transformers 5.23, models/embedding_gemma2/modeling_embedding_gemma2.py `EmbeddingGemma2Model`
    """
    if class_suffix(facts) not in (None, "Model"):
        raise unknown_class(facts)
    text, seen = language_model(facts), []
    if facts.has("vision_config"):
        vision = facts.part("vision_config")
        seen += [*vision_tower(vision), *embedder("embed_vision", vision.positive("hidden_size"), text.hidden_size)]
    if facts.has("audio_config"):
        audio = facts.part("audio_config")
        width = audio.positive("output_proj_dims")
        seen += [*audio_tower(audio), *embedder("embed_audio", width, text.hidden_size, part="audio")]
    return replace(text, embeddings=(*text.embeddings, *seen))


def read_embedding_gemma2_text(facts: Facts) -> Reading:
    """The text model: a signal for each layer from the token's embedding, and a projection of what comes out.

    Source: transformers 5.23, models/embedding_gemma2/modeling_embedding_gemma2.py `EmbeddingGemma2TextModel`
    """
    hidden, vocab = facts.positive("hidden_size"), facts.positive("vocab_size")
    num_layers, width = facts.layer_count("num_hidden_layers"), facts.positive("hidden_size_per_layer_input")
    all_heads = _heads(facts, num_layers)
    built = {heads: _layer(facts, heads, hidden, width) for heads in set(all_heads)}
    signal = (
        *replicated("ple.per_layer_model_projection", num_layers * width, hidden, "mlp"),
        *norm("ple.per_layer_projection_norm", width),
    )
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=[built[heads] for heads in all_heads],
        embeddings=(*table("embed_tokens", vocab, hidden), *signal),
        head=(
            *norm("norm", hidden),
            *replicated("embedding_projection", facts.positive("embedding_dim"), hidden, "head"),
        ),
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _layer(facts: Facts, heads: Heads, hidden: int, width: int) -> Layer:
    mlp_width = facts.positive("intermediate_size")
    gate = tuple(replace(weight, name=f"ple_block.{weight.name}") for weight in layer_gate(hidden, width))
    weights = (
        *normed_attention(heads, hidden, keeps=True, bias=facts.flag("attention_bias")),
        *gated_mlp(hidden, mlp_width),
        *(weight for name in _NORMS for weight in norm(name, hidden)),
        *gate,
        Weight(name="layer_scalar", shape=(1,), part="norms", buffer=True),
    )
    return Layer(mixers=(encoder(heads),), weights=weights, mlp_activations=3 * mlp_width)


def _heads(facts: Facts, num_layers: int) -> list[Heads]:
    """Each layer's heads: full layers have wider and fewer of keys and values, or what `per_layer_config` says.

    Source: transformers 5.23, models/embedding_gemma2/configuration_embedding_gemma2.py
    """
    num_heads = facts.positive("num_attention_heads")
    kv_heads, head_dim = facts.positive("num_key_value_heads"), facts.positive("head_dim")
    pattern = facts.positive("sliding_window_pattern", default=6)
    types = facts.strings("layer_types", length=num_layers) or alternating(num_layers, pattern)
    local = Heads(num_heads=num_heads, num_kv_heads=kv_heads, head_dim=head_dim)
    if facts.has("per_layer_config"):
        heads = [local] * num_layers
        for i, layer in layer_overrides(facts, num_layers, _OVERRIDABLE).items():
            own_kv = layer.positive("num_key_value_heads", default=kv_heads)
            heads[i] = replace(local, head_dim=layer.positive("head_dim", default=head_dim), num_kv_heads=own_kv)
    else:
        global_dim = facts.positive("global_head_dim", default=512)
        full = replace(local, head_dim=global_dim, num_kv_heads=facts.positive("num_global_key_value_heads", default=1))
        types = (*types[:-1], "full_attention")
        heads = [full if kind == "full_attention" else local for kind in types]
    for each in set(heads):
        require_divisor(facts, "num_key_value_heads", each.num_kv_heads, "num_attention_heads", num_heads)
    return heads
