"""Checks a log of decisions, line by line, knowing nothing but the log and the nodes' sizes."""

from __future__ import annotations

from bisect import bisect_right
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
    moments: list[int] = field(default_factory=list)  # at which something happened

    def read(self, log: Iterable[dict[str, Any]]) -> Checker:
        """The whole log; fails at the first line that cannot be."""
        for line in log:
            assert line["time_ms"] >= self.now, "time does not go back"
            if line["time_ms"] > self.now:
                self.all_gangs_whole()
                self.moments.append(line["time_ms"])
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


@dataclass(frozen=True)
class Wait:
    """One wait of a job, and what became of it. Milliseconds."""

    since: int
    start: int
    name: str
    older: int  # jobs that had waited longer when it became overdue
    first: int  # the first moment after nobody had waited longer, and it was overdue


def waits(checker: Checker, overdue_ms: int) -> list[Wait]:
    """Every wait that a start ended, oldest first."""
    spans = sorted(
        (start - wait, start, name)
        for name, job in checker.jobs.items()
        for start, wait in zip(job.starts, job.waits, strict=True)
    )
    found = []
    for i, (since, start, name) in enumerate(spans):
        late = since + overdue_ms
        ahead = [other for _, other, _ in spans[:i] if other > late]
        next_one = bisect_right(checker.moments, max([late, *ahead]))
        first = checker.moments[min(next_one, len(checker.moments) - 1)]
        found.append(Wait(since, start, name, len(ahead), first))
    return found


def passed_over(checker: Checker, overdue_ms: int, gate_ms: int) -> list[str]:
    """Jobs that had been first for `gate_ms`, and were passed all the same by a younger one."""
    found = waits(checker, overdue_ms)
    return [
        f"{one.name} was passed by {other.name} at {other.start}"
        for one in found
        for other in found
        if one.first + gate_ms < other.start < one.start and other.since > one.since
    ]


def beyond_bound(checker: Checker, overdue_ms: int, gate_ms: int) -> list[str]:
    """Jobs that waited for longer than docs/scheduling.md says a job can."""
    longest = max(job.asked["run_ms"] for job in checker.jobs.values())
    return [
        one.name
        for one in waits(checker, overdue_ms)
        if one.start - one.since > overdue_ms + (one.older + 1) * (gate_ms + 2 * longest)
    ]
