"""Every kind of layer by hand: what its pools take, really allocated; which kernel computes it; what is only told."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from kvplan.core.cache import caches_of
from kvplan.core.dtypes import BF16
from kvplan.core.mixers import (
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    LinearAttention,
    Mixer,
    SharedAttention,
    ShortConvolution,
)
from kvplan.core.model import Layer, ModelSpec
from kvplan.validate import predict
from kvplan.validate.case import Case
from kvplan.validate.cases import Load, cases_of, order_of
from kvplan.validate.compare import compare
from kvplan.validate.kernels.launch import Unsupported
from kvplan.validate.levels import LEVELS
from kvplan.validate.measure.checks import NO_KERNEL, measure_correctness
from kvplan.validate.measure.deal import Layout, share_of
from kvplan.validate.measure.memory import measure_memory
from kvplan.validate.measure.pools import allocate, entry_pages_held, pages_held, write_bytes
from kvplan.validate.measure.rank_step import Rank
from kvplan.validate.measure.rank_step import allocate as allocate_share
from kvplan.validate.predict_ranks import job_cache_bytes
from kvplan.validate.suite import correctness
from tests.models import HERE

CPU = torch.device("cpu")
HEADS: dict[str, Any] = {"num_heads": 4, "num_kv_heads": 2, "key_dim": 16, "value_dim": 16}
LATENT: dict[str, Any] = {"num_heads": 4, "latent_dim": 32, "rope_dim": 8, "key_dim": 24, "value_dim": 16}
DSA = LatentAttention(num_heads=128, latent_dim=512, rope_dim=64, key_dim=192, value_dim=128, index_dim=128)
V4 = {"num_heads": 64, "head_dim": 512, "window": 16}

# 40 tokens, the last 8 one by one, the prompt in chunks of 12, in pages of 16: three pages of 48 places.
SHORT = Load(seq_len=40, decode_steps=8, chunk=12)


def model_of(*mixers: Mixer, **given: Any) -> ModelSpec:
    """One layer for each mixer."""
    layers = tuple(Layer(mixers=(mixer,), weights=()) for mixer in mixers)
    return ModelSpec(
        id="test/kinds", model_type="test", source=HERE, hidden_size=64, vocab_size=8, layers=layers,
        layer_order=tuple(range(len(layers))), embeddings=(), head=(), **given,
    )  # fmt: skip


def case_of(mixer: Mixer, load: Load = SHORT) -> Case:
    (case,) = cases_of(model_of(mixer), load)
    return case


# One sequence's layer; fp32 takes 4 bytes, bf16 2.
BY_HAND: dict[str, tuple[Mixer, int]] = {
    # the prompt's 32 tokens fill two pages, and the next query, which sees 15 of them, has left the first: 2 pages
    "chunked": (ChunkedAttention(window=16, **HEADS), 32 * 2 * (16 + 16) * 2),
    "shared": (SharedAttention(window=16, **HEADS), 0),
    "full, indexed": (FullAttention(index_dim=8, **HEADS), 48 * (2 * (16 + 16) + 8) * 2),
    # 40 tokens and 24 before them: 4 pages
    "full, prefix": (FullAttention(prefix_tokens=24, **HEADS), 64 * 2 * (16 + 16) * 2),
    "latent, indexed": (DSA, 48 * (512 + 64 + 128) * 2),
    "latent, index in 8 bits": (replace(DSA, index_bits=8), 48 * ((512 + 64) * 2 + 128)),
    # ten keys of four tokens each, in one page; a sum and its weights are open
    "latent, index pooled": (replace(DSA, index_pool=4), 48 * 576 * 2 + 16 * 128 * 2 + 2 * 128 * 4),
    "latent, index alone": (replace(DSA, latent_dim=0, rope_dim=0), 48 * 128 * 2),
    "latent, pooled index alone": (
        replace(DSA, latent_dim=0, rope_dim=0, index_pool=3),
        16 * 128 * 2 + 2 * 128 * 4,
    ),
    "latent, another's": (replace(DSA, latent_dim=0, rope_dim=0, index_dim=0), 0),
    # XLNet: a window of 16 holds 2 pages, as above
    "latent, window": (
        LatentAttention(num_heads=4, latent_dim=64, rope_dim=0, key_dim=16, value_dim=16, window=16),
        32 * 64 * 2,
    ),
    "compressed, no entries": (CompressedAttention(**V4), 32 * 512 * 2),
    # the window, one entry of 32 tokens in a page of 16; a sum of 512 and its weights
    "compressed": (CompressedAttention(ratio=32, **V4), 32 * 512 * 2 + 16 * 512 * 2 + 2 * 512 * 4),
    # ten entries with a key of 128 each, in one page; two sums of 640 and their weights
    "compressed, overlapping, indexed": (
        CompressedAttention(ratio=4, overlaps=True, index_dim=128, **V4),
        32 * 512 * 2 + 16 * 640 * 2 + 2 * 2 * 640 * 4,
    ),
    "convolution": (ShortConvolution(channels=2048, columns=3), 2048 * 3 * 2),
    "convolution in fp32": (ShortConvolution(channels=2048, columns=3, bits=32), 2048 * 3 * 4),
    "tokens' identifiers": (ShortConvolution(channels=1, columns=2, bits=64), 2 * 8),
    "Mamba-1": (
        LinearAttention(
            num_heads=1536, num_key_heads=1, key_dim=16, value_dim=1, conv_channels=1536, conv_columns=4
        ),
        1536 * 16 * 4 + 1536 * 4 * 2,
    ),
    # 32 heads of 64 × 128, and x, B and C side by side: 32 · 64 + 2 · 128 channels
    "Mamba-2": (
        LinearAttention(
            num_heads=32, num_key_heads=1, key_dim=128, value_dim=64, conv_channels=2304, conv_columns=4
        ),
        32 * 64 * 128 * 4 + 2304 * 4 * 2,
    ),
    "RWKV-4": (
        LinearAttention(num_heads=256, num_key_heads=256, key_dim=1, value_dim=1, vector_elements=512),
        3 * 256 * 4,
    ),
    # four matrices of 64 × 128, a normaliser of 64 and an exponent for each, in bf16
    "xLSTM": (
        LinearAttention(
            num_heads=4, num_key_heads=4, key_dim=64, value_dim=128, state_bits=None, vector_elements=260
        ),
        (4 * 64 * 128 + 260) * 2,
    ),
    "lightning": (LinearAttention(num_heads=8, num_key_heads=8, key_dim=64, value_dim=64), 8 * 64 * 64 * 4),
}  # fmt: skip


@pytest.mark.parametrize(("mixer", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_pools_worked_by_hand(mixer: Mixer, expected: int) -> None:
    case = case_of(mixer)
    assert predict.mixer_of(case) == mixer
    assert Case.from_json(case.to_json()) == case
    held = allocate(case, CPU)
    assert (0 if held is None else held.storage_bytes) == predict.pool_bytes(case) == expected
    assert case.keeps_nothing == (expected == 0)


@pytest.mark.parametrize(("mixer", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_a_reading_of_two_layers_of_three_sequences_agrees(mixer: Mixer, expected: int) -> None:
    """Written to the last token, under torch's own count of its allocations."""
    case = replace(case_of(mixer), batch=3, num_layers=2)
    rows = compare([case], {"memory": measure_memory([case], CPU)})
    assert {row.verdict for row in rows} == {"ok"}
    (pools,) = (row.measured for row in rows if row.term == "pools")
    assert pools == 2 * 3 * expected


