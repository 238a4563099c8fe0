"""Files of this machine that a pasted text stands for, or names: a manifest, vLLM's `--config`."""

import json
import re
from pathlib import Path

from kvplan.core.errors import InputError
from kvplan.core.text import printable
from kvplan.runtime.manifest import unquoted, without_comment

_LONGEST_NAME, _LARGEST = 1024, 1 << 20
_PASTE = "paste the command itself, or name a file that holds it"
_FILE_NAME = re.compile(r"[^=]*\.(?:ya?ml|sh|bash|service|txt|json|conf|env|toml|bat|ps1)", re.IGNORECASE)
_ENTRY = re.compile(r"(?P<key>[\w-]+) *:(?: +(?P<value>.*))?$")
_ITEM = re.compile(r" *- +(?P<value>.*)$")


def contents(text: str) -> str:
    """What is in the file whose name `text` is; `text` itself where it is none.

    Raises InputError for a file that cannot be read as text, is empty or of more than 1 MiB, for a folder, and for the
    name of a file that is not there.
    """
    name = text.strip()
    path = _file(name)
    if path is None:
        _no_file(name)
        return text
    found = _read(path)
    if found is None:
        raise InputError(f"`{printable(name)}` is no text of up to 1 MiB", hint=_PASTE)
    if not found.strip():
        raise InputError(f"`{printable(name)}` is empty", hint=_PASTE)
    return found


def _no_file(name: str) -> None:
    """Raises InputError for a word that can only be a file's name."""
    if len(name.split()) != 1 or len(name) > _LONGEST_NAME:
        return
    if _is_folder(name):
        raise InputError(f"`{printable(name)}` is a folder", hint="name the file in it that holds the command")
    if _FILE_NAME.fullmatch(name):
        raise InputError(f"there is no file `{printable(name)}`", hint=_PASTE)


def _is_folder(name: str) -> bool:
    try:
        return Path(name).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):
        return False


def file_text(name: str) -> str | None:
    """What is in a file of that name on this machine; None where there is none, or it is no text of up to 1 MiB."""
    path = _file(name)
    return None if path is None else _read(path)


def config_words(name: str) -> list[str] | None:
    """The flags of a YAML file, as vLLM makes them; None where there is none, or kvplan does not understand it.

    Source: vLLM 0.33, utils/argparse_utils.py `load_config_file`: `key: value` → `--key value`, true → `--key`,
    false → `--no-key`, a list → several words. What is nested deeper is read where it is JSON.
    """
    path = _file(name) if name.endswith((".yaml", ".yml")) else None
    text = None if path is None else _read(path)
    if text is None:
        return None
    words: list[str] = []
    for line in map(without_comment, text.splitlines()):
        entry, item = _ENTRY.match(line), _ITEM.match(line)
        if not line.strip() or line.strip() == "---":
            continue
        if item is not None and words:
            words.append(unquoted(item["value"]))
        elif entry is None:
            return None
        else:
            words += _flag(entry["key"], (entry["value"] or "").strip())
    return words


def _flag(key: str, value: str) -> list[str]:
    if value.lower() in ("true", "false"):
        return [f"--{key}" if value.lower() == "true" else f"--no-{key}"]
    if value.startswith("[") and value.endswith("]"):
        return [f"--{key}", *(unquoted(part) for part in value[1:-1].split(",") if part.strip())]
    if value.lower() in ("null", "~"):
        return []
    return [f"--{key}", *([_object(value)] if value else [])]


def _object(value: str) -> str:
    """`{a: 1}` as it stands where it is JSON; else a word."""
    try:
        return json.dumps(json.loads(value)) if value.startswith("{") else unquoted(value)
    except ValueError:
        return value


def _file(name: str) -> Path | None:
    if not name or "\n" in name or len(name) > _LONGEST_NAME:
        return None
    try:
        path = Path(name).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8") if path.stat().st_size <= _LARGEST else None
    except (OSError, ValueError):
        return None
