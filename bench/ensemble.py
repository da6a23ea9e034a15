"""Policies on an ensemble of traces: a parameter set that is good on one trace may be so by chance.

Two kinds of traces. *Rigid* jobs, which nobody may stop: KTH as it is, with moments of submission
moved by up to a minute, with days redrawn, in quarters, on more and fewer processors; Lublin's
model with load that the machine can do; and generated ones. Their figure is the mean bounded
slowdown by that of `easy` with what users say, and their longest and 99.9 % waits by its.
*Preemptible* jobs: Philly and PAI, whole, in parts and with days redrawn, and generated ones.
Their figure is the mean completion time by that of `sjf`, which knows the run times.

Parameters were chosen on one half of the members, "tuned"; the other half is "held out".

    python bench/ensemble.py [--policies dusuan dusuan:overdue_s=43200,overdue_most=3 ...]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from scheduling import loaded

from dusuan.core.scheduling.arrays import Records
from dusuan.core.scheduling.policy import PolicyParts, from_mapping, named
from dusuan.sim.compare import drawn
from dusuan.sim.generate import Wanted, generate
from dusuan.sim.run import Settings, simulate
from dusuan.sim.summary import summary
from dusuan.sim.trace import Rated, Site, Trace, read_cluster

KTH = ("KTH-SP2-1996-2.1-cln.swf.gz", "swf")
LUBLIN = ("lublin_256.swf.gz", "swf")
PHILLY = ("philly_until_20171115.csv.gz", "philly-csv")
PAI = ("pai_100k.csv.gz", "arrivals")


@dataclass(frozen=True)
class Member:
    """A trace of the ensemble, and what it runs on."""

    name: str
    rigid: bool
    tuned: bool
    site: Site
    trace: Trace


def cluster(text: str) -> Site:
    found = read_cluster(text, lambda _model: Rated(0, 0.0))
    assert isinstance(found, Site)
    return found


def changed(trace: Trace, jobs: Records, kept: Any = None) -> Trace:
    """The trace with `jobs`, in order of their submission from 0 on."""
    names = trace.names if kept is None else tuple(np.array(trace.names)[kept].tolist())
    order = np.argsort(jobs["submit_ms"], kind="stable")
    jobs = jobs[order].copy()
    jobs["submit_ms"] -= int(jobs["submit_ms"].min())
    return replace(trace, jobs=jobs, names=tuple(names[i] for i in order))


def moved(trace: Trace, seed: int) -> Trace:
    """Every submission up to a minute later."""
    jobs = trace.jobs.copy()
    jobs["submit_ms"] += np.random.default_rng([seed, 11]).integers(0, 60_000, len(jobs))
    return changed(trace, jobs)


def part(trace: Trace, i: int, of: int) -> Trace:
    """The i-th of so many parts, by number of jobs."""
    kept = np.arange(len(trace.jobs)) * of // len(trace.jobs) == i
    return changed(trace, trace.jobs[kept], kept)


def slower(trace: Trace, factor: float) -> Trace:
    """The same jobs over so many times the time."""
    jobs = trace.jobs.copy()
    jobs["submit_ms"] = np.rint(jobs["submit_ms"] * factor)
    return replace(trace, jobs=jobs)


def made(seed: int, rigid: bool, devices: int, **wanted: Any) -> Trace:
    """A generated trace. Users of rigid jobs say up to ten times of what they will take."""
    found = generate(Wanted(jobs=6000, devices=devices, seed=seed, **wanted))
    assert isinstance(found, Trace)
    if rigid:
        says = np.random.default_rng([seed, 12]).uniform(1, 10, len(found.jobs))
        found.jobs["preemptible"] = 0
        found.jobs["estimate_ms"] = np.ceil(found.jobs["run_ms"] * says / 600_000) * 600_000
    return found


def rigid_members() -> Iterator[Member]:
    site, kth = loaded(*KTH, "100x1")
    wide, lublin = loaded(*LUBLIN, "256x1")
    yield Member("kth", True, True, site, kth)
    for seed in range(6):
        yield Member(f"kth moved {seed}", True, seed % 2 == 0, site, moved(kth, seed))
    for seed in range(1, 9):
        yield Member(f"kth redrawn {seed}", True, seed % 2 == 0, site, drawn(kth, seed))
    for i in range(4):
        yield Member(f"kth quarter {i}", True, i % 2 == 0, site, part(kth, i, 4))
    for i, size in enumerate((92, 96, 104, 110)):
        yield Member(f"kth on {size}", True, i % 2 == 0, cluster(f"{size}x1"), kth)
    for i, factor in enumerate((1.2, 1.3, 1.4, 1.6)):
        yield Member(f"lublin / {factor}", True, i % 2 == 0, wide, slower(lublin, factor))
    for i, mix in enumerate(("training", "research", "training", "research")):
        trace = made(20 + i, True, 128, mix=mix, load=0.7, arrivals=("daily", "bursts")[i // 2])
        yield Member(f"{mix} {i}", True, i % 2 == 0, cluster("128x1"), trace)


def preemptible_members() -> Iterator[Member]:
    site, philly = loaded(*PHILLY, "80x8")
    small, pai = loaded(*PAI, "18x8")
    yield Member("philly", False, True, site, philly)
    for i in range(4):
        yield Member(f"philly quarter {i}", False, i % 2 == 0, site, part(philly, i, 4))
    for seed in (1, 2):
        yield Member(f"philly redrawn {seed}", False, seed == 2, site, drawn(philly, seed))
    for i in range(4):
        yield Member(f"pai quarter {i}", False, i % 2 == 0, small, part(pai, i, 4))
    for i, mix in enumerate(("training", "research", "shared", "large") * 2):
        how = {"load": 0.9, "arrivals": ("daily", "bursts")[i // 4]}
        trace = made(40 + i, False, 128, mix=mix, **how)
        yield Member(f"{mix} {how['arrivals']}", False, i // 2 % 2 == 0, cluster("16x8"), trace)


def figures(member: Member, policy: PolicyParts, predict: str | None) -> dict[str, Any]:
    settings = Settings(policy, predict)
    return summary(simulate(member.site, member.trace, settings, time.process_time))


def base(member: Member) -> dict[str, Any]:
    parts = named("easy" if member.rigid else "sjf")
    assert isinstance(parts, PolicyParts)
    return figures(member, parts, "user" if member.rigid else "oracle")


def policy(text: str) -> tuple[PolicyParts, str | None]:
    """`name` or `name:part=value,...`; lists have + between their parts."""
    name, _, rest = text.partition(":")
    given: dict[str, Any] = {"base": name}
    predict = None
    for pair in filter(None, rest.split(",")):
        key, value = pair.split("=")
        if key == "predict":
            predict = value
            continue
        given[key] = _read(value)
    found = from_mapping(given, text)
    assert isinstance(found, PolicyParts), found
    return found, predict


def _read(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value.split("+") if "+" in value else value


def compared(found: dict[str, Any], basis: dict[str, Any], rigid: bool) -> dict[str, float]:
    """The member's figures in parts of those of its base."""
    main = "avg_bounded_slowdown" if rigid else "avg_jct_s"
    names = {"ratio": main, "p999": "p999_wait_s", "longest": "max_wait_s"}
    row = {key: float(found[name]) / max(float(basis[name]), 1.0) for key, name in names.items()}
    return row | {"value": float(found[main])}


