"""Speed models from made-up sweeps whose truth is known."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.core.errors import InputError
from kvplan.core.speed import SpeedModel
from kvplan.validate.fit import Point, fit_speed, split_points

CEILINGS = {"read_bytes_per_second": 4e12, "matmul_flops_per_second": 8e14}
RIDGE = 200  # flops per byte
# Decode of eight query heads to a KV head: 8 flops per byte at every length.
DECODE = [(num_bytes, 8 * num_bytes) for num_bytes in (4**i * 10**5 for i in range(10))]
# Sizes from 0.1 MB to 10 GB, each with little and with much arithmetic.
MIXED = [(1e5 * 5**i, 1e5 * 5**i * intensity) for i in range(8) for intensity in (1, 20, 200, 2000, 50_000)]


def sweep(shapes, *, overhead, bytes_share, flops_share, noise=0.0, seed=1):
    truth = SpeedModel(overhead_seconds=overhead, bytes_share=bytes_share, flops_share=flops_share, **CEILINGS)
    rng = random.Random(seed)
    return [
        Point(num_bytes, flops, truth.seconds(num_bytes, flops) * (1 + rng.uniform(-noise, noise)))
        for num_bytes, flops in shapes
    ]


@pytest.mark.parametrize("seed", range(5))
def test_known_parameters_come_back_through_noise(seed):
    points = sweep(MIXED, overhead=8e-6, bytes_share=0.85, flops_share=0.6, noise=0.03, seed=seed)
    fit = fit_speed(points, **CEILINGS)
    assert fit.model.overhead_seconds == pytest.approx(8e-6, rel=0.05)
    assert fit.model.bytes_share == pytest.approx(0.85, rel=0.05)
    assert fit.model.flops_share == pytest.approx(0.6, rel=0.05)
    assert fit.median_error <= fit.p90_error <= fit.worst_error < 0.06
    assert abs(fit.bias) < 0.02
    assert fit.num_fitted + fit.num_judged == len(points)


@settings(max_examples=40)
@given(
    overhead=st.floats(0, 1e-5),
    bytes_share=st.floats(0.05, 1.5),
    flops_share=st.floats(0.05, 1.5),
    shuffle=st.randoms(use_true_random=False),
)
def test_exact_data_leave_no_error(overhead, bytes_share, flops_share, shuffle):
    points = sweep(MIXED, overhead=overhead, bytes_share=bytes_share, flops_share=flops_share)
    shuffle.shuffle(points)
    fit = fit_speed(points, **CEILINGS)
    assert fit.worst_error < 1e-6
    assert fit.model.bytes_share == pytest.approx(bytes_share, rel=1e-4)
    assert fit.model.flops_share == pytest.approx(flops_share, rel=1e-4)


@pytest.mark.parametrize("noise", [0, 0.03])
@pytest.mark.parametrize("seed", range(5))
def test_what_memory_alone_binds_says_nothing_of_arithmetic(noise, seed):
    points = sweep(DECODE, overhead=5e-6, bytes_share=0.9, flops_share=0.7, noise=noise, seed=seed)
    fit = fit_speed(points, **CEILINGS)
    assert fit.model.flops_share is None
    assert fit.model.bytes_share == pytest.approx(0.9, rel=0.05)
    with pytest.raises(InputError, match="arithmetic"):
        fit.model.seconds(1e9, 1e9 * 10 * RIDGE)


def test_what_arithmetic_alone_binds_says_nothing_of_memory():
    shapes = [(num_bytes, 5000 * num_bytes) for num_bytes, _ in DECODE]
    fit = fit_speed(sweep(shapes, overhead=5e-6, bytes_share=0.9, flops_share=0.7, noise=0.02), **CEILINGS)
    assert fit.model.bytes_share is None
    assert fit.model.flops_share == pytest.approx(0.7, rel=0.05)


def test_calls_without_arithmetic_are_bound_by_memory():
    # Recurrent states: flops not counted.
    fit = fit_speed(
        sweep([(num_bytes, 0) for num_bytes, _ in DECODE], overhead=5e-6, bytes_share=0.5, flops_share=None), **CEILINGS
    )
    assert (fit.model.bytes_share, fit.model.flops_share) == (pytest.approx(0.5), None)


def test_the_figures_are_those_of_the_calls_that_were_held_back():
    points = sweep(MIXED, overhead=8e-6, bytes_share=0.85, flops_share=0.6, noise=0.03)
    spoiled = split_points(points)[1][7]
    points[spoiled] = points[spoiled]._replace(seconds=points[spoiled].seconds * 2)
    fit = fit_speed(points, **CEILINGS)
    assert fit.worst_point == spoiled
    _, judged = split_points(points)
    errors = [fit.model.seconds(*points[i][:2]) / points[i].seconds - 1 for i in judged]
    assert fit.worst_error == pytest.approx(max(map(abs, errors)))
    assert fit.worst_error == pytest.approx(0.5, abs=0.03)
    assert fit.bias == pytest.approx(sum(errors) / len(errors))
    # The model has not seen it.
    assert fit.model.bytes_share == pytest.approx(0.85, rel=0.05)


def test_no_share_passes_one_and_a_half_and_no_overhead_is_below_nothing():
    faster = [Point(num_bytes, 0, num_bytes / 4e12 / 3) for num_bytes, _ in DECODE]
    fit = fit_speed(faster, **CEILINGS)
    assert fit.model.bytes_share == pytest.approx(1.5)
    assert fit.model.overhead_seconds == 0
    assert fit.bias == pytest.approx(1)  # twice as long as measured


@given(shapes=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=4, max_size=40))
def test_the_split_is_one_and_keeps_the_ends(shapes):
    points = [Point(num_bytes, flops, 1.0) for num_bytes, flops in shapes]
    fitted, judged = split_points(points)
    assert sorted(fitted + judged) == list(range(len(points)))
    assert 1 <= len(judged) <= len(fitted)
    assert len(judged) >= (len(points) - 4) // 2
    intensities = [point.flops / point.num_bytes for point in points]
    kept = [intensities[i] for i in fitted]
    assert (min(kept), max(kept)) == (min(intensities), max(intensities))


GOOD = sweep(DECODE, overhead=5e-6, bytes_share=0.9, flops_share=0.7)


@pytest.mark.parametrize(
    "points",
    [
        [],
        GOOD[:3],
        [GOOD[0]] * 10,
        [*GOOD, Point(1e6, 1e6, 0.0)],
        [*GOOD, Point(1e6, 1e6, float("nan"))],
        [*GOOD, Point(0, 1e6, 1.0)],
        [*GOOD, Point(1e6, -1, 1.0)],
    ],
    ids=["none", "three", "one size", "no time", "no number", "no bytes", "negative"],
)
def test_what_is_no_sweep_is_refused(points):
    with pytest.raises(InputError) as caught:
        fit_speed(points, **CEILINGS)
    assert caught.value.hint


def test_a_ceiling_of_nothing_is_refused():
    with pytest.raises(InputError, match="ceiling"):
        fit_speed(GOOD, read_bytes_per_second=0, matmul_flops_per_second=1e15)
