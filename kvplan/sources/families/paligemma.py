"""Gemma with SigLIP beside gemma3: paligemma and shieldgemma2.

Source: transformers 5.23, models/{paligemma,shieldgemma2}/.
"""

from kvplan.sources.facts import Facts
from kvplan.sources.families.composite import language_model, multimodal, tied_anywhere
from kvplan.sources.families.parts import Reading, replicated
from kvplan.sources.families.siglip import projector
from kvplan.sources.families.towers.table import tower_of, vision_part


def read_paligemma(facts: Facts) -> Reading:
    """PaliGemma 1 and 2: one linear, as wide as the model's own `projection_dim`, takes patches into the text model.

    Source: transformers 5.23, models/paligemma/modeling_paligemma.py `PaliGemmaMultiModalProjector`
    """
    vision = vision_part(facts)
    width, seen = facts.positive("projection_dim"), vision.positive("hidden_size")
    linear = replicated("multi_modal_projector.linear", width, seen, "vision", bias=True)
    return multimodal(facts, language_model(facts), tower_of(vision), linear)


def read_shieldgemma2(facts: Facts) -> Reading:
    """ShieldGemma 2: Gemma 3 whole, of whose logits its class reads two.

    Source: transformers 5.23, models/shieldgemma2/modeling_shieldgemma2.py
    """
    text, vision = language_model(facts), vision_part(facts)
    is_gemma3 = (facts.architecture() or "").startswith("Gemma3")
    return multimodal(
        facts,
        text,
        tower_of(vision),
        projector(vision, text.hidden_size),
        tied=tied_anywhere(facts, facts.part("text_config")),
        family="gemma3" if is_gemma3 else "shieldgemma2",
        language_model="ForConditionalGeneration" if is_gemma3 else "ForImageClassification",
    )
