"""Routed decoders whose classes come with their repository: deepseek, bailing_moe, kimi_k2, arctic, grok-1,
minimax_text_01, minimax_m1, minimax_m3, step3_text; and deepseek_ref, a copy of deepseek_v4.
"""

from kvplan.core.mixers import LinearAttention
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import class_family
from kvplan.sources.families.bricks.halves import dense_half
from kvplan.sources.families.bricks.mixers import Heads, full
from kvplan.sources.families.bricks.moe import read_experts_of, routed_half
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    column,
    experts,
    gated_mlp,
    norm,
    paired,
    projections,
    replicated,
    row,
)
from kvplan.sources.families.decoders.llama import read_experts
from kvplan.sources.families.remote.parts import (
    LLAMA,
    Names,
    grouped_heads,
    refuse,
    remote_decoder,
    remote_layers,
    under_another_name,
)

_GROK = Names(before=("pre_attn_norm", "post_attn_norm", "pre_moe_norm", "post_moe_norm"))


def read_kimi_k2(facts: Facts) -> Reading:
    """Kimi K2: DeepSeek V3's class under another type.

    The Hub counts more, since it counts buffers and what the quantised files hold besides: 26456 elements for the first
    release, of which 23040 are the routers' corrections, and 62.5 million for 0905, with its scales.

    Source: moonshotai/Kimi-K2-Instruct, config.json, configuration_deepseek.py
    """
    return under_another_name(facts, "deepseek_v3", family="deepseekv3")


def read_deepseek_ref(facts: Facts) -> Reading:
    """DeepSeek V4 under the type by which engines tell its first release.

    Source: sgl-project/DeepSeek-V4-Flash-FP8, config.json, whose class is `DeepseekV4ForCausalLM`
    """
    return under_another_name(facts, "deepseek_v4", family="deepseekv4")


def read_deepseek(facts: Facts) -> Reading:
    """DeepSeek-MoE 16B, the first: multi-head attention, dense layers before routed ones with shared experts.

    Source: deepseek-ai/deepseek-moe-16b-base, configuration_deepseek.py (`first_k_dense_replace` 0, `moe_layer_freq`
    1, `attention_bias` false), modeling_deepseek.py
    """
    hidden, bias = facts.positive("hidden_size"), facts.flag("attention_bias", default=False)
    heads, count = grouped_heads(facts, hidden), facts.layer_count("num_hidden_layers")
    dense = dense_half(hidden, facts.positive("intermediate_size"))
    feeding = [dense] * count
    if facts.has("n_routed_experts"):
        width = facts.positive("moe_intermediate_size")
        shared = (facts.nullable("n_shared_experts", default=None) or 0) * width
        sparse = routed_half(read_experts_of(facts, "n_routed_experts", shared_width=shared), hidden)
        first, every = facts.integer("first_k_dense_replace", default=0), facts.positive("moe_layer_freq", default=1)
        feeding = [sparse if i >= first and i % every == 0 else dense for i in range(count)]
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    return remote_decoder(facts, remote_layers(hidden, [full(heads)] * count, attention, feeding), hidden)


def read_arctic(facts: Facts) -> Reading:
    """Snowflake Arctic: beside the experts of a layer a dense MLP as wide as the model, after a norm of its own.

    Source: Snowflake/snowflake-arctic-instruct, configuration_arctic.py (`attention_bias` false), modeling_arctic.py
    `ArcticDecoderLayer`; vLLM 0.33, models/arctic.py
    """
    hidden, bias = facts.positive("hidden_size"), facts.flag("attention_bias", default=False)
    heads, count = grouped_heads(facts, hidden), facts.layer_count("num_hidden_layers")
    beside = facts.flag("use_residual")
    if facts.flag("parallel_attn_mlp_res", default=beside) != beside:
        raise facts.wrong("parallel_attn_mlp_res", not beside, f"what `use_residual` is, {str(beside).lower()}")
    routed, width = _mixtral_half(facts, hidden), facts.positive("intermediate_size")
    names = ("w1", "w3", "w2")
    if beside:
        always = (*gated_mlp(hidden, hidden, prefix="residual_mlp", names=names), *norm("residual_layernorm", hidden))
        routed = Half((*routed.weights, *always), activations=routed.activations + 3 * hidden)
    dense = Half(gated_mlp(hidden, width, prefix="block_sparse_moe.mlp", names=names), activations=3 * width)
    every = facts.positive("moe_layer_frequency")
    feeding = [dense if (i + 1) % every else routed for i in range(count)]
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    return remote_decoder(facts, remote_layers(hidden, [full(heads)] * count, attention, feeding), hidden)


def read_grok_1(facts: Facts) -> Reading:
    """Grok-1: eight experts a layer, four norms, the head tied to the token table.

    Source: hpcai-tech/grok-1, configuration_grok_1.py (`tie_word_embeddings` true), modeling_grok_1.py; vLLM 0.33,
    models/grok1.py
    """
    hidden, count = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = grouped_heads(facts, hidden)
    half = routed_half(read_experts_of(facts, "num_experts", width_key="intermediate_size"), hidden)
    attention = projections(heads, hidden, prefix="attn")
    layers = remote_layers(hidden, [full(heads)] * count, attention, [half] * count, names=_GROK)
    family = class_family(facts, "grok1model", "grok1")
    return remote_decoder(facts, layers, hidden, names=_GROK, family=family, tied_default=True)


