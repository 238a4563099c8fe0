"""Qwen4-Exp: Qwen3.5's layers in four streams, full attention with an indexer, tables of n-grams in some layers.

Source: transformers 5.23, models/qwen4_exp/.
"""

from dataclasses import replace
from math import isqrt

from kvplan.core.mixers import FullAttention, ShortConvolution
from kvplan.core.model import Layer, Weight
from kvplan.core.units import round_up
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.hybrid import by_type, interval_types, named_decoder
from kvplan.sources.families.bricks.parts import Half, Reading, norm, paired, replicated, table
from kvplan.sources.families.hybrids.qwen3_next import QWEN3_5, delta_net, gated_attention, shared_moe

_OLD_NAMES = {"full_attention": "indexed_attention", "qwen_sparse_attention": "indexed_attention"}
_MAX_NGRAM_HEADS = 1000
_MAX_NGRAMS = 2**31
_POSITION_BYTES = 3 * 8


def read_qwen4_exp_text(facts: Facts) -> Reading:
    """Qwen4-Exp, text only: every fourth layer is full where the config does not list them; every layer routes.

    The layers of `ple_layer_ids`, which count from 1, look n-grams up too.

    Source: transformers 5.23, models/qwen4_exp/modeling_qwen4_exp.py `Qwen4ExpTextModel`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    types = facts.strings("layer_types", length=num_layers) or interval_types(facts, num_layers)
    types = tuple(_OLD_NAMES.get(name, name) for name in types)
    mixing = {"linear_attention": delta_net(facts, hidden, QWEN3_5), "indexed_attention": _indexed(facts, hidden)}
    experts, width = shared_moe(facts, hidden)
    streams = (*_hyper(facts, hidden, "attn_hyper_connection"), *_hyper(facts, hidden, "mlp_hyper_connection"))
    layers = paired(by_type(mixing, types), [Half(experts, activations=3 * width)] * num_layers, streams)
    layers = _with_positions(_with_ngrams(facts, hidden, types, layers))
    reading = named_decoder(facts, layers, hidden, embed="embed_tokens", final="norm")
    mixer = _hyper(facts, hidden, "hyper_connection_mixer", combines=False)
    return replace(reading, head=(*mixer, *reading.head[1:]))


def _indexed(facts: Facts, hidden: int) -> Half:
    """Gated attention whose indexer keeps one small key a token, and chooses blocks of tokens by it.

    Source: transformers 5.23, models/qwen4_exp/modeling_qwen4_exp.py `Qwen4ExpTextQSAIndexer`
    """
    num_heads, key_heads = facts.positive("indexer_n_heads"), facts.positive("indexer_kv_heads")
    if key_heads != 1:
        raise facts.wrong("indexer_kv_heads", key_heads, "1, all that the class can do")
    dim, half = facts.positive("indexer_head_dim"), gated_attention(facts, hidden)
    indexer = (
        *replicated("self_attn.indexer.index_qk_proj", (num_heads + key_heads) * dim, hidden, "attention"),
        *norm("self_attn.indexer.q_layernorm", dim),
        *norm("self_attn.indexer.k_layernorm", dim),
    )
    mixers = tuple(replace(mixer, index_dim=dim) for mixer in half.mixers if isinstance(mixer, FullAttention))
    return Half((*half.weights, *indexer), mixers)


def _hyper(facts: Facts, hidden: int, name: str, *, combines: bool = True) -> tuple[Weight, ...]:
    """What mixes `hc_count` streams into one half's input, and says how much of its output each of them takes.

    Source: transformers 5.23, models/qwen4_exp/modeling_qwen4_exp.py `Qwen4ExpTextGatedResidual`
    """
    count, rank = facts.positive("hc_count"), facts.positive("hc_lowrank")
    return (
        *norm(f"{name}.hc_norm", count * hidden),
        *replicated(f"{name}.input_mix_weight_down", rank, count * hidden, "mlp"),
        *replicated(f"{name}.input_mix_weight_up", count * hidden, rank, "mlp"),
        *(replicated(f"{name}.block_inject_weight", count, count * hidden, "mlp") if combines else ()),
    )


def _with_positions(layers: list[Layer]) -> list[Layer]:
    """The layers, of which the first indexed one keeps positions in transformers' cache."""
    for i, layer in enumerate(layers):
        if isinstance(layer.mixers[0], FullAttention):
            first = replace(layer.mixers[0], transformers_position_bytes=_POSITION_BYTES)
            return [*layers[:i], replace(layer, mixers=(first, *layer.mixers[1:])), *layers[i + 1 :]]
    return layers


