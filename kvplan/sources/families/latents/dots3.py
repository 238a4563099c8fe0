"""Dots 3 Note: latent attention with an indexer in some layers, in a window in the others; towers for images, sound.

Source: transformers 5.23, models/dots3_note/. Checkpoints also hold layers for multi-token prediction, which the class
does not load.
"""

from dataclasses import replace

from kvplan.core.mixers import Mixer
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import flat_text, multimodal
from kvplan.sources.families.bricks.latent import (
    LatentHeads,
    Routed,
    indexer,
    latent_attention,
    latent_mixer,
    read_latent,
    routed_mlp,
    sparse_layers,
)
from kvplan.sources.families.bricks.mixers import named_mixers
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    class_suffix,
    column,
    gated_mlp,
    norm,
    paired,
    reads_tied,
)
from kvplan.sources.families.bricks.per_layer import layer_overrides, own_or
from kvplan.sources.families.decoders.llama import decoder, read_experts
from kvplan.sources.families.table import reader_of
from kvplan.sources.families.towers.dots3 import audio_tower, vision_tower

INDEXED, SLIDING, FULL = "indexed_attention", "sliding_attention", "full_attention"
_OLD_NAMES = {"deepseek_sparse_attention": INDEXED}
_WINDOW = 512
_OVERRIDABLE = frozenset(
    (
        "num_attention_heads",
        "num_key_value_heads",
        "q_lora_rank",
        "kv_lora_rank",
        "head_dim",
        "qk_nope_head_dim",
        "qk_rope_head_dim",
        "v_head_dim",
    )
)


def read_dots3_note_text(facts: Facts) -> Reading:
    """The text model: two geometries of latent attention, gated; DeepSeek's experts beside a shared one.

    Source: transformers 5.23, models/dots3_note/modeling_dots3_note.py `Dots3NoteTextModel`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    types = _types(facts, facts.layer_count("num_hidden_layers"))
    kinds = list(zip(types, _heads(facts, types), strict=True))
    mixing = {kind: _mixing(facts, hidden, *kind) for kind in set(kinds)}
    routed = _routed(facts)
    sparse = Half(routed_mlp(routed, hidden), activations=routed.activations)
    dense = Half(gated_mlp(hidden, width), activations=3 * width)
    norms = (*norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))
    feeding = [sparse if routes else dense for routes in _routing(facts, len(types))]
    return decoder(facts, paired([mixing[kind] for kind in kinds], feeding, norms), hidden)


def read_dots3_note(facts: Facts) -> Reading:
    """Dots 3 Note with its towers, its text model's facts at the top or nested; `…ForCausalLM` is that alone.

    Source: transformers 5.23, models/dots3_note/configuration_dots3_note.py `Dots3NoteConfig`
    """
    inner = flat_text(facts)
    text = reader_of(inner.model_type)(inner)
    if class_suffix(facts) == "ForCausalLM":
        return multimodal(facts, text, tied=reads_tied(inner), language_model="ForCausalLM")
    vision, audio = facts.part("vision_config"), facts.part("audio_config")
    for tower in (vision, audio):
        if (outer := tower.positive("adapter_out_dim")) != text.hidden_size:
            raise tower.wrong("adapter_out_dim", outer, f"the text model's `hidden_size`, {text.hidden_size}")
    return multimodal(facts, text, vision_tower(vision), audio_tower(audio))


def _types(facts: Facts, num_layers: int) -> tuple[str, ...]:
    """`layer_types`, by default two indexed layers and then one in four; `use_dsa` says what a full layer is.

    Source: transformers 5.23, models/dots3_note/configuration_dots3_note.py `Dots3NoteTextConfig.__post_init__`
    """
    decided = facts.has("use_dsa") or not facts.has("per_layer_config")
    indexes = facts.flag("use_dsa", default=True)
    slides = facts.flag("use_sliding_window", default=True)
    types = facts.strings("layer_types", length=num_layers) or tuple(
        SLIDING if slides and i >= 2 and i % 4 != 1 else INDEXED if indexes else FULL for i in range(num_layers)
    )
    types = tuple(_OLD_NAMES.get(name, name) for name in types)
    if not decided:
        return types
    old, new = (FULL, INDEXED) if indexes else (INDEXED, FULL)
    return tuple(new if name == old else name for name in types)


def _heads(facts: Facts, types: tuple[str, ...]) -> list[LatentHeads]:
    """Each layer's sizes: sliding ones have their own, under `swa_…` or in `per_layer_config`."""
    common = read_latent(facts)
    if facts.has("per_layer_config"):
        heads = [common] * len(types)
        for i, layer in layer_overrides(facts, len(types), _OVERRIDABLE).items():
            heads[i] = _own(layer, common)
    else:
        sliding = _sliding(facts)
        heads = [sliding if name == SLIDING else common for name in types]
    if any(one.query_rank is None for one in heads):
        raise facts.wrong("q_lora_rank", None, "a number from 1")
    return heads


