"""Reading a log of decisions: what was held, what was idle and usable, what accounts were owed."""

from __future__ import annotations

from typing import Any

import numpy as np

from dusuan.core.scheduling.arrays import DOWN, END, LOST, PREEMPT, START, SUBMIT, UP, WHOLE
from dusuan.core.scheduling.compiled import compiled, entry
from dusuan.core.scheduling.kernels.fairness import level_out, summed_up
from dusuan.sim.gauges.devices import give_parts, look_at, switch, take_part
from dusuan.sim.gauges.layout import BUCKETS, DOWN_NOW, FRAGMENTED, HELD, WAITING


@compiled
def double_buckets(g: Any) -> None:
    """Let every bucket of the series be twice as long."""
    for row in range(g.series.shape[0]):
        for b in range(BUCKETS // 2):
            g.series[row, b] = g.series[row, 2 * b] + g.series[row, 2 * b + 1]
        g.series[row, BUCKETS // 2 :] = 0.0
    g.now[0].bucket_ms *= 2


@compiled
def draw_on(g: Any, begin: int, end: int) -> None:
    """Add to the series what holds from `begin` until `end`."""
    now = g.now[0]
    while end > now.bucket_ms * BUCKETS:
        double_buckets(g)
    while begin < end:
        b = begin // now.bucket_ms
        until = min(end, (b + 1) * now.bucket_ms)
        passed = until - begin
        g.series[HELD, b] += passed * now.held
        g.series[WAITING, b] += passed * float(now.waiting * WHOLE)
        g.series[FRAGMENTED, b] += passed * (now.idle - now.usable)
        g.series[DOWN_NOW, b] += passed * now.down
        begin = until


@compiled
def share_out(g: Any, at: int) -> None:
    """Book what was owed until `at`, and work out what is owed from then on."""
    now = g.now[0]
    for a in range(len(g.owed)):
        g.owed_ms[a] += g.owed[a] * (at - now.owed_at_ms)
    asked = summed_up(g.parents, g.demand)
    order = np.argsort(asked / g.weights, kind="mergesort")
    pool = float(g.gpus.sum() * WHOLE) - now.down
    found = level_out(g.parents, g.weights, g.demand, asked, pool, order)
    for a in range(len(g.owed)):
        g.owed[a] = min(found[a], g.demand[a])
    now.owed_at_ms = at
    now.changed = 0


@compiled
def pass_time(g: Any, at: int) -> None:
    """Everything stays as it is until `at`."""
    now = g.now[0]
    if at <= now.now_ms:
        return
    if now.changed and now.now_ms - now.owed_at_ms >= now.step_ms:
        share_out(g, now.now_ms)
    passed = float(at - now.now_ms)
    now.idle_ms += passed * now.idle
    now.fragment_ms += passed * (now.idle - now.usable)
    now.fragment_peak = max(now.fragment_peak, now.idle - now.usable)
    for t in range(len(g.held)):
        g.held_ms[t] += passed * g.held[t]
    draw_on(g, now.now_ms, at)
    now.now_ms = at


@compiled
def begin(g: Any, j: int, line: Any) -> None:
    """A job starts, or the next part of a gang does."""
    a = g.account[j]
    if g.first[j] < 0:
        g.now[0].waiting -= 1
        g.since_ms[j] = line.time_ms
        g.demand[a] -= g.asked[j]
    milli = take_part(g, j, line)
    g.now[0].held += milli
    g.demand[a] += milli
    g.now[0].changed = 1


@compiled
def stop(g: Any, j: int, line: Any) -> None:
    """A job ends, or waits again."""
    a = g.account[j]
    milli = give_parts(g, j)
    g.now[0].held -= milli
    g.demand[a] -= milli
    g.got_ms[a] += float(milli) * (line.time_ms - g.since_ms[j])
    if line.kind != END:
        g.now[0].waiting += 1
        g.demand[a] += g.asked[j]
    g.now[0].changed = 1


@compiled
def take_in(g: Any, line: Any) -> None:
    """One line of the log."""
    if line.kind == SUBMIT:
        g.now[0].waiting += 1
        g.demand[g.account[line.job]] += g.asked[line.job]
        g.now[0].changed = 1
    elif line.kind == START:
        begin(g, line.job, line)
    elif line.kind == END or line.kind == PREEMPT or line.kind == LOST:
        stop(g, line.job, line)
    elif line.kind == DOWN or line.kind == UP:
        switch(g, line.node, line.cause, line.kind == UP)
        g.now[0].changed = 1


@entry
def look_at_all(g: Any) -> None:
    """Before the first line: what is idle and usable on every node."""
    for n in range(len(g.gpus)):
        look_at(g, n)


@entry
def read_on(g: Any, lines: Any) -> None:
    """The next lines of the log."""
    for i in range(len(lines)):
        pass_time(g, lines[i].time_ms)
        take_in(g, lines[i])


@entry
def close(g: Any) -> None:
    """After the last line: book what is owed until now."""
    share_out(g, g.now[0].now_ms)
