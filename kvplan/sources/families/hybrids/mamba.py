"""Mamba and Mamba-2: selective state spaces, alone and as bricks of hybrids.

Source: transformers 5.23, models/{mamba,falcon_mamba,mamba2}/; Gu and Dao 2023, https://arxiv.org/abs/2312.00752;
Dao and Gu 2024, https://arxiv.org/abs/2405.21060.
"""

from dataclasses import dataclass

from kvplan.core.mixers import LinearAttention
from kvplan.core.model import Split, Weight
from kvplan.core.units import ceil_div
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.hybrid import named_decoder, norms, or_auto
from kvplan.sources.families.bricks.parts import Half, Reading, column, norm, paired, row


@dataclass(frozen=True, slots=True, kw_only=True)
class Biases:
    """Which of a state space's layers have an offset."""

    projections: bool
    convolution: bool
    out: bool


def read_mamba(facts: Facts) -> Reading:
    """Mamba and FalconMamba, which differ in norms without weights; `intermediate_size` wins over `expand`.

    Source: transformers 5.23, models/{mamba,falcon_mamba}/
    """
    hidden = facts.positive("hidden_size")
    inner = facts.positive("intermediate_size", default=facts.positive("expand") * hidden)
    block = mamba1(
        hidden,
        inner,
        prefix="mixer",
        state=facts.positive("state_size"),
        columns=facts.positive("conv_kernel"),
        rank=or_auto(facts, "time_step_rank", ceil_div(hidden, 16)),
        biases=_biases(facts),
    )
    return _pure(facts, block, hidden)


def read_mamba2(facts: Facts) -> Reading:
    """Mamba-2: `expand` · hidden is shared out evenly between `num_heads`.

    Source: transformers 5.23, models/mamba2/
    """
    hidden = facts.positive("hidden_size")
    heads, head_dim = facts.positive("num_heads"), facts.positive("head_dim")
    inner = facts.positive("expand") * hidden
    if heads * head_dim != inner:
        raise facts.wrong("num_heads", heads, f"`expand` · `hidden_size` / `head_dim`, {inner} / {head_dim}")
    block = mamba2(
        hidden,
        prefix="mixer",
        heads=heads,
        head_dim=head_dim,
        groups=facts.positive("n_groups"),
        state=facts.positive("state_size"),
        columns=facts.positive("conv_kernel"),
        biases=_biases(facts),
    )
    return _pure(facts, block, hidden)


def _biases(facts: Facts) -> Biases:
    bias = facts.flag("use_bias")
    return Biases(projections=bias, convolution=facts.flag("use_conv_bias"), out=bias)


def _pure(facts: Facts, block: Half, hidden: int) -> Reading:
    """A model of one block over and over, without feed-forward parts."""
    num_layers = facts.layer_count("num_hidden_layers")
    layers = paired([block] * num_layers, [Half(())] * num_layers, norms(hidden, "norm"))
    return named_decoder(facts, layers, hidden, embed="embeddings", final="norm_f")


def mamba1(
    hidden: int,
    inner: int,
    *,
    prefix: str,
    state: int,
    columns: int,
    rank: int,
    biases: Biases,
    inner_norms: bool = False,
    groups: int | None = None,
) -> Half:
    """Mamba: each of `inner` channels has a state of its own; `rank` is the width of what makes the time step.

    `inner_norms` are those of the time step, B and C in Jamba; in Zamba, `groups` of channels have their own B and C.

    Source: transformers 5.23, models/mamba/modeling_mamba.py `MambaMixer`
    """
    normed = (("dt_layernorm", rank), ("b_layernorm", state), ("c_layernorm", state)) if inner_norms else ()
    weights = (
        *column(f"{prefix}.in_proj[x]", inner, hidden, "attention", bias=biases.projections),
        *column(f"{prefix}.in_proj[z]", inner, hidden, "attention", bias=biases.projections),
        *convolution(f"{prefix}.conv1d", {"": (inner, inner)}, columns, bias=biases.convolution),
        *_input_dependence(prefix, inner, rank, state, groups),
        Weight(name=f"{prefix}.A_log", shape=(inner, state), part="attention", split=Split(0, inner)),
        Weight(name=f"{prefix}.D", shape=(inner,), part="attention", split=Split(0, inner)),
        *(weight for name, size in normed for weight in norm(f"{prefix}.{name}", size)),
        *row(f"{prefix}.out_proj", hidden, inner, "attention", bias=biases.out),
    )
    mixer = LinearAttention(
        num_heads=inner,
        num_key_heads=groups or 1,
        key_dim=state,
        value_dim=1,
        conv_channels=inner,
        conv_columns=columns,
        recurrence="mamba1",
    )
    return Half(weights, (mixer,))


