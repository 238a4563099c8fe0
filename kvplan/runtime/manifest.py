"""The command in a pasted manifest: of Docker Compose (`command:`, `entrypoint:`) or Kubernetes (`command:`, `args:`).

Only as much of YAML is read as such lines have: lists in brackets and below, folded and literal blocks, quoted and
plain words, comments. Nothing is run.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from kvplan.runtime.shell import filled

_KEY = re.compile(
    r"(?P<indent>[ ]*(?:- +)?)(?P<key>image|entrypoint|command|args|environment|env) *:(?: +(?P<rest>.*))?$"
)
_ANY_KEY = re.compile(r"[ ]*(?:- +)?[\w.\-/]+ *:(?: |$)")
_ITEM = re.compile(r"[ ]*- +(?P<text>.*)$")
_BLOCK = re.compile(r"[>|][+-]?\d?$")
_TOKEN = re.compile(r"""\s*(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^']|'')*)'|(?P<plain>[^,\[\]]+))\s*""")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_GPUS = re.compile(r"""["']?(?:nvidia|amd)\.com/gpu["']? *: *["']?(\d+)""")
_COUNT = re.compile(r"[ ]*(?:- +)?count *: *[\"']?(\d+)[\"']? *$")
_IDS = re.compile(r"[ ]*(?:- +)?device_ids *: *\[([^\]]*)\]")
_REFERENCE = re.compile(r"\$\((\w+)\)", re.ASCII)
"""What Kubernetes fills with a container's variable."""
_PART_ORDER = ("entrypoint", "command", "args")


@dataclass(slots=True)
class _Container:
    """What one service or container says."""

    indent: int
    image: str = ""
    parts: dict[str, str] = field(default_factory=dict)
    """A piece of shell text by key."""
    environment: list[str] = field(default_factory=list)
    num_devices: str = ""
    """GPUs that are set aside for it."""


def container_commands(text: str) -> list[str]:
    """What each container of a manifest runs, as shell text; none where the text is no manifest."""
    found = [one for one in _containers(text.expandtabs(4).splitlines()) if one.image or one.parts]
    return [_shell(one) for one in found if one.parts or one.image]


def _shell(container: _Container) -> str:
    words = " ".join(container.parts[key] for key in _PART_ORDER if key in container.parts)
    pairs = dict(pair.partition("=")[::2] for pair in map(filled, container.environment))
    words = _REFERENCE.sub(lambda found: pairs.get(found[1], found[0]), filled(words))
    if not container.image:
        return words
    variables = " ".join(f"-e {shlex.quote(filled(pair))}" for pair in container.environment)
    entrypoint = container.parts.get("entrypoint")
    image = "" if entrypoint else shlex.quote(filled(container.image))
    devices = f"--gpus={container.num_devices}" if container.num_devices else ""
    return f"docker run {devices} {variables} {image} {words}".strip()


def _devices(line: str) -> str:
    """The number of GPUs that a line sets aside; an empty text for one that does not."""
    if found := _GPUS.search(line) or _COUNT.match(line):
        return found[1]
    found = _IDS.match(line)
    return str(len(found[1].split(","))) if found else ""


def _containers(lines: list[str]) -> Iterator[_Container]:
    current: _Container | None = None
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        indent = len(line) - len(line.lstrip(" "))
        found = _KEY.match(line)
        if current is not None and line.strip() and (indent < current.indent - 2 or _is_next(current, line, indent)):
            yield current
            current = None
        if found is None:
            if current is not None:
                current.num_devices = _devices(without_comment(line)) or current.num_devices
            continue
        depth = len(found["indent"])
        current = current or _Container(indent=depth)
        end = _end(lines, at, depth)
        _take(current, found["key"], without_comment(found["rest"] or ""), lines[at:end])
        at = end
    if current is not None:
        yield current


def _is_next(container: _Container, line: str, indent: int) -> bool:
    """Whether a list's next item, or the next service, begins."""
    if line.lstrip().startswith("- ") and indent < container.indent:
        return True
    return indent < container.indent and _ANY_KEY.match(line) is not None


def _end(lines: list[str], at: int, depth: int) -> int:
    """The line after those that belong to a key: deeper ones, and a list's items at its own depth."""
    while at < len(lines):
        line = lines[at]
        indent = len(line) - len(line.lstrip(" "))
        closes = line.strip() in ("]", "],")
        if line.strip() and indent <= depth and not closes and not (indent == depth and line.lstrip().startswith("- ")):
            break
        if line.strip() and indent < depth:
            break
        at += 1
    return at


def _take(container: _Container, key: str, rest: str, below: list[str]) -> None:
    if key == "image":
        container.image = unquoted(rest)
    elif key in ("environment", "env"):
        container.environment += _pairs(rest, below)
    else:
        container.parts[key] = _text(rest, below)


def _text(rest: str, below: list[str]) -> str:
    """A command as shell text: a list's items quoted, a string as it stands."""
    if _BLOCK.match(rest):
        joint = " " if rest.startswith(">") else "\n"
        return joint.join(line.strip() for line in below if line.strip())
    if rest.startswith("["):
        return shlex.join(_flow(" ".join([rest, *map(without_comment, below)])))
    items = [found["text"] for line in below if (found := _ITEM.match(line))]
    if not rest and items:
        return shlex.join(unquoted(without_comment(item)) for item in items)
    return " ".join([unquoted(rest), *(without_comment(line).strip() for line in below)]).strip()


def _flow(text: str) -> list[str]:
    words = []
    for found in _TOKEN.finditer(text.strip().lstrip("[").rpartition("]")[0]):
        word = found["double"] if found["double"] is not None else found["single"]
        plain = found["plain"].strip() if found["plain"] else ""
        if word is not None or plain:
            words.append(re.sub(r"\\(.)", r"\1", word) if word is not None else plain)
    return words


def _pairs(rest: str, below: list[str]) -> list[str]:
    """`A=b` of a list of those, of a mapping, or of Kubernetes' names and values."""
    if rest.startswith("["):
        return [pair for pair in _flow(" ".join([rest, *below])) if "=" in pair]
    pairs, name = [], ""
    for line in map(without_comment, below):
        text = line.strip().removeprefix("- ").strip()
        key, colon, value = text.partition(":")
        if key == "name" and colon:
            name = unquoted(value.strip())
        elif key == "value" and colon and name:
            pairs.append(f"{name}={unquoted(value.strip())}")
        elif "=" in unquoted(text) and not re.match(r"\w+ *: ", text):
            pairs.append(unquoted(text))
        elif colon and re.fullmatch(r"[A-Z_][A-Z0-9_]*", key) and value.strip():
            pairs.append(f"{key}={unquoted(value.strip())}")
    return pairs


def unquoted(text: str) -> str:
    """A scalar without its quotes."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    return text


def without_comment(text: str) -> str:
    """A line without what follows a `#`, unless it stands in quotes."""
    parts = re.split(r"""("(?:[^"\\]|\\.)*"|'[^']*')""", text)
    for index in range(0, len(parts), 2):
        if found := _COMMENT.search(parts[index]):
            return "".join(parts[:index]) + parts[index][: found.start()].rstrip()
    return text.rstrip()
