"""What a shell would make of a pasted text: simple commands of words, each with the variables set before it.

Nothing is run; of variables only those are put in that the text itself sets to plain words.
"""

import re
import shlex
from collections.abc import Iterable, Mapping

from kvplan.core.errors import InputError

ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(?!=)(.*)", re.DOTALL | re.ASCII)
_QUOTED = re.compile(r"""('[^']*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)
_REDIRECTION = re.compile(r"(?:(?<=\s)|^)\d?(?:&>>?|>>?&?|<&?)\s*&?[^\s'\"|;&]+")
_CONTINUED = re.compile(r"[ \t]*\\[ \t]*\r?\n")
# `$ `, `(venv) $ `, `root@host:~/dir# `
_PROMPT = re.compile(
    r"^[ \t]*(?:\([\w.-]+\)[ \t]*)?(?:[\w.-]+@[\w.-]+(?::[^\n$#]*)?[$#]|[$>%])[ \t]+(?=\S)", re.MULTILINE
)
_WINDOWS_PATH = re.compile(r"(?<![\w\\])[A-Za-z]:\\(?=[^\s\\])[^\s\"']*")
_ANSI_QUOTED = re.compile(r"(?<=[\s=])\$(?=')")
_COMMENT = re.compile(r"^[ \t]*#[^\n]*$", re.MULTILINE)
_DEFAULT = re.compile(r"\$\{\w+:?-([^}]*)\}")
_VARIABLE = re.compile(r"(?<!\\)\$(?:\{(?P<braced>[A-Za-z_]\w*)(?::?-[^}]*)?\}|(?P<plain>[A-Za-z_]\w*))", re.ASCII)
_UNIT = (
    (re.compile(r"^Environment=", re.MULTILINE), "export "),
    (re.compile(r"^ExecStart=[-@:+!]*", re.MULTILINE), ""),
)
"""Lines of a unit of systemd, as a shell has them."""
_SETS = frozenset({"export", "readonly", "declare", "typeset", "local"})
_OPENS, _CLOSES = frozenset({"if", "for", "while", "until", "case"}), frozenset({"fi", "done", "esac"})
_MORE_FLAGS = re.compile(r"\n[ \t]*(?=-)")


def filled(text: str) -> str:
    """`${NAME:-8192}` as 8192, which it is where nothing else is set."""
    return _DEFAULT.sub(r"\1", text)


def comments(text: str) -> list[str]:
    """The lines that are comments, without their marks."""
    return [found[0].strip().lstrip("#").strip() for found in _COMMENT.finditer(text)]


def simple_commands(text: str, variables: Mapping[str, str] | None = None) -> list[list[str]]:
    """The commands of a text as words: lines joined where `\\` ends them or flags begin the next one, prompts,
    comments and redirections left out, `${NAME:-default}` filled, cut at `;`, `&`, `|` and line ends.

    `variables` are set before it. One that the text sets to plain words, and to nothing else, stands for them in what
    follows. Raises InputError for an open quote.
    """
    text = _WINDOWS_PATH.sub(lambda found: found[0].replace("\\", "\\\\"), _ANSI_QUOTED.sub("", text))
    for pattern, put in _UNIT:
        text = pattern.sub(put, text)
    joined = _CONTINUED.sub(" ", _PROMPT.sub("", _COMMENT.sub("", text)))
    joined = _MORE_FLAGS.sub(" ", joined.strip())
    known = _Variables(variables or {})
    return [words for line in _lines(joined) for words in known.commands(line) if words]


class _Variables:
    """What the lines so far have set, as far as it is certain."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = {name: value for name, value in known.items() if _is_plain(value)}
        self._unclear: set[str] = set()
        self._depth = 0

    def commands(self, line: str) -> list[list[str]]:
        """The commands of the next line."""
        commands = _commands(self._put_in(line))
        if self._take(commands) and "$" in line:
            return _commands(self._put_in(line))
        return commands

    def _take(self, commands: Iterable[list[str]]) -> bool:
        taken = False
        for words in commands:
            first = words[0] if words else ""
            self._depth += (first in _OPENS) - (first in _CLOSES)
            found = [set_to for word in words if (set_to := ASSIGNMENT.fullmatch(word))]
            certain = not self._depth and len(found) == len(words) - (first in _SETS)
            if certain or self._depth:
                for one in found:
                    self._set(one[1], one[2] if certain else None)
                taken = taken or bool(found)
        return taken

    def _set(self, name: str, value: str | None) -> None:
        if value is None or not _is_plain(value) or self._known.get(name, value) != value:
            self._unclear.add(name)
            self._known.pop(name, None)
        elif name not in self._unclear:
            self._known[name] = value

    def _put_in(self, line: str) -> str:
        """The line with the values of variables, cut into words where no quotes are; not within single quotes."""
        return "".join(part if part.startswith("'") else self._filled(part) for part in _QUOTED.split(line))

    def _filled(self, part: str) -> str:
        def value(found: re.Match[str]) -> str:
            name = found["braced"] or found["plain"]
            if name not in self._known:
                return found[0]
            text = self._known[name]
            if part.startswith('"'):
                return re.sub(r'(["\\`])', r"\\\1", text)
            return " ".join(map(shlex.quote, text.split()))

        return _VARIABLE.sub(value, part)


def _is_plain(value: str) -> bool:
    return not set("$`") & set(value)


def _commands(line: str) -> list[list[str]]:
    return _cut(_words(_without_redirections(filled(line))))


def _lines(text: str) -> list[str]:
    """Lines, but not those within quotes."""
    parts = _QUOTED.split(text)
    marked = "".join(part if index % 2 else part.replace("\n", "\0") for index, part in enumerate(parts))
    return [line for line in marked.split("\0") if line.strip()]


def _without_redirections(line: str) -> str:
    parts = _QUOTED.split(line)
    return "".join(part if index % 2 else _REDIRECTION.sub(" ", part) for index, part in enumerate(parts))


def _words(line: str) -> list[str]:
    try:
        return _split(line, commenters="")
    except ValueError:
        pass
    try:
        return _split(line, commenters="#")  # an apostrophe in a comment opens no quote
    except ValueError:
        raise InputError("a quote in the command is not closed", hint="paste the whole command") from None


def _split(line: str, *, commenters: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split, lexer.commenters = True, commenters
    return list(lexer)


def _cut(words: list[str]) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    for word in words:
        if word.startswith("#"):
            break
        if word and set(word) <= set(";&|"):
            commands.append([])
        else:
            commands[-1].append(word)
    return commands
