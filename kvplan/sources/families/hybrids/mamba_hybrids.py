"""Attention beside Mamba: bamba, granitemoehybrid and falcon_h1 with Mamba-2, jamba with Mamba.

Source: transformers 5.23, models/{bamba,granitemoehybrid,falcon_h1,jamba}/.
"""

from kvplan.core.units import ceil_div
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.hybrid import by_type, named_decoder, norms, or_auto, periodic
from kvplan.sources.families.bricks.mixers import full, read_heads, require_divisor
from kvplan.sources.families.bricks.parts import Half, Reading, experts, gated_mlp, paired, projections, replicated
from kvplan.sources.families.decoders.llama import decoder, read_experts
from kvplan.sources.families.hybrids.mamba import Biases, mamba1, mamba2

_BEFORE = ("input_layernorm", "pre_ff_layernorm")


def read_bamba(facts: Facts) -> Reading:
    """Bamba: attention in the layers of `attn_layer_indices`, Mamba-2 in the others, a dense MLP in all.

    Source: transformers 5.23, models/bamba/modeling_bamba.py
    """
    hidden = facts.positive("hidden_size")
    attending = set(facts.integers("attn_layer_indices"))
    attention, mamba = _attention(facts, hidden), _mamba2(facts, hidden, facts.positive("mamba_expand") * hidden)
    mixing = [attention if i in attending else mamba for i in range(facts.layer_count("num_hidden_layers"))]
    layers = paired(mixing, [_dense(facts, hidden)] * len(mixing), norms(hidden, *_BEFORE))
    return named_decoder(facts, layers, hidden, embed="embed_tokens", final="final_layernorm")


def read_granitemoehybrid(facts: Facts) -> Reading:
    """Granite 4: `layer_types` says where attention stands, nowhere if unstated; a shared MLP, and experts if any.

    Source: transformers 5.23, models/granitemoehybrid/modeling_granitemoehybrid.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    types = facts.strings("layer_types", length=num_layers) or ("linear_attention",) * num_layers
    mixing = {
        "full_attention": _attention(facts, hidden),
        "linear_attention": _mamba2(facts, hidden, facts.positive("mamba_expand") * hidden),
    }
    rest = norms(hidden, "input_layernorm", "post_attention_layernorm")
    return decoder(facts, paired(by_type(mixing, types), [_granite_moe(facts, hidden)] * num_layers, rest), hidden)


def _granite_moe(facts: Facts, hidden: int) -> Half:
    shared_width = facts.positive("shared_intermediate_size")
    names = ("input_linear[gate]", "input_linear[up]", "output_linear")
    shared = gated_mlp(hidden, shared_width, prefix="shared_mlp", names=names)
    if facts.integer("num_local_experts") == 0:
        return Half(shared, activations=3 * shared_width)
    num_experts, active = read_experts(facts, "num_local_experts")
    width = facts.positive("intermediate_size")
    expert = gated_mlp(hidden, width, prefix="block_sparse_moe", names=names)
    weights = (
        *shared,
        *replicated("block_sparse_moe.router.layer", num_experts, hidden, "router"),
        *experts(expert, num_experts=num_experts, active=active),
    )
    return Half(weights, activations=3 * (shared_width + active * width))


def read_falcon_h1(facts: Facts) -> Reading:
    """Falcon-H1: attention and Mamba-2 side by side in every layer; `mamba_d_ssm` is the width of the second.

    Source: transformers 5.23, models/falcon_h1/modeling_falcon_h1.py
    """
    hidden = facts.positive("hidden_size")
    inner = facts.nullable("mamba_d_ssm") or facts.positive("mamba_expand") * hidden
    attention = _attention(facts, hidden)
    mamba = _mamba2(facts, hidden, inner, out_bias=facts.flag("projectors_bias"), normed=facts.flag("mamba_rms_norm"))
    both = Half((*attention.weights, *mamba.weights), (*attention.mixers, *mamba.mixers))
    num_layers = facts.layer_count("num_hidden_layers")
    layers = paired([both] * num_layers, [_dense(facts, hidden)] * num_layers, norms(hidden, *_BEFORE))
    return named_decoder(facts, layers, hidden, embed="embed_tokens", final="final_layernorm")


def read_jamba(facts: Facts) -> Reading:
    """Jamba: attention and experts each in the layers of their own period and offset, else Mamba and a dense MLP.

    Source: transformers 5.23, models/jamba/modeling_jamba.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    biases = Biases(
        projections=facts.flag("mamba_proj_bias"),
        convolution=facts.flag("mamba_conv_bias"),
        out=facts.flag("mamba_proj_bias"),
    )
    mamba = mamba1(
        hidden,
        facts.positive("mamba_expand") * hidden,
        prefix="mamba",
        state=facts.positive("mamba_d_state"),
        columns=facts.positive("mamba_d_conv"),
        rank=or_auto(facts, "mamba_dt_rank", ceil_div(hidden, 16)),
        biases=biases,
        inner_norms=True,
    )
    attention = _attention(facts, hidden, bias=False)
    mixing = [attention if attends else mamba for attends in periodic(facts, num_layers, "attn_layer")]
    dense, sparse = _dense(facts, hidden, bias=False), _jamba_moe(facts, hidden)
    routed = facts.positive("num_experts") > 1
    feeding = [sparse if routed and routes else dense for routes in periodic(facts, num_layers, "expert_layer")]
    layers = paired(mixing, feeding, norms(hidden, *_BEFORE))
    return named_decoder(facts, layers, hidden, embed="embed_tokens", final="final_layernorm")


