"""A reservation for a job that waits, so that later ones may start when they do not delay it."""

from __future__ import annotations

from typing import Any

import numpy as np

from dusuan.core.scheduling.arrays import RESERVE, WHOLE
from dusuan.core.scheduling.compiled import compiled
from dusuan.core.scheduling.kernels.access import (
    ending_of,
    free_of,
    holding,
    job,
    kind,
    later_node,
    later_of,
    node,
    picked,
)
from dusuan.core.scheduling.kernels.amounts import fewest, speed_on
from dusuan.core.scheduling.kernels.hold import order_ends, write
from dusuan.core.scheduling.kernels.index import changed
from dusuan.core.scheduling.kernels.place import (
    LATER,
    cautious_ms,
    duration_ms,
    no_hem,
    place,
    room_later,
    scaled,
    spans_nodes,
)

LATE_MS_MIN = 60_000


@compiled
def copy_now(s: Any, types: int) -> None:
    """Let the later view of nodes of `types` begin with what is free now."""
    for n in range(s.nodes):
        if (types >> node(s, n).type) & 1 == 0:
            continue
        later_of(s)[n, :] = free_of(s)[n, :]
        now, later = node(s, n), later_node(s, n)
        later.whole, later.cpu_free_milli = now.whole, now.cpu_free_milli
        later.memory_free_mib = now.memory_free_mib


@compiled
def later_take(s: Any, n: int, devices: int, milli: int) -> None:
    """Take devices in the later view; what is not there is not taken twice."""
    for d in range(node(s, n).gpus):
        if (devices >> np.uint64(d)) & np.uint64(1):
            if later_of(s)[n, d] == WHOLE:
                later_node(s, n).whole -= 1
            later_of(s)[n, d] = max(later_of(s)[n, d] - milli, 0)


@compiled
def later_give(s: Any, h: int) -> int:
    """Give a holding back in the later view; returns the devices that are wholly free by that."""
    n, found = holding(s, h).node, 0
    for d in range(node(s, n).gpus):
        if (holding(s, h).devices >> np.uint64(d)) & np.uint64(1):
            later_of(s)[n, d] += holding(s, h).milli
            if later_of(s)[n, d] == WHOLE:
                found += 1
    later_node(s, n).whole += found
    later_node(s, n).cpu_free_milli += holding(s, h).cpu_milli
    later_node(s, n).memory_free_mib += holding(s, h).memory_mib
    return found


@compiled
def new_end_ms(s: Any, j: int, now: int) -> int:
    """When `j`, which should have ended by now, is expected to: it runs as late as it is again.

    At least a minute (after Tsafrir et al., 2007, who correct by growing steps), and not beyond
    what its user said. Who has used that up is expected to end any moment.
    """
    began, t = job(s, j).since_ms, node(s, holding(s, job(s, j).first).node).type
    late = now - began - duration_ms(s, j, t)
    end = now + max(late, LATE_MS_MIN)
    if job(s, j).estimate_ms > 0:
        reference, speed = job(s, j).rating_gflops, speed_on(s, j, t)
        left = job(s, j).estimate_ms - job(s, j).done_ms
        limit = began + job(s, j).overhead_ms + scaled(left, reference, speed)
        end = max(min(end, limit), now + 1)
    return end


@compiled
def correct_ends(s: Any, now: int) -> None:
    """Expect anew the ends of those that should have ended by now. Brings all ends in order."""
    order_ends(s)
    while s.running > 0 and job(s, ending_of(s)[0]).expected_end_ms <= now:
        j, i = ending_of(s)[0], 1
        end = new_end_ms(s, j, now)
        while i < s.running and job(s, ending_of(s)[i]).expected_end_ms <= end:
            ending_of(s)[i - 1] = ending_of(s)[i]
            i += 1
        ending_of(s)[i - 1] = j
        job(s, j).expected_end_ms = end


@compiled
def whole_later(s: Any, types: int) -> int:
    """Devices of `types` that are wholly free in the later view."""
    found = 0
    for n in range(s.nodes):
        if (types >> node(s, n).type) & 1:
            found += later_node(s, n).whole
    return found


@compiled
def might_fit_now(s: Any, j: int, first: int, now: int) -> bool:
    """Whether `j` may fit in the later view after the job whose holdings begin at `first` left."""
    if spans_nodes(s, j):
        return True
    h = first
    while h >= 0:
        if room_later(s, j, holding(s, h).node, now) >= 0:
            return True
        h = holding(s, h).next
    return False


@compiled
def reserve(s: Any, rules: Any, j: int, now: int) -> bool:
    """Find the first moment at which `j` is expected to fit, and set its devices aside then.

    Running jobs leave in the order of their expected ends. Sets `later_ms` of its types and writes
    the promise into the plan.
    """
    types = job(s, j).types
    s.careful = job(s, j).overdue
    no_hem(s)
    s.later_stamp += 1
    copy_now(s, types)
    correct_ends(s, now)
    whole, needed = whole_later(s, types), fewest(s, j)
    for i in range(s.running):
        leaver = ending_of(s)[i]
        h = job(s, leaver).first
        while h >= 0:
            if (types >> node(s, holding(s, h).node).type) & 1:  # others may be promised
                whole += later_give(s, h)
            h = holding(s, h).next
        end = job(s, leaver).expected_end_ms
        if job(s, j).milli == WHOLE and whole < needed:
            continue
        if might_fit_now(s, j, job(s, leaver).first, now) and place(s, rules, j, now, LATER):
            promise(s, j, now, end)
            return True
    return False


@compiled
def promise(s: Any, j: int, now: int, end: int) -> None:
    """Keep the placement in the picks for `j` from `end` on."""
    for i in range(s.pick_count):
        n = picked(s, i).node
        later_take(s, n, picked(s, i).devices, picked(s, i).milli)
        later_node(s, n).cpu_free_milli -= picked(s, i).cpu_milli
        later_node(s, n).memory_free_mib -= picked(s, i).memory_mib
    for t in range(s.types):
        if (job(s, j).types >> t) & 1:
            kind(s, t).later_ms = end
    write(s, now, RESERVE, j, end)


@compiled
def outlast(s: Any, j: int, now: int) -> None:
    """Just started in the backfill: take it out of the later view when it will still run then."""
    h = job(s, j).first
    while h >= 0:
        n = holding(s, h).node
        later = kind(s, node(s, n).type).later_ms
        if later > 0 and now + cautious_ms(s, j, node(s, n).type) > later:
            later_take(s, n, holding(s, h).devices, holding(s, h).milli)
            later_node(s, n).cpu_free_milli -= holding(s, h).cpu_milli
            later_node(s, n).memory_free_mib -= holding(s, h).memory_mib
            changed(s, n)
        h = holding(s, h).next


@compiled
def forget_promises(s: Any) -> None:
    """No reservation stands."""
    for t in range(s.types):
        kind(s, t).later_ms = 0
