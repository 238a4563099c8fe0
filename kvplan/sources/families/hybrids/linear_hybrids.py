"""Linear attention beside full attention: OLMo Hybrid with a gated delta net, MiniMax with lightning attention.

Source: transformers 5.23, models/{olmo_hybrid,minimax}/.
"""

from kvplan.core.mixers import LinearAttention
from kvplan.core.model import Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.delta import DeltaHeads, delta_half
from kvplan.sources.families.bricks.halves import dense_half, wide_norms
from kvplan.sources.families.bricks.hybrid import by_type, norms
from kvplan.sources.families.bricks.mixers import Heads, full, read_heads, require_divisor
from kvplan.sources.families.bricks.moe import read_experts_of, routed_half
from kvplan.sources.families.bricks.parts import Half, Reading, column, norm, paired, projections, row
from kvplan.sources.families.decoders.llama import decoder


def read_olmo_hybrid(facts: Facts) -> Reading:
    """OLMo Hybrid: every fourth layer is full, the last one if none is; full layers have their norms after each half.

    Source: transformers 5.23, models/olmo_hybrid/modeling_olmo_hybrid.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = read_heads(facts, hidden)
    bias = facts.flag("attention_bias")
    attention = (
        *projections(heads, hidden, qkv_bias=bias, out_bias=bias),
        *wide_norms(heads),
        *norms(hidden, "post_attention_layernorm", "post_feedforward_layernorm"),
    )
    delta = delta_half(_olmo_delta(facts, hidden, heads.num_heads), hidden, norm_name="o_norm", out="o_proj")
    before = norms(hidden, "input_layernorm", "post_attention_layernorm")
    mixing = {
        "full_attention": Half(attention, (full(heads),)),
        "linear_attention": Half((*delta.weights, *before), delta.mixers),
    }
    types = facts.strings("layer_types", length=num_layers) or _olmo_types(num_layers)
    if len(set(types)) < len(mixing):
        raise facts.wrong("layer_types", sorted(set(types)), "a list with layers of both kinds")
    mlp = dense_half(hidden, facts.positive("intermediate_size"))
    return decoder(facts, paired(by_type(mixing, types), [mlp] * num_layers, ()), hidden)


def _olmo_types(num_layers: int) -> tuple[str, ...]:
    types = tuple("full_attention" if i % 4 == 3 else "linear_attention" for i in range(num_layers))
    return types if num_layers > 3 else (*types[:-1], "full_attention")


def _olmo_delta(facts: Facts, hidden: int, num_heads: int) -> DeltaHeads:
    """As many heads as attention has; keys together three quarters of the hidden size, values twice as wide."""
    key_heads = facts.positive("linear_num_key_heads", default=num_heads)
    value_heads = facts.positive("linear_num_value_heads", default=num_heads)
    require_divisor(facts, "linear_num_key_heads", key_heads, "linear_num_value_heads", value_heads)
    key_dim = facts.positive("linear_key_head_dim", default=int(0.75 * hidden / key_heads))
    return DeltaHeads(
        num_heads=value_heads,
        num_key_heads=key_heads,
        key_dim=key_dim,
        value_dim=facts.positive("linear_value_head_dim", default=2 * key_dim),
        columns=facts.positive("linear_conv_kernel_dim"),
    )


def read_minimax(facts: Facts) -> Reading:
    """MiniMax-Text: lightning attention in every second layer where the config does not list them; routed experts.

    Source: transformers 5.23, models/minimax/modeling_minimax.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = read_heads(facts, hidden)
    mixing = {
        "full_attention": Half(projections(heads, hidden), (full(heads),)),
        "linear_attention": _lightning(heads, hidden, facts.positive("block_size")),
    }
    types = facts.strings("layer_types", length=num_layers) or tuple(
        "linear_attention" if i % 2 else "full_attention" for i in range(num_layers)
    )
    routed = read_experts_of(facts, "num_local_experts", width_key="intermediate_size")
    rest = norms(hidden, "input_layernorm", "post_attention_layernorm")
    layers = paired(by_type(mixing, types), [routed_half(routed, hidden)] * num_layers, rest)
    return decoder(facts, layers, hidden)


def _lightning(heads: Heads, hidden: int, block: int) -> Half:
    """Lightning attention: S ← decay · S + k · vᵀ for every query head, in the model's dtype, with a gate at the end.

    The decays of a block of tokens are tables that the checkpoint holds. The class keeps S beside its cache's layers.

    Source: transformers 5.23, models/minimax/modeling_minimax.py `MiniMaxLightningAttention`, `MiniMaxCache`;
    vLLM 0.33, mamba/mamba_utils.py `linear_attention_state_shape`; https://arxiv.org/abs/2501.08313
    """
    num_heads, width = heads.num_heads, heads.num_heads * heads.head_dim
    tables = {
        "slope_rate": (num_heads, 1, 1),
        "query_decay": (num_heads, block, 1),
        "key_decay": (num_heads, block, 1),
        "diagonal_decay": (1, num_heads, block, block),
    }
    weights = (
        *(
            weight
            for piece in "qkv"
            for weight in column(f"self_attn.qkv_proj[{piece}]", width, hidden, "attention", units=num_heads)
        ),
        *column("self_attn.output_gate", width, hidden, "attention", units=num_heads),
        *norm("self_attn.norm", width),
        *row("self_attn.out_proj", hidden, width, "attention", units=num_heads),
        *(
            Weight(
                name=f"self_attn.{name}",
                shape=shape,
                part="attention",
                split=Split(shape.index(num_heads), num_heads),
                buffer=True,
            )
            for name, shape in tables.items()
        ),
    )
    mixer = LinearAttention(
        num_heads=num_heads,
        num_key_heads=num_heads,
        key_dim=heads.head_dim,
        value_dim=heads.head_dim,
        state_bits=None,
        in_transformers_cache=False,
        recurrence="lightning",
    )
    return Half(weights, (mixer,))
