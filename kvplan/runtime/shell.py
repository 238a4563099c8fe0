"""What a shell would make of a pasted text: simple commands of words, each with the variables set before it.

Nothing is run, and nothing is substituted.
"""

import re
import shlex

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
_COMMENT = re.compile(r"^[ \t]*#[^\n]*$", re.MULTILINE)
_DEFAULT = re.compile(r"\$\{\w+:?-([^}]*)\}")
_MORE_FLAGS = re.compile(r"\n[ \t]*(?=-)")


def filled(text: str) -> str:
    """`${NAME:-8192}` as 8192, which it is where nothing else is set."""
    return _DEFAULT.sub(r"\1", text)


def comments(text: str) -> list[str]:
    """The lines that are comments, without their marks."""
    return [found[0].strip().lstrip("#").strip() for found in _COMMENT.finditer(text)]


def simple_commands(text: str) -> list[list[str]]:
    """The commands of a text as words: lines joined where `\\` ends them or flags begin the next one, prompts,
    comments and redirections left out, `${NAME:-default}` filled, cut at `;`, `&`, `|` and line ends.

    Raises InputError for an open quote.
    """
    text = _WINDOWS_PATH.sub(lambda found: found[0].replace("\\", "\\\\"), text)
    joined = _CONTINUED.sub(" ", _PROMPT.sub("", _COMMENT.sub("", filled(text))))
    joined = _MORE_FLAGS.sub(" ", joined.strip())
    return [words for line in _lines(joined) for words in _cut(_words(_without_redirections(line))) if words]


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
