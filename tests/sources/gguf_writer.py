"""Small GGUF files: a header like llama.cpp's, and as many zero bytes behind it as are asked for."""

import struct
from math import prod
from typing import Any

from kvplan.sources.gguf.types import FORMATS

NUMBERS = {format.name: number for number, format in FORMATS.items()}


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(item: Any) -> bytes:
    """Type and value as the format writes them."""
    if isinstance(item, bool):
        return struct.pack("<I?", 7, item)
    if isinstance(item, int):
        return struct.pack("<IQ", 10, item) if item >= 2**31 else struct.pack("<II", 4, item)
    if isinstance(item, float):
        return struct.pack("<If", 6, item)
    if isinstance(item, str):
        return struct.pack("<I", 8) + text(item)
    if item and isinstance(item[0], str):
        return struct.pack("<IIQ", 9, 8, len(item)) + b"".join(map(text, item))
    if item and isinstance(item[0], bool):
        return struct.pack(f"<IIQ{len(item)}?", 9, 7, len(item), *item)
    return struct.pack("<IIQ", 9, 5, len(item)) + struct.pack(f"<{len(item)}i", *item)


def tensor(name: str, shape: list[int], form: str, offset: int = 0) -> bytes:
    dims = list(reversed(shape))
    table = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return text(name) + table + struct.pack("<IQ", NUMBERS[form], offset)


def gguf_bytes(metadata: dict[str, Any], tensors: list[list[Any]], *, version: int = 3, data: int = 0) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    keys = b"".join(text(key) + value(item) for key, item in metadata.items())
    return head + keys + b"".join(tensor(*entry) for entry in tensors) + bytes(data)


def stored_bytes(tensors: list[list[Any]], sizes: dict[str, tuple[int, int]]) -> int:
    """Bytes of all tensors by the sizes that ggml's own package states."""
    return sum(prod(shape) // sizes[form][0] * sizes[form][1] for _, shape, form in tensors)
