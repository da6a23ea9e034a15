"""The scheduler on public traces: waits, slowdowns, completion times and speed; JSON lines.

The traces are found through `DUSUAN_SHARED` or in `shared` beside the checkout. Placement, quota
and fair share have rows of their own: `bench/placement.py`, which `--all` runs too.

    python bench/scheduling.py [--repeats 3] [--all]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from dusuan.core.scheduling.policy import PolicyParts, named
from dusuan.core.workload.jobspec import Problem
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


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--all", action="store_true", help="placement, quota and share too")
    options.add_argument("--traces", nargs="*", default=list(ROWS))
    chosen = options.parse_args()
    compile_row()
    for name in chosen.traces:
        file, form, cluster, policies = ROWS[name]
        given = loaded(file, form, cluster)
        for policy, predict in policies:
            run(name, policy, predict, chosen.repeats, given)
    if chosen.all:
        other = Path(__file__).with_name("placement.py")
        subprocess.run([sys.executable, str(other)], check=True)


if __name__ == "__main__":
    main()
