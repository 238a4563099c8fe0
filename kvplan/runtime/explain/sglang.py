"""SGLang's pools: the bytes of the tokens and states that the log states, and the tokens of flags alone."""

from kvplan.core.engines.sglang import compressed
from kvplan.core.engines.sglang.layers import KVLayers, Stage, stages
from kvplan.core.engines.sglang.slots import page_size, slots_of
from kvplan.core.engines.sglang.states import slots_per_request
from kvplan.core.units import format_bytes
from kvplan.runtime.explain.account import Case, pool_judge, why_nothing, worst_basis
from kvplan.runtime.explain.answer import Row, around, exactly, make_row
from kvplan.runtime.explain.observed import number, whole
from kvplan.runtime.explain.pool import flags_rows, pools_of_boot


def sglang_rows(case: Case) -> list[Row]:
    """Bytes of keys, values and states for what the log counts; then tokens from flags alone."""
    rows = []
    if not compressed.applies(case.model):
        stage = stages(case.model, case.serving.deployment)[0]
        rows += [*_full(case, stage), *_sliding(case, stage), *_states(case, stage)]
    return rows + _pools(case) + _from_flags(case)


def shortage(case: Case) -> str:
    """What pools lack that the log counts below nothing; empty where none is.

    SGLang deals out what the share leaves after the weights, and prints the tokens of it also where that is negative:
    tokens · bytes of a token are what was lacking for a pool of none (model_executor/pool_configurator.py).
    """
    full = whole(case.observation, "full_tokens") or whole(case.observation, "num_tokens") or 0
    sliding = whole(case.observation, "swa_tokens") or 0
    if min(full, sliding) >= 0 or compressed.applies(case.model):
        return ""
    stage = stages(case.model, case.serving.deployment)[0]
    lacking = -full * sum(group.count * group.token_bytes for group in stage.full)
    lacking -= sliding * sum(group.count * group.token_bytes for group in stage.sliding)
    tokens = f"{full:,} and {sliding:,} tokens" if sliding else f"{full:,} tokens"
    return f"the weights leave the pools {format_bytes(lacking)} less than nothing: {tokens}" if lacking > 0 else ""


def _full(case: Case, stage: Stage) -> list[Row]:
    """Keys and values of the full layers: rows are the tokens and one page more."""
    tokens = whole(case.observation, "full_tokens") or whole(case.observation, "num_tokens")
    if tokens is None or tokens <= 0 or not stage.full:
        return []
    page = page_size(case.model, case.serving.deployment)
    return _bytes_rows(case, stage.full, tokens, page, "")


def _sliding(case: Case, stage: Stage) -> list[Row]:
    tokens, full = whole(case.observation, "swa_tokens"), whole(case.observation, "full_tokens")
    if tokens is None or tokens <= 0 or not stage.sliding:
        return []
    page = page_size(case.model, case.serving.deployment)
    rows = _bytes_rows(case, stage.sliding, tokens, page, "swa_")
    if full and full > 0 and stage.full:
        slots = slots_of(stage, case.serving.deployment, full, page, stage.sliding[0].window)
        why = "the full pool's tokens · swa_full_tokens_ratio, in whole pages"
        rows.append(make_row(
            "given", "sliding tokens", (tokens, 0), exactly(slots.sliding),
            unit="tokens", basis="exact", judged="exact", why=why,
        ))  # fmt: skip
    return rows


def _bytes_rows(case: Case, groups: tuple[KVLayers, ...], tokens: int, page: int, prefix: str) -> list[Row]:
    rows = []
    keys = (tokens + page) * sum(group.count * group.key_bytes for group in groups)
    both = (tokens + page) * sum(group.count * group.token_bytes for group in groups)
    sliding = "sliding " if prefix else ""
    least, most = _pages_open(case, tokens, page)
    for key, name, predicted in (
        ("key_cache", "keys", keys), ("value_cache", "values", both - keys), ("kv_cache", "keys and values", both)
    ):  # fmt: skip
        seen = number(case.observation, prefix + key)
        if seen is not None:
            title = f"{sliding}{name}"
            why = f"{sum(group.count for group in groups)} layers, {tokens:,} tokens and a page"
            low, high = (predicted // (tokens + page) * (tokens + more) for more in (least, most))
            rows.append(make_row(
                "given", title, seen, (predicted, low, high), basis="exact", rounding=True, judged="exact", why=why
            ))  # fmt: skip
    return rows


def _pages_open(case: Case, tokens: int, page: int) -> tuple[int, int]:
    """(least, most) tokens of a page: what is told, else whatever divides the pool's tokens, up to 256."""
    if case.serving.switches.block_size is not None or case.observation.options:
        return page, page
    return 1, max((size for size in (1, 16, 32, 64, 128, 256) if tokens % size == 0), default=page)


def _states(case: Case, stage: Stage) -> list[Row]:
    """Recurrent states and columns together: slots and one more."""
    state, conv = number(case.observation, "state_cache"), number(case.observation, "conv_cache")
    slots = whole(case.observation, "state_slots")
    if state is None or conv is None or slots is None or not stage.state_bytes:
        return []
    seen = state[0] + conv[0], state[1] + conv[1]
    each = slots_per_request(case.serving.deployment)
    why = f"{slots:,} slots and one more; a running request sets aside {each}"
    predicted = exactly((slots + 1) * stage.state_bytes)
    return [make_row("given", f"states of {slots:,} slots", seen, predicted, basis="exact", judged="exact", why=why)]


def _pools(case: Case) -> list[Row]:
    """All pools together against what the account leaves for them."""
    names = (
        "key_cache", "value_cache", "kv_cache", "swa_key_cache", "swa_value_cache", "swa_kv_cache", "state_cache",
        "conv_cache", "draft_key_cache", "draft_value_cache", "draft_kv_cache", "draft_state_cache", "draft_conv_cache",
    )  # fmt: skip
    found = [seen for name in names if (seen := number(case.observation, name)) is not None]
    if not found:
        return []
    seen = sum(round(value) for value, _ in found), sum(round(half) for _, half in found)
    name = "pools"
    if case.boot is None:
        return [make_row("flags", name, seen, None, why=why_nothing(case))]
    account = min(case.boot.accounts, key=lambda account: account.kv_memory_bytes)
    basis = worst_basis(account.taken)
    predicted = around(case.boot.kv_memory_bytes, case.boot.spread_bytes)
    made = case.observation.figures.keys() & {"available_after", "available_at_end"}
    judged = pool_judge(basis) if made else None  # a log that was cut may tell of some pools alone
    return [make_row("flags", name, seen, predicted, basis=basis, judged=judged)]


def _from_flags(case: Case) -> list[Row]:
    if case.boot is None:
        return []
    ends = pools_of_boot(case.model, case.serving, case.boot)
    return [] if ends is None else flags_rows(case.observation, ends, "calibrated")
