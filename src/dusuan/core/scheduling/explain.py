"""Why a job waits, in words and in data, and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dusuan.core.scheduling.model import Plan, QueuedJob, Request, Wait, WaitCode
from dusuan.core.scheduling.pool import Flags, Pool
from dusuan.core.scheduling.scene import Scene


def what(request: Request) -> str:
    """The request in words, such as "2 A100 devices"."""
    name = request.model or request.kind or "any"
    return f"{request.count} {name} device{'s' if request.count != 1 else ''}"


def unfit(request: Request, pool: Pool) -> Wait | None:
    """Why the pool cannot run a request even when it is empty, from the most lasting to the most
    passing reason; None when it can."""
    exist = pool.largest(request, "all")
    data = {"needs": request.count, "exist": exist}
    if exist < request.count:
        text = f"needs {what(request)} on one node; the pool has at most {exist}"
        remedy = f"ask for {exist} or fewer" if exist else "ask for another device"
        return Wait(WaitCode.TOO_LARGE, text, remedy, data)
    if pool.largest(request, "ready") < request.count:
        text = f"needs {what(request)}; too many such devices are down"
        remedy = "wait until the operator has them back in service"
        return Wait(WaitCode.UNAVAILABLE, text, remedy, data)
    if pool.largest(request) < request.count:
        text = f"needs {what(request)}; such devices have no rating yet"
        return Wait(WaitCode.UNCALIBRATED, text, "the operator runs: dusuan calibrate", data)
    return None


BEHIND_MAX = 10  # jobs of one's own that a reason names


class _Round:
    """What the words are made from. Jobs that ask alike share what is worked out for them."""

    def __init__(self, scene: Scene, plan: Plan, policy: str) -> None:
        self.scene, self.plan, self.policy = scene, plan, policy
        self._free = scene.pool.counted(self._free_flags())
        self._sizes: dict[Request, tuple[int, int]] = {}
        self._ahead: dict[Request, int] = {}  # how many wait before whoever comes now
        self._own: dict[tuple[Request, str], list[str]] = {}  # the first of them, by owner
        self._rivals: dict[Request, list[Request]] = {}
        self.shares = {share.account: share for share in scene.shares}

    def _free_flags(self) -> Flags:
        pool = self.scene.pool
        free = pool.usable & ~pool.held
        starts = (*self.plan.starts, *self.plan.claims)
        free[[pool.place[name] for start in starts for name in start.devices]] = False
        return free

    def sizes(self, request: Request) -> tuple[int, int]:
        """The largest group there is, and the largest that is free."""
        if request not in self._sizes:
            pool = self.scene.pool
            self._sizes[request] = pool.largest(request, "all"), pool.most(request, self._free)
        return self._sizes[request]

    def passed(self, job: QueuedJob) -> None:
        """`job` waits for devices: it is ahead of whoever comes now."""
        asked = job.request
        self._ahead[asked] = self._ahead.get(asked, 0) + 1
        own = self._own.setdefault((asked, job.owner), [])
        if len(own) < BEHIND_MAX:
            own.append(job.job_id)

    def ahead(self, job: QueuedJob) -> tuple[list[str], int]:
        """Jobs before `job` that could use its devices: its owner's, and how many in all."""
        rivals = [asked for asked in self._rivals_of(job.request) if asked in self._ahead]
        own = [name for asked in rivals for name in self._own.get((asked, job.owner), ())]
        return own, sum(self._ahead[asked] for asked in rivals)

    def _rivals_of(self, request: Request) -> list[Request]:
        """The requests of this round that some device is for as well as for `request`."""
        if request not in self._rivals:
            pool, asked = self.scene.pool, {job.request for job in self.scene.queue}
            self._rivals[request] = [each for each in asked if pool.share_devices(request, each)]
        return self._rivals[request]


def reasons(scene: Scene, plan: Plan, codes: Mapping[str, str], policy: str) -> dict[str, Wait]:
    """The reason of every job of the queue that the plan does not start.

    `codes` are the compiled round's own, in the order of the queue.
    """
    by_id = {job.job_id: job for job in scene.queue}
    told = _Round(scene, plan, policy)
    found = {c.job_id: _preempting(by_id[c.job_id].request, plan) for c in plan.claims}
    for job_id, code in codes.items():
        job = by_id[job_id]
        found[job_id] = _quota(job, told) if code == "quota" else _passing(job, told)
        if code != "quota" and not job.yields:
            told.passed(job)
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
    shares = told.shares
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


def _passing(job: QueuedJob, told: _Round) -> Wait:
    """What a running job or one before it will give way to. Other owners' jobs are not named."""
    exist, free = told.sizes(job.request)
    data: dict[str, Any] = {"needs": job.request.count, "exist": exist, "free": free}
    expected = told.plan.expected_ms.get(job.job_id)
    if expected is not None:
        data["expected_start_ms"] = expected
    if free >= job.request.count:
        own, total = told.ahead(job)
        if total:
            return _behind(own, total, free, {**data, "policy": told.policy})
    could = f"; {free} could start now" if free else ""
    return Wait(
        WaitCode.CAPACITY,
        f"needs {what(job.request)}; {free} are free now",
        f"starts when running jobs end{could}",
        data,
    )


def _behind(own: list[str], total: int, free: int, data: dict[str, Any]) -> Wait:
    named = sorted(own)[:BEHIND_MAX]
    first = named[0] if named else "another customer's job"
    return Wait(
        WaitCode.ORDER,
        f"{free} such devices are free, but {first} is before it and waits for them",
        f"starts after {first}, with a higher priority, or with a wall time that ends before "
        f"{first} can start",
        {**data, "behind": named, "behind_others": total - len(own)},
    )