def _jamba_moe(facts: Facts, hidden: int) -> Half:
    num_experts, active = read_experts(facts, "num_experts")
    width = facts.positive("intermediate_size")
    expert = gated_mlp(hidden, width, prefix="feed_forward.experts")
    weights = (
        *replicated("feed_forward.router", num_experts, hidden, "router"),
        *experts(expert, num_experts=num_experts, active=active),
    )
    return Half(weights, activations=3 * active * width)


def _attention(facts: Facts, hidden: int, *, bias: bool | None = None) -> Half:
    heads = read_heads(facts, hidden)
    bias = facts.flag("attention_bias") if bias is None else bias
    return Half(projections(heads, hidden, qkv_bias=bias, out_bias=bias), (full(heads),))


def _dense(facts: Facts, hidden: int, *, bias: bool | None = None) -> Half:
    width = facts.positive("intermediate_size")
    bias = facts.flag("mlp_bias") if bias is None else bias
    return Half(gated_mlp(hidden, width, prefix="feed_forward", bias=bias), activations=3 * width)


def _mamba2(facts: Facts, hidden: int, inner: int, *, out_bias: bool | None = None, normed: bool = True) -> Half:
    """Mamba-2 of width `inner`, which its heads share evenly; `out_bias` where it is not `mamba_proj_bias`."""
    heads = facts.positive("mamba_n_heads")
    require_divisor(facts, "mamba_n_heads", heads, "the state space's width", inner)
    head_dim = or_auto(facts, "mamba_d_head", inner // heads)
    if heads * head_dim != inner:
        raise facts.wrong("mamba_d_head", head_dim, f"the state space's width over its heads, {inner} / {heads}")
    bias = facts.flag("mamba_proj_bias")
    return mamba2(
        hidden,
        prefix="mamba",
        heads=heads,
        head_dim=head_dim,
        groups=facts.positive("mamba_n_groups"),
        state=facts.positive("mamba_d_state"),
        columns=facts.positive("mamba_d_conv"),
        biases=Biases(
            projections=bias,
            convolution=facts.flag("mamba_conv_bias"),
            out=bias if out_bias is None else out_bias,
        ),
        normed=normed,
    )
