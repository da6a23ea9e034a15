"""The scheduling round of the service: a snapshot in, starts, preemptions and reasons out.

A job whose devices have to be left by others first is given a *claim* on exactly those devices: the
decision stands, and is carried out when the last of them is free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dusuan.app.attempts import start_attempt, write_attempts
from dusuan.app.context import Platform
from dusuan.app.setting_aside import set_aside_missing
from dusuan.core.scheduling.model import (
    UNKNOWN,
    Cluster,
    DeviceSlot,
    Plan,
    QueuedJob,
    Request,
    RunningJob,
    Share,
    Start,
    Wait,
    WaitCode,
)
from dusuan.core.scheduling.round import schedule
from dusuan.engines.base import Action, StartOrder
from dusuan.store import ledger
from dusuan.store.database import Tx, json
from dusuan.store.rows import DeviceRow, Id, Name, Placed, Queued, ShareRow

_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a round loads."""

    queued: tuple[Queued, ...]
    placed: tuple[Placed, ...]
    devices: tuple[DeviceRow, ...]
    shares: tuple[ShareRow, ...]
    preempted_last_hour: int

    @property
    def claimed(self) -> dict[str, Queued]:
        """Device -> the job that has a claim on it. A claim on a device that is down is void."""
        good = {d.device for d in self.devices if d.state == "ready" and d.gflops is not None}
        return {
            device: job
            for job in self.queued
            if job.claim and good >= set(job.claim)
            for device in job.claim
        }


def load(tx: Tx, now: datetime) -> Snapshot:
    """The pool, the queue and who runs, as of one moment."""
    queued = tx.all(Queued, "jobs_queued")
    placed = tx.all(Placed, "jobs_placed")
    accounts = sorted({job.account_id for job in queued} | {job.account_id for job in placed})
    stopped = tx.one(Id, "preempted_since", since=now - timedelta(hours=1))
    return Snapshot(
        tuple(queued),
        tuple(placed),
        tuple(tx.all(DeviceRow, "devices")),
        tuple(tx.all(ShareRow, "shares_of", accounts=accounts)),
        stopped.id if stopped else 0,
    )


def run_schedule(platform: Platform) -> int:
    """One scheduling round; how many jobs it started or stopped."""
    # 1. Load one snapshot of queue and pool.
    now = platform.now()
    with platform.store.snapshot() as tx:
        if not tx.one(Name, "job_queued_any"):
            return 0
        seen = load(tx, now)
    # 2. Set aside the first slice of jobs that have none; nothing at all starts on a sick machine.
    sick = _in_trouble(platform, seen.queued)
    blocked = sick or set_aside_missing(platform, seen.queued, seen.devices)
    # 3. Decide.
    ready = [] if sick else ready_claims(seen)
    cluster, queue = picture(seen, blocked, now)
    plan = schedule(cluster, queue, platform.policy, ledger.unix_ms(now))
    # 4. Apply: the intent first, then the engine.
    with platform.store.transaction() as tx:
        orders, victims = _apply(platform, tx, plan, ready, seen, now)
    for victim in victims:
        platform.engine.signal(victim, Action.STOP)
    for order in orders:
        start_attempt(platform, order)
    return len(orders) + len(victims)


def _in_trouble(platform: Platform, queued: Sequence[Queued]) -> dict[str, Wait]:
    """Why no job can start, for each of them, when the engine says so."""
    trouble = platform.engine.trouble()
    if not trouble:
        return {}
    wait = Wait(WaitCode.TROUBLE, f"nothing can be started now: {trouble}", "tell the operator")
    return {job.id: wait for job in queued}


def ready_claims(seen: Snapshot) -> list[Start]:
    """Starts that were decided before and wait for nobody any more."""
    held = {d.device for d in seen.devices if d.holder is not None}
    jobs = {job.id: job for job in seen.claimed.values()}
    return [
        Start(job.id, tuple(job.claim))
        for job in jobs.values()
        if job.claim and job.held and not held & set(job.claim)
    ]


def picture(
    seen: Snapshot, blocked: Mapping[str, Wait], now: datetime
) -> tuple[Cluster, list[QueuedJob]]:
    """The snapshot as the scheduler reads it. A job with a claim counts as running on it."""
    claimed = seen.claimed
    guaranteed = {s.id for s in seen.shares if s.quota_devices is not None}
    above = {s.id: s.parent_id for s in seen.shares}
    promised = {job.id: job for job in claimed.values()}
    waiting = [job for job in seen.queued if job.id not in promised]
    running = [
        _running(job, claimed, _has_quota(job.account_id, above, guaranteed), now)
        for job in seen.placed
    ]
    running += [
        RunningJob(
            job.id,
            tuple(job.claim or ()),
            ledger.unix_ms(now),
            _known(job.expected_ms),
            _known(job.wall_ms),
            job.tier,
            job.account_id,
        )
        for job in promised.values()
    ]
    cluster = Cluster(
        tuple(_slot(device) for device in seen.devices),
        tuple(job for job in running if job.devices),
        tuple(_share(row) for row in seen.shares),
        seen.preempted_last_hour,
    )
    return cluster, [_queued(job, blocked.get(job.id)) for job in waiting]


