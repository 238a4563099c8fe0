"""Words for people: strings from outside made safe to print, lists of words."""

from collections.abc import Iterable


def printable(text: str, *, max_length: int = 200) -> str:
    """`text` with everything escaped that could move a cursor or turn a line around, and cut short."""
    shown = text if len(text) <= max_length else f"{text[:max_length]}…"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown)


def join_words(words: Iterable[str]) -> str:
    """`a, b and c`, for sentences."""
    *head, last = list(words) or [""]
    return f"{', '.join(head)} and {last}" if head else last
