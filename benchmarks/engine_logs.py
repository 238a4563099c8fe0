"""Engines' start-up logs beside kvplan: what a pool holds, and what leaves room for it.

    python benchmarks/engine_logs.py [--rows]

Two questions, each scored once for a group of near-equal runs:

    given the pool      blocks, tokens, requests of the printed bytes: equal within their printed rounding?
    from flags alone    weights, activations, the rest, the pool and requests, from GPU, flags and model

Rows whose model was worked out from their own figures, and those of a fork, count for nothing and are told apart; so is
the sweep of vLLM 0.19 on one kind of H100. `--rows` prints every row.
"""

import argparse
import statistics
from collections import defaultdict
from dataclasses import dataclass

from engine_log_rows import Account, Check, Row, account_of, observations, pool_checks

from kvplan.core.errors import KvplanError
from kvplan.core.units import GIB, MIB

TERMS = ("weights", "activations", "non-torch", "consumed", "graphs", "graphs (estimate)", "pool", "concurrency")
RELATIVE = ("weights", "pool", "concurrency")
SPOILT = ("leak", "npu", "branch", "uneven", "overheads-only")
"""Exceptions of rows whose terms say nothing of the engine: the rest of the machine had a part in them."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One row's answer to the first question."""

    row: Row
    checks: list[Check]
    refused: str = ""

    @property
    def wrong(self) -> list[str]:
        """What differs, in words."""
        off = [check for check in self.checks if not check[1] <= check[3] <= check[2]]
        found = [f"{name} {least:.10g} to {most:.10g}, printed {seen:.10g}" for name, least, most, seen in off]
        return [self.refused] if self.refused else found


def label(row: Row) -> str:
    """Engine and version as the tables name them; rows that count for nothing have names of their own."""
    version = ".".join(row["version"].split(".")[:2])
    name = f"{row['engine']} {version or '(not stated)'}" if row["engine"] != "ik_llama.cpp" else "ik_llama.cpp (fork)"
    return f"{name}, model inferred" if row["inferred"] and "fork" not in name else name


def groups(rows: list[Row]) -> list[Row]:
    """One row of each group."""
    first = {row["group"] or row["id"]: row for row in reversed(rows)}
    return [row for row in rows if first[row["group"] or row["id"]] is row]


def judge(row: Row) -> Judged:
    """A row's checks, or why kvplan has no answer."""
    try:
        return Judged(row, pool_checks(row))
    except KvplanError as error:
        return Judged(row, [], str(error))


def given_the_pool(rows: list[Row], *, every: bool) -> None:
    """The first question's table, and each row that differs with its cause."""
    print("Given the pool: figures equal within their printed rounding")
    print(f"  {'engine':34} {'rows':>5} {'equal':>6} {'named':>6} {'other':>6}")
    judged = [judge(row) for row in groups(rows)]
    comparable = [item for item in judged if item.checks or item.refused]
    tables: dict[str, list[Judged]] = defaultdict(list)
    for item in comparable:
        tables[label(item.row)].append(item)
    for name in sorted(tables, key=lambda name: ("fork" in name or "inferred" in name, name)):
        print(f"  {name:34} {tally(tables[name])}")
    claimed = [item for item in comparable if not item.row["inferred"] and item.row["engine"] != "ik_llama.cpp"]
    print(f"  {'all but inferred and fork':34} {tally(claimed)}   ({len(judged) - len(comparable)} rows print no pool)")
    for item in comparable:
        if item.wrong or every:
            cause = (item.row["exception"] or "unexplained") if item.wrong else "equal"
            print(f"    {item.row['id']} {item.row['checkpoint']} [{cause}] {'; '.join(item.wrong)}")


def tally(found: list[Judged]) -> str:
    """Rows, equal ones, those that differ for a named cause, and others."""
    wrong = [item for item in found if item.wrong]
    named = sum(bool(item.row["exception"]) for item in wrong)
    return f"{len(found):5} {len(found) - len(wrong):6} {named:6} {len(wrong) - named:6}"


def from_flags(rows: list[Row], *, every: bool) -> None:
    """The second question's tables: how far each term is off, the sweep apart."""
    accounts = accounts_of(rows)
    print("\nFrom GPU, flags and model alone: kvplan less the log")
    print(f"  {'engine':34} {'term':17} {'rows':>4} {'median':>8} {'p90':>8} {'worst':>8} {'bias':>8}")
    tables: dict[str, list[Account]] = defaultdict(list)
    for account in accounts:
        sweep = " H100 sweep" if account.row["source"].startswith("llm-d-incubation") else ""
        tables[label(account.row) + sweep].append(account)
        if not account.row["inferred"]:
            tables["vllm, all of these"].append(account)
    for name, found in sorted(tables.items(), key=lambda item: ("inferred" in item[0], item[0])):
        for term in TERMS:
            pairs = [(a.predicted[term], a.printed[term]) for a in found if a.printed.get(term)]
            if pairs:
                print(f"  {name:34} {term:17} {spread(pairs, relative=term in RELATIVE)}")
    beyond_the_margin(accounts)
    for account in accounts if every else ():
        shown = (f"{term} {account.predicted[term]:.2f} ({account.printed[term]:g})" for term in account.printed)
        print(f"    {account.row['id']} {account.row['checkpoint']}: {', '.join(shown)}")


def beyond_the_margin(accounts: list[Account]) -> None:
    """Pools that kvplan takes for larger than they were, the dangerous direction, by more than the stated spread."""
    pools = [a for a in accounts if a.printed.get("pool") and not a.row["inferred"]]
    over = [a for a in pools if a.predicted["pool"] - a.printed["pool"] > a.predicted["margin"] + 0.01]
    print(f"  pools larger than printed by more than the stated margin: {len(over)} of {len(pools)}")
    for account in over:
        ours = f"{account.predicted['pool']:.2f} ± {account.predicted['margin']:.2f} GiB"
        print(f"    {account.row['id']} {account.row['checkpoint']}: {ours}, printed {account.printed['pool']:.2f}")


def accounts_of(rows: list[Row]) -> list[Account]:
    """Accounts of one row a group that print any term and that kvplan can answer."""
    found = []
    for row in groups([row for row in rows if row["exception"] not in SPOILT]):
        try:
            account = account_of(row)
        except KvplanError:
            continue
        if account is not None and account.printed:
            found.append(Account(row, {k: v for k, v in account.printed.items() if k in TERMS}, account.predicted))
    return found


def spread(pairs: list[tuple[float, float]], *, relative: bool) -> str:
    """Median, 90th percentile and worst of absolute deviations, and the mean with its sign: % or MiB."""
    if relative:
        off = [100 * (ours / theirs - 1) for ours, theirs in pairs]
    else:
        off = [(ours - theirs) * GIB / MIB for ours, theirs in pairs]
    sizes = sorted(abs(value) for value in off)
    ninth = sizes[min(len(sizes) - 1, int(0.9 * len(sizes)))]
    shown = (statistics.median(sizes), ninth, max(off, key=abs), statistics.fmean(off))
    digits = 2 if relative else 0
    return f"{len(off):4} " + " ".join(f"{value:8.{digits}f}" for value in shown) + (" %" if relative else " MiB")


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", action="store_true", help="every row, not only those that differ")
    every = parser.parse_args().rows
    rows = observations()
    given_the_pool(rows, every=every)
    from_flags(rows, every=every)


if __name__ == "__main__":
    main()
