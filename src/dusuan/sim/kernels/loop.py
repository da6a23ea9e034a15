"""The event loop: from one moment at which something happens to the next, a round at each.

All that happens at one moment is taken together before the round, so that the order within a
moment changes nothing: ends, then faults and repairs, then arrivals, then alarms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from dusuan.core.scheduling.arrays import (
    DOWN,
    END,
    ENDED,
    FOREVER_MS,
    LINE,
    LOST,
    PREEMPT,
    REJECT,
    REJECTED,
    START,
    SUBMIT,
    UP,
    WAITING,
    WHOLE,
)
from dusuan.core.scheduling.compiled import compiled, entry
from dusuan.core.scheduling.kernels.access import (
    free_of,
    holding,
    job,
    line,
    lines_of,
    node,
    pointer,
)
from dusuan.core.scheduling.kernels.hold import count_whole, release, write
from dusuan.core.scheduling.kernels.index import changed
from dusuan.core.scheduling.kernels.order import (
    ATTAINED,
    attained_ms,
    enqueue,
    level_end_ms,
    level_of,
)
from dusuan.core.scheduling.kernels.place import could_ever, scaled
from dusuan.core.scheduling.kernels.predict import foretell, learn
from dusuan.core.scheduling.kernels.preempt import disturbs, has_its_turn
from dusuan.core.scheduling.kernels.quota import BY_ORDER
from dusuan.core.scheduling.kernels.round import decide
from dusuan.sim.faults import FAULT
from dusuan.sim.kernels.heap import first_job, first_ms, is_in, remove, set_moment

GOES_ON, DONE, LOG_FULL = range(3)

TALLY = np.dtype(
    [
        *((f"{name}_at", "i8") for name in ("arrivals", "faults", "log")),
        ("arrivals", "i8"),  # how many
        ("faults", "i8"),
        ("log", "i8"),  # 0: nothing is logged
        ("now_ms", "i8"),
        ("arrived", "i8"),
        ("faulted", "i8"),
        ("decisions", "i8"),
        ("rounds", "i8"),
        ("logged", "i8"),
        ("dropped", "i8"),  # lines that the log had no room for
        ("ended", "i8"),
        ("rejected", "i8"),
        ("idle_wanted", "f8"),  # device-milliseconds free while somebody waited
        ("down", "f8"),  # device-milliseconds down
        ("down_gpus", "i8"),
    ],
    align=True,
)


@compiled
def arrivals_of(q: Any) -> Any:
    """Jobs in the order of their arrival."""
    return carray(pointer(q.arrivals_at), (q.arrivals,), np.int64)


@compiled
def fault_at(q: Any, i: int) -> Any:
    """Fault `i`."""
    return carray(pointer(q.faults_at), (q.faults,), FAULT)[i]


@compiled
def log_of(q: Any) -> Any:
    """The log."""
    return carray(pointer(q.log_at), (q.log,), LINE)


@compiled
def note(s: Any, q: Any) -> None:
    """Move the plan's lines into the log."""
    if q.log > 0:
        if q.logged + s.line_count > q.log:
            q.dropped += s.line_count
        else:
            for i in range(s.line_count):
                log_of(q)[q.logged + i] = lines_of(s)[i]
            q.logged += s.line_count
    s.line_count = 0


