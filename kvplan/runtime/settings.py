"""Files of settings in YAML, as TensorRT-LLM takes them: of this machine, or of a here-document in the pasted text.

Only as much of YAML is read as such files have: mappings, lists and scalars, in blocks or in brackets on one line.
"""

import json
import re
from collections.abc import Mapping

from kvplan.runtime.manifest import unquoted, without_comment
from kvplan.runtime.pasted import file_text

_HERE = re.compile(
    r"^[^\n]*?(?:>+\s*(?P<before>[^\s<>]+)\s*<<|<<)-?\s*(?P<quote>['\"]?)(?P<mark>\w+)(?P=quote)"
    r"(?:[ \t]*>+[ \t]*(?P<after>[^\s<>]+))?[^\n]*\n(?P<body>.*?)^[ \t]*(?P=mark)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)
_ENTRY = re.compile(r"""(?P<key>[\w.-]+|"[^"]+"|'[^']+') *:(?: +(?P<value>.*))?$""")
_TOKEN = re.compile(
    r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[{}\[\],]|:(?=[\s{\[]|$)|(?:[^{}\[\],:\s]|:\S|\s+(?=[^{}\[\],:\s]))+)"""
)
_WORDS: dict[str, object] = {"": None, "~": None, "null": None, "true": True, "false": False}
_NOT_READ = ("|", ">", "&", "*", "!", "%", "@", "`")
_Line = tuple[int, str]


def settings_of(name: str, text: str, variables: Mapping[str, str]) -> dict[str, object] | None:
    """The settings in the file `name`: as `text` writes it, with `variables` in its name, else as this machine has it.

    None where there is no such file, or kvplan does not understand it.
    """
    written = [found for found in _HERE.finditer(text) if _target(found, variables) == name]
    body = written[-1]["body"] if written else file_text(name)
    if body is None or (written and "$" in body):
        return None
    try:
        return _read(body)
    except (ValueError, RecursionError):
        return None


def _target(found: re.Match[str], variables: Mapping[str, str]) -> str:
    word = (found["before"] or found["after"] or "").strip("\"'")
    return _VARIABLE.sub(lambda name: variables.get(name[1] or name[2], name[0]), word)


def _read(body: str) -> dict[str, object]:
    if body.lstrip().startswith("{"):
        tree = json.loads(body)
    else:
        lines = [(len(line) - len(line.lstrip(" ")), line.strip()) for line in map(without_comment, body.splitlines())]
        lines = [line for line in lines if line[1] and line[1] != "---"]
        tree, rest = _block(lines, lines[0][0]) if lines else ({}, [])
        if rest:
            raise ValueError
    if not isinstance(tree, dict):
        raise ValueError
    return tree


def _block(lines: list[_Line], depth: int) -> tuple[object, list[_Line]]:
    """The block that stands at a depth, and the lines behind it; ValueError for what is not understood."""
    if lines[0][1].startswith("- ") or lines[0][1] == "-":
        return _items(lines, depth)
    tree: dict[str, object] = {}
    while lines and lines[0][0] == depth and not lines[0][1].startswith("- "):
        entry = _ENTRY.match(lines[0][1])
        if entry is None:
            raise ValueError
        value, lines = (entry["value"] or "").strip(), lines[1:]
        key = unquoted(entry["key"])
        below = lines and (lines[0][0] > depth or (lines[0][0] == depth and lines[0][1].startswith("- ")))
        if value or not below:
            tree[key] = _value(value)
        else:
            tree[key], lines = _block(lines, lines[0][0])
    if lines and lines[0][0] > depth:
        raise ValueError
    return tree, lines


def _items(lines: list[_Line], depth: int) -> tuple[list[object], list[_Line]]:
    items: list[object] = []
    while lines and lines[0][0] == depth and lines[0][1].startswith("- "):
        item = lines[0][1][2:].strip()
        if _ENTRY.match(item):
            raise ValueError  # a list of mappings
        items.append(_value(item))
        lines = lines[1:]
    return items, lines


def _value(text: str) -> object:
    if text.startswith(_NOT_READ):
        raise ValueError
    if not text.startswith(("{", "[")):
        return _scalar(text)
    tokens = [found[1].strip() for found in _TOKEN.finditer(text)]
    if "".join("".join(tokens).split()) != "".join(text.split()):
        raise ValueError
    value = _flow(tokens)
    if tokens:
        raise ValueError
    return value


def _flow(tokens: list[str]) -> object:
    """What stands in brackets; takes its tokens away."""
    first = _next(tokens)
    if first not in ("{", "["):
        if first in ("}", "]", ",", ":"):
            raise ValueError
        return _scalar(first)
    tree: dict[str, object] = {}
    items: list[object] = []
    while tokens and tokens[0] not in ("}", "]"):
        item = _flow(tokens)
        if first == "{":
            if _next(tokens) != ":":
                raise ValueError
            tree[str(item)] = _flow(tokens)
        else:
            items.append(item)
        if tokens and tokens[0] == ",":
            tokens.pop(0)
    if _next(tokens) != ("}" if first == "{" else "]"):
        raise ValueError
    return tree if first == "{" else items


def _next(tokens: list[str]) -> str:
    if not tokens:
        raise ValueError
    return tokens.pop(0)


def _scalar(text: str) -> object:
    if text[:1] in ('"', "'"):
        return unquoted(text)
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
