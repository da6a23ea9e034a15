"""Whom to stop so that another can start: as little work as possible is lost."""

from __future__ import annotations

from typing import Any

import numpy as np

from dusuan.core.scheduling.arrays import ANY_TYPE, RUNNING, WHOLE
from dusuan.core.scheduling.compiled import compiled
from dusuan.core.scheduling.kernels.access import (
    chosen_of,
    free_of,
    holding,
    job,
    keys_of,
    kind,
    marks_of,
    node,
    running_of,
    scratch_of,
)
from dusuan.core.scheduling.kernels.accounts import give, limit_of, reclaim, takes_back
from dusuan.core.scheduling.kernels.accounts import hold as hold_in_books
from dusuan.core.scheduling.kernels.hold import preempt
from dusuan.core.scheduling.kernels.order import ATTAINED, TIER, key
from dusuan.core.scheduling.kernels.place import is_open, keeps_together, node_share
from dusuan.core.scheduling.kernels.quota import (
    BY_ORDER,
    BY_QUOTA,
    BY_TIER,
    quota_milli,
    reclaims,
    wanted_milli,
)

_IMPOSSIBLE = 1 << 60
CALM_KEYS = 2  # parts of an order that `is_calm_for` compares
_MARK_BITS, _MARK_ALL = 16, (1 << 16) - 1
_HOUR_MS = 3_600_000


@compiled
def ranks_below(s: Any, rules: Any, victim: int, j: int, now: int) -> bool:
    """Whether the order puts `victim`, as it runs, behind `j`, by more than the margin."""
    for i in range(min(rules.preempt_depth, len(rules.order))):
        part = rules.order[i]
        if part == 0:
            return False
        of_victim = key(s, rules, part, victim, now)
        if part == ATTAINED and of_victim != keys_of(s)[j, i]:
            return of_victim > keys_of(s)[j, i]
        if of_victim > keys_of(s)[j, i] * (1.0 + rules.margin):
            return True
        if of_victim < keys_of(s)[j, i]:
            return False
    return False


@compiled
def has_its_turn(s: Any, rules: Any, victim: int, now: int) -> bool:
    """Whether a job that started overdue has run for less than such a job has waited."""
    return job(s, victim).overdue == 1 and now < job(s, victim).since_ms + rules.overdue_ms


@compiled
def may_stop(s: Any, rules: Any, victim: int, j: int, now: int) -> bool:
    """Whether `j` may take the devices of `victim`."""
    if job(s, victim).preemptible == 0 or now < job(s, victim).protected_ms:
        return False
    how = rules.preempt
    if how & BY_TIER and job(s, victim).tier > job(s, j).tier:
        return True
    if how & BY_QUOTA and s.limits and job(s, victim).tier >= job(s, j).tier:
        if takes_back(s, job(s, j).account, quota_milli(s, j), job(s, victim).account):
            return True
    if how & BY_ORDER == 0 or has_its_turn(s, rules, victim, now):
        return False
    return job(s, j).overdue == 1 or ranks_below(s, rules, victim, j, now)


@compiled
def loss(s: Any, rules: Any, victim: int, now: int) -> float:
    """What stopping `victim` costs: its restart on all its devices. The latest started is less."""
    cost = float(job(s, victim).taken_milli) * max(rules.restart_ms, 1)
    return cost + 1e-3 * (now - job(s, victim).since_ms)


@compiled
def clear_devices(s: Any, n: int, h: int) -> None:
    """Count the devices of a holding as free in the working space, which has milli per device."""
    for d in range(node(s, n).gpus):
        if (holding(s, h).devices >> np.uint64(d)) & np.uint64(1):
            scratch_of(s)[d] += holding(s, h).milli


@compiled
def roomy(s: Any, n: int, milli: int) -> int:
    """Devices of node `n` with that much free by the working space."""
    found = 0
    for d in range(node(s, n).gpus):
        faulty = (node(s, n).faulty >> np.uint64(d)) & np.uint64(1)
        if scratch_of(s)[d] >= milli and faulty == 0:
            found += 1
    return found


@compiled
def cheapest(s: Any, rules: Any, n: int, j: int, now: int, floor: float) -> int:
    """The holding on `n` whose job costs least to stop, above `floor` (those already chosen)."""
    best, least = -1, np.inf
    h = node(s, n).first
    while h >= 0:
        victim = holding(s, h).job
        cost = loss(s, rules, victim, now) + 1e-9 * victim
        if floor < cost < least and job(s, victim).leaving == 0:
            if may_stop(s, rules, victim, j, now):
                best, least = h, cost
        h = holding(s, h).next_on_node
    return best


