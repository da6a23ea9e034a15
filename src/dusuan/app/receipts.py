"""The live meter of a job and its receipt: both registers, what paid, and under which isolation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dusuan.app import jobs, quotes
from dusuan.app.access import Actor, Need, job_for
from dusuan.app.context import refuse
from dusuan.core import units
from dusuan.core.planning.menu import price_fen
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
    devices = tx.dicts("devices_of_attempt", attempt_id=last.id) if last else []
    delivered = _delivered(attempts)
    return {
        "job_id": job.id,
        "name": job.name,
        "account": job.account_path,
        "state": job.state,
        "stop_reason": job.stop_reason,
        "device": job.model,
        "count": job.count,
        "devices": [row["device"] for row in devices],
        "attempts": len(attempts),
        "rating_gflops": last.rating_gflops if last else None,
        "rating_basis": last.rating_basis if last else None,
        "meter_basis": "held",
        "held_ms": sum(a.held_ms for a in attempts),
        "held_gflop": usage["held_gflop"],
        "held_degrees": units.degrees_text(usage["held_gflop"]),
        "charged_gflop": usage["settled_gflop"],
        "overrun_gflop": usage["overrun_gflop"],
        "delivered_gflop": delivered,
        "delivered_source": None if delivered is None else "reported by the job",
        "lots": lots,
        "charge_fen": sum(lot["fen"] for lot in lots),
        "balance_before_gflop": int(job.balance_before_gflop),
        "balance_after_gflop": _whole(job.balance_after_gflop),
        "isolation": last.isolation if last else None,
        "result": dict(last.meter.get("result", {})) if last else {},
        "notes": _notes(delivered, usage["held_gflop"], _spread(tx, job.model)),
        "submitted_at": job.submitted_at.isoformat(),
        "finished_at": None if job.finished_at is None else job.finished_at.isoformat(),
    }


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
    held = sum(units.held_gflop(a.rating_gflops, a.held_ms) for a in attempts)
    posted = sum(lot["fen"] for lot in tx.dicts("uses_of_job", job_id=job.id))
    open_gflop = sum(
        units.held_gflop(a.rating_gflops, a.held_ms)
        - units.held_gflop(a.rating_gflops, a.metered_ms)
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
        "cost_fen": posted + price_fen(quotes.price_for(tx, account), open_gflop),
        "balance_left_s": _balance_left_s(tx, account.wallet_id),
        "progress": (last.meter.get("progress") if last else None),
        "attempt": last.number if last else None,
    }


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
