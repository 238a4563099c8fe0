"""An architecture that kvplan does not know, between two bounds: what its config allows at least and at most.

    most    every layer attends to everything with keys and values of every KV head, and keeps a state as well where a
            key hints at one; gated MLPs, two tables, biases, towers with wide projectors
    least   what the config hints at (a window, a latent, a state) in every layer, nothing where layers may share or
            where nothing may be generated; plain MLPs of half the stated width, one tied table, no towers

Asked for by `--assume full` only, and never one number. What no bound is known for is refused: encoder-decoders, layers
that are described one by one, an MLP whose width is not stated.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from kvplan.core.errors import UnsupportedError
from kvplan.core.mixers import FullAttention, LatentAttention, LinearAttention, Mixer, SlidingAttention
from kvplan.core.model import Layer, Part, Weight
from kvplan.sources.facts import LANGUAGE_MODELS, Facts
from kvplan.sources.families.bricks.mixers import Heads
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

_TOWERS = ("vision_config", "audio_config", "visual", "vision_tower_config", "speech_config", "img_processor")
HIDDEN = ("hidden_size", "d_model", "n_embd", "dim", "model_dim")
LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads", "multi_query_group_num")
WIDTH = ("intermediate_size", "ffn_hidden_size", "ffn_dim", "d_ff", "n_inner", "ffn_intermediate_size")
VOCABULARY = ("vocab_size", "padded_vocab_size", "n_vocab")
EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
EXPERT_WIDTH = ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size")
_STATES = (
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
_SMALLER = (
    "share",
    "cross_attention",
    "k_eq_v",
    "chunk",
    "compress",
    "global_",
    "index_",
    "nope_layer",
    "layers_block",
)
_INDEXERS = ("index", "sparse_attention")
_ONE_BY_ONE = ("block_configs", "per_layer_config", "num_query_heads", "ffn_multipliers")
_TWO_SIDES = ("num_decoder_layers", "decoder_layers", "encoder_layers", "relative_attention_num_buckets")
_PLAIN_LAYERS = ("full_attention", "sliding_attention", "attention")
_WIDEST_STATE = 256
"""Elements of state for each of four times the hidden size: no published mixer keeps more in a layer."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the most that a config allows, and what makes the difference."""

    least: Reading
    most: Reading
    reasons: tuple[str, ...]


def read_bounds(facts: Facts) -> Bounds:
    """Both bounds of a config. Raises InputError where it does not even state layers, heads and widths,
    UnsupportedError where nothing bounds it."""
    text = next((facts.nested(key) for key in LANGUAGE_MODELS if facts.has(key)), facts)
    _refuse_unbounded(facts, text)
    reasons = ["each layer has weights of its own, and no others than attention and an MLP"]
    hidden, num_layers, vocab = text.positive(*HIDDEN), text.layer_count(*LAYERS), text.positive(*VOCABULARY)
    fewest, most = _heads(text, hidden, reasons)
    least_mlp, most_mlp, widths = _mlps(text, hidden, reasons)
    reasons += ["one table for tokens and output, or two", "MLPs of two matrices, or three", "biases or none"]
    norms = tuple(weight for i in range(4) for weight in norm(f"norm_{i}", hidden, bias=True))
    least_layer = Layer(
        mixers=_least_mixers(facts, text, fewest, reasons),
        weights=(*projections(fewest, hidden), *least_mlp),
        mlp_activations=widths[0],
    )
    most_layer = Layer(
        mixers=_most_mixers(text, most, hidden),
        weights=(
            *projections(most, hidden, qkv_bias=True, out_bias=True),
            *most_mlp,
            *norms,
            *_gates(text, most, hidden),
        ),
        mlp_activations=widths[1],
    )
    tokens = table("embed_tokens", vocab, hidden)
    towers = tuple(_towers(facts, hidden, reasons)) + _tables_by_layer(text, vocab, num_layers, hidden, reasons)
    head = (*norm("norm", hidden, bias=True), *column("lm_head", vocab, hidden, "head", bias=True))
    limit = text.integer("max_position_embeddings", "max_seq_len", "seq_length", default=None)
    least = Reading(
        hidden_size=hidden, vocab_size=vocab, layers=[least_layer] * num_layers, embeddings=tokens, head=(),
        tied_embeddings=True, max_seq_len=limit,
    )  # fmt: skip
    positions = table("positions", limit or 1, hidden, split=False)
    whole = Reading(
        hidden_size=hidden, vocab_size=vocab, layers=[most_layer] * num_layers,
        embeddings=(*tokens, *positions, *towers), head=head, max_seq_len=limit,
    )  # fmt: skip
    return Bounds(least, whole, tuple(reasons))


