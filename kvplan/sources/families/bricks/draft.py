"""Bricks of layers for multi-token prediction, which checkpoints store and transformers' classes do not load.

Such a layer joins the state that the model ends with to the next token's embedding, each after a norm, and runs one
layer over what comes of it. Checkpoints either number them after the model's own layers, as DeepSeek does, or name
them apart, as Qwen does.

Source: DeepSeek-V3, §2.2, https://arxiv.org/abs/2412.19437; vLLM 0.33, models/{deepseek_mtp,qwen3_next_mtp}.py
"""

from collections.abc import Sequence
from dataclasses import replace

from kvplan.core.model import Draft, Layer, Weight
from kvplan.sources.facts import MAX_LAYERS, Facts
from kvplan.sources.families.bricks.parts import Reading, column, norm, replicated, table

NUM_LAYERS = "num_nextn_predict_layers"
"""What most configs call the number of such layers."""


def num_draft_layers(facts: Facts, key: str = NUM_LAYERS, *, unstated: int = 0) -> int:
    """How many such layers the config says that the checkpoint stores; `unstated` where it does not say."""
    count = facts.integer(key) if facts.has(key) else unstated
    if count > MAX_LAYERS:
        raise facts.wrong(key, count, f"a number from 0 to {MAX_LAYERS}")
    return count


def joining(name: str, hidden: int, *, linear: bool = False) -> tuple[Weight, ...]:
    """The matrix that joins token and state, which most checkpoints leave plain whatever their scheme."""
    return tuple(replace(weight, linear=linear) for weight in replicated(name, hidden, 2 * hidden, "mlp"))


def numbered_draft(
    facts: Facts, reading: Reading, layer: Layer, *, copies: bool, last_norm: str = "shared_head.norm"
) -> Reading:
    """The reading with draft layers that go on with the numbers of its own, each built like `layer`.

    With `copies`, each has token table and output head once more, which engines share with the model's.

    Source: deepseek-ai/DeepSeek-V3, README_WEIGHTS.md
    """
    hidden, vocab = reading.hidden_size, reading.vocab_size
    tables = (*table("embed_tokens", vocab, hidden), *column("shared_head.head", vocab, hidden, "head"))
    weights = (
        *layer.weights,
        *norm("enorm", hidden),
        *norm("hnorm", hidden),
        *joining("eh_proj", hidden),
        *norm(last_norm, hidden),
        *(tables if copies else ()),
    )
    count = num_draft_layers(facts)
    return _with(reading, [replace(layer, weights=weights)] * count, first_layer=len(reading.layers))


def named_draft(
    reading: Reading, layers: Sequence[Layer], *, shared: tuple[Weight, ...] = (), path: str = "mtp.layers"
) -> Reading:
    """The reading with draft layers under names of their own, `mtp.layers.0`, and what all share under `mtp`."""
    named = [replace(layer, weights=_named(f"{path}.{i}", layer.weights)) for i, layer in enumerate(layers)]
    return _with(reading, named, shared=_named("mtp", shared))


def qwen_draft(reading: Reading, layer: Layer, count: int) -> Reading:
    """The reading with `mtp.*` as Qwen names it: one matrix and three norms before and after all draft layers.

    Source: vLLM 0.33, models/qwen3_next_mtp.py `Qwen3NextMultiTokenPredictor`
    """
    hidden = reading.hidden_size
    names = ("pre_fc_norm_hidden", "pre_fc_norm_embedding", "norm")
    shared = (*joining("fc", hidden, linear=True), *(weight for name in names for weight in norm(name, hidden)))
    return named_draft(reading, [layer] * count, shared=shared)


def _named(prefix: str, weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    return tuple(replace(weight, name=f"{prefix}.{weight.name}") for weight in weights)


def _with(
    reading: Reading, layers: Sequence[Layer], *, shared: tuple[Weight, ...] = (), first_layer: int | None = None
) -> Reading:
    if not layers:
        return reading
    return replace(reading, draft=Draft(layers=tuple(layers), shared=shared, first_layer=first_layer))
