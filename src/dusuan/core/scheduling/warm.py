"""Compiling what a live round needs, ahead of the first round: `python -m ...scheduling.warm`.

It takes most of a minute of one core, once for each version of the rules; the code is kept in
numba's cache (`compiled.py`). The service may not do it between two beats of its heart.
"""

from __future__ import annotations

from dusuan.core.scheduling.model import Cluster, DeviceSlot, QueuedJob, Request, RunningJob
from dusuan.core.scheduling.policy import POLICIES
from dusuan.core.scheduling.round import schedule


def is_warm() -> bool:
    """Whether a round can begin at once."""
    from dusuan.core.scheduling.compiled import is_cached  # numba
    from dusuan.core.scheduling.kernels import round as rules
    from dusuan.core.scheduling.kernels import snapshot

    entries = (snapshot.occupy_all, snapshot.fill_queue, rules.round_at)
    return all(is_cached(entry) for entry in entries)


def warm() -> None:
    """One small round, which calls everything that a live round calls."""
    devices = tuple(DeviceSlot(f"d{i}", "n", "gpu", "x", gflops=1) for i in range(2))
    running = (RunningJob("a", ("d0",)),)
    queue = [QueuedJob("b", 1, Request(1)), QueuedJob("c", 2, Request(2))]
    schedule(Cluster(devices, running), queue, POLICIES["centre"], 1)


if __name__ == "__main__":
    warm()