def _own(layer: Facts, common: LatentHeads) -> LatentHeads:
    return LatentHeads(
        num_heads=own_or(layer, "num_attention_heads", common.num_heads),
        query_rank=own_or(layer, "q_lora_rank", common.query_rank or 0),
        latent=own_or(layer, "kv_lora_rank", common.latent),
        nope=own_or(layer, "qk_nope_head_dim", common.nope),
        rope=own_or(layer, "qk_rope_head_dim", common.rope),
        value=own_or(layer, "v_head_dim", common.value),
    )


def _sliding(facts: Facts) -> LatentHeads:
    """The sliding layers' sizes, with the defaults of their own that the class has."""
    nope = facts.positive("swa_qk_nope_head_dim", default=192)
    return LatentHeads(
        num_heads=facts.positive("swa_num_attention_heads", default=64),
        query_rank=facts.positive("swa_q_lora_rank", default=1024),
        latent=facts.positive("swa_kv_lora_rank", default=1024),
        nope=nope,
        rope=facts.positive("swa_qk_rope_head_dim", default=facts.positive("swa_head_dim", default=256) - nope),
        value=facts.positive("swa_v_head_dim", default=128),
    )


def _mixing(facts: Facts, hidden: int, kind: str, heads: LatentHeads) -> Half:
    gate = column("self_attn.g_proj", heads.num_heads, hidden, "attention", units=heads.num_heads)
    rotary = norm("self_attn.k_rope_only_layernorm", heads.rope)
    weights = (*latent_attention(heads, hidden, bias=facts.flag("attention_bias")), *rotary, *gate)
    mixers: dict[str, Mixer] = {FULL: latent_mixer(heads)}
    if kind == SLIDING:
        window = facts.nullable("sliding_window") or facts.positive("sliding_window_size", default=_WINDOW)
        mixers[SLIDING] = latent_mixer(heads, window=window)
    if kind == INDEXED:
        dim, index = indexer(facts, hidden, heads.query_rank or 0)
        weights = (*weights, *index)
        # The class rotates in fp32 here, which makes the key fp32.
        mixers[INDEXED] = replace(latent_mixer(heads, index_dim=dim), transformers_index_bits=32)
    return Half(weights, tuple(named_mixers(mixers, (kind,))))


def _routing(facts: Facts, num_layers: int) -> list[bool]:
    """`mlp_layer_types`, else by older keys; `moe_layer_freq` may be a list of ones and zeros."""
    if facts.has("mlp_layer_types"):
        return sparse_layers(facts, num_layers, dense=0)
    dense = facts.integer("first_k_dense_replace", default=1)
    if not facts.has("moe_layer_freq"):
        return [i >= dense for i in range(num_layers)]
    every = facts.one_or_more("moe_layer_freq")
    if len(every) == 1 and every[0] > 0:
        return [i >= dense and i % every[0] == 0 for i in range(num_layers)]
    if len(every) < num_layers:
        raise facts.wrong("moe_layer_freq", every, f"a number from 1, or a list of {num_layers}, one for each layer")
    return [i >= dense and bool(every[i]) for i in range(num_layers)]


def _routed(facts: Facts) -> Routed:
    num_experts, active = read_experts(facts, "n_routed_experts")
    old = "moe_shared_expert_intermediate_size"
    shared = facts.positive(old if facts.has(old) else "shared_experts_intermediate_size")
    return Routed(
        num_experts=num_experts,
        active=active,
        width=facts.positive("moe_intermediate_size"),
        shared_width=shared * facts.positive("n_shared_experts"),
    )
