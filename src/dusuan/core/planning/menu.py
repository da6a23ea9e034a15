"""The plan menu: ways to run one job with their prices, and the choice a goal makes.

A way rests on a probe (the job itself, run for a moment on that device and count) or on an estimate
of a described workload. Nothing measured is extrapolated to a count that was not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dusuan.core import units
from dusuan.core.planning import front
from dusuan.core.workload.jobspec import Goal, Problem
from dusuan.core.workload.memory import Layout

TIER_RANK = {"reserved": 0, "standard": 1, "spot": 2}


@dataclass(frozen=True, slots=True)
class Price:
    """The going price of degrees for an account: `fen` for each `gflop` (both whole)."""

    fen: int
    gflop: int


@dataclass(frozen=True, slots=True)
class Site:
    """Where devices stand. `grid_kg_per_kwh` None: the grid's factor is not known.

    `pue` is what the site draws for each kWh of its computers.
    """

    name: str
    pue: float = 1.0
    grid_kg_per_kwh: float | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a job, before it has a price. Times are seconds from its start.

    `device` is a model (or an entry of the catalogue), `kind` its kind. `energy_kwh` is that of the
    computers, None where nothing measures or estimates it. `basis` is `measured` or `estimated`.
    """

    device: str
    kind: str
    count: int
    rating_gflops: int
    finish_p50_s: float
    finish_p90_s: float
    basis: str = "measured"
    steps_per_s: float | None = None
    layout: Layout | None = None
    energy_kwh: float | None = None
    memory_gib: float | None = None
    in_pool: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to run the job, with its price. Times are seconds from its start.

    Prices follow the degrees that the tier bills: the held register at `tier_permille`. None stands
    where nothing is known. `work` is what was promised, in units of the job's progress. A plan
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
    steps_per_s: float | None
    energy_kwh: float | None = None
    co2_kg: float | None = None
    held_gflop_max: int = 0
    billed_gflop_p50: int = 0
    billed_gflop_max: int = 0
    tier_permille: int = 1_000
    basis: str = "measured"
    work: float | None = None
    binding: bool = False
    layout: Mapping[str, Any] | None = None
    memory_gib: float | None = None
    in_pool: bool = True


