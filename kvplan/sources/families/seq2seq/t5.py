"""T5 and what is built like it: Flan-T5, mT5, UMT5, LongT5, Switch Transformers: relative positions and no biases.

Source: transformers 5.23, models/{t5,mt5,umt5,longt5,switch_transformers,pop2piano}/.
"""

from dataclasses import dataclass, replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.mixers import Mixer
from kvplan.core.model import Layer, Split, Weight
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads, cross, encoder, full
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    class_suffix,
    column,
    experts,
    gated_mlp,
    norm,
    num_labels,
    plain_mlp,
    projections,
    replicated,
    table,
    unknown_class,
)

_ENCODER_ONLY = ("EncoderModel", "ForTokenClassification")
_GENERATION = (None, "ForConditionalGeneration", "WithLMHeadModel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What a block of either side is made of."""

    heads: Heads
    hidden: int
    buckets: int
    feeding: Half
    """The feed-forward part of a dense block, its names after `layer.N.`."""
    every_block: bool = False
    """Whether each block has positions of its own; else a whole side looks them up in its first block."""
    encoder_attention: str = "SelfAttention"
    global_tokens: bool = False
    """Whether an encoder's block also looks at sums of the blocks of its input (LongT5)."""


def read_t5(facts: Facts) -> Reading:
    """T5 and mT5: every layer attends within its side, a decoder layer also over the encoder's output.

    Source: transformers 5.23, models/t5/modeling_t5.py, models/mt5/modeling_mt5.py
    """
    return _read(facts, read_block(facts))


def read_umt5(facts: Facts) -> Reading:
    """UMT5: T5 with relative positions in every block.

    Source: transformers 5.23, models/umt5/modeling_umt5.py
    """
    return _read(facts, read_block(facts, every_block=True))


def read_longt5(facts: Facts) -> Reading:
    """LongT5: T5 whose encoder looks at its neighbours, and with `transient-global` at sums of all blocks too.

    Source: transformers 5.23, models/longt5/modeling_longt5.py; its config ties the head whatever the file says
    """
    kind = facts.text("encoder_attention_type")
    if kind not in ("local", "transient-global"):
        raise UnsupportedError(
            f"`encoder_attention_type` is `{printable(kind)}`, which LongT5 does not have",
            hint="it has local and transient-global",
        )
    of_globals = kind == "transient-global"
    name = "TransientGlobalSelfAttention" if of_globals else "LocalSelfAttention"
    return _read(facts, read_block(facts, encoder_attention=name, global_tokens=of_globals), tied=True)


def read_switch_transformers(facts: Facts) -> Reading:
    """Switch Transformers: T5 whose every n-th block routes each token to one expert.

    Source: transformers 5.23, models/switch_transformers/modeling_switch_transformers.py `SwitchTransformersStack`
    """
    hidden, width = facts.positive("d_model"), facts.positive("d_ff")
    dense = plain_mlp(hidden, width, up="mlp.wi", down="mlp.wo", bias=False)
    expert = plain_mlp(hidden, width, up="mlp.experts.*.wi", down="mlp.experts.*.wo", bias=False)
    num_experts = facts.positive("num_experts")
    router = replicated("mlp.router.classifier", num_experts, hidden, "router", bias=facts.flag("router_bias"))
    routed = Half((*router, *experts(expert, num_experts=num_experts, active=1)), activations=2 * width)
    block = read_block(facts, feeding=Half(dense, activations=2 * width))
    return _read(facts, block, routed=routed, three_tables=True)


def read_pop2piano(facts: Facts) -> Reading:
    """Pop2Piano: T5 over a spectrogram, with a table of composers; its head is never the token table.

    Source: transformers 5.23, models/pop2piano/modeling_pop2piano.py
    """
    if class_suffix(facts) not in (None, "ForConditionalGeneration"):
        raise unknown_class(facts)
    block = read_block(facts)
    reading = _read(facts, block, tied=False)
    composers = table("mel_conditioner.embedding", facts.positive("composer_vocab_size"), block.hidden, split=False)
    return replace(reading, embeddings=(*reading.embeddings, *composers))


def read_block(
    facts: Facts,
    *,
    feeding: Half | None = None,
    every_block: bool = False,
    encoder_attention: str = "SelfAttention",
    global_tokens: bool = False,
) -> Block:
    """What a block is made of; its feed-forward part is the config's, where `feeding` is not given."""
    num_heads, hidden = facts.positive("num_heads"), facts.positive("d_model")
    return Block(
        heads=Heads(num_heads=num_heads, num_kv_heads=num_heads, head_dim=facts.positive("d_kv")),
        hidden=hidden,
        buckets=facts.positive("relative_attention_num_buckets"),
        feeding=feeding or _dense(facts, hidden),
        every_block=every_block,
        encoder_attention=encoder_attention,
        global_tokens=global_tokens,
    )


def _dense(facts: Facts, hidden: int) -> Half:
    """A gated MLP from version 1.1 on, before that a plain one."""
    width, activation = facts.positive("d_ff"), facts.text("feed_forward_proj")
    kind, _, function = activation.rpartition("-")
    if kind not in ("", "gated") or not function:
        raise facts.wrong("feed_forward_proj", activation, "like `relu` or `gated-gelu`")
    # The config class derives the flag from the activation, then lets a flag that is stated stand.
    if facts.flag("is_gated_act") if facts.has("is_gated_act") else kind == "gated":
        names = ("wi_0", "wi_1", "wo")
        return Half(gated_mlp(hidden, width, prefix="DenseReluDense", names=names), activations=3 * width)
    mlp = plain_mlp(hidden, width, up="DenseReluDense.wi", down="DenseReluDense.wo", bias=False)
    return Half(mlp, activations=2 * width)


def num_decoder_layers(facts: Facts) -> int:
    """Blocks of the decoder: as many as the encoder's where null says so."""
    stated = facts.nullable("num_decoder_layers")
    return facts.layer_count("num_layers") if stated is None else facts.layer_count("num_decoder_layers")


def _read(
    facts: Facts, block: Block, *, tied: bool | None = None, routed: Half | None = None, three_tables: bool = False
) -> Reading:
    """Both sides, or the encoder alone; `routed` takes the feed-forward part's place in sparse blocks."""
    suffix = class_suffix(facts)
    if suffix in _ENCODER_ONLY and facts.flag("is_decoder"):
        raise facts.wrong("is_decoder", True, "false for an encoder alone")
    hidden, vocab = block.hidden, facts.positive("vocab_size")
    num_layers = facts.layer_count("num_layers")
    layers = encoder_blocks(block, _feeding(facts, block, routed, "encoder", num_layers))
    sides = ["encoder"]
    if suffix not in _ENCODER_ONLY:
        layers += decoder_blocks(block, _feeding(facts, block, routed, "decoder", num_decoder_layers(facts)))
        sides.append("decoder")
    if tied is None:
        tied = facts.flag("tie_word_embeddings", default=True)
    tables = ["shared", *(f"{side}.embed_tokens" for side in sides if three_tables and not tied)]
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=tuple(weight for name in tables for weight in table(name, vocab, hidden)),
        head=(
            *(weight for side in sides for weight in norm(f"{side}.final_layer_norm", hidden)),
            *_head(facts, suffix, hidden, vocab, tied=tied),
        ),
        tied_embeddings=tied and suffix in _GENERATION,
    )


