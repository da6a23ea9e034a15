"""What a probe saw: throughput from the progress that a job told, and the ways that follow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from dusuan.core.planning.menu import Excluded, Way

MIN_MARKS = 4
FINISH_S_MAX = 10 * 365 * 86_400.0
SLOW_Z = 1.2816  # the ninetieth percentile of a normal distribution
WHOLE_RUN_MARGIN = 1.5  # P90 over P50 where a job was seen to run to its end, once


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a probe saw of one way to run the job.

    `marks` are (elapsed seconds, steps done) in order, elapsed from the start of the process.
    `ended_s`: it ran to its end, in so many seconds. `total`: the total that it reported itself.
    """

    device: str
    kind: str
    count: int
    rating_gflops: int
    marks: tuple[tuple[float, float], ...]
    ended_s: float | None = None
    total: float | None = None
    peak_mib: int | None = None


@dataclass(frozen=True, slots=True)
class Throughput:
    """Steps per second: the overall rate, a slow (tenth percentile) one, and the lead before."""

    steps_per_s: float
    slow_steps_per_s: float
    lead_s: float


def throughput(marks: Sequence[tuple[float, float]]) -> Throughput | None:
    """Rates from progress marks, or None when too few marks moved forward to tell.

    The first mark that moved is the end of the lead (start-up, data loading): time before it
    counts once. The slow rate is the mean less 1.2816 standard errors of the rates between marks,
    widened by the spread of the marks themselves: P90 under a normal model of the mean.
    """
    moved = [marks[0]] if marks and marks[0][1] > 0 else []
    for mark in marks:
        if not moved or (mark[1] > moved[-1][1] and mark[0] > moved[-1][0]):
            moved.append(mark)
    if len(moved) < MIN_MARKS:
        return None
    (first_s, first), (last_s, last) = moved[0], moved[-1]
    rate = (last - first) / (last_s - first_s)
    if rate <= 0:  # steps so small that their rate is no number above zero
        return None
    rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(moved)]
    deviation = math.sqrt(sum((r - rate) ** 2 for r in rates) / len(rates))
    slow = rate - SLOW_Z * deviation / math.sqrt(len(rates))
    return Throughput(rate, max(slow, rate / 2) * 0.95, max(first_s - first / rate, 0.0))


def ways(
    measurements: Sequence[Measurement], steps: float | None
) -> tuple[list[Way], list[Excluded]]:
    """The ways that probes measured, and those that they could not.

    `steps` is what there is to do; None: the total that the job itself reported.
    """
    found: list[Way] = []
    excluded: list[Excluded] = []
    for m in measurements:
        way = _way(m, steps if steps is not None else m.total)
        if isinstance(way, str):
            excluded.append(Excluded(m.device, m.count, way))
        else:
            found.append(way)
    return found, excluded


def _way(m: Measurement, steps: float | None) -> Way | str:
    seen = throughput(m.marks)
    if seen is None or not steps:
        if m.ended_s is not None:
            return _made(m, m.ended_s, m.ended_s * WHOLE_RUN_MARGIN, None)
        return "its probe reported too little progress to measure"
    p50_s, p90_s = finish_s(seen, steps)
    if p90_s > FINISH_S_MAX:
        return "at the pace of its probe it would take more than ten years"
    return _made(m, p50_s, p90_s, seen.steps_per_s)


def _made(m: Measurement, p50_s: float, p90_s: float, steps_per_s: float | None) -> Way:
    return Way(
        device=m.device,
        kind=m.kind,
        count=m.count,
        rating_gflops=m.rating_gflops,
        finish_p50_s=p50_s,
        finish_p90_s=p90_s,
        steps_per_s=steps_per_s,
        memory_gib=None if m.peak_mib is None else round(m.peak_mib / 1_024, 4),
    )


def finish_s(seen: Throughput, steps: float) -> tuple[float, float]:
    """Seconds to the end of `steps`: the median, and what is met nine times out of ten."""
    return (
        seen.lead_s + steps / seen.steps_per_s,
        seen.lead_s * 1.2 + steps / seen.slow_steps_per_s,
    )
