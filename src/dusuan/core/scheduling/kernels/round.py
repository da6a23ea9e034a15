"""One round: the order, then for each job in turn a placement, room made for it, or a reason."""

from __future__ import annotations

from typing import Any

import numpy as np

from dusuan.core.scheduling.arrays import DEVICES_PER_NODE_MAX, FOREVER_MS, WAITING, WHOLE
from dusuan.core.scheduling.compiled import compiled, entry
from dusuan.core.scheduling.kernels.access import idle_of, job, kind, queue_of
from dusuan.core.scheduling.kernels.accounts import limit_of, open_all
from dusuan.core.scheduling.kernels.backfill import forget_promises, outlast, reserve
from dusuan.core.scheduling.kernels.gates import (
    CAPACITY,
    CONSERVATIVE,
    EASY,
    NO_REASON,
    ORDER,
    STRICT,
    gate_closed,
    may_start,
    wait_for_quota,
)
from dusuan.core.scheduling.kernels.hold import start
from dusuan.core.scheduling.kernels.moving import bring_on, might_move, move_others
from dusuan.core.scheduling.kernels.order import EXPANSION, FAIR, mark_overdue, reorder
from dusuan.core.scheduling.kernels.place import BACKFILL, NOW, left_ms, no_hem, place
from dusuan.core.scheduling.kernels.preempt import hopeless_from, make_room, take_quota
from dusuan.core.scheduling.kernels.profile import conservative
from dusuan.core.scheduling.kernels.quota import (
    BY_MOVE,
    picked_milli,
    quota_milli,
    short,
    wanted_milli,
)


@compiled
def try_start(s: Any, rules: Any, j: int, now: int, view: int) -> bool:
    """Start `j` on what is free, or on what is made free for it."""
    found = place(s, rules, j, now, NOW if s.debtor >= 0 else view)
    if found and s.debtor >= 0:
        pay_debt(s, rules, now)
        found = place(s, rules, j, now, view)
    if found and s.limits and not quota_for_picks(s, rules, j, now):
        s.barred = j
        return False
    if not found and make_room(s, rules, j, now):
        found = place(s, rules, j, now, NOW) and not short(s, rules, j, picked_milli(s))
    if not found and might_move(s, rules, j, now):
        pay_debt(s, rules, now)  # what is promised to that one is not for who moves
        found = (
            move_others(s, rules, j, now, view)
            and place(s, rules, j, now, NOW)
            and not short(s, rules, j, picked_milli(s))
        )
    if not found:
        return False
    start(s, rules, j, now, -1)
    if view == BACKFILL:
        outlast(s, j, now)
    return True


@compiled
def quota_for_picks(s: Any, rules: Any, j: int, now: int) -> bool:
    """Whether `j` may hold what is picked for it, once borrowers gave back what it is owed."""
    milli = picked_milli(s)
    return not short(s, rules, j, milli) or take_quota(s, rules, j, milli, now)


@compiled
def lacks_quota(s: Any, rules: Any, j: int, now: int) -> bool:
    """Whether it is quota, and not devices, that `j` could not start for. Sets the reason."""
    if s.limits == 0 or rules.quota == 0:
        return False
    if s.barred != j and limit_of(s, job(s, j).account, quota_milli(s, j)) <= 0:
        return False
    wait_for_quota(s, rules, j, now)
    return True


@compiled
def pay_debt(s: Any, rules: Any, now: int) -> None:
    """Make the reservation that is owed. Until somebody could pass, nobody needs to work it out."""
    if s.debtor >= 0:
        reserve(s, rules, s.debtor, now)
        s.debtor = -1


@compiled
def hold_back(s: Any, rules: Any, j: int, held: int, now: int) -> int:
    """`j` has to wait: what that means for those behind it. Returns the types held back."""
    if lacks_quota(s, rules, j, now):
        return held
    job(s, j).reason = CAPACITY
    if job(s, j).yields:
        return held
    if rules.backfill == STRICT:
        return held | job(s, j).types
    if not reserved(s, j) and gate_closed(s, rules, j, now):
        return held | job(s, j).types
    waited_ms = now - job(s, j).since_ms
    if waited_ms < rules.reserve_ms and rules.reserve_ms > 0 and job(s, j).overdue == 0:
        return held
    if rules.backfill == EASY and not reserved(s, j):
        pay_debt(s, rules, now)
        s.debtor = j
    return held


@compiled
def reserved(s: Any, j: int) -> bool:
    """Whether a reservation stands, or is owed, on any type that `j` accepts."""
    if s.debtor >= 0 and job(s, s.debtor).types & job(s, j).types:
        return True
    for t in range(s.types):
        if (job(s, j).types >> t) & 1 and kind(s, t).later_ms > 0:
            return True
    return False


@compiled
def all_types(s: Any) -> int:
    """The types of the cluster, as bits."""
    return (1 << s.types) - 1


@compiled
def nobody_fits(s: Any) -> bool:
    """Whether it is known without a search that nobody who waits fits on what is free."""
    if s.free_milli == 0 or (s.shares == 0 and s.none_from <= 1):
        return True
    if s.unasked == 0 or s.shares or s.free_milli < s.least_milli:
        return bool(s.unasked and s.free_milli < s.least_milli)
    most = s.width
    while most > 0 and idle_of(s)[most] == 0:
        most -= 1
    return bool(most < s.node_min and most * WHOLE < s.least_milli)


