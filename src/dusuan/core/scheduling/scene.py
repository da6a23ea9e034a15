"""A snapshot laid out as arrays for the compiled round, with the names of what they number.

A node of the arrays holds the usable devices of one model on one host. Everything is laid out
column by column: a hundred thousand devices are too many to be looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, compress, repeat
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling import arrays
from dusuan.core.scheduling.accounts import accounts_array
from dusuan.core.scheduling.arrays import Integers, Records
from dusuan.core.scheduling.decide import Decision, Part, decide, fill_queue, occupy_all
from dusuan.core.scheduling.fairness import weight_of_use
from dusuan.core.scheduling.model import (
    TIERS,
    UNKNOWN,
    Cluster,
    QueuedJob,
    Request,
    RunningJob,
    Share,
)
from dusuan.core.scheduling.policy import PolicyParts, rules
from dusuan.core.scheduling.pool import Flags, Pool, in_order
from dusuan.core.scheduling.remembered import Table
from dusuan.core.scheduling.state import new_state

_RUNS_ON_MS = 5 * 365 * 86_400_000  # half of what the rules take for an unknown run time


@dataclass(frozen=True, slots=True)
class Queue:
    """Jobs that wait, in the order of their submission, and what they ask for.

    Many ask alike: `kinds[i]` says which of the `requests` job i makes.
    """

    jobs: tuple[QueuedJob, ...]
    requests: tuple[Request, ...]
    kinds: list[int]

    @classmethod
    def of(cls, jobs: Iterable[QueuedJob]) -> Queue:
        """The queue of `jobs` in any order."""
        queue, number = tuple(sorted(jobs, key=attrgetter("order"))), dict[Request, int]()
        kinds = [number.setdefault(job.request, len(number)) for job in queue]
        return cls(queue, tuple(number), kinds)

    def only(self, flags: Sequence[bool]) -> Queue:
        """Those of the jobs that the flags say."""
        if all(flags):
            return self
        jobs, kinds = compress(self.jobs, flags), compress(self.kinds, flags)
        return Queue(tuple(jobs), self.requests, list(kinds))


@dataclass(frozen=True)
class Scene:
    """Who runs and who waits: `running`, then those in `line`, are the jobs of the arrays."""

    pool: Pool
    running: tuple[RunningJob, ...]
    line: Queue
    runs: Records  # RUNS of `running`
    asks: Records  # ASKS of `line`
    shares: tuple[Share, ...]
    preempted_last_hour: int

    @classmethod
    def of(cls, cluster: Cluster, pool: Pool, line: Queue) -> Scene:
        """`line` are the jobs that might start."""
        running = (*cluster.running, *_strangers(cluster, pool))
        table: Table = pool.once("running", lambda: Table(partial(_runs, pool.place)))
        runs, asks = table.of(running), _ASKING.of(line.jobs)
        owners = chain(runs["owner"].tolist(), asks["owner"].tolist())
        shares = _with_owners(cluster.shares, owners)
        return cls(pool, running, line, runs, asks, shares, cluster.preempted_last_hour)

    @property
    def queue(self) -> tuple[QueuedJob, ...]:
        """The jobs that might start."""
        return self.line.jobs

    @cached_property
    def jobs(self) -> tuple[RunningJob | QueuedJob, ...]:
        """Jobs by their number in the arrays."""
        return (*self.running, *self.queue)

    @cached_property
    def layout(self) -> Layout:
        """Where the usable devices are."""
        found: Layout = self.pool.once("layout", lambda: Layout.of(self.pool))
        return found

    def decide(self, policy: PolicyParts, now_ms: int) -> Decision:
        """One round of the compiled rules."""
        book, here = rules(policy), self.layout
        state = new_state(here.nodes(), here.ratings, self._jobs(now_ms), accounts_of(self.shares))
        self._set_use(state, int(book["half_life_ms"][0]), now_ms)
        occupy_all(state, book, self._parts(), self.runs["since_ms"].copy())
        state.values["preempt_from_ms"] = now_ms
        state.values["preempt_count"] = self.preempted_last_hour
        fill_queue(state, book, now_ms)
        return decide(state, book, now_ms)

    def names(self, parts: Iterable[Part]) -> tuple[str, ...]:
        """The devices of a placement."""
        named = self.layout.named
        return tuple(named[part.node][i] for part in parts for i in part.devices)

    @cached_property
    def _places(self) -> Integers:
        """Where the devices of running jobs are, one job after the other; -1: nowhere."""
        places = chain.from_iterable(self.runs["places"].tolist())
        return np.fromiter(places, np.int64, int(self.runs["devices"].sum()))

    @property
    def held(self) -> Flags:
        """[D] whether somebody has the device, or is promised it."""
        held = np.zeros(len(self.pool.names), bool)
        held[self._places[self._places >= 0]] = True
        return held

    def _parts(self) -> Records:
        """What running jobs hold of each node, HOLDING in the order of the jobs."""
        here, device = self.layout, self._places
        job = np.repeat(np.arange(len(self.running)), self.runs["devices"])
        known = (device >= 0) & self.pool.usable[device] if len(device) else device >= 0
        device, job = device[known], job[known]
        key, part = np.unique(
            job * max(len(here.sizes), 1) + here.node[device], return_inverse=True
        )
        parts = np.zeros(len(key), arrays.HOLDING)
        parts["job"], parts["node"] = np.divmod(key, max(len(here.sizes), 1))
        np.bitwise_or.at(parts["devices"], part, np.uint64(1) << here.index[device])
        parts["milli"] = arrays.WHOLE
        return parts

    def _jobs(self, now_ms: int) -> Records:
        """Running jobs first, in the state in which they are to be put where they run."""
        jobs = arrays.jobs_array(len(self.jobs))
        account = {share.account: i for i, share in enumerate(self.shares)}
        running, waiting = jobs[: len(self.running)], jobs[len(self.running) :]
        for part, of in ((running, self.runs), (waiting, self.asks)):
            for name in ("estimate_ms", "predicted_ms", "preemptible", "tier"):
                part[name] = of[name]
            part["account"] = list(map(account.__getitem__, of["owner"].tolist()))
        self._fill_running(running)
        self._fill_queue(waiting, now_ms)
        return jobs

    def _fill_running(self, jobs: Records) -> None:
        """Whoever runs for nobody knows how long ends before whoever would: none overtakes a gang
        by that."""
        unknown = (jobs["predicted_ms"] < 0) & (jobs["estimate_ms"] < 0)
        jobs["predicted_ms"][unknown] = _RUNS_ON_MS
        jobs["devices"] = np.maximum(self.runs["devices"], 1)
        jobs["submit_ms"] = self.runs["since_ms"]

    def _fill_queue(self, jobs: Records, now_ms: int) -> None:
        asked, kinds = self.line.requests, np.array(self.line.kinds, np.int64)
        jobs["types"] = np.array([self.layout.types(request) for request in asked])[kinds]
        jobs["devices"] = np.array([request.count for request in asked])[kinds]
        since, due = self.asks["since_ms"], self.asks["deadline_ms"]
        jobs["submit_ms"] = jobs["since_ms"] = np.where(since == 0, now_ms, since)
        jobs["priority"], jobs["yields"] = self.asks["priority"], self.asks["yields"]
        jobs["deadline_ms"] = np.where(due == UNKNOWN, arrays.FOREVER_MS, due)
        jobs["state"] = arrays.WAITING

    def _set_use(self, state: arrays.State, half_life_ms: int, now_ms: int) -> None:
        """What accounts have used, faded up to now, from when on the books weigh use."""
        state.values["opened_ms"] = now_ms
        for place, share in zip(state.places, self.shares, strict=True):
            if share.usage_gflop:
                faded = weight_of_use(max(now_ms - share.usage_at_ms, 0), half_life_ms)
                state.use[place, 0] = share.usage_gflop / faded


@dataclass(frozen=True, slots=True)
class Layout:
    """The usable devices as nodes of the arrays: N nodes, D devices of the pool."""

    node: Integers  # [D] its node; what it says of a device that is not usable means nothing
    index: npt.NDArray[np.uint64]  # [D] its number on the node
    sizes: Integers  # [N] devices
    type: Integers  # [N]
    kind: Integers  # [N] as the pool numbers kinds
    models: tuple[str, ...]  # by type
    ratings: Integers  # by type, GFLOPS
    named: list[list[str]]  # by node, the names of its devices
    pool: Pool

    @classmethod
    def of(cls, pool: Pool) -> Layout:
        """The layout of a pool's usable devices."""
        usable = np.flatnonzero(pool.usable)
        each = in_order(pool.group[usable])
        order = usable[np.argsort(each, kind="stable")]
        sizes = np.bincount(each) if len(each) else np.zeros(0, np.int64)
        first = np.cumsum(sizes) - sizes
        node, index = np.zeros(len(pool.names), np.int64), np.zeros(len(pool.names), np.uint64)
        node[usable] = each
        index[order] = np.arange(len(order)) - np.repeat(first, sizes)
        heads = order[first]
        models, type_of = _types(pool, pool.model.codes[heads])
        ratings = np.zeros(len(models), np.int64)
        np.maximum.at(ratings, type_of[node[usable]], pool.gflops[usable])
        kind, names = pool.kind.codes[heads], [pool.names[i] for i in order.tolist()]
        ends = zip(first.tolist(), (first + sizes).tolist(), strict=True)
        named = [names[start:end] for start, end in ends]
        return cls(node, index, sizes, type_of, kind, models, ratings, named, pool)

    def nodes(self) -> Records:
        """NODE[N]."""
        nodes = arrays.nodes_array(len(self.sizes))
        nodes["gpus"], nodes["type"] = self.sizes, self.type
        return nodes

    def types(self, request: Request) -> int:
        """The models on which one node can hold the whole request, as bits."""
        able = self.sizes >= request.count
        if request.kind is not None:
            able = able & (self.kind == self.pool.kind.code(request.kind))
        models = np.unique(self.type[able]).tolist()
        return sum(1 << t for t in models if request.model in (None, self.models[t]))


