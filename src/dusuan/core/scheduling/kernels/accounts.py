"""Quota and use of the tree of accounts, and the fair order that follows from it.

An account is guaranteed `quota`; it may borrow what others leave idle, up to its borrowing limit,
and no account lends more than its lending limit. Use decays by half every half-life.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dusuan.core.scheduling.compiled import compiled
from dusuan.core.scheduling.kernels.access import account, job, running_of


@compiled
def wanted_milli(s: Any, j: int) -> int:
    """Share of devices that `j` counts for."""
    return job(s, j).devices * job(s, j).milli


@compiled
def admits(s: Any, j: int) -> bool:
    """Whether the quotas of every account above `j` let it start now."""
    wanted, a = wanted_milli(s, j), job(s, j).account
    while a >= 0:
        own = account(s, a)
        if (
            own.quota_milli >= 0
            and own.borrow_milli >= 0
            and own.used_milli + wanted > own.quota_milli + own.borrow_milli
        ):
            return False
        a = own.parent
    return True


@compiled
def within_quota(s: Any, a: int, wanted: int) -> bool:
    """Whether account `a` would use no more than what it is guaranteed, with `wanted` more."""
    quota = account(s, a).quota_milli
    return quota >= 0 and account(s, a).used_milli + wanted <= quota


@compiled
def borrows(s: Any, a: int) -> bool:
    """Whether account `a` uses more than it is guaranteed."""
    quota = account(s, a).quota_milli
    return quota >= 0 and account(s, a).used_milli > quota


@compiled
def charge(s: Any, j: int) -> None:
    """Count what `j` holds against every account above it."""
    a = job(s, j).account
    while a >= 0:
        account(s, a).used_milli += job(s, j).taken_milli
        a = account(s, a).parent


@compiled
def decay(s: Any, rules: Any, a: int, now: int) -> None:
    """Let the usage of account `a` fade up to `now`."""
    passed = now - account(s, a).usage_at_ms
    if passed > 0:
        if rules.half_life_ms > 0:
            account(s, a).usage *= np.exp2(-passed / rules.half_life_ms)
        account(s, a).usage_at_ms = now


@compiled
def refund(s: Any, rules: Any, j: int, now: int) -> None:
    """`j` holds nothing any more: book what it used."""
    used = float(job(s, j).taken_milli) / 1000.0 * (now - job(s, j).since_ms)
    a = job(s, j).account
    while a >= 0:
        account(s, a).used_milli -= job(s, j).taken_milli
        decay(s, rules, a, now)
        account(s, a).usage += used
        a = account(s, a).parent


@compiled
def add_running_use(s: Any, j: int, now: int, sign: float) -> None:
    """Count the use of an attempt that still runs, or take it back out."""
    used = float(job(s, j).taken_milli) / 1000.0 * (now - job(s, j).since_ms)
    a = job(s, j).account
    while a >= 0:
        account(s, a).usage += sign * used
        a = account(s, a).parent


@compiled
def share_out(s: Any, rules: Any, now: int) -> None:
    """Set the fair order of every account: the least use per weight goes first.

    Along a path each level counts a thousandth of the one above it, so that fairness between
    parents comes before fairness between their children.
    """
    for a in range(s.accounts):
        decay(s, rules, a, now)
    for i in range(s.running):
        add_running_use(s, running_of(s)[i], now, 1.0)
    for a in range(s.accounts):
        own, b = 0.0, a
        while b >= 0:
            own = own / 1024.0 + account(s, b).usage / account(s, b).weight
            b = account(s, b).parent
        account(s, a).share = own
    for i in range(s.running):
        add_running_use(s, running_of(s)[i], now, -1.0)
