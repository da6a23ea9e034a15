"""Conservative backfill: every waiting job, in order, gets the first slot that delays nobody.

The profile says how many whole devices each bin has from each moment on. A bin is a node, or, where
nodes have one device each, all nodes of a type. A shared device counts once nobody holds it.
"""

from __future__ import annotations

from typing import Any

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
from dusuan.core.scheduling.kernels.backfill import correct_ends
from dusuan.core.scheduling.kernels.gates import CAPACITY, NO_REASON, ORDER, may_start
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
)
from dusuan.core.scheduling.kernels.score import fits


@compiled
def by_type(s: Any) -> bool:
    """Whether bins are types: every node has one device."""
    for n in range(s.nodes):
        if node(s, n).gpus != 1:
            return False
    return True


@compiled
def first_profile(s: Any, grouped: bool, times: Any, spare: Any, now: int) -> int:
    """Fill the profile from the running jobs; returns how many moments it has."""
    times[0] = now
    spare[0, :] = 0
    for n in range(s.nodes):
        if node(s, n).up > 0:
            spare[0, node(s, n).type if grouped else n] += node(s, n).whole
    count = 1
    for i in range(s.running):
        j = ending_of(s)[i]
        end = job(s, j).expected_end_ms
        if times[count - 1] != end:
            times[count] = end
            spare[count] = spare[count - 1]
            count += 1
        h = job(s, j).first
        while h >= 0:
            n = holding(s, h).node
            spare[count - 1, node(s, n).type if grouped else n] += freed(s, h)
            h = holding(s, h).next
    return count


@compiled
def freed(s: Any, h: int) -> int:
    """Devices that are wholly free once holding `h` is gone."""
    n, found = holding(s, h).node, 0
    for d in range(node(s, n).gpus):
        if (holding(s, h).devices >> np.uint64(d)) & np.uint64(1):
            found += free_of(s)[n, d] + holding(s, h).milli == WHOLE
    return found


@compiled
def least(times: Any, spare: Any, count: int, k: int, end: int, b: int) -> int:
    """The fewest devices that bin `b` has from moment `k` until `end`."""
    found = spare[k, b]
    k += 1
    while k < count and times[k] < end:
        found = min(found, spare[k, b])
        k += 1
    return found


@compiled
def bin_for(s: Any, j: int, times: Any, spare: Any, count: int, k: int, grouped: bool) -> int:
    """The bin that holds all of `j` from moment `k` on, the tightest; -1 for none."""
    best, rest = -1, 1 << 30
    for b in range(spare.shape[1]):
        t = b if grouped else node(s, b).type
        if (job(s, j).types >> t) & 1 == 0 or (not grouped and not is_open(s, j, b, times[k])):
            continue
        if spare[k, b] < job(s, j).devices:
            continue
        end = times[k] + duration_ms(s, j, t)
        left = least(times, spare, count, k, end, b) - job(s, j).devices
        if 0 <= left < rest:
            best, rest = b, left
    return best


@compiled
def gang_bins(s: Any, j: int, t: int, times: Any, spare: Any, count: int, k: int) -> int:
    """Whole nodes of type `t` for the gang `j` from moment `k` on, as working space; 0: none."""
    for g in range(s.nodes if keeps_together(s, j) else 1):
        group = g if keeps_together(s, j) else -1
        used = bins_in(s, j, t, times, spare, count, k, group)
        if used > 0:
            return used
    return 0


@compiled
def bins_in(s: Any, j: int, t: int, times: Any, spare: Any, count: int, k: int, group: int) -> int:
    """The same in one link domain or on one leaf switch; -1: anywhere."""
    end, found, used = times[k] + duration_ms(s, j, t), 0, 0
    for n in range(s.nodes):
        gpus = node(s, n).gpus
        if group >= 0 and group_of(s, j, n) != group:
            continue
        if node(s, n).type != t or gpus == 0 or not is_open(s, j, n, times[k]):
            continue
        if least(times, spare, count, k, end, n) >= gpus:
            scratch_of(s)[used] = n
            used += 1
            found += gpus
            if found >= job(s, j).devices:
                return used
    return 0


