"""A recorded log of live rounds as a workload: who came, what was asked for, how long it ran.

What the log does not know is said in notes: jobs that had not ended, or not begun, when it ends.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dusuan.core.plain import NotPlain, from_plain
from dusuan.core.scheduling.arrays import WHOLE, Records, nodes_array
from dusuan.core.scheduling.live import Placed, Sight, Waiting
from dusuan.core.scheduling.model import TIERS, UNKNOWN, DeviceSlot, Share
from dusuan.core.scheduling.record import Entry
from dusuan.core.scheduling.scene import accounts_of
from dusuan.core.workload.jobspec import Problem
from dusuan.sim.files import BadTraceError, Rows, open_text, understood
from dusuan.sim.rounds import AGAIN, entries, is_header
from dusuan.sim.trace import LEAF_NODES, PLENTY, Rate, Site

ANY = (1 << 62) - 1  # every model
COLUMNS = ("milli", "types", "tier", "priority", "preemptible")


@dataclass(slots=True)
class _Job:
    """One job. `ran_ms`: work that is not lost; `since_ms`: it has devices since then."""

    name: str
    submit_ms: int
    devices: int
    estimate_ms: int = UNKNOWN
    expected_ms: int = UNKNOWN
    owner: str = ""
    tier: str = TIERS[1]
    priority: int = 0
    model: str | None = None
    saves: bool = False
    ran_ms: int = 0
    since_ms: int | None = None
    gone: bool = False


@dataclass(slots=True)
class _Book:
    """All jobs of a log, in the order in which they were seen first."""

    jobs: dict[str, _Job] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)  # nobody saw when they ended
    end_ms: int = 0

    def take(self, entry: Entry) -> None:
        """One more round."""
        anew = entry.whole if entry.fresh or not self.end_ms else None
        if anew is not None:
            self._begin_anew(anew, self.end_ms or entry.at_ms)
        else:
            for name, left in entry.left.items():
                self._leave(name, left.ran_ms, left.to)
        for each in anew.waiting if anew else _newly_waiting(entry):
            self._wait(each)
        for start in entry.moves.starts:
            self.jobs[start.job_id].since_ms = entry.at_ms
        self.end_ms = entry.at_ms

    def _wait(self, each: Waiting) -> None:
        job, ask = each.job, each.job.request
        if job.job_id in self.jobs:
            return
        self.jobs[job.job_id] = _Job(
            job.job_id,
            job.waits_since_ms,
            ask.count,
            job.limit_ms,
            job.expected_ms,
            owner=job.owner,
            tier=job.tier,
            priority=job.priority,
            model=ask.model,
            saves=each.saves,
        )

    def _leave(self, name: str, ran_ms: int | None, to: str) -> None:
        job = self.jobs[name]
        if ran_ms is not None:
            job.ran_ms = ran_ms + (job.ran_ms if job.saves else 0)
        job.since_ms, job.gone = None, to != "queued"

    def _begin_anew(self, seen: Sight, until_ms: int) -> None:
        """What happened before is unknown: who ran and does not any more ended in between."""
        there = {each.job.job_id: each for each in seen.placed}
        for name, job in self.jobs.items():
            if job.since_ms is not None and name not in there:
                self._leave(name, max(until_ms - job.since_ms, 0), "ended")
                self.cut.add(name)
        for name, each in there.items():
            self._run(name, each)

    def _run(self, name: str, each: Placed) -> None:
        job = each.job
        if name not in self.jobs:
            more = (job.limit_ms, job.expected_ms, job.owner, job.tier)
            self.jobs[name] = _Job(name, job.since_ms, len(job.devices), *more, saves=each.saves)
        self.jobs[name].since_ms = job.since_ms

    def close(self) -> None:
        """The end of the log: what still runs ran until now, or as long as was expected."""
        for name, job in self.jobs.items():
            if job.since_ms is not None:
                self._leave(name, max(self.end_ms - job.since_ms, job.expected_ms, 1), "running")
                self.cut.add(name)


def _newly_waiting(entry: Entry) -> Sequence[Waiting]:
    change: Any = entry.seen.get("waiting", {})
    found: tuple[Waiting, ...] = from_plain(tuple[Waiting, ...], change.get("new", []), "waiting")
    return found


def is_record(path: Path) -> bool:
    """Whether the file begins like a record of live rounds."""
    try:
        with open_text(path) as lines:
            return is_header(json.loads(lines.readline()))
    except (ValueError, OSError, EOFError, RecursionError, zlib.error):
        return False  # whoever reads it on says what is wrong


def workload(path: Path, models: Sequence[str]) -> Rows:
    """The jobs of a record. `models`: the cluster's; a job that names another may have any."""
    book = _read(path)
    rows = Rows(preemptible=False, extra={name: [] for name in COLUMNS})
    unknown = cancelled = 0
    for job in book.jobs.values():
        if job.ran_ms == 0 and job.gone:
            cancelled += 1
        elif (ran_ms := job.ran_ms or job.expected_ms) <= 0:
            unknown += 1
        else:
            _add(rows, job, ran_ms, models)
    waited = sum(
        not job.ran_ms and not job.gone and job.expected_ms > 0 for job in book.jobs.values()
    )
    rows.notes += _notes(len(book.cut), waited, unknown, cancelled)
    return rows