@compiled
def clear_leaving(s: Any, n: int) -> tuple[int, int]:
    """Count what those already chosen hold on `n` as free; returns their CPU and memory there."""
    cpu, memory = 0, 0
    for d in range(node(s, n).gpus):
        scratch_of(s)[d] = free_of(s)[n, d]
    h = node(s, n).first if s.chosen > 0 else -1
    while h >= 0:
        if job(s, holding(s, h).job).leaving:
            clear_devices(s, n, h)
            cpu += holding(s, h).cpu_milli
            memory += holding(s, h).memory_mib
        h = holding(s, h).next_on_node
    return cpu, memory


@compiled
def clear_node(
    s: Any, rules: Any, n: int, j: int, need: int, milli: int, cpu: int, memory: int, now: int
) -> float:
    """What it costs to make room for `need` devices on `n`; `s.victims` jobs would have to go.

    They are taken cheapest first, and stand in `chosen` after those already chosen. While they are
    looked for they hold nothing in the books, so that nobody is taken who does not borrow then.
    """
    their_cpu, their_memory = clear_leaving(s, n)
    cpu -= node(s, n).cpu_free_milli + their_cpu
    memory -= node(s, n).memory_free_mib + their_memory
    total, floor, count = 0.0, -1.0, 0
    while cpu > 0 or memory > 0 or roomy(s, n, milli) < need:
        h = cheapest(s, rules, n, j, now, floor)
        if h < 0:
            total = np.inf
            break
        victim = holding(s, h).job
        floor = loss(s, rules, victim, now) + 1e-9 * victim
        clear_devices(s, n, h)
        cpu -= holding(s, h).cpu_milli
        memory -= holding(s, h).memory_mib
        total += floor
        chosen_of(s)[s.chosen + count] = victim
        leave_books(s, victim)
        count += 1
    s.victims = count
    for i in range(count):
        join_books(s, chosen_of(s)[s.chosen + i])
    return total


@compiled
def leave_books(s: Any, victim: int) -> None:
    """Let `victim` hold nothing in the books."""
    if s.limits:
        give(s, job(s, victim).account, job(s, victim).taken_milli)


@compiled
def join_books(s: Any, victim: int) -> None:
    """Undo `leave_books`."""
    if s.limits:
        hold_in_books(s, job(s, victim).account, job(s, victim).taken_milli)


@compiled
def choose(s: Any, victim: int) -> None:
    """`victim` is to be stopped, if enough others are found."""
    chosen_of(s)[s.chosen] = victim
    s.chosen += 1
    job(s, victim).leaving = 1
    leave_books(s, victim)


@compiled
def choose_found(s: Any) -> None:
    """Choose those whom `clear_node` found last."""
    for _ in range(s.victims):
        choose(s, chosen_of(s)[s.chosen])


@compiled
def unchoose(s: Any) -> int:
    """Nobody is chosen any more; returns how many were."""
    count = s.chosen
    for i in range(count):
        job(s, chosen_of(s)[i]).leaving = 0
        join_books(s, chosen_of(s)[i])
    s.chosen = 0
    return int(count)


@compiled
def stop_chosen(s: Any, rules: Any, j: int, now: int) -> None:
    """Stop all who are chosen, for `j`."""
    count = unchoose(s)
    for i in range(count):
        preempt(s, rules, chosen_of(s)[i], j, now)


@compiled
def choose_borrowers(s: Any, rules: Any, j: int, milli: int, now: int) -> bool:
    """Choose who has to give back what `j` is owed, the least costly first; all or nothing.

    True as well when nobody has to. Those chosen before hold nothing in the books any more.
    """
    a = job(s, j).account
    if limit_of(s, a, milli) < 0:
        return True
    if not reclaims(s, rules, j):
        return False
    those = np.empty(s.running, np.int64)
    count = 0
    for i in range(s.running):
        each = job(s, running_of(s)[i])
        if each.preemptible == 0 or each.protected_ms > now or each.leaving:
            continue
        if each.tier >= job(s, j).tier:  # or both would take back from each other for ever
            those[count] = running_of(s)[i]
            count += 1
    whose, held, cost = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count)
    for i in range(count):
        whose[i], held[i] = job(s, those[i]).account, job(s, those[i]).taken_milli
        cost[i] = loss(s, rules, those[i], now) + 1e-9 * those[i]
    chosen, order = np.zeros(count, np.int64), np.argsort(cost, kind="mergesort")
    if not reclaim(s, whose, held, order, a, milli, milli, chosen):
        return False
    for i in np.argsort(chosen, kind="mergesort"):
        if chosen[i] > 0:
            join_books(s, those[i])  # `reclaim` took it out
            choose(s, those[i])
    return True


@compiled
def take_quota(s: Any, rules: Any, j: int, milli: int, now: int) -> bool:
    """Stop borrowers so that `j` may hold `milli` of what is free, if it is owed that."""
    if not reclaims(s, rules, j) or not rate_left(s, rules, now):
        return False
    s.chosen = 0
    if not choose_borrowers(s, rules, j, milli, now):
        return False
    stop_chosen(s, rules, j, now)
    return True


@compiled
def needs_on(s: Any, j: int, n: int) -> int:
    """Devices that `j` would take on node `n`: all it asks for, or the whole node for a gang."""
    t = node(s, n).type
    if job(s, j).devices <= kind(s, t).gpus_max:
        return job(s, j).devices if job(s, j).devices <= node(s, n).gpus else -1
    return node(s, n).gpus if job(s, j).milli == WHOLE and node(s, n).gpus > 0 else -1


@compiled
def cost_on(s: Any, rules: Any, n: int, j: int, now: int) -> float:
    """What it costs to make room for `j`, or for its part, on node `n`."""
    need = needs_on(s, j, n)
    if need < 0 or not is_open(s, j, n, now):
        return np.inf
    cpu, memory = job(s, j).cpu_milli, job(s, j).memory_mib
    if job(s, j).devices > node(s, n).gpus:
        cpu = node_share(cpu, need, job(s, j).devices)
        memory = node_share(memory, need, job(s, j).devices)
    return clear_node(s, rules, n, j, need, job(s, j).milli, cpu, memory, now)


@compiled
def single_victims(s: Any, rules: Any, j: int, now: int) -> bool:
    """Choose whom to stop on the one node where it costs least."""
    best, least = -1, np.inf
    for n in range(s.nodes):
        if job(s, j).devices > node(s, n).gpus or to_be_had(s, n) < 0:
            continue
        if job(s, j).milli == WHOLE and to_be_had(s, n) < job(s, j).devices:
            continue
        cost = cost_on(s, rules, n, j, now)
        if cost < least and s.victims > 0:  # with none it fits, on what is reserved for another
            best, least = n, cost
    if best < 0:
        return False
    cost_on(s, rules, best, j, now)
    choose_found(s)
    return True


@compiled
def enough_nodes(s: Any, j: int, t: int) -> bool:
    """Whether whole nodes of type `t` for the gang `j` could be had at all."""
    found = 0
    for n in range(s.nodes):
        there = max(to_be_had(s, n), node(s, n).whole)
        if node(s, n).type == t and there >= node(s, n).gpus:
            found += node(s, n).gpus
    return bool(found >= job(s, j).devices)


@compiled
def gang_victims(s: Any, rules: Any, j: int, t: int, now: int) -> bool:
    """Choose whom to stop on the nodes of type `t` where it costs least. All or nothing."""
    nodes = s.nodes
    if not enough_nodes(s, j, t):
        return False
    costs = np.empty(nodes)
    for n in range(nodes):
        there = max(to_be_had(s, n), node(s, n).whole)
        costs[n] = np.inf
        if node(s, n).type == t and there >= node(s, n).gpus:
            costs[n] = cost_on(s, rules, n, j, now)
    order = np.argsort(costs, kind="mergesort")
    found, used = 0, 0
    while used < nodes and found < job(s, j).devices and costs[order[used]] < np.inf:
        found += node(s, order[used]).gpus
        used += 1
    if found < job(s, j).devices:
        return False
    for i in range(used):
        if costs[order[i]] > 0 and cost_on(s, rules, order[i], j, now) < np.inf:
            choose_found(s)
    return True


