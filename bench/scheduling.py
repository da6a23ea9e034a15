"""The scheduler on public traces and at scale: waits, slowdowns, completion, speed; JSON lines.

The traces are found through `DUSUAN_SHARED` or in `shared` beside the checkout; without them only
what needs no trace is measured: filling a cluster, and rounds as the live service asks for them.
Placement, quota and fair share have rows of their own: `bench/placement.py`, which `--all` runs.

    python bench/scheduling.py [--repeats 3] [--all] [--traces kth …] [--devices 1000 100000]
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dusuan.core.scheduling.model import (
    TIERS,
    Cluster,
    DeviceSlot,
    Plan,
    QueuedJob,
    Request,
    RunningJob,
    Share,
)
from dusuan.core.scheduling.packing import new_packing
from dusuan.core.scheduling.policy import POLICIES, PolicyParts, named
from dusuan.core.scheduling.round import outline, schedule
from dusuan.core.workload.jobspec import Problem
from dusuan.service.collecting import between_rounds
from dusuan.sim import fill
from dusuan.sim.readers import read
from dusuan.sim.run import Settings, simulate
from dusuan.sim.summary import summary
from dusuan.sim.trace import Rated, Site, Trace, read_cluster

SHARED = Path(os.environ.get("DUSUAN_SHARED", Path(__file__).parents[2] / "shared")) / "traces"
# Trace: file, format, cluster, and the policies (with what run times are taken from) to run.
ROWS: dict[str, tuple[str, str, str, tuple[tuple[str, str | None], ...]]] = {
    "kth": (
        *("KTH-SP2-1996-2.1-cln.swf.gz", "swf", "100x1"),
        (
            *(("fcfs", None), ("easy", None), ("easy", "oracle"), ("conservative", None)),
            *(("sjf-backfill", None), ("dusuan", "last2")),
        ),
    ),
    "lublin": (
        *("lublin_256.swf.gz", "swf", "256x1"),
        (("fcfs", None), ("easy", None), ("dusuan", None)),
    ),
    "philly": (
        *("philly_until_20171115.csv.gz", "philly-csv", "80x8"),
        (
            *(("fcfs", None), ("sjf", "oracle"), ("srtf", "oracle"), ("las", None)),
            ("dusuan", None),
        ),
    ),
    "pai": (
        *("pai_100k.csv.gz", "arrivals", "18x8"),
        (("fcfs", None), ("sjf", "oracle"), ("dusuan", None)),
    ),
}
SHOWN = (
    *("jobs", "jobs_rejected", "avg_jct_s", "avg_wait_s", "avg_bounded_slowdown", "p999_wait_s"),
    *("max_wait_s", "utilisation", "restarts", "lost_gpu_s", "prediction_accuracy", "decisions"),
)


def say(**row: Any) -> None:
    print(json.dumps(row), flush=True)


def loaded(file: str, form: str, cluster: str) -> tuple[Site, Trace]:
    site, trace = read_cluster(cluster, lambda _model: Rated(0, 0.0)), read(SHARED / file, form)
    assert not isinstance(site, Problem) and not isinstance(trace, Problem), trace
    return site, trace


def run(name: str, policy: str, predict: str | None, repeats: int, given: Any) -> None:
    """One row: the figures, and the median of the event loop's wall and processor seconds."""
    site, trace = given
    parts = named(policy)
    assert isinstance(parts, PolicyParts)
    wall, cpu = [], []
    for _ in range(repeats):
        outcome = simulate(site, trace, Settings(parts, predict), time.perf_counter)
        wall.append(outcome.wall_s)
        cpu.append(simulate(site, trace, Settings(parts, predict), time.process_time).wall_s)
    found = summary(outcome)
    figures = {key: found[key] for key in SHOWN}
    times = {"wall_s": statistics.median(wall), "cpu_s": statistics.median(cpu)}
    say(trace=name, policy=policy, predict=found["predict"], **figures, **times)


def compile_row() -> None:
    """What compiling the rules costs where nothing is cached."""
    site = read_cluster("1x1", lambda _model: Rated(0, 0.0))
    assert isinstance(site, Site)
    parts = named("fcfs")
    assert isinstance(parts, PolicyParts)
    began = time.process_time()
    from dusuan.core.scheduling.arrays import jobs_array

    simulate(site, Trace(jobs_array(1), ("a",)), Settings(parts), time.perf_counter)
    say(
        measured="first simulation of this process, cached or not",
        cpu_s=time.process_time() - began,
    )


