"""The kernels on a real GPU: correctness against the oracle, the device's ceilings, a sweep, and baselines beside them.

One process measures everything it compares, and writes one record: what the device was, what was right, how fast it
was, and what failed and why. Nothing here changes a setting of the device.
"""
