"""A page as GitHub-flavoured Markdown, for issues and design notes."""

import re

from kvplan.report.page import Page, Table

_SPECIAL = re.compile(r"([\\`*_<>|\[\]#~&])")


def draw(page: Page) -> str:
    """The page as Markdown; whatever it shows stays text."""
    parts = [f"### {_escaped(page.title)}"] if page.title else []
    parts += [_escaped(line.text) for line in page.lines]
    if page.code:
        parts.append("\n".join(("```sh", *page.code, "```")))
    for table in page.tables:
        if table.title:
            parts.append(f"**{_escaped(table.title)}**")
        parts.append(_table(table))
        parts += [f"**{_escaped(line.text)}**" for line in table.after]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    rule = tuple("---:" if side == "r" else ":---" for side in table.align)
    rows = [_row(tuple(map(_escaped, table.header))), _row(rule)]
    return "\n".join(rows + [_row(tuple(map(_escaped, row))) for row in table.rows])


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.strip() for cell in cells)} |"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
