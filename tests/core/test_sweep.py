"""A sweep is `estimate` many times over: the same bytes at every point, and no silent wrap at 64 bits."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan import InputError, estimate
from kvplan.core.dtypes import BF16
from kvplan.core.mixers import CrossAttention, FullAttention, LatentAttention, LinearAttention, SlidingAttention
from kvplan.core.model import Layer, ModelSpec, Source, Split, Weight, stack
from kvplan.core.serving import MAX_COUNT, resolve
from kvplan.core.sweep import PARTS, sweep

HEADS = {"num_heads": 8, "num_kv_heads": 2, "key_dim": 16, "value_dim": 16}
MATRIX = Weight(name="w", shape=(128, 128), part="attention", split=Split(axis=0, units=8), linear=True)

FULL = Layer(mixers=(FullAttention(**HEADS),), weights=(MATRIX,), mlp_activations=512)
NARROW = Layer(mixers=(SlidingAttention(window=7, **HEADS),), weights=(MATRIX,), mlp_activations=512)
WIDE = Layer(mixers=(SlidingAttention(window=100, **HEADS),), weights=(MATRIX, MATRIX))
LATENT = Layer(
    mixers=(LatentAttention(num_heads=8, latent_dim=32, rope_dim=8, key_dim=24, value_dim=16),), weights=(MATRIX,)
)
RECURRENT = Layer(
    mixers=(
        LinearAttention(num_heads=8, num_key_heads=4, key_dim=16, value_dim=16, conv_channels=256, conv_columns=4),
    ),
    weights=(MATRIX,),
)
ENCODER = Layer(mixers=(FullAttention(cached=False, **HEADS),), weights=(MATRIX,), mlp_activations=2048)
DECODER = Layer(mixers=(FullAttention(**HEADS), CrossAttention(**HEADS)), weights=(MATRIX, MATRIX))


def model_of(layers):
    distinct, order = stack(layers)
    return ModelSpec(
        id="test/model",
        model_type="test",
        source=Source(kind="config", location="tests"),
        hidden_size=128,
        vocab_size=1000,
        layers=distinct,
        layer_order=order,
        embeddings=(Weight(name="embed", shape=(1000, 128), part="embeddings"),),
        head=(Weight(name="head", shape=(1000, 128), part="head"),),
        dtype=BF16,
    )


WITH_ENCODER = model_of([ENCODER, ENCODER, DECODER, DECODER])
decoders = st.lists(st.sampled_from([FULL, NARROW, WIDE, LATENT, RECURRENT]), min_size=4, max_size=6).map(model_of)
axes = st.lists(st.integers(1, 20_000) | st.integers(1, 120), min_size=1, max_size=5)
servings = st.fixed_dictionaries(
    {
        "engine": st.sampled_from(["exact", "transformers"]),
        "attention": st.sampled_from(["eager", "math", "efficient", "flash"]),
        "tp": st.sampled_from([1, 2, 4, 8]),
        "pp": st.integers(1, 4),
        "max_num_batched_tokens": st.sampled_from([None, 50, 2048]),
        "dtype": st.sampled_from([None, "fp32"]),
    }
)


def holds_everywhere(model, seq_lens, batch_sizes, options):
    serving = resolve(model, seq_len=seq_lens[0], batch_size=batch_sizes[0], **options)
    points = sweep(model, serving, seq_lens, batch_sizes)
    pairs = [(seq, batch) for seq in seq_lens for batch in batch_sizes]
    assert list(zip(points.seq_len.tolist(), points.batch_size.tolist(), strict=True)) == pairs
    for i, (seq, batch) in enumerate(pairs):
        fullest = estimate(model, seq_len=seq, batch_size=batch, **options).fullest_gpu
        assert {name: int(points.columns[name][i]) for name in PARTS} == {
            name: getattr(fullest, name) for name in PARTS
        }
        assert int(points.total_bytes[i]) == fullest.total_bytes


@settings(deadline=None)
@given(model=decoders, seq_lens=axes, batch_sizes=axes, options=servings)
def test_every_point_is_an_estimate(model, seq_lens, batch_sizes, options):
    holds_everywhere(model, seq_lens, batch_sizes, options)


@settings(deadline=None)
@given(seq_lens=axes, batch_sizes=axes, options=servings, encoder_seq_len=st.none() | st.integers(1, 3000))
def test_every_point_is_an_estimate_with_an_encoder(seq_lens, batch_sizes, options, encoder_seq_len):
    holds_everywhere(WITH_ENCODER, seq_lens, batch_sizes, options | {"encoder_seq_len": encoder_seq_len})


def test_an_encoder_length_that_was_named_stays_even_where_the_axis_starts_with_it():
    named, unnamed = ({"seq_len": 1500, "encoder_seq_len": 1500}, {"seq_len": 1500})
    fixed = sweep(WITH_ENCODER, resolve(WITH_ENCODER, **named), [1500, 3000], [1])
    follows = sweep(WITH_ENCODER, resolve(WITH_ENCODER, **unnamed), [1500, 3000], [1])
    # Two decoder layers, each K and V of 2 heads of 16 in bf16: 256 bytes a token, of its own and of the encoder's.
    assert fixed.columns["kv_cache_bytes"].tolist() == [256 * 3000, 256 * 4500]
    assert follows.columns["kv_cache_bytes"].tolist() == [256 * 3000, 256 * 6000]


@settings(deadline=None)
@given(model=decoders | st.just(WITH_ENCODER), options=servings, seq_lens=axes, batch_sizes=axes)
def test_longer_contexts_and_more_sequences_never_take_less(model, options, seq_lens, batch_sizes):
    seq_lens, batch_sizes = sorted(seq_lens), sorted(batch_sizes)
    total = sweep_of(model, seq_lens, batch_sizes, **options).total_bytes.reshape(len(seq_lens), len(batch_sizes))
    assert (total[1:] >= total[:-1]).all()
    assert (total[:, 1:] >= total[:, :-1]).all()


@settings(deadline=None)
@given(model=decoders | st.just(WITH_ENCODER), options=servings, seq_lens=axes)
def test_on_one_stage_no_part_ever_shrinks(model, options, seq_lens):
    # Of several stages another may become the fullest, and its parts are other ones.
    for column in sweep_of(model, sorted(seq_lens), [3], **options | {"pp": 1}).columns.values():
        assert (column[1:] >= column[:-1]).all()


def sweep_of(model, seq_lens, batch_sizes, **options):
    return sweep(model, resolve(model, seq_len=1, **options), seq_lens, batch_sizes)


@pytest.mark.parametrize("axis", [[], [0], [4096, -1], [MAX_COUNT + 1]], ids=["empty", "zero", "negative", "immense"])
def test_an_impossible_axis_is_named(axis):
    with pytest.raises(InputError, match="`seq_lens` needs"):
        sweep_of(model_of([FULL]), axis, [1])
    with pytest.raises(InputError, match="`batch_sizes` needs"):
        sweep_of(model_of([FULL]), [1], axis)


def test_a_sweep_beyond_the_memory_of_the_planner_is_refused():
    with pytest.raises(InputError, match="100,000,000 points"):
        sweep_of(model_of([FULL]), list(range(1, 10_001)), list(range(1, 10_001)))


@pytest.mark.parametrize(
    ("model", "seq_lens", "batch_sizes", "options"),
    [
        (model_of([FULL]), [1, 2**40], [1, 2**40], {}),
        # The caches stop at the window, but sequences times tokens do not.
        (model_of([NARROW]), [2**40], [2**24], {}),
        # Nothing is cached at all.
        (model_of([ENCODER]), [2**40], [2**24], {}),
        # Both axes are small, but the encoder's scores are not.
        (WITH_ENCODER, [1], [1], {"encoder_seq_len": 2**30, "attention": "eager"}),
        # Bytes would fit, the bits from which they are counted would not.
        (model_of([LATENT]), [2**40], [2**19], {"engine": "transformers"}),
    ],
    ids=["cache", "tokens", "no cache", "encoder", "bits"],
)
def test_64_bits_never_wrap(model, seq_lens, batch_sizes, options):
    with pytest.raises(InputError, match="64 bits"):
        sweep_of(model, seq_lens, batch_sizes, **options)


@settings(deadline=None)
@given(model=decoders, options=servings, bits=st.integers(0, 40), batch_bits=st.integers(0, 40))
def test_what_is_not_refused_is_right(model, options, bits, batch_bits):
    try:
        points = sweep_of(model, [1, 2**bits], [2**batch_bits], **options)
    except InputError:
        return
    plan = estimate(model, seq_len=2**bits, batch_size=2**batch_bits, **options)
    assert int(points.total_bytes[-1]) == plan.fullest_gpu.total_bytes


def test_the_fullest_stage_may_change_along_the_way():
    # The first stage holds the heavier layers, the second the one whose cache grows.
    heavy = replace(NARROW, weights=(MATRIX,) * 40)
    model = model_of([heavy, FULL])
    points = sweep_of(model, [8, 100_000], [1], pp=2)
    first, last = points.columns["weights_bytes"].tolist()
    assert first > last
    assert points.columns["kv_cache_bytes"].tolist() == [7 * 128, 100_000 * 128]
