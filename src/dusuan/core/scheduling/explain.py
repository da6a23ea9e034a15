"""Why a job waits, in words and in data, and what would help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, cast

from dusuan.core.scheduling.arrays import FOREVER_MS
from dusuan.core.scheduling.model import Plan, QueuedJob, Request, RunningJob, Share, Wait, WaitCode
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


def in_use(
    shares: Iterable[Share],
    running: Iterable[RunningJob],
    queue: Iterable[QueuedJob],
    plan: Plan,
) -> dict[str, int]:
    """Devices that each account and all below it hold once `plan` is carried out."""
    above = {share.account: share.parent for share in shares}
    owners = {job.job_id: job.owner for job in queue}
    stopped = {preempt.job_id for preempt in plan.preemptions}
    held = Counter[str]()
    for job in running:
        if job.job_id not in stopped:
            held[job.owner] += len(job.devices)
    for start in (*plan.starts, *plan.claims):
        held[owners[start.job_id]] += len(start.devices)
    found = Counter[str]()
    for owner, devices in held.items():
        found.update(dict.fromkeys(path_of(owner, above), devices))
    return found


def path_of(account: str, above: Mapping[str, str | None]) -> list[str]:
    """The account and all above it."""
    path, at = [], cast(str | None, account)
    while at is not None:
        path.append(at)
        at = above.get(at)
    return path


BEHIND_MAX = 10  # jobs of one's own that a reason names


class _Round:
    """What the words are made from. Jobs that ask alike share what is worked out for them.

    A kind is the number of a request in the queue.
    """

    def __init__(self, scene: Scene, plan: Plan, policy: str) -> None:
        self.scene, self.plan, self.policy = scene, plan, policy
        requests, pool = scene.line.requests, scene.pool
        free = pool.counted(self._free_flags())
        self.sizes = [(pool.largest(each, "all"), pool.most(each, free)) for each in requests]
        self._crowded: dict[int, Wait] = {}  # by kind: too few are free
        self._limited: dict[tuple[int, str], Wait] = {}  # by kind and account: it may use no more
        self._ahead = [0] * len(requests)  # how many wait before whoever comes now
        self._own: dict[tuple[int, str], list[str]] = {}  # the first of them, by owner
        self._rivals: dict[int, list[int]] = {}
        self.shares = {share.account: share for share in scene.shares}
        self._short = Counter[str]()  # for how many something is kept so far, by account
        self._own_short: dict[tuple[str, str], list[str]] = {}  # the first of them, by owner

    def _free_flags(self) -> Flags:
        pool = self.scene.pool
        free = pool.usable & ~self.scene.held
        starts = (*self.plan.starts, *self.plan.claims)
        free[[pool.place[name] for start in starts for name in start.devices]] = False
        return free

    @cached_property
    def used(self) -> dict[str, int]:
        """Devices in use by account."""
        return in_use(self.scene.shares, self.scene.running, self.scene.queue, self.plan)

    def quota(self, job: QueuedJob, kind: int, code: str) -> Wait:
        """Whose limit keeps `job` from starting. Accounts of other customers are not named."""
        limit = self.plan.limits[job.job_id]
        share = self.shares.get(limit)
        if code == "turn":
            own = self._own_short.get((limit, job.owner), [])
            until_ms = self.plan.kept_ms[job.job_id]
            return _turn(job.request, share, own, self._short[limit], until_ms)
        self._keeps(job)
        if (kind, limit) not in self._limited:
            used = self.used.get(limit, 0) if share else 0
            found = _limit(job.request, share, used) if share else _lender(job.request)
            self._limited[kind, limit] = found
        return self._limited[kind, limit]

    def _keeps(self, job: QueuedJob) -> None:
        """`job` lacks quota: what is left to accounts above it may be kept for it."""
        for account in self.plan.kept_for.get(job.job_id, ()):
            self._short[account] += 1
            own = self._own_short.setdefault((account, job.owner), [])
            if len(own) < BEHIND_MAX:
                own.append(job.job_id)

    def devices(self, job: QueuedJob, kind: int) -> Wait:
        """What running jobs or one before it give way to. Other owners' jobs are not named."""
        (_, free), expected_ms = self.sizes[kind], self.plan.expected_ms.get(job.job_id)
        total = 0
        if free >= job.request.count:
            own, total = self._before(job, kind)
        if total:
            data = {**self._data(kind, expected_ms), "policy": self.policy}
            return _behind(own, total, free, data)
        if expected_ms is not None:
            return _crowded(job.request, free, self._data(kind, expected_ms))
        if kind not in self._crowded:
            self._crowded[kind] = _crowded(job.request, free, self._data(kind, None))
        return self._crowded[kind]

    def _data(self, kind: int, expected_ms: int | None) -> dict[str, Any]:
        (exist, free), needs = self.sizes[kind], self.scene.line.requests[kind].count
        data = {"needs": needs, "exist": exist, "free": free}
        return data if expected_ms is None else {**data, "expected_start_ms": expected_ms}

    def passed(self, job: QueuedJob, kind: int) -> None:
        """`job` waits for devices: it is ahead of whoever comes now."""
        self._ahead[kind] += 1
        own = self._own.setdefault((kind, job.owner), [])
        if len(own) < BEHIND_MAX:
            own.append(job.job_id)

    def _before(self, job: QueuedJob, kind: int) -> tuple[list[str], int]:
        """Jobs before `job` that could use its devices: its owner's, and how many in all."""
        rivals = self._rivals_of(kind)
        own = [name for each in rivals for name in self._own.get((each, job.owner), ())]
        return own, sum(self._ahead[each] for each in rivals)

    def _rivals_of(self, kind: int) -> list[int]:
        """The kinds of this round that some device is for as well as for `kind`."""
        if kind not in self._rivals:
            pool, requests = self.scene.pool, self.scene.line.requests
            one, kinds = requests[kind], range(len(requests))
            self._rivals[kind] = [k for k in kinds if pool.share_devices(one, requests[k])]
        return self._rivals[kind]