@compiled
def rate_left(s: Any, rules: Any, now: int) -> bool:
    """Whether the storm limit still allows a preemption: so many in an hour."""
    if rules.preempt_per_hour <= 0:
        return True
    if now - s.preempt_from_ms >= _HOUR_MS:
        s.preempt_from_ms = now
        s.preempt_count = 0
    return s.preempt_count < rules.preempt_per_hour


@compiled
def make_room(s: Any, rules: Any, j: int, now: int) -> bool:
    """Stop jobs so that `j` fits, if it may; True when it then does."""
    if hopeless(s, rules, j, False) or not rate_left(s, rules, now):
        return False
    s.chosen = 0
    if find_victims(s, rules, j, now):
        if s.limits and rules.quota and not choose_borrowers(s, rules, j, quota_milli(s, j), now):
            unchoose(s)
            return False
        stop_chosen(s, rules, j, now)
        return True
    if not reclaims(s, rules, j) and (s.failed < 0 or asks_more(s, s.failed, j)):
        s.failed = j
    return False


@compiled
def cheapest_stoppable(s: Any, rules: Any, j: int, now: int) -> int:
    """`mark_stoppable`, done once for all jobs of the same claim for as long as nothing changes."""
    if is_marked_for(s, rules, j, now):
        return int(s.marked_best)
    s.marked_best = mark_stoppable(s, rules, j, now)
    alone = rules.preempt_depth > CALM_KEYS or s.leases > 0 or reclaims(s, rules, j)
    s.marked_moves = -1 if alone else s.moves
    s.marked_ms, s.marked_types = now, job(s, j).types
    s.marked_tier, s.marked_overdue = job(s, j).tier, job(s, j).overdue
    s.marked_key, s.marked_key_next = keys_of(s)[j, 0], keys_of(s)[j, 1]
    return int(s.marked_best)


@compiled
def is_marked_for(s: Any, rules: Any, j: int, now: int) -> bool:
    """Whether the marks are those that `j` would make."""
    if s.marked_moves != s.moves or reclaims(s, rules, j):
        return False
    if s.marked_ms != now and not stands_still(rules):
        return False
    if job(s, j).tier != s.marked_tier or job(s, j).overdue != s.marked_overdue:
        return False
    same = keys_of(s)[j, 0] == s.marked_key and keys_of(s)[j, 1] == s.marked_key_next
    return same and job(s, j).types == s.marked_types


@compiled
def stands_still(rules: Any) -> bool:
    """Whether who stands behind whom changes by alarms alone, in the parts that count for it."""
    for i in range(min(rules.preempt_depth, len(rules.order))):
        part = rules.order[i]
        if part != ATTAINED and part != TIER and part != 0:
            return False
    return True


@compiled
def find_victims(s: Any, rules: Any, j: int, now: int) -> bool:
    """Choose whose devices `j` could have; True when it would then fit."""
    cheapest_job = cheapest_stoppable(s, rules, j, now)
    if cheapest_job < 0:
        note_calm(s, rules, j)
        return False
    if one_is_enough(s, j):
        choose(s, cheapest_job)
        return True
    return single_victims(s, rules, j, now) or gang_of_victims(s, rules, j, now)


@compiled
def mark_stoppable(s: Any, rules: Any, j: int, now: int) -> int:
    """Mark the nodes on which somebody can be stopped for `j`; returns the cheapest job or -1."""
    s.stamp += 1
    best, least = -1, np.inf
    for i in range(s.running):
        victim = running_of(s)[i]
        h = job(s, victim).first
        if not may_stop(s, rules, victim, j, now) or not is_open(s, j, holding(s, h).node, now):
            continue
        cost = loss(s, rules, victim, now) + 1e-9 * victim
        if cost < least:
            best, least = victim, cost
        while h >= 0:
            mark(s, h)
            h = holding(s, h).next
    return best


@compiled
def mark(s: Any, h: int) -> None:
    """Count the devices of a holding among those that can be had on its node."""
    n = holding(s, h).node
    if marks_of(s)[n] >> _MARK_BITS != s.stamp:
        marks_of(s)[n] = s.stamp << _MARK_BITS
    for d in range(node(s, n).gpus):
        if (holding(s, h).devices >> np.uint64(d)) & np.uint64(1):
            marks_of(s)[n] += 1


@compiled
def to_be_had(s: Any, n: int) -> int:
    """At most so many devices of node `n` could be wholly free; -1: nobody there can be stopped."""
    if marks_of(s)[n] >> _MARK_BITS != s.stamp:
        return -1
    return node(s, n).whole + (marks_of(s)[n] & _MARK_ALL)


