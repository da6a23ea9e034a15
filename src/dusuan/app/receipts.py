"""The live meter of a job and its receipt: both registers, what paid, and under which isolation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dusuan.app import bindings, jobs, quotes
from dusuan.app.access import Actor, Need, job_for
from dusuan.app.context import refuse
from dusuan.core import units
from dusuan.core.planning.menu import price_fen
from dusuan.core.workload.document import from_document
from dusuan.store import ledger
from dusuan.store.database import Tx
from dusuan.store.rows import Attempt, DeviceRow, Job, LedgerAccount

FLOP_PER_GFLOP = 1_000_000_000


def receipt(tx: Tx, actor: Actor, job_id: str) -> dict[str, Any]:
    """The receipt of a job that has ended. Raises `Refused` conflict while it has not."""
    job = job_for(tx, actor, job_id, Need.READ)
    attempts = tx.all(Attempt, "attempts_of_job", job_id=job.id)
    if job.state not in jobs.FINAL or any(not a.settled for a in attempts):
        raise refuse(
            "conflict", "not_ended", f"{job.id} is {job.state}; its receipt comes when it has ended"
        )
    usage = tx.dicts("usage_of_job", job_id=job.id)[0]
    lots = tx.dicts("uses_of_job", job_id=job.id)
    last = attempts[-1] if attempts else None
    delivered, held = _delivered(attempts), _held(attempts)
    bound = bindings.view(tx, job, attempts)
    return {
        "job_id": job.id,
        "name": job.name,
        "account": job.account_path,
        "state": job.state,
        "stop_reason": job.stop_reason,
        "device": job.model,
        "count": job.count,
        "attempts": len(attempts),
        **_ran_on(tx, last),
        "meter_basis": "held",
        "held_ms": sum(a.held_ms for a in attempts),
        "held_gflop": held,
        "held_degrees": units.degrees_text(held),
        **_tier(job),
        "charged_gflop": usage["settled_gflop"],
        "overrun_gflop": usage["overrun_gflop"],
        "borne_gflop": usage["borne_gflop"],
        "quote": bound,
        "probes": [] if job.quote_id is None else probe_bill(tx, job.quote_id),
        "delivered_gflop": delivered,
        "delivered_source": None if delivered is None else "reported by the job",
        "lots": lots,
        "charge_fen": sum(lot["fen"] for lot in lots),
        "balance_before_gflop": int(job.balance_before_gflop),
        "balance_after_gflop": _whole(job.balance_after_gflop),
        "notes": [*_notes(delivered, held, _spread(tx, job.model)), *_quote_notes(job, bound)],
        "submitted_at": job.submitted_at.isoformat(),
        "finished_at": None if job.finished_at is None else job.finished_at.isoformat(),
    }


def _ran_on(tx: Tx, last: Attempt | None) -> dict[str, Any]:
    """Where the last attempt ran, at which rating, how far apart from others, and what it said."""
    if last is None:
        nothing = dict.fromkeys(("rating_gflops", "rating_basis", "isolation"))
        return {"devices": [], **nothing, "result": {}}
    return {
        "devices": [row["device"] for row in tx.dicts("devices_of_attempt", attempt_id=last.id)],
        "rating_gflops": last.rating_gflops,
        "rating_basis": last.rating_basis,
        "isolation": last.isolation,
        "result": dict(last.meter.get("result", {})),
    }


def _tier(job: Job) -> dict[str, Any]:
    return {"tier": from_document(job.spec).goal.tier, "tier_permille": job.tier_permille}


def _held(attempts: Sequence[Attempt]) -> int:
    """GFLOP that the devices could have done while they were held, whatever the tier bills."""
    return sum(units.held_gflop(a.rating_gflops, a.held_ms) for a in attempts)


def _quote_notes(job: Job, bound: Mapping[str, Any] | None) -> list[str]:
    if bound is None:
        return []
    notes = []
    if job.stop_reason == "quote":
        notes.append(
            "it was stopped: it had used all that its quote let it be charged, and all that the "
            "centre bears beyond that; describe the work anew and quote again"
        )
    if bound["centre_gflop"]:
        share = units.degrees_text(bound["centre_gflop"])
        notes.append(f"it took more than was quoted: {share} degrees of it are the centre's")
    if bound["beyond_gflop"]:
        notes.append("it did more than its quote described; that part was billed in full")
    return notes


def _whole(value: int | None) -> int | None:
    return None if value is None else int(value)


def _delivered(attempts: Sequence[Attempt]) -> int | None:
    """GFLOP reported by the job over all attempts, None when no attempt reported any.

    The counter is the job's own and cumulative over a resumed run, so the highest one counts.
    """
    reported = [a.meter["flop"] for a in attempts if a.meter.get("flop") is not None]
    return max(reported) // FLOP_PER_GFLOP if reported else None


def _spread(tx: Tx, model: str | None) -> float:
    """The widest relative spread among the measurements of a model's devices."""
    devices = tx.all(DeviceRow, "devices")
    return max((d.spread or 0.0 for d in devices if d.model == model), default=0.0)