def _has_quota(account: str, above: Mapping[str, str | None], guaranteed: set[str]) -> bool:
    """Whether the account or one above it is guaranteed something, so that it may borrow."""
    at: str | None = account
    while at is not None:
        if at in guaranteed:
            return True
        at = above.get(at)
    return False


def _running(
    job: Placed, claimed: Mapping[str, Queued], has_quota: bool, now: datetime
) -> RunningJob:
    """Spot is sold as preemptible; others only while they borrow, and can save their state."""
    ran_ms = ledger.unix_ms(now) - ledger.unix_ms(job.since)
    stopping = job.stop_asked is not None
    return RunningJob(
        job.id,
        tuple(name for name in job.devices if name not in claimed),
        ledger.unix_ms(job.since),
        max(ran_ms, 0) + job.grace_ms if stopping else _known(job.expected_ms),
        _known(job.wall_ms),
        job.tier,
        job.account_id,
        not stopping and not job.probe and (job.tier == "spot" or (job.requeues and has_quota)),
    )


def _known(ms: int | None) -> int:
    return UNKNOWN if ms is None else ms


def _slot(d: DeviceRow) -> DeviceSlot:
    ready, rated = d.state == "ready", d.gflops is not None
    return DeviceSlot(d.device, d.node, d.kind, d.model, ready, rated, d.holder, d.gflops or 0)


def _share(row: ShareRow) -> Share:
    return Share(
        row.id,
        row.parent_id,
        row.weight,
        row.quota_devices,
        row.borrow_devices,
        row.usage_ms,
        0 if row.usage_at is None else ledger.unix_ms(row.usage_at),
    )


def _queued(job: Queued, blocked: Wait | None) -> QueuedJob:
    return QueuedJob(
        job.id,
        job.position,
        Request(job.count, job.kind, job.model),
        job.priority,
        blocked,
        job.probe,
        job.account_id,
        ledger.unix_ms(job.queued_at),
        _known(job.expected_ms),
        _known(job.wall_ms),
        tier=job.tier,
    )


# --- apply -----------------------------------------------------------------------------------


def _apply(
    platform: Platform,
    tx: Tx,
    plan: Plan,
    ready: Sequence[Start],
    seen: Snapshot,
    now: datetime,
) -> tuple[list[StartOrder], list[str]]:
    """Write the plan down; the orders to start, and the attempts to stop."""
    starts = (*ready, *plan.starts)
    orders = write_attempts(platform, tx, starts, seen.devices, now) if starts else []
    victims: list[str] = []
    if plan.preemptions:
        stopped = [p.job_id for p in plan.preemptions]
        victims = [row.id for row in tx.all(Name, "attempts_preempted", jobs=stopped)]
        tx.run("jobs_state", ids=stopped, state="stopping")
    _write_claims(tx, plan, seen)
    _write_waits(tx, plan, seen)
    return orders, victims


def _write_claims(tx: Tx, plan: Plan, seen: Snapshot) -> None:
    """New claims, and the end of those whose devices are not to be had any more."""
    standing = {job.id for job in seen.claimed.values()}
    void = [job.id for job in seen.queued if job.claim and job.id not in standing]
    views = [json(_view(plan.waits[c.job_id], None)) for c in plan.claims]
    if plan.claims or void:
        tx.run(
            "jobs_claim",
            ids=[*(c.job_id for c in plan.claims), *void],
            claims=[*(_SEPARATOR.join(c.devices) for c in plan.claims), *(None for _ in void)],
            waiting=[*views, *(None for _ in void)],
        )


def _write_waits(tx: Tx, plan: Plan, seen: Snapshot) -> None:
    """Reasons that have changed."""
    queued = {job.id: job for job in seen.queued}
    views = {name: _view(wait, queued[name].stop_reason) for name, wait in plan.waits.items()}
    news = {name: view for name, view in views.items() if view != queued[name].waiting}
    if news:
        tx.run("jobs_waiting", jobs=list(news), waiting=[json(view) for view in news.values()])


def _view(wait: Wait, stop_reason: str | None) -> dict[str, Any]:
    text = wait.text
    if stop_reason is not None:
        text = f"stopped before ({stop_reason}) and waits to go on: {text}"
    return {"code": wait.code.value, "text": text, "remedy": wait.remedy, "data": dict(wait.data)}