def _with_ngrams(facts: Facts, hidden: int, types: tuple[str, ...], layers: list[Layer]) -> list[Layer]:
    """The layers, of which those of `ple_layer_ids` have a table of n-grams."""
    ids = sorted(set(facts.integers("ple_layer_ids")))
    heads = (facts.positive("ngram_size") - 1) * facts.positive("heads_per_ngram")
    if ids and not 1 <= len(ids) * heads <= _MAX_NGRAM_HEADS:
        raise facts.wrong("heads_per_ngram", heads, f"at most {_MAX_NGRAM_HEADS} tables of n-grams in all")
    base = facts.positive("ngram_vocab_size_base")
    if base > _MAX_NGRAMS:
        raise facts.wrong("ngram_vocab_size_base", base, f"a number up to {_MAX_NGRAMS}")
    primes = _primes_from(base, len(ids) * heads)
    layers = list(layers)
    for index, layer_id in enumerate(ids):
        if not 1 <= layer_id <= len(layers) or types[layer_id - 1] != "linear_attention":
            raise facts.wrong("ple_layer_ids", layer_id, "the number of a layer with linear attention, from 1")
        weights, mixers = _ngrams(facts, hidden, sum(primes[index * heads : (index + 1) * heads]), heads)
        layer = layers[layer_id - 1]
        layers[layer_id - 1] = replace(layer, weights=(*layer.weights, *weights), mixers=(*layer.mixers, *mixers))
    return layers


def _ngrams(
    facts: Facts, hidden: int, rows: int, heads: int
) -> tuple[tuple[Weight, ...], tuple[ShortConvolution, ...]]:
    """A table with one part for each way to hash an n-gram, and a dilated convolution over what it gives.

    The last `ngram_size` − 1 tokens are kept as they are, and what the convolution reads of earlier ones.

    Source: transformers 5.23, models/qwen4_exp/modeling_qwen4_exp.py `Qwen4ExpTextPLELayer`
    """
    size, count, kernel = (
        facts.positive("ngram_size"),
        facts.positive("hc_count"),
        facts.positive("ple_conv_kernel_size"),
    )
    width, wide = facts.positive("ple_embed_dim", default=hidden), count * hidden
    if width % heads:
        raise facts.wrong("ple_embed_dim", width, f"a multiple of the {heads} tables of n-grams")
    rows = round_up(rows, facts.positive("make_ngram_vocab_size_divisible_by"))
    lookup = table("ple.ple_embedding.ngram_embedding", rows, width // heads)
    kept = {"layer_multipliers": size, "ngram_heads_vocab_sizes": heads, "ngram_heads_offsets": heads}
    weights = (
        *lookup,
        *(
            Weight(name=f"ple.ple_embedding.{name}", shape=(length,), part="embeddings", buffer=True, fixed_bits=64)
            for name, length in kept.items()
        ),
        *replicated("ple.key_proj", wide, width, "mlp"),
        *replicated("ple.value_proj", hidden, width, "mlp"),
        *(weight for name in ("key", "query", "conv") for weight in norm(f"ple.norm_{name}", wide)),
        Weight(name="ple.conv1d.weight", shape=(wide, 1, kernel), part="mlp"),
    )
    tokens = ShortConvolution(channels=1, columns=size - 1, bits=64)
    read = (kernel - 1) * size
    return weights, (tokens, *((ShortConvolution(channels=wide, columns=read),) if read else ()))


def _primes_from(start: int, count: int) -> list[int]:
    """The first `count` primes from `start` on."""
    primes: list[int] = []
    number = start
    while len(primes) < count:
        if number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1)):
            primes.append(number)
        number += 1
    return primes
