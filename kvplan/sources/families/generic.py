"""An architecture that kvplan does not know, between two bounds: what its config allows at least and at most.

    most    every layer attends to everything with keys and values of every KV head; gated MLPs, untied tables, biases
    least   what the config hints at (a window, a latent, a state) in every layer; plain MLPs, one tied table

Asked for by `--assume full` only, and never one number. What is called by a name that is not below is not seen.
"""

from dataclasses import dataclass

from kvplan.core.mixers import FullAttention, LatentAttention, Mixer, SlidingAttention
from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads, full
from kvplan.sources.families.bricks.parts import (
    Reading,
    column,
    experts,
    gated_mlp,
    norm,
    plain_mlp,
    projections,
    replicated,
    table,
)

_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
_TOWERS = ("vision_config", "audio_config", "visual", "vision_tower_config", "speech_config")
HIDDEN = ("hidden_size", "d_model", "n_embd", "dim", "model_dim")
LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads", "multi_query_group_num")
WIDTH = ("intermediate_size", "ffn_hidden_size", "ffn_dim", "d_ff", "n_inner", "ffn_intermediate_size")
VOCABULARY = ("vocab_size", "padded_vocab_size", "n_vocab")
EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
EXPERT_WIDTH = ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size")
_STATE_WORDS = (
    "ssm",
    "mamba",
    "linear_",
    "conv",
    "rwkv",
    "lru",
    "recurrent",
    "state_size",
    "delta",
    "retention",
    "lightning",
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the most that a config allows, and what makes the difference."""

    least: Reading
    most: Reading
    reasons: tuple[str, ...]


def read_bounds(facts: Facts) -> Bounds:
    """Both bounds of a config. Raises InputError where it does not even state layers, heads and width."""
    text = next((facts.nested(key) for key in _NESTED if facts.has(key)), facts)
    reasons: list[str] = []
    hidden, num_layers = text.positive(*HIDDEN), text.layer_count(*LAYERS)
    fewest, most = _heads(text, hidden, reasons)
    vocab = text.positive(*VOCABULARY)
    least_mlp, most_mlp, widths = _mlps(text, hidden, reasons)
    towers = _towers(facts, reasons)
    reasons += ["one table for tokens and output, or two", "MLPs of two matrices, or three", "biases or none"]
    norms = (*norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))
    biased = tuple(weight for i in range(4) for weight in norm(f"norm_{i}", hidden, bias=True))
    least_layer = Layer(
        mixers=_least_mixer(text, fewest, reasons),
        weights=(*projections(fewest, hidden), *least_mlp, *norms),
        mlp_activations=widths[0],
    )
    most_layer = Layer(
        mixers=(full(most),),
        weights=(*projections(most, hidden, qkv_bias=True, out_bias=True), *most_mlp, *biased),
        mlp_activations=widths[1],
    )
    tokens, last = table("embed_tokens", vocab, hidden), norm("norm", hidden)

    def whole(layer: Layer, *, tied: bool) -> Reading:
        return Reading(
            hidden_size=hidden,
            vocab_size=vocab,
            layers=[layer] * num_layers,
            embeddings=tokens if tied else (*tokens, *towers),
            head=last if tied else (*last, *column("lm_head", vocab, hidden, "head", bias=True)),
            tied_embeddings=tied,
            max_seq_len=text.integer("max_position_embeddings", "max_seq_len", "seq_length", default=None),
        )

    return Bounds(whole(least_layer, tied=True), whole(most_layer, tied=False), tuple(reasons))


def _heads(text: Facts, hidden: int, reasons: list[str]) -> tuple[Heads, Heads]:
    """Heads at least and at most: without a stated number of KV heads, from one to as many as query heads."""
    num_heads = text.positive(*HEADS)
    head_dim = text.positive("head_dim", "kv_channels", default=max(1, hidden // num_heads))
    stated = text.integer(*KV_HEADS, default=None)
    if not stated:
        reasons.append("the config states no number of KV heads: from 1 to as many as query heads")
    return (
        Heads(num_heads=num_heads, num_kv_heads=stated or 1, head_dim=head_dim),
        Heads(num_heads=num_heads, num_kv_heads=stated or num_heads, head_dim=head_dim),
    )


def _least_mixer(text: Facts, heads: Heads, reasons: list[str]) -> tuple[Mixer, ...]:
    """The cheapest mixer that the config hints at."""
    hints = sorted(key for key in text.stated_keys() if any(word in key.lower() for word in _STATE_WORDS))
    if hints:
        reasons.append(f"`{hints[0]}` hints at layers whose cache does not grow: between none and all of them")
        return ()
    attention: FullAttention = full(heads)
    if text.has("kv_lora_rank"):
        latent, rope = text.positive("kv_lora_rank"), text.integer("qk_rope_head_dim", default=0)
        reasons.append("`kv_lora_rank` hints at latent attention: a latent, or all heads expanded")
        return (
            LatentAttention(
                num_heads=heads.num_heads,
                latent_dim=latent,
                rope_dim=rope,
                key_dim=attention.key_dim,
                value_dim=attention.value_dim,
            ),
        )
    window = text.integer("sliding_window", "sliding_window_size", "attention_window_size", default=None)
    if window:
        reasons.append("`sliding_window` is stated: between none and all of the layers may slide")
        return (
            SlidingAttention(
                num_heads=heads.num_heads,
                num_kv_heads=heads.num_kv_heads,
                key_dim=heads.head_dim,
                value_dim=heads.head_dim,
                window=window,
            ),
        )
    return (attention,)


def _mlps(
    text: Facts, hidden: int, reasons: list[str]
) -> tuple[tuple[Weight, ...], tuple[Weight, ...], tuple[int, int]]:
    """(weights at least, weights at most, their widths per token)."""
    width = text.integer(*WIDTH, default=None) or 4 * hidden
    plain, gated = (
        plain_mlp(hidden, width, up="mlp.up", down="mlp.down", bias=False),
        gated_mlp(hidden, width, bias=True),
    )
    num_experts = text.integer(*EXPERTS, default=None)
    if not num_experts:
        return plain, gated, (2 * width, 3 * width)
    own = text.integer(*EXPERT_WIDTH, default=None) or width
    active = text.integer("num_experts_per_tok", "moe_topk", "moe_k", default=None) or num_experts
    shared = text.integer("n_shared_experts", "num_shared_experts", "num_shared_expert", default=None) or 0
    reasons.append("experts in some of the layers, or in all, beside a dense MLP or in its place")
    router = replicated("mlp.gate", num_experts, hidden, "router")
    few = plain_mlp(hidden, min(own, width), up="mlp.up", down="mlp.down", bias=False)
    routed = experts(gated_mlp(hidden, own, bias=True), num_experts=num_experts, active=active)
    most = (*router, *routed, *gated_mlp(hidden, max(width, shared * own), prefix="mlp.shared", bias=True))
    return few, most, (2 * min(own, width), 3 * (active * own + max(width, shared * own)))


def _towers(facts: Facts, reasons: list[str]) -> tuple[Weight, ...]:
    """A tower under a nested config, as large as one of its depth and width can be."""
    found: list[Weight] = []
    for key in _TOWERS:
        if not facts.has(key):
            continue
        tower = facts.nested(key)
        width, depth = (
            tower.integer(*HIDDEN, "width", "embed_dim", default=None),
            tower.integer(*LAYERS, "depth", default=None),
        )
        reasons.append(f"the tower under `{key}` is counted by its depth and width, or not at all")
        if width and depth:
            wide = tower.integer(*WIDTH, default=None) or 4 * width
            part = "audio" if "audio" in key or "speech" in key else "vision"
            layer = (
                *gated_mlp(width, wide, prefix=key, bias=True),
                *column(f"{key}.attention", 4 * width + 4, width, "vision"),
            )
            found += [
                Weight(
                    name=weight.name,
                    shape=weight.shape,
                    part="audio" if part == "audio" else "vision",
                    copies=depth + 1,
                )
                for weight in layer
            ]
    return tuple(found)
