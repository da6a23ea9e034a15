"""The arrays that reading a log works on. N nodes, G devices, J jobs, A accounts, T types."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Records = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BUCKETS = 1024  # of the series; their length doubles when the run outgrows them
HELD, WAITING, FRAGMENTED, DOWN_NOW = range(4)  # rows of the series
PART = np.dtype(
    [("node", "i8"), ("devices", "u8"), ("milli", "i8"), ("cpu_milli", "i8"), ("next", "i8")],
    align=True,
)
NOW = np.dtype(
    [
        ("now_ms", "i8"),
        ("free_part", "i8"),
        ("waiting", "i8"),  # jobs
        ("held", "f8"),  # milli, as all of these
        ("idle", "f8"),
        ("usable", "f8"),  # of what is idle, by the mix of requests
        ("down", "f8"),
        ("idle_ms", "f8"),  # integrals over time
        ("fragment_ms", "f8"),
        ("fragment_peak", "f8"),
        ("bucket_ms", "i8"),
        ("owed_at_ms", "i8"),
        ("step_ms", "i8"),  # shares owed are not worked out again before this has passed
        ("changed", "i8"),  # whether what is asked for, or the pool, has changed since
    ],
    align=True,
)


class Gauges(NamedTuple):
    """The state of the devices and of the accounts as the log tells it, and what was summed up."""

    now: Records  # NOW[1]
    free: Ints  # [N, G] milli
    cpu: Ints  # [N] free milli
    gpus: Ints  # [N]
    type: Ints  # [N]
    downs: Ints  # [N] things that keep it down
    faulty: npt.NDArray[np.uint64]  # [N] devices that are down, as bits
    idle: Ints  # [N] milli
    usable: Floats  # [N] milli of it that a request of the mix can use, in expectation
    cpu_steps: Ints  # these and the next three: see `core.scheduling.typical`
    level: Ints
    alone: Floats
    together: Floats
    parts: Records  # PART[H] of running jobs; those not in use form a list
    first: Ints  # [J] first part of a job; -1 none
    since_ms: Ints  # [J] of the attempt that runs
    asked: Ints  # [J] milli of devices
    devices: Ints  # [J]
    gflops: Ints  # [J] asked for instead of devices; 0: not
    ratings: Ints  # [T] GFLOPS of a device
    cpu_asked: Ints  # [J]
    account: Ints  # [J]
    held: Floats  # [T] milli
    held_ms: Floats  # [T] milli x ms
    series: Floats  # [4, BUCKETS] integrals
    parents: Ints  # [A] of the tree: 0 is the pool
    weights: Floats  # [A]
    demand: Floats  # [A] milli that running and waiting jobs of the account itself ask for
    owed: Floats  # [A] milli now
    owed_ms: Floats  # [A] milli x ms
    got_ms: Floats  # [A] milli x ms
