"""Conservative backfill: every waiting job, in order, gets the first slot that delays nobody.

The profile says how many whole devices each bin has from each moment on. A bin is a node, or, where
nodes have one device each, all nodes of a type. A shared device counts once nobody holds it.

Only who starts now matters to a round, so slots are looked for no further down the queue than the
last job that what is free now could hold. Moments and bins at which a search cannot succeed are
passed over: those with too little in any bin, or in all, and for a bin those up to the moment that
was found to stand in the way. For W jobs looked at, B bins and M moments (running jobs and twice
those looked at) a round costs O(W x B x M) at worst.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dusuan.core.scheduling.arrays import WAITING, WHOLE
from dusuan.core.scheduling.compiled import compiled
from dusuan.core.scheduling.kernels.access import (
    ending_of,
    free_of,
    holding,
    job,
    kind,
    node,
    picked,
    queue_of,
    scratch_of,
)
from dusuan.core.scheduling.kernels.amounts import devices_on, fewest
from dusuan.core.scheduling.kernels.backfill import correct_ends
from dusuan.core.scheduling.kernels.gates import CAPACITY, NO_REASON, ORDER, may_start_now
from dusuan.core.scheduling.kernels.hold import start
from dusuan.core.scheduling.kernels.place import (
    NOW,
    duration_ms,
    gang_of_type,
    group_of,
    is_open,
    keeps_together,
    pick_devices,
    pick_whole,
    spans_nodes,
)
from dusuan.core.scheduling.kernels.quota import picked_milli, short
from dusuan.core.scheduling.kernels.score import fits


class Profile(NamedTuple):
    """Moments M, bins B. `count[0]` moments are in use."""

    times: Any  # [M] ms
    spare: Any  # [M, B] whole devices from then on
    most: Any  # [M] no bin has more
    total: Any  # [M] of all bins
    past: Any  # [B] the search of one job for this bin goes on at this moment
    count: Any  # [1]
    grouped: bool  # bins are types


@compiled
def by_type(s: Any) -> bool:
    """Whether bins are types: every node has one device, and nobody asks for none."""
    if s.deviceless:
        return False
    for n in range(s.nodes):
        if node(s, n).gpus != 1:
            return False
    return True


@compiled
def first_profile(s: Any, p: Any, now: int) -> None:
    """Fill the profile from what is free and the running jobs."""
    p.times[0] = now
    p.spare[0, :] = 0
    for n in range(s.nodes):
        if node(s, n).up > 0:
            p.spare[0, node(s, n).type if p.grouped else n] += node(s, n).whole
    p.most[0], p.total[0] = p.spare[0].max(), p.spare[0].sum()
    p.count[0] = 1


@compiled
def add_ends(s: Any, p: Any) -> None:
    """Let running jobs leave the profile at their expected ends."""
    count = p.count[0]
    for i in range(s.running):
        j = ending_of(s)[i]
        end = job(s, j).expected_end_ms
        if p.times[count - 1] != end:
            p.times[count] = end
            copy_moment(p, count - 1, count)
            count += 1
        h = job(s, j).first
        while h >= 0:
            b = node(s, holding(s, h).node).type if p.grouped else holding(s, h).node
            more = freed(s, h)
            p.spare[count - 1, b] += more
            p.total[count - 1] += more
            p.most[count - 1] = max(p.most[count - 1], p.spare[count - 1, b])
            h = holding(s, h).next
    p.count[0] = count


@compiled
def copy_moment(p: Any, k: int, to: int) -> None:
    """What there is at moment `k` is there at moment `to` too."""
    p.spare[to] = p.spare[k]
    p.most[to] = p.most[k]
    p.total[to] = p.total[k]


@compiled
def freed(s: Any, h: int) -> int:
    """Devices that are wholly free once holding `h` is gone."""
    n, found = holding(s, h).node, 0
    for d in range(node(s, n).gpus):
        if (holding(s, h).devices >> np.uint64(d)) & np.uint64(1):
            found += free_of(s)[n, d] + holding(s, h).milli == WHOLE
    return found


@compiled
def least(p: Any, k: int, end: int, b: int, need: int) -> int:
    """The fewest devices that bin `b` has from moment `k` until `end`; -1 if fewer than `need`.

    Then the search for this bin goes on behind the moment that stands in the way.
    """
    found = p.spare[k, b]
    i, count = k, p.count[0]
    while i < count and (i == k or p.times[i] < end):
        found = min(found, p.spare[i, b])
        if found < need:
            p.past[b] = i + 1
            return -1
        i += 1
    return int(found)


@compiled
def bin_for(s: Any, j: int, p: Any, k: int) -> int:
    """The bin that holds all of `j` from moment `k` on, the tightest; -1 for none."""
    best, rest, most, fewer = -1, 1 << 30, 0, fewest(s, j)
    for b in range(p.spare.shape[1]):
        most = max(most, p.spare[k, b])
        if k < p.past[b] or p.spare[k, b] < fewer:
            continue
        t = b if p.grouped else node(s, b).type
        need = devices_on(s, j, t)
        if p.spare[k, b] < need:
            continue
        if (job(s, j).types >> t) & 1 == 0 or (not p.grouped and not is_open(s, j, b, p.times[k])):
            continue
        left = least(p, k, p.times[k] + duration_ms(s, j, t), b, need)
        if need <= left < rest:
            best, rest = b, left
    p.most[k] = most
    return best


@compiled
def gang_bins(s: Any, j: int, t: int, p: Any, k: int) -> int:
    """Whole nodes of type `t` for the gang `j` from moment `k` on, as working space; 0: none."""
    for g in range(s.nodes if keeps_together(s, j) else 1):
        used = bins_in(s, j, t, p, k, g if keeps_together(s, j) else -1)
        if used > 0:
            return used
    return 0


@compiled
def bins_in(s: Any, j: int, t: int, p: Any, k: int, group: int) -> int:
    """The same in one link domain or on one leaf switch; -1: anywhere."""
    end, found, used = p.times[k] + duration_ms(s, j, t), 0, 0
    for n in range(s.nodes):
        gpus = node(s, n).gpus
        if k < p.past[n] or p.spare[k, n] < gpus or (group >= 0 and group_of(s, j, n) != group):
            continue
        if node(s, n).type != t or gpus == 0 or not is_open(s, j, n, p.times[k]):
            continue
        if least(p, k, end, n, gpus) >= gpus:
            scratch_of(s)[used] = n
            used += 1
            found += gpus
            if found >= devices_on(s, j, t):
                return used
    return 0


@compiled
def split(p: Any, moment: int) -> None:
    """Make `moment` one of the profile's."""
    k = p.count[0]
    while k > 0 and p.times[k - 1] > moment:
        k -= 1
    if k > 0 and p.times[k - 1] == moment:
        return
    for i in range(p.count[0], k, -1):
        p.times[i] = p.times[i - 1]
        copy_moment(p, i - 1, i)
    p.times[k] = moment
    copy_moment(p, k - 1, k)
    p.count[0] += 1