def speed(sizes: list[int], repeats: int) -> None:
    """Decisions a second while a cluster fills, by the round and by the placement alone."""
    for policy in ("dusuan", "fgd"):
        cost = {}
        for devices in sizes:
            runs, cpu = (
                [fill.fill(devices, policy, seed, clock) for seed in range(repeats)]
                for clock in (time.perf_counter, time.process_time)
            )
            cost[devices] = 1 / middle(runs_of(cpu, "decisions_per_s"))
            figures = {
                name: middle(runs_of(runs, name))
                for name in ("decisions_per_s", "round_p50_ms", "round_p99_ms")
            }
            alone = middle([placing_alone(devices, policy, seed) for seed in range(repeats)])
            say(
                measured="sim fill", policy=policy, devices=devices, pending=fill.PENDING,
                **figures, placement_alone_per_s=round(alone, 1),
            )  # fmt: skip
        growth = round(cost[sizes[-1]] / cost[sizes[0]], 2)
        say(measured="growth of CPU time per decision", policy=policy, sizes=sizes, ratio=growth)


def runs_of(runs: list[fill.Filled], name: str) -> list[float]:
    return [getattr(run, name) for run in runs]


def middle(values: list[float]) -> float:
    return statistics.median(values)


def placing_alone(devices: int, policy: str, seed: int) -> float:
    """Decisions a second of the placement without queue and jobs, on the same requests."""
    kinds, popularity = fill.requests()
    come = fill.until(devices * 1_000, kinds, popularity, np.random.default_rng(seed))
    engine = new_packing(fill.hosts(devices), kinds, popularity, policy)
    engine.place_all(come[:0])
    began = time.perf_counter()
    engine.place_all(come)
    return len(come) / (time.perf_counter() - began)


CENTRE = POLICIES["centre"]
ACCOUNTS = 100


