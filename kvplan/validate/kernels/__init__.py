"""Attention over a KV cache in Triton: one file per kernel with its launcher, and an oracle they never import.

Dimension key of the kernels, used as suffixes of tensor names:

    B  sequences in the batch        T  tokens that a sequence holds        P  pages of the pool
    H  query heads                   Q  query tokens of a sequence          N  tokens of one page
    K  KV heads (H = K · G)          D  head dimension of queries and keys
    G  query heads per KV head       E  head dimension of values and output

To add a kernel: a file with its `@triton.jit` functions and a `plan_*` function that returns its `Launch`es, its rule
in `reference.py`, its cases in `tests/validate/kernels/` (the interpreter) and `kvplan/validate/aot/cases/` (the
compiler), a check in `kvplan/validate/suite/correctness.py` (a GPU).
"""
