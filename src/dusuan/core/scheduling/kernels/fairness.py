"""Compiled books of quota and fair share: see `core.scheduling.fairness`."""

from __future__ import annotations

from typing import Any

import numpy as np

from dusuan.core.scheduling.compiled import compiled, entry, inlined
from dusuan.core.scheduling.fairness import DEPTH_MAX, RESOURCES, UNLIMITED


@entry
def available(p: Any, a: int) -> int:
    """How much more account `a` may use: its own, and what it may borrow on each level above."""
    path, depth = np.empty(DEPTH_MAX, np.int64), 0
    while a >= 0:
        path[depth] = a
        depth += 1
        a = p.accounts[a].parent
    free = p.accounts[0].subtree_milli - p.accounts[0].used_milli
    for i in range(depth - 2, -1, -1):
        each = p.accounts[path[i]]
        own = max(0, each.kept_milli - each.used_milli)
        if each.borrow_milli >= 0:
            beyond = max(0, each.used_milli - each.kept_milli)
            lent = each.subtree_milli - each.kept_milli
            free = min(free, lent - beyond + each.borrow_milli)
        free += own
    return free


@inlined
def set_share(p: Any, a: int) -> None:
    """The dominant share of account `a`, by its weight."""
    most = 0.0
    for r in range(RESOURCES):
        most = max(most, p.use[a, r] / p.pool[r])
    p.accounts[a].share = most / p.accounts[a].weight


@entry
def hold(p: Any, a: int, milli: int) -> None:
    """Account `a` holds `milli` more: what it keeps to itself first, the rest from its parent."""
    p.accounts[a].own_used_milli += milli
    while a >= 0 and milli > 0:
        own = max(0, p.accounts[a].kept_milli - p.accounts[a].used_milli)
        p.accounts[a].used_milli += milli
        milli = max(0, milli - own)
        a = p.accounts[a].parent


@entry
def charge(p: Any, a: int, job: Any, weight: float) -> None:
    """Account `a` uses what `job` asks for; `weight` is what use weighs now."""
    hold(p, a, job.milli)
    while a >= 0:
        p.use[a, 0] += weight * job.milli
        p.use[a, 1] += weight * job.cpu_milli
        p.use[a, 2] += weight * job.memory_mib
        set_share(p, a)
        a = p.accounts[a].parent


@entry
def refund(p: Any, a: int, milli: int) -> None:
    """Account `a` holds `milli` less. What it used stays in its share, and fades."""
    p.accounts[a].own_used_milli -= milli
    while a >= 0 and milli > 0:
        beyond = p.accounts[a].used_milli - p.accounts[a].kept_milli
        p.accounts[a].used_milli -= milli
        milli = min(milli, max(0, beyond))
        a = p.accounts[a].parent


@inlined
def better(p: Any, a: int, b: int) -> int:
    """Whom to serve first of two accounts, either of which may be -1."""
    if a < 0 or b < 0:
        return max(a, b)
    if p.accounts[a].share != p.accounts[b].share:
        return a if p.accounts[a].share < p.accounts[b].share else b
    return min(a, b)


@inlined
def enter(p: Any, a: int, ready: bool) -> None:
    """Account `a` takes part in its parent's tournament, or does not."""
    parent = p.accounts[a].parent
    if parent < 0:
        return
    at = p.accounts[parent].tree
    i = p.accounts[parent].leaves + a - p.accounts[parent].first
    p.tree[at + i] = a if ready else -1
    while i > 1:
        i //= 2
        p.tree[at + i] = better(p, p.tree[at + 2 * i], p.tree[at + 2 * i + 1])


@inlined
def ready_below(p: Any, a: int) -> bool:
    """Whether anybody waits in account `a` or below it."""
    if p.accounts[a].next < p.accounts[a].end:
        return True
    return p.accounts[a].children > 0 and p.tree[p.accounts[a].tree + 1] >= 0


@compiled
def renew(p: Any, a: int) -> None:
    """Bring the tournaments above account `a` up to date."""
    while a >= 0:
        enter(p, a, ready_below(p, a))
        a = p.accounts[a].parent


@compiled
def first_in_line(p: Any) -> int:
    """The account whose turn it is, or -1: the lowest share on each level, from the root down.

    An account's own queue stands before those of its children.
    """
    a = 0
    while a >= 0 and p.accounts[a].next >= p.accounts[a].end:
        a = p.tree[p.accounts[a].tree + 1] if p.accounts[a].children > 0 else -1
    return int(a)


@entry
def open_queues(p: Any, jobs: Any) -> None:
    """The queues of the accounts: `jobs` lie in order of account, first come first served."""
    for a in range(len(p.accounts)):
        p.accounts[a].next = 0
        p.accounts[a].end = 0
    for j in range(len(jobs)):
        a = jobs[j].account
        if p.accounts[a].end == 0:
            p.accounts[a].next = j
        p.accounts[a].end = j + 1
    for a in range(len(p.accounts) - 1, -1, -1):
        enter(p, a, ready_below(p, a))


@entry
def admit(p: Any, jobs: Any, free_milli: int, weight: float, admitted: Any) -> int:
    """Admit waiting jobs in fair order while there is room; returns how many, `admitted[:n]`.

    A queue whose first job finds no room or no quota is closed for this pass: what it waits for is
    not given to those behind it. `open_queues` (or `reopen`) opens it again.
    """
    count = 0
    while True:
        a = first_in_line(p)
        if a < 0:
            return count
        j = p.accounts[a].next
        if jobs[j].milli > free_milli or jobs[j].milli > available(p, a):
            close(p, a)
            continue
        p.accounts[a].next = j + 1
        free_milli -= jobs[j].milli
        charge(p, a, jobs[j], weight)
        renew(p, a)
        admitted[count] = j
        count += 1


