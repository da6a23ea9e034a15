"""The order of the queue: up to four parts, read from left to right, then time and number."""

from __future__ import annotations

from typing import Any

import numpy as np

from dusuan.core.scheduling.arrays import FOREVER_MS, KEYS, RUNNING
from dusuan.core.scheduling.compiled import compiled, inlined
from dusuan.core.scheduling.kernels.access import account, job, keys_of, queue_of, scratch_of
from dusuan.core.scheduling.kernels.amounts import fewest
from dusuan.core.scheduling.kernels.place import left_ms, scaled
from dusuan.core.scheduling.kernels.quota import rank_accounts

SUBMITTED, SHORTEST, ATTAINED, FAIR, TIER, PRIORITY, SLACK, AREA, EXPANSION = range(1, 10)


@inlined
def attained_ms(s: Any, rules: Any, j: int, now: int) -> int:
    """Service that `j` has had: device-milliseconds, or milliseconds of its run."""
    devices = max(job(s, j).devices, 1) if rules.level_devices else 1
    running = now - job(s, j).since_ms if job(s, j).state == RUNNING else 0
    return job(s, j).attained_ms * devices + max(running, 0) * devices


@compiled
def level_of(rules: Any, attained: int) -> int:
    """The level of that much service: level 0 ends at `level_first`, each next is longer."""
    bound, level = float(rules.level_first_ms), 0
    while attained >= bound and level < rules.levels:
        bound *= rules.level_factor
        level += 1
    return level


@compiled
def level_end_ms(rules: Any, level: int) -> float:
    """The service at which `level` ends; infinite for the last."""
    if level >= rules.levels:
        return np.inf
    return rules.level_first_ms * rules.level_factor**level


@compiled
def progress_ms(s: Any, j: int, now: int) -> int:
    """Work done by the attempt that runs, in the job's reference time."""
    if job(s, j).state != RUNNING:
        return 0
    elapsed = max(now - job(s, j).since_ms - job(s, j).overhead_ms, 0)
    return scaled(elapsed, job(s, j).speed_gflops, job(s, j).rating_gflops)


@compiled
def expected_left_ms(s: Any, j: int, now: int) -> float:
    """Predicted work left now."""
    return float(max(left_ms(s, j) - progress_ms(s, j, now), 1))


@compiled
def key(s: Any, rules: Any, part: int, j: int, now: int) -> float:
    """Where one part of the order puts `j`: the lowest goes first."""
    if part == SUBMITTED:
        return float(job(s, j).submit_ms)
    if part == SHORTEST:
        return expected_left_ms(s, j, now)
    if part == ATTAINED:
        return float(level_of(rules, attained_ms(s, rules, j, now)))
    if part == FAIR:
        return float(account(s, job(s, j).account).rank)
    if part == TIER:
        return float(job(s, j).tier)
    if part == PRIORITY:
        return float(job(s, j).submit_ms - job(s, j).priority * rules.ageing_ms)
    if part == SLACK:
        return float(job(s, j).deadline_ms) - expected_left_ms(s, j, now)
    if part == AREA:
        return expected_left_ms(s, j, now) * max(job(s, j).devices, 1)
    if part == EXPANSION:
        return -float(now - job(s, j).submit_ms) / float(max(job(s, j).predicted_ms, 10_000))
    return 0.0


@compiled
def set_keys(s: Any, rules: Any, j: int, now: int) -> None:
    """Work out the place of `j` at `now`."""
    for i in range(KEYS):
        keys_of(s)[j, i] = key(s, rules, rules.order[i], j, now)


@compiled
def before(s: Any, a: int, b: int) -> bool:
    """Whether `a` goes before `b`: whoever is overdue first, then the parts, then time, number."""
    if job(s, a).overdue != job(s, b).overdue:
        return job(s, a).overdue > job(s, b).overdue
    if job(s, a).overdue == 0:
        for i in range(KEYS):
            if keys_of(s)[a, i] != keys_of(s)[b, i]:
                return keys_of(s)[a, i] < keys_of(s)[b, i]
    elif job(s, a).since_ms != job(s, b).since_ms:
        return job(s, a).since_ms < job(s, b).since_ms
    if job(s, a).submit_ms != job(s, b).submit_ms:
        return job(s, a).submit_ms < job(s, b).submit_ms
    return a < b


