"""Why a job waits, in words and in data, and what would help."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dusuan.core.scheduling.model import (
    Cluster,
    DeviceSlot,
    Plan,
    QueuedJob,
    Request,
    Wait,
    WaitCode,
    matches,
    usable,
)


def what(request: Request) -> str:
    """The request in words, such as "2 A100 devices"."""
    name = request.model or request.kind or "any"
    return f"{request.count} {name} device{'s' if request.count != 1 else ''}"


def largest(request: Request, devices: Iterable[DeviceSlot]) -> int:
    """The most matching devices of one model on one node."""
    groups: dict[tuple[str, str], int] = {}
    for device in devices:
        if matches(request, device):
            key = (device.node, device.model)
            groups[key] = groups.get(key, 0) + 1
    return max(groups.values(), default=0)


def unfit(request: Request, cluster: Cluster) -> Wait | None:
    """Why the pool cannot run a request even when it is empty, from the most lasting to the most
    passing reason; None when it can."""
    devices = cluster.devices
    exist = largest(request, devices)
    data = {"needs": request.count, "exist": exist}
    if exist < request.count:
        text = f"needs {what(request)} on one node; the pool has at most {exist}"
        remedy = f"ask for {exist} or fewer" if exist else "ask for another device"
        return Wait(WaitCode.TOO_LARGE, text, remedy, data)
    if largest(request, (d for d in devices if d.ready)) < request.count:
        text = f"needs {what(request)}; too many such devices are down"
        remedy = "wait until the operator has them back in service"
        return Wait(WaitCode.UNAVAILABLE, text, remedy, data)
    if largest(request, (d for d in devices if usable(d))) < request.count:
        text = f"needs {what(request)}; such devices have no rating yet"
        return Wait(WaitCode.UNCALIBRATED, text, "the operator runs: dusuan calibrate", data)
    return None


@dataclass(frozen=True, slots=True)
class _Round:
    """What the words are made from."""

    cluster: Cluster
    plan: Plan
    free: tuple[DeviceSlot, ...]
    ahead: tuple[QueuedJob, ...]  # those that wait and were looked at before
    exist: int


def reasons(
    cluster: Cluster, queue: Sequence[QueuedJob], plan: Plan, codes: Mapping[str, str], policy: str
) -> dict[str, Wait]:
    """The reason of every job of `queue` that the plan does not start.

    `codes` are the compiled round's own, in the order of the queue.
    """
    by_id = {job.job_id: job for job in queue}
    taken = {name for start in (*plan.starts, *plan.claims) for name in start.devices}
    free = tuple(
        d for d in cluster.devices if usable(d) and d.holder is None and d.device not in taken
    )
    found: dict[str, Wait] = {}
    ahead: list[QueuedJob] = []
    for start in plan.claims:
        found[start.job_id] = _preempting(by_id[start.job_id].request, plan)
    for job_id, code in codes.items():
        job = by_id[job_id]
        exist = largest(job.request, cluster.devices)
        told = _Round(cluster, plan, free, tuple(ahead), exist)
        found[job_id] = _quota(job, told) if code == "quota" else _passing(job, told, policy)
        if code != "quota" and not job.yields:
            ahead.append(job)
    return found


def _preempting(request: Request, plan: Plan) -> Wait:
    stopping = len(plan.preemptions)
    return Wait(
        WaitCode.PREEMPTING,
        f"its {what(request)} are chosen; {stopping} preemptible job"
        f"{'s' if stopping != 1 else ''} on them are saving their state",
        "starts as soon as they have stopped",
        {"needs": request.count, "stopping": stopping},
    )


def _quota(job: QueuedJob, told: _Round) -> Wait:
    shares = {share.account: share for share in told.cluster.shares}
    share = shares.get(job.owner)
    while share is not None and (share.quota is None or share.borrow is None):
        share = shares.get(share.parent or "")
    quota, borrow = (share.quota, share.borrow) if share is not None else (None, None)
    data = {"needs": job.request.count, "quota": quota, "borrow": borrow}
    return Wait(
        WaitCode.QUOTA,
        f"needs {what(job.request)}; its account may use {quota} and borrow {borrow} more, and "
        "what runs leaves too little of that",
        "starts when jobs of the same account end, or with a larger quota",
        data,
    )


def _passing(job: QueuedJob, told: _Round, policy: str) -> Wait:
    """What a running job or one before it will give way to. Other owners' jobs are not named."""
    free = largest(job.request, told.free)
    data: dict[str, Any] = {"needs": job.request.count, "exist": told.exist, "free": free}
    expected = told.plan.expected_ms.get(job.job_id)
    if expected is not None:
        data["expected_start_ms"] = expected
    if free >= job.request.count and told.ahead:
        return _behind(job, told, free, {**data, "policy": policy})
    could = f"; {free} could start now" if free else ""
    return Wait(
        WaitCode.CAPACITY,
        f"needs {what(job.request)}; {free} are free now",
        f"starts when running jobs end{could}",
        data,
    )


def _behind(job: QueuedJob, told: _Round, free: int, data: dict[str, Any]) -> Wait:
    rivals = [other for other in told.ahead if _share_devices(other, job, told.cluster)]
    own = sorted(other.job_id for other in rivals if other.owner == job.owner)
    first = own[0] if own else "another customer's job"
    return Wait(
        WaitCode.ORDER,
        f"{free} such devices are free, but {first} is before it and waits for them",
        f"starts after {first}, with a higher priority, or with a wall time that ends before "
        f"{first} can start",
        {**data, "behind": own, "behind_others": len(rivals) - len(own)},
    )


def _share_devices(one: QueuedJob, other: QueuedJob, cluster: Cluster) -> bool:
    """Whether both could use the same device."""
    return any(
        usable(d) and matches(one.request, d) and matches(other.request, d) for d in cluster.devices
    )
