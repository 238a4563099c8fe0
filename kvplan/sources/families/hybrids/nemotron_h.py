"""Nemotron-H: every layer is one thing, a state space, attention, an MLP or experts.

Source: transformers 5.23, models/nemotron_h/. Checkpoints also hold layers for multi-token prediction, `mtp.*`, which
the class does not load.
"""

from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Layer, Weight
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.draft import joining, named_draft, num_draft_layers
from kvplan.sources.families.bricks.hybrid import by_type, named_decoder, norms
from kvplan.sources.families.bricks.mixers import full, read_heads
from kvplan.sources.families.bricks.parts import Half, Reading, experts, paired, plain_mlp, projections, replicated
from kvplan.sources.families.decoders.llama import read_experts
from kvplan.sources.families.hybrids.mamba import Biases, mamba2

_LETTERS = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}
"""The letters of `hybrid_override_pattern`."""
_DEFAULT = ("linear_attention", "moe", "full_attention", "mlp")


def read_nemotron_h(facts: Facts) -> Reading:
    """Nemotron-H and Nemotron 3: layers by `layers_block_type`, else by the letters of `hybrid_override_pattern`.

    The output head is a matrix of its own, whatever `tie_word_embeddings` says.

    Source: transformers 5.23, models/nemotron_h/modeling_nemotron_h.py `NemotronHForCausalLM`
    """
    hidden = facts.positive("hidden_size")
    layers = _layers(facts, hidden, _types(facts))
    reading = named_decoder(facts, layers, hidden, embed="embeddings", final="norm_f", tied=False)
    return named_draft(reading, _draft_layers(facts, hidden))


def _draft_layers(facts: Facts, hidden: int) -> list[Layer]:
    """The layers that predict further tokens: for each, as `mtp_layers_block_type` or the older letters say.

    The first of each joins token and state, the last ends in a norm. Those of Nemotron 3 are attention and experts.

    Source: vLLM 0.33, models/nemotron_h_mtp.py
    """
    count = num_draft_layers(facts)
    types = _types_at(facts, "mtp_layers_block_type", "mtp_hybrid_override_pattern") if count else None
    if not types:
        return []
    first, *others = _layers(facts, hidden, types)
    joined = (*joining("eh_proj", hidden, linear=True), *norms(hidden, "enorm", "hnorm"))
    one = [replace(first, weights=(*first.weights, *joined)), *others]
    one[-1] = replace(one[-1], weights=(*one[-1].weights, *norms(hidden, "final_layernorm")))
    return one * count


def _layers(facts: Facts, hidden: int, types: tuple[str, ...]) -> list[Layer]:
    known = {"linear_attention": _mamba2, "full_attention": _attention, "mlp": _dense, "moe": _moe}
    made = {name: known[name](facts, hidden) for name in known if name in types}
    halves = by_type(made, types, key="layers_block_type")
    nothing = Half(())
    return paired(
        [half if half.mixers else nothing for half in halves],
        [nothing if half.mixers else half for half in halves],
        norms(hidden, "norm"),
    )


def _types(facts: Facts) -> tuple[str, ...]:
    """What each layer is; their number is not `num_hidden_layers`, which older files state beside it."""
    return _types_at(facts, "layers_block_type", "hybrid_override_pattern") or _DEFAULT


def _types_at(facts: Facts, key: str, letters: str) -> tuple[str, ...] | None:
    """What the list at `key` says, else the older pattern at `letters`; None where neither is stated."""
    old = {"mamba": "linear_attention", "attention": "full_attention"}
    types = facts.strings(key) if facts.knows(key) else None
    if types is not None:
        return tuple(old.get(name, name) for name in types)
    pattern = facts.text(letters) if facts.knows(letters) else None
    if pattern is None:
        return None
    for letter in pattern:
        if letter not in _LETTERS:
            raise UnsupportedError(
                f"`{letters}` has the letter `{printable(letter)}`, which kvplan does not know",
                hint=f"known here: {' '.join(_LETTERS)}",
            )
    return tuple(_LETTERS[letter] for letter in pattern)


def _mamba2(facts: Facts, hidden: int) -> Half:
    bias = facts.flag("use_bias")
    spelling = "mamba_conv_bias" if facts.has("mamba_conv_bias") else "use_conv_bias"
    return mamba2(
        hidden,
        prefix="mixer",
        heads=facts.positive("mamba_num_heads"),
        head_dim=facts.positive("mamba_head_dim"),
        groups=facts.positive("n_groups", "mamba_n_groups"),
        state=facts.positive("ssm_state_size"),
        columns=facts.positive("conv_kernel", "mamba_d_conv"),
        biases=Biases(projections=bias, convolution=facts.flag(spelling), out=bias),
    )


def _attention(facts: Facts, hidden: int) -> Half:
    """Grouped heads without positions; they need not share the hidden size, and have no biases."""
    heads = read_heads(facts, hidden)
    return Half(projections(heads, hidden, prefix="mixer"), (full(heads),))


def _dense(facts: Facts, hidden: int) -> Half:
    width = facts.positive("intermediate_size")
    return Half(_mlp(hidden, width, "mixer", facts.flag("mlp_bias")), activations=2 * width)


def _mlp(hidden: int, width: int, prefix: str, bias: bool) -> tuple[Weight, ...]:
    return plain_mlp(hidden, width, up=f"{prefix}.up_proj", down=f"{prefix}.down_proj", bias=bias)


def _moe(facts: Facts, hidden: int) -> Half:
    """Plain experts and a shared one; routed ones can work on `moe_latent_size` elements that all share the way to."""
    num_experts, active = read_experts(facts, "n_routed_experts")
    width = facts.positive("moe_intermediate_size")
    shared_width = facts.integer("moe_shared_expert_intermediate_size") or facts.positive("intermediate_size")
    latent, bias = facts.nullable("moe_latent_size"), facts.flag("mlp_bias")
    correction = Weight(
        name="mixer.gate.e_score_correction_bias", shape=(num_experts,), part="router", buffer=True, fixed_bits=32
    )
    between: tuple[Weight, ...] = ()
    if latent is not None:
        between = (
            *replicated("mixer.fc1_latent_proj", latent, hidden, "mlp", bias=bias),
            *replicated("mixer.fc2_latent_proj", hidden, latent, "mlp", bias=bias),
        )
    weights = (
        *replicated("mixer.gate", num_experts, hidden, "router"),
        correction,
        *between,
        *experts(
            _mlp(hidden if latent is None else latent, width, "mixer.experts", bias=False),
            num_experts=num_experts,
            active=active,
        ),
        *_mlp(hidden, shared_width, "mixer.shared_experts", bias),
    )
    return Half(weights, activations=2 * (active * width + shared_width))