@pytest.mark.parametrize("kv_dtype", ["fp16", "fp8", "int8"])
def test_an_indexers_key_follows_the_caches_type(kv_dtype: str) -> None:
    """int8 has one fp32 scale for each vector: two KV heads of key and value, and the index."""
    case = case_of(FullAttention(index_dim=8, **HEADS), replace(SHORT, kv_dtype=kv_dtype))
    expected = {"fp16": 72 * 2, "fp8": 72, "int8": 72 + 4 * 4 + 4}[kv_dtype]
    held = allocate(case, CPU)
    assert held is not None
    assert held.storage_bytes == predict.pool_bytes(case) == 48 * expected


def test_one_vector_for_key_and_value_is_not_held_in_int8() -> None:
    with pytest.raises(Unsupported, match="no kernel reads a vector that is key and value of int8"):
        allocate(case_of(CompressedAttention(**V4), replace(SHORT, kv_dtype="int8")), CPU)


def test_entries_come_when_their_tokens_are_there() -> None:
    case = case_of(CompressedAttention(ratio=7, index_dim=8, **V4), replace(SHORT, page_size=2))
    held = allocate(case, CPU)
    assert held is not None
    assert held.entries is not None
    held.grow(case, write_bytes)
    # 40 = 5 · 7 + 5: five entries in three pages of two; every byte of each is written
    assert entry_pages_held(case) == predict.entry_pages(case, predict.case_caches(case)[1]) == 3
    assert held.entries.lengths.tolist() == [5]
    written = held.entries.index.view(torch.uint8).flatten(0, 1).ne(0).any(1)  # type: ignore[union-attr]
    assert int(written.sum()) == 5


