"""Step 3.5 and 3.7: Laguna's attention, experts after a few dense layers, and the latter's vision tower.

Source: transformers 5.23, models/step3p7/. Checkpoints also hold layers for multi-token prediction, which the class
does not load.
"""

from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.mixers import Mixer
from kvplan.core.model import Weight
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.halves import dense_half, half_decoder
from kvplan.sources.families.bricks.hybrid import by_type
from kvplan.sources.families.bricks.latent import correction
from kvplan.sources.families.bricks.mixers import Heads, equal_heads, read_heads, read_window, typed_mixers
from kvplan.sources.families.bricks.moe import read_experts_of, routed_half
from kvplan.sources.families.bricks.parts import Reading, norm, plain_mlp, projections, replicated
from kvplan.sources.families.decoders.llama import decoder
from kvplan.sources.families.decoders.sigmoid_moe import gated_projections
from kvplan.sources.families.towers.bricks import grid, in_tower, loose, patches


def read_step3p5(facts: Facts) -> Reading:
    """Step 3.5: sliding layers may have more query heads than full ones; a gate of each head's output.

    Source: transformers 5.23, models/step3p7/modeling_step3p7.py `Step3p7TextModel`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads", "head_dim")
    types = _listed(facts, "layer_types", num_layers) or ("full_attention",) * num_layers
    heads, window, attention_bias = read_heads(facts, hidden), read_window(facts), facts.flag("attention_bias")
    mixers = []
    weights_of: dict[Mixer, tuple[Weight, ...]] = {}
    for own, name in zip(_heads_of_layers(facts, heads, types), types, strict=True):
        mixers.append(typed_mixers(own, window, (name,))[0])
        weights_of[mixers[-1]] = gated_projections(own, hidden, gate_dims=1, bias=attention_bias)
    routed = read_experts_of(facts, "n_routed_experts", shared_width=facts.positive("share_expert_dim"))
    bias = facts.flag("mlp_bias")
    corrected = replace(correction(routed.num_experts), fixed_bits=None)
    sparse = routed_half(routed, hidden, shared_bias=bias, beside=(corrected,))
    dense = dense_half(hidden, facts.positive("intermediate_size"), bias=bias)
    feeding = by_type({"sparse": sparse, "dense": dense}, _mlp_types(facts, num_layers), key="mlp_layer_types")
    return decoder(facts, half_decoder(hidden, mixers, weights_of, feeding), hidden)


def read_step3p7(facts: Facts) -> Reading:
    """Step 3.7: Step 3.5 with a vision tower whose patches two convolutions make a sixteenth of.

    Source: transformers 5.23, models/step3p7/modeling_step3p7.py `Step3p7ForConditionalGeneration`
    """
    if facts.has("hidden_size") and not facts.has("text_config"):
        raise facts.missing("text_config")
    text, vision = language_model(facts), facts.part("vision_config")
    seen = 4 * vision.positive("hidden_size", "width")
    bias = facts.flag("projector_bias")
    projector = replicated("multi_modal_projector", text.hidden_size, seen, "vision", bias=bias)
    return multimodal(facts, text, step3p5_tower(vision), projector)


def step3p5_tower(facts: Facts, name: str = "vision_model") -> tuple[Weight, ...]:
    """The vision tower: scaled residuals, and after its layers two convolutions that halve sides and double channels.

    Published configs spell some sizes as their own code does: `width`, `layers`, `heads`.

    Source: transformers 5.23, models/step3p7/modeling_step3p7.py `Step3p7VisionModel`
    """
    hidden, patch = facts.positive("hidden_size", "width"), facts.positive("patch_size")
    heads = equal_heads(facts, hidden, "num_attention_heads", "heads")
    width = int(hidden * facts.number("mlp_ratio", default=8960 / 1536))
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    layer = (
        *projections(heads, hidden, names=names, qkv_bias=True, out_bias=True),
        *plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2"),
        *norm("layernorm_before", hidden, bias=True),
        *norm("layernorm_after", hidden, bias=True),
        loose("lambda_1", hidden),
        loose("lambda_2", hidden),
    )
    weights = (
        *patches("embeddings.patch_embedding", hidden, facts.positive("num_channels"), patch, patch, bias=False),
        loose("embeddings.position_embedding.weight", grid(facts, facts.positive("image_size"), patch), hidden),
        *norm("pre_layernorm", hidden, bias=True),
        *in_tower("layers.*", layer, copies=facts.layer_count("num_hidden_layers", "layers")),
        *patches("downsampler1", 2 * hidden, hidden, 3, 3),
        *patches("downsampler2", 4 * hidden, 2 * hidden, 3, 3),
    )
    return in_tower(name, weights)


def _listed(facts: Facts, key: str, num_layers: int) -> tuple[str, ...] | None:
    """The list at `key`; published ones go on with the layers of multi-token prediction."""
    names = facts.strings(key)
    predicted = facts.integer("num_nextn_predict_layers", default=0)
    if names is not None and len(names) not in (num_layers, num_layers + predicted):
        raise facts.wrong(key, f"a list of {len(names)}", f"a list of {num_layers}, one for each layer")
    return names and names[:num_layers]


def _mlp_types(facts: Facts, num_layers: int) -> tuple[str, ...]:
    """`mlp_layer_types`, else sparse where the older `moe_layers_enum` says so, else sparse after three dense ones."""
    names = _listed(facts, "mlp_layer_types", num_layers)
    if names is not None:
        return names
    routing = set(range(3, num_layers))
    if facts.is_text("moe_layers_enum"):
        stated = facts.text("moe_layers_enum")
        items = [item.strip() for item in stated.split(",") if item.strip()]
        if not all(item.isdecimal() for item in items):
            raise facts.wrong("moe_layers_enum", stated, "whole numbers with commas between")
        routing = {int(item) for item in items}
    elif facts.has("moe_layers_enum"):
        routing = set(facts.integers("moe_layers_enum"))
    return tuple("sparse" if i in routing else "dense" for i in range(num_layers))


def _heads_of_layers(facts: Facts, heads: Heads, types: tuple[str, ...]) -> list[Heads]:
    """Sliding layers have query heads of their own number; a saved config lists those that differ one by one."""
    if facts.has("per_layer_config"):
        listed = facts.nested("per_layer_config")
        counts = [_listed_heads(listed, str(i), heads.num_heads) for i in range(len(types))]
    else:
        sliding = facts.nullable("num_sliding_attention_heads")
        if sliding is None:
            older = facts.nested("attention_other_setting")
            sliding = older.positive("num_attention_heads") if older.has("num_attention_heads") else heads.num_heads
        counts = [sliding if name == "sliding_attention" else heads.num_heads for name in types]
    for count in set(counts):
        if count < 1 or count % heads.num_kv_heads:
            raise facts.wrong("num_sliding_attention_heads", count, f"a multiple of {heads.num_kv_heads} KV heads")
    return [replace(heads, num_heads=count) for count in counts]


def _listed_heads(listed: Facts, key: str, num_heads: int) -> int:
    layer = listed.nested(key)
    if other := layer.stated_keys() - {"num_attention_heads"}:
        raise UnsupportedError(
            f"`per_layer_config.{key}` sets `{printable(min(other))}`, which kvplan does not know for this family",
            hint="known here: num_attention_heads",
        )
    return layer.positive("num_attention_heads") if layer.has("num_attention_heads") else num_heads
