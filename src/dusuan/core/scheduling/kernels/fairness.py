"""Fair order of accounts, and the admission of queues in it: see `core.scheduling.fairness`.

The books of quota and use are those of rounds: `kernels.accounts`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from dusuan.core.scheduling.accounts import DEPTH_MAX, UNLIMITED
from dusuan.core.scheduling.compiled import compiled, entry, inlined
from dusuan.core.scheduling.kernels.access import account, pointer
from dusuan.core.scheduling.kernels.accounts import (
    add_use,
    available,
    hold,
    share_of,
    use_of,
)


@compiled
def tournament_of(p: Any) -> Any:
    """The tournaments of the children of all accounts."""
    return carray(pointer(p.tree_at), (p.leaves,), np.int64)


@compiled
def set_share(p: Any, a: int) -> None:
    """The dominant share of account `a`, by its weight."""
    use = use_of(p)
    account(p, a).share = share_of(p, a, use[a, 0], use[a, 1], use[a, 2])


@entry
def charge(p: Any, a: int, job: Any, weight: float) -> None:
    """Account `a` uses what `job` asks for; `weight` is what use weighs now."""
    hold(p, a, job.milli)
    add_use(p, a, weight * job.milli, weight * job.cpu_milli, weight * job.memory_mib)
    while a >= 0:
        set_share(p, a)
        a = account(p, a).parent


@inlined
def better(p: Any, a: int, b: int) -> int:
    """Whom to serve first of two accounts, either of which may be -1."""
    if a < 0 or b < 0:
        return max(a, b)
    if account(p, a).share != account(p, b).share:
        return a if account(p, a).share < account(p, b).share else b
    return min(a, b)


@inlined
def enter(p: Any, a: int, ready: bool) -> None:
    """Account `a` takes part in its parent's tournament, or does not."""
    parent = account(p, a).parent
    if parent < 0:
        return
    at = account(p, parent).tree
    i = account(p, parent).leaves + a - account(p, parent).first
    tree = tournament_of(p)
    tree[at + i] = a if ready else -1
    while i > 1:
        i //= 2
        tree[at + i] = better(p, tree[at + 2 * i], tree[at + 2 * i + 1])


@inlined
def ready_below(p: Any, a: int) -> bool:
    """Whether anybody waits in account `a` or below it."""
    if account(p, a).next < account(p, a).end:
        return True
    return account(p, a).children > 0 and tournament_of(p)[account(p, a).tree + 1] >= 0


@compiled
def renew(p: Any, a: int) -> None:
    """Bring the tournaments above account `a` up to date."""
    while a >= 0:
        enter(p, a, ready_below(p, a))
        a = account(p, a).parent


@compiled
def first_in_line(p: Any) -> int:
    """The account whose turn it is, or -1: the lowest share on each level, from the root down.

    An account's own queue stands before those of its children.
    """
    a = 0
    while a >= 0 and account(p, a).next >= account(p, a).end:
        a = tournament_of(p)[account(p, a).tree + 1] if account(p, a).children > 0 else -1
    return int(a)


@entry
def open_queues(p: Any, jobs: Any) -> None:
    """The queues of the accounts: `jobs` lie in order of account, first come first served."""
    for a in range(p.accounts):
        account(p, a).next = 0
        account(p, a).end = 0
    for j in range(len(jobs)):
        a = jobs[j].account
        if account(p, a).end == 0:
            account(p, a).next = j
        account(p, a).end = j + 1
    for a in range(p.accounts - 1, -1, -1):
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
        j = account(p, a).next
        if jobs[j].milli > free_milli or jobs[j].milli > available(p, a):
            close(p, a)
            continue
        account(p, a).next = j + 1
        free_milli -= jobs[j].milli
        charge(p, a, jobs[j], weight)
        renew(p, a)
        admitted[count] = j
        count += 1


@compiled
def close(p: Any, a: int) -> None:
    """Account `a` has no turn until the queues are opened again; those below it have."""
    account(p, a).next += UNLIMITED
    renew(p, a)


@entry
def reopen(p: Any) -> None:
    """Open the queues that `admit` closed."""
    for a in range(p.accounts - 1, -1, -1):
        if account(p, a).next >= UNLIMITED:
            account(p, a).next -= UNLIMITED
        enter(p, a, ready_below(p, a))


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


@compiled
def levels_of(parents: Any) -> Any:
    """How far below the pool each account is."""
    level = np.zeros(len(parents), np.int64)
    for a in range(1, len(parents)):
        level[a] = level[parents[a]] + 1
    return level


@compiled
def sorted_by(keys: Any, count: int, order: Any) -> Any:
    """`order` by ascending `keys`, which are below `count`; stable."""
    at = np.zeros(count + 1, np.int64)
    for a in order:
        at[keys[a] + 1] += 1
    at = np.cumsum(at)
    found = np.empty(len(order), np.int64)
    for a in order:
        found[at[keys[a]]] = a
        at[keys[a]] += 1
    return found


@compiled
def groups_of(parents: Any, share: Any, by_share: Any) -> tuple[Any, Any]:
    """The group of each account: those whose shares are equal on every level. And group parents.

    Groups are numbered level by level, those of one parent together, by ascending share.
    """
    level = levels_of(parents)
    order = sorted_by(level, DEPTH_MAX + 2, by_share)
    group, above = np.zeros(len(parents), np.int64), np.full(len(parents), -1, np.int64)
    keys = np.zeros(len(parents), np.int64)
    begin, count = 1, 1
    while begin < len(order):
        end = begin
        while end < len(order) and level[order[end]] == level[order[begin]]:
            keys[order[end]] = group[parents[order[end]]]
            end += 1
        last = -1
        for a in sorted_by(keys, count, order[begin:end]):
            if last < 0 or keys[a] != keys[last] or share[a] != share[last]:
                above[count] = keys[a]
                count += 1
            group[a], last = count - 1, a
        begin = end
    return group, above[:count]


@entry
def fair_ranks(parents: Any, share: Any, by_share: Any) -> Any:
    """The place of each account in the fair order, 0 for the pool; equals have one place.

    `by_share` are the accounts by ascending share. Siblings go in order of share, each followed by
    all below it (as in Slurm's fair tree). Who has used nothing of what is its parent's stands with
    its parent.
    """
    group, above = groups_of(parents, share, by_share)
    unused = np.ones(len(above), np.bool_)
    for a in range(len(parents)):
        unused[group[a]] = share[a] == 0.0
    places = places_of(above, unused)
    rank = np.empty(len(parents), np.int64)
    for a in range(len(parents)):
        rank[a] = places[group[a]]
    return rank


@compiled
def places_of(above: Any, unused: Any) -> Any:
    """The place of each group: after its parent and all groups before it, with theirs below."""
    count = len(above)
    below = np.zeros(count, np.int64)  # places of all below a group
    for g in range(count - 1, 0, -1):
        below[above[g]] += below[g] + (0 if unused[g] else 1)
    place, next_one = np.zeros(count, np.int64), np.ones(count, np.int64)
    for g in range(1, count):
        own = 0 if unused[g] else 1
        place[g] = next_one[above[g]] if own else place[above[g]]
        next_one[g] = next_one[above[g]] + own
        next_one[above[g]] += own + below[g]
    return place


@entry
def set_shares(p: Any) -> None:
    """The shares of all accounts."""
    for a in range(p.accounts):
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