def _feeding(facts: Facts, block: Block, routed: Half | None, side: str, num_layers: int) -> list[Half]:
    """The feed-forward part of each block of a side.

    Every how many blocks experts stand is stated, or the number of blocks over that of sparse ones.

    Source: transformers 5.23, models/switch_transformers/modeling_switch_transformers.py `SwitchTransformersStack`
    """
    if routed is None:
        return [block.feeding] * num_layers
    num_sparse = facts.integer(f"num_sparse_{side}_layers")
    step = facts.integer(f"{side}_sparse_step", default=num_layers // num_sparse if num_sparse else num_layers)
    return [routed if step == 1 or (step and i % step == 1) else block.feeding for i in range(num_layers)]


def encoder_blocks(block: Block, feeding: list[Half]) -> list[Layer]:
    """Blocks that look both ways and keep nothing."""
    names = (block.encoder_attention,)
    return _blocks(block, (encoder(block.heads),), names, feeding)


def decoder_blocks(block: Block, feeding: list[Half]) -> list[Layer]:
    """Blocks that attend to their own tokens, then to the encoder's output."""
    mixers = (full(block.heads), cross(block.heads))
    return _blocks(block, mixers, ("SelfAttention", "EncDecAttention"), feeding)


def _blocks(block: Block, mixers: tuple[Mixer, ...], names: tuple[str, ...], feeding: list[Half]) -> list[Layer]:
    built: dict[tuple[bool, int], Layer] = {}
    layers = []
    for i, feed in enumerate(feeding):
        key = (i == 0 or block.every_block, id(feed))
        if key not in built:
            built[key] = _block(block, mixers, names, feed, positions=key[0])
        layers.append(built[key])
    return layers


def _block(block: Block, mixers: tuple[Mixer, ...], names: tuple[str, ...], feed: Half, *, positions: bool) -> Layer:
    heads, hidden = block.heads, block.hidden
    weights: list[Weight] = []
    for i, name in enumerate(names):
        weights += projections(heads, hidden, prefix=f"layer.{i}.{name}", names=("q", "k", "v", "o"))
        weights += norm(f"layer.{i}.layer_norm", hidden)
    if positions:
        weights.append(_buckets(block, f"{names[0]}.relative_attention_bias"))
    if block.global_tokens and len(names) == 1:
        weights += norm(f"layer.0.{names[0]}.global_input_layer_norm", hidden)
        if positions:
            weights.append(_buckets(block, f"{names[0]}.global_relative_attention_bias"))
    last = f"layer.{len(names)}"
    weights += (replace(weight, name=f"{last}.{weight.name}") for weight in feed.weights)
    weights += norm(f"{last}.layer_norm", hidden)
    return Layer(mixers=mixers, weights=tuple(weights), mlp_activations=feed.activations, eager_softmax="model-dtype")


def _buckets(block: Block, name: str) -> Weight:
    """One number a head for each bucket of distances."""
    shape, heads = (block.buckets, block.heads.num_heads), block.heads.num_heads
    return Weight(name=f"layer.0.{name}.weight", shape=shape, part="attention", split=Split(1, heads))


def _head(facts: Facts, suffix: str | None, hidden: int, vocab: int, *, tied: bool) -> tuple[Weight, ...]:
    """What stands on top; nothing where that is the token table.

    `tie_word_embeddings` of false counts a head of its own. T5Config ties whatever the config says, so a model
    built from nothing has none; but the checkpoints that say false (Flan-T5, T5 v1.1, mT5) hold a head that differs
    from the table, and loading them keeps both.

    Source: transformers 5.23, modeling_utils.py `tie_weights`
    """
    if suffix in _GENERATION:
        return () if tied else column("lm_head", vocab, hidden, "head")
    if suffix in ("Model", "EncoderModel"):
        return ()
    if suffix == "ForTokenClassification":
        return replicated("classifier", num_labels(facts), hidden, "head", bias=True)
    if suffix == "ForQuestionAnswering":
        return replicated("qa_outputs", num_labels(facts), hidden, "head", bias=True)
    if suffix == "ForSequenceClassification":
        dense = replicated("classification_head.dense", hidden, hidden, "head", bias=True)
        return (*dense, *replicated("classification_head.out_proj", num_labels(facts), hidden, "head", bias=True))
    raise unknown_class(facts)
