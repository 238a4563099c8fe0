"""EAGLE's heads: one or a few of Llama's layers that draft from the states of the model that they were trained for.

Such a checkpoint names its class beside a plain `model_type`, and often leaves out the tables that it shares with the
model. To add one: a function here and a line in `families.table.READERS_OF_CLASSES`.

Source: SGLang 0.5.23, sglang/srt/models/llama_eagle.py, models/llama_eagle3.py; EAGLE-3, https://arxiv.org/abs/2503.01840
"""

from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import full, read_heads
from kvplan.sources.families.bricks.parts import (
    Reading,
    column,
    gated_mlp,
    norm,
    projections,
    reads_tied,
    replicated,
    table,
)

JOINED_STATES = 3
"""States of the model that EAGLE-3 takes in where its config names no layers: of a low, a middle and a high one."""


def read_eagle(facts: Facts) -> Reading:
    """EAGLE and EAGLE-2: token and state, joined by one matrix with a bias, through Llama's layers; no norm at the end.

    The first layer has no norm before its attention. Source: SGLang 0.5.23, models/llama_eagle.py
    """
    hidden = facts.positive("hidden_size")
    vocab = facts.positive("vocab_size")
    plain = _layer(facts, hidden, hidden, ("input_layernorm", "post_attention_layernorm"))
    first = replace(plain, weights=tuple(weight for weight in plain.weights if "input_layernorm" not in weight.name))
    joint = _plain(replicated("fc", hidden, 2 * hidden, "mlp", bias=True))
    return _reading(facts, hidden, first, plain, joint, (), _stated(facts, "hot_vocab_size", vocab))


def read_eagle3(facts: Facts) -> Reading:
    """EAGLE-3: several of the model's states, joined by one matrix, and the token beside them in the first attention.

        fc                   states · the model's width → hidden
        first q, k, v        2 · hidden → heads              a norm for the token and one for the state
        output head          `draft_vocab_size` tokens; the model's own where it is null

    Source: SGLang 0.5.23, models/llama_eagle3.py
    """
    hidden = facts.positive("hidden_size")
    vocab = facts.positive("vocab_size")
    of_model = _stated(facts, "target_hidden_size", hidden)
    states = _num_states(facts)
    names = ("input_layernorm", "hidden_norm", "post_attention_layernorm")
    first, later = (_layer(facts, hidden, width, names) for width in (2 * hidden, hidden))
    joint = (
        *_plain(replicated("fc", hidden, states * of_model, "mlp", bias=facts.is_on("bias"))),
        *(norm("input_norm", states * of_model) if _norms_before(facts) else ()),
        *(weight for i in range(states if _norms_each(facts) else 0) for weight in norm(f"fc_norm.{i}", of_model)),
    )
    rows = _stated(facts, "draft_vocab_size", vocab)
    return _reading(facts, hidden, first, later, joint, norm("norm", hidden), rows)


def _stated(facts: Facts, key: str, otherwise: int) -> int:
    return facts.positive(key) if facts.has(key) else otherwise


def _plain(weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    """No scheme quantises the matrix that joins: it is no layer of the engine's own sort."""
    return tuple(replace(weight, linear=False) for weight in weights)


def _num_states(facts: Facts) -> int:
    if facts.has("num_aux_hidden_states"):
        return facts.positive("num_aux_hidden_states")
    inner = facts.nested("eagle_config") if facts.has("eagle_config") else None
    if inner is not None and inner.has("use_aux_hidden_state"):
        # Engines differ in what they make of it.
        inner.flag("use_aux_hidden_state")
    if inner is not None and inner.has("eagle_aux_hidden_state_layer_ids"):
        return len(inner.integers("eagle_aux_hidden_state_layer_ids")) or JOINED_STATES
    return JOINED_STATES


def _norms_before(facts: Facts) -> bool:
    inner = facts.nested("eagle_config") if facts.has("eagle_config") else facts
    return (inner if inner.has("norm_before_fc") else facts).is_on("norm_before_fc")


def _norms_each(facts: Facts) -> bool:
    return facts.is_on("fc_norm") or facts.is_on("use_aux_norm")


def _layer(facts: Facts, hidden: int, attends_to: int, norms: tuple[str, ...]) -> Layer:
    """One of Llama's layers whose query, key and value read `attends_to` elements."""
    heads, width = read_heads(facts, hidden), facts.positive("intermediate_size")
    query, key, value, out = projections(heads, hidden)
    wide = tuple(replace(weight, shape=(weight.shape[0], attends_to)) for weight in (query, key, value))
    weights = (*wide, out, *gated_mlp(hidden, width), *(weight for name in norms for weight in norm(name, hidden)))
    return Layer(mixers=(full(heads),), weights=weights, mlp_activations=3 * width)


def _reading(
    facts: Facts,
    hidden: int,
    first: Layer,
    later: Layer,
    joint: tuple[Weight, ...],
    last_norm: tuple[Weight, ...],
    head_rows: int,
) -> Reading:
    vocab, tied = facts.positive("vocab_size"), reads_tied(facts)
    head = () if tied else column("lm_head", head_rows, hidden, "head")
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=[first, *[later] * (facts.layer_count("num_hidden_layers") - 1)],
        embeddings=(*table("embed_tokens", vocab, hidden), *joint),
        head=(*last_norm, *head),
        tied_embeddings=tied,
        max_seq_len=facts.positions(),
    )
