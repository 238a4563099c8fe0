"""Prediction against measurement: attention over a real KV cache, run by kernels of our own.

The calculator imports nothing of this, and this imports no formula of it: a mistake must not pass on both sides.
"""