@compiled
def one_is_enough(s: Any, j: int) -> bool:
    """Whether any one job that stops makes room for `j`: for a whole device, where all are."""
    asked = job(s, j)
    alone = asked.devices == 1 and asked.milli == WHOLE and s.shares == 0
    return alone and s.deviceless == 0 and asked.cpu_milli == 0 and asked.memory_mib == 0


@compiled
def note_calm(s: Any, rules: Any, j: int) -> None:
    """Nobody at all can be stopped for `j`. What runs longer, or starts, changes it by an alarm."""
    if reclaims(s, rules, j) or rules.preempt_depth > CALM_KEYS or rules.run_min_ms <= 0:
        return
    s.calm = 2 if job(s, j).overdue else 1
    s.calm_tier = job(s, j).tier
    s.calm_key = keys_of(s)[j, 0]
    s.calm_key_next = keys_of(s)[j, 1]


@compiled
def is_calm_for(s: Any, j: int) -> bool:
    """Whether nobody can be stopped for `j`, since nobody could for one with a better claim."""
    if s.calm == 0 or (job(s, j).overdue and s.calm == 1) or job(s, j).tier < s.calm_tier:
        return False
    if s.calm == 2 or keys_of(s)[j, 0] > s.calm_key:
        return True
    return keys_of(s)[j, 0] == s.calm_key and keys_of(s)[j, 1] >= s.calm_key_next


@compiled
def disturbs(s: Any, rules: Any, victim: int, now: int) -> bool:
    """Whether `victim`, whose standing has just changed, ends the calm.

    It does not while it may not be stopped for one that nobody else could be stopped for.
    """
    if job(s, victim).state != RUNNING:
        return True
    if job(s, victim).preemptible == 0 or now < job(s, victim).protected_ms:
        return False
    if rules.preempt & BY_TIER and job(s, victim).tier > s.calm_tier:
        return True
    if rules.preempt & BY_ORDER == 0 or has_its_turn(s, rules, victim, now):
        return False
    return s.calm == 2 or stands_behind(s, rules, victim, now)


@compiled
def stands_behind(s: Any, rules: Any, victim: int, now: int) -> bool:
    """Whether `victim` stands behind what the calm is about; as `ranks_below`, without a margin."""
    of_victim = key(s, rules, rules.order[0], victim, now)
    if of_victim != s.calm_key or rules.preempt_depth < CALM_KEYS or rules.order[1] == 0:
        return of_victim > s.calm_key
    return key(s, rules, rules.order[1], victim, now) > s.calm_key_next


@compiled
def asks_more(s: Any, a: int, b: int) -> bool:
    """Whether job `a` asks for no less than job `b` of everything."""
    return (
        wanted_milli(s, a) >= wanted_milli(s, b)
        and job(s, a).cpu_milli >= job(s, b).cpu_milli
        and job(s, a).memory_mib >= job(s, b).memory_mib
        and job(s, a).types & job(s, b).types == job(s, a).types
    )


@compiled
def gang_of_victims(s: Any, rules: Any, j: int, now: int) -> bool:
    """Choose whom to stop on nodes of a type that `j` accepts, for a gang that lies anywhere."""
    if job(s, j).milli < WHOLE or keeps_together(s, j):
        return False
    for t in range(s.types):
        if (job(s, j).types >> t) & 1 == 0:
            continue
        if kind(s, t).gpus_max < job(s, j).devices <= kind(s, t).gpus:
            if gang_victims(s, rules, j, t, now):
                return True
    return False


@compiled
def hopeless(s: Any, rules: Any, j: int, rest: bool) -> bool:
    """Whether nobody can be stopped for `j`, since nobody could for one before it that needs less.

    With `rest`: neither for anybody behind it in the queue.
    """
    if rules.preempt == 0 or s.running == 0:
        return True
    failed = s.failed
    if reclaims(s, rules, j):
        return False
    if is_calm_for(s, j) and not rest:
        return True
    if failed < 0:
        return False
    if rest:
        every = s.types == 1 or job(s, failed).types == ANY_TYPE
        return every and wanted_milli(s, failed) <= s.smallest_milli
    return job(s, j).tier >= job(s, failed).tier and asks_more(s, j, failed)
