"""Gemma with SigLIP beside gemma3: paligemma, shieldgemma2, and pi0, which acts.

Source: transformers 5.23, models/{paligemma,shieldgemma2,pi0}/.
"""

from dataclasses import replace

from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal, tied_anywhere, weights_of
from kvplan.sources.families.bricks.parts import Reading, class_suffix, replicated, table, unknown_class
from kvplan.sources.families.table import reader_of
from kvplan.sources.families.towers.siglip import projector
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


def read_pi0(facts: Facts) -> Reading:
    """π0: PaliGemma, whose cache a smaller Gemma reads that draws a robot's next moves; the latter as weights.

    Source: transformers 5.23, models/pi0/modeling_pi0.py `PI0ForConditionalGeneration`
    """
    suffix = class_suffix(facts)
    if suffix not in (None, "ForConditionalGeneration", "Model"):
        raise unknown_class(facts)
    if not facts.has("vlm_config"):
        raise facts.missing("vlm_config")
    inner, acting = facts.part("vlm_config"), facts.part("dit_config")
    vlm, small = reader_of(inner.model_type)(inner), reader_of(acting.model_type)(acting)
    hidden, action, state = small.hidden_size, facts.positive("max_action_dim"), facts.positive("max_state_dim")
    linears = (("action_in_proj", action), ("state_proj", state), ("action_time_mlp_in", 2 * hidden))
    ends = (
        *(w for name, seen in linears for w in replicated(f"embed_action_time.{name}", hidden, seen, "mlp", bias=True)),
        *replicated("embed_action_time.action_time_mlp_out", hidden, hidden, "mlp", bias=True),
        *replicated("action_out_proj", action, hidden, "mlp", bias=True),
    )
    drawing = (
        *table("dit.embed_tokens", vlm.vocab_size, hidden),
        *(replace(w, name=f"dit.{w.name}") for w in weights_of(small)),
    )
    return replace(vlm, embeddings=(*vlm.embeddings, *drawing, *(ends if suffix != "Model" else ())))
