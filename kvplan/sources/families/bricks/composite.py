"""Models made of parts: a language model under a nested config, and the towers that see or hear for it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kvplan.core.model import Layer, Weight, stack
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import Reading, causal_head, reads_tied
from kvplan.sources.families.table import reader_of


def language_model(facts: Facts, key: str = "text_config", *, model_type: str | None = None) -> Reading:
    """The language model at `key`, of whatever type that states, without an output head.

    `model_type` is what it is where neither the config nor the class says.
    """
    inner = facts.part(key, model_type=model_type)
    return reader_of(inner.model_type)(inner)


def whole_language_model(facts: Facts, key: str = "text_config", *, model_type: str | None = None) -> Reading:
    """The language model at `key` as a class of its own, head and all: what an owner holds that adds no head itself."""
    inner = facts.part(key, model_type=model_type)
    inner.bare = False
    return reader_of(inner.model_type)(inner)


def flat_text(facts: Facts, key: str = "text_config") -> Facts:
    """The facts of the language model at `key`, or at the config's own top level where it is not nested there.

    Source: transformers 5.23, models/qwen2_vl/configuration_qwen2_vl.py `Qwen2VLConfig.__post_init__`
    """
    nested = facts.part(key)
    return nested if facts.has(key) else facts.as_part(nested.model_type, nested=False)


def renamed_part(facts: Facts, key: str, names: Mapping[str, str]) -> Facts:
    """The part at `key`; a type among `names` is one that older files state for another."""
    part = facts.part(key)
    return part.as_part(names[part.model_type]) if part.model_type in names else part


def class_family(facts: Facts, *families: str) -> str:
    """Which of `families` the class of `architectures` begins with; the first where it is none of them or unstated."""
    name = (facts.architecture() or "").replace("_", "").lower()
    return next((family for family in families if name.startswith(family.replace("_", ""))), families[0])


def tied_anywhere(facts: Facts, text: Facts) -> bool:
    """Whether the model's own `tie_word_embeddings` or its text model's ties the head: older files state the latter.

    Source: transformers 5.23, models/llava/configuration_llava.py `LlavaConfig.__post_init__`
    """
    return reads_tied(facts) or reads_tied(text)


def multimodal(
    facts: Facts,
    text: Reading,
    *towers: tuple[Weight, ...],
    tied: bool | None = None,
    language_model: str = "ForConditionalGeneration",
    family: str | None = None,
) -> Reading:
    """A language model with its towers, and the output head of the class that `facts` name.

    `tied` says whether that head is the token table, where it is not `tie_word_embeddings` of `facts` that does.
    """
    head, is_tied = causal_head(
        facts,
        hidden_size=text.hidden_size,
        vocab_size=text.vocab_size,
        tied_default=None,
        language_model=language_model,
        family=family,
        tied=tied,
    )
    seen = tuple(weight for tower in towers for weight in tower)
    return replace(text, embeddings=(*text.embeddings, *seen), head=(*text.head, *head), tied_embeddings=is_tied)


def weights_of(reading: Reading) -> tuple[Weight, ...]:
    """The layers of a language model and what stands after them, for an owner that counts it as weights only."""
    return (*layer_weights(reading.layers), *reading.head)


def layer_weights(layers: Sequence[Layer]) -> tuple[Weight, ...]:
    """The weights of all layers, equal ones together, each in the part that it is."""
    distinct, order = stack(layers)
    return tuple(
        replace(
            weight,
            name=f"layers.*.{weight.name}",
            copies=order.count(i) * weight.copies,
            active_copies=None if weight.active_copies is None else order.count(i) * weight.active_copies,
        )
        for i, layer in enumerate(distinct)
        for weight in layer.weights
    )
