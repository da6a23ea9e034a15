"""The verbs of the service loop: observe, settle, schedule, stop, recover.

Each loads what it needs, lets the core decide, and applies the decision: the intent is committed
first and the engine is called after, never inside a transaction. Every verb can be repeated after
a crash at any point.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import structlog

from dusuan.app import bindings, jobs, wallets
from dusuan.app.attempts import end_attempts, order_for, start_attempt
from dusuan.app.context import Platform
from dusuan.core.ledger.balances import Balances
from dusuan.core.ledger.tick import Claim, Outcome, due, tick
from dusuan.core.metering.journal import EndReason, Exit
from dusuan.core.metering.usage import Meter, fold
from dusuan.engines.base import Action, Lease, Observation
from dusuan.store import ledger
from dusuan.store.database import Tx, json
from dusuan.store.ledger import Promise
from dusuan.store.rows import (
    Attempt,
    Id,
    Job,
    LiveCursor,
)

log = structlog.get_logger()

LOST_ATTEMPTS_MAX = 3
MARKS_MAX = 200


# --- observe ---------------------------------------------------------------------------------


def observe(platform: Platform) -> int:
    """Read the journals of live attempts; how many attempts had news."""
    with platform.store.transaction() as tx:
        cursors = {row.id: row.cursor for row in tx.all(LiveCursor, "cursors_live")}
    if not cursors:
        return 0
    news = platform.engine.observe(cursors)
    for observation in news:
        for problem in observation.problems:
            log.warning("journal_damaged", attempt_id=observation.attempt_id, problem=problem)
    if news:
        with platform.store.transaction() as tx:
            _ingest(platform, tx, {o.attempt_id: o for o in news})
    return len(news)


def _ingest(platform: Platform, tx: Tx, news: Mapping[str, Observation]) -> None:
    """Fold the news into their attempts, all in a few statements. A repeat changes nothing."""
    attempts = [a for a in tx.all(Attempt, "attempts_lock", ids=list(news)) if a.state != "ended"]
    meters = {a.id: _advanced(a, news[a.id]) for a in attempts}
    _write_meters(tx, attempts, meters, news)
    bindings.note_done(tx, attempts, news)
    started = [a.job_id for a in attempts if _has_started(a, meters[a.id])]
    if started:
        tx.run("jobs_running", ids=started)
    exits = {a.id: meters[a.id].exit for a in attempts}
    end_attempts(
        tx, {name: ended for name, ended in exits.items() if ended is not None}, platform.now()
    )


def _advanced(attempt: Attempt, observation: Observation) -> Meter:
    meter = fold(_meter(attempt), observation.records)
    if meter.exit is None and observation.lost:
        meter = replace(meter, exit=_LOST if observation.began else _NOT_BEGUN)
    return meter


_LOST = Exit(EndReason.LOST, text="the process beside the job, or its node, is gone")
_NOT_BEGUN = Exit(EndReason.NOT_BEGUN, text="its machine could not begin it")


def _has_started(attempt: Attempt, meter: Meter) -> bool:
    return attempt.state == "starting" and meter.started_wall_ms is not None


def _meter(attempt: Attempt) -> Meter:
    fields = {k: v for k, v in attempt.meter.items() if k != "marks"}
    progress = fields.pop("progress", None)
    return Meter(**fields, progress=tuple(progress) if progress else None)


def _write_meters(
    tx: Tx,
    attempts: Sequence[Attempt],
    meters: Mapping[str, Meter],
    news: Mapping[str, Observation],
) -> None:
    known = [(a, meters[a.id], news[a.id]) for a in attempts]
    tx.run(
        "attempts_observed",
        ids=[a.id for a, _, _ in known],
        cursors=[o.cursor for _, _, o in known],
        held_ms=[m.held_ms for _, m, _ in known],
        meters=[json(_meter_document(*each)) for each in known],
        states=["running" if _has_started(a, m) else a.state for a, m, _ in known],
        started_at=[_moment(m.started_wall_ms) for _, m, _ in known],
    )


def _meter_document(attempt: Attempt, meter: Meter, observation: Observation) -> dict[str, Any]:
    document = {k: v for k, v in asdict(meter).items() if k != "exit"}
    return {**document, "marks": _marks(attempt, observation)}


def _moment(unix_ms: int | None) -> datetime | None:
    return None if unix_ms is None else ledger.from_unix_ms(unix_ms)


def _marks(attempt: Attempt, observation: Observation) -> list[list[float]]:
    """The first progress marks of an attempt: (elapsed seconds, done), for the plan menu."""
    marks = list(attempt.meter.get("marks", []))
    if observation.cursor <= attempt.cursor:
        return marks  # read before
    for record in observation.records:
        if record.progress is not None and len(marks) < MARKS_MAX:
            marks.append([record.held_ms / attempt.devices / 1_000, record.progress[0]])
    return marks


def live(platform: Platform) -> bool:
    """Whether any attempt has not ended."""
    with platform.store.transaction() as tx:
        return tx.one(Id, "attempt_live_any") is not None


# --- settle ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeaseNews:
    """A lease that was raised and has to be told to the engine."""

    attempt_id: str
    lease: Lease


def settle(platform: Platform) -> int:
    """Post what was used, renew what is set aside, close what has ended; how many attempts."""
    now = platform.now()
    with platform.store.transaction() as tx:
        loaded = ledger.load_claims(tx)
        claims = [claim for claim, _ in loaded if due(claim, platform.slices)]
        if not claims:
            return 0
        ticked = {claim.attempt_id for claim in claims}
        others = _drawn(claim for claim, _ in loaded if claim.attempt_id not in ticked)
        outcomes = _settle(platform, tx, claims, others, now)
        _close(platform, tx, {o.claim.job_id: o.claim for o in outcomes if o.claim.ended}, now)
    for news in _raised(outcomes, {c.attempt_id: p for c, p in loaded}):
        platform.engine.set_lease(news.attempt_id, news.lease)
    return len(outcomes)


def _drawn(claims: Iterable[Claim]) -> dict[int, int]:
    """GFLOP a second that running attempts draw on each account."""
    drawn: dict[int, int] = {}
    for claim in claims:
        for account in (claim.wallet, *claim.limits):
            drawn[account] = drawn.get(account, 0) + claim.gflop_per_s
    return drawn


def _settle(
    platform: Platform, tx: Tx, claims: Sequence[Claim], beside: dict[int, int], now: datetime
) -> tuple[Outcome, ...]:
    accounts = {a for c in claims for a in (c.wallet, *c.limits)}
    balances = Balances(ledger.lock_balances(tx, accounts))
    lots = ledger.load_lots(tx, {c.wallet for c in claims})
    house = ledger.load_house(tx)
    decided = tick(claims, balances, lots, house, platform.slices, ledger.unix_ms(now), beside)
    changed = tuple(outcome for outcome in decided.outcomes if outcome.changes)
    if changed or decided.lapsed:
        ledger.write_tick(tx, platform.new_id("trf"), replace(decided, outcomes=changed), now)
    return changed


def _raised(outcomes: Iterable[Outcome], promises: dict[str, Promise]) -> list[LeaseNews]:
    raised = []
    for outcome in outcomes:
        promise = promises[outcome.claim.attempt_id]
        if not outcome.claim.ended and outcome.held_ms_max > promise.lease_held_ms:
            lease = Lease(promise.lease_seq + 1, outcome.held_ms_max)
            raised.append(LeaseNews(outcome.claim.attempt_id, lease))
    return raised


def _close(platform: Platform, tx: Tx, claims: Mapping[str, Claim], now: datetime) -> None:
    """What becomes of jobs (by id) whose attempt has ended and is paid for."""
    if not claims:
        return
    attempts: dict[str, list[Attempt]] = {}
    locked = tx.all(Job, "jobs_lock", ids=list(claims))
    for attempt in tx.all(Attempt, "attempts_of_jobs", jobs=list(claims)):
        attempts.setdefault(attempt.job_id, []).append(attempt)
    for tried in attempts.values():
        if tried[-1].end_reason == EndReason.LOST:
            bindings.spare(tx, tried[-1])
    tx.run(
        "accounts_used",
        accounts=[job.account_id for job in locked],
        gflop=[
            claims[job.id].held_ms * attempts[job.id][-1].rating_gflops // 1_000 for job in locked
        ],
        half_life_s=platform.policy.half_life_s,
        now=now,
    )
    verdicts = {j.id: verdict(j, attempts[j.id], capped=_capped(claims[j.id])) for j in locked}
    again = {name: reason for name, (state, reason) in verdicts.items() if state == "queued"}
    if again:
        tx.run("jobs_requeue", ids=list(again), reasons=list(again.values()), now=now)
    ends = {name: end for name, end in verdicts.items() if name not in again}
    if ends:
        jobs.finish(tx, ends, now)


def _capped(claim: Claim) -> bool:
    """Whether the quote let nothing more be charged."""
    return claim.cover is not None and claim.cover.reached_by(claim.reserved_gflop)


def verdict(job: Job, attempts: Sequence[Attempt], *, capped: bool = False) -> tuple[str, str]:
    """The state and stop reason of a job after the last of its `attempts`.

    `capped`: its quote let nothing more be charged, and the centre bore what followed.

    A job that declares how it saves its state is queued again when its balance or its node failed
    it; every other job ends there, since starting over would cost its owner twice.
    """
    last = attempts[-1]
    lost = sum(a.end_reason in (EndReason.LOST, EndReason.NOT_BEGUN) for a in attempts)
    reason = last.end_reason or EndReason.LOST
    if reason == EndReason.EXIT:  # by itself, be it a moment after its cancellation
        ended_by = "signal" if last.exit_signal is not None else "exit"
        return ("succeeded" if last.exit_code == 0 else "failed"), ended_by
    if job.cancelled_by is not None:
        return "cancelled", "cancelled"
    if last.stop_asked == "preempted":
        return "queued", "preempted"
    if reason == EndReason.LEASE and capped:
        return "failed", "quote"
    if reason == EndReason.LEASE:
        return ("queued" if job.requeues else "failed"), "balance"
    if reason == EndReason.NOT_BEGUN and lost < LOST_ATTEMPTS_MAX:
        return "queued", "not_begun"  # nothing ran, so nothing is done twice
    if reason == EndReason.LOST:
        again = job.requeues and lost < LOST_ATTEMPTS_MAX
        return ("queued" if again else "failed"), "lost"
    if reason == EndReason.WALL_TIME and job.probe:
        return "succeeded", "wall_time"
    return "failed", str(reason)


# --- stop, lapse, recover --------------------------------------------------------------------


def stop_cancelled(platform: Platform) -> int:
    """Tell the engine to stop the attempts of cancelled jobs; how many were told."""
    with platform.store.transaction() as tx:
        attempts = tx.all(Attempt, "attempts_to_stop")
    for attempt in attempts:
        platform.engine.signal(attempt.id, Action.STOP)
        with platform.store.transaction() as tx:
            if tx.run("attempt_stop_asked", id=attempt.id, why="cancelled"):
                tx.run("jobs_state", ids=[attempt.job_id], state="stopping")
    return len(attempts)


def lapse_expired(platform: Platform) -> int:
    """Take expired degrees out of wallets that nobody is spending from; how many wallets."""
    now = platform.now()
    with platform.store.transaction() as tx:
        expired = [row.id for row in tx.all(Id, "wallets_with_expired_lots", now=now)]
    for wallet in expired:
        with platform.store.transaction() as tx:
            balances = Balances(ledger.lock_balances(tx, [wallet]))
            wallets.lapse_wallet(platform, tx, wallet, balances)
    return len(expired)


def recover(platform: Platform) -> int:
    """After a restart: finish starts that were committed but perhaps never reached the engine,
    and tell the engine again every lease and every stop in force. How many attempts are live.
    """
    platform.engine.adopt()
    with platform.store.transaction() as tx:
        live = [(a, _job_of(tx, a), _devices_of(tx, a)) for a in tx.all(Attempt, "attempts_live")]
    for attempt, job, devices in live:
        lease = Lease(attempt.lease_seq, attempt.lease_held_ms)
        if attempt.state == "starting" and attempt.cursor == 0:
            start_attempt(platform, order_for(platform, job, attempt.id, devices, lease))
        platform.engine.set_lease(attempt.id, lease)
        if attempt.stop_asked is not None:
            platform.engine.signal(attempt.id, Action.STOP)
    return len(live)


def _job_of(tx: Tx, attempt: Attempt) -> Job:
    job = tx.one(Job, "job_by_id", id=attempt.job_id)
    if job is None:  # the foreign key forbids it
        raise RuntimeError(f"{attempt.id} belongs to no job")
    return job


def _devices_of(tx: Tx, attempt: Attempt) -> tuple[str, ...]:
    rows = tx.dicts("devices_of_attempt", attempt_id=attempt.id)
    return tuple(row["device"] for row in rows)
