"""Prediction against measurement: attention over a real KV cache, run by kernels of our own.

Nothing here is imported by the calculator, and nothing here imports its formulas: a mistake must not pass on both sides.
"""
