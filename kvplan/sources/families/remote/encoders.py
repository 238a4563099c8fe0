"""Encoders whose classes come with their repository: `new`, which GTE 1.5 and its multilingual editions are."""

from kvplan.core.errors import UnsupportedError
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import Reading
from kvplan.sources.families.encoders.rotary_encoders import read_gte


def read_new(facts: Facts) -> Reading:
    """GTE 1.5: the class that transformers took over as `gte`; with LayerNorm and rotary positions only.

    Source: Alibaba-NLP/new-impl, modeling.py and configuration.py
    """
    for key, known in (("position_embedding_type", "rope"), ("layer_norm_type", "layer_norm")):
        if facts.text(key) != known:
            message = f"`{key}` is not `{known}`, the only one that kvplan knows for model type `new`"
            raise UnsupportedError(message, hint="its tensors are others; `--assume full` gives bounds")
    facts.integer("type_vocab_size")
    return read_gte(facts.as_part("gte", nested=facts.bare, bare=facts.bare), family="new")
