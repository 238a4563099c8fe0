"""Llama and its direct line: mistral, mixtral, qwen2, qwen3, phi3.

Source: transformers 5.23, models/{llama,mistral,mixtral,qwen2,qwen3,phi3}/.
"""

from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.model import FullAttention, Layer, Mixer, SlidingAttention, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.parts import (
    Heads,
    Reading,
    causal_head,
    experts,
    gated_mlp,
    norm,
    projections,
    read_heads,
    replicated,
    table,
)


def read_llama(facts: Facts) -> Reading:
    """Llama 1-3.x: full attention, gated MLP, RMSNorm."""
    hidden = facts.positive("hidden_size")
    heads = read_heads(facts, hidden)
    bias = facts.flag("attention_bias", default=False)
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    width = facts.positive("intermediate_size")
    mlp = gated_mlp(hidden, width, bias=facts.flag("mlp_bias", default=False))
    layer = decoder_layer(full(heads), attention, mlp, hidden, width)
    return decoder(facts, [layer] * facts.positive("num_hidden_layers"), hidden)


def read_mistral(facts: Facts) -> Reading:
    """Mistral: Llama with one window for every layer, unless the config states null."""
    hidden = facts.positive("hidden_size")
    heads = read_heads(facts, hidden, num_kv_heads=8)
    width = facts.positive("intermediate_size")
    mixer = windowed(heads, facts.nullable("sliding_window", default=4096))
    layer = decoder_layer(mixer, projections(heads, hidden), gated_mlp(hidden, width), hidden, width)
    return decoder(facts, [layer] * facts.positive("num_hidden_layers"), hidden)


def read_mixtral(facts: Facts) -> Reading:
    """Mixtral: Mistral with routed experts for the MLP."""
    hidden = facts.positive("hidden_size")
    heads = read_heads(facts, hidden, num_kv_heads=8)
    width = facts.positive("intermediate_size")
    num_experts, active = facts.positive("num_local_experts"), facts.positive("num_experts_per_tok")
    expert = gated_mlp(hidden, width, prefix="mlp.experts")
    moe = (
        *replicated("mlp.gate", num_experts, hidden, "router"),
        *experts(expert, num_experts=num_experts, active=active),
    )
    mixer = windowed(heads, facts.integer("sliding_window", default=None))
    layer = decoder_layer(mixer, projections(heads, hidden), moe, hidden, width * active)
    return decoder(facts, [layer] * facts.positive("num_hidden_layers"), hidden)


def read_qwen2(facts: Facts) -> Reading:
    """Qwen 1.5-2.5: biases on q, k and v; a window only where `use_sliding_window` says so."""
    hidden = facts.positive("hidden_size")
    heads = read_heads(facts, hidden)
    width = facts.positive("intermediate_size")
    attention = projections(heads, hidden, qkv_bias=True)
    layers = [
        decoder_layer(mixer, attention, gated_mlp(hidden, width), hidden, width) for mixer in qwen_mixers(facts, heads)
    ]
    return decoder(facts, layers, hidden)


def read_qwen3(facts: Facts) -> Reading:
    """Qwen3: its own head_dim (128 where unstated), a norm on each head's query and key."""
    hidden = facts.positive("hidden_size")
    heads = read_heads(facts, hidden, head_dim=128)
    bias = facts.flag("attention_bias", default=False)
    attention = (*projections(heads, hidden, qkv_bias=bias, out_bias=bias), *head_norms(heads.head_dim))
    width = facts.positive("intermediate_size")
    layers = [
        decoder_layer(mixer, attention, gated_mlp(hidden, width), hidden, width) for mixer in qwen_mixers(facts, heads)
    ]
    return decoder(facts, layers, hidden)


