import json
from pathlib import Path
from typing import Any

import pytest

from kvplan.core.errors import InputError
from kvplan.sources.safetensors import (
    MAX_HEADER_BYTES,
    header_length,
    weights_of_file,
    weights_of_header,
    weights_of_index,
)


def header_of(tensors: dict[str, Any]) -> bytes:
    return json.dumps(tensors).encode()


def read(tensors: dict[str, Any], file_bytes: int | None = None) -> Any:
    header = header_of(tensors)
    return weights_of_header(header, num_bytes=len(header), what="`f`", file_bytes=file_bytes)


def tensor(dtype: Any, shape: Any, begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_header_worked_by_hand(tmp_path: Path) -> None:
    tensors = {
        "__metadata__": {"format": "pt"},
        "norm": tensor("F32", [3], 12, 24),  # 3 · 4 bytes
        "up": tensor("BF16", [2, 3], 0, 12),  # 6 · 2 bytes
        "down": tensor("F4", [8], 24, 28),  # 8 · 4 bits
        "scalar": tensor("F8_E4M3", [], 28, 29),
        "none": tensor("F16", [0, 7], 29, 29),
    }
    header = header_of(tensors)
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(29))
    stored = weights_of_file(path, what="`f`")
    assert stored.total_bytes == 29
    assert stored.num_parameters == 6 + 3 + 8 + 1
    assert stored.dtypes == (("F4", 8), ("BF16", 6), ("F32", 3), ("F8_E4M3", 1), ("F16", 0))
    assert stored.origin == "model.safetensors header"


HOSTILE = {
    "a list for a header": ([], "not an object"),
    "tensor is a number": ({"a": 1}, "not described by an object"),
    "no dtype": ({"a": {"shape": [1], "data_offsets": [0, 1]}}, "unknown dtype `NoneType`"),
    "unknown dtype": ({"a": tensor("Q4\x1b", [1], 0, 1)}, r"unknown dtype `Q4\\x1b`"),
    "dim is text": ({"a": tensor("U8", ["a", 10**9], 0, 1)}, "not a list of sizes"),
    "dim is negative": ({"a": tensor("U8", [-1, -1], 0, 1)}, "not a list of sizes"),
    "dim is true": ({"a": tensor("U8", [True], 0, 1)}, "not a list of sizes"),
    "dim is 1.0": ({"a": tensor("U8", [1.0], 0, 1)}, "not a list of sizes"),
    "dim is 2^49": ({"a": tensor("U8", [2**49], 0, 2**49)}, "not a list of sizes"),
    "product is 2^80": ({"a": tensor("U8", [2**40, 2**40], 0, 1)}, "impossibly large"),
    "one offset": ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0]}}, "not two byte positions"),
    "offset is text": ({"a": tensor("U8", [1], "0", 1)}, "not two byte positions"),
    "offsets backwards": ({"a": tensor("U8", [1], 1, 0)}, "do not match"),
    "offsets too wide": ({"a": tensor("BF16", [2], 0, 5)}, "do not match"),
    "half a byte": ({"a": tensor("F4", [3], 0, 1)}, "do not match"),
    "a gap": ({"a": tensor("U8", [1], 1, 2)}, "overlap or leave a gap"),
    "an overlap": ({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 2, 6)}, "overlap or leave a gap"),
}


@pytest.mark.parametrize(("tensors", "problem"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_headers_are_refused(tensors: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        read(tensors)
    assert "\x1b" not in str(caught.value)


def test_a_file_that_is_not_as_long_as_its_header_says_is_refused() -> None:
    tensors = {"a": tensor("U8", [4], 0, 4)}
    whole = 8 + len(header_of(tensors)) + 4
    assert read(tensors, file_bytes=whole).total_bytes == 4
    with pytest.raises(InputError, match="bytes long, but its header says otherwise"):
        read(tensors, file_bytes=whole - 1)


@pytest.mark.parametrize("prefix", [b"", b"\x02", (1).to_bytes(8, "little"), (2**62).to_bytes(8, "little")])
def test_impossible_header_lengths_are_refused(prefix: bytes) -> None:
    with pytest.raises(InputError):
        header_length(prefix, what="`f`")


def test_the_largest_header_is_allowed_and_a_cut_one_is_not() -> None:
    assert header_length(MAX_HEADER_BYTES.to_bytes(8, "little"), what="`f`") == MAX_HEADER_BYTES
    with pytest.raises(InputError, match="ends inside its header"):
        weights_of_header(b"{}", num_bytes=3, what="`f`")


@pytest.mark.parametrize(("total", "expected"), [(26_031_759_360, 26_031_759_360), (2.6e10, 26_000_000_000)])
def test_an_index_states_its_total(total: float, expected: int) -> None:
    stored = weights_of_index({"metadata": {"total_size": total}, "weight_map": {}})
    assert stored is not None
    assert (stored.total_bytes, stored.num_parameters, stored.dtypes) == (expected, None, ())


@pytest.mark.parametrize("index", [{}, {"metadata": {}}, {"metadata": []}, {"metadata": {"total_size": None}}])
def test_an_index_without_a_total_says_nothing(index: dict[str, Any]) -> None:
    assert weights_of_index(index) is None


@pytest.mark.parametrize("total", [-1, "12", True, 1.5, 2**65])
def test_an_index_with_an_impossible_total_is_refused(total: Any) -> None:
    with pytest.raises(InputError, match="no whole number of bytes"):
        weights_of_index({"metadata": {"total_size": total}})