def told(text: str, rows: dict[str, dict[str, float]], members: list[Member]) -> None:
    """One line per kind of member and half of the ensemble."""
    for rigid in (True, False):
        for tuned in (True, False):
            mine = [rows[m.name] for m in members if (m.rigid, m.tuned) == (rigid, tuned)]
            if mine:
                print(json.dumps(_line(text, rigid, tuned, mine)), flush=True)


def _line(text: str, rigid: bool, tuned: bool, mine: list[dict[str, float]]) -> dict[str, Any]:
    ratios = np.array([row["ratio"] for row in mine])
    return {
        "policy": text,
        "jobs": "rigid" if rigid else "preemptible",
        "half": "tuned" if tuned else "held out",
        "members": len(mine),
        "ratio": round(float(np.exp(np.log(ratios).mean())), 4),  # geometric mean
        "worst": round(float(ratios.max()), 3),
        "mean": round(float(np.mean([row["value"] for row in mine])), 2),
        **{
            f"{key}_{name}": round(float(how([row[key] for row in mine])), 2)
            for key in ("p999", "longest")
            for name, how in (("median", np.median), ("worst", np.max))
        },
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--policies", nargs="*", default=["dusuan", "easy", "sjf-backfill", "las"])
    options.add_argument("--kinds", nargs="*", default=["rigid", "preemptible"])
    options.add_argument("--only", default="", help="members with this in their names")
    options.add_argument("--each", action="store_true", help="a line for each member too")
    chosen = options.parse_args()
    members = [*rigid_members()] if "rigid" in chosen.kinds else []
    members += [*preemptible_members()] if "preemptible" in chosen.kinds else []
    members = [m for m in members if chosen.only in m.name]
    bases = {m.name: base(m) for m in members}
    for text in chosen.policies:
        parts, predict = policy(text)
        rows = {
            m.name: compared(figures(m, parts, predict), bases[m.name], m.rigid) for m in members
        }
        for name, row in rows.items() if chosen.each else ():
            print(json.dumps({"policy": text, "trace": name} | row), flush=True)
        told(text, rows, members)


if __name__ == "__main__":
    main()