def read_phi3(facts: Facts) -> Reading:
    """Phi-3 and Phi-4: fused projections, and a window for every layer where the config states one."""
    hidden = facts.positive("hidden_size")
    heads = read_heads(facts, hidden)
    width = facts.positive("intermediate_size")
    fused = ("qkv_proj[q]", "qkv_proj[k]", "qkv_proj[v]", "o_proj")
    mlp_names = ("gate_up_proj[gate]", "gate_up_proj[up]", "down_proj")
    layer = decoder_layer(
        windowed(heads, facts.integer("sliding_window", default=None)),
        projections(heads, hidden, names=fused),
        gated_mlp(hidden, width, names=mlp_names),
        hidden,
        width,
    )
    return decoder(facts, [layer] * facts.positive("num_hidden_layers"), hidden)


def full(heads: Heads) -> FullAttention:
    """Full attention with equal key and value dims."""
    return FullAttention(
        num_heads=heads.num_heads, num_kv_heads=heads.num_kv_heads, key_dim=heads.head_dim, value_dim=heads.head_dim
    )


def windowed(heads: Heads, window: int | None) -> FullAttention | SlidingAttention:
    """Sliding attention where there is a window, else full."""
    if not window:
        return full(heads)
    return SlidingAttention(
        num_heads=heads.num_heads,
        num_kv_heads=heads.num_kv_heads,
        key_dim=heads.head_dim,
        value_dim=heads.head_dim,
        window=window,
    )


def typed_mixers(heads: Heads, window: int | None, layer_types: tuple[str, ...]) -> list[Mixer]:
    """One mixer per entry of `layer_types`; a type that is neither full nor sliding is an error."""
    if window is None and "sliding_attention" in layer_types:
        raise InputError(
            "`layer_types` names sliding layers, but the config states no window",
            hint="pass `--set sliding_window=TOKENS` (Qwen also needs `--set use_sliding_window=true`)",
        )
    mixers: dict[str, Mixer] = {"full_attention": full(heads), "sliding_attention": windowed(heads, window)}
    for name in layer_types:
        if name not in mixers:
            raise UnsupportedError(
                f"`layer_types` names `{name}`, which kvplan does not know for this family",
                hint="known here: full_attention, sliding_attention",
            )
    return [mixers[name] for name in layer_types]


def qwen_mixers(facts: Facts, heads: Heads) -> list[Mixer]:
    """`layer_types` where stated; else layers from `max_window_layers` on slide, if windows are on at all."""
    num_layers = facts.positive("num_hidden_layers")
    uses_window = facts.flag("use_sliding_window", default=False)
    window = facts.integer("sliding_window", default=4096) if uses_window else None
    types = facts.strings("layer_types", length=num_layers)
    if types is None:
        first = facts.integer("max_window_layers", default=28) if uses_window else num_layers
        types = tuple("full_attention" if i < first else "sliding_attention" for i in range(num_layers))
    return typed_mixers(heads, window, types)


def head_norms(head_dim: int) -> tuple[Weight, ...]:
    """Norms over one head's query and one head's key."""
    return (*norm("self_attn.q_norm", head_dim), *norm("self_attn.k_norm", head_dim))


def decoder_layer(
    mixer: Mixer, attention: tuple[Weight, ...], mlp: tuple[Weight, ...], hidden: int, width: int
) -> Layer:
    """A pre-norm decoder layer with a gated MLP: gate, up and their product are alive together."""
    norms = (*norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))
    return Layer(mixers=(mixer,), weights=(*attention, *mlp, *norms), mlp_activations=3 * width)


def decoder(facts: Facts, layers: list[Layer], hidden: int, *, tied_default: bool = False) -> Reading:
    """The whole decoder: token table, layers, final RMSNorm, output head."""
    vocab = facts.positive("vocab_size")
    tied = facts.flag("tie_word_embeddings", default=tied_default)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=table("embed_tokens", vocab, hidden),
        head=(*norm("norm", hidden), *causal_head(facts, hidden_size=hidden, vocab_size=vocab, tied=tied)),
        tied_embeddings=tied,
        max_seq_len=facts.integer("max_position_embeddings", default=None),
    )


