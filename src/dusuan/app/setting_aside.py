"""The first hold of jobs that queue without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dusuan.app import bindings, jobs
from dusuan.app.context import Platform
from dusuan.core import units
from dusuan.core.ledger.balances import Balances
from dusuan.core.ledger.holds import open_hold
from dusuan.core.ledger.tick import first_slice
from dusuan.core.scheduling.model import Wait
from dusuan.store import ledger
from dusuan.store.database import Tx
from dusuan.store.rows import Account, Binding, LedgerAccount, Name, Queued

Ratings = Mapping[str, tuple[int, str]]  # GFLOPS and basis, by model


@dataclass(frozen=True, slots=True)
class _Need:
    """A queued job that has no hold, who pays for it, and GFLOP to set aside before it starts."""

    job: Queued
    account: Account
    wanted_gflop: int

    @property
    def ledger_accounts(self) -> list[int]:
        return [self.account.wallet_id, *self.account.limit_ids]


def set_aside_missing(
    platform: Platform, queued: Sequence[Queued], ratings: Ratings
) -> dict[str, Wait]:
    """Open the first hold of queued jobs that have none; the reason for those that cannot.

    Who cannot afford it is found without a lock, since most rounds change nothing for them.
    """
    without = sorted((job for job in queued if not job.held), key=_turn)
    if not without:
        return {}
    with platform.store.transaction() as tx:
        needs = _needs(platform, tx, without, ratings)
        blocked = _shortages(tx, needs)
    affordable = [need for need in needs if need.job.id not in blocked]
    if affordable:
        with platform.store.transaction() as tx:
            blocked |= _open_holds(platform, tx, affordable)
    return blocked


def _turn(job: Queued) -> tuple[int, int]:
    """Who is higher, then who came first, has its slice first."""
    return -job.priority, job.position


def _needs(platform: Platform, tx: Tx, without: Sequence[Queued], ratings: Ratings) -> list[_Need]:
    """Jobs without a rating are left out: the round itself says that they lack one."""
    ids = sorted({job.account_id for job in without})
    accounts = {account.id: account for account in tx.all(Account, "accounts_by_ids", ids=ids)}
    bound = bindings.of_jobs(tx, [job.id for job in without])
    rated = [(job, rating[0]) for job in without if (rating := ratings.get(job.model or ""))]
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
