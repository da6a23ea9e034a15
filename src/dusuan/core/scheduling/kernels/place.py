"""Where a job can run: on one node, or as a gang of whole nodes.

A placement is looked for in one of three views: `NOW` (what is free), `BACKFILL` (what is free, and
whoever would still run at a reserved moment leaves the reserved devices alone) and `LATER` (what
will be free at the moment for which a reservation is sought). The found placement is in the picks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dusuan.core.scheduling.arrays import (
    DEVICES_PER_NODE_MAX,
    FOREVER_MS,
    SAME_DOMAIN,
    SAME_LEAF,
    SPREAD,
    WHOLE,
)
from dusuan.core.scheduling.compiled import compiled
from dusuan.core.scheduling.kernels.access import (
    idle_of,
    job,
    kind,
    later_node,
    later_of,
    node,
    of_type,
    picked,
    request,
)
from dusuan.core.scheduling.kernels.amounts import devices_on, fewest, speed_on
from dusuan.core.scheduling.kernels.index import choose
from dusuan.core.scheduling.kernels.score import SPREADING, UNFIT, evaluate, free_at

NOW, BACKFILL, LATER = 0, 1, 2
_TYPE_STEP = 1 << 24
_NOWHERE = 1 << 60


@compiled
def scaled(work_ms: int, reference_gflops: int, rating_gflops: int) -> int:
    """Run time of `work_ms` (on a device of the reference rating) on a device of `rating`."""
    if reference_gflops <= 0 or rating_gflops <= 0 or reference_gflops == rating_gflops:
        return work_ms
    return int(np.ceil(work_ms * (reference_gflops / rating_gflops)))


@compiled
def left_ms(s: Any, j: int) -> int:
    """Predicted work left, in the job's reference time; at least a millisecond."""
    return max(job(s, j).predicted_ms - job(s, j).done_ms, 1)


@compiled
def duration_ms(s: Any, j: int, t: int) -> int:
    """How long `j` is expected to hold devices of type `t` if it starts now."""
    work = scaled(left_ms(s, j), job(s, j).rating_gflops, speed_on(s, j, t))
    return job(s, j).overhead_ms + work


@compiled
def cautious_ms(s: Any, j: int, t: int) -> int:
    """How long `j` may hold devices of type `t` as far as a reservation is concerned.

    As predicted, or, where the reservation is of a job that has waited too long, what its user
    says if that is longer: a prediction that is wrong puts it off once more.
    """
    expected = duration_ms(s, j, t)
    if s.careful == 0 or job(s, j).estimate_ms <= 0:
        return expected
    left = job(s, j).estimate_ms - job(s, j).done_ms
    told = scaled(left, job(s, j).rating_gflops, speed_on(s, j, t))
    return max(expected, job(s, j).overhead_ms + told)


@compiled
def guarded_on(s: Any, j: int, t: int, now: int, view: int) -> bool:
    """Whether `j` on a node of type `t` would run into the reservation there."""
    if view != BACKFILL:
        return False
    later = kind(s, t).later_ms
    return later > 0 and now + cautious_ms(s, j, t) > later


@compiled
def guarded(s: Any, j: int, n: int, now: int, view: int) -> bool:
    """Whether `j` on node `n` would run into the reservation on its type."""
    return guarded_on(s, j, node(s, n).type, now, view)


@compiled
def is_open(s: Any, j: int, n: int, now: int) -> bool:
    """Whether node `n` may serve `j` at all: up, of its types, and not promised away too soon."""
    here = node(s, n)
    if here.up < 1 or (job(s, j).types >> here.type) & 1 == 0:
        return False
    return here.closes_ms >= FOREVER_MS or now + duration_ms(s, j, here.type) <= here.closes_ms


@compiled
def room_later(s: Any, j: int, n: int, now: int) -> int:
    """Devices of node `n` that will have room for `j` when all of it will fit there, else -1."""
    ask, here = request(s, job(s, j).request), later_node(s, n)
    needed = devices_on(s, j, node(s, n).type)
    if needed > node(s, n).gpus or not is_open(s, j, n, now):
        return -1
    if here.cpu_free_milli < ask.cpu_milli or here.memory_free_mib < ask.memory_mib:
        return -1
    found = here.whole
    if ask.milli < WHOLE:
        found = 0
        for d in range(node(s, n).gpus):
            found += later_of(s)[n, d] >= ask.milli
    return found if found >= needed else -1