@dataclass(frozen=True, slots=True)
class Excluded:
    """A way to run the job that is not on the menu, and why. `count` None: whatever the count."""

    device: str
    count: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Menu:
    """The Pareto set of plans, cheapest first, and what was left out."""

    plans: tuple[Plan, ...]
    excluded: tuple[Excluded, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """What turns ways into plans: the price of degrees, tiers in thousandths of it, the site.

    `tier` is the one asked for; others are offered where they cost something else. `work` and
    `binding` are told by every plan.
    """

    price: Price
    tier: str
    site: Site
    tiers: Mapping[str, int] = field(default_factory=dict)
    work: float | None = None
    binding: bool = True

    def offered(self) -> dict[str, int]:
        """The tiers on the menu and what each costs."""
        own = self.tiers.get(self.tier, 1_000)
        others = {t: p for t, p in self.tiers.items() if p != own and t != self.tier}
        return {self.tier: own, **others}


def assemble(ways: Sequence[Way], terms: Terms, excluded: Sequence[Excluded] = ()) -> Menu:
    """The menu of `ways`: those that no other beats in anything, on every tier that is offered."""
    if not ways:
        return Menu((), tuple(excluded))
    offered = list(terms.offered().items())
    rows = [(way, tier) for way in range(len(ways)) for tier in range(len(offered))]
    values = _figures(ways, terms, offered)
    named = _labels(ways)
    likely = [
        (int(row), _plan(ways[rows[row][0]], terms, *offered[rows[row][1]], named))
        for row in np.flatnonzero(front.front(values))
    ]
    # What is shown is rounded: a plan must not be beaten by what stands beside it either.
    best = front.front(_values([plan for _, plan in likely]))
    plans = [each for each, on in zip(likely, best, strict=True) if on]
    plans.sort(key=lambda each: _rank(each[1]))
    left_out = _left_out(ways, terms, rows, values, plans, offered)
    return Menu(tuple(plan for _, plan in plans), (*excluded, *left_out))


def _figures(ways: Sequence[Way], terms: Terms, offered: Sequence[tuple[str, int]]) -> front.Values:
    """What plans are compared by, one row for each way and tier: degrees, price, P50, P90, kWh,
    and how good the tier is. Unknown energy counts as more than any that is known."""
    count = np.array([w.count for w in ways], dtype=np.float64)
    rating = np.array([w.rating_gflops for w in ways], dtype=np.float64)
    p50 = np.array([w.finish_p50_s for w in ways])
    p90 = np.array([w.finish_p90_s for w in ways])
    energy = np.array([np.inf if w.energy_kwh is None else w.energy_kwh for w in ways])
    held = np.stack([count * rating * p50, count * rating * p90], axis=1)
    per_gflop = terms.price.fen / terms.price.gflop
    permille = np.array([p for _, p in offered]) / 1_000
    ranks = np.array([TIER_RANK[t] for t, _ in offered], dtype=np.float64)
    cells = [
        np.broadcast_to(held[:, :1], (len(ways), len(offered))),
        held[:, 1:] * permille * (per_gflop or 1.0),
        np.broadcast_to(p50[:, None], (len(ways), len(offered))),
        np.broadcast_to(p90[:, None], (len(ways), len(offered))),
        np.broadcast_to(energy[:, None], (len(ways), len(offered))),
        np.broadcast_to(ranks, (len(ways), len(offered))),
    ]
    return np.stack([cell.ravel() for cell in cells], axis=1)


def _labels(ways: Sequence[Way]) -> dict[str, str]:
    """How plans name each device: its kind where that says which is meant, else its model."""
    kinds = {way.device: way.kind for way in ways if way.in_pool}
    single = {kind for kind in kinds.values() if list(kinds.values()).count(kind) == 1}
    return {
        device: kinds[device] if kinds.get(device) in single else _one_word(device)
        for device in dict.fromkeys(way.device for way in ways)
    }


def _one_word(device: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", device.lower()).strip("-")


def _plan(way: Way, terms: Terms, tier: str, permille: int, named: Mapping[str, str]) -> Plan:
    ms = [round(s * 1_000) * way.count for s in (way.finish_p50_s, way.finish_p90_s)]
    held = [units.held_gflop(way.rating_gflops, each) for each in ms]
    rate = units.tier_rate(way.rating_gflops, permille)
    billed = [units.held_gflop(rate, each) for each in ms]
    drawn = None if way.energy_kwh is None else way.energy_kwh * terms.site.pue
    factor = terms.site.grid_kg_per_kwh
    return Plan(
        plan_id=f"{named[way.device]}-x{way.count}-{tier}",
        device=way.device,
        kind=way.kind,
        count=way.count,
        tier=tier,
        site=terms.site.name,
        rating_gflops=way.rating_gflops,
        held_gflop_p50=held[0],
        price_fen_p50=price_fen(terms.price, billed[0]),
        price_fen_max=price_fen(terms.price, billed[1]),
        finish_p50_s=round(way.finish_p50_s, 3),
        finish_p90_s=round(way.finish_p90_s, 3),
        steps_per_s=way.steps_per_s,
        energy_kwh=None if drawn is None else round(drawn, 6),
        co2_kg=None if drawn is None or factor is None else round(drawn * factor, 6),
        held_gflop_max=held[1],
        billed_gflop_p50=billed[0],
        billed_gflop_max=billed[1],
        tier_permille=permille,
        basis=way.basis,
        work=terms.work,
        binding=terms.binding and way.in_pool,
        layout=None if way.layout is None else way.layout.describe(),
        memory_gib=way.memory_gib,
        in_pool=way.in_pool,
    )


def _left_out(
    ways: Sequence[Way],
    terms: Terms,
    rows: Sequence[tuple[int, int]],
    values: front.Values,
    plans: Sequence[tuple[int, Plan]],
    offered: Sequence[tuple[str, int]],
) -> list[Excluded]:
    """Ways that fell out on the tier that was asked for, and what beats them.

    What was measured is named count by count; of devices that were estimated, those that no plan
    is on.
    """
    on_menu, kept = {plan.device for _, plan in plans}, {row for row, _ in plans}
    asked = [tier for tier, _ in offered].index(terms.tier)
    out = [
        row
        for row, (way, tier) in enumerate(rows)
        if tier == asked
        and row not in kept
        and (ways[way].basis == "measured" or ways[way].device not in on_menu)
    ]
    best = np.array([row for row, _ in plans], dtype=np.intp)
    found: dict[tuple[str, int | None], Excluded] = {}
    for row, beater in zip(out, front.beaters(values[out], values[best]), strict=True):
        way, better = ways[rows[row][0]], plans[max(int(beater), 0)][1]
        key = (way.device, way.count if way.basis == "measured" else None)
        found.setdefault(key, Excluded(*key, _why_beaten(way, better)))
    return list(found.values())


def _why_beaten(way: Way, better: Plan) -> str:
    if way.basis == "measured" and better.device == way.device:
        return f"as measured, {better.count} finish no later and cost no more ({better.plan_id})"
    return (
        f"on {way.count} it would cost no less and finish no earlier than {better.count} x "
        f"{better.device} ({better.plan_id})"
    )


def price_fen(price: Price, gflop: int) -> int:
    """What `gflop` cost at `price`, in whole fen, rounded up: a quote never promises too little."""
    return -(-gflop * price.fen // price.gflop)


def beats(plan: Plan, other: Plan) -> bool:
    """Whether `plan` is nowhere worse than `other` (degrees, price, finish, energy, tier)."""
    return bool(front.beaten(_values([other]), _values([plan]))[0])


def pareto(plans: Sequence[Plan]) -> list[Plan]:
    """The plans that no other beats, cheapest first."""
    if not plans:
        return []
    kept = front.front(_values(plans))
    return sorted((p for p, on in zip(plans, kept, strict=True) if on), key=_rank)


def _values(plans: Sequence[Plan]) -> front.Values:
    return np.array(
        [
            (
                p.held_gflop_p50,
                p.price_fen_max,
                p.finish_p50_s,
                p.finish_p90_s,
                np.inf if p.energy_kwh is None else p.energy_kwh,
                TIER_RANK[p.tier],
            )
            for p in plans
        ],
        dtype=np.float64,
    )


def _rank(plan: Plan) -> tuple[Any, ...]:
    return (plan.price_fen_max, plan.billed_gflop_max, plan.finish_p90_s, plan.plan_id)


def choose(plans: Sequence[Plan], goal: Goal) -> Plan | Problem:
    """The plan a goal picks: cheapest before the deadline, fastest within the budget.

    With both, the cheapest that meets both; with neither, the cheapest. A deadline is met when
    the finish time is within it nine times out of ten. Only plans of the goal's tier, on devices
    that the pool has, are picked.
    """
    plans = [p for p in plans if p.tier == goal.tier and p.in_pool]
    if not plans:
        words = f"no plan of the tier {goal.tier} is on devices that the pool has"
        return Problem("no_plan", words, remedy="name a plan, or change goal.tier")
    within = [p for p in plans if goal.budget_fen is None or p.price_fen_max <= goal.budget_fen]
    if not within:
        return _missed("budget", f"at most {min(p.price_fen_max for p in plans)} fen are needed")
    if goal.deadline_s is None:
        if goal.budget_fen is None:
            return min(within, key=_rank)
        return min(within, key=lambda p: (p.finish_p90_s, p.price_fen_p50))
    timely = [p for p in within if p.finish_p90_s <= goal.deadline_s]
    if not timely:
        best = min(p.finish_p90_s for p in within)
        return _missed("deadline", f"the fastest plan within reach takes {best:.1f} s (P90)")
    return min(timely, key=_rank)


def _missed(what: str, why: str) -> Problem:
    return Problem(
        f"{what}_unreachable", f"no plan meets the {what}: {why}", remedy=f"change goal.{what}"
    )
