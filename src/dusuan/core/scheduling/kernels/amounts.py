"""How many devices a request takes of a type, and how fast they do its work.

Most requests take so many devices of whichever type. One that asks for *equal work* names GFLOPS
for all its devices together: of each type that it accepts it takes as many as make them up.
"""

from __future__ import annotations

from typing import Any

from dusuan.core.scheduling.compiled import compiled
from dusuan.core.scheduling.kernels.access import job, kind, request, work_of

_NO_TYPE = 1 << 40  # devices of a job that accepts no type


@compiled
def devices_of(s: Any, k: int, t: int) -> int:
    """Devices of type `t` that request `k` takes. Of a type without a rating, what it names."""
    work = work_of(s)[k]
    if work <= 0 or kind(s, t).rating_gflops <= 0:
        return int(request(s, k).devices)
    return int(-(-work // kind(s, t).rating_gflops))


@compiled
def devices_on(s: Any, j: int, t: int) -> int:
    """Devices of type `t` that job `j` takes."""
    if job(s, j).gflops <= 0:
        return int(job(s, j).devices)
    return devices_of(s, job(s, j).request, t)


@compiled
def fewest(s: Any, j: int) -> int:
    """The fewest devices that `j` takes, of any type that it accepts."""
    if job(s, j).gflops <= 0:
        return int(job(s, j).devices)
    found = _NO_TYPE
    for t in range(s.types):
        if (job(s, j).types >> t) & 1:
            found = min(found, devices_on(s, j, t))
    return found


@compiled
def speed_on(s: Any, j: int, t: int) -> int:
    """GFLOPS of devices of type `t` at the work of `j`, for each device of its reference times."""
    rating = kind(s, t).rating_gflops
    if job(s, j).gflops <= 0:
        return int(rating)
    return int(rating * devices_on(s, j, t) // max(job(s, j).devices, 1))