def reasons(
    scene: Scene, plan: Plan, waits: Iterable[tuple[int, str]], policy: str
) -> dict[str, Wait]:
    """The reason of every job of the queue that the plan does not start.

    `waits` has the compiled round's own codes, by the number of the job, in the order in which jobs
    were looked at.
    """
    told, first = _Round(scene, plan, policy), len(scene.running)
    found = _claiming(scene, plan) if plan.claims else {}
    for j, code in waits:
        job, kind = scene.line.jobs[j - first], scene.line.kinds[j - first]
        if code in ("quota", "turn"):
            found[job.job_id] = told.quota(job, kind, code)
            continue
        found[job.job_id] = told.devices(job, kind)
        if not job.yields:
            told.passed(job, kind)
    return found


def _claiming(scene: Scene, plan: Plan) -> dict[str, Wait]:
    asked = {job.job_id: job.request for job in scene.queue}
    return {c.job_id: _preempting(asked[c.job_id], plan) for c in plan.claims}


def _preempting(request: Request, plan: Plan) -> Wait:
    stopping = len(plan.preemptions)
    return Wait(
        WaitCode.PREEMPTING,
        f"its {what(request)} are chosen; {stopping} preemptible job"
        f"{'s' if stopping != 1 else ''} on them are saving their state",
        "starts as soon as they have stopped",
        {"needs": request.count, "stopping": stopping},
    )


def _lender(request: Request) -> Wait:
    return Wait(
        WaitCode.QUOTA,
        f"needs {what(request)}; what is idle is guaranteed to accounts that do not lend it",
        "starts when jobs that borrow end, or when others lend more",
        {"needs": request.count, "limit": "lend"},
    )


def _turn(request: Request, share: Share | None, own: list[str], total: int, until_ms: int) -> Wait:
    """What is left below a limit is kept for a job before it. Other owners' jobs are not named."""
    first = own[0] if own else "another account's job"
    left = "what is idle of the pool" if share is None else f"what {named(share)} may still use"
    data: dict[str, Any] = {"needs": request.count, "limit": "turn"}
    if share is not None:
        data["account"] = named(share)
    if until_ms < FOREVER_MS:
        data["kept_until_ms"] = until_ms
    return Wait(
        WaitCode.QUOTA,
        f"needs {what(request)}; {left} is kept for {first}, which is before it",
        f"starts after {first}, or with a wall time that ends before {first} can start",
        {**data, "behind": own, "behind_others": total - len(own)},
    )


def _limit(request: Request, share: Share, used: int) -> Wait:
    """An account above a job may use no more: of its guarantee, or of what it may borrow."""
    quota, borrow = share.quota or 0, share.borrow or 0
    data = {
        "needs": request.count,
        "limit": "borrow" if borrow else "quota",
        "account": named(share),
        "quota": share.quota,
        "borrow": share.borrow,
        "used": used,
    }
    remedy = f"starts when jobs of {named(share)} end"
    if request.count > quota + borrow:
        remedy = f"ask for {quota + borrow} or fewer" if quota + borrow else "ask the operator"
    return Wait(
        WaitCode.QUOTA,
        f"needs {what(request)}; {named(share)} is guaranteed {quota} and may borrow {borrow} "
        f"more, of which {used} are in use",
        f"{remedy}, or with a larger quota",
        data,
    )


def named(share: Share) -> str:
    """What the members of an account know it by."""
    return share.name or share.account


def _crowded(request: Request, free: int, data: dict[str, Any]) -> Wait:
    could = f"; {free} could start now" if free else ""
    return Wait(
        WaitCode.CAPACITY,
        f"needs {what(request)}; {free} are free now",
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
