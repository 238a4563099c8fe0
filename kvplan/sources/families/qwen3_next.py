"""Qwen3-Next: three layers of gated delta net to one of gated full attention; routed experts and a shared one.

Source: transformers 5.23, models/qwen3_next/. Checkpoints also hold layers for multi-token prediction, `mtp.*`, which
the class does not load.
"""

from kvplan.core.mixers import LinearAttention, Mixer
from kvplan.core.model import Layer, Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.llama import decoder, head_norms, read_experts
from kvplan.sources.families.mixers import full, named_mixers, read_heads, require_divisor
from kvplan.sources.families.parts import Reading, column, experts, gated_mlp, norm, projections, replicated, row


def read_qwen3_next(facts: Facts) -> Reading:
    """Qwen3-Next: every fourth layer is full where the config does not list them; dense MLPs only where it names them.

    Source: transformers 5.23, models/qwen3_next/modeling_qwen3_next.py
    """
    hidden = facts.positive("hidden_size")
    num_layers = facts.layer_count("num_hidden_layers")
    weights_of: dict[Mixer, tuple[Weight, ...]] = dict([_full_attention(facts, hidden), _delta_net(facts, hidden)])
    attention, delta_net = weights_of
    types = facts.strings("layer_types", length=num_layers) or _interval(facts, num_layers)
    mixers = named_mixers({"full_attention": attention, "linear_attention": delta_net}, types)
    sparse = _sparse_layers(facts, num_layers)
    mlps = {is_sparse: (_experts if is_sparse else _dense)(facts, hidden) for is_sparse in sorted(set(sparse))}
    norms = (*norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))
    built = {
        (mixer, is_sparse): Layer(
            mixers=(mixer,), weights=(*weights_of[mixer], *mlp, *norms), mlp_activations=3 * width
        )
        for mixer in weights_of
        for is_sparse, (mlp, width) in mlps.items()
    }
    return decoder(facts, [built[key] for key in zip(mixers, sparse, strict=True)], hidden)


def _interval(facts: Facts, num_layers: int) -> tuple[str, ...]:
    facts.refuse_null("full_attention_interval")
    interval = facts.positive("full_attention_interval", default=4)
    return tuple("linear_attention" if (i + 1) % interval else "full_attention" for i in range(num_layers))


def _full_attention(facts: Facts, hidden: int) -> tuple[Mixer, tuple[Weight, ...]]:
    """Grouped heads, each with a norm and, in q_proj beside its query, a gate of its output."""
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden, num_kv_heads=2, head_dim=256)
    bias = facts.flag("attention_bias", default=False)
    width = heads.num_heads * heads.head_dim
    gate = column("self_attn.q_proj[gate]", width, hidden, "attention", units=heads.num_heads, bias=bias)
    names = ("q_proj[q]", "k_proj", "v_proj", "o_proj")
    attention = projections(heads, hidden, names=names, qkv_bias=bias, out_bias=bias)
    return full(heads), (*attention, *gate, *head_norms(heads.head_dim))


def _delta_net(facts: Facts, hidden: int) -> tuple[Mixer, tuple[Weight, ...]]:
    """A gated delta net: one fused projection for q, k, v and the gate z, another for β and the decay of each head."""
    heads, key_heads = facts.positive("linear_num_value_heads"), facts.positive("linear_num_key_heads")
    require_divisor(facts, "linear_num_key_heads", key_heads, "linear_num_value_heads", heads)
    key_dim, value_dim = facts.positive("linear_key_head_dim"), facts.positive("linear_value_head_dim")
    columns = facts.positive("linear_conv_kernel_dim")
    mixed = {"q": (key_heads, key_dim), "k": (key_heads, key_dim), "v": (heads, value_dim)}
    projected = [
        weight
        for piece, (units, dim) in (mixed | {"z": (heads, value_dim)}).items()
        for weight in column(f"linear_attn.in_proj_qkvz[{piece}]", units * dim, hidden, "attention", units=units)
    ]
    convolution = [
        Weight(
            name=f"linear_attn.conv1d.weight[{piece}]",
            shape=(units * dim, 1, columns),
            part="attention",
            split=Split(0, units),
        )
        for piece, (units, dim) in mixed.items()
    ]
    per_head = [
        Weight(name=f"linear_attn.{name}", shape=(heads,), part="attention", split=Split(0, heads))
        for name in ("dt_bias", "A_log")
    ]
    weights = (
        *projected,
        *column("linear_attn.in_proj_ba[b]", heads, hidden, "attention"),
        *column("linear_attn.in_proj_ba[a]", heads, hidden, "attention"),
        *convolution,
        *per_head,
        *norm("linear_attn.norm", value_dim),
        *row("linear_attn.out_proj", hidden, heads * value_dim, "attention", units=heads),
    )
    mixer = LinearAttention(
        num_heads=heads,
        num_key_heads=key_heads,
        key_dim=key_dim,
        value_dim=value_dim,
        conv_channels=sum(units * dim for units, dim in mixed.values()),
        conv_columns=columns,
    )
    return mixer, weights


def _sparse_layers(facts: Facts, num_layers: int) -> list[bool]:
    """Which layers route: every `decoder_sparse_step`-th but `mlp_only_layers`; none where there are no experts."""
    facts.refuse_null("decoder_sparse_step")
    dense = set(facts.integers("mlp_only_layers"))
    step = facts.positive("decoder_sparse_step", default=1)
    routed = facts.integer("num_experts") > 0
    return [routed and i not in dense and (i + 1) % step == 0 for i in range(num_layers)]


def _dense(facts: Facts, hidden: int) -> tuple[tuple[Weight, ...], int]:
    """(weights, width) of a dense layer's MLP."""
    width = facts.positive("intermediate_size")
    return gated_mlp(hidden, width), width


def _experts(facts: Facts, hidden: int) -> tuple[tuple[Weight, ...], int]:
    """(weights, width that a token uses) of routed experts and a shared one, which a gate of its own weighs."""
    num_experts, active = read_experts(facts, "num_experts")
    width, shared_width = facts.positive("moe_intermediate_size"), facts.integer("shared_expert_intermediate_size")
    expert = gated_mlp(hidden, width, prefix="mlp.experts")
    shared = gated_mlp(hidden, shared_width, prefix="mlp.shared_expert") if shared_width else ()
    weights = (
        *replicated("mlp.gate", num_experts, hidden, "router"),
        *experts(expert, num_experts=num_experts, active=active),
        *shared,
        *replicated("mlp.shared_expert_gate", 1, hidden, "router"),
    )
    return weights, active * width + shared_width
