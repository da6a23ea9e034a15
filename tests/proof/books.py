"""What the database says, read in one go, in the auditor's words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

_ACCOUNTS = """SELECT path, posted_dr, posted_cr, pending_dr, floor FROM ledger_account
WHERE path = ANY(%s)"""
_LOTS = """SELECT l.path, t.id, t.initial_gflop, t.remaining_gflop, t.paid_fen, t.spent_fen,
       t.priority, t.granted, floor(extract(epoch FROM t.created_at) * 1000)::bigint,
       floor(extract(epoch FROM t.expires_at) * 1000)::bigint
FROM ledger_account l JOIN lot t ON t.wallet_id = l.id AND t.remaining_gflop > 0
WHERE l.path = ANY(%s)"""
_HOLDS = "SELECT job_id, seq, reserved_gflop FROM hold WHERE resolved_at IS NULL"
_JOBS = """SELECT j.id, j.state, a.id, a.held_ms, a.metered_ms, a.usage_seq, a.lease_held_ms
FROM job j LEFT JOIN attempt a ON a.job_id = j.id AND NOT a.settled WHERE j.id = ANY(%s)"""
_ENTRIES = """SELECT l.path, sum(e.dr), sum(e.cr) FROM entry e JOIN ledger_account l
ON l.id = e.account_id WHERE e.transfer_id = ANY(%s) GROUP BY 1"""


@dataclass(frozen=True)
class Page:
    """Rows by name: accounts, open lots by wallet, open holds, jobs, and new entries by account."""

    accounts: dict[str, tuple[Any, ...]]
    lots: dict[str, dict[str, tuple[Any, ...]]]
    holds: dict[str, tuple[int, int]]
    jobs: dict[str, tuple[Any, ...]]
    entries: dict[str, tuple[int, int]]


def read(
    connection: psycopg.Connection[Any],
    accounts: Iterable[str],
    wallets: Iterable[str],
    jobs: Iterable[str],
    transfers: Iterable[str],
) -> Page:
    """One round trip; the connection commits by itself, so it sees what is committed."""
    questions = (
        (_ACCOUNTS, list(accounts)),
        (_LOTS, [f"{w}:wallet" for w in wallets]),
        (_JOBS, list(jobs)),
        (_ENTRIES, list(transfers)),
    )
    with connection.pipeline():
        asked = [connection.execute(text.encode(), (names,)) for text, names in questions]
        held = connection.execute(_HOLDS)
    rows = [cursor.fetchall() for cursor in asked]
    lots: dict[str, dict[str, tuple[Any, ...]]] = {}
    for path, name, *rest in rows[1]:
        lots.setdefault(path.removesuffix(":wallet"), {})[name] = tuple(rest)
    return Page(
        {row[0]: row[1:] for row in rows[0]},
        lots,
        {name: (seq, gflop) for name, seq, gflop in held.fetchall()},
        {row[0]: row[1:] for row in rows[2]},
        {path: (int(dr), int(cr)) for path, dr, cr in rows[3]},
    )
