"""Checks a log of decisions, line by line, knowing nothing but the log and the nodes' sizes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

WHOLE = 1_000


@dataclass
class Seen:
    """What is known of one job."""

    asked: dict[str, Any]
    since: int
    waiting: bool = True
    parts: list[tuple[int, list[int], int]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ended: int | None = None
    promised: int | None = None
    waits: list[int] = field(default_factory=list)


@dataclass
class Checker:
    """Reads a log. `gpus[n]`: devices of node n."""

    gpus: Sequence[int]
    jobs: dict[str, Seen] = field(default_factory=dict)
    held: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))
    broken: set[tuple[int, int]] = field(default_factory=set)
    now: int = 0

    def read(self, log: Iterable[dict[str, Any]]) -> Checker:
        """The whole log; fails at the first line that cannot be."""
        for line in log:
            assert line["time_ms"] >= self.now, "time does not go back"
            if line["time_ms"] > self.now:
                self.all_gangs_whole()
            self.now = line["time_ms"]
            getattr(self, line["kind"])(line)
        self.all_gangs_whole()
        return self

    def submit(self, line: dict[str, Any]) -> None:
        assert line["job"] not in self.jobs
        self.jobs[line["job"]] = Seen(line, self.now)

    def reject(self, line: dict[str, Any]) -> None:
        assert line["job"] not in self.jobs
        assert line["devices"] > sum(self.gpus) or line["milli"] < WHOLE

    def start(self, line: dict[str, Any]) -> None:
        job = self.jobs[line["job"]]
        if job.waiting:
            job.waiting, job.parts = False, []
            job.starts.append(self.now)
            job.waits.append(self.now - job.since)
        assert job.starts[-1] == self.now, "all of a job starts at one moment"
        assert line["milli"] == job.asked["milli"]
        job.parts.append((line["node"], line["devices"], line["milli"]))
        for device in line["devices"]:
            place = (line["node"], device)
            assert device < self.gpus[line["node"]]
            assert place not in self.broken
            assert (line["node"], -1) not in self.broken
            self.held[place] += line["milli"]
            assert self.held[place] <= WHOLE, f"{place} is held twice"

    def all_gangs_whole(self) -> None:
        for job in self.jobs.values():
            if not job.waiting and job.ended is None and job.starts[-1] == self.now:
                got = sum(len(devices) for _, devices, _ in job.parts)
                if len(job.parts) == 1:
                    assert got == job.asked["devices"]
                else:
                    assert got >= job.asked["devices"]
                    assert all(len(devices) == self.gpus[n] for n, devices, _ in job.parts)

    def _stop(self, line: dict[str, Any]) -> Seen:
        job = self.jobs[line["job"]]
        assert not job.waiting and job.ended is None
        for node, devices, milli in job.parts:
            for device in devices:
                self.held[node, device] -= milli
        job.parts = []
        return job

    def end(self, line: dict[str, Any]) -> None:
        job = self._stop(line)
        job.ended = self.now
        if len(job.starts) == 1 and job.asked["rating_gflops"] == 0:
            assert self.now - job.starts[0] == job.asked["run_ms"]

    def preempt(self, line: dict[str, Any]) -> None:
        job = self._stop(line)
        assert job.asked["preemptible"]
        assert line["for"] != line["job"]
        job.waiting, job.since = True, self.now

    def lost(self, line: dict[str, Any]) -> None:
        job = self._stop(line)
        job.waiting, job.since = True, self.now

    def down(self, line: dict[str, Any]) -> None:
        self.broken.add((line["node"], line["device"]))

    def up(self, line: dict[str, Any]) -> None:
        self.broken.discard((line["node"], line["device"]))

    def reserve(self, line: dict[str, Any]) -> None:
        job = self.jobs[line["job"]]
        job.promised = line["expected_ms"]

    def all_ended(self) -> None:
        assert all(job.ended is not None for job in self.jobs.values())
        assert not any(self.held.values())


def passed_over(checker: Checker, gate_ms: int) -> list[str]:
    """Jobs that waited `gate_ms` and were then passed by one that came after them.

    For nodes of one type. By starts and waits alone: a job that waited so long may be passed only
    by those who wait longer still.
    """
    spans = sorted(
        (start - wait, start, name)
        for name, job in checker.jobs.items()
        for start, wait in zip(job.starts, job.waits, strict=True)
    )
    wronged = []
    starts = sorted((start, since, name) for since, start, name in spans)
    for since, start, name in spans:
        if start - since <= gate_ms:
            continue
        for moment, other_since, other in starts:
            if since + gate_ms < moment < start and other_since > since and other != name:
                wronged.append(f"{name} was passed by {other} at {moment}")
                break
    return wronged


def longest_wait_ms(checker: Checker, gate_ms: int) -> float:
    """The bound of docs/scheduling.md on any wait: the gate, the longest run, and the work ahead.

    Of all jobs, since more cannot be ahead; for devices that are nodes of their own.
    """
    jobs = [job.asked for job in checker.jobs.values()]
    longest = max(asked["run_ms"] for asked in jobs)
    largest = max(asked["devices"] for asked in jobs)
    busy = sum(checker.gpus) - largest + 1
    ahead = 0
    for job in checker.jobs.values():
        if job.waits and max(job.waits) >= gate_ms:
            ahead += job.asked["devices"] * job.asked["run_ms"]
    running = longest * sum(checker.gpus)
    return gate_ms + longest + (ahead + running) / busy
