"""Kimi K2.5: DeepSeek V3's text model under a vision tower.

Source: transformers 5.23, models/kimi_k25/.
"""

from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import multimodal, renamed_part
from kvplan.sources.families.bricks.parts import Reading
from kvplan.sources.families.table import reader_of
from kvplan.sources.families.towers.moonvit import moonvit_tower, patch_merger


def read_kimi_k25(facts: Facts) -> Reading:
    """Kimi K2.5 and K2.6: published files name the text model `kimi_k2`, which is DeepSeek V3's class.

    Source: transformers 5.23, models/kimi_k25/configuration_kimi_k25.py
    """
    inner = renamed_part(facts, "text_config", {"kimi_k2": "deepseek_v3"})
    text, vision = reader_of(inner.model_type)(inner), facts.part("vision_config")
    return multimodal(facts, text, moonvit_tower(vision), patch_merger(vision, facts, text.hidden_size))
