"""A mistake in the calculator shows in the shipped records: each formula is broken in turn and all records judged anew."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kvplan.core import cache, layout
from kvplan.core.attention import BACKENDS
from kvplan.core.engines import paged, transformers
from kvplan.core.mixers import FullAttention, LatentAttention, LinearAttention, SlidingAttention
from kvplan.validate import predict, predict_ranks, record, shipped
from kvplan.validate.compare import compare

DOCUMENTS = [record.read(path) for path in shipped.paths()]


def sections_that_are_off() -> set[str]:
    """The sections of all records in which today's prediction disagrees with a measurement."""
    off = set()
    for document in DOCUMENTS:
        cases = [record.Case.from_json(case) for case in document["cases"]]
        off |= {row.section for row in compare(cases, document["readings"]) if row.verdict == "off"}
    return off


def test_as_it_stands_nothing_is_off() -> None:
    assert sections_that_are_off() == set()


def cached(kind: type, change: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Replaces the cache of one kind of layer by a change of the right one."""

    def break_it(monkeypatch: pytest.MonkeyPatch) -> None:
        right = cache._CACHES[kind]
        monkeypatch.setitem(cache._CACHES, kind, lambda mixer, dtype, tp: change(right, mixer, dtype, tp))

    return break_it


def one_token_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "peak_pages", lambda seq_len, *rest: paged.peak_pages(seq_len, *rest) - 1)


def window_as_a_plain_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a window's pages were never given back."""
    monkeypatch.setattr(
        predict, "peak_pages", lambda n, prompt, chunk, window, page: paged.peak_pages(n, prompt, chunk, None, page)
    )


def no_block_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "table_requests", lambda *given: [])


def transformers_keeps_the_whole_window(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = replace(transformers.TRANSFORMERS, reserve=lambda cache, mixer: cache)
    monkeypatch.setattr(predict, "TRANSFORMERS", kept)


def a_backend(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Two per cent less: beyond the tolerance of 1 %."""

    def break_it(monkeypatch: pytest.MonkeyPatch) -> None:
        right = BACKENDS[name]
        monkeypatch.setitem(BACKENDS, name, lambda call: right(call) * 98 // 100)

    return break_it


def all_heads_on_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    right = predict_ranks.case_caches
    monkeypatch.setattr(predict_ranks, "case_caches", lambda case, tp: right(case, 1))


def context_not_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        predict_ranks, "context_tokens", lambda n, cp, index, window=None: layout.context_tokens(n, 1, 0, window)
    )


MISTAKES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], set[str]]] = {
    "keys without values": (
        cached(FullAttention, lambda right, mixer, dtype, tp: right(replace(mixer, value_dim=0), dtype, tp)),
        {"memory", "framework", "ranks"},
    ),
    "query heads for KV heads": (
        cached(FullAttention, lambda right, mixer, dtype, tp: right(replace(mixer, num_kv_heads=mixer.num_heads), dtype, tp)),
        {"memory", "framework", "ranks"},
    ),
    "a latent for every head": (
        cached(LatentAttention, lambda right, mixer, dtype, tp: right(replace(mixer, rope_dim=0), dtype, tp)),
        {"memory", "framework", "ranks"},
    ),
    "states in 16 bits": (
        cached(LinearAttention, lambda right, mixer, dtype, tp: right(replace(mixer, state_bits=16), dtype, tp)),
        {"memory", "framework", "ranks"},
    ),
    "a window one token wider": (
        cached(SlidingAttention, lambda right, mixer, dtype, tp: right(replace(mixer, window=mixer.window + 1), dtype, tp)),
        {"framework"},
    ),
    "a page less": (one_token_less, {"memory"}),
    "windows never slide": (window_as_a_plain_length, {"memory"}),
    "no block tables": (no_block_tables, {"memory"}),
    "transformers keeps W": (transformers_keeps_the_whole_window, {"framework"}),
    "eager": (a_backend("eager"), {"transient"}),
    "math": (a_backend("math"), {"transient"}),
    "flash": (a_backend("flash"), {"transient"}),
    "no tensor parallelism": (all_heads_on_every_rank, {"ranks"}),
    "no context parallelism": (context_not_shared_out, {"ranks"}),
}  # fmt: skip


@pytest.mark.parametrize(("break_it", "seen_in"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_shows(
    break_it: Callable[[pytest.MonkeyPatch], None], seen_in: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    assert sections_that_are_off() >= seen_in
