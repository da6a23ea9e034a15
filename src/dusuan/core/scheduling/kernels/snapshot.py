"""Setting up a state that did not grow by rounds: who runs where, and who waits."""

from __future__ import annotations

from typing import Any

from dusuan.core.scheduling.arrays import WAITING
from dusuan.core.scheduling.compiled import entry
from dusuan.core.scheduling.kernels.access import job
from dusuan.core.scheduling.kernels.hold import release, start
from dusuan.core.scheduling.kernels.order import enqueue
from dusuan.core.scheduling.kernels.predict import foretell


@entry
def occupy(s: Any, rules: Any, j: int, since_ms: int) -> None:
    """`j` runs on the placement in the picks since `since_ms`."""
    if job(s, j).predicted_ms < 0:
        job(s, j).predicted_ms = foretell(s, rules, j)
    start(s, rules, j, since_ms, -1)
    s.line_count = 0


@entry
def vacate(s: Any, rules: Any, j: int, now: int, state: int) -> None:
    """`j` holds nothing any more, and is in `state`."""
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
            enqueue(s, rules, j, now)