@compiled
def come(s: Any, rules: Any, j: int, now: int) -> None:
    """Work out what `j` joins the queue with."""
    set_keys(s, rules, j, now)
    s.least_milli = min(s.least_milli, fewest(s, j) * job(s, j).milli)
    if job(s, j).overdue == 0:
        s.oldest_ms = min(s.oldest_ms, job(s, j).since_ms)


@compiled
def enqueue(s: Any, rules: Any, j: int, now: int) -> None:
    """Put `j` where it belongs in the queue."""
    come(s, rules, j, now)
    low, high = 0, s.waiting
    while low < high:
        middle = (low + high) // 2
        if before(s, j, queue_of(s)[middle]):
            high = middle
        else:
            low = middle + 1
    for i in range(s.waiting, low, -1):
        queue_of(s)[i] = queue_of(s)[i - 1]
    queue_of(s)[low] = j
    s.waiting += 1


@compiled
def dequeue(s: Any, j: int) -> None:
    """Take `j` out of the queue."""
    at = 0
    while queue_of(s)[at] != j:
        at += 1
    s.waiting -= 1
    for i in range(at, s.waiting):
        queue_of(s)[i] = queue_of(s)[i + 1]


@compiled
def reorder(s: Any, rules: Any, now: int) -> None:
    """Order the whole queue anew, for parts that change while jobs wait. Fast when little has."""
    for part in rules.order:
        if part == FAIR:
            rank_accounts(s, rules, now)
    for i in range(s.waiting):
        set_keys(s, rules, queue_of(s)[i], now)
    sort_queue(s)


@compiled
def sort_queue(s: Any) -> None:
    """Bring the queue in order. Fast where little is out of it, and never slow."""
    shifts = 8 * s.waiting
    for i in range(1, s.waiting):
        j, at = queue_of(s)[i], i
        while at > 0 and before(s, j, queue_of(s)[at - 1]):
            queue_of(s)[at] = queue_of(s)[at - 1]
            at -= 1
        queue_of(s)[at] = j
        shifts -= i - at
        if shifts < 0:
            merge_sort(s)
            return


@compiled
def merge_sort(s: Any) -> None:
    """The queue in order, by merging runs of double length until there is one."""
    run = 1
    while run < s.waiting:
        for low in range(0, s.waiting - run, 2 * run):
            merge(s, low, low + run, min(low + 2 * run, s.waiting))
        run *= 2


@compiled
def merge(s: Any, low: int, middle: int, high: int) -> None:
    """Merge two neighbouring runs of the queue that are each in order."""
    left = middle - low
    scratch_of(s)[:left] = queue_of(s)[low:middle]
    i, right, at = 0, middle, low
    while i < left:
        if right < high and before(s, queue_of(s)[right], scratch_of(s)[i]):
            queue_of(s)[at] = queue_of(s)[right]
            right += 1
        else:
            queue_of(s)[at] = scratch_of(s)[i]
            i += 1
        at += 1


@compiled
def mark_overdue(s: Any, rules: Any, now: int) -> None:
    """Find the jobs that have waited longer than a job may before it goes first."""
    limit = rules.overdue_ms
    if limit <= 0 or (now - s.oldest_ms < limit and s.plain == 0):
        return
    if rules.overdue_most == 0:
        mark_all_overdue(s, limit, now)
        return
    marked = 0
    while marked < s.waiting and job(s, queue_of(s)[marked]).overdue:
        marked += 1
    while marked < rules.overdue_most:
        j = oldest(s)
        s.oldest_ms = job(s, j).since_ms if j >= 0 else FOREVER_MS
        if j < 0 or now - s.oldest_ms < limit:
            return
        job(s, j).overdue = 1
        dequeue(s, j)
        enqueue(s, rules, j, now)
        marked += 1


@compiled
def mark_all_overdue(s: Any, limit: int, now: int) -> None:
    """The same where any number may go first."""
    s.oldest_ms = FOREVER_MS
    for i in range(s.waiting):
        j = queue_of(s)[i]
        if now - job(s, j).since_ms >= limit:
            job(s, j).overdue = 1
        if job(s, j).overdue == 0:
            s.oldest_ms = min(s.oldest_ms, job(s, j).since_ms)
    sort_queue(s)


@compiled
def oldest(s: Any) -> int:
    """Who of those not overdue has waited longest, by number among equals; -1 for nobody."""
    best = -1
    for i in range(s.waiting):
        j = queue_of(s)[i]
        if job(s, j).overdue:
            continue
        if best < 0 or job(s, j).since_ms < job(s, best).since_ms:
            best = j
        elif job(s, j).since_ms == job(s, best).since_ms and j < best:
            best = j
    return best
