"""Whom to stop so that another can start: as little work as possible is lost."""

from __future__ import annotations

from typing import Any

import numpy as np

from dusuan.core.scheduling.arrays import ANY_TYPE, RUNNING, WHOLE
from dusuan.core.scheduling.compiled import compiled, inlined
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
from dusuan.core.scheduling.kernels.amounts import devices_on, fewest
from dusuan.core.scheduling.kernels.hold import preempt
from dusuan.core.scheduling.kernels.order import (
    ATTAINED,
    EXPANSION,
    FAIR,
    PRIORITY,
    SLACK,
    TIER,
    attained_ms,
    key,
    level_of,
)
from dusuan.core.scheduling.kernels.place import (
    BACKFILL,
    duration_ms,
    is_open,
    keeps_together,
    node_share,
    whole_node,
)
from dusuan.core.scheduling.kernels.quota import (
    BY_ORDER,
    BY_QUOTA,
    BY_TIER,
    may_be_owed,
    quota_milli,
    reclaims,
)

_ELSEWHERE, _NOBODY = -1, -2  # instead of a job that can be stopped
CALM_KEYS = 2  # parts of an order that `is_calm_for` compares
_MARK_BITS, _MARK_ALL = 16, (1 << 16) - 1
_HOUR_MS = 3_600_000


@inlined
def ranks_below(s: Any, rules: Any, victim: int, j: int, now: int) -> bool:
    """Whether the order puts `victim`, as it runs, behind `j`, by more than the margin.

    `s.behind_ms` is of `j` (`service_behind`).
    """
    depth = min(rules.preempt_depth, len(rules.order))
    for i in range(depth):
        part, own = rules.order[i], keys_of(s)[j, i]
        if part == 0:
            return False
        if part == ATTAINED:
            attained = attained_ms(s, rules, victim, now)
            if attained >= s.behind_ms or i + 1 == depth:
                return bool(attained >= s.behind_ms)
            if level_of(rules, attained) < own:
                return False
            continue
        of_victim = float(job(s, victim).tier) if part == TIER else key(s, rules, part, victim, now)
        if of_victim > own * (1.0 + rules.margin):
            return True
        if of_victim < own:
            return False
    return False


@compiled
def service_behind(s: Any, rules: Any, j: int) -> float:
    """The service from which on a job stands behind `j`, where the order asks for that."""
    for i in range(min(rules.preempt_depth, len(rules.order))):
        if rules.order[i] == ATTAINED:
            level, bound = int(keys_of(s)[j, i]), float(rules.level_first_ms)
            most = bound
            for _ in range(level):
                bound *= rules.level_factor
                most = max(most, bound)
            return most if level < rules.levels else np.inf
    return np.inf


@inlined
def has_its_turn(s: Any, rules: Any, victim: int, now: int) -> bool:
    """Whether a job that started overdue has run for less than such a job has waited."""
    return job(s, victim).overdue == 1 and now < job(s, victim).since_ms + rules.overdue_ms


@compiled
def may_stop(s: Any, rules: Any, victim: int, j: int, now: int) -> bool:
    """Whether `j` may take the devices of `victim`."""
    if job(s, victim).preemptible == 0 or now < job(s, victim).protected_ms:
        return False
    if s.moving:
        return may_move(s, rules, victim, j, now)
    if rules.preempt & BY_QUOTA and s.limits and job(s, victim).tier >= job(s, j).tier:
        if takes_back(s, job(s, j).account, quota_milli(s, j), job(s, victim).account):
            return True
    return has_less_claim(s, rules, victim, j, now)


@inlined
def has_less_claim(s: Any, rules: Any, victim: int, j: int, now: int) -> bool:
    """Whether tier or order let `j` take the devices of `victim`, which can be stopped."""
    if rules.preempt & BY_TIER and job(s, victim).tier > job(s, j).tier:
        return True
    if rules.preempt & BY_ORDER == 0 or has_its_turn(s, rules, victim, now):
        return False
    return job(s, j).overdue == 1 or ranks_below(s, rules, victim, j, now)