def _refuse_unbounded(facts: Facts, text: Facts) -> None:
    """Raise UnsupportedError for what no number of the config bounds."""
    if any(text.has(key) for key in _ONE_BY_ONE):
        what = "layers that are described one by one"
    elif facts.is_on("is_encoder_decoder") or any(text.has(key) for key in _TWO_SIDES):
        what = "an encoder-decoder"
    else:
        return
    raise UnsupportedError(
        f"`{facts.model_type}` is not understood, and {what} cannot be bounded by its config",
        hint="a model type that kvplan reads may fit: `--set model_type=NAME` (`kvplan models --types`)",
    )


def _heads(text: Facts, hidden: int, reasons: list[str]) -> tuple[Heads, Heads]:
    """Heads at least and at most, over all kinds of layers that the config gives numbers for.

    Without a stated number of KV heads, from one to as many as query heads; without a stated width, up to twice the
    quotient.
    """
    num_heads = text.positive(*HEADS)
    quotient = max(1, hidden // num_heads)
    widths = _numbers(text, ("head_dim", "kv_channels", "d_kv"))
    rope, nope = text.integer("qk_rope_head_dim", default=0), text.integer("qk_nope_head_dim", default=0)
    if not widths:
        reasons.append("the config states no width of a head: hidden size by heads, or up to twice that")
    stated = _numbers(text, KV_HEADS)
    if not stated:
        reasons.append("the config states no number of KV heads: from 1 to as many as query heads")
    most_heads = max(_numbers(text, HEADS) or [num_heads])
    return (
        Heads(num_heads=num_heads, num_kv_heads=min(stated, default=1), head_dim=min([*widths, quotient])),
        Heads(
            num_heads=max(num_heads, most_heads),
            num_kv_heads=max(stated, default=num_heads),
            head_dim=max([*widths, rope + nope, quotient if widths else 2 * quotient]),
        ),
    )


def _numbers(text: Facts, names: tuple[str, ...]) -> list[int]:
    """The numbers that the config states at keys which end in one of `names`: `swa_head_dim` is one of `head_dim`."""
    keys = sorted(key for key in text.stated_keys() if key.endswith(names) and text.is_on(key))
    return [text.positive(key) for key in keys if not text.is_text(key)]


def _least_mixers(facts: Facts, text: Facts, heads: Heads, reasons: list[str]) -> tuple[Mixer, ...]:
    """The cheapest that the config hints at."""
    name = facts.architecture() or ""
    looks_both_ways = text.states("is_decoder") and not text.is_on("is_decoder")
    if looks_both_ways or not name.endswith(("CausalLM", "ConditionalGeneration", "LMHeadModel")):
        reasons.append("nothing says that the model generates: an encoder keeps no cache")
        return ()
    hints = sorted(key for key in text.stated_keys() if _hints(text, key, (*_STATES, *_SMALLER)))
    if hints:
        reasons.append(f"`{hints[0]}` hints at layers that keep a fixed state, another layer's cache or less")
        return ()
    if text.has("kv_lora_rank"):
        latent, rope = text.positive("kv_lora_rank"), text.integer("qk_rope_head_dim", default=0)
        reasons.append("`kv_lora_rank` hints at latent attention: a latent, or all heads expanded")
        width = heads.head_dim
        return (
            LatentAttention(
                num_heads=heads.num_heads, latent_dim=latent, rope_dim=rope, key_dim=width, value_dim=width
            ),
        )
    window = text.integer("sliding_window", "sliding_window_size", "attention_window_size", default=None)
    if not window:
        return (_full(heads),)
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


def _most_mixers(text: Facts, heads: Heads, hidden: int) -> tuple[Mixer, ...]:
    """Attention to everything; beside it an indexer's key and a state, where keys hint at them."""
    index = max((text.integer(key, default=0) for key in ("index_head_dim", "indexer_head_dim")), default=0)
    attention = _full(heads, index_dim=index or (heads.head_dim if _any(text, _INDEXERS) else 0))
    if not _any(text, _STATES):
        return (attention,)
    state = LinearAttention(
        num_heads=1,
        num_key_heads=1,
        key_dim=4 * hidden,
        value_dim=_WIDEST_STATE,
        conv_channels=12 * hidden,
        conv_columns=8,
    )
    return (attention, state)


def _full(heads: Heads, *, index_dim: int = 0) -> FullAttention:
    return FullAttention(
        num_heads=heads.num_heads,
        num_kv_heads=heads.num_kv_heads,
        key_dim=heads.head_dim,
        value_dim=heads.head_dim,
        index_dim=index_dim,
    )


def _gates(text: Facts, heads: Heads, hidden: int) -> tuple[Weight, ...]:
    """What may stand beside attention: a gate of its output, an indexer, a recurrent mixer's projections."""
    gate = column("gate", heads.num_heads * heads.head_dim, hidden, "attention", bias=True)
    rows = (12 if _any(text, _STATES) else 0) + (1 if _any(text, _INDEXERS) else 0)
    inner = column("mixer", rows * hidden, hidden, "attention") if rows else ()
    if not _any(text, ("cross",)):
        return (*gate, *inner)
    width = text.integer(*WIDTH, default=None) or 4 * hidden
    across = (*projections(heads, hidden, qkv_bias=True, out_bias=True), *gated_mlp(hidden, width, bias=True))
    return (*gate, *inner, *across)


def _mlps(
    text: Facts, hidden: int, reasons: list[str]
) -> tuple[tuple[Weight, ...], tuple[Weight, ...], tuple[int, int]]:
    """(weights at least, weights at most, their widths per token); some files state the width of both halves."""
    num_experts = text.integer(*EXPERTS, default=None)
    own = text.integer(*EXPERT_WIDTH, default=None)
    width = text.integer(*WIDTH, default=None) or own or text.positive("intermediate_size")
    half = max(1, min(own or width, width) // 2)
    plain = plain_mlp(hidden, half, up="mlp.up", down="mlp.down", bias=False)
    if not num_experts:
        return plain, gated_mlp(hidden, width, bias=True), (2 * half, 3 * width)
    own = own or width
    active = text.integer("num_experts_per_tok", "moe_topk", "moe_k", default=None) or num_experts
    shared = max(_numbers(text, ("shared_experts", "shared_expert")), default=0)
    beside = max(width, shared * own, text.integer("shared_expert_intermediate_size", default=0))
    reasons.append("experts in some of the layers, or in all, beside a dense MLP or in its place")
    routed = experts(gated_mlp(hidden, own, bias=True), num_experts=num_experts, active=active)
    router = replicated("mlp.gate", num_experts, hidden, "router", bias=True)
    most = (*router, *routed, *gated_mlp(hidden, beside, prefix="mlp.shared", bias=True))
    return plain, most, (2 * half, 3 * (active * own + beside))


def _towers(facts: Facts, hidden: int, reasons: list[str]) -> Iterator[Weight]:
    """Towers under nested configs, as large as one of their depth and width can be, with projectors into the text."""
    for key in sorted(facts.stated_keys()):
        if key in LANGUAGE_MODELS or not (key in _TOWERS or key.endswith("_config")) or not facts.has(key):
            continue
        tower = facts.nested(key)
        width = tower.integer(*HIDDEN, "width", "embed_dim", "hidden_dim", default=None)
        depth = tower.integer(*LAYERS, "depth", "layers", "encoder_layers", default=None)
        if key not in _TOWERS and not (width and depth):
            continue
        if not width or not depth:
            raise UnsupportedError(
                f"`{facts.model_type}` is not understood, and its `{key}` states no depth and width to bound it by",
                hint=f"pass `--set {key}.hidden_size=N` and `--set {key}.num_hidden_layers=N`",
            )
        reasons.append(f"the tower under `{key}` is counted by its depth and width, or not at all")
        part: Part = "audio" if "audio" in key or "speech" in key else "vision"
        wide = tower.integer(*WIDTH, default=None) or 8 * width
        shapes = {"attention": (5 * width + 8, width), "mlp": (3 * wide + 8, width)}
        for name, shape in shapes.items():
            yield Weight(name=f"{key}.{name}", shape=shape, part=part, copies=depth + 4)
        merged = 4 * width
        yield Weight(name=f"{key}.patches", shape=(width, 8192), part=part)
        yield Weight(name=f"{key}.projector", shape=(merged + 2 * hidden, merged + hidden), part=part, copies=4)


def _tables_by_layer(text: Facts, vocab: int, num_layers: int, hidden: int, reasons: list[str]) -> tuple[Weight, ...]:
    """Embeddings that every layer has of its own, where a key states their width."""
    width = text.integer("hidden_size_per_layer_input", default=None)
    if not width:
        return ()
    reasons.append("`hidden_size_per_layer_input` hints at embeddings of each layer's own")
    words = text.integer("vocab_size_per_layer_input", default=None) or vocab
    return (
        *table("embed_by_layer", words, num_layers * width),
        *replicated("by_layer", 4 * num_layers * width, hidden, "mlp"),
    )


def _any(text: Facts, words: tuple[str, ...]) -> bool:
    return any(_hints(text, key, words) for key in text.stated_keys())


def _hints(text: Facts, key: str, words: tuple[str, ...]) -> bool:
    """Whether a key is there, on, and called as one of `words`; `layer_types` hints by what it lists."""
    if key == "layer_types":
        return any(name not in _PLAIN_LAYERS for name in text.strings(key) or ())
    name = key.lower()
    return "expert" not in name and any(word in name for word in words) and text.is_on(key)
