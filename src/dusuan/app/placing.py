"""The scheduling round of the service: a snapshot in, starts, preemptions and reasons out.

A job whose devices have to be left by others first is given a *claim* on exactly those devices: the
decision stands, and is carried out when the last of them is free.
"""

from __future__ import annotations

from datetime import datetime

from dusuan.app.attempts import start_attempt, write_attempts
from dusuan.app.context import Platform
from dusuan.app.loading import Snapshot
from dusuan.app.reasons import view
from dusuan.app.setting_aside import set_aside_missing
from dusuan.core.scheduling.live import Moves, decide
from dusuan.core.scheduling.model import Plan, Wait, WaitCode
from dusuan.engines.base import Action, StartOrder
from dusuan.store import ledger
from dusuan.store.database import Tx, json
from dusuan.store.rows import Name

_SEPARATOR = "\x1f"


def run_schedule(platform: Platform) -> int:
    """One scheduling round; how many jobs it started or stopped."""
    # 1. Load one snapshot of queue and pool.
    now = platform.now()
    with platform.store.snapshot() as tx:
        if not tx.one(Name, "job_queued_any"):
            return 0
        rows = platform.memory.load(tx, now)
    # 2. Set aside the first slice of jobs that have none; nothing at all starts on a sick machine.
    trouble = _in_trouble(platform)
    blocked = {} if trouble else set_aside_missing(platform, rows.queued, rows.inventory.ratings)
    # 3. Decide.
    seen = rows.sight(blocked, trouble)
    moves, plan = decide(seen, platform.policy, ledger.unix_ms(now))
    # 4. Apply: the intent first, with the record of the round, then the engine.
    with platform.store.transaction() as tx:
        orders, victims = _apply(platform, tx, moves, plan, rows, now)
        told = platform.reasons.write(tx, plan, rows.queued)
        noted = platform.recorder.note(tx, seen, moves, plan, platform.policy, now)
    platform.recorder.keep(noted)
    platform.reasons.keep(told)
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


# --- apply -----------------------------------------------------------------------------------


def _apply(
    platform: Platform, tx: Tx, moves: Moves, plan: Plan, rows: Snapshot, now: datetime
) -> tuple[list[StartOrder], list[str]]:
    """Write the moves down; the orders to start, and the attempts to stop."""
    orders = write_attempts(platform, tx, moves.starts, rows.inventory, now) if moves.starts else []
    victims: list[str] = []
    if moves.preempts:
        stopped = [p.job_id for p in moves.preempts]
        victims = [row.id for row in tx.all(Name, "attempts_preempted", jobs=stopped)]
        tx.run("jobs_state", ids=stopped, state="stopping")
    _write_claims(tx, moves, plan)
    return orders, victims


def _write_claims(tx: Tx, moves: Moves, plan: Plan) -> None:
    """New claims, and the end of those whose devices are not to be had any more."""
    views = [json(view(plan.waits[c.job_id], None)) for c in moves.claims]
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
