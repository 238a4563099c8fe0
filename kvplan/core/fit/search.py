"""The searches: the longest request, the most requests, the least share, each exact to one.

Each bisects what only falls: more requests, or longer ones, never leave more memory. One engine is not monotone in the
length: vLLM's first engine reads prompts of more than 32768 tokens in chunks, and so needs less for them. Lengths are
therefore searched between powers of two, the longest first.
"""

from collections.abc import Callable
from dataclasses import replace

from kvplan.core.boot import overhang
from kvplan.core.fit.trial import Case, Trial

MOST_REQUESTS = 2**20
"""No engine runs more at once."""


def last_true(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The largest n in [low, high] for which `holds(n)`, which is true at `low` and never true again once false."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def first_true(low: int, high: int, holds: Callable[[int], bool]) -> int | None:
    """The least n in [low, high] for which `holds(n)`, which stays true once it is; None where it never is."""
    if low > high or not holds(high):
        return None
    return low if holds(low) else 1 + last_true(low, high, lambda number: not holds(number))


def point(case: Case, length: int, requests: int | None) -> Trial:
    """A start for `requests` of one length: with the limit as it is where that does, else with a limit of just those.

    `requests` None asks for one, and leaves the limit alone.
    """
    trial = case.at(length)
    if requests is None or case.limit_is_held or trial.concurrency >= requests:
        return trial
    pinned = case.at(length, requests)
    return pinned if pinned.concurrency >= requests or pinned.boot.starts else trial


def longest(case: Case, requests: int | None) -> Trial | None:
    """The longest request, so many of which are held at once; None where there is none.

    Of two limits that give the same length, the engine's own.
    """
    limits = [None] if requests is None or case.limit_is_held else [None, requests]
    found = [trial for limit in limits if (trial := _longest(case, limit, requests or 1))]
    return max(found, key=lambda trial: trial.length, default=None)


def _longest(case: Case, limit: int | None, requests: int) -> Trial | None:
    def holds(length: int) -> bool:
        return case.at(length, limit).concurrency >= requests

    top = case.longest
    while top > 0:
        bottom = 1 << ((top - 1).bit_length() - 1) if top > 1 else 0
        if holds(bottom + 1):
            return case.at(last_true(bottom + 1, top, holds), limit)
        top = bottom
    return None


def most_requests(case: Case, length: int) -> Trial | None:
    """The most requests of one length at once, with the limit that admits them; None where the engine does not start.

    The limit itself takes memory: it is raised until what it admits is no longer held.
    """
    own = case.at(length)
    if case.limit_is_held:
        return own if own.concurrency else None

    def holds(requests: int) -> bool:
        return case.at(length, requests).concurrency >= requests

    low = max(1, own.concurrency)
    if not holds(low):
        return own if own.concurrency else None
    high = low
    while high < MOST_REQUESTS and holds(2 * high):
        high *= 2
    most = last_true(high, min(2 * high, MOST_REQUESTS), holds)
    return own if most == own.concurrency else case.at(length, most)


def with_share(case: Case, hundredths: int) -> Case:
    """The same with another share of the device."""
    return replace(case, serving=replace(case.serving, gpu_memory_utilization=hundredths / 100, share_stated=True))


def least_share(case: Case, length: int, requests: int | None, most: int = 100) -> Trial | None:
    """The start with the least share, in steps of 0.01 up to `most`, that holds so many requests."""

    def holds(share: int) -> bool:
        return point(with_share(case, share), length, requests).concurrency >= (requests or 1)

    if most < 1 or not holds(most):
        return None
    least = 1 + most - last_true(1, most, lambda steps: holds(1 + most - steps))
    return point(with_share(case, least), length, requests)


def safe_share(case: Case, trial: Trial) -> int | None:
    """Hundredths of the device: the most that leaves room for what lies outside, and its spread.

    None without accounts, and where no share says how large the pool is. What lies outside may grow with the share, as
    tables of what the pool holds do: each share is tried.
    """
    if not trial.boot.accounts or trial.boot.sized_by is not None:
        return None

    def safe(share: int) -> bool:
        accounts = with_share(case, share).at(trial.length, trial.serving.switches.max_num_seqs).boot.accounts
        return bool(accounts) and not any(overhang(account, 1) for account in accounts)

    return last_true(1, 99, safe) if safe(1) else None
