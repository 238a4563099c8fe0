"""Idefics that sees by SigLIP: idefics2, idefics3, smolvlm, and granite_docling, which is built like them.

Source: transformers 5.23, models/{idefics2,idefics3,smolvlm,granite_docling}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.mixers import Heads
from kvplan.sources.families.bricks.parts import Reading, gated_mlp, norm, projections, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose
from kvplan.sources.families.towers.siglip import plain_tower
from kvplan.sources.families.towers.table import tower_of, vision_part

_DEEP = (3, 7, 10)
"""Layers of Granite Docling's tower that have mergers of their own, where it does not state which."""


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


def read_granite_docling(facts: Facts) -> Reading:
    """Granite Docling: patches go a coarse way into the text model, and a fine one where a page needs it.

    A router that says which is built where `density_router_hidden_size` is stated.

    Source: transformers 5.23, models/granite_docling/modeling_granite_docling.py `GraniteDoclingModel`
    """
    text, vision = language_model(facts), facts.part("vision_config")
    seen, width = vision.positive("hidden_size"), facts.nullable("density_router_hidden_size")
    router: tuple[Weight, ...] = ()
    if width is not None:
        router = (
            *replicated("att", 1, seen, "vision", bias=True),
            *norm("norm", seen, bias=True),
            *replicated("fc1", width, seen, "vision", bias=True),
            *replicated("fc2", 1, width, "vision", bias=True),
        )
    towers = (plain_tower(vision, "vision_model"), in_tower("vision_model.connector", _ways(vision, seen)))
    return multimodal(facts, text, *towers, in_tower("density_router", router))


def _ways(facts: Facts, seen: int) -> tuple[Weight, ...]:
    """Two ways that differ in how many patches become one, with a merger for each of some of the tower's layers.

    Source: transformers 5.23, models/granite_docling/modeling_granite_docling.py `GraniteDoclingConnector`
    """
    out, factor = facts.positive("out_hidden_size"), facts.positive("scale_factor")
    deep = facts.integers("deepstack_visual_indexes") if facts.states("deepstack_visual_indexes") else _DEEP
    factors = {"coarse": factor, "fine": factor // 2} if facts.flag("use_fine_route") else {"coarse": factor}
    ways: list[Weight] = []
    for way, merged in ((name, seen * scale**2) for name, scale in factors.items()):
        merger = (
            *norm("layer_norm", merged, bias=True),
            *replicated("linear_1", out, merged, "vision", bias=True),
            *replicated("linear_2", out, out, "vision", bias=True),
        )
        ways += replicated(f"{way}.projection", out, merged, "vision")
        ways += in_tower(f"{way}.deepstack_mergers.*", merger, copies=len(deep))
    return (
        *norm("ln_in", seen, bias=True),
        *ways,
        *norm("ln_mid", out, bias=True),
        *replicated("mlp_fc2", out, out, "vision"),
        *norm("ln_out", out, bias=True),
    )


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
