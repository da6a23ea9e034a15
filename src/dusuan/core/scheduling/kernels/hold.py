"""Taking devices and giving them back: the only code that changes what is free."""

from __future__ import annotations

from typing import Any

import numpy as np

from dusuan.core.scheduling.arrays import (
    DEVICES_PER_NODE_MAX,
    PREEMPT,
    RUNNING,
    START,
    WAITING,
    WHOLE,
)
from dusuan.core.scheduling.compiled import compiled
from dusuan.core.scheduling.kernels.access import (
    ending_of,
    free_of,
    holding,
    idle_of,
    job,
    line,
    node,
    picked,
    running_of,
)
from dusuan.core.scheduling.kernels.amounts import speed_on
from dusuan.core.scheduling.kernels.index import changed
from dusuan.core.scheduling.kernels.place import duration_ms, no_hem
from dusuan.core.scheduling.kernels.quota import charge, refund

LATE_MAX = 64  # jobs out of order that are looked through


@compiled
def write(s: Any, time: int, what: int, j: int, cause: int) -> int:
    """Add a line to the plan; returns its place."""
    place = s.line_count
    line(s, place).time_ms = time
    line(s, place).kind = what
    line(s, place).job = j
    line(s, place).node = -1
    line(s, place).devices = np.uint64(0)
    line(s, place).milli = 0
    line(s, place).cause = cause
    s.line_count = place + 1
    return place


@compiled
def count_whole(s: Any, n: int, more: int) -> None:
    """Node `n` has so many more devices wholly free than before."""
    if more != 0:
        idle_of(s)[node(s, n).whole] -= 1
        node(s, n).whole += more
        idle_of(s)[node(s, n).whole] += 1


@compiled
def take_part(s: Any, n: int, devices: int, milli: int, cpu: int, memory: int) -> int:
    """Take `milli` of each of `devices` (bits) on node `n`, CPU and memory; returns the milli."""
    taken = broken = 0
    for d in range(node(s, n).gpus):
        if (devices >> np.uint64(d)) & np.uint64(1):
            broken += free_of(s)[n, d] == WHOLE and milli > 0
            free_of(s)[n, d] -= milli
            taken += milli
    node(s, n).cpu_free_milli -= cpu
    node(s, n).memory_free_mib -= memory
    s.free_milli -= taken
    count_whole(s, n, -broken)
    changed(s, n)
    return taken


@compiled
def give_part(s: Any, n: int, devices: int, milli: int, cpu: int, memory: int) -> None:
    """Give the same back. A faulty device is not free."""
    mended = 0
    for d in range(node(s, n).gpus):
        if (devices >> np.uint64(d)) & ~(node(s, n).faulty >> np.uint64(d)) & np.uint64(1):
            free_of(s)[n, d] += milli
            s.free_milli += milli
            mended += free_of(s)[n, d] == WHOLE and milli > 0
    node(s, n).cpu_free_milli += cpu
    node(s, n).memory_free_mib += memory
    count_whole(s, n, mended)
    changed(s, n)


@compiled
def hold_pick(s: Any, j: int, i: int) -> int:
    """Turn pick `i` into a holding of `j`; returns the milli taken."""
    h = s.free_record
    chosen = picked(s, i)
    n = chosen.node
    s.free_record = holding(s, h).next
    holding(s, h).job = j
    holding(s, h).node = n
    holding(s, h).devices = chosen.devices
    holding(s, h).milli = chosen.milli
    holding(s, h).cpu_milli = chosen.cpu_milli
    holding(s, h).memory_mib = chosen.memory_mib
    holding(s, h).next = job(s, j).first
    job(s, j).first = h
    link(s, h, n)
    cpu, memory = chosen.cpu_milli, chosen.memory_mib
    return take_part(s, n, chosen.devices, chosen.milli, cpu, memory)


@compiled
def link(s: Any, h: int, n: int) -> None:
    """Put a holding first in its node's list."""
    first = node(s, n).first
    holding(s, h).previous_on_node = -1
    holding(s, h).next_on_node = first
    if first >= 0:
        holding(s, first).previous_on_node = h
    node(s, n).first = h


@compiled
def unlink(s: Any, h: int) -> None:
    """Take a holding out of its node's list."""
    before, after = holding(s, h).previous_on_node, holding(s, h).next_on_node
    if before >= 0:
        holding(s, before).next_on_node = after
    else:
        node(s, holding(s, h).node).first = after
    if after >= 0:
        holding(s, after).previous_on_node = before