@compiled
def may_move(s: Any, rules: Any, victim: int, j: int, now: int) -> bool:
    """Whether `victim` may go on elsewhere so that `j` fits: it runs on one node, for no better."""
    if holding(s, job(s, victim).first).next >= 0 or has_its_turn(s, rules, victim, now):
        return False
    return job(s, victim).tier >= job(s, j).tier


@inlined
def might_stop(s: Any, rules: Any, victim: int, j: int, now: int, owed: bool) -> bool:
    """Whether `j` may, or may once others have been stopped and borrow no more."""
    if job(s, victim).preemptible == 0 or now < job(s, victim).protected_ms:
        return False
    if owed and job(s, victim).tier >= job(s, j).tier:
        return True
    return has_less_claim(s, rules, victim, j, now)


@compiled
def loss(s: Any, rules: Any, victim: int, now: int) -> int:
    """What stopping `victim` costs: its restart on all its devices, in thousandths of a
    device-millisecond. The latest started is less."""
    restart = job(s, victim).taken_milli * max(rules.restart_ms, 1) * 1000
    return restart + now - job(s, victim).since_ms + 1


@compiled
def costs_more(s: Any, rules: Any, a: int, b: int, now: int) -> bool:
    """Whether `a` is stopped after `b`: it costs more, or has the higher number."""
    of_a, of_b = loss(s, rules, a, now), loss(s, rules, b, now)
    return a > b if of_a == of_b else of_a > of_b


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
def cheapest(s: Any, rules: Any, n: int, j: int, now: int, last: int) -> int:
    """The holding on `n` whose job costs least to stop of those after `last`; -1: of all."""
    best, least = -1, -1
    h = node(s, n).first
    while h >= 0:
        victim = holding(s, h).job
        later = last < 0 or costs_more(s, rules, victim, last, now)
        if later and (best < 0 or costs_more(s, rules, least, victim, now)):
            if job(s, victim).leaving == 0 and may_stop(s, rules, victim, j, now):
                best, least = h, victim
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
    total, victim, count = 0.0, -1, 0
    while cpu > 0 or memory > 0 or roomy(s, n, milli) < need:
        h = cheapest(s, rules, n, j, now, victim)
        if h < 0:
            total = np.inf
            break
        victim = holding(s, h).job
        clear_devices(s, n, h)
        cpu -= holding(s, h).cpu_milli
        memory -= holding(s, h).memory_mib
        total += loss(s, rules, victim, now)
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
    those = np.sort(those[:count])
    whose, held, cost = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count)
    for i in range(count):
        whose[i], held[i] = job(s, those[i]).account, job(s, those[i]).taken_milli
        cost[i] = loss(s, rules, those[i], now)
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
    needed = devices_on(s, j, t)
    if needed <= kind(s, t).gpus_max:
        return needed if needed <= node(s, n).gpus else -1
    return node(s, n).gpus if job(s, j).milli == WHOLE and node(s, n).gpus > 0 else -1


@compiled
def cost_on(s: Any, rules: Any, n: int, j: int, now: int) -> float:
    """What it costs to make room for `j`, or for its part, on node `n`."""
    need = needs_on(s, j, n)
    if need < 0 or not is_open(s, j, n, now):
        return np.inf
    cpu, memory = job(s, j).cpu_milli, job(s, j).memory_mib
    asked = devices_on(s, j, node(s, n).type)
    if asked > node(s, n).gpus:
        cpu, memory = node_share(cpu, need, asked), node_share(memory, need, asked)
    return clear_node(s, rules, n, j, need, job(s, j).milli, cpu, memory, now)


