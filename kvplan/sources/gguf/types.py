"""The tensor formats of GGUF: how many elements of a row share a block, and how many bytes the block takes.

Source: ggml 2026-03, ggml/src/ggml-common.h (`block_*`) and ggml.c `type_traits`; gguf 0.19, gguf/constants.py
"""

from dataclasses import dataclass

from kvplan.core.errors import UnsupportedError
from kvplan.core.units import ceil_div


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """A row is cut into blocks of `elements`, each of `num_bytes`."""

    name: str
    elements: int
    num_bytes: int

    def row_bytes(self, num_elements: int) -> int:
        """⌈elements / block⌉ · bytes of a block."""
        return ceil_div(num_elements, self.elements) * self.num_bytes


FORMATS: dict[int, BlockFormat] = {
    0: BlockFormat("F32", 1, 4),
    1: BlockFormat("F16", 1, 2),
    2: BlockFormat("Q4_0", 32, 18),
    3: BlockFormat("Q4_1", 32, 20),
    6: BlockFormat("Q5_0", 32, 22),
    7: BlockFormat("Q5_1", 32, 24),
    8: BlockFormat("Q8_0", 32, 34),
    9: BlockFormat("Q8_1", 32, 40),
    10: BlockFormat("Q2_K", 256, 84),
    11: BlockFormat("Q3_K", 256, 110),
    12: BlockFormat("Q4_K", 256, 144),
    13: BlockFormat("Q5_K", 256, 176),
    14: BlockFormat("Q6_K", 256, 210),
    15: BlockFormat("Q8_K", 256, 292),
    16: BlockFormat("IQ2_XXS", 256, 66),
    17: BlockFormat("IQ2_XS", 256, 74),
    18: BlockFormat("IQ3_XXS", 256, 98),
    19: BlockFormat("IQ1_S", 256, 50),
    20: BlockFormat("IQ4_NL", 32, 18),
    21: BlockFormat("IQ3_S", 256, 110),
    22: BlockFormat("IQ2_S", 256, 82),
    23: BlockFormat("IQ4_XS", 256, 136),
    24: BlockFormat("I8", 1, 1),
    25: BlockFormat("I16", 1, 2),
    26: BlockFormat("I32", 1, 4),
    27: BlockFormat("I64", 1, 8),
    28: BlockFormat("F64", 1, 8),
    29: BlockFormat("IQ1_M", 256, 56),
    30: BlockFormat("BF16", 1, 2),
    34: BlockFormat("TQ1_0", 256, 54),
    35: BlockFormat("TQ2_0", 256, 66),
    39: BlockFormat("MXFP4", 32, 17),
    40: BlockFormat("NVFP4", 64, 36),
    41: BlockFormat("Q1_0", 128, 18),
}


def format_of(number: int) -> BlockFormat:
    """The format of that number. Raises UnsupportedError for a newer one."""
    found = FORMATS.get(number)
    if found is None:
        message = f"a tensor has the GGUF format {number}, which kvplan does not know"
        raise UnsupportedError(message, hint="its bytes cannot be counted; a newer kvplan may know it")
    return found