def _input_dependence(prefix: str, inner: int, rank: int, state: int, groups: int | None) -> tuple[Weight, ...]:
    """What makes the time step, B and C of a token: one matrix for all channels, or one for each group of them."""
    if groups is None:
        return (
            *row(f"{prefix}.x_proj", rank + 2 * state, inner, "attention"),
            *column(f"{prefix}.dt_proj", inner, rank, "attention", bias=True),
        )
    size, split = inner // groups, Split(0, groups)
    shapes = {
        "x_proj_weight": (groups, rank + 2 * state, size),
        "dt_proj_weight": (groups, size, rank),
        "dt_proj_bias": (groups, size),
    }
    return tuple(
        Weight(name=f"{prefix}.{name}", shape=shape, part="attention", split=split) for name, shape in shapes.items()
    )


def mamba2(
    hidden: int,
    *,
    prefix: str,
    heads: int,
    head_dim: int,
    groups: int,
    state: int,
    columns: int,
    biases: Biases,
    normed: bool = True,
) -> Half:
    """Mamba-2: heads with a state of head_dim × state each, whose B and C a group of heads shares.

    Source: transformers 5.23, models/mamba2/modeling_mamba2.py `Mamba2Mixer`
    """
    inner = heads * head_dim
    mixed = {"[x]": (inner, heads), "[B]": (groups * state, groups), "[C]": (groups * state, groups)}
    projected = {"[z]": (inner, heads), **mixed, "[dt]": (heads, heads)}
    weights = (
        *(
            weight
            for piece, (rows, units) in projected.items()
            for weight in column(
                f"{prefix}.in_proj{piece}", rows, hidden, "attention", units=units, bias=biases.projections
            )
        ),
        *convolution(f"{prefix}.conv1d", mixed, columns, bias=biases.convolution),
        *(
            Weight(name=f"{prefix}.{name}", shape=(heads,), part="attention", split=Split(0, heads))
            for name in ("dt_bias", "A_log", "D")
        ),
        *(
            Weight(name=f"{prefix}.norm.weight", shape=(inner,), part="norms", split=Split(0, heads))
            for _ in range(normed)
        ),
        *row(f"{prefix}.out_proj", hidden, inner, "attention", units=heads, bias=biases.out),
    )
    mixer = LinearAttention(
        num_heads=heads,
        num_key_heads=groups,
        key_dim=state,
        value_dim=head_dim,
        conv_channels=inner + 2 * groups * state,
        conv_columns=columns,
        recurrence="mamba2",
    )
    return Half(weights, (mixer,))


def convolution(name: str, pieces: dict[str, tuple[int, int]], columns: int, *, bias: bool) -> tuple[Weight, ...]:
    """A convolution of every channel with itself; `pieces` are its parts: suffix → (channels, units to deal out)."""
    return tuple(
        Weight(name=f"{name}.{kind}{piece}", shape=shape, part="attention", split=Split(0, units))
        for piece, (channels, units) in pieces.items()
        for kind, shape in (("weight", (channels, 1, columns)), *((("bias", (channels,)),) if bias else ()))
    )
