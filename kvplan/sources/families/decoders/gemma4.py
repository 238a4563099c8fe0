"""Gemma 4: two head geometries, layers that share keys and values, experts beside a dense part; vision and audio.

Source: transformers 5.23, models/{gemma4,gemma4_unified,gemma4_assistant,diffusion_gemma}/.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, layer_weights, multimodal
from kvplan.sources.families.bricks.kv_sharing import (
    layer_embeddings,
    layer_gate,
    normed_attention,
    read_by,
    sharing_layers,
)
from kvplan.sources.families.bricks.mixers import Heads, alternating, require_divisor, typed_mixers, windowed
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    causal_head,
    class_suffix,
    experts,
    gated_mlp,
    norm,
    paired,
    reads_tied,
    replicated,
)
from kvplan.sources.families.bricks.per_layer import layer_overrides, own_or
from kvplan.sources.families.decoders.llama import decoder
from kvplan.sources.families.towers.gemma4 import (
    audio_tower,
    embedder,
    unified_audio,
    unified_vision,
    vision_tower,
)

_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
_OVERRIDABLE = frozenset(("head_dim", "num_key_value_heads"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attending:
    """What tells layers' attention apart."""

    heads: Heads
    slides: bool
    shares: bool


def read_gemma4_text(facts: Facts) -> Reading:
    """The text model: five sliding layers to one full, whose heads are wider and may have their key as value too.

    Source: transformers 5.23, models/gemma4/modeling_gemma4.py `Gemma4TextModel`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    width = facts.nullable("hidden_size_per_layer_input") or 0
    extra = _experts(facts, hidden) if facts.flag("enable_moe_block") else None
    types = _types(facts, num_layers)
    gate = layer_gate(hidden, width) if width else ()
    reading = _text(facts, types, sharing_layers(facts, types), extra=extra, gate=gate)
    if not width:
        return reading
    return replace(reading, embeddings=(*reading.embeddings, *layer_embeddings(facts, hidden, num_layers, width)))


def read_gemma4_unified_text(facts: Facts) -> Reading:
    """The text model of the unified kind: no experts, no embeddings layer by layer.

    Source: transformers 5.23, models/gemma4_unified/modeling_gemma4_unified.py `Gemma4UnifiedTextModel`
    """
    types = _types(facts, facts.layer_count("num_hidden_layers"))
    return _text(facts, types, sharing_layers(facts, types))


def read_gemma4(facts: Facts) -> Reading:
    """Gemma 4 with the towers that its config has; `Gemma4ForCausalLM` is the text model alone.

    Source: transformers 5.23, models/gemma4/modeling_gemma4.py `Gemma4ForConditionalGeneration`
    """
    text, towers = language_model(facts), []
    if class_suffix(facts) == "ForCausalLM":
        return multimodal(facts, text, tied=reads_tied(facts.part("text_config")), language_model="ForCausalLM")
    if facts.has("vision_config"):
        vision = facts.part("vision_config")
        towers += [vision_tower(vision), embedder("embed_vision", vision.positive("hidden_size"), text.hidden_size)]
    if facts.has("audio_config"):
        audio = facts.part("audio_config")
        width = audio.positive("output_proj_dims")
        towers += [audio_tower(audio), embedder("embed_audio", width, text.hidden_size, part="audio")]
    return multimodal(facts, text, *towers)


def read_gemma4_unified(facts: Facts) -> Reading:
    """Gemma 4 without towers: patches and frames of sound go straight into the text model.

    Source: transformers 5.23, models/gemma4_unified/modeling_gemma4_unified.py
    """
    text, seen = language_model(facts), []
    if facts.has("vision_config"):
        seen.append(unified_vision(facts.part("vision_config"), text.hidden_size))
    if facts.has("audio_config"):
        seen.append(unified_audio(facts.part("audio_config"), text.hidden_size))
    return multimodal(facts, text, *seen)


def read_diffusion_gemma_text(facts: Facts) -> Reading:
    """The text model of DiffusionGemma: Gemma 4's with experts in each layer, where full layers' keys are values too.

    Source: transformers 5.23, models/diffusion_gemma/modeling_diffusion_gemma.py `DiffusionGemmaEncoderTextModel`
    """
    types, hidden = _types(facts, facts.layer_count("num_hidden_layers")), facts.positive("hidden_size")
    return _text(facts, types, [False] * len(types), extra=_experts(facts, hidden))


def read_diffusion_gemma(facts: Facts) -> Reading:
    """DiffusionGemma: the same layers read a prompt into the cache and fill a canvas from it, block by block.

    A small MLP takes in what was on the canvas before; each way through has scalars and biases of its own.

    Source: transformers 5.23, models/diffusion_gemma/modeling_diffusion_gemma.py `DiffusionGemmaModel`
    """
    if not facts.flag("tie_word_embeddings"):
        raise UnsupportedError(
            "DiffusionGemma whose encoder and decoder have weights of their own is not supported",
            hint="pass `--set tie_word_embeddings=true`",
        )
    text, inner, vision = language_model(facts), facts.part("text_config"), facts.part("vision_config")
    hidden, width = text.hidden_size, inner.positive("intermediate_size")
    own = (w for w in layer_weights(text.layers) if w.name.endswith((".bias", ".layer_scalar")))
    conditioning = (
        *norm("self_conditioning.pre_norm", hidden),
        *gated_mlp(hidden, width, prefix="self_conditioning"),
        *(replace(weight, name=f"decoder.{weight.name}") for weight in own),
    )
    towers = (vision_tower(vision), embedder("embed_vision", vision.positive("hidden_size"), hidden))
    return multimodal(facts, text, *towers, conditioning, language_model="ForBlockDiffusion")


def read_gemma4_assistant(facts: Facts) -> Reading:
    """A draft model: a text model all of whose layers read the keys and values of the model that it drafts for.

    Source: transformers 5.23, models/gemma4_assistant/modeling_gemma4_assistant.py
    """
    inner = facts.part("text_config")
    num_layers = inner.layer_count("num_hidden_layers")
    text = _text(inner, _types(inner, num_layers), [True] * num_layers)
    hidden, outer = text.hidden_size, facts.positive("backbone_hidden_size")
    head, tied = causal_head(facts, hidden_size=hidden, vocab_size=text.vocab_size)
    ends = replicated("post_projection", outer, hidden, "head")
    if facts.flag("use_ordered_embeddings"):
        ordering = Weight(
            name="masked_embedding.token_ordering", shape=(text.vocab_size,), part="head", buffer=True, fixed_bits=64
        )
        centroids = replicated("masked_embedding.centroids", facts.positive("num_centroids"), hidden, "head")
        ends = (*ends, *centroids, ordering)
    return replace(
        text,
        embeddings=(*text.embeddings, *replicated("pre_projection", hidden, 2 * outer, "mlp")),
        head=(*text.head, *head, *ends),
        tied_embeddings=tied,
    )


def _types(facts: Facts, num_layers: int) -> tuple[str, ...]:
    """`layer_types`, by default five sliding layers to one full; the last layer is full whatever they say."""
    types = facts.strings("layer_types", length=num_layers) or alternating(num_layers, 6)
    return (*types[:-1], "full_attention")


def _text(
    facts: Facts,
    types: tuple[str, ...],
    sharing: Sequence[bool],
    *,
    extra: Half | None = None,
    gate: tuple[Weight, ...] = (),
) -> Reading:
    """The decoder; `extra` are the experts beside each layer's dense part, `gate` what takes the layer's embedding."""
    hidden, extra = facts.positive("hidden_size"), extra or Half(())
    window = facts.positive("sliding_window")
    if facts.text("use_bidirectional_attention", default=None) == "all":
        window = window // 2 + 1
    attending = [
        _Attending(heads=heads, slides=kind == "sliding_attention", shares=shares)
        for kind, heads, shares in zip(types, _heads(facts, types), sharing, strict=True)
    ]
    typed_mixers(attending[0].heads, window, types)
    mixing = {key: _mixing(facts, key, hidden, window) for key in set(attending)}
    width = facts.positive("intermediate_size")
    wide = 2 * width if _flag(facts, "use_double_wide_mlp", absent=False) else width
    feeding = {
        shares: Half((*gated_mlp(hidden, w), *extra.weights), activations=3 * w + extra.activations)
        for shares, w in ((False, width), (True, wide))
    }
    scalar = Weight(name="layer_scalar", shape=(1,), part="norms", buffer=True)
    norms = tuple(weight for name in _NORMS for weight in norm(name, hidden))
    layers = paired([mixing[key] for key in attending], [feeding[key] for key in sharing], (*norms, *gate, scalar))
    return decoder(facts, layers, hidden)


def _mixing(facts: Facts, layer: _Attending, hidden: int, window: int) -> Half:
    """One kind of attention; where keys are values too, full layers have no projection for these."""
    keeper = windowed(layer.heads, window if layer.slides else None)
    has_values = layer.slides or not _flag(facts, "attention_k_eq_v", absent=True)
    bias = facts.flag("attention_bias")
    weights = normed_attention(layer.heads, hidden, keeps=not layer.shares, has_values=has_values, bias=bias)
    return Half(weights, (read_by(keeper) if layer.shares else keeper,))


def _heads(facts: Facts, types: tuple[str, ...]) -> list[Heads]:
    """Each layer's heads: full layers have `global_head_dim` (512 where unstated), and may have fewer KV heads.

    `per_layer_config`, which transformers writes when it saves, says it layer by layer instead.

    Source: transformers 5.23, models/gemma4/configuration_gemma4.py `Gemma4TextConfig.__post_init__`
    """
    facts.refuse_null("num_key_value_heads", "head_dim")
    num_heads, kv_heads = facts.positive("num_attention_heads"), facts.positive("num_key_value_heads")
    local = Heads(num_heads=num_heads, num_kv_heads=kv_heads, head_dim=facts.positive("head_dim"))
    if facts.has("per_layer_config"):
        return _stated_heads(facts, local, len(types))
    has_fewer = _flag(facts, "attention_k_eq_v", absent=True)
    global_kv = facts.integer("num_global_key_value_heads", default=None) if has_fewer else None
    full = replace(local, head_dim=facts.positive("global_head_dim", default=512), num_kv_heads=global_kv or kv_heads)
    require_divisor(facts, "num_key_value_heads", kv_heads, "num_attention_heads", num_heads)
    require_divisor(facts, "num_global_key_value_heads", full.num_kv_heads, "num_attention_heads", num_heads)
    return [local if kind == "sliding_attention" else full for kind in types]


def _stated_heads(facts: Facts, common: Heads, num_layers: int) -> list[Heads]:
    heads = [common] * num_layers
    for i, layer in layer_overrides(facts, num_layers, _OVERRIDABLE).items():
        heads[i] = replace(
            common,
            head_dim=own_or(layer, "head_dim", common.head_dim),
            num_kv_heads=own_or(layer, "num_key_value_heads", common.num_kv_heads),
        )
        require_divisor(layer, "num_key_value_heads", heads[i].num_kv_heads, "num_attention_heads", common.num_heads)
    return heads


def _flag(facts: Facts, key: str, *, absent: bool) -> bool:
    """A flag that not every class of the family has; a class without it is as one that has it `absent`.

    Source: transformers 5.23, models/diffusion_gemma/configuration_diffusion_gemma.py
    `DiffusionGemmaTextConfig.__post_init__`
    """
    return facts.flag(key) if facts.knows(key) else absent


def _experts(facts: Facts, hidden: int) -> Half:
    """Routed experts beside the dense part, each half with norms of its own; the router scales what it reads.

    Source: transformers 5.23, models/gemma4/modeling_gemma4.py `Gemma4TextRouter`
    """
    num_experts = facts.positive("num_experts")
    active = facts.positive("top_k_experts")
    if active > num_experts:
        raise facts.wrong("top_k_experts", active, f"at most the number of experts, {num_experts}")
    width = facts.positive("moe_intermediate_size", "expert_intermediate_size")
    weights = (
        *replicated("router.proj", num_experts, hidden, "router"),
        Weight(name="router.scale", shape=(hidden,), part="router"),
        Weight(name="router.per_expert_scale", shape=(num_experts,), part="router"),
        *experts(gated_mlp(hidden, width, prefix="experts"), num_experts=num_experts, active=active),
        *norm("post_feedforward_layernorm_1", hidden),
        *norm("post_feedforward_layernorm_2", hidden),
        *norm("pre_feedforward_layernorm_2", hidden),
    )
    return Half(weights, activations=3 * active * width)
