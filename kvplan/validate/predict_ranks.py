"""What every rank of a layout holds of a model's caches: the plan's side, for `measure.ranks` to disagree with."""

from __future__ import annotations

from collections.abc import Sequence

from kvplan.core.cache import Cache, caches_of
from kvplan.core.dtypes import BF16, DType
from kvplan.core.errors import InputError
from kvplan.core.layout import context_tokens, tp_accepted
from kvplan.core.model import ModelSpec
from kvplan.core.serving import positive
from kvplan.core.stages import stage_bounds
from kvplan.core.units import round_up
from kvplan.validate.case import Case
from kvplan.validate.predict import case_caches


def rank_cache_bytes(
    model: ModelSpec,
    *,
    seq_len: int,
    batch_size: int,
    kv_dtype: DType,
    page_size: int,
    tp: int = 1,
    pp: int = 1,
    cp: int = 1,
    encoder_seq_len: int | None = None,
    dtype: DType = BF16,
) -> list[int]:
    """Bytes of each rank's pools, by rank: tp runs fastest, then cp, then pp.

        rank = Σ layers of its stage: batch · (⌈tokens / page⌉ · page · bytes per token + fixed bytes)

    tokens: the rank's share of a sequence, or of its window. dtype: the model's, for what follows no KV format. Ranks
    of one tp group hold equally much; with cp, the first of a group the most, unless a window begins elsewhere. Raises
    InputError for heads that do not divide over `tp`, for too many stages, and for a number that is not positive.
    """
    given = {"seq_len": seq_len, "batch_size": batch_size, "page_size": page_size, "tp": tp, "pp": pp, "cp": cp}
    for name, number in given.items():
        positive(name, number)
    if not tp_accepted(model, tp):
        raise InputError(f"the heads of `{model.id}` do not divide over tp {tp}", hint="use a tp that divides them")
    if pp > model.num_layers:
        raise InputError(f"`pp` is {pp}, but the model has {model.num_layers} layers", hint="use fewer stages")

    def held(cache: Cache, index: int) -> int:
        num_tokens = seq_len if not cache.over_encoder or encoder_seq_len is None else encoder_seq_len
        return share_bytes(cache, num_tokens, page_size, cp, index)

    by_rank = []
    for start, stop in stage_bounds(model.num_layers, pp):
        counts = model.layer_counts(start, stop)
        caches = [(n, cache) for layer, n in counts for _, cache in caches_of(layer, kv_dtype, tp, dtype)]
        for index in range(cp):
            by_rank += [batch_size * sum(n * held(cache, index) for n, cache in caches)] * tp
    return by_rank


def share_bytes(cache: Cache, num_tokens: int, page_size: int, cp: int, index: int) -> int:
    """What one of `cp` ranks holds of one layer's cache of one sequence, in whole pages; entries as tokens are."""
    before = cache.fixed_bytes // cache.bytes_per_token if cache.bytes_per_token else 0
    tokens = context_tokens(before + num_tokens, cp, index, cache.max_tokens)
    entries = context_tokens(num_tokens // cache.tokens_per_entry, cp, index) if cache.entry_bytes else 0
    paged = round_up(tokens, page_size) * cache.bytes_per_token + round_up(entries, page_size) * cache.entry_bytes
    return paged + (0 if cache.bytes_per_token else cache.fixed_bytes)


def job_cache_bytes(
    cases: Sequence[Case], layer_order: Sequence[Sequence[int]], *, tp: int, pp: int, cp: int
) -> list[int]:
    """The same of a record, which has cases in the place of a model."""
    caches = [case_caches(case, tp) for case in cases]
    by_rank = []
    for start, stop in stage_bounds(len(layer_order), pp):
        held = [index for layer in layer_order[start:stop] for index in layer]
        for place in range(cp):
            total = sum(
                cases[index].batch * share_bytes(cache, cases[index].seq_len, cases[index].page_size, cp, place)
                for index in held
                for cache in caches[index]
            )
            by_rank += [total] * tp
    return by_rank
