"""The plan menu: measured throughput in, a Pareto set and a choice out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dusuan.core.planning.menu import (
    Menu,
    Plan,
    Price,
    Site,
    Terms,
    assemble,
    choose,
    pareto,
    price_fen,
)
from dusuan.core.planning.probe import Measurement, throughput, ways
from dusuan.core.workload.jobspec import Goal, Problem

PRICE = Price(fen=2_000, gflop=20_000)


def steady(
    steps_per_s: float, lead_s: float = 0.5, marks: int = 20
) -> tuple[tuple[float, float], ...]:
    """A probe that reports ten times a second after its lead."""
    return tuple((lead_s + i / 10, i / 10 * steps_per_s) for i in range(marks + 1))


def measured(count: int, steps_per_s: float, **changes: object) -> Measurement:
    return replace(Measurement("Core", "cpu", count, 100, steady(steps_per_s)), **changes)


def build(
    measurements: list[Measurement], steps: float | None, price: Price, tier: str, site: str
) -> Menu:
    found, excluded = ways(measurements, steps)
    return assemble(found, Terms(price, tier, Site(site)), excluded)


def plan(name: str, gflop: int, fen: int, p50: float, p90: float) -> Plan:
    return Plan(name, "Core", "cpu", 1, "standard", "s", 100, gflop, fen, fen, p50, p90, 1.0)


def test_throughput_of_a_steady_job_is_its_rate_after_its_lead() -> None:
    seen = throughput(steady(40.0))
    assert seen is not None
    assert seen.steps_per_s == pytest.approx(40.0)
    assert seen.lead_s == pytest.approx(0.5)
    assert seen.slow_steps_per_s == pytest.approx(38.0)  # five per cent are kept back always


def test_an_unsteady_job_is_promised_more_slowly() -> None:
    marks = [(float(i), i * 10.0 + (4 if i % 2 else 0)) for i in range(20)]
    seen = throughput(marks)
    assert seen is not None
    assert seen.slow_steps_per_s < 0.93 * seen.steps_per_s


@pytest.mark.parametrize("marks", [(), ((1.0, 5.0),), tuple((float(i), 3.0) for i in range(50))])
def test_too_little_progress_is_no_measurement(marks: tuple[tuple[float, float], ...]) -> None:
    assert throughput(marks) is None
    menu = build([measured(1, 1.0, marks=marks)], 100, PRICE, "standard", "s")
    assert menu.plans == ()
    assert "too little progress" in menu.excluded[0].reason


def test_two_counts_make_two_plans_cheapest_first() -> None:
    menu = build([measured(2, 17.0), measured(1, 10.0)], 100, PRICE, "standard", "here")
    one, two = menu.plans
    assert (one.count, two.count) == (1, 2)
    assert one.finish_p50_s == pytest.approx(10.5)
    assert two.finish_p50_s == pytest.approx(0.5 + 100 / 17, abs=1e-3)
    assert one.held_gflop_p50 == 1_050
    assert two.held_gflop_p50 == pytest.approx(2 * 100 * two.finish_p50_s, abs=1)
    assert one.price_fen_p50 == 105
    assert one.price_fen_max > one.price_fen_p50
    assert one.finish_p90_s > one.finish_p50_s
    assert (one.energy_kwh, one.co2_kg) == (None, None)


def test_a_count_that_brings_nothing_is_left_out_with_the_reason() -> None:
    menu = build([measured(1, 10.0), measured(2, 9.0)], 100, PRICE, "standard", "here")
    assert [p.count for p in menu.plans] == [1]
    assert (menu.excluded[0].count, "finish no later" in menu.excluded[0].reason) == (2, True)


def test_the_goal_picks() -> None:
    plans = [plan("slow", 100, 10, 10.0, 11.0), plan("fast", 180, 18, 6.0, 7.0)]
    picks = {
        Goal(): "slow",
        Goal(deadline_s=11.0): "slow",
        Goal(deadline_s=10.9): "fast",
        Goal(budget_fen=18): "fast",
        Goal(budget_fen=17): "slow",
        Goal(deadline_s=7.0, budget_fen=18): "fast",
    }
    for goal, name in picks.items():
        choice = choose(plans, goal)
        assert isinstance(choice, Plan)
        assert choice.plan_id == name, goal
    for goal, code in ((Goal(deadline_s=6.9), "deadline"), (Goal(budget_fen=9), "budget")):
        choice = choose(plans, goal)
        assert isinstance(choice, Problem)
        assert choice.code == f"{code}_unreachable"
        assert f"goal.{code}" in choice.remedy


def test_a_price_is_rounded_up() -> None:
    assert price_fen(Price(1, 3), 1) == 1
    assert price_fen(Price(1, 3), 3) == 1
    assert price_fen(Price(0, 1), 10**9) == 0


PLANS = st.lists(
    st.builds(
        plan,
        st.text("abc", min_size=1, max_size=3),
        st.integers(1, 5),
        st.integers(1, 5),
        st.integers(1, 5).map(float),
        st.integers(1, 5).map(float),
    ),
    max_size=12,
)


@given(PLANS)
def test_no_plan_on_the_menu_is_beaten_and_every_other_is(plans: list[Plan]) -> None:
    def values(p: Plan) -> tuple[float, ...]:
        return (p.held_gflop_p50, p.price_fen_max, p.finish_p50_s, p.finish_p90_s)

    def beats(a: Plan, b: Plan) -> bool:
        better = [x <= y for x, y in zip(values(a), values(b), strict=True)]
        return all(better) and values(a) != values(b)

    kept = pareto(plans)
    assert not any(beats(a, b) for a in plans for b in kept)
    assert all(any(beats(a, b) for a in kept) for b in plans if b not in kept)


@given(st.floats(1, 1e6), st.floats(1, 1e6), st.integers(1, 64))
def test_more_steps_never_cost_less(steps: float, more: float, count: int) -> None:
    few = build([measured(count, 10.0)], steps, PRICE, "standard", "s").plans[0]
    many = build([measured(count, 10.0)], steps + more, PRICE, "standard", "s").plans[0]
    assert many.held_gflop_p50 >= few.held_gflop_p50
    assert many.price_fen_max >= few.price_fen_max
    assert many.finish_p90_s >= few.finish_p90_s


@pytest.mark.parametrize("least", [1e-320, 1e-300, 1e-9])
def test_a_pace_that_never_ends_is_left_out_with_the_reason(least: float) -> None:
    crawling = tuple((0.2 * i, least * i) for i in range(1, 9))
    menu = build([measured(1, 10.0, marks=crawling)], 1e6, PRICE, "standard", "s")
    assert not menu.plans
    assert "ten years" in menu.excluded[0].reason or "too little" in menu.excluded[0].reason
