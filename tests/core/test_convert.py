"""Units of compute: the figures of the interface, exactness, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dusuan.core.convert import Converted, convert
from dusuan.core.units import GFLOP_PER_DEGREE, degrees_text
from dusuan.core.workload.jobspec import Problem
from dusuan.facts import catalogue


def value_of(value: str, source: str, target: str) -> str:
    converted = convert(value, source, target)
    assert isinstance(converted, Converted), converted
    return converted.value


def problem_of(value: str, source: str, target: str) -> Problem:
    problem = convert(value, source, target)
    assert isinstance(problem, Problem), problem
    assert problem.text and problem.remedy
    return problem


@pytest.mark.parametrize(
    ("value", "source", "target", "places", "expected"),
    [
        ("1", "PFLOPS", "degrees/hour", 4, "3.2051"),
        ("1", "EFLOPS", "degrees/hour", 2, "3205.13"),
        ("1000", "PFLOP/s-day", "degree", 2, "76923.08"),
        ("1", "EFLOP/s-day", "degree", 2, "76923.08"),
        ("1", "PFLOP/s-day", "degree", 4, "76.9231"),
        ("1", "degree", "PFLOP/s-day", 3, "0.013"),
        ("1", "PFLOPS-hour", "degrees", 4, "3.2051"),
    ],
)
def test_the_figures_of_the_interface(
    value: str, source: str, target: str, places: int, expected: str
) -> None:
    assert f"{float(value_of(value, source, target)):.{places}f}".rstrip("0") == expected.rstrip(
        "0"
    )


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        ("1", "degree", "FLOP", "1123200000000000000"),
        ("1", "degree", "GFLOP", "1123200000"),
        ("1", "度", "TFLOP", "1123200"),
        ("1", "degree", "PFLOP", "1123.2"),
        ("2", "degrees", "EFLOP", "2.2464"),
        ("1", "card-hours:A100", "degree", "1"),
        ("2.5", "card-hours:a100", "degree", "2.5"),
        ("312", "TFLOPS", "degrees/hour", "1"),
        ("312", "TFLOPS", "度/小时", "1"),
        ("0.312", "PFLOPS", "degrees/hour", "1"),
        ("1.5", "EFLOPS", "PFLOPS", "1500"),
        ("1", "GFLOPS", "TFLOPS", "0.001"),
        ("24", "P-hours", "PFLOP/s-day", "1"),
        ("312", "TFLOPS-hours", "degree", "1"),
        ("1,000", "PFLOP/s-day", "EFLOP/s-day", "1"),
        ("-1e3", "GFLOP", "TFLOP", "-1"),
        ("0", "degree", "FLOP", "0"),
        (".5", "degree", "degree", "0.5"),
    ],
)
def test_finite_results_are_exact(value: str, source: str, target: str, expected: str) -> None:
    converted = convert(value, source, target)
    assert isinstance(converted, Converted), converted
    assert (converted.value, converted.exact) == (expected, True)


def test_other_results_have_twelve_digits_and_say_so() -> None:
    assert convert("1", "PFLOPS", "degrees/hour") == Converted(
        "3.20512820513", "degrees/hour", exact=False
    )


@pytest.mark.parametrize(
    "spelling",
    [
        *("PFLOP/s-day", "pflops-day", "PFLOPS-days", "petaflop/s-day", "petaflop/s-days"),
        *("PetaFLOPS-day", "Pflop/s·day", "PFLOPS*day", "PFLOP/s - day", "PFLOPps-day", "P-day"),
    ],
)
def test_spellings_of_a_petaflop_day(spelling: str) -> None:
    assert value_of("1", spelling, "PFLOP") == "86400"


@pytest.mark.parametrize("spelling", ["PFLOPS", "pflops", "PFLOP/s", "petaflops", "petaFLOP/s"])
def test_spellings_of_a_rate(spelling: str) -> None:
    assert value_of("1", spelling, "TFLOPS") == "1000"


@pytest.mark.parametrize(
    ("letter", "readings"),
    [
        ("P", ("PFLOPS = 3.2051 degrees an hour", "PFLOP/s-day = 76.9231 degrees")),
        ("E", ("EFLOPS = 3,205.13 degrees an hour", "1,000 PFLOP/s-days = 76,923.08 degrees")),
    ],
)
def test_a_bare_letter_names_both_readings(letter: str, readings: tuple[str, str]) -> None:
    for problem in (problem_of("1", letter, "degree"), problem_of("1", "degree", letter.lower())):
        assert problem.code == "ambiguous_unit"
        assert all(reading in problem.text for reading in readings)


def test_work_and_rate_need_hours() -> None:
    for problem in (problem_of("1", "PFLOPS", "degree"), problem_of("1", "degree", "PFLOPS")):
        assert problem.code == "needs_time"
        assert "multiply" in problem.remedy and "hours" in problem.remedy
    assert problem_of("1", "degrees/hour", "degree").code == "needs_time"
    assert problem_of("1", "PFLOP", "PFLOPS").code == "needs_time"


@pytest.mark.parametrize(
    ("value", "source", "code"),
    [
        ("many", "degree", "wrong_value"),
        ("nan", "degree", "wrong_value"),
        ("inf", "degree", "wrong_value"),
        ("", "degree", "wrong_value"),
        ("1e999", "degree", "wrong_value"),
        ("1", "degre", "unknown_unit"),
        ("1", "", "unknown_unit"),
        ("1", "kWh", "unknown_unit"),
        ("1", "GFLOPs", "ambiguous_unit"),
        ("1", "card-hours:H999", "unknown_card"),
        ("1", "card-hours", "unknown_unit"),
    ],
)
def test_what_is_refused(value: str, source: str, code: str) -> None:
    assert problem_of(value, source, "degree").code == code


def test_cards_are_an_argument() -> None:
    converted = convert("1", "card-hours:B1", "degree", cards=lambda name: (name, 624_000))
    assert converted == Converted("2", "degree", exact=True)


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        ("1", "card-hours:H100-SXM5-80GB", "degree", "3.17115384615"),
        ("1", "card-hours:h200_sxm", "card-hours:A100", "3.17115384615"),
        ("1", "card-hours:Ascend 910B1", "degree", "1.28205128205"),
        ("312", "PFLOPS", "cards:A100", "1000"),
        ("1000", "cards:MI300X", "EFLOPS", "1.3074"),
        ("1", "EFLOP/s-day", "degree", "76923.0769231"),
    ],
)
def test_cards_of_the_catalogue(value: str, source: str, target: str, expected: str) -> None:
    converted = convert(value, source, target, cards=catalogue().rated)
    assert isinstance(converted, Converted), converted
    assert converted.value == expected


@pytest.mark.parametrize(
    ("card", "code", "said"),
    [
        ("H100", "ambiguous_device", "H100-PCIE-80GB"),
        ("S60", "unpublished", "not published"),
        ("H1000", "unknown_device", "H1000"),
    ],
)
def test_a_card_without_one_rating_is_refused(card: str, code: str, said: str) -> None:
    problem = convert("1", f"card-hours:{card}", "degree", cards=catalogue().rated)
    assert isinstance(problem, Problem)
    assert problem.code == code
    assert said in problem.text


@given(st.integers(0, 10**15))
def test_degrees_agree_with_the_ledger(gflop: int) -> None:
    text = value_of(str(gflop), "GFLOP", "degree")
    exact = Fraction(gflop, GFLOP_PER_DEGREE)
    # the ledger keeps 12 places, this 12 significant digits
    assert abs(Fraction(text) - exact) <= max(exact / 10**11, Fraction(0))
    assert abs(Fraction(degrees_text(gflop)) - exact) <= Fraction(1, 10**12)


UNITS = st.sampled_from(["degree", "FLOP", "GFLOP", "EFLOP", "PFLOP/s-day", "card-hours:A100"])


@given(st.integers(-(10**9), 10**9), UNITS, UNITS)
def test_there_and_back(amount: int, source: str, target: str) -> None:
    there = convert(str(amount), source, target)
    assert isinstance(there, Converted)
    if there.exact and len(there.value) < 40:
        assert value_of(there.value, target, source) == str(amount)


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_any_text_gets_an_answer(value: str, source: str, target: str) -> None:
    assert isinstance(convert(value, source, target), Converted | Problem)
    assert isinstance(convert("1", source, "degree"), Converted | Problem)
    assert isinstance(convert(value, "degree", "FLOP"), Converted | Problem)
