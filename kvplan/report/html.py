"""A page as a small piece of HTML that stands alone: what a notebook shows for a plan."""

from html import escape

from kvplan.core.plan import Plan
from kvplan.report.page import Page, Table

# Colours with an alpha channel and inherited text: legible on light and on dark notebooks.
_STYLE = """<style>
.kvplan {font-size: 13px; line-height: 1.5; max-width: 60em}
.kvplan h4 {font-size: 15px; margin: 0 0 .2em}
.kvplan p {margin: 0; opacity: .75}
.kvplan p.good, .kvplan p.bad {opacity: 1; font-weight: 600; margin-top: .3em}
.kvplan p.good {color: #1a7f37} .kvplan p.bad {color: #cf222e}
.kvplan table {border-collapse: collapse; margin: .9em 0 0; border: 0; color: inherit; font-size: inherit}
.kvplan caption {text-align: left; font-weight: 600; padding: 0 0 .2em; caption-side: top; color: inherit}
.kvplan th {font-weight: 400; opacity: .6}
.kvplan th, .kvplan td {padding: .1em 1.2em .1em 0; border: 0; background: none; white-space: nowrap}
.kvplan .l {text-align: left} .kvplan .r {text-align: right; font-variant-numeric: tabular-nums}
.kvplan .bar {width: 12em; min-width: 6em} .kvplan .bar div {height: .8em; background: #4c78a8; border-radius: 2px}
</style>"""


def render(plan: Plan) -> str:
    """The plan as a table with bars."""
    from kvplan.report.estimate import plan_page

    return draw(plan_page(plan))


def draw(page: Page) -> str:
    """The page as HTML; whatever it shows is escaped."""
    lines = "".join(f'<p class="{line.tone}">{escape(line.text)}</p>' for line in page.lines)
    code = "".join(("<pre>", *(f"{escape(line)}\n" for line in page.code), "</pre>")) if page.code else ""
    tables = "".join(_table(table) for table in page.tables)
    return f'{_STYLE}<div class="kvplan"><h4>{escape(page.title)}</h4>{lines}{code}{tables}</div>'


def _table(table: Table) -> str:
    head = [f'<th class="{side}">{escape(cell)}</th>' for cell, side in zip(table.header, table.align, strict=True)]
    rows = [
        [f'<td class="{side}">{escape(cell)}</td>' for cell, side in zip(row, table.align, strict=True)]
        for row in table.rows
    ]
    if table.bars:
        head.insert(-1, '<th class="bar"></th>')
        for cells, share in zip(rows, table.bars, strict=True):
            cells.insert(-1, f'<td class="bar"><div style="width: {100 * max(0.0, min(1.0, share)):.1f}%"></div></td>')
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    after = "".join(f'<p class="{line.tone}">{escape(line.text)}</p>' for line in table.after)
    return f"<table>{caption}<thead><tr>{''.join(head)}</tr></thead><tbody>{body}</tbody></table>{after}"
