"""The Byte Latent Transformer: blt, small transformers over bytes around a large one over patches of them.

Source: transformers 5.23, models/blt/; Pagnoni et al. 2024, https://arxiv.org/abs/2412.09871
"""

from dataclasses import replace

from kvplan.core.mixers import FullAttention, Mixer, SlidingAttention
from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import layer_weights
from kvplan.sources.families.bricks.halves import dense_half, half_decoder
from kvplan.sources.families.bricks.mixers import Heads, full, require_divisor, windowed
from kvplan.sources.families.bricks.parts import Reading, causal_head, norm, projections, replicated, table
from kvplan.sources.families.towers.bricks import loose

_GROUP_SIZES = (3, 4, 5, 6, 7, 8)


def read_blt(facts: Facts) -> Reading:
    """An encoder and a decoder of bytes, which slide; the transformer over patches between them and the one that
    finds patches run anew over everything at each step, and are counted as weights.

    Source: transformers 5.23, models/blt/modeling_blt.py `BltModel`
    """
    encoder, decoder = facts.part("encoder_config"), facts.part("decoder_config")
    window = facts.nullable("local_attention_window_len")
    encoding = _local_layers(encoder, window, looks_last=True)
    decoding = _local_layers(decoder, window, looks_last=False)
    hidden, vocab = decoder.positive("hidden_size"), facts.positive("vocab_size")
    head, tied = causal_head(facts, hidden_size=hidden, vocab_size=vocab)
    seen, out = encoder.positive("hidden_size"), hidden * decoder.positive("cross_attn_k")
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=[*encoding, *decoding],
        embeddings=(
            *table("local_encoder.embed_tokens", encoder.positive("vocab_size"), seen),
            *_groups(facts, seen),
            *replicated(
                "local_encoder.patch_embedding_projection", seen * encoder.positive("cross_attn_k"), seen, "mlp"
            ),
            *replicated("local_decoder.patch_embedding_projection", out, decoder.positive("hidden_size_global"), "mlp"),
            *_global(facts, seen * facts.positive("cross_attn_k")),
            *(_patcher(facts.part("patcher_config")) if facts.flag("patch_in_forward") else ()),
        ),
        head=(*norm("local_decoder.norm", hidden), *head),
        tied_embeddings=tied,
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _groups(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """One table for the hashes of all groups of bytes."""
    sizes = facts.integers("encoder_hash_byte_group_size") or _GROUP_SIZES
    count = len(sizes) * facts.positive("encoder_hash_byte_group_nb_functions")
    return table("encoder_hash_tok_embedding", count * facts.positive("encoder_hash_byte_group_vocab"), hidden)


def _heads(facts: Facts, hidden: int) -> Heads:
    num_heads = facts.positive("num_attention_heads")
    num_kv_heads = facts.nullable("num_key_value_heads") or num_heads
    require_divisor(facts, "num_attention_heads", num_heads, "hidden_size", hidden)
    require_divisor(facts, "num_key_value_heads", num_kv_heads, "num_attention_heads", num_heads)
    return Heads(num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=hidden // num_heads)


def _layers(facts: Facts, mixer: Mixer, heads: Heads, hidden: int) -> list[Layer]:
    """Llama's layer, by default with an MLP of 8/3 its width."""
    width = facts.nullable("intermediate_size") or int(8 * hidden / 3)
    num_layers = facts.layer_count("num_hidden_layers")
    feeding = [dense_half(hidden, width)] * num_layers
    return half_decoder(hidden, [mixer] * num_layers, projections(heads, hidden), feeding)


def _local_layers(facts: Facts, window: int | None, *, looks_last: bool) -> list[Layer]:
    """Layers over bytes; patches look at the encoder's, and the decoder's look at patches, in all layers or in one.

    Nothing is kept for that: it is a product of the step's own patches.

    Source: transformers 5.23, models/blt/modeling_blt.py `BltCrossAttention`
    """
    hidden = facts.positive("hidden_size")
    heads = _heads(facts, hidden)
    mixer: FullAttention | SlidingAttention = windowed(heads, window)
    if isinstance(mixer, SlidingAttention):
        mixer = replace(mixer, transformers_keeps_all=True)
    layers = _layers(facts, mixer, heads, hidden)
    across = (
        *projections(heads, hidden, prefix="cross_attn"),
        *norm("cross_attn.q_norm", hidden),
        *norm("cross_attn.k_norm", hidden),
    )
    looking = replace(layers[0], weights=(*layers[0].weights, *across))
    if facts.flag("cross_attn_all_layers"):
        return [looking] * len(layers)
    return [*layers[1:], looking] if looks_last else [looking, *layers[1:]]


def _global(facts: Facts, seen: int) -> tuple[Weight, ...]:
    """The transformer over patches, with a linear before it where its width is not that of a patch.

    Source: transformers 5.23, models/blt/modeling_blt.py `BltGlobalTransformer`
    """
    inner = facts.part("global_config")
    hidden = inner.positive("hidden_size")
    heads = _heads(inner, hidden)
    weights = layer_weights(_layers(inner, full(heads), heads, hidden))
    entry = replicated("token_embedding_projection", hidden, seen, "mlp") if seen != hidden else ()
    return _named("global_transformer", (*entry, *weights))


def _patcher(facts: Facts) -> tuple[Weight, ...]:
    """A small language model of bytes, whose doubt ends a patch.

    Source: transformers 5.23, models/blt/modeling_blt.py `BltPatcher`
    """
    hidden, vocab = facts.positive("hidden_size"), facts.positive("vocab_size")
    heads = _heads(facts, hidden)
    weights = (
        loose("embed_tokens.weight", vocab, hidden, part="embeddings"),
        *layer_weights(_layers(facts, full(heads), heads, hidden)),
        *norm("norm", hidden),
        *replicated("lm_head", vocab, hidden, "mlp"),
    )
    return _named("patcher", weights)


def _named(prefix: str, weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    """Under the prefix, each in the part that it is."""
    return tuple(replace(weight, name=f"{prefix}.{weight.name}") for weight in weights)