def read_minimax_text_01(facts: Facts) -> Reading:
    """MiniMax-Text-01 and M1: `attn_type_list` says which layers have softmax attention (1), which lightning (0).

    The repository's class makes the decays of lightning attention anew where transformers' `minimax` stores them.

    Source: MiniMaxAI/MiniMax-Text-01, modeling_minimax_text_01.py; vLLM 0.33, models/minimax_text_01.py
    """
    refuse(facts, "shared_intermediate_size")
    hidden, count = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads, types = grouped_heads(facts, hidden), facts.integers("attn_type_list")
    if len(types) != count or not set(types) <= {0, 1}:
        raise facts.wrong("attn_type_list", list(types), f"a list of {count} zeros and ones, one for each layer")
    mixing = (_lightning(heads, hidden), Half(projections(heads, hidden), (full(heads),)))
    rest = tuple(weight for name in LLAMA.before for weight in norm(name, hidden))
    layers = paired([mixing[kind] for kind in types], [_mixtral_half(facts, hidden)] * count, rest)
    return remote_decoder(facts, layers, hidden, family=class_family(facts, "minimaxtext01", "minimaxm1"))


def _lightning(heads: Heads, hidden: int) -> Half:
    """One matrix of head_dim² for each query head, in the model's dtype, and a gate at the end.

    Source: MiniMax-01, §2.2, https://arxiv.org/abs/2501.08313; vLLM 0.33, mamba/mamba_utils.py
    `linear_attention_state_shape`
    """
    count, width = heads.num_heads, heads.num_heads * heads.head_dim
    pieces = [column(f"self_attn.qkv_proj[{piece}]", width, hidden, "attention", units=count) for piece in "qkv"]
    weights = (
        *(weight for piece in pieces for weight in piece),
        *column("self_attn.output_gate", width, hidden, "attention", units=count),
        *norm("self_attn.norm", width),
        *row("self_attn.out_proj", hidden, width, "attention", units=count),
    )
    dim = heads.head_dim
    mixer = LinearAttention(
        num_heads=count, num_key_heads=count, key_dim=dim, value_dim=dim, state_bits=None, recurrence="lightning"
    )
    return Half(weights, (mixer,))


def _mixtral_half(facts: Facts, hidden: int) -> Half:
    """Experts under Mixtral's names, as wide as `intermediate_size`."""
    num_experts, active = read_experts(facts, "num_local_experts")
    width = facts.positive("intermediate_size")
    expert = gated_mlp(hidden, width, prefix="block_sparse_moe.experts", names=("w1", "w3", "w2"))
    weights = (
        *replicated("block_sparse_moe.gate", num_experts, hidden, "router"),
        *experts(expert, num_experts=num_experts, active=active),
    )
    return Half(weights, activations=3 * active * width)


def read_step3_text(facts: Facts) -> Reading:
    """Step-3: one key and one value for all heads, queries through `share_q_dim` elements and a norm.

    `moe_layers_enum` lists the layers that route, each with a shared expert besides.

    Source: stepfun-ai/step3, modeling_step3.py; vLLM 0.33, models/step3_text.py; multi-matrix factorization
    attention, https://arxiv.org/abs/2412.19255
    """
    hidden, count = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    num_heads, dim, rank = (facts.positive(key) for key in ("num_attention_heads", "head_dim", "share_q_dim"))
    groups = facts.positive("num_attention_groups", default=1)
    if groups != 1:
        raise facts.wrong("num_attention_groups", groups, "1: all heads share one key and one value")
    attention = (
        *replicated("self_attn.q_proj", rank, hidden, "attention"),
        *replicated("self_attn.k_proj", dim, hidden, "attention"),
        *replicated("self_attn.v_proj", dim, hidden, "attention"),
        *norm("self_attn.inter_norm", rank),
        *column("self_attn.wq", num_heads * dim, rank, "attention", units=num_heads),
        *row("self_attn.o_proj", hidden, num_heads * dim, "attention", units=num_heads),
    )
    mixer = full(Heads(num_heads=num_heads, num_kv_heads=1, head_dim=dim))
    dense, sparse = dense_half(hidden, facts.positive("intermediate_size")), _step3_half(facts, hidden)
    routes = _listed_layers(facts, count)
    feeding = [sparse if i in routes else dense for i in range(count)]
    layers = remote_layers(hidden, [mixer] * count, attention, feeding)
    positions = ("max_position_embedding", "max_seq_len")
    return remote_decoder(facts, layers, hidden, family="step3text", positions=positions)


def _step3_half(facts: Facts, hidden: int) -> Half:
    num_experts, active = read_experts(facts, "moe_num_experts", active_key="moe_top_k")
    width, always = facts.positive("moe_intermediate_size"), facts.positive("share_expert_dim")
    weights = (
        *replicated("moe.gate", num_experts, hidden, "router"),
        *experts(gated_mlp(hidden, width, prefix="moe"), num_experts=num_experts, active=active),
        *gated_mlp(hidden, always, prefix="share_expert"),
    )
    return Half(weights, activations=3 * (active * width + always))


def _listed_layers(facts: Facts, count: int) -> frozenset[int]:
    """The layers that `moe_layers_enum` lists, in a string or as numbers; all but the first where it is unstated."""
    if not facts.has("moe_layers_enum"):
        return frozenset(range(1, count))
    if facts.is_text("moe_layers_enum"):
        words = [word for word in facts.words("moe_layers_enum", ",") if word]
        if not all(word.isdecimal() for word in words):
            raise facts.wrong("moe_layers_enum", facts.text("moe_layers_enum"), "layers, separated by commas")
        return frozenset(map(int, words))
    return frozenset(facts.integers("moe_layers_enum"))


def read_minimax_m3(facts: Facts) -> Reading:
    """MiniMax M3 without its tower: the text model of `minimax_m3_vl`, its keys at the top of the file.

    Source: MiniMaxAI/MiniMax-M3, config.json of the text model; transformers 5.23, models/minimax_m3_vl/
    """
    return under_another_name(facts, "minimax_m3_vl_text", family="minimax_m3")