def _types(pool: Pool, codes: Integers) -> tuple[tuple[str, ...], Integers]:
    """The models by name, and which of them each node is of."""
    models = tuple(sorted({pool.model.texts[code] for code in np.unique(codes).tolist()}))
    number = np.zeros(len(pool.model.texts), np.int64)
    for t, model in enumerate(models):
        number[pool.model.code(model)] = t
    return models, number[codes]


# What is known of every job, and more of those that run and of those that wait.
_KNOWN = [("estimate_ms", "i8"), ("predicted_ms", "i8"), ("preemptible", "i8"), ("tier", "i8")]
_NAMED = [("owner", "O"), ("since_ms", "i8")]
RUNS = np.dtype([*_KNOWN, *_NAMED, ("devices", "i8"), ("places", "O")])
ASKS = np.dtype([*_KNOWN, *_NAMED, ("priority", "i8"), ("yields", "i8"), ("deadline_ms", "i8")])
_TIER = {tier: i for i, tier in enumerate(TIERS)}


def _runs(place: Mapping[str, int], jobs: Sequence[RunningJob]) -> Records:
    """RUNS[jobs]; `places` are numbers of devices by `place`, -1 for one that is not there."""
    rows = [
        (
            *(job.limit_ms, job.expected_ms, job.preemptible, _TIER[job.tier]),
            *(job.owner, job.since_ms, len(job.devices)),
            tuple(map(place.get, job.devices, repeat(-1))),
        )
        for job in jobs
    ]
    return np.array(rows, RUNS)