@compiled
def best_later(s: Any, j: int, now: int) -> int:
    """The node to reserve for all of `j`, or -1: of the fastest type, and with as little as can be
    of what is free now, which others can use until then."""
    best, against = -1, _NOWHERE
    for n in range(s.nodes):
        found = room_later(s, j, n, now)
        if found < 0:
            continue
        value = kind(s, node(s, n).type).rank * _TYPE_STEP + node(s, n).whole * 128 + found
        if value < against:
            best, against = n, value
    return best


@compiled
def placement_of(s: Any, rules: Any, j: int) -> int:
    """The placement by which `j` finds its node."""
    return SPREADING if job(s, j).topology == SPREAD else rules.placement


@compiled
def best_of_type(s: Any, rules: Any, j: int, t: int, now: int, guard: bool) -> tuple[int, int]:
    """The node of type `t` to run all of `j` on, and its score; or -1."""
    how, k = placement_of(s, rules, j), job(s, j).request
    if s.leases == 0 and s.indexed and s.plain == 0:
        return choose(s, how, k, t, guard)
    best, most = -1, UNFIT
    for place in range(kind(s, t).nodes):
        n = of_type(s)[kind(s, t).first + place]
        value = evaluate(s, how, n, k, guard)[0]
        if value > most and is_open(s, j, n, now):
            best, most = n, value
    return best, most


@compiled
def best_node(s: Any, rules: Any, j: int, now: int, view: int) -> int:
    """The node to run all of `j` on, or -1: of the fastest type, then by the placement, then the
    first."""
    best, most, rank = -1, UNFIT, s.types
    for place in range(s.types):
        t = kind(s, place).ranked
        if best >= 0 and kind(s, t).rank > rank:
            break
        if (job(s, j).types >> t) & 1 == 0 or kind(s, t).gpus_max < devices_on(s, j, t):
            continue
        n, value = best_of_type(s, rules, j, t, now, guarded_on(s, j, t, now, view))
        if n >= 0 and (value > most or (value == most and n < best)):
            best, most, rank = n, value, kind(s, t).rank
    if best < 0 and job(s, j).milli == WHOLE and not any_has(s, fewest(s, j)):
        s.none_from = min(s.none_from, fewest(s, j))
    return best


@compiled
def any_has(s: Any, devices: int) -> bool:
    """Whether some node has so many devices wholly free, for whomever."""
    for count in range(devices, DEVICES_PER_NODE_MAX + 1):
        if idle_of(s)[count] > 0:
            return True
    return False


@compiled
def pick(s: Any, n: int, devices: Any, milli: int, cpu: int, memory: int) -> None:
    """Add a node to the placement."""
    count = s.pick_count
    picked(s, count).node = n
    picked(s, count).devices = devices
    picked(s, count).milli = milli
    picked(s, count).cpu_milli = cpu
    picked(s, count).memory_mib = memory
    s.pick_count = count + 1


@compiled
def pick_devices(s: Any, rules: Any, j: int, n: int, view: int, guard: bool) -> None:
    """Choose the devices of node `n`: by the placement for a share, else those with the least left
    over, lowest index first."""
    milli, chosen = job(s, j).milli, np.uint64(0)
    if view != LATER and job(s, j).devices == 1 and milli < WHOLE:
        d = evaluate(s, placement_of(s, rules, j), n, job(s, j).request, guard)[1]
        chosen = np.uint64(1) << np.uint64(d)
    else:
        chosen = tightest_devices(s, j, n, view, guard)
    pick(s, n, chosen, milli, job(s, j).cpu_milli, job(s, j).memory_mib)


@compiled
def tightest_devices(s: Any, j: int, n: int, view: int, guard: bool) -> Any:
    """The devices of node `n` with the least left over, as bits."""
    chosen = np.uint64(0)
    for _ in range(devices_on(s, j, node(s, n).type)):
        best, left = -1, WHOLE + 1
        for d in range(node(s, n).gpus):
            free = later_of(s)[n, d] if view == LATER else free_at(s, n, d, guard)
            rest = free - job(s, j).milli
            if 0 <= rest < left and (chosen >> np.uint64(d)) & np.uint64(1) == 0:
                best, left = d, rest
        chosen |= np.uint64(1) << np.uint64(best)
    return chosen


@compiled
def all_devices(count: int) -> Any:
    """The lowest `count` bits."""
    if count >= 64:
        return np.uint64(0xFFFFFFFFFFFFFFFF)
    return (np.uint64(1) << np.uint64(count)) - np.uint64(1)


@compiled
def node_share(total: int, gpus: int, devices: int) -> int:
    """What of a gang's CPU or memory falls on a node with `gpus` of its `devices`, rounded up."""
    return -(-total * gpus // devices)


@compiled
def whole_node(s: Any, j: int, n: int, t: int, now: int, view: int) -> bool:
    """Whether node `n` of type `t` can join the gang `j` with all of its devices."""
    gpus = node(s, n).gpus
    if node(s, n).type != t or gpus == 0 or not is_open(s, j, n, now):
        return False
    guard = guarded(s, j, n, now, view)
    if view == LATER:
        free = later_node(s, n).whole
    elif guard:
        free = min(node(s, n).whole, later_node(s, n).whole)
    else:
        free = node(s, n).whole
    if free < gpus:
        return False
    devices = devices_on(s, j, t)
    cpu = node_share(job(s, j).cpu_milli, gpus, devices)
    memory = node_share(job(s, j).memory_mib, gpus, devices)
    here = later_node(s, n) if view == LATER else node(s, n)
    return here.cpu_free_milli >= cpu and here.memory_free_mib >= memory


@compiled
def pick_whole(s: Any, j: int, n: int) -> int:
    """Add all of node `n` to the gang `j`; returns its devices."""
    gpus, devices = node(s, n).gpus, devices_on(s, j, node(s, n).type)
    cpu = node_share(job(s, j).cpu_milli, gpus, devices)
    memory = node_share(job(s, j).memory_mib, gpus, devices)
    pick(s, n, all_devices(gpus), WHOLE, cpu, memory)
    return gpus


@compiled
def keeps_together(s: Any, j: int) -> bool:
    """Whether `j` has to stay in one link domain or on one leaf switch."""
    return job(s, j).topology == SAME_DOMAIN or job(s, j).topology == SAME_LEAF


@compiled
def group_of(s: Any, j: int, n: int) -> int:
    """The link domain or the leaf switch of node `n`, whichever `j` is about."""
    return int(node(s, n).domain if job(s, j).topology == SAME_DOMAIN else node(s, n).leaf)


@compiled
def tightest_group(s: Any, j: int, t: int, now: int, view: int) -> int:
    """Of the groups that hold all of `j` on nodes of type `t`, the one with the least room; or -1.

    So large gangs find groups that small ones have left alone.
    """
    room_in, best = np.zeros(s.nodes, np.int64), -1
    for n in range(s.nodes):
        if whole_node(s, j, n, t, now, view):
            room_in[group_of(s, j, n)] += node(s, n).gpus
    for g in range(s.nodes):
        if room_in[g] >= devices_on(s, j, t) and (best < 0 or room_in[g] < room_in[best]):
            best = g
    return best


@compiled
def spread_of_type(s: Any, j: int, t: int, now: int, view: int) -> bool:
    """Whole nodes of type `t` on as many leaf switches as there are, in turn."""
    found, needed = 0, devices_on(s, j, t)
    last = np.full(s.nodes, -1)  # the last node that was taken of each leaf
    s.pick_count = 0
    for _ in range(s.nodes):
        before = found
        turn = last.copy()
        for n in range(s.nodes):
            leaf = node(s, n).leaf
            if n > turn[leaf] == last[leaf] and whole_node(s, j, n, t, now, view):
                last[leaf] = n
                found += pick_whole(s, j, n)
                if found >= needed:
                    return True
        if found == before:
            return False
    return False


@compiled
def gang_of_type(s: Any, j: int, t: int, now: int, view: int) -> bool:
    """Whole nodes of type `t` for the gang `j`. For later, first those that are not free now."""
    found, needed, group = 0, devices_on(s, j, t), -1
    if job(s, j).topology == SPREAD:
        return spread_of_type(s, j, t, now, view)
    if keeps_together(s, j):
        group = tightest_group(s, j, t, now, view)
        if group < 0:
            return False
    s.pick_count = 0
    for turn in range(2 if view == LATER else 1):
        for n in range(s.nodes):
            free_now = node(s, n).whole == node(s, n).gpus
            if view == LATER and free_now != (turn == 1):
                continue
            if group >= 0 and group_of(s, j, n) != group:
                continue
            if whole_node(s, j, n, t, now, view):
                found += pick_whole(s, j, n)
                if found >= needed:
                    return True
    return False


@compiled
def gang(s: Any, j: int, now: int, view: int) -> bool:
    """Whole nodes of one type for a gang that no node of that type holds; fastest type first."""
    for rank in range(s.types):
        for t in range(s.types):
            if kind(s, t).rank != rank or (job(s, j).types >> t) & 1 == 0:
                continue
            fits = kind(s, t).gpus_max < devices_on(s, j, t) <= kind(s, t).gpus
            if fits and gang_of_type(s, j, t, now, view):
                return True
    return False


@compiled
def spans_nodes(s: Any, j: int) -> bool:
    """Whether some acceptable type has to take whole nodes for `j`."""
    for t in range(s.types):
        if (job(s, j).types >> t) & 1 and kind(s, t).gpus_max < devices_on(s, j, t):
            return True
    return False


@compiled
def taken_up(s: Any, j: int) -> bool:
    """Whether it is known without a search that `j` fits nowhere now."""
    if fewest(s, j) * job(s, j).milli > s.free_milli:
        return True
    if job(s, j).milli < WHOLE or fewest(s, j) < s.none_from:
        return False
    return s.none_from <= s.node_min or not spans_nodes(s, j)


@compiled
def place(s: Any, rules: Any, j: int, now: int, view: int) -> bool:
    """Find a placement of `j` in `view`; False when there is none. All of its devices or none."""
    s.pick_count = 0
    if view != LATER and s.plain == 0 and taken_up(s, j):
        return False
    hemmed = s.plain == 0 and hemmed_in(s, j, now, view)
    if hemmed and fewest(s, j) >= hem(s, j):
        return False
    if find(s, rules, j, now, view):
        return True
    if hemmed and job(s, j).cpu_milli == 0 and job(s, j).memory_mib == 0:
        if spans_nodes(s, j):
            s.hem_gang = s.hem_gang if keeps_together(s, j) else fewest(s, j)
        else:
            s.hem_one = fewest(s, j)
    return False


@compiled
def hemmed_in(s: Any, j: int, now: int, view: int) -> bool:
    """Whether `j` would run into the reservation wherever it started: on the only type."""
    return (
        view == BACKFILL
        and s.types == 1
        and s.leases == 0
        and job(s, j).milli == WHOLE
        and guarded(s, j, 0, now, view)
    )


@compiled
def hem(s: Any, j: int) -> int:
    """So many devices could not be found for one that was hemmed in like `j`."""
    return s.hem_gang if spans_nodes(s, j) else s.hem_one


@compiled
def no_hem(s: Any) -> None:
    """Everything may have changed for those who would run into the reservation."""
    s.hem_one = s.hem_gang = FOREVER_MS


@compiled
def find(s: Any, rules: Any, j: int, now: int, view: int) -> bool:
    """Search for a placement."""
    n = best_later(s, j, now) if view == LATER else best_node(s, rules, j, now, view)
    if n >= 0:
        pick_devices(s, rules, j, n, view, guarded(s, j, n, now, view))
        return True
    return job(s, j).milli == WHOLE and spans_nodes(s, j) and gang(s, j, now, view)


@compiled
def could_ever(s: Any, j: int) -> bool:
    """Whether `j` fits on the cluster when it is empty and everything is up."""
    ask = job(s, j)
    for n in range(s.nodes):
        here = node(s, n)
        if (
            (ask.types >> here.type) & 1
            and here.gpus >= devices_on(s, j, here.type)
            and here.cpu_milli >= ask.cpu_milli
            and here.memory_mib >= ask.memory_mib
        ):
            return True
    if ask.milli < WHOLE:
        return False
    for t in range(s.types):
        if (ask.types >> t) & 1 and kind(s, t).gpus_max < devices_on(s, j, t) <= gang_gpus(s, j, t):
            return True
    return False


@compiled
def gang_gpus(s: Any, j: int, t: int) -> int:
    """Devices on nodes of type `t` whose CPU and memory suffice for their part of `j`.

    For a gang that has to stay together, those of the largest group.
    """
    found, most, devices = np.zeros(max(s.nodes, 1), np.int64), 0, devices_on(s, j, t)
    for n in range(s.nodes):
        here = node(s, n)
        if here.type == t and here.gpus > 0:
            cpu = node_share(job(s, j).cpu_milli, here.gpus, devices)
            memory = node_share(job(s, j).memory_mib, here.gpus, devices)
            if here.cpu_milli >= cpu and here.memory_mib >= memory:
                g = group_of(s, j, n) if keeps_together(s, j) else 0
                found[g] += here.gpus
                most = max(most, found[g])
    return int(most)