@compiled
def occupy(p: Any, begin: int, end: int, b: int, devices: int) -> None:
    """Take devices of bin `b` from `begin` until `end`."""
    split(p, begin)
    split(p, end)
    for k in range(p.count[0]):
        if begin <= p.times[k] < end:
            p.spare[k, b] -= devices
            p.total[k] -= devices


@compiled
def gang_slot(s: Any, rules: Any, j: int, p: Any, k: int, now: int) -> bool:
    """Give the gang `j` whole nodes from moment `k` on, if they are there."""
    for t in range(s.types):
        if (job(s, j).types >> t) & 1 == 0 or kind(s, t).gpus_max >= devices_on(s, j, t):
            continue
        used = gang_bins(s, j, t, p, k)
        if used == 0:
            continue
        chosen = scratch_of(s)[:used].copy()
        begin, end = p.times[k], p.times[k] + duration_ms(s, j, t)
        if k == 0 and not start_gang(s, rules, j, chosen, now):
            continue
        for n in chosen:
            occupy(p, begin, end, n, node(s, n).gpus)
        return True
    return False


@compiled
def start_gang(s: Any, rules: Any, j: int, chosen: Any, now: int) -> bool:
    """Start `j` on the chosen nodes, unless their CPU or memory is taken."""
    s.pick_count = 0
    for n in chosen:
        pick_whole(s, j, n)
        taken = picked(s, s.pick_count - 1)
        here = node(s, n)
        if here.cpu_free_milli < taken.cpu_milli or here.memory_free_mib < taken.memory_mib:
            return False
    return start_within_quota(s, rules, j, now)


