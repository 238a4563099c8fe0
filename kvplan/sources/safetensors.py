"""What safetensors files say about the weights: the header of one file, or the index of many.

Headers are parsed here, not by a library: the ones that exist multiply whatever stands in `shape`.
A new dtype of the format is one line in `DTYPE_BITS`.

Source: https://github.com/huggingface/safetensors (format; `Dtype` and `TensorInfo` in tensor.rs)
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvplan.core.errors import InputError
from kvplan.core.text import printable
from kvplan.sources.json_file import read_json

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"

LENGTH_BYTES = 8
"""A file starts with the length of its header, as a little-endian u64."""
MAX_HEADER_BYTES = 25_000_000
MAX_INDEX_BYTES = 64 * 1024**2
MAX_TENSORS = 10**6
MAX_DIM = 2**48
MAX_ELEMENTS = 2**60
MAX_BYTES = 2**64

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip

_HINT = "the file is damaged or not a safetensors file: download it again, or do not trust its source"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeights:
    """What the files on disk hold: their bytes, and from a header also the elements of each dtype."""

    total_bytes: int
    num_parameters: int | None
    """Elements of all tensors as stored (packed 4-bit weights count as their packed integers);
    None when only an index was read."""
    dtypes: tuple[tuple[str, int], ...]
    """(dtype, elements), most elements first; empty when only an index was read."""
    origin: str


def weights_of_index(index: Mapping[str, Any], *, what: str = f"`{INDEX_FILE}`") -> StoredWeights | None:
    """The total that an index states; None where it states none."""
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    if total is None:
        return None
    if isinstance(total, float) and total.is_integer():  # some converters write 2.6e10
        total = int(total)
    if not _is_size(total, MAX_BYTES):
        raise InputError(f"{what} has a `total_size` that is no whole number of bytes", hint=_HINT)
    return StoredWeights(total_bytes=total, num_parameters=None, dtypes=(), origin=INDEX_FILE)


def weights_of_file(path: Path, *, what: str) -> StoredWeights:
    """The header of a safetensors file on disk; the weights behind it are not read."""
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            num_bytes = header_length(file.read(LENGTH_BYTES), what=what)
            header = file.read(num_bytes)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{what} cannot be read: {reason}", hint="check its permissions") from error
    return weights_of_header(header, num_bytes=num_bytes, what=what, file_bytes=file_bytes)


def header_length(prefix: bytes, *, what: str) -> int:
    """The bytes of the header, as the first eight bytes of a file state them."""
    if len(prefix) < LENGTH_BYTES:
        raise InputError(f"{what} is too short to be a safetensors file", hint=_HINT)
    num_bytes = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if not 2 <= num_bytes <= MAX_HEADER_BYTES:
        raise InputError(f"{what} states a header of {num_bytes:,} bytes", hint=_HINT)
    return num_bytes


def weights_of_header(header: bytes, *, num_bytes: int, what: str, file_bytes: int | None = None) -> StoredWeights:
    """What a header says, after checking it against itself and against the size of its file, where known."""
    if len(header) != num_bytes:
        raise InputError(f"{what} ends inside its header", hint=_HINT)
    entries = read_json(header, what=f"the header of {what}", max_bytes=MAX_HEADER_BYTES)
    entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise InputError(f"{what} lists {len(entries):,} tensors", hint=_HINT)
    elements: Counter[str] = Counter()
    spans = []
    for name, entry in entries.items():
        dtype, num_elements, span = _tensor(name, entry, what)
        elements[dtype] += num_elements
        spans.append(span)
    total_bytes = _end_of(spans, what)
    if file_bytes is not None and file_bytes != LENGTH_BYTES + num_bytes + total_bytes:
        raise InputError(f"{what} is {file_bytes:,} bytes long, but its header says otherwise", hint=_HINT)
    return StoredWeights(
        total_bytes=total_bytes,
        num_parameters=elements.total(),
        dtypes=tuple(sorted(elements.items(), key=lambda item: (-item[1], item[0]))),
        origin=f"{SINGLE_FILE} header",
    )


def _tensor(name: str, entry: Any, what: str) -> tuple[str, int, tuple[int, int]]:
    """Dtype, elements and byte span of one tensor, when all three agree."""
    tensor = f"tensor `{printable(name)}` of {what}"
    if not isinstance(entry, dict):
        raise InputError(f"{tensor} is not described by an object", hint=_HINT)
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        shown = printable(dtype, max_length=30) if isinstance(dtype, str) else type(dtype).__name__
        raise InputError(f"{tensor} has the unknown dtype `{shown}`", hint=f"known are {', '.join(DTYPE_BITS)}")
    num_elements = _num_elements(shape, tensor)
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(_is_size(at, MAX_BYTES) for at in offsets)):
        raise InputError(f"{tensor} has `data_offsets` that are not two byte positions", hint=_HINT)
    begin, end = offsets
    if (end - begin) * 8 != num_elements * DTYPE_BITS[dtype]:
        raise InputError(f"{tensor} has `data_offsets` that do not match its shape and dtype", hint=_HINT)
    return dtype, num_elements, (begin, end)


def _num_elements(shape: Any, tensor: str) -> int:
    if not isinstance(shape, list) or not all(_is_size(dim, MAX_DIM) for dim in shape):
        raise InputError(f"{tensor} has a shape that is not a list of sizes", hint=_HINT)
    product = 1
    for dim in shape:
        product *= dim
        if product > MAX_ELEMENTS:
            raise InputError(f"{tensor} has an impossibly large shape", hint=_HINT)
    return product


def _end_of(spans: Iterable[tuple[int, int]], what: str) -> int:
    """Where the data ends; the format allows neither holes nor overlaps."""
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise InputError(f"{what} has tensors that overlap or leave a gap", hint=_HINT)
        position = end
    return position


def _is_size(value: Any, limit: int) -> bool:
    """A whole number from 0 to `limit`; `true` and 1.0 are none."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit
