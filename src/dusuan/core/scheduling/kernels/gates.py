"""What other than devices may keep a job from starting, and the codes of reasons."""

from __future__ import annotations

from typing import Any

from dusuan.core.scheduling.compiled import compiled
from dusuan.core.scheduling.kernels.access import job
from dusuan.core.scheduling.kernels.accounts import admits

# Why a job waits; see `explain.py` for the words.
NO_REASON, CAPACITY, ORDER, QUOTA, EARLIEST = range(5)


@compiled
def may_start(s: Any, rules: Any, j: int, now: int) -> bool:
    """Whether anything but devices keeps `j` from starting; sets the reason."""
    job(s, j).reason = NO_REASON
    if job(s, j).earliest_ms > now:
        job(s, j).reason = EARLIEST
        return False
    if rules.quota and not admits(s, j):
        job(s, j).reason = QUOTA
        return False
    return True


@compiled
def gate_closed(s: Any, rules: Any, j: int, now: int) -> bool:
    """Whether `j` has been the first of the overdue for so long that nobody may pass it.

    Its reservation has then been put off again and again, by predictions that were wrong.
    """
    if rules.gate_ms <= 0 or job(s, j).overdue == 0:
        return False
    if job(s, j).first_ms == 0:
        job(s, j).first_ms = max(now, 1)
    return now - job(s, j).first_ms >= rules.gate_ms
