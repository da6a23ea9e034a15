"""A live round as a pure function: what it sees, what it decides, and what it should see next.

The service loads a `Sight`, calls `decide`, and writes the `Moves` down. `after` tells what the
next round will see if nothing happens in between; what differs then came from outside. A replay
goes the same way with those differences, so both decide by the same code from the same facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from dusuan.core.scheduling.model import (
    Cluster,
    Plan,
    Preempt,
    QueuedJob,
    RunningJob,
    Share,
    Start,
    Wait,
    usable,
)
from dusuan.core.scheduling.policy import PolicyParts
from dusuan.core.scheduling.remembered import Made
from dusuan.core.scheduling.round import schedule


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued job. `claim`: the devices promised to it; `unpaid`: it has a claim, and no hold.

    `saves`: it can save its state, so that it may be stopped while its account borrows.
    """

    job: QueuedJob
    grace_ms: int = 0
    saves: bool = False
    claim: tuple[str, ...] = ()
    unpaid: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """A job that has devices; `job` as if nobody could stop it. `stopping`: it was told to."""

    job: RunningJob
    grace_ms: int = 0
    saves: bool = False
    probe: bool = False
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Sight:
    """What a live round sees. `pool` has no running jobs: they are `placed`, by id.

    Nor has any of its devices a holder: who has which, `placed` says, so that the same devices are
    the same object from round to round.
    `blocked` says why a job cannot start whatever is free; `trouble` why none can.
    """

    pool: Cluster
    placed: tuple[Placed, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    blocked: Mapping[str, Wait] = field(default_factory=dict)
    trouble: Wait | None = None


@dataclass(frozen=True, slots=True)
class Moves:
    """What a round does. `void`: jobs whose claim is on devices that are not to be had any more."""

    starts: tuple[Start, ...] = ()
    preempts: tuple[Preempt, ...] = ()
    claims: tuple[Start, ...] = ()
    void: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        """Whether it does anything at all."""
        return bool(self.starts or self.preempts or self.claims or self.void)


def decide(sight: Sight, policy: PolicyParts, now_ms: int) -> tuple[Moves, Plan]:
    """One live round at `now_ms` (Unix time): its moves, and the plan with everybody's reason."""
    claimed = claims_of(sight)
    cluster, queue = picture(sight, now_ms, claimed)
    plan = schedule(cluster, queue, policy, now_ms)
    due = () if sight.trouble else due_claims(sight, claimed)
    standing = {each.job.job_id for each in claimed.values()}
    moved = {start.job_id for start in (*plan.starts, *plan.claims)}
    kept = standing | moved
    void = (each.job.job_id for each in sight.waiting if each.claim)
    gone = tuple(name for name in void if name not in kept)
    return Moves((*due, *plan.starts), plan.preemptions, plan.claims, gone), plan


def claims_of(sight: Sight) -> dict[str, Waiting]:
    """Device -> the job that has a claim on it. A claim on a device that is down is void."""
    claimants = [each for each in sight.waiting if each.claim]
    if not claimants:
        return {}
    good = {d.device for d in sight.pool.devices if usable(d)}
    return {device: each for each in claimants if good >= set(each.claim) for device in each.claim}


def due_claims(sight: Sight, claimed: Mapping[str, Waiting]) -> tuple[Start, ...]:
    """Starts that were decided before and wait for nobody any more."""
    if not claimed:
        return ()
    held = {name for each in sight.placed for name in each.job.devices}
    jobs = {each.job.job_id: each for each in claimed.values()}
    return tuple(
        Start(name, each.claim)
        for name, each in jobs.items()
        if not each.unpaid and not held & set(each.claim)
    )


# --- as the scheduler reads it -----------------------------------------------------------------


def picture(
    sight: Sight, now_ms: int, claimed: Mapping[str, Waiting] | None = None
) -> tuple[Cluster, list[QueuedJob]]:
    """The cluster and the queue of a round. A job with a claim counts as running on it."""
    claimed = claims_of(sight) if claimed is None else claimed
    lent = any(share.quota for share in sight.pool.shares)
    promised = {each.job.job_id: each for each in claimed.values()}
    running = list(_running(sight.placed, claimed, lent, now_ms))
    running += [_begun(each.job, each.claim, now_ms) for each in promised.values()]
    cluster = replace(sight.pool, running=tuple(job for job in running if job.devices))
    queue = [_blocked(each.job, sight) for each in sight.waiting if each.job.job_id not in promised]
    return cluster, queue


def _blocked(job: QueuedJob, sight: Sight) -> QueuedJob:
    wait = sight.trouble or sight.blocked.get(job.job_id)
    return job if wait is None else replace(job, blocked=wait)


def _may_stop(each: Placed, lent: bool) -> bool:
    """Spot is sold as preemptible; others only while they borrow, and can save their state.

    `lent`: something is guaranteed to somebody, so that others may borrow it. The rules know who.
    """
    may = each.job.tier == "spot" or (each.saves and lent)
    return may and not each.stopping and not each.probe


_STOPPABLE = Made(lambda each: replace(each.job, preemptible=True))


def _running(
    placed: Iterable[Placed], claimed: Mapping[str, Waiting], lent: bool, now_ms: int
) -> Iterator[RunningJob]:
    """Jobs on what they have, less what is promised to others. Who was told to stop ends soon."""
    may = [each for each in placed if _may_stop(each, lent)]
    stoppable = dict(zip(map(id, may), _STOPPABLE.of(may), strict=True))
    for each in placed:
        job = stoppable.get(id(each)) or each.job
        if each.stopping:
            ran_ms = max(now_ms - job.since_ms, 0)
            job = replace(job, expected_ms=ran_ms + each.grace_ms)
        if claimed and not claimed.keys().isdisjoint(job.devices):
            job = replace(job, devices=tuple(d for d in job.devices if d not in claimed))
        yield job


# What a job is known by before it starts and while it runs. Who may be stopped is asked each time.
_SHARED = {f.name for f in fields(QueuedJob)} & {f.name for f in fields(RunningJob)}
_CARRIED = tuple(sorted(_SHARED - {"preemptible"}))


def _begun(job: QueuedJob, devices: Iterable[str], now_ms: int) -> RunningJob:
    known: dict[str, Any] = {name: getattr(job, name) for name in _CARRIED}
    return RunningJob(**known, devices=tuple(devices), since_ms=now_ms)


# --- what comes of it --------------------------------------------------------------------------


def after(sight: Sight, moves: Moves, now_ms: int) -> Sight:
    """What the next round sees if nothing else happens. `blocked` and `trouble` stay as they are.

    Raises `KeyError` for a start or a claim of a job that does not wait.
    """
    if not moves.any:
        return sight
    jobs = {each.job.job_id: each for each in sight.waiting}
    started = {s.job_id: _placed(jobs.pop(s.job_id), s, now_ms) for s in moves.starts}
    for name in moves.void:
        jobs[name] = replace(jobs[name], claim=(), unpaid=False)
    for claim in moves.claims:
        jobs[claim.job_id] = replace(jobs[claim.job_id], claim=claim.devices, unpaid=False)
    stopped = {preempt.job_id for preempt in moves.preempts}
    placed = [_told(each) if each.job.job_id in stopped else each for each in sight.placed]
    blocked = {name: wait for name, wait in sight.blocked.items() if name not in started}
    stopped_then = sight.pool.preempted_last_hour + len(stopped)
    pool = replace(sight.pool, preempted_last_hour=stopped_then)
    placed_then = tuple(sorted((*placed, *started.values()), key=placed_key))
    return replace(
        sight, pool=pool, placed=placed_then, waiting=tuple(jobs.values()), blocked=blocked
    )


def _placed(each: Waiting, start: Start, now_ms: int) -> Placed:
    job = _begun(each.job, sorted(start.devices), now_ms)
    return Placed(job, each.grace_ms, each.saves, each.job.yields)


def _told(each: Placed) -> Placed:
    return replace(each, stopping=True)


def without(sight: Sight, jobs: Iterable[str]) -> Sight:
    """The sight when these jobs have left: they neither wait nor hold anything."""
    left = set(jobs)
    if not left:
        return sight
    return replace(
        sight,
        placed=tuple(each for each in sight.placed if each.job.job_id not in left),
        waiting=tuple(each for each in sight.waiting if each.job.job_id not in left),
        blocked={name: wait for name, wait in sight.blocked.items() if name not in left},
    )


def placed_key(each: Placed) -> str:
    """Jobs that have devices stand in the order of their ids."""
    return each.job.job_id


def waiting_key(each: Waiting) -> int:
    """Jobs that wait stand in the order of their submission."""
    return each.job.order


def share_key(share: Share) -> str:
    """Accounts stand in the order of their ids."""
    return share.account