def _asks(jobs: Sequence[QueuedJob]) -> Records:
    """ASKS[jobs]."""
    rows = [
        (
            *(job.limit_ms, job.expected_ms, job.preemptible, _TIER[job.tier]),
            *(job.owner, job.waits_since_ms, job.priority, job.yields, job.deadline_ms),
        )
        for job in jobs
    ]
    return np.array(rows, ASKS)


_ASKING = Table(_asks)


def _strangers(cluster: Cluster, pool: Pool) -> list[RunningJob]:
    """Jobs that hold devices and are not among those that run."""
    holders = set(pool.holders) - {None}
    unknown = holders - {job.job_id for job in cluster.running} if holders else holders
    found: dict[str, list[str]] = {}
    if unknown:
        for name, holder in zip(pool.names, pool.holders, strict=True):
            if holder is not None and holder in unknown:
                found.setdefault(holder, []).append(name)
    return [RunningJob(name, tuple(devices)) for name, devices in found.items()]


def _with_owners(shares: Sequence[Share], owners: Iterable[str]) -> tuple[Share, ...]:
    """Every account that a job names; one without a share of its own has no limit."""
    known = {share.account for share in shares}
    others = dict.fromkeys(owners)
    return (*shares, *(Share(owner) for owner in others if owner not in known))


def accounts_of(shares: Sequence[Share]) -> Records:
    """ACCOUNT[A]: each account with the limits of its share, in their order."""
    place: dict[str | None, int] = {s.account: i for i, s in enumerate(shares)}
    found = accounts_array(len(shares))
    found["parent"] = [place.get(share.parent, -1) for share in shares]
    found["weight"] = [share.weight for share in shares]
    for name in ("quota", "borrow", "lend"):
        devices = [getattr(share, name) for share in shares]
        milli = [-1 if each is None else each * arrays.WHOLE for each in devices]
        found[f"{name}_milli"] = milli
    return found