@compiled
def close(p: Any, a: int) -> None:
    """Account `a` has no turn until the queues are opened again; those below it have."""
    p.accounts[a].next += UNLIMITED
    renew(p, a)


@entry
def reopen(p: Any) -> None:
    """Open the queues that `admit` closed."""
    for a in range(len(p.accounts) - 1, -1, -1):
        if p.accounts[a].next >= UNLIMITED:
            p.accounts[a].next -= UNLIMITED
        enter(p, a, ready_below(p, a))


@inlined
def lies_below(p: Any, a: int, top: int) -> bool:
    """Whether account `a` is `top` or below it."""
    while a > top:
        a = p.accounts[a].parent
    return bool(a == top)


@inlined
def borrows_from(p: Any, b: int, a: int) -> bool:
    """Whether `b`, or an account above it that `a` is not below, uses more than its guarantee.

    Where `a` is below `b`, whether the own jobs of `b` use what is guaranteed to its children.
    """
    if b != a and lies_below(p, a, b):
        return bool(p.accounts[b].own_used_milli > p.accounts[b].own_milli)
    while b >= 0 and not lies_below(p, a, b):
        if p.accounts[b].used_milli > p.accounts[b].subtree_milli:
            return True
        b = p.accounts[b].parent
    return False


@inlined
def guaranteed(p: Any, a: int, wanted: int) -> bool:
    """Whether `wanted` more is guaranteed to account `a`: among its kin, or to its own jobs."""
    each = p.accounts[a]
    whole = each.used_milli + wanted <= each.subtree_milli
    return bool(whole or each.own_used_milli + wanted <= each.own_milli)


@entry
def reclaim(p: Any, held: Any, order: Any, a: int, wanted: int, free: int, chosen: Any) -> bool:
    """Choose which of the `held` jobs stop so that `a` can use `wanted` of what it is guaranteed.

    `order` has the jobs that may be stopped, the least costly first; `free` is idle now. Only jobs
    of accounts that borrow are `chosen`, and none that is not needed. Their use is refunded in the
    books. False, and nothing chosen, when `a` would borrow itself or that is not enough.
    """
    count = 0
    taken = np.empty(len(order), np.int64)
    if not guaranteed(p, a, wanted):
        return False
    for i in range(len(order)):
        if free >= wanted and available(p, a) >= wanted:
            break
        h = order[i]
        if borrows_from(p, held[h].account, a):
            refund(p, held[h].account, held[h].milli)
            free += held[h].milli
            taken[count] = h
            count += 1
    enough = free >= wanted and available(p, a) >= wanted
    for i in range(count - 1, -1, -1):  # the costly ones first: is it needed?
        h = taken[i]
        hold(p, held[h].account, held[h].milli)
        if enough and (free - held[h].milli < wanted or available(p, a) < wanted):
            refund(p, held[h].account, held[h].milli)
            chosen[h] = True
        else:
            free -= held[h].milli
    return enough


@compiled
def arranged(parents: Any, order: Any) -> Any:
    """Accounts level by level as they are numbered, siblings in the given `order` of accounts."""
    filled = np.full(len(parents) + 1, -1, np.int64)  # the last is for the pool's parent
    for a in range(len(parents) - 1, -1, -1):
        filled[parents[a]] = a  # the first child
    found = np.empty(len(parents), np.int64)
    for i in range(len(order)):
        a = order[i]
        found[filled[parents[a]]] = a
        filled[parents[a]] += 1
    return found


@entry
def fair_ranks(parents: Any, by_share: Any) -> Any:
    """How many accounts come before each; `by_share` are the accounts by ascending share.

    Siblings in order of share, each followed by all below it (as in Slurm's fair tree).
    """
    count = len(parents)
    size, rank = np.ones(count, np.int64), np.zeros(count, np.int64)
    for a in range(count - 1, 0, -1):
        size[parents[a]] += size[a]
    taken = np.ones(count, np.int64)  # by an account itself and those of its children seen so far
    for a in arranged(parents, by_share)[1:]:
        parent = parents[a]
        rank[a] = rank[parent] + taken[parent]
        taken[parent] += size[a]
    return rank


@entry
def set_shares(p: Any) -> None:
    """The shares of all accounts."""
    for a in range(len(p.accounts)):
        set_share(p, a)


@entry
def summed_up(parents: Any, own: Any) -> Any:
    """What accounts and all below them have, from what each has by itself."""
    total = own.copy()
    for a in range(len(parents) - 1, 0, -1):
        total[parents[a]] += total[a]
    return total


@entry
def level_out(
    parents: Any, weights: Any, demand: Any, asked: Any, pool: float, by_demand: Any
) -> Any:
    """What each account is owed, level by level; siblings that ask for the least by weight first.

    An account serves itself first, then its children.
    """
    share, weight = np.zeros(len(parents)), np.zeros(len(parents))
    for a in range(1, len(parents)):
        weight[parents[a]] += weights[a]
    share[0] = min(pool, asked[0])
    left = np.zeros(len(parents))
    left[0] = max(0.0, share[0] - demand[0])
    for a in arranged(parents, by_demand)[1:]:
        parent = parents[a]
        share[a] = min(asked[a], left[parent] * min(1.0, weights[a] / max(weight[parent], 1e-300)))
        left[parent] -= share[a]
        weight[parent] -= weights[a]
        left[a] = max(0.0, share[a] - demand[a])
    return share