@pytest.mark.parametrize("images", [0, 40, 100])
def test_cross_attention_over_images_keeps_what_they_are(images: int) -> None:
    """0 where there is none: nothing is kept, computed or judged. 100 tokens are 7 pages, 40 are 3."""
    case = case_of(CrossAttention(over="images", **HEADS), replace(SHORT, encoder_seq_len=images))
    held = allocate(case, CPU)
    assert (0 if held is None else held.storage_bytes) == predict.pool_bytes(case) == -(-images // 16) * 16 * 128
    assert pages_held(case) == predict.pages(case)
    assert predict.pool_requests([case]) == (
        [] if not images else [predict.pool_bytes(case), 4 * (-(-images // 16)), 4]
    )
    if not images:
        assert measure_correctness([case], CPU) == []
        assert LEVELS["quick"].loads(case) == {}


def test_an_encoder_of_fixed_length_and_one_image_are_tried_as_they_are() -> None:
    encoder = FullAttention(cached=False, **HEADS)
    fixed = cases_of(model_of(encoder, CrossAttention(**HEADS), encoder_seq_len=1500), SHORT)
    assert [case.seq_len for case in fixed] == [1500, 1500]
    image = model_of(CrossAttention(over="images", **HEADS), tokens_per_image=1601)
    assert [case.seq_len for case in cases_of(image, SHORT)] == [1601]
    assert [case.seq_len for case in cases_of(image, replace(SHORT, encoder_seq_len=0))] == [0]


def test_layers_of_several_mixers_and_of_none() -> None:
    """Nemotron-H's feed-forward layers mix nothing; RWKV's keep a state and the token before."""
    state, shift = (
        LinearAttention(num_heads=4, num_key_heads=4, key_dim=1, value_dim=1),
        ShortConvolution(channels=8, columns=2),
    )
    layers = (Layer(mixers=(state, shift), weights=()), Layer(mixers=(), weights=()))
    model = replace(model_of(), layers=layers, layer_order=(0, 1, 1, 0))
    assert [(case.name, case.num_layers) for case in cases_of(model, SHORT)] == [
        ("2 × linear, 4 heads × 1", 2), ("2 × conv, 8 channels × 2", 2),
    ]  # fmt: skip
    assert order_of(model, SHORT) == [[0, 1], [], [], [0, 1]]


# Which of our kernels computes it.
KERNELS: dict[str, tuple[Mixer, str | None]] = {
    "chunked": (ChunkedAttention(window=16, **HEADS), "softmax"),
    "shared": (SharedAttention(**HEADS), "softmax"),
    "full, indexed": (FullAttention(index_dim=8, **HEADS), "softmax"),
    "latent, indexed": (DSA, "latent"),
    "latent, another's": (replace(DSA, latent_dim=0, rope_dim=0), None),
    "latent, window": (replace(DSA, window=16), None),
    "compressed": (CompressedAttention(ratio=4, **V4), None),
    "convolution": (ShortConvolution(channels=8, columns=2), None),
    "matrices": (LinearAttention(num_heads=8, num_key_heads=2, key_dim=16, value_dim=32), "delta"),
    "Mamba-1": (LinearAttention(num_heads=64, num_key_heads=1, key_dim=16, value_dim=1), None),
    "xLSTM": (LinearAttention(num_heads=4, num_key_heads=4, key_dim=16, value_dim=16, vector_elements=20), None),
}


@pytest.mark.parametrize(("mixer", "kernel"), KERNELS.values(), ids=KERNELS)
def test_which_kernel_takes_a_kind(mixer: Mixer, kernel: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What none takes is told and not judged, and is not timed."""
    monkeypatch.setattr(correctness, "SHORT_LENGTHS", (20, 1, 5, 18))
    case = replace(case_of(mixer), window=7) if isinstance(mixer, ChunkedAttention) else case_of(mixer)
    assert case.kernel == kernel
    if kernel == "latent" and case.num_heads == 128:
        return  # DeepSeek's own size takes seconds, and is a latent's as any other
    rows = compare([case], {"correctness": measure_correctness([case], CPU)})
    if kernel is None:
        assert [(row.term, row.verdict, row.note) for row in rows] == [("decode", "info", NO_KERNEL)]
        assert LEVELS["full"].loads(case) == {}
    else:
        assert {row.verdict for row in rows} == {"ok"}
        assert [row.term for row in rows] == (["decode"] if kernel == "delta" else ["decode", "prefill"])
        assert LEVELS["quick"].loads(case)


def test_a_shared_layer_reads_what_another_keeps_and_an_index_is_not_read() -> None:
    """100 tokens: 2 heads of 16 + 16 in bf16; a latent of 32 + 8 for 4 heads, whatever its indexer's key."""
    shared, indexed = case_of(SharedAttention(**HEADS)), case_of(LatentAttention(index_dim=16, **LATENT))
    assert predict.work(shared, "decode", batch=3, seq_len=100) == (3 * 100 * 128, 3 * 4 * 100 * 4 * 16)
    assert predict.work(indexed, "decode", batch=1, seq_len=100) == (100 * 80, 4 * 100 * 2 * (40 + 32))


# What transformers' classes hold of 40 tokens, by its own kinds of layers; while the prompt lives; one token later.
FRAMEWORK: dict[str, tuple[Mixer, str, tuple[int, int, int]]] = {
    "chunked": (ChunkedAttention(window=16, **HEADS), "sliding", (15 * 128, 40 * 128, 16 * 128)),
    "convolution": (ShortConvolution(channels=8, columns=3), "linear", (48, 48, 48)),
    "latent, indexed": (LatentAttention(index_dim=16, **LATENT), "latent", (40 * 112, 40 * 112, 40 * 112)),
    "a state beside the cache": (
        LinearAttention(num_heads=2, num_key_heads=2, key_dim=8, value_dim=8, in_transformers_cache=False),
        "linear", (0, 0, 0),
    ),
    # keys and values are told twice; their storage is two where a layer has no entries, and one where it has
    "compressed, no entries": (
        CompressedAttention(num_heads=4, head_dim=32, window=16), "sliding", (2 * 15 * 64, 2 * 40 * 64, 2 * 16 * 64),
    ),
    # 40 = 5 · 7 + 5: five entries; five tokens wait as projected with their gates, the prompt's storage is all 40
    "compressed": (
        CompressedAttention(num_heads=4, head_dim=32, window=16, ratio=7), "sliding",
        (2 * 15 * 64 + 5 * 64 + 5 * 128, 40 * 64 + 5 * 64 + 40 * 128, 16 * 64 + 5 * 64 + 5 * 128),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("mixer", "kind", "expected"), FRAMEWORK.values(), ids=FRAMEWORK)
def test_what_transformers_holds_by_hand(mixer: Mixer, kind: str, expected: tuple[int, int, int]) -> None:
    cases = [case_of(mixer)]
    found = predict.framework_bytes(cases), *(predict.framework_storage_bytes(cases, decoding=d) for d in (False, True))
    assert found == tuple({kind: size} for size in expected)


def test_a_framework_that_shows_no_cache_is_told() -> None:
    case = case_of(ShortConvolution(channels=8, columns=3))
    failure = {"kind": "no figure", "message": "`RwkvForCausalLM` keeps its state in a list"}
    load = {"batch": 2, "seq_len": 100, "encoder_seq_len": None}
    (row,) = compare([case], {"framework": {"failure": failure, **load}})
    assert (row.predicted, row.measured, row.verdict, row.note) == (2 * 48, None, "info", failure["message"])
    assert compare([case], {"framework": {"failure": failure | {"kind": "FrameworkError"}}}) == []


# One of two ranks of tp: heads, channels and numbers are shared out, vectors that all heads read are whole.
ON_TWO: dict[str, tuple[Mixer, int]] = {
    "chunked": (ChunkedAttention(window=16, **HEADS), 16 * (16 + 16) * 2),
    "full, prefix": (FullAttention(prefix_tokens=24, **HEADS), 64 * (16 + 16) * 2),
    "latent, index pooled": (LatentAttention(index_dim=16, index_pool=4, **LATENT), 48 * 80 + 16 * 32 + 2 * 16 * 4),
    "compressed": (CompressedAttention(ratio=32, **V4), 16 * 512 * 2 + 16 * 512 * 2 + 2 * 512 * 4),
    "convolution": (ShortConvolution(channels=8, columns=3), 4 * 3 * 2),
    "xLSTM": (
        LinearAttention(num_heads=4, num_key_heads=4, key_dim=8, value_dim=8, state_bits=None, vector_elements=36),
        (2 * 64 + 18) * 2,
    ),
    "shared": (SharedAttention(**HEADS), 0),
}


@pytest.mark.parametrize(("mixer", "expected"), ON_TWO.values(), ids=ON_TWO)
def test_what_a_rank_of_two_holds(mixer: Mixer, expected: int) -> None:
    """Of a window its last tokens alone: 16 in one page."""
    case = case_of(mixer)
    job = type("Job", (), {"layout": Layout(tp=2, pp=1, cp=1), "seed": 1})
    held = allocate_share(Rank(1, CPU, job, {}), case)  # type: ignore[arg-type]
    assert (0 if held is None else held.storage_bytes) == expected
    assert job_cache_bytes([case], [[0]], tp=2, pp=1, cp=1) == [expected] * 2


def test_entries_are_not_dealt_out_by_context() -> None:
    layout = Layout(tp=1, pp=1, cp=2)
    with pytest.raises(Unsupported, match="entries of several tokens are not dealt out over cp 2"):
        share_of(case_of(CompressedAttention(ratio=4, **V4)), layout, layout.place(0))


@pytest.mark.parametrize("mixer", [mixer for mixer, _ in BY_HAND.values()], ids=BY_HAND)
def test_pages_of_one_token_make_the_cache_of_the_plan(mixer: Mixer) -> None:
    case = case_of(mixer, Load(seq_len=45, page_size=1, chunk=1))
    needed = sum(cache.bytes_for(45) for _, cache in caches_of(Layer(mixers=(mixer,), weights=()), BF16))
    assert predict.pool_bytes(case) == needed
