"""Setting up a state that did not grow by rounds: who runs where, and who waits."""

from __future__ import annotations

from typing import Any

from dusuan.core.scheduling.arrays import WAITING
from dusuan.core.scheduling.compiled import compiled, entry
from dusuan.core.scheduling.kernels.access import job, picked, queue_of
from dusuan.core.scheduling.kernels.hold import release, start
from dusuan.core.scheduling.kernels.order import come, sort_queue
from dusuan.core.scheduling.kernels.predict import foretell


@entry
def occupy(s: Any, rules: Any, j: int, since_ms: int) -> None:
    """`j` runs on the placement in the picks since `since_ms`."""
    occupy_one(s, rules, j, since_ms)


@entry
def occupy_all(s: Any, rules: Any, parts: Any, since_ms: Any) -> None:
    """Jobs run on `parts`, HOLDING in the order of their jobs, each since its moment."""
    s.pick_count = 0
    for i in range(len(parts)):
        pick = picked(s, s.pick_count)
        pick.node, pick.devices, pick.milli = parts[i].node, parts[i].devices, parts[i].milli
        pick.cpu_milli, pick.memory_mib = parts[i].cpu_milli, parts[i].memory_mib
        s.pick_count += 1
        j = parts[i].job
        if i + 1 == len(parts) or parts[i + 1].job != j:
            occupy_one(s, rules, j, since_ms[j])


@compiled
def occupy_one(s: Any, rules: Any, j: int, since_ms: int) -> None:
    """`j` runs on the placement in the picks."""
    if job(s, j).predicted_ms < 0:
        job(s, j).predicted_ms = foretell(s, rules, j)
    start(s, rules, j, since_ms, -1)
    s.line_count = s.pick_count = 0


@entry
def vacate_all(s: Any, rules: Any, ended: Any, now: int, state: int) -> None:
    """The jobs `ended` hold nothing any more, and are in `state`."""
    for j in ended:
        release(s, rules, j, now)
        job(s, j).state = state


@entry
def fill_queue(s: Any, rules: Any, now: int) -> None:
    """Bring everyone who waits into the queue, in order."""
    s.waiting = 0
    for j in range(s.jobs):
        if job(s, j).state == WAITING:
            if job(s, j).predicted_ms < 0:
                job(s, j).predicted_ms = foretell(s, rules, j)
            come(s, rules, j, now)
            queue_of(s)[s.waiting] = j
            s.waiting += 1
    sort_queue(s)