@compiled
def single_victims(s: Any, rules: Any, j: int, now: int) -> bool:
    """Choose whom to stop on the one node where it costs least; the lowest first of equals."""
    best, least, first = -1, np.inf, -1
    if job(s, j).milli == WHOLE and s.marked_most < fewest(s, j) and s.plain == 0:
        return False
    for n in range(s.nodes):
        needed = devices_on(s, j, node(s, n).type)
        if needed > node(s, n).gpus or to_be_had(s, n) < 0:
            continue
        if job(s, j).milli == WHOLE and to_be_had(s, n) < needed:
            continue
        cost = cost_on(s, rules, n, j, now)
        if cost < np.inf and s.victims == 0:
            s.spare = 1  # it fits, on what is reserved for another
        elif cost < least or (cost == least < np.inf and chosen_of(s)[s.chosen] < first):
            best, least, first = n, cost, chosen_of(s)[s.chosen]
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
    return bool(found >= devices_on(s, j, t))


@compiled
def gang_victims(s: Any, rules: Any, j: int, t: int, now: int) -> bool:
    """Choose whom to stop on the nodes of type `t` where it costs least. All or nothing."""
    needed = devices_on(s, j, t)
    if not enough_nodes(s, j, t):
        return False
    costs, found = np.empty(s.nodes), 0
    for n in range(s.nodes):
        there = max(to_be_had(s, n), node(s, n).whole)
        costs[n] = np.inf
        if node(s, n).type == t and there >= node(s, n).gpus:
            costs[n] = cost_on(s, rules, n, j, now)
            if costs[n] < np.inf and s.victims == 0 and not whole_node(s, j, n, t, now, BACKFILL):
                costs[n], s.spare = np.inf, 1  # it is reserved for another
            found += node(s, n).gpus if costs[n] < np.inf else 0
    if found < needed:
        return False
    order = np.argsort(costs, kind="mergesort")
    found = 0
    for i in range(s.nodes):
        if found >= needed:
            break
        found += node(s, order[i]).gpus
        if costs[order[i]] > 0 and cost_on(s, rules, order[i], j, now) < np.inf:
            choose_found(s)
    return bool(s.chosen > 0)


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
    if hopeless(s, rules, j) or not rate_left(s, rules, now):
        return False
    s.chosen = s.spare = 0
    if find_victims(s, rules, j, now):
        if s.limits and rules.quota and not choose_borrowers(s, rules, j, quota_milli(s, j), now):
            unchoose(s)
            return False
        stop_chosen(s, rules, j, now)
        return True
    if s.spare == 0 and (s.failed < 0 or asks_more(s, s.failed, j)):
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
    s.marked_owed = may_be_owed(s, rules, j)
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
    if s.plain or s.marked_owed != may_be_owed(s, rules, j):
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
    if cheapest_job < 0 and s.plain == 0:
        if cheapest_job == _NOBODY:
            note_calm(s, rules, j)
        return False
    if one_is_enough(s, j) and (s.plain == 0 or s.free_milli > 0):
        if cheapest_job >= 0:
            choose(s, cheapest_job)
        return bool(cheapest_job >= 0)
    return single_victims(s, rules, j, now) or gang_of_victims(s, rules, j, now)


@compiled
def mark_stoppable(s: Any, rules: Any, j: int, now: int) -> int:
    """Mark the nodes on which somebody might be stopped for `j`.

    Returns the cheapest job that may be, on a node that is open to `j`; `_ELSEWHERE` where there
    are such jobs on other nodes alone, and `_NOBODY`.
    """
    s.stamp += 1
    s.marked_most, s.behind_ms = 0, service_behind(s, rules, j)
    best, owed = _NOBODY, may_be_owed(s, rules, j)
    for i in range(s.running):
        victim = running_of(s)[i]
        if not might_stop(s, rules, victim, j, now, owed):
            continue
        is_here = mark_all(s, victim, j, now)
        if owed and not may_stop(s, rules, victim, j, now):
            continue
        if is_here and (best < 0 or costs_more(s, rules, best, victim, now)):
            best = victim
        elif best < 0:
            best = _ELSEWHERE
    return best


