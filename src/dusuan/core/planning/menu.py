"""The plan menu: ways to run one job, from measured throughput, and the choice a goal makes.

Every plan rests on a probe: the job itself, run for a moment on that device and count, reporting
its progress. Nothing is extrapolated to a count that was not measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from dusuan.core import units
from dusuan.core.workload.jobspec import Goal, Problem


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a probe saw of one way to run the job.

    `marks` are (elapsed seconds, steps done) in order, elapsed from the start of the process.
    """

    device: str
    kind: str
    count: int
    rating_gflops: int
    marks: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Price:
    """The going price of degrees for an account: `fen` for each `gflop` (both whole)."""

    fen: int
    gflop: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to run the job. Times are seconds from its start; prices follow the held register.

    `device` is a model of the pool, `kind` its kind. None stands where nothing was measured:
    energy and carbon without a power meter. `tier_permille` is what the tier costs; `billed` are
    the degrees that it bills. `work` is what was promised, in units of the job's progress. A plan
    that is `binding` caps the bill for that work at `billed_gflop_max` and `price_fen_max`.
    """

    plan_id: str
    device: str
    kind: str
    count: int
    tier: str
    site: str
    rating_gflops: int
    held_gflop_p50: int
    price_fen_p50: int
    price_fen_max: int
    finish_p50_s: float
    finish_p90_s: float
    steps_per_s: float
    energy_kwh: float | None = None
    co2_kg: float | None = None
    held_gflop_max: int = 0
    billed_gflop_p50: int = 0
    billed_gflop_max: int = 0
    tier_permille: int = 1_000
    basis: str = "measured"
    work: float | None = None
    binding: bool = False


@dataclass(frozen=True, slots=True)
class Excluded:
    """A way to run the job that is not on the menu, and why."""

    device: str
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Menu:
    """The Pareto set of plans, cheapest first, and what was left out."""

    plans: tuple[Plan, ...]
    excluded: tuple[Excluded, ...]


@dataclass(frozen=True, slots=True)
class Throughput:
    """Steps per second: the overall rate, a slow (tenth percentile) one, and the lead before."""

    steps_per_s: float
    slow_steps_per_s: float
    lead_s: float


MIN_MARKS = 4
FINISH_S_MAX = 10 * 365 * 86_400.0


def throughput(marks: Sequence[tuple[float, float]]) -> Throughput | None:
    """Rates from progress marks, or None when too few marks moved forward to tell.

    The first mark that moved is the end of the lead (start-up, data loading): time before it
    counts once. The slow rate is the mean less 1.2816 standard errors of the rates between marks,
    widened by the spread of the marks themselves: P90 under a normal model of the mean.
    """
    moved = [marks[0]] if marks and marks[0][1] > 0 else []
    for mark in marks:
        if not moved or (mark[1] > moved[-1][1] and mark[0] > moved[-1][0]):
            moved.append(mark)
    if len(moved) < MIN_MARKS:
        return None
    (first_s, first), (last_s, last) = moved[0], moved[-1]
    rate = (last - first) / (last_s - first_s)
    if rate <= 0:  # steps so small that their rate is no number above zero
        return None
    rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(moved)]
    deviation = math.sqrt(sum((r - rate) ** 2 for r in rates) / len(rates))
    slow = rate - 1.2816 * deviation / math.sqrt(len(rates))
    return Throughput(rate, max(slow, rate / 2) * 0.95, max(first_s - first / rate, 0.0))


def build(
    measurements: Sequence[Measurement],
    steps: float,
    price: Price,
    tier: str,
    site: str,
    permille: int = 1_000,
) -> Menu:
    """The menu for a job of `steps` steps. Plans that another one beats in everything fall out."""
    plans: list[Plan] = []
    excluded: list[Excluded] = []
    for m in measurements:
        seen = throughput(m.marks)
        if seen is None:
            reason = "its probe reported too little progress to measure"
            excluded.append(Excluded(m.device, m.count, reason))
        elif _finish_s(seen, steps)[1] > FINISH_S_MAX:
            reason = "at the pace of its probe it would take more than ten years"
            excluded.append(Excluded(m.device, m.count, reason))
        else:
            plans.append(_plan(m, seen, steps, price, tier, site, permille))
    kept = pareto(plans)
    excluded.extend(
        Excluded(p.device, p.count, _why_beaten(p, kept)) for p in plans if p not in kept
    )
    return Menu(tuple(kept), tuple(excluded))


def _why_beaten(plan: Plan, kept: Sequence[Plan]) -> str:
    better = next(k for k in kept if beats(k, plan))
    return f"as measured, {better.count} finish no later and cost no more ({better.plan_id})"


def _plan(
    m: Measurement,
    seen: Throughput,
    steps: float,
    price: Price,
    tier: str,
    site: str,
    permille: int,
) -> Plan:
    p50_s, p90_s = _finish_s(seen, steps)
    ms = [round(s * 1_000) * m.count for s in (p50_s, p90_s)]
    held = [units.held_gflop(m.rating_gflops, each) for each in ms]
    rate = units.tier_rate(m.rating_gflops, permille)
    billed = [units.held_gflop(rate, each) for each in ms]
    fen = [price_fen(price, gflop) for gflop in billed]
    return Plan(
        plan_id=f"{m.kind}-x{m.count}-{tier}",
        device=m.device,
        kind=m.kind,
        count=m.count,
        tier=tier,
        site=site,
        rating_gflops=m.rating_gflops,
        held_gflop_p50=held[0],
        price_fen_p50=fen[0],
        price_fen_max=fen[1],
        finish_p50_s=round(p50_s, 3),
        finish_p90_s=round(p90_s, 3),
        steps_per_s=seen.steps_per_s,
        held_gflop_max=held[1],
        billed_gflop_p50=billed[0],
        billed_gflop_max=billed[1],
        tier_permille=permille,
        work=steps,
        binding=True,
    )


def _finish_s(seen: Throughput, steps: float) -> tuple[float, float]:
    """Seconds to the end of `steps`: the median, and what is met nine times out of ten."""
    return (
        seen.lead_s + steps / seen.steps_per_s,
        seen.lead_s * 1.2 + steps / seen.slow_steps_per_s,
    )


def price_fen(price: Price, gflop: int) -> int:
    """What `gflop` cost at `price`, in whole fen, rounded up: a quote never promises too little."""
    return -(-gflop * price.fen // price.gflop)


def beats(plan: Plan, other: Plan) -> bool:
    """Whether `plan` is nowhere worse than `other` in degrees, price and finish, and not equal."""
    mine, its = _values(plan), _values(other)
    return mine != its and all(m <= i for m, i in zip(mine, its, strict=True))


def _values(plan: Plan) -> tuple[float, ...]:
    return (plan.held_gflop_p50, plan.price_fen_max, plan.finish_p50_s, plan.finish_p90_s)


def pareto(plans: Sequence[Plan]) -> list[Plan]:
    """The plans that no other beats, cheapest first."""
    kept = [plan for plan in plans if not any(beats(other, plan) for other in plans)]
    return sorted(kept, key=lambda p: (p.held_gflop_p50, p.finish_p90_s, p.plan_id))


def choose(plans: Sequence[Plan], goal: Goal) -> Plan | Problem:
    """The plan a goal picks: cheapest before the deadline, fastest within the budget.

    With both, the cheapest that meets both; with neither, the cheapest. A deadline is met when
    the finish time is within it nine times out of ten.
    """
    within = [p for p in plans if goal.budget_fen is None or p.price_fen_max <= goal.budget_fen]
    if not within:
        return _missed("budget", f"at most {min(p.price_fen_max for p in plans)} fen are needed")
    if goal.deadline_s is None:
        if goal.budget_fen is None:
            return within[0]
        return min(within, key=lambda p: (p.finish_p90_s, p.price_fen_p50))
    timely = [p for p in within if p.finish_p90_s <= goal.deadline_s]
    if not timely:
        best = min(p.finish_p90_s for p in within)
        return _missed("deadline", f"the fastest plan within reach takes {best:.1f} s (P90)")
    return min(timely, key=lambda p: (p.held_gflop_p50, p.finish_p90_s))


def _missed(what: str, why: str) -> Problem:
    return Problem(
        f"{what}_unreachable", f"no plan meets the {what}: {why}", remedy=f"change goal.{what}"
    )