def _read(path: Path) -> _Book:
    book = _Book()
    for number, entry in entries(path):
        try:
            book.take(entry)
        except (NotPlain, AttributeError, KeyError) as wrong:
            words = f"{path}, line {number} does not fit what stands before it: {wrong}"
            raise BadTraceError("gap", words, number, AGAIN) from None
    book.close()
    return book


def _add(rows: Rows, job: _Job, ran_ms: int, models: Sequence[str]) -> None:
    late = job.estimate_ms / 1000 if job.estimate_ms > 0 else -1.0
    who = {"user": job.owner, "account": job.owner}
    rows.add(job.name, job.submit_ms / 1000, ran_ms / 1000, job.devices, estimate=late, **who)
    types = 1 << models.index(job.model) if job.model in models else ANY
    may_stop = int(job.tier == "spot" or job.saves)
    values = (WHOLE, types, TIERS.index(job.tier), job.priority, may_stop)
    for name, value in zip(COLUMNS, values, strict=True):
        rows.extra[name].append(value)


def _notes(cut: int, waited: int, unknown: int, cancelled: int) -> list[str]:
    """What the log does not know of its jobs."""
    notes = (
        (
            cut,
            "had not ended when the log ends, or unseen: they are as long as was seen or expected",
        ),
        (waited, "had not begun: they are as long as was expected"),
        (unknown, "had not begun, and nobody expected how long they take: they are left out"),
        (cancelled, "ended without having run: they are left out"),
    )
    return [f"{count} jobs {words}" for count, words in notes if count]


# --- the accounts and the cluster -----------------------------------------------------------------


def site(path: Path, rate: Rate) -> Site | Problem:
    """The cluster as the log saw it first. `rate` knows what a model draws, if it does."""
    return understood(path, lambda: _site(_first(path).pool.devices, rate))


def accounts(path: Path, names: Sequence[str]) -> Records | Problem:
    """ACCOUNT[A]: those of `names` first, then others above them, as the log saw them first.

    Whom the log did not know then has no limits. What accounts had used before is not taken over.
    """
    return understood(path, lambda: accounts_of(_shares(_first(path).pool.shares, names)))


def _shares(seen: Sequence[Share], names: Sequence[str]) -> list[Share]:
    others = {share.account: share for share in seen}
    return [*(others.pop(name, Share(name)) for name in names), *others.values()]


def _first(path: Path) -> Sight:
    for _, entry in entries(path):
        if entry.whole is not None:
            return entry.whole
    raise BadTraceError("no_rounds", f"{path} holds no round", None, AGAIN)


def _site(devices: Iterable[DeviceSlot], rate: Rate) -> Site:
    groups: dict[tuple[str, str], list[DeviceSlot]] = {}
    for device in devices:
        groups.setdefault((device.node, device.model), []).append(device)
    models = tuple(sorted({model for _, model in groups}))
    nodes = nodes_array(len(groups))
    nodes["gpus"] = [len(group) for group in groups.values()]
    nodes["type"] = [models.index(model) for _, model in groups]
    nodes["cpu_milli"] = nodes["memory_mib"] = PLENTY
    nodes["leaf"] = np.arange(len(nodes)) // LEAF_NODES
    rated = {
        m: max(d.gflops for (_, of), g in groups.items() if of == m for d in g) for m in models
    }
    known = [rate(model) for model in models]
    watts = tuple(0.0 if isinstance(each, Problem) else each.watts for each in known)
    names = tuple(node for node, _ in groups)
    return Site(nodes, models, np.array([rated[m] for m in models], np.int64), watts, names)
