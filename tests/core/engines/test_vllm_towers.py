"""Towers that vLLM does not load where nobody may send what they read."""

import pytest

import kvplan
from kvplan.core.engines.deployment import Switches
from kvplan.core.engines.vllm.encoder import left_out
from kvplan.sources.catalog import load

# SigLIP of 27 layers: attention 4 · (1152² + 1152), MLP 2 · 1152 · 4304 + 4304 + 1152, norms 4 · 1152; patches
# 3 · 14² · 1152 + 1152, 4096 positions, a last norm; the projector 1152 · 5376 behind a norm.
LAYER = 4 * (1152**2 + 1152) + 2 * 1152 * 4304 + 4304 + 1152 + 4 * 1152
TOWER = 27 * LAYER + 3 * 14**2 * 1152 + 1152 + 4096 * 1152 + 2 * 1152 + 1152 * 5376 + 1152


def weights(engine: str, **switches: bool) -> int:
    given = {"engine": engine, "gpu": "H200-SXM-141GB", "seq_len": 8192}
    found = kvplan.estimate("google/gemma-3-27b-it", **given, **switches)
    return next(item.num_bytes for item in found.accounts[0].taken if item.name == "weights")


@pytest.mark.parametrize(("engine", "leaves_out"), [("vllm", True), ("vllm@0.15", True), ("vllm@0.14", False)])
def test_a_tower_is_not_loaded_from_0_15_on(engine: str, leaves_out: bool) -> None:
    assert weights(engine) - weights(engine, no_images=True) == (2 * TOWER if leaves_out else 0)


def test_a_tower_that_reads_more_than_images_is_counted() -> None:
    kimi = load("moonshotai/Kimi-K2.5")
    assert left_out(kimi, Switches(no_images=True), (0, 33)) == frozenset()