@compiled
def start_within_quota(s: Any, rules: Any, j: int, now: int) -> bool:
    """Start `j` on the picks, unless they are more than it asks for, and more than its quota."""
    if short(s, rules, j, picked_milli(s)):
        return False
    start(s, rules, j, now, -1)
    return True


@compiled
def start_on(s: Any, rules: Any, j: int, b: int, grouped: bool, now: int) -> bool:
    """Start `j` in bin `b`, unless CPU or memory is taken."""
    if grouped:
        if not gang_of_type(s, j, b, now, NOW):
            return False
    else:
        if not fits(s, b, job(s, j).request, False):
            return False
        s.pick_count = 0
        pick_devices(s, rules, j, b, NOW, False)
    return start_within_quota(s, rules, j, now)


@compiled
def one_slot(s: Any, rules: Any, j: int, p: Any, k: int, now: int) -> bool:
    """Give `j` a bin from moment `k` on, if there is one."""
    if p.most[k] < fewest(s, j):
        return False
    b = bin_for(s, j, p, k)
    if b < 0 or (k == 0 and not start_on(s, rules, j, b, p.grouped, now)):
        return False
    t = b if p.grouped else node(s, b).type
    occupy(p, p.times[k], p.times[k] + duration_ms(s, j, t), b, devices_on(s, j, t))
    return True


@compiled
def slot(s: Any, rules: Any, j: int, p: Any, now: int) -> bool:
    """Give `j` its first slot: now, which starts it, or later. False where it has none."""
    p.past[:] = 0
    spans = not p.grouped and spans_nodes(s, j)
    for k in range(0 if may_start_now(s, rules, j, now) else 1, p.count[0]):
        if p.total[k] < fewest(s, j):
            continue
        if one_slot(s, rules, j, p, k, now) or (spans and gang_slot(s, rules, j, p, k, now)):
            return True
    return False


@compiled
def last_to_start(s: Any, p: Any, waiting: int) -> int:
    """The last of those waiting that what is free now could hold, promises aside; -1: nobody."""
    largest, total = p.spare[0].max(), p.spare[0].sum()
    for i in range(waiting - 1, -1, -1):
        j = queue_of(s)[i]
        if job(s, j).state == WAITING and (
            fewest(s, j) <= largest
            or (fewest(s, j) <= total and not p.grouped and spans_nodes(s, j))
        ):
            return i
    return -1


@compiled
def new_profile(s: Any, waiting: int) -> Any:
    """Room for a profile."""
    grouped, moments = by_type(s), s.running + 2 * waiting + 4
    bins = s.types if grouped else s.nodes
    return Profile(
        np.empty(moments, np.int64),
        np.empty((moments, bins), np.int32),
        np.zeros(moments, np.int32),
        np.zeros(moments, np.int64),
        np.zeros(bins, np.int64),
        np.zeros(1, np.int64),
        grouped,
    )


@compiled
def conservative(s: Any, rules: Any, now: int) -> None:
    """Give every waiting job, in order and down to the policy's depth, its first slot."""
    correct_ends(s, now)
    waiting = min(s.waiting, rules.depth)
    p = new_profile(s, waiting)
    first_profile(s, p, now)
    last, i, promised = last_to_start(s, p, waiting), 0, False
    if last >= 0:
        add_ends(s, p)
    while i < waiting:
        j = queue_of(s)[i]
        if i <= last and slot(s, rules, j, p, now) and job(s, j).state != WAITING:
            last = last_to_start(s, p, waiting)
        elif (i <= last or may_start_now(s, rules, j, now)) and job(s, j).reason == NO_REASON:
            job(s, j).reason = ORDER if promised else CAPACITY
            promised = True
        i += 1
