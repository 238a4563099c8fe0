"""Arguments as Python prints them: `{'a': 1}`, `Args(a=1, b=[…])`, `a=1, b='c'`. Read without running anything."""

import re

_PAIRS = {"(": ")", "[": "]", "{": "}", "<": ">"}
_MAX_DEPTH = 20
_MAX_ITEMS = 2000
_KEY = re.compile(r"""\s*(?:(['"])(?P<quoted>[^'"]*)\1\s*:|(?P<bare>[A-Za-z_][\w.]*)\s*=(?!=))""")
_INTEGER = re.compile(r"[+-]?\d+$")
_FLOAT = re.compile(r"[+-]?(?:\d+\.\d*|\.?\d+)(?:e[+-]?\d+)?$", re.IGNORECASE)
_CONSTANTS = {"None": None, "True": True, "False": False, "null": None, "true": True, "false": False}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
# vLLM 0.6 forgot one comma: `chunked_prefill_enabled=False multi_step_stream_outputs=True`.
_FORGOTTEN_COMMA = re.compile(r"(True|False|None|-?\d+) (\w+)=(.*)", re.DOTALL)


def read_items(text: str, at: int = 0) -> dict[str, object]:
    """The named values from `at` on, up to the bracket that closes them.

    Where none does, the text may have been cut off, and its last value is left out. What is no literal (an object, an
    enum's member, a dtype) stays as it is printed, as a string.
    """
    items: dict[str, object] = {}
    for piece in _pieces(text, at):
        key = _KEY.match(piece)
        if not key:
            continue
        rest = piece[key.end() :]
        name = key["quoted"] if key["bare"] is None else key["bare"]
        missing = _FORGOTTEN_COMMA.match(rest.strip())
        if missing:
            items[missing[2]] = literal(missing[3])
            rest = missing[1]
        items[name] = literal(rest)
    return items


def literal(text: str, depth: int = 0) -> object:
    """The constant, number, string or list that the text prints, else the text."""
    text = text.strip()
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) < 40:
        if _INTEGER.match(text):
            return int(text)
        if _FLOAT.match(text):
            return float(text)
    if len(text) >= 2 and text[0] in "'\"" and text[-1] == text[0]:
        return _ESCAPE.sub(r"\1", text[1:-1])
    if len(text) >= 2 and text[0] in "[(" and text[-1] == _PAIRS[text[0]] and depth < _MAX_DEPTH:
        return [literal(piece, depth + 1) for piece in _pieces(text, 1)]
    if len(text) >= 2 and text[0] == "{" and text[-1] == "}" and depth < _MAX_DEPTH:
        return read_items(text, 1) or text
    return text


def _pieces(text: str, at: int) -> list[str]:
    """What stands between the commas of the outermost level, and before the bracket that closes it."""
    pieces: list[str] = []
    stack: list[str] = []
    begin = at
    while at < len(text) and len(pieces) < _MAX_ITEMS:
        char = text[at]
        if char in "'\"":
            at = _end_of_string(text, at)
        elif stack and char == stack[-1]:
            stack.pop()
        elif char in _PAIRS:
            if char != "<" or re.match(r"<\w[\w.]*[:\s]", text[at : at + 80]):
                stack.append(_PAIRS[char])
        elif not stack and char in ")]}":
            break
        elif not stack and char == ",":
            pieces.append(text[begin:at])
            begin = at + 1
        at += 1
    if at < len(text) and text[begin:at].strip():
        pieces.append(text[begin:at])
    return pieces


def _end_of_string(text: str, at: int) -> int:
    quote = text[at]
    end = at + 1
    while end < len(text) and text[end] != quote:
        end += 2 if text[end] == "\\" else 1
    return end
