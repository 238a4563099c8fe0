import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.core.errors import InputError
from kvplan.core.units import (
    GIB,
    ceil_div,
    format_bytes,
    format_count,
    parse_bytes,
    parse_count,
    round_up,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [("4096", 4096), ("8k", 8000), ("8K", 8192), ("25.6k", 25_600), ("1M", 1_048_576), ("1m", 1_000_000), (" 7 ", 7)],
)
def test_counts_as_people_write_them(text, number):
    assert parse_count(text) == number


@pytest.mark.parametrize("text", ["", "k", "-1", "1.5", "0.0001k", "8kk", "8KB", "1e3", "٣", "9" * 30, "4096 tokens"])
def test_what_is_not_a_count(text):
    with pytest.raises(InputError) as caught:
        parse_count(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("80GB", 80 * 10**9),
        ("80GiB", 80 * 2**30),
        ("80 gib", 80 * 2**30),
        ("512", 512),
        ("1.5KiB", 1536),
        ("1TB", 10**12),
    ],
)
def test_sizes_as_people_write_them(text, number):
    assert parse_bytes(text) == number


@pytest.mark.parametrize("text", ["80 GBs", "eighty", "0.3", "-1GB", "1.5B"])
def test_what_is_not_a_size(text):
    with pytest.raises(InputError):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (1_342_177_280, "1.25 GiB"),
        (327_680, "320 KiB"),
        (0, "0 B"),
        (1023, "1023 B"),
        (80 * GIB, "80 GiB"),
        (137_953_296_384, "128.48 GiB"),
        (-3 * GIB, "-3 GiB"),
    ],
)
def test_sizes_for_people(num_bytes, text):
    assert format_bytes(num_bytes) == text


def test_counts_for_people():
    assert format_count(68_976_648_192) == "68.98 B"
    assert format_count(124_439_808) == "124.44 M"
    assert format_count(2_400_000_000_000) == "2.40 T"
    assert format_count(999) == "999"


@given(st.integers(0, 10**12), st.integers(1, 10**6))
def test_rounding_up_is_the_least_multiple_that_covers(amount, multiple):
    assert 0 <= round_up(amount, multiple) - amount < multiple
    assert ceil_div(amount, multiple) * multiple == round_up(amount, multiple)
