"""What other than devices may keep a job from starting, and the codes of reasons."""

from __future__ import annotations

from typing import Any

from dusuan.core.scheduling.compiled import compiled
from dusuan.core.scheduling.kernels.access import account, job
from dusuan.core.scheduling.kernels.accounts import ever, keep_for, keeps, limit_of
from dusuan.core.scheduling.kernels.place import cautious_ms
from dusuan.core.scheduling.kernels.quota import enough_at_ms, quota_milli, reclaims, short

# Why a job waits; see `explain.py` for the words.
NO_REASON, CAPACITY, ORDER, QUOTA, EARLIEST, TURN = range(6)
STRICT, SKIP, EASY, CONSERVATIVE = range(4)


@compiled
def may_start(s: Any, rules: Any, j: int, now: int) -> bool:
    """Whether anything but devices keeps `j` from starting; sets the reason."""
    job(s, j).reason = NO_REASON
    if job(s, j).earliest_ms > now:
        job(s, j).reason = EARLIEST
        return False
    return s.limits == 0 or rules.quota == 0 or quota_lets(s, rules, j, now)


@compiled
def may_start_now(s: Any, rules: Any, j: int, now: int) -> bool:
    """The same, where nobody is stopped for it."""
    if not may_start(s, rules, j, now):
        return False
    if short(s, rules, j, quota_milli(s, j)):
        wait_for_quota(s, rules, j, now)
        return False
    return True


@compiled
def quota_lets(s: Any, rules: Any, j: int, now: int) -> bool:
    """Whether the limits of the accounts above `j` let it start, on what it can take back too.

    What is idle of the pool is looked at once it is known that `j` fits.
    """
    a, wanted = job(s, j).account, quota_milli(s, j)
    if limit_of(s, a, wanted) > 0 and not reclaims(s, rules, j):
        wait_for_quota(s, rules, j, now)
        return False
    job(s, j).limit = keeps(s, a, wanted, now + longest_ms(s, j))
    if job(s, j).limit >= 0:
        job(s, j).reason = TURN
        return False
    return True


@compiled
def longest_ms(s: Any, j: int) -> int:
    """How long `j` may take on the slowest of the devices that it accepts."""
    most = 0
    for t in range(s.types):
        if (job(s, j).types >> t) & 1:
            most = max(most, cautious_ms(s, j, t))
    return most


@compiled
def wait_for_quota(s: Any, rules: Any, j: int, now: int) -> None:
    """`j` waits for quota: what is left is kept for it, by the rules of backfill.

    Nobody behind it takes of that who would not have given it back in time; nobody at all where
    nobody passes, or where `j` has been the first of the overdue for too long.
    """
    a, wanted = job(s, j).account, quota_milli(s, j)
    limit = limit_of(s, a, wanted)
    job(s, j).reason = QUOTA
    job(s, j).limit = max(limit, 0)
    if limit < 0 or job(s, j).yields or ever(s, a) < wanted:
        return
    if account(s, a).own_opens_ms > 0 and not job(s, j).overdue:
        return  # it is kept for one of the same account already
    gate = gate_closed(s, rules, j, now)
    if gate or rules.backfill == STRICT:
        keep_for(s, a, wanted, max(now, 1))  # 0 is for what is not kept
    elif rules.backfill != SKIP:
        keep_for(s, a, wanted, enough_at_ms(s, j, wanted, now))


@compiled
def gate_closed(s: Any, rules: Any, j: int, now: int) -> bool:
    """Whether `j` has been the first of the overdue for so long that nobody may pass it.

    Its reservation has then been put off again and again, by predictions that were wrong.
    """
    if rules.gate_ms <= 0 or job(s, j).overdue == 0:
        return False
    if job(s, j).first_ms == 0:
        job(s, j).first_ms = max(now, 1)
    return now - job(s, j).first_ms >= rules.gate_ms
