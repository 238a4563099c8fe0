"""Llama and its direct line: mistral, mixtral, qwen2, qwen3, phi3.

Source: transformers 5.23, models/{llama,mistral,mixtral,qwen2,qwen3,phi3}/.
"""

from dataclasses import replace

from kvplan.core.mixers import Mixer
from kvplan.core.model import EagerSoftmax, Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import (
    Heads,
    layer_mixers,
    read_heads,
    read_window,
    require_divisor,
    typed_mixers,
)
from kvplan.sources.families.bricks.parts import (
    Reading,
    causal_head,
    class_suffix,
    experts,
    gated_mlp,
    norm,
    num_labels,
    projections,
    replicated,
    table,
)


def read_llama(facts: Facts, *, family: str | None = None) -> Reading:
    """Llama 1-3.x: full attention, gated MLP, RMSNorm. `family` begins the class's name where it is not Llama's.

    Source: transformers 5.23, models/llama/modeling_llama.py
    """
    hidden = facts.positive("hidden_size")
    heads = read_heads(facts, hidden)
    require_divisor(facts, "num_attention_heads", heads.num_heads, "hidden_size", hidden)
    bias = facts.flag("attention_bias", default=False)
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    width = facts.positive("intermediate_size")
    mlp = gated_mlp(hidden, width, bias=facts.flag("mlp_bias", default=False))
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    return decoder(facts, decoder_layers(mixers, attention, mlp, hidden, width), hidden, family=family)


def read_mistral(facts: Facts) -> Reading:
    """Mistral: Llama with one window for every layer (4096 where unstated), unless the config states null.

    Source: transformers 5.23, models/mistral/modeling_mistral.py
    """
    hidden = facts.positive("hidden_size")
    facts.refuse_null("num_key_value_heads")
    heads = read_heads(facts, hidden, num_kv_heads=8)
    width = facts.positive("intermediate_size")
    window = read_window(facts, default=4096)
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=window)
    layers = decoder_layers(mixers, projections(heads, hidden), gated_mlp(hidden, width), hidden, width)
    return decoder(facts, layers, hidden)


def read_mixtral(facts: Facts) -> Reading:
    """Mixtral: Mistral with routed experts for the MLP, and a window only where the config states one.

    Source: transformers 5.23, models/mixtral/modeling_mixtral.py
    """
    hidden = facts.positive("hidden_size")
    facts.refuse_null("num_key_value_heads")
    heads = read_heads(facts, hidden, num_kv_heads=8)
    width = facts.positive("intermediate_size")
    num_experts, active = read_experts(facts, "num_local_experts", "num_experts")
    expert = gated_mlp(hidden, width, prefix="block_sparse_moe.experts", names=("w1", "w3", "w2"))
    moe = (
        *replicated("block_sparse_moe.gate", num_experts, hidden, "router"),
        *experts(expert, num_experts=num_experts, active=active),
    )
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    layers = decoder_layers(mixers, projections(heads, hidden), moe, hidden, width * active)
    return decoder(facts, layers, hidden)


def read_qwen2(facts: Facts) -> Reading:
    """Qwen 1.5-2.5: biases on q, k and v; a window only where `use_sliding_window` says so.

    Qwen's own reward models score each token, the process reward models with two labels.

    Source: transformers 5.23, models/qwen2/modeling_qwen2.py; Qwen/Qwen2.5-Math-RM-72B, modeling_qwen2_rm.py;
    Qwen/Qwen2.5-Math-PRM-7B
    """
    hidden = facts.positive("hidden_size")
    heads = read_heads(facts, hidden)
    width = facts.positive("intermediate_size")
    attention = projections(heads, hidden, qkv_bias=True)
    layers = decoder_layers(qwen_mixers(facts, heads), attention, gated_mlp(hidden, width), hidden, width)
    rewards = class_suffix(facts)
    if rewards not in ("ForRewardModel", "ForProcessRewardModel"):
        return decoder(facts, layers, hidden)
    labels = num_labels(facts, default=1 if rewards == "ForRewardModel" else 2)
    dense = replicated("score.0", hidden, hidden, "head", bias=True)
    head = (*norm("norm", hidden), *dense, *replicated("score.2", labels, hidden, "head", bias=True))
    return replace(decoder(facts, layers, hidden, language_model=rewards), head=head, tied_embeddings=False)


