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
from dusuan.core.scheduling.kernels.hold import write
from dusuan.core.scheduling.kernels.place import LATER, duration_ms, place, room, spans_nodes


@compiled
def copy_now(s: Any) -> None:
    """Let the later view begin with what is free now."""
    later_of(s)[:, :] = free_of(s)
    for n in range(s.nodes):
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
def later_give(s: Any, h: int) -> None:
    """Give a holding back in the later view."""
    n = holding(s, h).node
    for d in range(node(s, n).gpus):
        if (holding(s, h).devices >> np.uint64(d)) & np.uint64(1):
            later_of(s)[n, d] += holding(s, h).milli
            if later_of(s)[n, d] == WHOLE:
                later_node(s, n).whole += 1
    later_node(s, n).cpu_free_milli += holding(s, h).cpu_milli
    later_node(s, n).memory_free_mib += holding(s, h).memory_mib


@compiled
def correct_ends(s: Any, now: int) -> None:
    """A job that runs longer than expected is expected to end at the next moment."""
    i = 0
    while i < s.running and job(s, ending_of(s)[i]).expected_end_ms <= now:
        job(s, ending_of(s)[i]).expected_end_ms = now + 1
        i += 1


@compiled
def might_fit_now(s: Any, j: int, first: int, now: int) -> bool:
    """Whether `j` may fit in the later view after the job whose holdings begin at `first` left."""
    if spans_nodes(s, j):
        return True
    h = first
    while h >= 0:
        if room(s, j, holding(s, h).node, now, LATER, False) >= 0:
            return True
        h = holding(s, h).next
    return False


@compiled
def reserve(s: Any, rules: Any, j: int, now: int) -> bool:
    """Find the first moment at which `j` is expected to fit, and set its devices aside then.

    Running jobs leave in the order of their expected ends. Sets `later_ms` of its types and writes
    the promise into the plan.
    """
    copy_now(s)
    correct_ends(s, now)
    for i in range(s.running):
        leaver = ending_of(s)[i]
        h = job(s, leaver).first
        while h >= 0:
            later_give(s, h)
            h = holding(s, h).next
        end = job(s, leaver).expected_end_ms
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
        if later > 0 and now + duration_ms(s, j, node(s, n).type) > later:
            later_take(s, n, holding(s, h).devices, holding(s, h).milli)
            later_node(s, n).cpu_free_milli -= holding(s, h).cpu_milli
            later_node(s, n).memory_free_mib -= holding(s, h).memory_mib
        h = holding(s, h).next


@compiled
def forget_promises(s: Any) -> None:
    """No reservation stands."""
    for t in range(s.types):
        kind(s, t).later_ms = 0