def with_quotas(leaves: tuple[Share, ...], devices: int) -> tuple[Share, ...]:
    """The accounts below 25 groups of 5 organisations: guaranteed, borrowed and lent so much."""
    above = tuple(Share(f"o{i}", quota=devices * 18 // 100, borrow=devices // 10) for i in range(5))
    groups = tuple(
        Share(
            f"g{i}", f"o{i // 5}", quota=devices * 3 // 100, lend=devices // 50 if i % 3 else None
        )
        for i in range(25)
    )
    below = (
        replace(
            share, parent=f"g{i // 4}", quota=devices // 200, borrow=devices // (80 + 40 * (i % 4))
        )
        for i, share in enumerate(leaves)
    )  # fmt: skip
    return (*above, *groups, *below)


class Centre:
    """A centre as the live service sees it: jobs come, start as planned, and end."""

    def __init__(self, devices: int, pending: int, quotas: bool, seed: int) -> None:
        self.draw, self.now_ms, self.count = np.random.default_rng(seed), 10**12, 0
        models = (("A100", 312_000), ("H800", 990_000), ("910B", 376_000))
        self.slots = tuple(
            DeviceSlot(
                f"n{i // 8}/gpu:{i % 8}", f"n{i // 8}", "gpu",
                models[i // 8 % 3][0], gflops=models[i // 8 % 3][1],
            )
            for i in range(devices)
        )  # fmt: skip
        self.running: dict[str, RunningJob] = {}
        self.queue: dict[str, QueuedJob] = {}
        self.shares = tuple(
            Share(f"a{i}", usage_gflop=float(self.draw.random()), usage_at_ms=self.now_ms)
            for i in range(ACCOUNTS)
        )
        if quotas:
            self.shares = with_quotas(self.shares, devices)
        started = pending
        while started > pending // 20:  # full, before anything is measured
            self.come(pending)
            plan = outline(self.cluster, tuple(self.queue.values()), CENTRE, self.now_ms)
            started = len(plan.starts)
            self.apply(plan)

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.slots, tuple(self.running.values()), self.shares)

    def come(self, pending: int) -> None:
        """Jobs come until `pending` wait."""
        while len(self.queue) < pending:
            self.count += 1
            count, minutes = int(self.draw.choice([1, 1, 2, 4, 8])), int(self.draw.integers(1, 600))
            model = (None, None, "A100", "H800", "910B")[self.draw.integers(5)]
            self.queue[f"j{self.count}"] = QueuedJob(
                f"j{self.count}", self.count, Request(count, "gpu", model),
                priority=int(self.draw.integers(3)), owner=f"a{self.draw.integers(100)}",
                waits_since_ms=self.now_ms, expected_ms=minutes * 60_000,
                limit_ms=2 * minutes * 60_000, tier=TIERS[int(self.draw.integers(2))],
            )  # fmt: skip

    def apply(self, plan: Plan) -> None:
        """What is planned starts."""
        for start in plan.starts:
            job = self.queue.pop(start.job_id)
            self.running[job.job_id] = RunningJob(
                job.job_id, start.devices, self.now_ms, job.expected_ms, job.limit_ms,
                job.tier, job.owner,
            )  # fmt: skip

    def end(self, jobs: int) -> None:
        """Some jobs end, and half a minute passes."""
        self.now_ms += 30_000
        for name in self.draw.choice(list(self.running), jobs, replace=False).tolist():
            del self.running[name]


# What is measured: the door, and whether devices that are as they were are the same objects. In the
# service they are; they are others after a device was written, and in questions of `why` at times.
DOORS = (("schedule", schedule, True), ("outline", outline, True), ("schedule", schedule, False))


def live_rounds(devices: int, pending: int, quotas: bool, rounds: int) -> None:
    """Wall milliseconds of a round of the live service, with and without reasons."""
    centre = Centre(devices, pending, quotas, 0)
    for name, decide, kept in DOORS:
        times, codes, started = some_rounds(centre, pending, decide, kept, rounds)
        say(
            measured="live round", door=name, same_devices=kept, devices=devices, pending=pending,
            quotas=quotas, rounds=rounds, running=len(centre.running), codes=codes,
            started_per_round=round(started / rounds),
            p50_ms=round(float(np.percentile(times, 50)), 1),
            p99_ms=round(float(np.percentile(times, 99)), 1),
        )  # fmt: skip


def some_rounds(
    centre: Centre, pending: int, decide: Callable[..., Plan], kept: bool, rounds: int
) -> tuple[list[float], Counter[str], int]:
    """Milliseconds of each, how often each reason was given, and how many jobs started."""
    times, codes, started = list[float](), Counter[str](), 0
    for turn in range(rounds + 2):  # the first two remember nothing of the kind
        centre.end(max(len(centre.running) // 50, 1))
        centre.come(pending)
        plan, took_ms = timed(centre, decide, kept)
        centre.apply(plan)
        if turn > 1:
            times.append(took_ms)
            started += len(plan.starts)
            codes.update(wait.code.value for wait in plan.waits.values())
    return times, codes, started


def timed(centre: Centre, decide: Callable[..., Plan], kept: bool) -> tuple[Plan, float]:
    """One round, without a full garbage collection in it, as in the service."""
    cluster, queue = centre.cluster, tuple(centre.queue.values())
    if not kept:
        cluster = replace(cluster, devices=tuple(map(replace, cluster.devices)))
    gc.collect()
    with between_rounds(time.monotonic):
        began = time.perf_counter()
        plan = decide(cluster, queue, CENTRE, centre.now_ms)
        return plan, 1000 * (time.perf_counter() - began)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--all", action="store_true", help="placement, quota and share too")
    options.add_argument("--traces", nargs="*", default=list(ROWS))
    options.add_argument("--devices", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    options.add_argument("--rounds", type=int, default=30)
    chosen = options.parse_args()
    speed(chosen.devices, chosen.repeats)
    for devices, quotas in itertools.product(chosen.devices, (False, True)):
        pending = fill.PENDING * devices // chosen.devices[-1]
        live_rounds(devices, pending, quotas, chosen.rounds)
    compile_row()
    for name in chosen.traces if SHARED.is_dir() else ():
        file, form, cluster, policies = ROWS[name]
        given = loaded(file, form, cluster)
        for policy, predict in policies:
            run(name, policy, predict, chosen.repeats, given)
    if chosen.all:
        other = Path(__file__).with_name("placement.py")
        subprocess.run([sys.executable, str(other), "--repeats", str(chosen.repeats)], check=True)


if __name__ == "__main__":
    main()
