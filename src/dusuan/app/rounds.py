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

from dusuan.app import bindings, jobs, matching, wallets
from dusuan.app.context import Platform
from dusuan.core import units
from dusuan.core.ledger.balances import Balances
from dusuan.core.ledger.holds import open_hold
from dusuan.core.ledger.tick import Claim, Outcome, due, first_slice, tick
from dusuan.core.metering.journal import EndReason, Exit
from dusuan.core.metering.usage import Meter, fold
from dusuan.core.scheduling.model import (
    Cluster,
    DeviceSlot,
    Plan,
    QueuedJob,
    Request,
    Start,
    Wait,
    WaitCode,
)
from dusuan.core.scheduling.round import schedule
from dusuan.core.workload.document import from_document
from dusuan.core.workload.jobspec import JobSpec
from dusuan.engines.base import Action, Lease, Observation, StartFailed, StartOrder
from dusuan.store import ledger
from dusuan.store.database import Tx, json
from dusuan.store.ledger import Promise
from dusuan.store.rows import (
    Account,
    Attempt,
    Binding,
    DeviceRow,
    Hold,
    Id,
    Job,
    LedgerAccount,
    LiveCursor,
    Name,
    Queued,
)

log = structlog.get_logger()

LOST_ATTEMPTS_MAX = 3
PROBE_TICK_MS = 200
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
    _end(tx, {name: ended for name, ended in exits.items() if ended is not None}, platform.now())


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


def _end(tx: Tx, exits: Mapping[str, Exit], now: datetime) -> None:
    """Close attempts. Their devices are free; the next tick settles them and closes their jobs."""
    if not exits:
        return
    ended = list(exits.values())
    tx.run(
        "attempts_ended",
        ids=list(exits),
        reasons=[e.reason.value for e in ended],
        codes=[e.code for e in ended],
        signals=[e.signal for e in ended],
        texts=[e.text for e in ended],
        now=now,
    )
    tx.run("allocations_end", attempts=list(exits), now=now)


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
        _close(tx, {o.claim.job_id: o.claim for o in outcomes if o.claim.ended}, now)
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


def _close(tx: Tx, claims: Mapping[str, Claim], now: datetime) -> None:
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
    verdicts = {j.id: verdict(j, attempts[j.id], capped=_capped(claims[j.id])) for j in locked}
    again = {name: reason for name, (state, reason) in verdicts.items() if state == "queued"}
    if again:
        tx.run("jobs_requeue", ids=list(again), reasons=list(again.values()))
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


# --- schedule --------------------------------------------------------------------------------


def run_schedule(platform: Platform) -> int:
    """One scheduling round: start what can start, give every other job its reason."""
    # 1. Load one snapshot of queue and pool.
    with platform.store.snapshot() as tx:
        queued = tx.all(Queued, "jobs_queued")
        devices = tx.all(DeviceRow, "devices")
    if not queued:
        return 0
    # 2. Set aside the first slice of jobs that have none; nothing at all starts on a sick machine.
    blocked = _in_trouble(platform, queued) or _set_aside_missing(platform, queued, devices)
    # 3. Decide.
    now = platform.now()
    queue = [_queued(job, blocked.get(job.id)) for job in queued]
    plan = schedule(_cluster(devices), queue, platform.policy, ledger.unix_ms(now))
    # 4. Apply: the intent first, then the engine.
    with platform.store.transaction() as tx:
        orders = _apply(platform, tx, plan, {j.id: j for j in queued}, devices, now)
    for order in orders:
        _start(platform, order)
    return len(orders)


def _in_trouble(platform: Platform, queued: Sequence[Queued]) -> dict[str, Wait]:
    """Why no job can start, for each of them, when the engine says so."""
    trouble = platform.engine.trouble()
    if not trouble:
        return {}
    wait = Wait(WaitCode.TROUBLE, f"nothing can be started now: {trouble}", "tell the operator")
    return {job.id: wait for job in queued}


def _cluster(devices: Sequence[DeviceRow]) -> Cluster:
    return Cluster(
        tuple(
            DeviceSlot(
                device=d.device,
                node=d.node,
                kind=d.kind,
                model=d.model,
                ready=d.state == "ready",
                rated=d.gflops is not None,
                holder=d.holder,
            )
            for d in devices
        )
    )


def _queued(job: Queued, blocked: Wait | None) -> QueuedJob:
    request = Request(job.count, job.kind, job.model)
    return QueuedJob(
        job.id, job.position, request, job.priority, blocked, job.probe, job.account_id
    )


@dataclass(frozen=True, slots=True)
class _Need:
    """A queued job that has no hold, who pays for it, and GFLOP to set aside before it starts."""

    job: Queued
    account: Account
    wanted_gflop: int

    @property
    def ledger_accounts(self) -> list[int]:
        return [self.account.wallet_id, *self.account.limit_ids]


