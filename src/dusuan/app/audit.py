"""The audit: every invariant of the ledger and the meter, checked over the whole database."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from dusuan.core.metering.usage import UsageInterval, tiling_problems
from dusuan.store.database import Tx

# Name of the check -> the query that names what breaks it.
_QUERIES = {
    "debits_equal_credits": "audit_debits_equal_credits",
    "balances_equal_entries": "audit_balances_equal_entries",
    "ceilings_equal_usage": "audit_ceilings_equal_usage",
    "pending_equals_open_holds": "audit_pending_equals_open_holds",
    "no_balance_below_its_floor": "audit_floors_hold",
    "lots_equal_wallets": "audit_lots_equal_wallets",
    "lots_equal_uses": "audit_lots_equal_uses",
    "lots_equal_purchases": "audit_lots_equal_purchases",
    "holds_resolve_once": "audit_holds_resolve_once",
    "jobs_have_their_holds": "audit_jobs_have_their_holds",
    "usage_equals_lot_uses": "audit_usage_equals_lot_uses",
    "registers_are_metered": "audit_registers",
    "devices_are_not_shared": "audit_devices_not_shared",
    "house_accounts_agree": "audit_house",
    "quotes_cap_bills": "audit_quotes_cap_bills",
}


@dataclass(frozen=True, slots=True)
class _Subject:
    subject: str


@dataclass(frozen=True, slots=True)
class _Attempt:
    id: str
    job_id: str
    rating_gflops: int
    metered_ms: int
    held_ms: int
    settled: bool


def audit(tx: Tx) -> dict[str, Any]:
    """Check everything in one snapshot. `ok` is whether every invariant holds everywhere.

    `alarms` are not broken invariants but losses somebody should look at: overrun that the centre
    had to bear.
    """
    checks = [_check(name, _subjects(tx, query)) for name, query in _QUERIES.items()]
    checks.append(_check("usage_tiles_attempts", _tiling(tx)))
    return {
        "ok": all(check["ok"] for check in checks),
        "checks": checks,
        "alarms": _subjects(tx, "audit_overrun"),
    }


def _check(name: str, subjects: list[str]) -> dict[str, Any]:
    return {"name": name, "ok": not subjects, "subjects": subjects}


def _subjects(tx: Tx, query: str) -> list[str]:
    return [row.subject for row in tx.all(_Subject, query)]


def _tiling(tx: Tx) -> list[str]:
    intervals: dict[str, list[UsageInterval]] = defaultdict(list)
    for row in tx.dicts("audit_usage"):
        attempt_id = row.pop("attempt_id")
        intervals[attempt_id].append(UsageInterval(**row))
    return [
        f"job {a.job_id} (attempt {a.id}): {problem}"
        for a in tx.all(_Attempt, "audit_attempts")
        for problem in tiling_problems(intervals[a.id], a.rating_gflops, a.metered_ms)
    ]