@compiled
def order_ends(s: Any) -> None:
    """Bring `ending` in order. Who started since the last time stands behind those in order."""
    late = s.running - s.in_order
    if late == 0:
        return
    ends = np.empty(late, np.int64)
    for i in range(late):
        ends[i] = job(s, ending_of(s)[s.in_order + i]).expected_end_ms
    new = ending_of(s)[s.in_order : s.running][np.argsort(ends, kind="mergesort")]
    old, at = s.in_order, s.running
    while late > 0:  # from the back; among equals, who started first stands first
        at -= 1
        end = job(s, new[late - 1]).expected_end_ms
        if old > 0 and job(s, ending_of(s)[old - 1]).expected_end_ms > end:
            old -= 1
            ending_of(s)[at] = ending_of(s)[old]
        else:
            late -= 1
            ending_of(s)[at] = new[late]
    s.in_order = s.running


@compiled
def ending_place(s: Any, j: int) -> int:
    """Where `j` stands in `ending`."""
    if s.running - s.in_order > LATE_MAX:
        order_ends(s)
    for at in range(s.in_order, s.running):
        if ending_of(s)[at] == j:
            return at
    low, high, end = 0, s.in_order, job(s, j).expected_end_ms
    while low < high:
        middle = (low + high) // 2
        if job(s, ending_of(s)[middle]).expected_end_ms < end:
            low = middle + 1
        else:
            high = middle
    while ending_of(s)[low] != j:
        low += 1
    return low


@compiled
def drop_ending(s: Any, j: int) -> None:
    """Take `j` out of `ending`, whose last place is then free."""
    place, last = ending_place(s, j), s.running - 1
    if place < s.in_order:
        s.in_order -= 1
    for at in range(place, last):
        ending_of(s)[at] = ending_of(s)[at + 1]


@compiled
def start(s: Any, rules: Any, j: int, now: int, cause: int) -> None:
    """Start `j` on the placement in the picks and write it into the plan, a line per node."""
    taken = 0
    for i in range(s.pick_count):
        taken += hold_pick(s, j, i)
        place = write(s, now, START, j, cause)
        line(s, place).node = picked(s, i).node
        line(s, place).devices = picked(s, i).devices
        line(s, place).milli = picked(s, i).milli
    t = node(s, picked(s, 0).node).type
    job(s, j).expected_end_ms = now + duration_ms(s, j, t)
    job(s, j).speed_gflops = speed_on(s, j, t)
    job(s, j).state = RUNNING
    job(s, j).taken_milli = taken
    job(s, j).protected_ms = now + rules.run_min_ms
    if job(s, j).first_start_ms < 0:
        job(s, j).first_start_ms = now
    job(s, j).since_ms = now
    job(s, j).version += 1
    job(s, j).slot = s.running
    s.moves += 1
    running_of(s)[s.running] = ending_of(s)[s.running] = j
    s.running += 1
    charge(s, j)


@compiled
def release(s: Any, rules: Any, j: int, now: int) -> None:
    """Give back all that `j` holds. What becomes of `j` is the caller's to say."""
    h = job(s, j).first
    while h >= 0:
        after = holding(s, h).next
        n, cpu, memory = holding(s, h).node, holding(s, h).cpu_milli, holding(s, h).memory_mib
        give_part(s, n, holding(s, h).devices, holding(s, h).milli, cpu, memory)
        unlink(s, h)
        holding(s, h).next = s.free_record
        s.free_record = h
        h = after
    job(s, j).first = -1
    refund(s, rules, j, now)
    drop_ending(s, j)
    leave_running(s, j)


@compiled
def leave_running(s: Any, j: int) -> None:
    """Take `j` out of `running`: the last one takes its slot."""
    last = running_of(s)[s.running - 1]
    running_of(s)[job(s, j).slot] = last
    job(s, last).slot = job(s, j).slot
    job(s, j).slot = -1
    job(s, j).version += 1
    s.running -= 1
    s.moves += 1


@compiled
def preempt(s: Any, rules: Any, victim: int, j: int, now: int) -> None:
    """Stop `victim` so that `j` can start. It joins the queue when the round is over."""
    write(s, now, PREEMPT, victim, j)
    release(s, rules, victim, now)
    job(s, victim).state = WAITING
    s.none_from = DEVICES_PER_NODE_MAX + 1
    no_hem(s)
    s.failed = -1  # there is room now that there was not
    s.preempted += 1
    s.preempt_count += 1
