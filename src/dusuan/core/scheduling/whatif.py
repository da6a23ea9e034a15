"""What would make a waiting job start: each change is tried on a copy of the snapshot.

The questions are answered by the rules themselves: a change is a remedy when the round, asked again
with it, starts the job or promises it devices. Nothing is changed by asking.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from dusuan.core.scheduling.arrays import FOREVER_MS
from dusuan.core.scheduling.explain import in_use, named
from dusuan.core.scheduling.model import (
    TIERS,
    UNKNOWN,
    Cluster,
    Plan,
    QueuedJob,
    Request,
    RunningJob,
    Share,
    usable,
)
from dusuan.core.scheduling.policy import PolicyParts
from dusuan.core.scheduling.round import outline

STEPS_MAX = 50  # ends of running jobs that a forecast goes through
BEFORE_MAX = 3  # jobs of the same owner that are taken away on a copy


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change that starts the job now. `change`: count, device, tier, wall_time, without, borrow,
    lend or balance.

    `value` is the count, the model, the tier or the wall time in milliseconds; `stops`: how many
    preemptible jobs would be stopped for it. `without` is another job of the same owner, for which
    quota is kept. For `borrow`, `value` says what each account in it would have to be allowed to
    borrow; `lend` is up to accounts of others, which are not named.
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
        changes = iter([("balance", job.job_id, _with(queue, free), cluster)])
    for change, value, changed, pool in changes:
        if change in found and change != "device":
            continue
        stops = _stops(pool, changed, job_id, policy, now_ms)
        if stops is not None:
            found[f"{change}:{value}" if change == "device" else change] = Remedy(
                change, value, stops
            )
    return tuple(found.values())


_Change = tuple[str, str | int, list[QueuedJob], Cluster]


def _changes(
    cluster: Cluster, queue: Sequence[QueuedJob], job: QueuedJob, policy: PolicyParts, now_ms: int
) -> Iterator[_Change]:
    """Changes to try, the smallest of each kind first."""
    ask = job.request
    for count in _fewer(ask.count):
        changed = replace(job, request=replace(ask, count=count))
        yield "count", count, _with(queue, changed), cluster
    for kind, model in dict.fromkeys((d.kind, d.model) for d in cluster.devices if usable(d)):
        if model != ask.model:
            changed = replace(job, request=Request(ask.count, kind, model))
            yield "device", model, _with(queue, changed), cluster
    for tier in reversed(TIERS[: TIERS.index(job.tier)]):
        yield "tier", tier, _with(queue, replace(job, tier=tier)), cluster
    plan = outline(cluster, _with(queue, job), policy, now_ms)
    for brief_ms in _briefer(plan, job, now_ms):
        changed = replace(job, limit_ms=brief_ms, expected_ms=brief_ms)
        yield "wall_time", brief_ms, _with(queue, changed), cluster
    for name in _own_before(queue, plan, job):
        yield "without", name, [each for each in _with(queue, job) if each.job_id != name], cluster
    yield from _limits(cluster, queue, job, policy, now_ms)


def _briefer(plan: Plan, job: QueuedJob, now_ms: int) -> list[int]:
    """Wall times that end before what is kept for others is needed, the longest first."""
    moments = {plan.kept_ms.get(job.job_id, now_ms), min(plan.expected_ms.values(), default=now_ms)}
    return [
        at_ms - now_ms
        for at_ms in sorted(moments, reverse=True)
        if now_ms < at_ms < FOREVER_MS
        and (job.limit_ms == UNKNOWN or job.limit_ms > at_ms - now_ms)
    ]


def _before(queue: Sequence[QueuedJob], plan: Plan, job: QueuedJob) -> list[QueuedJob]:
    """Jobs for which the quota is kept that `job` waits its turn for."""
    if job.job_id not in plan.kept_ms:
        return []
    limit, by_id = plan.limits[job.job_id], {each.job_id: each for each in queue}
    ahead = takewhile(lambda name: name != job.job_id, plan.limits)
    return [by_id[name] for name in ahead if limit in plan.kept_for.get(name, ())]


def _own_before(queue: Sequence[QueuedJob], plan: Plan, job: QueuedJob) -> list[str]:
    """Those of them that are of the same owner, the first few."""
    before = _before(queue, plan, job)
    return [each.job_id for each in before if each.owner == job.owner][:BEFORE_MAX]


def _limits(
    cluster: Cluster, queue: Sequence[QueuedJob], job: QueuedJob, policy: PolicyParts, now_ms: int
) -> Iterator[_Change]:
    """Larger limits where those are what keeps the job waiting, one account after the other."""
    raised: dict[str, int] = {}
    for _ in range(len(cluster.shares)):
        plan = outline(cluster, _with(queue, job), policy, now_ms)
        before = _before(queue, plan, job)
        limit = plan.limits.get(before[0].job_id if before else job.job_id)
        if limit is None or limit in raised:
            return
        if limit:
            wanted = sum(each.request.count for each in (job, *before))
            raised[limit] = _borrowed(cluster, queue, plan, limit) + wanted
        cluster = replace(cluster, shares=_with_limits(cluster.shares, limit, raised))
        names = {share.account: named(share) for share in cluster.shares}
        told = ", ".join(f"{count} on {names[each]}" for each, count in raised.items())
        change, value = ("borrow", told) if limit else ("lend", told or "others")
        yield change, value, _with(queue, job), cluster
        if not limit:
            return


def _borrowed(cluster: Cluster, queue: Sequence[QueuedJob], plan: Plan, account: str) -> int:
    """What an account uses beyond what it is guaranteed; negative while something is left."""
    quota = next(share.quota for share in cluster.shares if share.account == account)
    used = in_use(cluster.shares, cluster.running, queue, plan)
    return used.get(account, 0) - (quota or 0)


def _with_limits(
    shares: Sequence[Share], limit: str, raised: Mapping[str, int]
) -> tuple[Share, ...]:
    """The accounts with what `raised` lets them borrow; or, for no account, all lending."""
    if not limit:
        return tuple(replace(share, lend=None) for share in shares)
    return tuple(
        replace(share, borrow=max(raised[limit], 0)) if share.account == limit else share
        for share in shares
    )


def _with(queue: Sequence[QueuedJob], job: QueuedJob) -> list[QueuedJob]:
    """The queue with `job` as it was changed."""
    return [job if each.job_id == job.job_id else each for each in queue]


def _fewer(count: int) -> list[int]:
    """One less, then halves: every one of a large gang's counts would take long to try."""
    halves = [count >> shift for shift in range(1, count.bit_length())]
    return sorted({count - 1, *halves} - {0, count}, reverse=True)


def _stops(
    cluster: Cluster, queue: Sequence[QueuedJob], job_id: str, policy: PolicyParts, now_ms: int
) -> int | None:
    """How many jobs are stopped to start `job_id`; None when it does not start."""
    plan = outline(cluster, queue, policy, now_ms)
    started = {start.job_id for start in (*plan.starts, *plan.claims)}
    if job_id not in started:
        return None
    return sum(1 for preempt in plan.preemptions if preempt.for_job == job_id)


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
