"""Write the families' page: which model types are read, how each was compared, and every exception by name.

python -m tests.data.truth.make_page
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvplan.sources.families.table import READERS
from tests.data.truth.type_check import Outcome, load_rows, outcome
from tests.data.truth.type_exceptions import CACHE, NOT_READ, PARAMETERS
from tests.data.truth.type_rows import DEFAULTS, ROOT

PAGE: Path = ROOT / "kvplan" / "sources" / "families" / "README.md"

Rows = Mapping[str, list[dict[str, Any]]]

_TEXT = """# The families

A reader turns a config into layers and weight tensors, and nothing else; `table.py` has them all. What a config leaves
out and its class assumes stands in `class_defaults.jsonl`, written from transformers 5.23; the answer says of every fact
whether it was stated or left to the class (`kvplan inspect`).

How the readers are held to what is true, all by recorded facts (`tests/data/truth`, no framework needed):

- **Model types of transformers 5.23.** Every text-generating class, built from its own defaults in bf16 on the meta
  device: parameters, and what the cache holds of each layer after a prefill. Then the same with each key changed in
  turn, nested ones too: doubled, one more, switched, left out. A change that kvplan refuses in a sentence (heads that do
  not divide, say) is no wrong number, and is counted apart.
- **Real repositories.** Each file of the catalog carries figures that were not worked out by kvplan, and so do the
  rows of `families.jsonl`.
- **Types that live elsewhere** (remote code, other frameworks): by hand from the authors' own figures.

| of {types} types | |
|---|---|
| read | {read} |
| parameters equal | {parameters} of {with_parameters} that the class builds from its defaults |
| cache equal, every layer | {cache} of {with_cache} whose class keeps one and runs on the meta device |
| configurations with a key changed | {changed}: {changed_equal} equal, {refused} refused, {wrong} different |

## Exceptions

{exceptions}

## Every type

`=` equal, `≠` different (see above), `·` nothing to compare: the class keeps no cache, or cannot be built or run from
its own defaults.

| model type | class | parameters | cache | keys changed: equal | refused |
|---|---|---|---|---|---|
{rows}

## Read beyond these

{others}
"""


def page(rows: Rows) -> str:
    """The whole page."""
    found = {name: [outcome(row) for row in rows[name]] for name in sorted(rows) if name in READERS}
    first = [outcomes[0] for outcomes in found.values()]
    rest = [each for outcomes in found.values() for each in outcomes[1:]]
    refused = sum(each.refusal is not None for each in rest)
    equal = sum(_equal(each) for each in rest)
    return _TEXT.format(
        types=len(rows),
        read=len(found),
        parameters=sum(each.equal_parameters for each in first),
        with_parameters=sum(each.parameters is not None for each in first),
        cache=sum(each.equal_cache for each in first),
        with_cache=sum(each.caches is not None for each in first),
        changed=f"{len(rest):,}",
        changed_equal=f"{equal:,}",
        refused=f"{refused:,}",
        wrong=f"{len(rest) - equal - refused:,}",
        exceptions=_exceptions(),
        rows="\n".join(_row(name, rows[name][0], outcomes) for name, outcomes in found.items()),
        others=_others(rows),
    )


def _equal(each: Outcome) -> bool:
    return each.refusal is None and each.equal_parameters and (each.caches is None or each.equal_cache)


def _row(name: str, row: Mapping[str, Any], outcomes: Sequence[Outcome]) -> str:
    first, rest = outcomes[0], outcomes[1:]
    refused = sum(each.refusal is not None for each in rest)
    parameters = "·" if first.parameters is None else "=" if first.equal_parameters else "≠"
    cache = "·" if first.caches is None else "=" if first.equal_cache else "≠"
    counts = f"{sum(map(_equal, rest))} of {len(rest)}" if rest else "·"
    return f"| {name} | {row['class']} | {parameters} | {cache} | {counts} | {refused or ''} |"


def _exceptions() -> str:
    lines = [f"- `{name}` is not read: {why}" for name, why in sorted(NOT_READ.items())]
    lines += [f"- `{name}`, parameters: {why}" for name, why in sorted(PARAMETERS.items())]
    lines += [f"- `{name}`, cache: {why}" for name, why in sorted(CACHE.items())]
    return "\n".join(lines) if lines else "None."


def _others(rows: Rows) -> str:
    others = sorted(READERS.keys() - rows.keys())
    parts = [name for name in others if name in DEFAULTS]
    elsewhere = [name for name in others if name not in DEFAULTS]
    return (
        f"{len(parts)} types of transformers that generate no text, or are parts of the above: {', '.join(parts)}.\n\n"
        f"{len(elsewhere)} types that transformers 5.23 does not have: {', '.join(elsewhere)}."
    )


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(page(load_rows()), encoding="utf-8")


if __name__ == "__main__":
    main()
