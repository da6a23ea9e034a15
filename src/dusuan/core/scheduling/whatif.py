"""What would make a waiting job start: each change is tried on a copy of the snapshot.

The questions are answered by the rules themselves: a change is a remedy when the round, asked again
with it, starts the job or promises it devices. Nothing is changed by asking.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from dusuan.core.scheduling.model import (
    TIERS,
    UNKNOWN,
    Cluster,
    QueuedJob,
    Request,
    RunningJob,
    usable,
)
from dusuan.core.scheduling.policy import PolicyParts
from dusuan.core.scheduling.round import outline

STEPS_MAX = 50  # ends of running jobs that a forecast goes through


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change that starts the job now. `change`: count, device, tier, wall_time or balance.

    `value` is the count, the model, the tier or the wall time in milliseconds; `stops`: how many
    preemptible jobs would be stopped for it.
    """

    change: str
    value: str | int
    stops: int


def remedies(
    cluster: Cluster,
    queue: Sequence[QueuedJob],
    job_id: str,
    policy: PolicyParts,
    now_ms: int,
) -> tuple[Remedy, ...]:
    """The changes to `job_id` that start it at `now_ms`; of each kind the smallest one."""
    job = next(each for each in queue if each.job_id == job_id)
    free = replace(job, blocked=None)
    found: dict[str, Remedy] = {}
    changes = _changes(cluster, queue, free, policy, now_ms)
    if job.blocked is not None:  # by its balance: anything else would help only with that
        changes = iter([("balance", job.job_id, free)])
    for change, value, changed in changes:
        if change in found and change != "device":
            continue
        stops = _stops(cluster, queue, changed, policy, now_ms)
        if stops is not None:
            found[f"{change}:{value}" if change == "device" else change] = Remedy(
                change, value, stops
            )
    return tuple(found.values())


def _changes(
    cluster: Cluster, queue: Sequence[QueuedJob], job: QueuedJob, policy: PolicyParts, now_ms: int
) -> Iterator[tuple[str, str | int, QueuedJob]]:
    """Changes to try, the smallest of each kind first."""
    ask = job.request
    for count in _fewer(ask.count):
        yield "count", count, replace(job, request=replace(ask, count=count))
    for kind, model in dict.fromkeys((d.kind, d.model) for d in cluster.devices if usable(d)):
        if model != ask.model:
            yield "device", model, replace(job, request=Request(ask.count, kind, model))
    for tier in reversed(TIERS[: TIERS.index(job.tier)]):
        yield "tier", tier, replace(job, tier=tier)
    brief_ms = _gap_ms(cluster, queue, policy, now_ms)
    if brief_ms > 0 and (job.limit_ms == UNKNOWN or job.limit_ms > brief_ms):
        changed = replace(job, limit_ms=brief_ms, expected_ms=brief_ms)
        yield "wall_time", brief_ms, changed


def _fewer(count: int) -> list[int]:
    """One less, then halves: every one of a large gang's counts would take long to try."""
    halves = [count >> shift for shift in range(1, count.bit_length())]
    return sorted({count - 1, *halves} - {0, count}, reverse=True)


def _gap_ms(cluster: Cluster, queue: Sequence[QueuedJob], policy: PolicyParts, now_ms: int) -> int:
    """How long a job may take that starts now and delays nobody for whom devices are reserved."""
    plan = outline(cluster, queue, policy, now_ms)
    return min(plan.expected_ms.values(), default=now_ms) - now_ms


def _stops(
    cluster: Cluster, queue: Sequence[QueuedJob], job: QueuedJob, policy: PolicyParts, now_ms: int
) -> int | None:
    """How many jobs are stopped to start `job`, as it was changed; None when it does not start."""
    changed = [job if each.job_id == job.job_id else each for each in queue]
    plan = outline(cluster, changed, policy, now_ms)
    started = {start.job_id for start in (*plan.starts, *plan.claims)}
    if job.job_id not in started:
        return None
    return sum(1 for preempt in plan.preemptions if preempt.for_job == job.job_id)


def expected_start_ms(
    cluster: Cluster,
    queue: Sequence[QueuedJob],
    job_id: str,
    policy: PolicyParts,
    now_ms: int,
) -> int | None:
    """When `job_id` starts if nobody else comes and everybody takes as long as expected.

    None when that cannot be told: a job before it runs for nobody knows how long.
    """
    waiting = list(queue)
    for _ in range(STEPS_MAX):
        plan = outline(cluster, waiting, policy, now_ms)
        begun = {start.job_id: start.devices for start in (*plan.starts, *plan.claims)}
        if job_id in begun:
            return now_ms
        stopped = {preempt.job_id for preempt in plan.preemptions}
        running = [job for job in cluster.running if job.job_id not in stopped]
        running += [
            _begun(job, begun[job.job_id], now_ms) for job in waiting if job.job_id in begun
        ]
        waiting = [job for job in waiting if job.job_id not in begun]
        ends = {job.job_id: _end_ms(job) for job in running}
        now_ms = max(min((e for e in ends.values() if e is not None), default=-1), now_ms + 1)
        left = [job for job in running if (e := ends[job.job_id]) is None or e > now_ms]
        if len(left) == len(running):
            return None
        cluster = _with_running(cluster, left)
    return None


def _begun(job: QueuedJob, devices: tuple[str, ...], now_ms: int) -> RunningJob:
    return RunningJob(
        job.job_id, devices, now_ms, job.expected_ms, job.limit_ms, job.tier, job.owner
    )


def _end_ms(job: RunningJob) -> int | None:
    taken_ms = job.expected_ms if job.expected_ms != UNKNOWN else job.limit_ms
    return None if taken_ms == UNKNOWN else job.since_ms + taken_ms


def _with_running(cluster: Cluster, running: Iterable[RunningJob]) -> Cluster:
    """The cluster with exactly `running` on it."""
    jobs = tuple(running)
    holders = {name: job.job_id for job in jobs for name in job.devices}
    devices = tuple(replace(d, holder=holders.get(d.device)) for d in cluster.devices)
    return replace(cluster, devices=devices, running=jobs)