@compiled
def nobody_can_start(s: Any, rules: Any, j: int, in_order: bool) -> bool:
    """Whether neither `j` nor anybody after it can start, and nothing else comes of trying."""
    if s.plain or s.deviceless or s.limits or not nobody_fits(s):
        return False  # with limits, somebody behind may be owed what others borrow
    if rules.preempt & BY_MOVE and s.free_milli >= s.least_milli:
        return False  # it may fit when others have moved
    if s.types > 1 and rules.backfill == EASY:
        return False  # a reservation that is worked out corrects the ends that are expected
    if in_order:
        return hopeless_from(s, rules, j)
    return bool(rules.preempt == 0 or s.running == 0)


@compiled
def exhausted(s: Any, rules: Any, j: int, in_order: bool) -> bool:
    """The same in the middle of a round: it is noted since when an overdue job is the first."""
    if job(s, j).overdue and rules.gate_ms > 0 and not (s.types == 1 and reserved(s, j)):
        return False
    return nobody_can_start(s, rules, j, in_order)


@compiled
def is_idle(s: Any, rules: Any) -> bool:
    """The same of the whole queue, before a round brings it in order."""
    if s.unasked == 0 or rules.backfill == CONSERVATIVE:
        return False
    for i in range(len(rules.order)):
        moves = rules.order[i] == EXPANSION and rules.preempt and i < rules.preempt_depth
        if moves or rules.order[i] == FAIR:
            return False
    j = queue_of(s)[0]
    if job(s, j).overdue and rules.gate_ms > 0:
        if rules.backfill != EASY or job(s, j).yields or job(s, j).first_ms == 0:
            return False
    return nobody_can_start(s, rules, j, True)


@compiled
def serve(s: Any, rules: Any, now: int) -> None:
    """Go through the queue in order."""
    held, waiting, tried = 0, s.waiting, 0
    every = all_types(s)
    while tried < waiting and held & every != every:
        j = queue_of(s)[tried]
        tried += 1
        if exhausted(s, rules, j, True):
            return
        if not may_start(s, rules, j, now):
            continue
        if job(s, j).types & held:
            job(s, j).reason = ORDER
        elif not try_start(s, rules, j, now, BACKFILL):
            held = hold_back(s, rules, j, held, now)
            if rules.backfill == EASY and rules.backfill_order and held == 0:
                serve_shortest(s, rules, tried, now)
                return


@compiled
def serve_shortest(s: Any, rules: Any, tried: int, now: int) -> None:
    """Backfill from the rest of the queue, the least predicted time first."""
    rest = queue_of(s)[tried : s.waiting].copy()
    left = np.empty(len(rest))
    for i in range(len(rest)):
        left[i] = left_ms(s, rest[i])
    for i in np.argsort(left, kind="mergesort"):
        j = rest[i]
        if exhausted(s, rules, j, False):
            return
        if may_start(s, rules, j, now) and not try_start(s, rules, j, now, BACKFILL):
            if not lacks_quota(s, rules, j, now):
                job(s, j).reason = CAPACITY


@compiled
def close_ranks(s: Any) -> None:
    """Take those who do not wait any more out of the queue."""
    kept, s.least_milli = 0, FOREVER_MS
    for i in range(s.waiting):
        j = queue_of(s)[i]
        if job(s, j).state == WAITING:
            queue_of(s)[kept] = j
            s.least_milli = min(s.least_milli, wanted_milli(s, j))
            kept += 1
    s.waiting = kept


@compiled
def decide(s: Any, rules: Any, now: int) -> int:
    """One scheduling round at `now` on `s`, which it changes; returns the number of plan lines.

    The plan tells a reservation when it kept somebody from passing or might have.

    1. Bring the queue in order. 2. Serve it: start, make room, reserve, or leave waiting with a
    reason. 3. Close ranks. A preempted job is not in the queue yet: the caller stops it first.
    """
    s.line_count = 0
    s.failed = s.debtor = s.barred = -1
    s.moving_tried = 0
    s.none_from = DEVICES_PER_NODE_MAX + 1
    no_hem(s)
    if bring_on(s, rules, now):
        close_ranks(s)
    if s.waiting == 0:
        return int(s.line_count)
    mark_overdue(s, rules, now)
    if is_idle(s, rules):
        return int(s.line_count)
    if rules.dynamic:
        reorder(s, rules, now)
    forget_promises(s)
    open_all(s)
    if rules.backfill == CONSERVATIVE:
        conservative(s, rules, now)
    else:
        serve(s, rules, now)
    if s.line_count > 0:
        close_ranks(s)
    return s.line_count


@entry
def round_at(s: Any, rules: Any, now: int) -> int:
    """`decide`, for Python to call. Gives a reason also to those whom the round did not get to."""
    s.calm = s.unasked = 0  # nobody sets alarms here
    s.moves += 1
    decide(s, rules, now)
    pay_debt(s, rules, now)  # for the moment at which it is expected to start
    for i in range(s.waiting):
        j = queue_of(s)[i]
        if job(s, j).reason == NO_REASON:
            job(s, j).reason = CAPACITY if s.free_milli == 0 else ORDER
    return s.line_count
