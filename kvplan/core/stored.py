"""How a checkpoint stores a weight matrix that it does not store plainly: packed elements, and tensors beside them.

To add a format: a function in `kvplan.sources.quantization.formats` that returns a `StoredFormat`.
"""

from dataclasses import dataclass
from typing import Literal

from kvplan.core.units import ceil_div


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor that stands for a matrix or beside it: an element for each block of the matrix, packed into words.

    words = ⌈elements along the packed side · bits / word⌉ · elements along the other side
    """

    name: str
    bits: int
    block: tuple[int, int] | int = 1
    """Rows × columns of the matrix behind one element, 0 meaning all; one number: elements in storage order."""
    word: int = 8
    """Bits of the integers that the elements are packed into."""
    along: Literal["rows", "columns", "order"] = "order"
    """The side along which elements share a word; `order`: the whole tensor is one run."""

    @property
    def shared_by_rows(self) -> bool:
        """Whether its size does not depend on the rows: fused matrices have one between them."""
        return isinstance(self.block, tuple) and self.block[0] == 0

    def bytes_of(self, rows: int, columns: int) -> int:
        """Bytes of this tensor for a matrix of rows × columns."""
        if isinstance(self.block, int):
            high, wide = 1, ceil_div(rows * columns, self.block)
        else:
            high = ceil_div(rows, self.block[0]) if self.block[0] else 1
            wide = ceil_div(columns, self.block[1]) if self.block[1] else 1
        if self.along == "rows":
            words = wide * ceil_div(high * self.bits, self.word)
        elif self.along == "columns":
            words = high * ceil_div(wide * self.bits, self.word)
        else:
            words = ceil_div(high * wide * self.bits, self.word)
        return words * self.word // 8


@dataclass(frozen=True, slots=True)
class StoredFormat:
    """All that is stored for a matrix, its packed elements first."""

    name: str
    tensors: tuple[StoredTensor, ...]

    @property
    def bits(self) -> int:
        """Whole bits of one element, without what stands beside it."""
        first = self.tensors[0]
        return first.bits // first.block if isinstance(first.block, int) else first.bits

    def bytes_of(self, rows: int, columns: int) -> int:
        """Bytes of a matrix of rows × columns with all that stands beside it."""
        return sum(tensor.bytes_of(rows, columns) for tensor in self.tensors)

    def beside(self, *tensors: StoredTensor) -> "StoredFormat":
        """The same with more tensors beside it."""
        return StoredFormat(self.name, (*self.tensors, *tensors))

    def later_piece(self) -> "StoredFormat":
        """For a further piece of a fused matrix: without what all its rows share, which the first piece counts."""
        return StoredFormat(self.name, tuple(tensor for tensor in self.tensors if not tensor.shared_by_rows))
