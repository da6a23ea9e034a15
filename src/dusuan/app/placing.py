"""The scheduling round of the service: a snapshot in, starts, preemptions and reasons out.

A job whose devices have to be left by others first is given a *claim* on exactly those devices: the
decision stands, and is carried out when the last of them is free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from dusuan.app.attempts import start_attempt, write_attempts
from dusuan.app.context import Platform
from dusuan.app.setting_aside import set_aside_missing
from dusuan.core.scheduling.live import (
    Moves,
    Placed,
    Sight,
    Waiting,
    decide,
    placed_key,
    share_key,
    waiting_key,
)
from dusuan.core.scheduling.model import (
    UNKNOWN,
    Cluster,
    DeviceSlot,
    Plan,
    QueuedJob,
    Request,
    RunningJob,
    Share,
    Wait,
    WaitCode,
)
from dusuan.engines.base import Action, StartOrder
from dusuan.store import ledger
from dusuan.store.database import Tx, json
from dusuan.store.rows import DeviceRow, Id, Name, PlacedRow, Queued, ShareRow

_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a round loads."""

    queued: tuple[Queued, ...]
    placed: tuple[PlacedRow, ...]
    devices: tuple[DeviceRow, ...]
    shares: tuple[ShareRow, ...]
    preempted_last_hour: int


def load(tx: Tx, now: datetime) -> Snapshot:
    """The pool, the queue and who runs, as of one moment."""
    queued = tx.all(Queued, "jobs_queued")
    placed = tx.all(PlacedRow, "jobs_placed")
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
        rows = load(tx, now)
    # 2. Set aside the first slice of jobs that have none; nothing at all starts on a sick machine.
    trouble = _in_trouble(platform)
    blocked = {} if trouble else set_aside_missing(platform, rows.queued, rows.devices)
    # 3. Decide.
    seen = replace(sight(rows, blocked), trouble=trouble)
    moves, plan = decide(seen, platform.policy, ledger.unix_ms(now))
    # 4. Apply: the intent first, with the record of the round, then the engine.
    with platform.store.transaction() as tx:
        orders, victims = _apply(platform, tx, moves, plan, rows, now)
        noted = platform.recorder.note(tx, seen, moves, plan, platform.policy, now)
    platform.recorder.keep(noted)
    for victim in victims:
        platform.engine.signal(victim, Action.STOP)
    for order in orders:
        start_attempt(platform, order)
    return len(orders) + len(victims)


def _in_trouble(platform: Platform) -> Wait | None:
    """Why no job can start, when the engine says so."""
    trouble = platform.engine.trouble()
    if not trouble:
        return None
    return Wait(WaitCode.TROUBLE, f"nothing can be started now: {trouble}", "tell the operator")


# --- rows as the rules read them ---------------------------------------------------------------


def sight(rows: Snapshot, blocked: Mapping[str, Wait]) -> Sight:
    """The rows as the facts of a round."""
    pool = Cluster(
        tuple(_slot(device) for device in rows.devices),
        shares=tuple(sorted((_share(row) for row in rows.shares), key=share_key)),
        preempted_last_hour=rows.preempted_last_hour,
    )
    placed = sorted((_placed(job) for job in rows.placed), key=placed_key)
    waiting = sorted((_waiting(job) for job in rows.queued), key=waiting_key)
    return Sight(pool, tuple(placed), tuple(waiting), blocked)


def _placed(job: PlacedRow) -> Placed:
    running = RunningJob(
        job.id,
        tuple(sorted(job.devices)),
        ledger.unix_ms(job.since),
        _known(job.expected_ms),
        _known(job.wall_ms),
        job.tier,
        job.account_id,
    )
    return Placed(running, job.grace_ms, job.requeues, job.probe, job.stop_asked is not None)


def _waiting(job: Queued) -> Waiting:
    claim = tuple(job.claim or ())
    return Waiting(_queued(job), job.grace_ms, job.requeues, claim, bool(claim) and not job.held)


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
        row.lend_devices,
        row.usage_gflop,
        0 if row.usage_at is None else ledger.unix_ms(row.usage_at),
        row.path,
    )


def _queued(job: Queued) -> QueuedJob:
    return QueuedJob(
        job.id,
        job.position,
        Request(job.count, job.kind, job.model),
        job.priority,
        yields=job.probe,
        owner=job.account_id,
        waits_since_ms=ledger.unix_ms(job.queued_at),
        expected_ms=_known(job.expected_ms),
        limit_ms=_known(job.wall_ms),
        tier=job.tier,
    )


# --- apply -----------------------------------------------------------------------------------


def _apply(
    platform: Platform, tx: Tx, moves: Moves, plan: Plan, rows: Snapshot, now: datetime
) -> tuple[list[StartOrder], list[str]]:
    """Write the moves down; the orders to start, and the attempts to stop."""
    orders = write_attempts(platform, tx, moves.starts, rows.devices, now) if moves.starts else []
    victims: list[str] = []
    if moves.preempts:
        stopped = [p.job_id for p in moves.preempts]
        victims = [row.id for row in tx.all(Name, "attempts_preempted", jobs=stopped)]
        tx.run("jobs_state", ids=stopped, state="stopping")
    _write_claims(tx, moves, plan)
    _write_waits(tx, plan, rows)
    return orders, victims


def _write_claims(tx: Tx, moves: Moves, plan: Plan) -> None:
    """New claims, and the end of those whose devices are not to be had any more."""
    views = [json(_view(plan.waits[c.job_id], None)) for c in moves.claims]
    if moves.claims or moves.void:
        tx.run(
            "jobs_claim",
            ids=[*(c.job_id for c in moves.claims), *moves.void],
            claims=[
                *(_SEPARATOR.join(c.devices) for c in moves.claims),
                *(None for _ in moves.void),
            ],
            waiting=[*views, *(None for _ in moves.void)],
        )


def _write_waits(tx: Tx, plan: Plan, rows: Snapshot) -> None:
    """Reasons that have changed."""
    queued = {job.id: job for job in rows.queued}
    views = {name: _view(wait, queued[name].stop_reason) for name, wait in plan.waits.items()}
    news = {name: view for name, view in views.items() if view != queued[name].waiting}
    if news:
        tx.run("jobs_waiting", jobs=list(news), waiting=[json(view) for view in news.values()])


def _view(wait: Wait, stop_reason: str | None) -> dict[str, Any]:
    text = wait.text
    if stop_reason is not None:
        text = f"stopped before ({stop_reason}) and waits to go on: {text}"
    return {"code": wait.code.value, "text": text, "remedy": wait.remedy, "data": dict(wait.data)}
