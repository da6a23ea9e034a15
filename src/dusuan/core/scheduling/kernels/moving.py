"""Making room by moving: jobs that make way for another and go on elsewhere at once.

A job for eight devices finds no node where every node has one or two in use, though enough are idle
in all. Who moves loses no place, but a restart (and what it cannot save). So of the nodes where
moving costs least, the first is cleared whose jobs all find room on what is free on the others.

Who is to move is stopped in one round and started, on the node found for it, in the next one at the
same moment, before anybody else. A live job that first has to save its state queues as others do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dusuan.core.scheduling.arrays import WAITING
from dusuan.core.scheduling.compiled import compiled
from dusuan.core.scheduling.kernels.access import (
    chosen_of,
    job,
    node,
    picked,
    queue_of,
)
from dusuan.core.scheduling.kernels.amounts import devices_on, fewest
from dusuan.core.scheduling.kernels.hold import give_part, start, take_part
from dusuan.core.scheduling.kernels.index import changed
from dusuan.core.scheduling.kernels.place import guarded, pick, place
from dusuan.core.scheduling.kernels.preempt import (
    choose_found,
    cost_on,
    rate_left,
    stop_chosen,
    unchoose,
)
from dusuan.core.scheduling.kernels.quota import BY_MOVE, quota_milli, short

NODES_MAX = 32  # looked at for one job, those with the least to move first


@compiled
def might_move(s: Any, rules: Any, j: int, now: int) -> bool:
    """Whether moving others may be tried for `j`: there is enough in all, once a round."""
    if rules.preempt & BY_MOVE == 0 or s.moving_tried or not rate_left(s, rules, now):
        return False
    enough = fewest(s, j) * job(s, j).milli <= s.free_milli
    return enough and not short(s, rules, j, quota_milli(s, j))


@compiled
def move_others(s: Any, rules: Any, j: int, now: int, view: int) -> bool:
    """Move jobs so that `j` fits on one node; True when it then does."""
    s.moving_tried, s.moving, s.chosen = 1, 1, 0
    found = choose_movers(s, rules, j, now, view)
    s.moving = 0
    if found:
        keep_room(s)
        stop_chosen(s, rules, j, now)
    return found


@compiled
def keep_room(s: Any) -> None:
    """Keep what was found for those chosen from all who come after in this round."""
    s.movers += s.chosen
    for i in range(s.chosen):
        lay_out(s, chosen_of(s)[i], True)


@compiled
def choose_movers(s: Any, rules: Any, j: int, now: int, view: int) -> bool:
    """Choose all who have to leave the cheapest node from which all can."""
    costs = np.full(s.nodes, np.inf)
    for n in range(s.nodes):
        if 0 < devices_on(s, j, node(s, n).type) <= node(s, n).gpus:
            if not guarded(s, j, n, now, view):
                costs[n] = cost_on(s, rules, n, j, now)
    for n in np.argsort(costs, kind="mergesort")[:NODES_MAX]:
        if costs[n] < np.inf and cost_on(s, rules, n, j, now) < np.inf and s.victims > 0:
            choose_found(s)
            if all_fit_elsewhere(s, rules, n, now, view):
                return True
            unchoose(s)
    return False


@compiled
def all_fit_elsewhere(s: Any, rules: Any, n: int, now: int, view: int) -> bool:
    """Whether those chosen have room on what is free beside node `n`, all at once; notes where."""
    known = s.none_from, s.hem_one, s.hem_gang  # what is learned on the way does not hold after
    placed = 0
    node(s, n).up -= 1
    changed(s, n)
    while placed < s.chosen:
        j = chosen_of(s)[s.chosen - 1 - placed]  # the dearest are the hardest to place
        if not place(s, rules, j, now, view) or s.pick_count > 1:
            break
        job(s, j).goes_to, job(s, j).goes_on = picked(s, 0).node + 1, picked(s, 0).devices
        lay_out(s, j, True)
        placed += 1
    for i in range(placed):
        lay_out(s, chosen_of(s)[s.chosen - 1 - i], False)
    for i in range(s.chosen if placed < s.chosen else 0):
        job(s, chosen_of(s)[i]).goes_to = 0
    node(s, n).up += 1
    changed(s, n)
    s.none_from, s.hem_one, s.hem_gang = known
    return placed == s.chosen


@compiled
def lay_out(s: Any, j: int, take: bool) -> None:
    """Take what `j` is to get on the node that it goes to, or give it back."""
    asked, n = job(s, j), job(s, j).goes_to - 1
    if take:
        take_part(s, n, asked.goes_on, asked.milli, asked.cpu_milli, asked.memory_mib)
    else:
        give_part(s, n, asked.goes_on, asked.milli, asked.cpu_milli, asked.memory_mib)


@compiled
def bring_on(s: Any, rules: Any, now: int) -> bool:
    """Start those who were stopped to move where room is kept for them; whether there were any."""
    if s.movers == 0:
        return False
    for i in range(s.waiting):
        go_on(s, rules, queue_of(s)[i], now)
    j = 0
    while s.movers > 0 and j < s.jobs:  # of those who did not come back
        go_on(s, rules, j, now)
        j += 1
    return True


@compiled
def go_on(s: Any, rules: Any, j: int, now: int) -> None:
    """Give back what is kept for `j`, if that moves, and start it there, if it waits."""
    n = job(s, j).goes_to - 1
    if n < 0:
        return
    lay_out(s, j, False)
    job(s, j).goes_to = 0
    s.movers -= 1
    if job(s, j).state == WAITING and node(s, n).up > 0:
        s.pick_count = 0
        asked = job(s, j)
        pick(s, n, asked.goes_on, asked.milli, asked.cpu_milli, asked.memory_mib)
        start(s, rules, j, now, -1)
