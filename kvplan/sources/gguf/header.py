"""The header of a GGUF file: its metadata and its table of tensors, read from as few bytes as hold it.

    "GGUF" · version · number of tensors · number of keys · (key, type, value)* · (name, dims, format, offset)* · data

Nothing behind the header is read. Every count is held against what is left of the file before anything is made of it.

Source: ggml, docs/gguf.md (versions 2 and 3)
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from kvplan.core.errors import InputError
from kvplan.core.text import printable
from kvplan.core.units import MIB, format_bytes
from kvplan.sources.gguf.types import BlockFormat, format_of

MAGIC = b"GGUF"
MAX_HEADER_BYTES = 256 * MIB
MAX_KEYS = 100_000
MAX_TENSORS = 1_000_000
MAX_NAME_BYTES = 65_535
MAX_DIMS = 4
MAX_ELEMENTS = 2**60
KEPT_ITEMS = 4096
"""Arrays up to so many numbers are kept, of longer ones and of texts only the length: a vocabulary decides no shape."""

_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_HINT = "the file is damaged or not a GGUF file: download it again, or do not trust its source"

Value = int | float | bool | str | tuple[int | float | bool, ...] | None


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor; `shape` is as a framework writes it, the row last."""

    name: str
    shape: tuple[int, ...]
    format: BlockFormat

    @property
    def num_elements(self) -> int:
        """The product of the shape."""
        return prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """rows · ⌈row / block⌉ · bytes of a block."""
        return prod(self.shape[:-1]) * self.format.row_bytes(self.shape[-1])


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the header says."""

    metadata: Mapping[str, Value]
    """Values by key; an array of texts or a long one is None here."""
    lengths: Mapping[str, int]
    """The length of every array."""
    tensors: tuple[GgufTensor, ...]

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors, without what aligns them."""
        return sum(tensor.num_bytes for tensor in self.tensors)


Fetch = Callable[[int, int], bytes]
"""(offset, number of bytes) → that part of the file, shorter only where the file ends."""


def read_header(fetch: Fetch, *, what: str) -> GgufHeader:
    """The header of the file that `fetch` reads from. Raises InputError for a damaged one, UnsupportedError for one
    that is too old, or whose tensors have a format that kvplan does not know."""
    stream = _Stream(fetch, what)
    if stream.take(4) != MAGIC:
        raise InputError(f"{what} is not a GGUF file", hint="its first four bytes are not `GGUF`")
    version = stream.number("I")
    if version not in (2, 3):
        swapped = int.from_bytes(int(version).to_bytes(4, "little"), "big") in (2, 3)
        why = "in big-endian order" if swapped else f"of GGUF version {version}"
        raise InputError(
            f"{what} is {why}, which kvplan does not read", hint="convert it anew with a current llama.cpp"
        )
    num_tensors = stream.count(MAX_TENSORS, "tensors")
    num_keys = stream.count(MAX_KEYS, "keys")
    metadata: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    for _ in range(num_keys):
        key = stream.text(MAX_NAME_BYTES)
        metadata[key], length = _value(stream)
        if length is not None:
            lengths[key] = length
    tensors = tuple(_tensor(stream) for _ in range(num_tensors))
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise InputError(f"{what} names a tensor twice", hint=_HINT)
    return GgufHeader(metadata, lengths, tensors)


class _Stream:
    """The file from its start, fetched in growing pieces as far as it is read."""

    FIRST = 1 * MIB

    def __init__(self, fetch: Fetch, what: str) -> None:
        self._fetch = fetch
        self.what = what
        self._buffer = b""
        self._position = 0
        self._ended = False

    def need(self, num_bytes: int) -> None:
        """Have so many more bytes at hand."""
        end = self._position + num_bytes
        if end > MAX_HEADER_BYTES:
            message = f"the header of {self.what} is larger than {format_bytes(MAX_HEADER_BYTES)}"
            raise InputError(message, hint=_HINT)
        while end > len(self._buffer) and not self._ended:
            wanted = max(self.FIRST, len(self._buffer), end - len(self._buffer))
            piece = self._fetch(len(self._buffer), wanted)
            self._ended = len(piece) < wanted
            self._buffer += piece
        if end > len(self._buffer):
            raise InputError(f"{self.what} ends inside its header", hint=_HINT)

    def take(self, num_bytes: int) -> bytes:
        self.need(num_bytes)
        self._position += num_bytes
        return self._buffer[self._position - num_bytes : self._position]

    def skip(self, num_bytes: int) -> None:
        self.need(num_bytes)
        self._position += num_bytes

    def number(self, code: str) -> int:
        (value,) = struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))
        return int(value)

    def numbers(self, code: str, count: int) -> tuple[int | float | bool, ...]:
        return struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(f"<{code}")))

    def count(self, limit: int, of: str) -> int:
        value = self.number("Q")
        if value > limit:
            raise InputError(f"{self.what} states {value:,} {of}", hint=_HINT)
        return value

    def text(self, max_bytes: int) -> str:
        return self.take(self.count(max_bytes, "bytes of one text")).decode("utf-8", "replace")

    def skip_texts(self, count: int) -> None:
        """Past a vocabulary: hundreds of thousands of texts, of which only the lengths are looked at."""
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(count):
            self.need(8)
            (length,) = unpack(self._buffer, self._position)
            self._position += 8
            self.skip(length)


def _value(stream: _Stream) -> tuple[Value, int | None]:
    """(value, its length where it is an array)."""
    kind = stream.number("I")
    if kind == _STRING:
        return stream.text(MAX_HEADER_BYTES), None
    if kind in _NUMBERS:
        return stream.numbers(_NUMBERS[kind], 1)[0], None
    if kind != _ARRAY:
        raise InputError(f"{stream.what} has a value of type {kind}, which GGUF does not have", hint=_HINT)
    inner, length = stream.number("I"), stream.count(MAX_HEADER_BYTES, "items of one array")
    if inner == _STRING:
        stream.skip_texts(length)
        return None, length
    if inner not in _NUMBERS:
        raise InputError(f"{stream.what} has an array of type {inner}, which kvplan does not read", hint=_HINT)
    code = _NUMBERS[inner]
    if length <= KEPT_ITEMS:
        return stream.numbers(code, length), length
    stream.skip(length * struct.calcsize(f"<{code}"))
    return None, length


def _tensor(stream: _Stream) -> GgufTensor:
    name = stream.text(MAX_NAME_BYTES)
    num_dims = stream.number("I")
    if not 1 <= num_dims <= MAX_DIMS:
        raise InputError(f"tensor `{printable(name)}` of {stream.what} has {num_dims} dimensions", hint=_HINT)
    dims = [int(size) for size in stream.numbers("Q", num_dims)]
    if not all(dims) or prod(dims) > MAX_ELEMENTS:
        raise InputError(f"tensor `{printable(name)}` of {stream.what} has an impossible shape", hint=_HINT)
    block = format_of(stream.number("I"))
    stream.skip(8)  # where its data lies
    if dims[0] % block.elements:
        message = f"tensor `{printable(name)}` of {stream.what} has rows that are no whole blocks of {block.name}"
        raise InputError(message, hint=_HINT)
    return GgufTensor(name, tuple(reversed(dims)), block)
