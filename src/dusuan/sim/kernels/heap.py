"""A heap of jobs by a moment, one entry a job, so that an entry can be moved or taken out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import carray

from dusuan.core.scheduling.arrays import FOREVER_MS
from dusuan.core.scheduling.compiled import compiled
from dusuan.core.scheduling.kernels.access import pointer

HEAP = np.dtype(
    [("at_ms_at", "i8"), ("jobs_at", "i8"), ("place_at", "i8"), ("size", "i8"), ("count", "i8")],
    align=True,
)


@dataclass(frozen=True, slots=True)
class Heap:
    """Moments of jobs. `place[j]` is where `j` stands in `jobs`, -1 when it is not there."""

    at_ms: npt.NDArray[np.int64]  # [J]
    jobs: npt.NDArray[np.int64]  # [J]
    place: npt.NDArray[np.int64]  # [J]
    values: npt.NDArray[Any]  # HEAP[1], what compiled code gets

    @property
    def record(self) -> Any:
        """What compiled functions take."""
        return self.values[0]


def new_heap(jobs: int) -> Heap:
    """An empty heap for job numbers below `jobs`."""
    size = max(jobs, 1)
    heap = Heap(
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
        np.full(size, -1, np.int64),
        np.zeros(1, HEAP),
    )
    for name in ("at_ms", "jobs", "place"):
        heap.values[f"{name}_at"] = getattr(heap, name).ctypes.data
    heap.values["size"] = size
    return heap


@compiled
def moments(h: Any) -> Any:
    """Moment of every job."""
    return carray(pointer(h.at_ms_at), (h.size,), np.int64)


@compiled
def entries(h: Any) -> Any:
    """The jobs, as a heap."""
    return carray(pointer(h.jobs_at), (h.size,), np.int64)


@compiled
def places(h: Any) -> Any:
    """Where every job stands."""
    return carray(pointer(h.place_at), (h.size,), np.int64)


@compiled
def is_in(h: Any, j: int) -> bool:
    """Whether `j` has a moment."""
    return places(h)[j] >= 0


@compiled
def first_job(h: Any) -> int:
    """The job with the first moment."""
    return entries(h)[0]


@compiled
def earlier(h: Any, a: int, b: int) -> bool:
    """Whether job `a` comes before job `b`."""
    return moments(h)[a] < moments(h)[b] or (moments(h)[a] == moments(h)[b] and a < b)


@compiled
def put(h: Any, place: int, j: int) -> None:
    """Let `j` stand at `place`."""
    entries(h)[place] = j
    places(h)[j] = place


@compiled
def rise(h: Any, place: int) -> None:
    """Move the entry at `place` up to where it belongs."""
    j = entries(h)[place]
    while place > 0 and earlier(h, j, entries(h)[(place - 1) // 2]):
        put(h, place, entries(h)[(place - 1) // 2])
        place = (place - 1) // 2
    put(h, place, j)


@compiled
def sink(h: Any, place: int) -> None:
    """Move the entry at `place` down to where it belongs."""
    j, count = entries(h)[place], h.count
    while 2 * place + 1 < count:
        child = 2 * place + 1
        if child + 1 < count and earlier(h, entries(h)[child + 1], entries(h)[child]):
            child += 1
        if not earlier(h, entries(h)[child], j):
            break
        put(h, place, entries(h)[child])
        place = child
    put(h, place, j)


@compiled
def set_moment(h: Any, j: int, at_ms: int) -> None:
    """Let the moment of `j` be `at_ms`, whether it had one or not."""
    moments(h)[j] = at_ms
    if places(h)[j] < 0:
        put(h, h.count, j)
        h.count += 1
    rise(h, places(h)[j])
    sink(h, places(h)[j])


@compiled
def remove(h: Any, j: int) -> None:
    """Take out the moment of `j`, if it has one."""
    place = places(h)[j]
    if place < 0:
        return
    h.count -= 1
    last = entries(h)[h.count]
    places(h)[j] = -1
    if last != j:
        put(h, place, last)
        rise(h, place)
        sink(h, places(h)[last])


@compiled
def first_ms(h: Any) -> int:
    """The first moment, or for ever."""
    return moments(h)[entries(h)[0]] if h.count > 0 else FOREVER_MS
