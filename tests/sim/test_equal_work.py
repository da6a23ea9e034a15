"""Jobs that ask for work instead of devices: as many of each type as make it up.

The checker knows the ratings of the nodes and the log, and works the counts out anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sim.checker import Checker

from dusuan.core.scheduling.arrays import Records, jobs_array, nodes_array
from dusuan.core.scheduling.policy import PolicyParts, named
from dusuan.core.workload.jobspec import Problem
from dusuan.sim.journal import entries
from dusuan.sim.readers import read
from dusuan.sim.run import Outcome, Settings, simulate
from dusuan.sim.summary import summary
from dusuan.sim.trace import Site, Trace

SLOW, FAST = 100_000, 300_000  # GFLOPS
HOUR_MS = 3_600_000


def site(nodes: Sequence[tuple[int, int]], ratings: Sequence[int] = (SLOW, FAST)) -> Site:
    """Nodes as (type, devices)."""
    found = nodes_array(len(nodes))
    found["type"], found["gpus"] = np.array(nodes).T
    found["cpu_milli"] = found["memory_mib"] = 1 << 40
    return Site(found, tuple(f"m{t}" for t in range(len(ratings))), np.array(ratings))


def asking(count: int, gflops: int, devices: int) -> Records:
    """Jobs that take an hour on `devices` slow devices, or on as many others as make them up."""
    jobs = jobs_array(count)
    jobs["run_ms"] = jobs["estimate_ms"] = HOUR_MS
    jobs["rating_gflops"], jobs["gflops"], jobs["devices"] = SLOW, gflops, devices
    return jobs


def run(where: Site, jobs: Records, policy: str = "fcfs") -> Outcome:
    parts = named(policy)
    assert isinstance(parts, PolicyParts)
    trace = Trace(jobs, tuple(f"j{i}" for i in range(len(jobs))))
    return simulate(where, trace, Settings(parts, log=True), lambda: 0.0)


def starts(outcome: Outcome) -> list[tuple[str, int, int]]:
    """Who got how many devices of which node."""
    return [
        (line["job"], line["node"], len(line["devices"]))
        for line in entries(outcome)
        if line["kind"] == "start"
    ]


def test_of_each_type_as_many_as_make_up_the_work() -> None:
    outcome = run(site([(0, 8), (1, 4)]), asking(3, 8 * SLOW, 8))
    assert starts(outcome) == [("j0", 1, 3), ("j1", 0, 8), ("j2", 1, 3)]
    ended = outcome.state.jobs["end_ms"].tolist()
    three = HOUR_MS * 8 * SLOW // (3 * FAST)  # three fast ones do a little more than eight
    assert ended == [three, HOUR_MS, 2 * three]
    found = summary(outcome)
    held_s = (2 * 3 * three + 8 * HOUR_MS) / 1000
    room_s = 12 * 2 * three / 1000
    assert found["allocation"] == found["utilisation"] == pytest.approx(held_s / room_s, abs=1e-6)


def test_without_work_the_same_count_of_every_type() -> None:
    outcome = run(site([(0, 8), (1, 8)]), asking(2, 0, 8))
    assert starts(outcome) == [("j0", 1, 8), ("j1", 0, 8)]
    assert outcome.state.jobs["end_ms"].tolist() == [HOUR_MS // 3, HOUR_MS]


def test_a_gang_takes_whole_nodes_of_a_type_that_has_enough() -> None:
    # 32 slow devices, more than there are, or 11 fast ones: two nodes of eight.
    outcome = run(site([(0, 8), (0, 8), (1, 8), (1, 8)]), asking(1, 32 * SLOW, 32))
    assert starts(outcome) == [("j0", 2, 8), ("j0", 3, 8)]


def test_what_no_type_can_do_is_rejected() -> None:
    outcome = run(site([(0, 8), (1, 8)]), asking(1, 25 * SLOW, 25))
    assert (starts(outcome), summary(outcome)["jobs_rejected"]) == ([], 1)


def test_a_type_without_a_rating_gives_the_named_count() -> None:
    outcome = run(site([(0, 8)], (0,)), asking(1, 8 * SLOW, 5))
    assert starts(outcome) == [("j0", 0, 5)]


def test_room_is_made_for_as_many_as_it_takes() -> None:
    jobs = asking(9, SLOW, 1)
    jobs["tier"], jobs["preemptible"] = 2, 1
    jobs["tier"][8], jobs["gflops"][8], jobs["devices"][8] = 0, 12 * SLOW, 12
    jobs["submit_ms"][8] = 16 * 60_000  # they are not protected any more, and not done
    outcome = run(site([(1, 8)]), jobs, "dusuan")  # 12 slow ones are four of the eight here
    lines = list(entries(outcome))
    stopped = [line for line in lines if line["kind"] == "preempt"]
    assert len(stopped) == 4 and {line["for"] for line in stopped} == {"j8"}
    assert ("j8", 0, 4) in starts(outcome)


def test_a_journal_names_the_work(tmp_path: Path) -> None:
    asked = {"kind": "submit", "job": "a", "submit_ms": 0, "run_ms": HOUR_MS, "devices": 8}
    path = tmp_path / "log"
    path.write_text(json.dumps({**asked, "gflops": 8 * SLOW, "rating_gflops": SLOW}) + "\n")
    trace = read(path, "journal")
    assert isinstance(trace, Trace)
    assert starts(run(site([(1, 8)]), trace.jobs)) == [("j0", 0, 3)]
    path.write_text(json.dumps({**asked, "gflops": "many"}) + "\n")
    assert isinstance(read(path, "journal"), Problem)


@dataclass
class ByWork(Checker):
    """Knows what every node is rated."""

    ratings: Sequence[int] = ()

    def needed(self, asked: dict[str, Any], node: int) -> int:
        rating = self.ratings[node]
        if asked["gflops"] == 0 or rating == 0:
            return int(asked["devices"])
        return math.ceil(asked["gflops"] / rating)

    def reject(self, line: dict[str, Any]) -> None:
        for rating in set(self.ratings):
            mine = [n for n, each in enumerate(self.ratings) if each == rating]
            assert self.needed(line, mine[0]) > sum(self.gpus[n] for n in mine)

    def all_gangs_whole(self) -> None:
        for job in self.jobs.values():
            if not job.waiting and job.ended is None and job.starts[-1] == self.now:
                nodes = [n for n, _, _ in job.parts]
                got = sum(len(devices) for _, devices, _ in job.parts)
                needed = self.needed(job.asked, nodes[0])
                assert len({self.ratings[n] for n in nodes}) == 1
                if len(nodes) == 1 and needed <= self.gpus[nodes[0]]:
                    assert got == needed
                else:
                    assert needed <= got < needed + self.gpus[nodes[-1]]
                    assert all(len(devices) == self.gpus[n] for n, devices, _ in job.parts)

    def end(self, line: dict[str, Any]) -> None:
        job = self.jobs[line["job"]]
        node, once = job.parts[0][0], len(job.starts) == 1
        super().end(line | {"kind": "end"})
        if once and job.asked["gflops"] and self.ratings[node]:
            # No shorter than the work takes, and no longer than with one device less.
            took, count = self.now - job.starts[0], self.needed(job.asked, node)
            work = job.asked["run_ms"] * job.asked["devices"] * job.asked["rating_gflops"]
            speed = count * self.ratings[node] / job.asked["devices"]
            assert took >= math.floor(work / (count * self.ratings[node]))
            assert took <= math.ceil(work / (math.floor(speed) * job.asked["devices"]))


JOBS = st.lists(
    st.tuples(
        st.integers(0, 40),  # minutes until it comes
        st.integers(1, 120),  # minutes
        st.integers(1, 20),  # devices
        st.booleans(),  # by work
        st.integers(0, 2),  # tier
        st.booleans(),  # preemptible
        st.sampled_from([0b01, 0b10, 0b11, 0b111]),
    ),
    min_size=1,
    max_size=40,
)
POLICIES = ("fcfs", "easy", "conservative", "sjf-backfill", "las", "srtf", "fair", "dusuan")


@given(
    JOBS,
    st.sampled_from(POLICIES),
    st.sampled_from([(SLOW, FAST, 170_001), (SLOW, 0, FAST), (SLOW, SLOW, SLOW)]),
    st.sampled_from([[(0, 8), (0, 8), (1, 4), (2, 8)], [(0, 4), (1, 8), (1, 8)], [(0, 1)] * 9]),
)
@settings(max_examples=150, deadline=None)
def test_any_mix_is_placed_by_work(
    rows: list[Any], policy: str, ratings: tuple[int, ...], nodes: list[tuple[int, int]]
) -> None:
    jobs = jobs_array(len(rows))
    for job, (come, minutes, devices, by_work, tier, stoppable, types) in zip(
        jobs, sorted(rows), strict=True
    ):
        job["submit_ms"], job["run_ms"] = come * 60_000, minutes * 60_000
        job["estimate_ms"], job["devices"], job["tier"] = 2 * job["run_ms"], devices, tier
        job["rating_gflops"], job["gflops"] = SLOW, by_work * devices * SLOW
        job["preemptible"], job["types"] = stoppable, types
    where = site(nodes, ratings)
    outcome = run(where, jobs, policy)
    rated = [ratings[t] for t, _ in nodes]
    log = [line for line in entries(outcome) if line["kind"] != "reject"]
    ByWork([g for _, g in nodes], ratings=rated).read(log).all_ended()
