"""Quota and fair share in a round: what jobs hold and have used, and whose turn follows from it.

The books are those of `kernels.accounts`. Use is held capacity times time: of devices in GFLOP
(1,123,200,000 of them are a degree), of CPU in milli-seconds, of memory in MiB-seconds. A share is
therefore in seconds of the whole pool.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from dusuan.core.scheduling.accounts import RESOURCES
from dusuan.core.scheduling.arrays import FOREVER_MS
from dusuan.core.scheduling.compiled import compiled
from dusuan.core.scheduling.kernels.access import (
    account,
    ending_of,
    job,
    kind,
    picked,
    pointer,
    queue_of,
    running_of,
)
from dusuan.core.scheduling.kernels.accounts import (
    add_use,
    ever_guaranteed,
    give,
    hold,
    is_guaranteed,
    limit_of,
    share_of,
    use_of,
)
from dusuan.core.scheduling.kernels.amounts import devices_on, fewest
from dusuan.core.scheduling.kernels.fairness import fair_ranks

BY_ORDER, BY_TIER, BY_QUOTA, BY_MOVE = 1, 2, 4, 8  # see policy.PREEMPTS
_HALVES_MAX = 256.0  # half-lives until use is weighed anew; a float holds a thousand
_TO_GFLOP = 1e-6  # milli of a device for a millisecond at a GFLOPS


@compiled
def using_of(s: Any) -> Any:
    """What attempts that run have used so far."""
    return carray(pointer(s.using_at), (s.accounts, RESOURCES), np.float64)


@compiled
def wanted_milli(s: Any, j: int) -> int:
    """The least share of devices that `j` asks for."""
    return fewest(s, j) * job(s, j).milli


@compiled
def quota_milli(s: Any, j: int) -> int:
    """The most that `j` may count for: a gang takes whole nodes, on the worst of its types."""
    most = fewest(s, j)
    for t in range(s.types):
        if (job(s, j).types >> t) & 1:
            most = max(most, taken_at_most(s, t, devices_on(s, j, t)))
    return most * job(s, j).milli


@compiled
def taken_at_most(s: Any, t: int, devices: int) -> int:
    """What a request for so many devices may take of type `t`: a gang takes whole nodes."""
    size = kind(s, t).gpus_max
    if size == 0 or devices <= size:
        return devices if size > 0 else 0
    over = size - 1 if kind(s, t).gpus < kind(s, t).nodes * size else 0
    return int(max(devices + over, -(-devices // size) * size))


@compiled
def picked_milli(s: Any) -> int:
    """Share of devices in the picks: a gang may take more than it asks for, as whole nodes."""
    total = 0
    for i in range(s.pick_count):
        devices = picked(s, i).devices
        while devices:
            total += picked(s, i).milli
            devices &= devices - np.uint64(1)
    return total


@compiled
def short(s: Any, rules: Any, j: int, milli: int) -> bool:
    """Whether quotas keep `j` from holding `milli` as things are."""
    if s.limits == 0 or rules.quota == 0:
        return False
    return limit_of(s, job(s, j).account, milli) >= 0


@compiled
def reclaims(s: Any, rules: Any, j: int) -> bool:
    """Whether `j` may take back what is guaranteed to its account, or to one above it."""
    if s.limits == 0 or rules.quota == 0 or rules.preempt & BY_QUOTA == 0:
        return False
    return is_guaranteed(s, job(s, j).account, quota_milli(s, j))


@compiled
def may_be_owed(s: Any, rules: Any, j: int) -> bool:
    """Whether `reclaims` may hold for `j` now, or once others have been stopped."""
    if s.limits == 0 or rules.quota == 0 or rules.preempt & BY_QUOTA == 0:
        return False
    return ever_guaranteed(s, job(s, j).account, quota_milli(s, j))


@compiled
def enough_at_ms(s: Any, j: int, milli: int, now: int) -> int:
    """When those who run are expected to have given back what `j` lacks."""
    at, given = FOREVER_MS, 0
    while given < s.running and at == FOREVER_MS:
        leaver = ending_of(s)[given]
        give(s, job(s, leaver).account, job(s, leaver).taken_milli)
        given += 1
        if limit_of(s, job(s, j).account, milli) < 0:
            at = max(job(s, leaver).expected_end_ms, now + 1)
    for i in range(given):
        leaver = ending_of(s)[i]
        hold(s, job(s, leaver).account, job(s, leaver).taken_milli)
    return at


@compiled
def charge(s: Any, j: int) -> None:
    """Count what `j` holds against the accounts above it."""
    if s.limits:
        hold(s, job(s, j).account, job(s, j).taken_milli)


@compiled
def weight_now(s: Any, rules: Any, now: int) -> float:
    """What use weighs now: twice as much every half-life, instead of fading all that is older."""
    if rules.half_life_ms <= 0:
        return 1.0
    halves = (now - s.opened_ms) / rules.half_life_ms
    if halves > _HALVES_MAX:
        for a in range(s.accounts):
            for r in range(RESOURCES):
                use_of(s)[a, r] *= np.exp2(-halves)
        s.opened_ms = now
        halves = 0.0
    return float(np.exp2(halves))


@compiled
def gflop_held(s: Any, j: int, now: int) -> float:
    """What the attempt of `j` that runs has held of devices."""
    rating = job(s, j).speed_gflops if job(s, j).speed_gflops > 0 else s.unrated_gflops
    return _TO_GFLOP * float(job(s, j).taken_milli) * rating * (now - job(s, j).since_ms)


@compiled
def refund(s: Any, rules: Any, j: int, now: int) -> None:
    """`j` holds nothing any more: book what it used."""
    a, seconds = job(s, j).account, 0.001 * (now - job(s, j).since_ms)
    if s.limits:
        give(s, a, job(s, j).taken_milli)
    weight = weight_now(s, rules, now)
    cpu, memory = weight * seconds * job(s, j).cpu_milli, weight * seconds * job(s, j).memory_mib
    add_use(s, a, weight * gflop_held(s, j, now), cpu, memory)


@compiled
def rank_accounts(s: Any, rules: Any, now: int) -> None:
    """Work out the place in the fair order of all accounts that somebody waits for.

    Attempts that run count as far as they have got. The order is that of the tree: siblings by the
    lowest share, fairness between parents before fairness between their children.
    """
    s.ranked += 1
    found = np.empty(min(s.accounts, s.waiting * 33 + 1), np.int64)
    count = 0
    for i in range(s.waiting):
        count = mark_above(s, job(s, queue_of(s)[i]).account, found, count)
    found = np.sort(found[:count])
    for k in range(count):
        account(s, found[k]).slot = k
    add_running(s, weight_now(s, rules, now), now)
    parents, share = np.empty(count, np.int64), np.empty(count)
    for k in range(count):
        a = found[k]
        parents[k] = account(s, account(s, a).parent).slot if a > 0 else -1
        share[k] = share_now(s, a)
    ranks = fair_ranks(parents, share, np.argsort(share, kind="mergesort"))
    for k in range(count):
        account(s, found[k]).rank = ranks[k]


@compiled
def mark_above(s: Any, a: int, found: Any, count: int) -> int:
    """Add `a` and all above it that are not `found` yet; returns how many there are."""
    while a >= 0 and account(s, a).mark != s.ranked:
        account(s, a).mark = s.ranked
        using_of(s)[a, :] = 0.0
        found[count] = a
        count += 1
        a = account(s, a).parent
    return count


@compiled
def add_running(s: Any, weight: float, now: int) -> None:
    """Count what attempts that run have used, for accounts that are ranked."""
    for i in range(s.running):
        j = running_of(s)[i]
        a, seconds = job(s, j).account, weight * 0.001 * (now - job(s, j).since_ms)
        devices = weight * gflop_held(s, j, now)
        while a >= 0:
            if account(s, a).mark == s.ranked:
                using_of(s)[a, 0] += devices
                using_of(s)[a, 1] += seconds * job(s, j).cpu_milli
                using_of(s)[a, 2] += seconds * job(s, j).memory_mib
            a = account(s, a).parent


@compiled
def share_now(s: Any, a: int) -> float:
    """The dominant share of account `a`, by weight, with what runs."""
    use, more = use_of(s), using_of(s)
    most = share_of(s, a, use[a, 0] + more[a, 0], use[a, 1] + more[a, 1], use[a, 2] + more[a, 2])
    account(s, a).share = most
    return most
