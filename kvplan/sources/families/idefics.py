"""Idefics that sees by SigLIP: idefics2, idefics3, smolvlm.

Source: transformers 5.23, models/{idefics2,idefics3,smolvlm}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.composite import language_model, multimodal
from kvplan.sources.families.mixers import Heads
from kvplan.sources.families.parts import Reading, gated_mlp, norm, projections, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose
from kvplan.sources.families.towers.table import tower_of, vision_part


def read_idefics3(facts: Facts) -> Reading:
    """Idefics3 and SmolVLM: `scale_factor`² patches side by side, through one linear.

    Source: transformers 5.23, models/idefics3/modeling_idefics3.py `Idefics3Connector`
    """
    text, vision = language_model(facts), vision_part(facts)
    merged = vision.positive("hidden_size") * facts.positive("scale_factor") ** 2
    connector = replicated("connector.modality_projection.proj", text.hidden_size, merged, "vision")
    return multimodal(facts, text, tower_of(vision, "vision_model"), connector)


def read_idefics2(facts: Facts) -> Reading:
    """Idefics2: a few learnt queries attend over the patches of an image (Perceiver).

    Source: transformers 5.23, models/idefics2/modeling_idefics2.py `Idefics2Connector`
    """
    text, vision = language_model(facts), vision_part(facts)
    hidden, seen = text.hidden_size, vision.positive("hidden_size")
    width = facts.part("text_config").positive("intermediate_size")
    mlp = (
        *replicated("gate_proj", width, seen, "vision"),
        *replicated("up_proj", width, seen, "vision"),
        *replicated("down_proj", hidden, width, "vision"),
    )
    connector = (
        *in_tower("connector.modality_projection", mlp),
        *in_tower("connector.perceiver_resampler", _perceiver(facts.part("perceiver_config"), hidden)),
    )
    return multimodal(facts, text, tower_of(vision, "vision_model"), connector)


def _perceiver(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """The resampler, as wide as the text model whatever its own config says."""
    heads = Heads(
        num_heads=facts.positive("resampler_n_heads"),
        num_kv_heads=facts.positive("num_key_value_heads"),
        head_dim=facts.positive("resampler_head_dim"),
    )
    layer = (
        *projections(heads, hidden),
        *gated_mlp(hidden, 4 * hidden),
        *norm("input_latents_norm", hidden),
        *norm("input_context_norm", hidden),
        *norm("post_attention_layernorm", hidden),
    )
    return (
        loose("latents", facts.positive("resampler_n_latents"), hidden),
        *in_tower("layers.*", layer, copies=facts.layer_count("resampler_depth")),
        *norm("norm", hidden),
    )
