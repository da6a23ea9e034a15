"""Traces made up: when jobs arrive, what they are, and how load grows. Same seed, same trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.arrays import Records, jobs_array
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.quantities import did_you_mean
from dusuan.sim.trace import Trace

DAY_MS = 86_400_000
USERS = 60
JOBS_MAX = 5_000_000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Kind:
    """Jobs alike. Run times are lognormal; sizes are devices with their parts of the jobs."""

    part: float  # of all jobs
    sizes: Mapping[int, float]
    median_s: float
    sigma: float
    preemptible: bool
    milli: int = 1000


# Shapes after public analyses: most jobs small and short, most device-time in few large ones
# (Jeon et al., Philly, ATC 2019; Hu et al., Helios, SC 2021; Weng et al., PAI, NSDI 2022).
TRAINING = Kind(1.0, {1: 0.70, 2: 0.06, 4: 0.09, 8: 0.11, 16: 0.03, 32: 0.01}, 900.0, 2.2, True)
SMALL = Kind(1.0, {1: 0.9, 2: 0.1}, 300.0, 1.8, True)
SHARED = Kind(1.0, {1: 1.0}, 1800.0, 1.5, False, 250)
LARGE = Kind(1.0, {32: 0.5, 64: 0.3, 128: 0.2}, 36_000.0, 1.2, True)
MIXES: Mapping[str, tuple[tuple[float, Kind], ...]] = {
    "training": ((1.0, TRAINING),),
    "research": ((0.6, SMALL), (0.4, TRAINING)),
    "shared": ((0.5, SHARED), (0.5, TRAINING)),
    "large": ((0.9, TRAINING), (0.1, LARGE)),
}
ARRIVALS = ("steady", "daily", "bursts")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to make. `load`: device-time asked for, in parts of what `devices` have.

    `growth` is by how much load is higher at the end than at the beginning: 1 is twice as high.
    """

    jobs: int
    devices: int
    load: float = 0.8
    mix: str = "training"
    arrivals: str = "daily"
    growth: float = 0.0
    seed: int = 0


def generate(wanted: Wanted) -> Trace | Problem:
    """A trace as wanted. Jobs larger than half of the devices are cut to that."""
    problem = _unusable(wanted)
    if problem is not None:
        return problem
    draw = np.random.default_rng([wanted.seed, 5])
    jobs = _jobs(wanted, draw)
    work = float((jobs["devices"] * jobs["milli"] / 1000 * jobs["run_ms"]).sum())
    span_ms = work / (wanted.load * wanted.devices)
    moments = np.rint(_moments(wanted, draw, span_ms)).astype(np.int64)
    jobs["submit_ms"] = np.sort(moments) - int(moments.min(initial=0))
    accounts = tuple(f"team-{i}" for i in range(6))
    jobs["account"] = jobs["group"] // 8 % len(accounts)
    names = tuple(f"j{i}" for i in range(len(jobs)))
    return Trace(jobs, names, accounts, about={"form": "generated"})


def _unusable(wanted: Wanted) -> Problem | None:
    if wanted.mix not in MIXES:
        near = did_you_mean(wanted.mix, MIXES)
        return Problem("unknown_mix", f"no mix {wanted.mix!r}", remedy=near)
    if wanted.arrivals not in ARRIVALS:
        near = did_you_mean(wanted.arrivals, ARRIVALS)
        return Problem("unknown_arrivals", f"no arrivals {wanted.arrivals!r}", remedy=near)
    if not 1 <= wanted.jobs <= JOBS_MAX:
        return Problem("bad_jobs", f"{wanted.jobs} jobs", remedy=f"give 1 to {JOBS_MAX}")
    if wanted.devices < 1:
        return Problem("no_devices", "the cluster has no devices", remedy="give at least 1")
    if not 0 < wanted.load <= 10 or not -1 < wanted.growth <= 100:
        text = f"load {wanted.load:g}, growth {wanted.growth:g}"
        return Problem("bad_load", text, remedy="load up to 10, growth above -1 and up to 100")
    return None


def _jobs(wanted: Wanted, draw: np.random.Generator) -> Records:
    """What runs: sizes and run times of the mix's kinds; users repeat themselves."""
    kinds = MIXES[wanted.mix]
    which = draw.choice(len(kinds), wanted.jobs, p=[part for part, _ in kinds])
    jobs = jobs_array(wanted.jobs)
    jobs["group"] = user = draw.zipf(1.4, wanted.jobs) % USERS
    habit = draw.lognormal(0.0, 1.0, USERS)  # some users' jobs are longer than others'
    for i, (_, kind) in enumerate(kinds):
        mine = np.flatnonzero(which == i)
        weight = np.array(list(kind.sizes.values()))
        jobs["devices"][mine] = draw.choice(list(kind.sizes), len(mine), p=weight / weight.sum())
        run_s = draw.lognormal(np.log(kind.median_s), kind.sigma, len(mine)) * habit[user[mine]]
        jobs["run_ms"][mine] = np.clip(run_s, 1, 60 * 86_400) * 1000
        jobs["milli"][mine], jobs["preemptible"][mine] = kind.milli, kind.preemptible
    jobs["devices"] = np.minimum(jobs["devices"], max(wanted.devices // 2, 1))
    jobs["group"] = user * 8 + np.log2(jobs["devices"]).astype(np.int64)
    return jobs


def _moments(wanted: Wanted, draw: np.random.Generator, span_ms: float) -> Floats:
    """When jobs come: by a rate that grows, swings with the day, or comes in bursts."""
    grid = np.linspace(0, span_ms, max(int(span_ms // 600_000), 100) + 1)
    rate = 1 + wanted.growth * grid / span_ms
    if wanted.arrivals == "daily":
        day, week = grid / DAY_MS % 1, grid // DAY_MS % 7
        rate *= (1 - 0.7 * np.cos(2 * np.pi * (day - 0.1))) * np.where(week >= 5, 0.5, 1.0)
    elif wanted.arrivals == "bursts":
        rate *= draw.gamma(0.25, 4.0, len(grid))
    total = np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2)])
    return np.asarray(np.interp(draw.uniform(0, total[-1], wanted.jobs), total, grid), np.float64)
