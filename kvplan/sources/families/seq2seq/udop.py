"""Readers of documents in T5's lineage: UDOP, Pix2Struct.

Source: transformers 5.23, models/{udop,pix2struct}/.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads, cross, encoder, full
from kvplan.sources.families.bricks.parts import (
    Reading,
    class_suffix,
    column,
    gated_mlp,
    norm,
    projections,
    replicated,
    table,
    unknown_class,
)
from kvplan.sources.families.seq2seq.t5 import Block, decoder_blocks, encoder_blocks, num_decoder_layers, read_block
from kvplan.sources.families.towers.bricks import patches

_BUCKETS = 32
"""Buckets of a relative bias that does not say how many it has."""


def read_udop(facts: Facts) -> Reading:
    """UDOP: T5 over text and patches of a page, with biases by where things stand on it; its head is always the table.

    The patches join the text in the encoder, so that `encoder_seq_len` counts both.

    Source: transformers 5.23, models/udop/modeling_udop.py
    """
    suffix = class_suffix(facts)
    if suffix not in (None, "ForConditionalGeneration", "Model", "EncoderModel"):
        raise unknown_class(facts)
    block, alone = read_block(facts), suffix == "EncoderModel"
    hidden, vocab = block.hidden, facts.positive("vocab_size")
    layers = encoder_blocks(block, [block.feeding] * facts.layer_count("num_layers"))
    norms = norm("encoder.final_layer_norm", hidden)
    embeddings = (
        *table("shared", vocab, hidden),
        *_page_positions(facts, hidden),
        *_patches(facts, "patch_embed.proj", hidden),
        *_biases(facts, block, "encoder", own=suffix == "Model"),
    )
    if not alone:
        layers += decoder_blocks(block, [block.feeding] * num_decoder_layers(facts))
        norms = (*norms, *norm("decoder.final_layer_norm", hidden))
        embeddings += _patches(facts, "decoder.embed_patches.proj", hidden)
        embeddings += _biases(facts, block, "decoder", own=suffix == "Model")
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=embeddings,
        head=norms,
        tied_embeddings=suffix in (None, "ForConditionalGeneration"),
    )


def _page_positions(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    rows = facts.positive("max_2d_position_embeddings")
    names = ("x_position_embeddings", "y_position_embeddings")
    return tuple(
        weight for name in names for weight in table(f"encoder.cell_2d_embedding.{name}", rows, hidden, split=False)
    )


def _patches(facts: Facts, name: str, hidden: int) -> tuple[Weight, ...]:
    return patches(name, hidden, facts.positive("num_channels"), *facts.pair("patch_size"))


def _biases(facts: Facts, block: Block, side: str, *, own: bool) -> tuple[Weight, ...]:
    """The biases of a whole side, by default of one, of rows and of columns; the first is its first block's.

    `UdopModel` alone ties none of them (`own`).
    """
    sizes = [_BUCKETS] * 3
    if facts.has("relative_bias_args"):
        sizes = [_bias_rows(args) for args in facts.each("relative_bias_args")]
    heads = block.heads.num_heads
    return tuple(
        Weight(
            name=f"{side}.relative_bias.biases.{i}.relative_attention_bias.weight",
            shape=(rows, heads),
            part="attention",
            split=Split(1, heads),
        )
        for i, rows in enumerate(sizes)
        if own or i
    )


def _bias_rows(args: Facts) -> int:
    """Buckets, and two more for a prefix; `expand` makes those while it runs."""
    prefixed = args.flag("prefix_bucket", default=False) and not args.flag("expand", default=False)
    return args.positive("relative_attention_num_buckets", default=_BUCKETS) + 2 * prefixed


def read_pix2struct(facts: Facts) -> Reading:
    """Pix2Struct: an encoder of patches with positions by row and column, a gated decoder like T5's.

    `encoder_seq_len` counts patches: as many as the request's image is cut into, 2,048 by default.

    Source: transformers 5.23, models/pix2struct/modeling_pix2struct.py
    """
    if class_suffix(facts) not in (None, "ForConditionalGeneration"):
        raise unknown_class(facts)
    text, vision = facts.part("text_config"), facts.part("vision_config")
    hidden, vocab = text.positive("hidden_size"), text.positive("vocab_size")
    tied = facts.flag("tie_word_embeddings")
    seen = vision.positive("hidden_size")
    if seen != hidden:
        raise vision.wrong("hidden_size", seen, f"the decoder's, {hidden}")
    rows = vision.positive("seq_len")
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=_patch_layers(vision, seen) + _text_layers(text, hidden),
        embeddings=(
            *table("decoder.embed_tokens", vocab, hidden),
            *replicated(
                "encoder.patch_projection", seen, vision.positive("patch_embed_hidden_size"), "embeddings", bias=True
            ),
            *table("encoder.row_embedder", rows, seen, split=False),
            *table("encoder.column_embedder", rows, seen, split=False),
        ),
        head=(
            *norm("encoder.layernorm", seen),
            *norm("decoder.final_layer_norm", hidden),
            *(() if tied else column("decoder.lm_head", vocab, hidden, "head")),
        ),
        tied_embeddings=tied,
    )


def _patch_layers(facts: Facts, hidden: int) -> list[Layer]:
    num_heads, width = facts.positive("num_attention_heads"), facts.positive("d_ff")
    heads = Heads(num_heads=num_heads, num_kv_heads=num_heads, head_dim=facts.positive("d_kv"))
    weights = (
        *projections(heads, hidden, prefix="attention", names=("query", "key", "value", "output")),
        *gated_mlp(hidden, width, names=("wi_0", "wi_1", "wo")),
        *norm("pre_attention_layer_norm", hidden),
        *norm("pre_mlp_layer_norm", hidden),
    )
    layer = Layer(mixers=(encoder(heads),), weights=weights, mlp_activations=3 * width)
    return [layer] * facts.layer_count("num_hidden_layers")


def _text_layers(facts: Facts, hidden: int) -> list[Layer]:
    """Layers whose heads, `num_heads` of `d_kv`, have to fill the hidden size; the first holds the positions."""
    num_heads, width, size = facts.positive("num_heads"), facts.positive("d_ff"), facts.positive("d_kv")
    if num_heads * size != hidden:
        raise facts.wrong("num_heads", num_heads, f"`hidden_size` / `d_kv`, {hidden} / {size}")
    heads = Heads(num_heads=num_heads, num_kv_heads=num_heads, head_dim=size)
    weights: list[Weight] = []
    for name in ("self_attention", "encoder_decoder_attention"):
        weights += projections(heads, hidden, prefix=f"{name}.attention", names=("query", "key", "value", "output"))
        weights += norm(f"{name}.layer_norm", hidden)
    weights += gated_mlp(hidden, width, prefix="mlp.DenseReluDense", names=("wi_0", "wi_1", "wo"))
    weights += norm("mlp.layer_norm", hidden)
    buckets = facts.positive("relative_attention_num_buckets")
    bias = Weight(
        name="self_attention.attention.relative_attention_bias.weight",
        shape=(buckets, num_heads),
        part="attention",
        split=Split(1, num_heads),
    )
    later = Layer(mixers=(full(heads), cross(heads)), weights=tuple(weights), mlp_activations=3 * width)
    first = replace(later, weights=(*later.weights, bias))
    return [first] + [later] * (facts.layer_count("num_layers") - 1)
