"""Llama 4: chunked attention with a full layer in between, routed experts beside a shared one, a vision tower.

Source: transformers 5.23, models/llama4/.
"""

from collections.abc import Sequence

from kvplan.core.mixers import ChunkedAttention, Mixer
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.mixers import Heads, full, named_mixers, read_heads
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    class_suffix,
    experts,
    gated_mlp,
    norm,
    paired,
    projections,
    reads_tied,
    replicated,
)
from kvplan.sources.families.decoders.llama import decoder, read_experts
from kvplan.sources.families.towers.llama4_vision import projector, vision_tower


def read_llama4_text(facts: Facts) -> Reading:
    """The text model: layers with rotary positions attend within a chunk, every fourth one to all tokens.

    Source: transformers 5.23, models/llama4/modeling_llama4.py `Llama4TextModel`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden)
    bias = facts.flag("attention_bias")
    weights = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    mixers = _mixers(facts, heads, num_layers)
    mixing = {mixer: Half(weights, (mixer,)) for mixer in set(mixers)}
    norms = (*norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))
    layers = paired(
        [mixing[mixer] for mixer in mixers], _feeding(facts, hidden, num_layers), norms, eager_softmax="model-dtype"
    )
    return decoder(facts, layers, hidden)


def read_llama4(facts: Facts) -> Reading:
    """Llama 4 with its vision tower; `Llama4ForCausalLM` is the text model of the same config alone.

    Source: transformers 5.23, models/llama4/modeling_llama4.py `Llama4ForConditionalGeneration`
    """
    if not facts.has("text_config"):
        # Files of the first weeks write the text model's keys at the top, where the class does not look.
        raise facts.missing("text_config")
    text = language_model(facts)
    tied = reads_tied(facts.part("text_config"))
    if class_suffix(facts) == "ForCausalLM":
        return multimodal(facts, text, tied=tied, language_model="ForCausalLM")
    vision = facts.part("vision_config")
    return multimodal(facts, text, vision_tower(vision), projector(vision, text.hidden_size), tied=tied)


def _mixers(facts: Facts, heads: Heads, num_layers: int) -> Sequence[Mixer]:
    """By `layer_types`, else by `no_rope_layers`: 1 has rotary positions and is chunked, 0 is full.

    Source: transformers 5.23, models/llama4/configuration_llama4.py
    """
    types = facts.strings("layer_types", length=num_layers)
    if types is None:
        rotary = facts.integers("no_rope_layers")
        every = facts.positive("no_rope_layer_interval")
        if rotary and len(rotary) < num_layers:
            raise facts.wrong("no_rope_layers", f"a list of {len(rotary)}", f"a list of {num_layers}, one each layer")
        rotary = rotary or tuple(int((i + 1) % every != 0) for i in range(num_layers))
        types = tuple("chunked_attention" if i else "full_attention" for i in rotary[:num_layers])
    mixers: dict[str, Mixer] = {"full_attention": full(heads)}
    if "chunked_attention" in types:
        mixers["chunked_attention"] = ChunkedAttention(
            num_heads=heads.num_heads,
            num_kv_heads=heads.num_kv_heads,
            key_dim=heads.head_dim,
            value_dim=heads.head_dim,
            window=facts.positive("attention_chunk_size"),
        )
    return named_mixers(mixers, types)


def _feeding(facts: Facts, hidden: int, num_layers: int) -> list[Half]:
    """Layers of `moe_layers` route, or every `interleave_moe_layer_step`-th; the others have a wider MLP."""
    num_experts, active = read_experts(facts, "num_local_experts")
    width, dense_width = facts.positive("intermediate_size"), facts.positive("intermediate_size_mlp")
    expert = gated_mlp(hidden, width, prefix="feed_forward.experts")
    sparse = Half(
        (
            *replicated("feed_forward.router", num_experts, hidden, "router"),
            *experts(expert, num_experts=num_experts, active=active),
            *gated_mlp(hidden, width, prefix="feed_forward.shared_expert"),
        ),
        activations=3 * width * (active + 1),
    )
    dense = Half(gated_mlp(hidden, dense_width, prefix="feed_forward"), activations=3 * dense_width)
    if facts.has("moe_layers"):
        routes = set(facts.integers("moe_layers"))
    else:
        step = facts.positive("interleave_moe_layer_step")
        routes = set(range(step - 1, num_layers, step))
    return [sparse if i in routes else dense for i in range(num_layers)]