@compiled
def book(s: Any, j: int, now: int, kept_ms: int) -> None:
    """Count the attempt that stops now. `kept_ms`: its work that is not lost (reference time)."""
    elapsed = now - job(s, j).since_ms
    gpus = job(s, j).devices if job(s, j).gflops == 0 else job(s, j).taken_milli // WHOLE
    restart = min(elapsed, job(s, j).overhead_ms)
    worked = elapsed - restart
    kept = scaled(kept_ms, job(s, j).rating_gflops, job(s, j).speed_gflops)
    job(s, j).done_ms += kept_ms
    job(s, j).attained_ms += elapsed
    job(s, j).held_ms += elapsed * (job(s, j).taken_milli // WHOLE)
    job(s, j).lost_ms += (restart + max(worked - kept, 0)) * gpus


@compiled
def worked_ms(s: Any, j: int, now: int) -> int:
    """Work of the attempt that runs, in reference time."""
    useful = max(now - job(s, j).since_ms - job(s, j).overhead_ms, 0)
    left = job(s, j).run_ms - job(s, j).done_ms
    return min(scaled(useful, job(s, j).speed_gflops, job(s, j).rating_gflops), left)


@compiled
def come_back(s: Any, rules: Any, ends: Any, alarms: Any, j: int, now: int) -> None:
    """A stopped job joins the queue again; its next start costs a restart."""
    job(s, j).state = WAITING
    job(s, j).restarts += 1
    job(s, j).overhead_ms = rules.restart_ms
    job(s, j).since_ms = now
    job(s, j).overdue = job(s, j).first_ms = 0
    if job(s, j).done_ms >= job(s, j).predicted_ms:
        job(s, j).predicted_ms = 2 * job(s, j).done_ms
    remove(ends, j)
    enqueue(s, rules, j, now)
    set_alarm(s, rules, alarms, j, now)


@compiled
def set_alarm(s: Any, rules: Any, alarms: Any, j: int, now: int) -> None:
    """The next moment at which `j` stands differently though nothing happens to it."""
    at = FOREVER_MS
    if job(s, j).state == WAITING:
        limit = rules.overdue_ms
        if limit > 0 and job(s, j).since_ms + limit > now:
            at = job(s, j).since_ms + limit
    elif rules.preempt and job(s, j).preemptible:
        at = vulnerable_ms(s, rules, j, now)
    if at < FOREVER_MS:
        set_moment(alarms, j, at)
    else:
        remove(alarms, j)


@compiled
def vulnerable_ms(s: Any, rules: Any, j: int, now: int) -> int:
    """When a running job can next be preempted by whom it could not be before."""
    if job(s, j).protected_ms > now:
        return job(s, j).protected_ms
    if has_its_turn(s, rules, j, now):
        return job(s, j).since_ms + rules.overdue_ms
    if rules.preempt & BY_ORDER:
        for part in rules.order:
            if part == ATTAINED:
                devices = max(job(s, j).devices, 1) if rules.level_devices else 1
                had = attained_ms(s, rules, j, now)
                end = level_end_ms(rules, level_of(rules, had))
                if end < float(FOREVER_MS):
                    return now + max(int(np.ceil((end - had) / devices)), 1)
    return FOREVER_MS


@compiled
def take_ends(s: Any, rules: Any, q: Any, ends: Any, alarms: Any, now: int) -> None:
    """Jobs that end now."""
    while first_ms(ends) <= now:
        j = first_job(ends)
        remove(ends, j)
        remove(alarms, j)
        write(s, now, END, j, -1)
        book(s, j, now, job(s, j).run_ms - job(s, j).done_ms)
        release(s, rules, j, now)
        job(s, j).state = ENDED
        job(s, j).end_ms = now
        q.ended += 1
        learn(s, j, job(s, j).run_ms)
        note(s, q)


@compiled
def take_arrivals(s: Any, rules: Any, q: Any, alarms: Any, now: int) -> None:
    """Jobs that come now. One that never fits is turned away."""
    while q.arrived < q.arrivals:
        j = arrivals_of(q)[q.arrived]
        if arrival_ms(s, j) > now:
            return
        q.arrived += 1
        job(s, j).since_ms = now
        if not could_ever(s, j):
            job(s, j).state = REJECTED
            q.rejected += 1
            write(s, now, REJECT, j, -1)
        else:
            job(s, j).state = WAITING
            job(s, j).predicted_ms = foretell(s, rules, j)
            job(s, j).foretold_ms = job(s, j).predicted_ms
            write(s, now, SUBMIT, j, job(s, j).predicted_ms)
            enqueue(s, rules, j, now)
            set_alarm(s, rules, alarms, j, now)
        note(s, q)


@compiled
def arrival_ms(s: Any, j: int) -> int:
    """The first moment at which `j` can start."""
    return max(job(s, j).submit_ms, job(s, j).earliest_ms)


@compiled
def take_alarms(s: Any, rules: Any, alarms: Any, now: int) -> None:
    """Jobs that stand differently from now on; the round sees how."""
    while first_ms(alarms) <= now:
        j = first_job(alarms)
        if s.calm and disturbs(s, rules, j, now):
            s.calm = 0
        s.moves += 1
        set_alarm(s, rules, alarms, j, now)


@compiled
def lose(s: Any, rules: Any, ends: Any, alarms: Any, j: int, now: int) -> None:
    """`j` is lost with its node: it goes on from its last checkpoint."""
    worked = worked_ms(s, j, now)
    period = job(s, j).checkpoint_ms
    kept = worked // period * period if period > 0 else 0
    write(s, now, LOST, j, -1)
    book(s, j, now, kept)
    release(s, rules, j, now)
    come_back(s, rules, ends, alarms, j, now)


@compiled
def lose_all_on(s: Any, rules: Any, ends: Any, alarms: Any, n: int, device: int, now: int) -> None:
    """Every job on node `n` (on one device of it, unless that is -1) is lost."""
    h = node(s, n).first
    while h >= 0:
        hit = device < 0 or (holding(s, h).devices >> np.uint64(device)) & np.uint64(1) == 1
        if hit:
            lose(s, rules, ends, alarms, holding(s, h).job, now)
            h = node(s, n).first
        else:
            h = holding(s, h).next_on_node


@compiled
def switch_device(s: Any, n: int, device: int, up: int) -> None:
    """One device goes down or comes back."""
    bit = np.uint64(1) << np.uint64(device)
    if up:
        node(s, n).faulty &= ~bit
        free_of(s)[n, device] = WHOLE
        count_whole(s, n, 1)
        s.free_milli += WHOLE
    else:
        s.free_milli -= free_of(s)[n, device]
        free_of(s)[n, device] = 0
        count_whole(s, n, -1)
        node(s, n).faulty |= bit


@compiled
def take_faults(s: Any, rules: Any, q: Any, ends: Any, alarms: Any, now: int) -> None:
    """What breaks, and what is repaired, now."""
    while q.faulted < q.faults:
        fault = fault_at(q, q.faulted)
        if fault.time_ms > now:
            return
        q.faulted += 1
        n, gpus = fault.node, 1 if fault.device >= 0 else node(s, fault.node).gpus
        place = write(s, now, UP if fault.up else DOWN, -1, fault.device)
        line(s, place).node = n
        if not fault.up:
            lose_all_on(s, rules, ends, alarms, n, fault.device, now)
        if fault.device >= 0:
            switch_device(s, n, fault.device, fault.up)
        else:
            node(s, n).up += 1 if fault.up else -1
        changed(s, n)
        q.down_gpus += -gpus if fault.up else gpus
        note(s, q)


@compiled
def apply(s: Any, rules: Any, q: Any, ends: Any, alarms: Any, now: int) -> bool:
    """Do what the round decided; True when somebody was preempted, so that another is due."""
    again = False
    for i in range(s.line_count):
        j, what = line(s, i).job, line(s, i).kind
        if what == START and not is_in(ends, j):
            q.decisions += 1
            left = job(s, j).run_ms - job(s, j).done_ms
            run = scaled(left, job(s, j).rating_gflops, job(s, j).speed_gflops)
            set_moment(ends, j, now + job(s, j).overhead_ms + run)
            set_alarm(s, rules, alarms, j, now)
        elif what == PREEMPT:
            q.decisions += 1
            book(s, j, now, worked_ms(s, j, now))
            come_back(s, rules, ends, alarms, j, now)
            again = True
    note(s, q)
    return again


@compiled
def pass_time(s: Any, q: Any, now: int) -> None:
    """Count what passes between the last moment and this one."""
    passed = float(now - q.now_ms)
    if s.waiting > 0:
        q.idle_wanted += passed * s.free_milli / WHOLE
    q.down += passed * q.down_gpus
    q.now_ms = now


@compiled
def next_ms(s: Any, q: Any, ends: Any, alarms: Any) -> int:
    """The next moment at which something happens."""
    at = min(first_ms(ends), first_ms(alarms))
    if q.arrived < q.arrivals:
        at = min(at, arrival_ms(s, arrivals_of(q)[q.arrived]))
    elif s.waiting == 0 and s.running == 0:
        return FOREVER_MS
    if q.faulted < q.faults:
        at = min(at, fault_at(q, q.faulted).time_ms)
    return at


@compiled
def log_is_full(s: Any, q: Any, now: int) -> bool:
    """Whether the log may have too little room for all that happens at `now`."""
    crowd, i = 4 * s.lines + s.running, q.arrived
    while i < q.arrivals and arrival_ms(s, arrivals_of(q)[i]) <= now:
        crowd += 1
        i += 1
    i = q.faulted
    while i < q.faults and fault_at(q, i).time_ms <= now:
        crowd += 1
        i += 1
    return q.logged > 0 and q.logged + crowd > q.log


@entry
def advance(s: Any, rules: Any, q: Any, ends: Any, alarms: Any, rounds: int) -> int:
    """Go on for at most `rounds` moments. LOG_FULL: the log must be emptied first."""
    s.unasked = 1
    for _ in range(rounds):
        now = next_ms(s, q, ends, alarms)
        if now >= FOREVER_MS:
            return DONE
        if q.log > 0 and log_is_full(s, q, now):
            return LOG_FULL
        pass_time(s, q, now)
        take_ends(s, rules, q, ends, alarms, now)
        take_faults(s, rules, q, ends, alarms, now)
        take_arrivals(s, rules, q, alarms, now)
        take_alarms(s, rules, alarms, now)
        q.rounds += 1
        while decide(s, rules, now) > 0 and apply(s, rules, q, ends, alarms, now):
            pass
    return GOES_ON
