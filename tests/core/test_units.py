"""Exact integers: degrees, GFLOP, device-milliseconds, shares."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from dusuan.core import units

RATINGS = st.integers(1, 3_000_000)


def test_one_degree_is_312_tflops_for_one_hour() -> None:
    assert units.GFLOP_PER_DEGREE == 1_123_200_000
    assert units.held_gflop(312_000, 3_600_000) == units.GFLOP_PER_DEGREE


def test_degrees_text_is_exact_enough_to_tell_every_gflop_apart() -> None:
    assert units.degrees_text(0) == "0"
    assert units.degrees_text(units.GFLOP_PER_DEGREE) == "1"
    assert units.degrees_text(-units.GFLOP_PER_DEGREE // 2) == "-0.5"
    assert units.degrees_text(1) == "0.00000000089"
    assert units.degrees_text(1) != units.degrees_text(2)


@given(st.integers(-(10**15), 10**15))
def test_degrees_text_round_trips(gflop: int) -> None:
    text = units.degrees_text(gflop)
    assert "e" not in text.lower()
    assert round(Fraction(text) * units.GFLOP_PER_DEGREE) == gflop


@given(RATINGS, st.integers(0, 10**12))
def test_held_gflop_is_the_product_rounded_down(rating: int, ms: int) -> None:
    exact = Fraction(rating * ms, 1000)
    assert units.held_gflop(rating, ms) <= exact < units.held_gflop(rating, ms) + 1


@given(RATINGS, st.integers(0, 10**12))
def test_held_ms_within_is_the_largest_that_fits(rating: int, gflop: int) -> None:
    ms = units.held_ms_within(rating, gflop)
    assert units.held_gflop(rating, ms) <= gflop
    assert units.held_gflop(rating, ms + 1) > gflop


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 10**9))
def test_rounded_share_is_half_even(total: int, part: int, whole: int) -> None:
    assert units.rounded_share(total, part, whole) == round(Fraction(total * part, whole))


def test_an_exact_half_goes_to_the_even_neighbour() -> None:
    assert [units.rounded_share(total, 1, 2) for total in (1, 2, 3, 5, 7)] == [0, 1, 2, 2, 4]
