"""Every model of the catalog: all layers' caches allocated for real, against the calculator, to the byte.

Batch 1, a short context. What the plan asks torch for is set beside what torch's own allocator reports.
"""

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
import torch

from kvplan.sources import catalog
from kvplan.sources.load import load_model
from kvplan.validate import predict
from kvplan.validate.cases import Load, cases_of, order_of
from kvplan.validate.compare import compare
from kvplan.validate.measure.memory import measure_memory
from kvplan.validate.measure.meter import Tally
from kvplan.validate.measure.pools import allocate, pages_held

CPU = torch.device("cpu")
ENTRIES = list(catalog.entries())
SHORT = Load(seq_len=48, encoder_seq_len=40, decode_steps=8, chunk=16)


def allocated(cases):
    """(every layer's cache by case, the bytes that torch's allocator gave for them)."""
    pages = [pages_held(case) for case in cases]
    with Tally() as tally:
        pools = [
            [allocate(case, CPU, count) for _ in range(case.num_layers)]
            for case, count in zip(cases, pages, strict=True)
        ]
    return pools, tally.held_bytes


@cache
def one_layer(case):
    """(bytes of the pools of one layer, what torch's allocator gave for them); equal layers share the answer."""
    (pools,), given = allocated([case])
    return 0 if pools[0] is None else pools[0].storage_bytes, given


def test_the_catalog_is_all_here():
    """Whatever name the catalog answers to is one of these entries."""
    assert len(ENTRIES) >= 135
    assert {f"{entry.id}.json" for entry in ENTRIES} == {catalog.find(name)[1] for name in catalog.names()}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_all_layers_take_what_was_planned(entry):
    """One layer of each kind is allocated, and counts for all of its kind."""
    model = catalog.spec_of(entry)
    cases = cases_of(model, SHORT)
    counts = Counter(index for layer in order_of(model, SHORT) for index in layer)
    assert [counts[index] for index in range(len(cases))] == [case.num_layers for case in cases]
    for case in cases:
        held, given = one_layer(replace(case, name="", num_layers=1))
        assert held == predict.pool_bytes(case)
        assert case.num_layers * given == sum(predict.pool_requests([case]))
        assert (held == 0) == case.keeps_nothing


# Of every kind of layer, one model whose layers are all there at once.
WHOLE = [
    "meta-llama/Llama-3.1-8B",
    "deepseek-ai/DeepSeek-V3.2",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "google-t5/t5-small",
    "openai/gpt-oss-20b",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "nvidia/NVIDIA-Nemotron-Nano-12B-v2",
    "deepseek-ai/DeepSeek-V4-Flash",
]


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_model_takes_what_was_planned(name):
    cases = cases_of(load_model(name), SHORT)
    pools, given = allocated(cases)
    assert given == sum(predict.pool_requests(cases))
    for case, layers in zip(cases, pools, strict=True):
        held = [0 if pool is None else pool.storage_bytes for pool in layers]
        assert held == [predict.pool_bytes(case)] * case.num_layers


# 48 tokens are 3 pages; beside each layer's pool 3 entries of 4 bytes in a block table, and a length of 4
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("meta-llama/Llama-3.1-8B", 32 * (48 * 2 * 8 * 128 * 2 + 16)),
        ("tiiuae/falcon-7b", 32 * (48 * 2 * 64 * 2 + 16)),
        ("deepseek-ai/DeepSeek-V3", 61 * (48 * (512 + 64) * 2 + 16)),
        # three layers of four keep 32 states of 128 × 128 in fp32, and 8192 channels of 4 columns
        (
            "Qwen/Qwen3-Next-80B-A3B-Instruct",
            36 * (32 * 128 * 128 * 4 + 8192 * 4 * 2) + 12 * (48 * 2 * 2 * 256 * 2 + 16),
        ),
        # cross-attention keeps the encoder's 40 tokens, also 3 pages; the encoder keeps nothing
        ("google-t5/t5-small", 6 * (48 * 2 * 8 * 64 * 2 + 16) * 2),
    ],
)
def test_what_torch_gives_worked_by_hand(name, expected):
    assert allocated(cases_of(load_model(name), SHORT))[1] == expected


# Those whose windows slide within so few tokens, and one of every other kind, filled as well
SLIDING = ["openai/gpt-oss-20b", "google/gemma-3-1b-it"]


@pytest.mark.parametrize(
    "name", [*SLIDING, "Qwen/Qwen3-Next-80B-A3B-Instruct", "google-t5/t5-small", "bert-base-uncased"]
)
def test_a_reading_of_the_whole_model_agrees(name):
    """Longer than its window: pages are given back on the way, and the pool is only as large as that leaves."""
    cases = cases_of(load_model(name), Load(seq_len=640, encoder_seq_len=40, chunk=64))
    reading = measure_memory(cases, CPU)
    rows = compare(cases, {"memory": reading})
    judged = {row.term: row for row in rows if row.term in ("pools", "requested")}
    assert all(row.verdict == "ok" for row in rows if row.term in ("pools", "requested")), rows
    assert judged["requested"].measured == sum(predict.pool_requests(cases))
    if name in SLIDING:
        full, sliding = (
            next(pool for pool in reading["pools"] if kind in pool["case"]) for kind in ("full", "sliding")
        )
        assert sliding["pages"] < full["pages"] == 40
