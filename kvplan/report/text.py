"""A page as aligned text for a terminal of 80 to 100 columns."""

from kvplan.report.page import LINE_LENGTH, Line, Page, Table, Tone

BAR_WIDTH = 24
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_STYLES: dict[Tone, str] = {"plain": "", "good": "1;32", "bad": "1;31", "faint": "2"}
_ASCII = str.maketrans(
    {"█": "#", "▏": ".", "▎": ".", "▍": "-", "▌": "-", "▋": "=", "▊": "=", "▉": "#"}
    | {"×": "x", "·": "-", "…": "...", "µ": "u", "°": "", "±": "+-"}
)


def draw(page: Page, *, color: bool = False) -> str:
    """The page as text; ANSI styles only where `color` says so."""
    parts = [_styled(page.title, "1", color), *_lines(page.lines, color)] if page.title else []
    if page.code:
        parts += ["", *(f"  {line}" for line in page.code)]
    for table in page.tables:
        if parts:
            parts.append("")
        parts += _table(table, color)
    return "\n".join(parts) + "\n"


def encodable(text: str, encoding: str | None) -> str:
    """The text as an output of that encoding can carry it: blocks become `#`, the rest is escaped."""
    encoding = encoding or "ascii"
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")
    return text


def bar(fraction: float, width: int = BAR_WIDTH) -> str:
    """A bar of up to `width` blocks; what is more than nothing shows at least a sliver."""
    eighths = round(max(0.0, min(1.0, fraction)) * width * 8)
    if fraction > 0:
        eighths = max(1, eighths)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]


def _table(table: Table, color: bool) -> list[str]:
    rows, header, align = list(table.rows), table.header, table.align
    if table.bars:
        header, align = (*header[:-1], "", header[-1]), f"{align[:-1]}l{align[-1]}"
        rows = [(*row[:-1], bar(share), row[-1]) for row, share in zip(rows, table.bars, strict=True)]
    indent = "  " if table.title else ""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [_styled(table.title, "1", color)] if table.title else []
    if any(header):
        lines.append(_styled(indent + _row(header, widths, align), "2", color))
    lines += [indent + _row(row, widths, align) for row in rows]
    return lines + _lines(table.after, color, indent)


def _row(cells: tuple[str, ...], widths: list[int], align: str) -> str:
    padded = (
        cell.rjust(width) if side == "r" else cell.ljust(width)
        for cell, width, side in zip(cells, widths, align, strict=True)
    )
    return "  ".join(padded).rstrip()


def _lines(lines: tuple[Line, ...], color: bool, indent: str = "") -> list[str]:
    import textwrap

    room = LINE_LENGTH - len(indent)
    return [
        indent + _line(Line(part, line.tone), color)
        for line in lines
        for part in textwrap.wrap(line.text, room, break_long_words=False, break_on_hyphens=False)
    ]


def _line(line: Line, color: bool) -> str:
    return _styled(line.text, _STYLES[line.tone], color)


def _styled(text: str, style: str, color: bool) -> str:
    return f"\033[{style}m{text}\033[0m" if color and style and text else text