@compiled
def split(times: Any, spare: Any, count: int, moment: int) -> int:
    """Make `moment` one of the profile's; returns how many it has then."""
    k = count
    while k > 0 and times[k - 1] > moment:
        k -= 1
    if k > 0 and times[k - 1] == moment:
        return count
    for i in range(count, k, -1):
        times[i] = times[i - 1]
        spare[i] = spare[i - 1]
    times[k] = moment
    spare[k] = spare[k - 1]
    return count + 1


@compiled
def occupy(times: Any, spare: Any, count: int, begin: int, end: int, b: int, devices: int) -> int:
    """Take devices of bin `b` from `begin` until `end`; returns how many moments there are."""
    count = split(times, spare, count, begin)
    count = split(times, spare, count, end)
    for k in range(count):
        if begin <= times[k] < end:
            spare[k, b] -= devices
    return count


@compiled
def gang_slot(
    s: Any, rules: Any, j: int, times: Any, spare: Any, count: int, k: int, now: int
) -> int:
    """Give the gang `j` whole nodes from moment `k` on, if they are there. The new count, or -1."""
    for t in range(s.types):
        if (job(s, j).types >> t) & 1 == 0 or kind(s, t).gpus_max >= job(s, j).devices:
            continue
        used = gang_bins(s, j, t, times, spare, count, k)
        if used == 0:
            continue
        chosen = scratch_of(s)[:used].copy()
        begin, end = times[k], times[k] + duration_ms(s, j, t)
        if k == 0 and not start_gang(s, rules, j, chosen, now):
            continue
        for n in chosen:
            count = occupy(times, spare, count, begin, end, n, node(s, n).gpus)
        return count
    return -1


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
    start(s, rules, j, now, -1)
    return True


@compiled
def one_slot(
    s: Any,
    rules: Any,
    j: int,
    times: Any,
    spare: Any,
    count: int,
    k: int,
    grouped: bool,
    now: int,
) -> int:
    """Give `j` a bin from moment `k` on, if there is one. The new count of moments, or -1."""
    b = bin_for(s, j, times, spare, count, k, grouped)
    if b < 0 or (k == 0 and not start_on(s, rules, j, b, grouped, now)):
        return -1
    end = times[k] + duration_ms(s, j, b if grouped else node(s, b).type)
    return occupy(times, spare, count, times[k], end, b, job(s, j).devices)


@compiled
def slot(
    s: Any, rules: Any, j: int, times: Any, spare: Any, count: int, grouped: bool, now: int
) -> int:
    """Give `j` its first slot: now, which starts it, or later. The new count of moments."""
    for k in range(0 if may_start(s, rules, j, now) else 1, count):
        after = one_slot(s, rules, j, times, spare, count, k, grouped, now)
        if after < 0 and not grouped:
            after = gang_slot(s, rules, j, times, spare, count, k, now)
        if after >= 0:
            return after
    return count


@compiled
def conservative(s: Any, rules: Any, now: int) -> None:
    """Give every waiting job, in order and down to the policy's depth, its first slot."""
    grouped = by_type(s)
    correct_ends(s, now)
    waiting = min(s.waiting, rules.depth)
    moments = s.running + 2 * waiting + 4
    times = np.empty(moments, np.int64)
    spare = np.empty((moments, s.types if grouped else s.nodes), np.int32)
    count = first_profile(s, grouped, times, spare, now)
    promised = False
    for i in range(waiting):
        j = queue_of(s)[i]
        count = slot(s, rules, j, times, spare, count, grouped, now)
        if job(s, j).state == WAITING and job(s, j).reason == NO_REASON:
            job(s, j).reason = ORDER if promised else CAPACITY
            promised = True