@compiled
def mark_all(s: Any, victim: int, j: int, now: int) -> bool:
    """Mark all nodes of `victim`; whether one of them is open to `j`."""
    is_here, h = s.types == 1 and s.leases == 0, job(s, victim).first
    while h >= 0:
        mark(s, h)
        is_here = is_here or is_open(s, j, holding(s, h).node, now)
        h = holding(s, h).next
    return is_here


@compiled
def mark(s: Any, h: int) -> None:
    """Count the devices of a holding among those that can be had on its node."""
    n = holding(s, h).node
    if marks_of(s)[n] >> _MARK_BITS != s.stamp:
        marks_of(s)[n] = s.stamp << _MARK_BITS
    devices = holding(s, h).devices
    while devices:
        marks_of(s)[n] += 1
        devices &= devices - np.uint64(1)
    s.marked_most = max(s.marked_most, to_be_had(s, n))


@compiled
def to_be_had(s: Any, n: int) -> int:
    """At most so many devices of node `n` could be wholly free; -1: nobody there can be stopped."""
    if s.plain:
        return int(node(s, n).gpus)
    if marks_of(s)[n] >> _MARK_BITS != s.stamp:
        return -1
    return node(s, n).whole + (marks_of(s)[n] & _MARK_ALL)


@compiled
def one_is_enough(s: Any, j: int) -> bool:
    """Whether any one job that stops makes room for `j`: for a whole device, where all are."""
    asked = job(s, j)
    alone = asked.devices == 1 and asked.gflops == 0 and asked.milli == WHOLE and s.shares == 0
    return alone and s.deviceless == 0 and asked.cpu_milli == 0 and asked.memory_mib == 0


@compiled
def note_calm(s: Any, rules: Any, j: int) -> None:
    """Nobody at all can be stopped for `j`. What runs longer, or starts, changes it by an alarm."""
    if reclaims(s, rules, j) or rules.preempt_depth > CALM_KEYS or rules.run_min_ms <= 0:
        return
    if rules.preempt & BY_ORDER and not (is_plain_order(rules) and only_sinks(rules)):
        return
    s.calm = 2 if job(s, j).overdue else 1
    s.calm_tier = job(s, j).tier
    s.calm_key = keys_of(s)[j, 0]
    s.calm_key_next = keys_of(s)[j, 1]


@compiled
def is_plain_order(rules: Any) -> bool:
    """Whether who stands behind one stands behind all before that one as well.

    Within a margin that need not be so, but for a single part that is never negative.
    """
    if rules.margin == 0.0:
        return True
    part = rules.order[0]
    alone = rules.preempt_depth <= 1 or rules.order[1] == 0
    return bool(alone and part != PRIORITY and part != SLACK and part != EXPANSION)


@compiled
def only_sinks(rules: Any) -> bool:
    """Whether who runs comes to stand behind others by an alarm alone."""
    for i in range(min(rules.preempt_depth, len(rules.order))):
        if rules.order[i] == FAIR or rules.order[i] == SLACK:
            return False
    return True


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
    """Whether `b` has room wherever `a` has."""
    more, less = job(s, a), job(s, b)
    if less.devices > more.devices or less.milli > more.milli:
        return False
    if not no_less_work(more.gflops, less.gflops):
        return False
    if less.cpu_milli > more.cpu_milli or less.memory_mib > more.memory_mib:
        return False
    if more.types & less.types != more.types:
        return False
    for t in range(s.types):
        if (more.types >> t) & 1 and not asks_more_of(s, a, b, t):
            return False
    return True