def _set_aside_missing(
    platform: Platform, queued: Sequence[Queued], devices: Sequence[DeviceRow]
) -> dict[str, Wait]:
    """Open the first hold of queued jobs that have none; the reason for those that cannot.

    Who cannot afford it is found without a lock, since most rounds change nothing for them.
    """
    without = [job for job in queued if not job.held]
    if not without:
        return {}
    with platform.store.transaction() as tx:
        needs = _needs(platform, tx, without, devices)
        blocked = _shortages(tx, needs)
    affordable = [need for need in needs if need.job.id not in blocked]
    if affordable:
        with platform.store.transaction() as tx:
            blocked |= _open_holds(platform, tx, affordable)
    return blocked


def _needs(
    platform: Platform, tx: Tx, without: Sequence[Queued], devices: Sequence[DeviceRow]
) -> list[_Need]:
    """Jobs without a rating are left out: the round itself says that they lack one."""
    ids = sorted({job.account_id for job in without})
    accounts = {account.id: account for account in tx.all(Account, "accounts_by_ids", ids=ids)}
    ratings = {model: matching.rating_of(model, devices) for model in {j.model for j in without}}
    bound = bindings.of_jobs(tx, [job.id for job in without])
    rated = [(job, rating[0]) for job in without if (rating := ratings[job.model])]
    return [
        _Need(job, accounts[job.account_id], _first(platform, job, rating, bound.get(job.id)))
        for job, rating in rated
    ]


def _first(platform: Platform, job: Queued, rating_gflops: int, bound: Binding | None) -> int:
    rate = units.tier_rate(rating_gflops, job.tier_permille) * job.count
    return bindings.first_hold(first_slice(rate, job.grace_ms, platform.slices), bound)


def _shortages(tx: Tx, needs: Sequence[_Need]) -> dict[str, Wait]:
    """Which of `needs`, served in order, would find too little; nothing is changed."""
    ids = sorted({account for need in needs for account in need.ledger_accounts})
    rows = {row.id: row for row in tx.all(LedgerAccount, "balances_read", ids=ids)}
    balances = Balances({row.id: ledger.as_balance(row) for row in rows.values()})
    blocked: dict[str, Wait] = {}
    for need in needs:
        account = need.account
        shortage = open_hold(account.wallet_id, account.limit_ids, need.wanted_gflop, balances)
        if shortage is not None:
            path = rows[shortage.account].path
            blocked[need.job.id] = jobs.shortage_wait(path, account, shortage)
    return blocked


def _open_holds(platform: Platform, tx: Tx, needs: Sequence[_Need]) -> dict[str, Wait]:
    """Open them for real: jobs are locked first (one may have been cancelled), then balances."""
    locked = tx.all(Name, "jobs_lock_queued", ids=[need.job.id for need in needs])
    still = {row.id for row in locked}
    ledger.lock_balances(tx, (a for need in needs for a in need.ledger_accounts))
    blocked: dict[str, Wait] = {}
    for need in needs:
        job, account = need.job, need.account
        if job.id not in still:
            continue
        short = jobs.set_aside(platform, tx, account, job.id, need.wanted_gflop)
        if short is not None:
            row = tx.all(LedgerAccount, "balances_read", ids=[short.account])[0]
            blocked[job.id] = jobs.shortage_wait(row.path, account, short)
    return blocked


def _apply(
    platform: Platform,
    tx: Tx,
    plan: Plan,
    queued: dict[str, Queued],
    devices: Sequence[DeviceRow],
    now: datetime,
) -> list[StartOrder]:
    orders = _write_attempts(platform, tx, plan.starts, devices, now) if plan.starts else []
    views = {name: _wait_view(wait, queued[name]) for name, wait in plan.waits.items()}
    news = {name: view for name, view in views.items() if view != queued[name].waiting}
    if news:
        tx.run("jobs_waiting", jobs=list(news), waiting=[json(view) for view in news.values()])
    return orders


def _wait_view(wait: Wait, job: Queued) -> dict[str, Any]:
    text = wait.text
    if job.stop_reason is not None:
        text = f"stopped before ({job.stop_reason}) and waits to go on: {text}"
    return {"code": wait.code.value, "text": text, "remedy": wait.remedy, "data": dict(wait.data)}


@dataclass(frozen=True, slots=True)
class _Intent:
    """One start as it is recorded before the engine is called."""

    attempt_id: str
    job: Job
    start: Start
    first: DeviceRow
    rating: tuple[int, str]
    billed_gflops: int
    lease: Lease