def read_qwen3(facts: Facts) -> Reading:
    """Qwen3: its own head_dim (128 where unstated), a norm on each head's query and key.

    Source: transformers 5.23, models/qwen3/modeling_qwen3.py
    """
    hidden = facts.positive("hidden_size")
    facts.refuse_null("head_dim")
    heads = read_heads(facts, hidden)
    bias = facts.flag("attention_bias", default=False)
    attention = (*projections(heads, hidden, qkv_bias=bias, out_bias=bias), *head_norms(heads.head_dim))
    width = facts.positive("intermediate_size")
    layers = decoder_layers(qwen_mixers(facts, heads), attention, gated_mlp(hidden, width), hidden, width)
    return decoder(facts, layers, hidden)


def read_phi3(facts: Facts) -> Reading:
    """Phi-3 and Phi-4: fused projections, and a window for every layer where the config states one.

    Source: transformers 5.23, models/phi3/modeling_phi3.py
    """
    hidden = facts.positive("hidden_size")
    heads = read_heads(facts, hidden)
    width = facts.positive("intermediate_size")
    fused = ("qkv_proj[q]", "qkv_proj[k]", "qkv_proj[v]", "o_proj")
    attention = projections(heads, hidden, names=fused)
    mlp = gated_mlp(hidden, width, names=("gate_up_proj[gate]", "gate_up_proj[up]", "down_proj"))
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    return decoder(facts, decoder_layers(mixers, attention, mlp, hidden, width), hidden)


def qwen_mixers(facts: Facts, heads: Heads) -> list[Mixer]:
    """`layer_types` where stated; else layers from `max_window_layers` on slide, if windows are on at all.

    Source: transformers 5.23, models/qwen2/configuration_qwen2.py
    """
    num_layers = facts.layer_count("num_hidden_layers")
    uses_window = facts.flag("use_sliding_window", default=False)
    window = read_window(facts) if uses_window else None
    types = facts.strings("layer_types", length=num_layers)
    if types is None:
        first = num_layers if window is None else facts.integer("max_window_layers")
        types = tuple("full_attention" if i < first else "sliding_attention" for i in range(num_layers))
    return typed_mixers(heads, window, types)


def read_experts(facts: Facts, *keys: str, active_key: str = "num_experts_per_tok") -> tuple[int, int]:
    """(routed experts, how many a token uses); the first is at `keys`."""
    num_experts, active = facts.positive(*keys), facts.positive(active_key)
    if active > num_experts:
        raise facts.wrong(active_key, active, f"at most the number of experts, {num_experts}")
    return num_experts, active


def head_norms(head_dim: int) -> tuple[Weight, ...]:
    """Norms over one head's query and one head's key."""
    return (*norm("self_attn.q_norm", head_dim), *norm("self_attn.k_norm", head_dim))


def decoder_layers(
    mixers: list[Mixer],
    attention: tuple[Weight, ...],
    mlp: tuple[Weight, ...],
    hidden: int,
    width: int,
    *,
    norm_names: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm"),
    eager_softmax: EagerSoftmax = "fp32",
) -> list[Layer]:
    """Decoder layers with a gated MLP that differ in their mixer only.

    Gate, up and their product are alive together: 3 · width elements a token.
    """
    norms = tuple(weight for name in norm_names for weight in norm(name, hidden))
    weights = (*attention, *mlp, *norms)
    built = {
        mixer: Layer(mixers=(mixer,), weights=weights, mlp_activations=3 * width, eager_softmax=eager_softmax)
        for mixer in set(mixers)
    }
    return [built[mixer] for mixer in mixers]


def decoder(
    facts: Facts,
    layers: list[Layer],
    hidden: int,
    *,
    tied_default: bool | None = None,
    top: Facts | None = None,
    language_model: str = "ForCausalLM",
    family: str | None = None,
    head_bias: bool = False,
    final_norm: tuple[Weight, ...] | None = None,
) -> Reading:
    """The whole decoder: token table, layers, final RMSNorm (or `final_norm`), output head.

    `top` are the facts that name the class and tie the head, where they are not the text model's own; `family` is
    what the class's name begins with, where that is not the model type.
    """
    vocab = facts.positive("vocab_size")
    head, tied = causal_head(
        top or facts,
        hidden_size=hidden,
        vocab_size=vocab,
        tied_default=tied_default,
        language_model=language_model,
        family=family,
        bias=head_bias,
    )
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=table("embed_tokens", vocab, hidden),
        head=(*(norm("norm", hidden) if final_norm is None else final_norm), *head),
        tied_embeddings=tied,
        max_seq_len=facts.positions(),
    )