@compiled
def asks_more_of(s: Any, a: int, b: int, t: int) -> bool:
    """The same on nodes of type `t`, where `a` asks for no less in all."""
    more, less, size = devices_on(s, a, t), devices_on(s, b, t), kind(s, t).gpus_max
    if s.leases and duration_ms(s, b, t) > duration_ms(s, a, t):
        return False
    if more <= size or kind(s, t).nodes == 0:
        return True
    if less <= size:  # a whole node may be smaller than what `b` needs of one
        return bool(less <= s.node_min and job(s, b).cpu_milli == job(s, b).memory_mib == 0)
    if keeps_together(s, b) or job(s, b).cpu_milli * more > job(s, a).cpu_milli * less:
        return False
    return bool(job(s, b).memory_mib * more <= job(s, a).memory_mib * less)


@compiled
def no_less_work(a: int, b: int) -> bool:
    """Whether who asks for `a` GFLOPS takes no less than who asks for `b`, of every type.

    As far as that tells: both or neither ask for GFLOPS instead of devices.
    """
    return a >= b > 0 or a == b == 0


@compiled
def gang_of_victims(s: Any, rules: Any, j: int, now: int) -> bool:
    """Choose whom to stop on nodes of a type that `j` accepts, for a gang that lies anywhere."""
    if job(s, j).milli < WHOLE or keeps_together(s, j):
        return False
    for t in range(s.types):
        if (job(s, j).types >> t) & 1 == 0:
            continue
        if kind(s, t).gpus_max < devices_on(s, j, t) <= kind(s, t).gpus:
            if gang_victims(s, rules, j, t, now):
                return True
    return False


@compiled
def hopeless(s: Any, rules: Any, j: int) -> bool:
    """Whether it is known that nobody can be stopped for `j`.

    Nobody could be for one with no less of a claim, which needs no more; and what is guaranteed to
    `j` cannot help it.
    """
    if rules.preempt == 0 or s.running == 0:
        return True
    if s.plain or reclaims(s, rules, j):
        return False
    if is_calm_for(s, j):
        return True
    if s.failed < 0 or not claims_no_more(s, rules, j, s.failed) or not asks_more(s, j, s.failed):
        return False
    return not may_be_owed(s, rules, j)


@compiled
def claims_no_more(s: Any, rules: Any, a: int, b: int) -> bool:
    """Whether tier and order let `a` stop nobody whom they do not let `b`."""
    if rules.preempt & BY_TIER and job(s, a).tier < job(s, b).tier:
        return False
    if rules.preempt & BY_ORDER == 0 or job(s, b).overdue:
        return True
    if job(s, a).overdue or not is_plain_order(rules):
        return False
    for i in range(min(rules.preempt_depth, len(rules.order))):
        if keys_of(s)[a, i] != keys_of(s)[b, i]:
            return bool(keys_of(s)[a, i] > keys_of(s)[b, i])
    return True


@compiled
def hopeless_from(s: Any, rules: Any, j: int) -> bool:
    """Whether it is known that nobody can be stopped for `j`, nor for anybody behind it.

    Nothing is guaranteed to anybody. The order tells of those behind that they claim no more than
    `j` by it, but tiers only where they come first in it, and for `j` that is not overdue.
    """
    if rules.preempt == 0 or s.running == 0:
        return True
    by_tier = rules.order[0] == TIER and job(s, j).overdue == 0
    every = by_tier or rules.preempt & BY_TIER == 0
    if s.unasked and is_calm_for(s, j) and (every or s.first_tier >= s.calm_tier):
        return True
    if s.failed < 0 or not asks_least(s, s.failed) or not claims_no_more(s, rules, j, s.failed):
        return False
    return bool(every or s.first_tier >= job(s, s.failed).tier)


@compiled
def asks_least(s: Any, j: int) -> bool:
    """Whether `j` has room wherever any job has."""
    asked = job(s, j)
    if asked.devices * asked.milli > s.smallest_milli or (s.shares and asked.devices > 1):
        return False
    if asked.gflops > 0:
        return False
    if asked.cpu_milli or asked.memory_mib or s.leases or asked.devices > s.node_min:
        return False
    return bool(s.types == 1 or asked.types == ANY_TYPE)
