"""How attempts begin and end: the intent is recorded first, the engine is called after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from dusuan.app import bindings
from dusuan.app.context import Platform
from dusuan.app.loading import Inventory
from dusuan.core import units
from dusuan.core.metering.journal import EndReason, Exit
from dusuan.core.scheduling.model import Start
from dusuan.core.workload.document import from_document
from dusuan.core.workload.jobspec import JobSpec
from dusuan.engines.base import Action, Lease, StartFailed, StartOrder
from dusuan.store.database import Tx
from dusuan.store.rows import Attempt, Hold, Job, RatedDevice

log = structlog.get_logger()

PROBE_TICK_MS = 200


@dataclass(frozen=True, slots=True)
class _Intent:
    """One start as it is recorded before the engine is called."""

    attempt_id: str
    job: Job
    start: Start
    first: RatedDevice
    rating: tuple[int, str]
    billed_gflops: int
    lease: Lease


def write_attempts(
    platform: Platform,
    tx: Tx,
    starts: Sequence[Start],
    inventory: Inventory,
    now: datetime,
) -> list[StartOrder]:
    """Record the intent to start: attempts, allocations, leases. The engine is called after."""
    intents = _intents(platform, tx, starts, inventory)
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
    return [order_for(platform, i.job, i.attempt_id, i.start.devices, i.lease) for i in intents]


def _intents(
    platform: Platform, tx: Tx, starts: Sequence[Start], inventory: Inventory
) -> list[_Intent]:
    """The starts of jobs that are still queued, each within what its hold sets aside."""
    ids = [start.job_id for start in starts]
    locked = {job.id: job for job in tx.all(Job, "jobs_lock", ids=ids)}
    holds = {hold.job_id: hold for hold in tx.all(Hold, "holds_open_of", jobs=ids)}
    bound = bindings.of_jobs(tx, [job.id for job in locked.values() if job.quote_id])
    intents = []
    for start in starts:
        job = locked.get(start.job_id)
        if job is None or job.state != "queued" or job.cancelled_by is not None:
            continue
        hold, rating = holds.get(job.id), inventory.ratings.get(job.model or "")
        if hold is None or rating is None:  # the round starts no job without both
            raise RuntimeError(f"{job.id} was to start without a hold or a rating")
        billed = units.tier_rate(rating[0], job.tier_permille)
        ahead = hold.reserved_gflop + bindings.pledged_gflop(bound.get(job.id), hold.reserved_gflop)
        lease = Lease(1, units.held_ms_within(billed, ahead))
        first = inventory.rows[start.devices[0]]
        intents.append(_Intent(platform.new_id("att"), job, start, first, rating, billed, lease))
    return intents


def order_for(
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


def start_attempt(platform: Platform, order: StartOrder) -> None:
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
            ended = Exit(reason, text=text)
            end_attempts(tx, {attempt_id: ended}, platform.now())


def end_attempts(tx: Tx, exits: Mapping[str, Exit], now: datetime) -> None:
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
