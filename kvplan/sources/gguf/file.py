"""A GGUF file on disk, or all parts of a split one, as one header."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kvplan.core.errors import InputError
from kvplan.core.text import printable
from kvplan.sources.gguf.header import GgufHeader, read_header

PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
"""How llama.cpp's gguf-split names the parts of a file."""
MAX_PARTS = 1000


def header_of_file(path: Path) -> GgufHeader:
    """The header of the file at `path`, with the tensors of all parts where it is one of several.

    Raises InputError for a damaged file and for a part that is missing, OSError where one cannot be read.
    """
    return joined([_header(part) for part in _parts(path)], what=f"`{printable(path.name)}`")


def part_names(name: str) -> list[str]:
    """The names of all parts of the file that `name` is a part of; itself where it is whole."""
    match = PART.fullmatch(name)
    if match is None:
        return [name]
    count = int(match[3])
    if not 1 <= count <= MAX_PARTS:
        raise InputError(f"`{printable(name)}` is one of {count} parts", hint=f"at most {MAX_PARTS} are read")
    return [f"{match[1]}-{i:05d}-of-{match[3]}.gguf" for i in range(1, count + 1)]


def joined(headers: Sequence[GgufHeader], *, what: str) -> GgufHeader:
    """The metadata of the first part, the tensors of all. Raises InputError where parts are missing or repeat."""
    first = headers[0]
    count = first.metadata.get("split.count", 1) or 1
    if count != len(headers):
        hint = "give it the name that gguf-split gave it, beside the others"
        raise InputError(f"{what} is one of {count} parts, of which {len(headers)} were found", hint=hint)
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise InputError(f"the parts of {what} name a tensor twice", hint="do they belong together?")
    return replace(first, tensors=tensors)


def _parts(path: Path) -> list[Path]:
    parts = [path.with_name(name) for name in part_names(path.name)]
    for part in parts:
        if not part.is_file():
            hint = "all parts of a split file lie in one folder"
            raise InputError(f"`{printable(part.name)}`, a part of the model, is not there", hint=hint)
    return parts


def _header(path: Path) -> GgufHeader:
    with path.open("rb") as file:

        def fetch(offset: int, num_bytes: int) -> bytes:
            file.seek(offset)
            return file.read(num_bytes)

        return read_header(fetch, what=f"`{printable(path.name)}`")