def _write_attempts(
    platform: Platform,
    tx: Tx,
    starts: Sequence[Start],
    devices: Sequence[DeviceRow],
    now: datetime,
) -> list[StartOrder]:
    """Record the intent to start: attempts, allocations, leases. The engine is called after."""
    intents = _intents(platform, tx, starts, devices)
    tx.run(
        "attempts_insert",
        ids=[i.attempt_id for i in intents],
        jobs=[i.job.id for i in intents],
        devices=[len(i.start.devices) for i in intents],
        makes=[i.first.make for i in intents],
        models=[i.first.model for i in intents],
        kinds=[i.first.kind for i in intents],
        ratings=[i.rating[0] for i in intents],
        billed=[i.billed_gflops for i in intents],
        bases=[i.rating[1] for i in intents],
        leases=[i.lease.held_ms_max for i in intents],
        isolation=platform.engine.capabilities().isolation,
        now=now,
    )
    placed = [(i.attempt_id, device) for i in intents for device in i.start.devices]
    tx.run(
        "allocations_insert",
        attempts=[a for a, _ in placed],
        devices=[d for _, d in placed],
        now=now,
    )
    tx.run("jobs_state", ids=[i.job.id for i in intents], state="starting")
    return [_order(platform, i.job, i.attempt_id, i.start.devices, i.lease) for i in intents]


def _intents(
    platform: Platform, tx: Tx, starts: Sequence[Start], devices: Sequence[DeviceRow]
) -> list[_Intent]:
    """The starts of jobs that are still queued, each within what its hold sets aside."""
    ids = [start.job_id for start in starts]
    locked = {job.id: job for job in tx.all(Job, "jobs_lock", ids=ids)}
    holds = {hold.job_id: hold for hold in tx.all(Hold, "holds_open_of", jobs=ids)}
    bound = bindings.of_jobs(tx, [job.id for job in locked.values() if job.quote_id])
    by_name = {d.device: d for d in devices}
    intents = []
    for start in starts:
        job = locked.get(start.job_id)
        if job is None or job.state != "queued" or job.cancelled_by is not None:
            continue
        hold, rating = holds.get(job.id), matching.rating_of(job.model, devices)
        if hold is None or rating is None:  # the round starts no job without both
            raise RuntimeError(f"{job.id} was to start without a hold or a rating")
        billed = units.tier_rate(rating[0], job.tier_permille)
        ahead = hold.reserved_gflop + bindings.pledged_gflop(bound.get(job.id), hold.reserved_gflop)
        lease = Lease(1, units.held_ms_within(billed, ahead))
        first = by_name[start.devices[0]]
        intents.append(_Intent(platform.new_id("att"), job, start, first, rating, billed, lease))
    return intents


def _order(
    platform: Platform, job: Job, attempt_id: str, devices: tuple[str, ...], lease: Lease
) -> StartOrder:
    spec = from_document(job.spec)
    files = None if job.upload_id is None else platform.uploads / f"{job.upload_id}.tar.gz"
    memory = spec.resources.memory_gib
    return StartOrder(
        job_id=job.id,
        attempt_id=attempt_id,
        devices=devices,
        lease=lease,
        argv=spec.argv,
        script=_script(spec.setup, spec.run),
        env=dict(spec.envs),
        files=files,
        checkpoint_signal=spec.checkpoint.signal if spec.checkpoint else "SIGTERM",
        grace_ms=job.grace_ms,
        wall_ms=job.wall_ms,
        tick_ms=PROBE_TICK_MS if job.probe else 1_000,
        network=spec.resources.network,
        memory_mib=None if memory is None else round(memory * 1_024),
        progress_pattern=spec.progress.pattern if spec.progress else None,
        progress_total=_progress_total(spec),
    )


def _progress_total(spec: JobSpec) -> float | None:
    """What a pattern without a total of its own holds progress against."""
    if spec.progress is None or spec.progress.total is not None:
        return None if spec.progress is None else spec.progress.total
    return spec.workload.steps


def _script(setup: str | None, run: str | None) -> str | None:
    if run is None:
        return None
    return run if setup is None else f"{setup}\n{run}"


def _start(platform: Platform, order: StartOrder) -> None:
    try:
        platform.engine.start(order)
    except StartFailed as failed:
        _start_failed(platform, order.attempt_id, str(failed))
    except OSError as error:
        # A broken machine is not the job's fault: it is tried again.
        log.exception("engine_start_failed", attempt_id=order.attempt_id)
        text = f"its machine could not begin it: {error.strerror or error}"
        _start_failed(platform, order.attempt_id, text, EndReason.NOT_BEGUN)
    except Exception as error:
        # A bug in the engine: this job must not stop everybody else's.
        log.exception("engine_start_failed", attempt_id=order.attempt_id)
        platform.engine.signal(order.attempt_id, Action.KILL)
        text = f"the engine failed to start it: {type(error).__name__}; see the platform's log"
        _start_failed(platform, order.attempt_id, text)


def _start_failed(
    platform: Platform, attempt_id: str, text: str, reason: EndReason = EndReason.START_FAILED
) -> None:
    with platform.store.transaction() as tx:
        attempt = tx.one(Attempt, "attempt_lock", id=attempt_id)
        if attempt is not None and attempt.state != "ended":
            _end(tx, {attempt_id: Exit(reason, text=text)}, platform.now())


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
            _start(platform, _order(platform, job, attempt.id, devices, lease))
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