def _notes(delivered: int | None, held: int, spread: float) -> list[str]:
    """More delivered than held, beyond the calibration's own interval, is a fault to report."""
    if delivered is not None and delivered > held * (1 + spread):
        return ["more was reported as delivered than was held: the report or the rating is wrong"]
    return []


def meter(tx: Tx, actor: Actor, job_id: str) -> dict[str, Any]:
    """The live meter: degrees held so far, what they cost, and how long the balance lasts."""
    job = job_for(tx, actor, job_id, Need.READ)
    attempts = tx.all(Attempt, "attempts_of_job", job_id=job.id)
    account = jobs.account_of(tx, job)
    held = _held(attempts)
    posted = sum(lot["fen"] for lot in tx.dicts("uses_of_job", job_id=job.id))
    open_gflop = sum(
        units.held_gflop(a.billed_gflops or a.rating_gflops, a.held_ms)
        - units.held_gflop(a.billed_gflops or a.rating_gflops, a.metered_ms)
        for a in attempts
    )
    last = attempts[-1] if attempts else None
    return {
        "job_id": job.id,
        "state": job.state,
        "stop_reason": job.stop_reason,
        "waiting": job.waiting if job.state == "queued" else None,
        "held_ms": sum(a.held_ms for a in attempts),
        "held_gflop": held,
        "held_degrees": units.degrees_text(held),
        "cost_fen": _cost_fen(
            tx, job, posted, price_fen(quotes.price_for(tx, account), open_gflop)
        ),
        "balance_left_s": _balance_left_s(tx, account.wallet_id),
        "progress": (last.meter.get("progress") if last else None),
        "attempt": last.number if last else None,
    }


def _cost_fen(tx: Tx, job: Job, posted_fen: int, open_fen: int) -> int:
    """What is posted and what is not yet, as far as an accepted quote lets it be charged."""
    bound = bindings.of_jobs(tx, [job.id]).get(job.id)
    if bound is None or bound.done_attempt is not None:
        return posted_fen + open_fen
    return min(posted_fen + open_fen, bound.cap_fen)


def _balance_left_s(tx: Tx, wallet_id: int) -> float | None:
    """Seconds until everything that pays from this wallet has used it up; None when idle."""
    running = [c for c, _ in ledger.load_claims(tx, wallet_id) if not c.ended]
    rate = sum(c.gflop_per_s for c in running)
    if not rate:
        return None
    wallet = ledger.as_balance(tx.all(LedgerAccount, "balances_read", ids=[wallet_id])[0])
    unposted = sum(
        units.held_gflop(c.rating_gflops, c.held_ms)
        - units.held_gflop(c.rating_gflops, c.metered_ms)
        for c in running
    )
    return round(max(wallet.posted - unposted, 0) / rate, 1)


def probe_bill(tx: Tx, quote_id: str) -> list[dict[str, Any]]:
    """What the probes of a quote held and cost."""
    return [
        {
            "job_id": job.id,
            "count": job.count,
            **tx.dicts("usage_of_job", job_id=job.id)[0],
            "charge_fen": sum(lot["fen"] for lot in tx.dicts("uses_of_job", job_id=job.id)),
        }
        for job in tx.all(Job, "probes_of", quote_id=quote_id)
    ]
