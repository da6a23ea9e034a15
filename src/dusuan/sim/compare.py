"""Several policies on one trace, over seeds: means with confidence intervals.

A seed above 0 draws a trace of the same kind: as many jobs, drawn with replacement from blocks of
a day, or of a twentieth of a short trace (block bootstrap, Künsch 1989), so that what follows on
what within a day stays.
Every policy gets the same draws, so differences from the first are compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dusuan.sim.trace import Trace, move_limits

BLOCK_MS = 86_400_000
BLOCKS_LEAST = 20
FIGURES = (
    *("avg_jct_s", "avg_wait_s", "avg_bounded_slowdown", "p99_wait_s", "p999_wait_s", "max_wait_s"),
    *("makespan_s", "utilisation", "allocation", "idle_while_waiting", "fragmentation"),
    *("fragmentation_peak", "jain_slowdown", "jain_share", "shortfall_most", "shortfall_gpu_s"),
    *("restarts", "lost_gpu_s", "sold_degrees", "energy_kwh"),
)
# Two-sided 95 % quantiles of Student's t by degrees of freedom; beyond, nearly the normal one.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160),
    *(2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056),
    *(2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, and half of its 95 % confidence interval; None of a single value."""

    mean: float
    half: float | None


def drawn(trace: Trace, seed: int) -> Trace:
    """A trace of the same kind; the trace itself for seed 0."""
    if seed == 0:
        return trace
    jobs = trace.jobs
    length = max(min(BLOCK_MS, int(jobs["submit_ms"].max()) // BLOCKS_LEAST), 1)
    day = jobs["submit_ms"] // length
    first, after = np.searchsorted(day, [np.arange(day[-1] + 1), np.arange(day[-1] + 1) + 1])
    taken = np.random.default_rng([seed, 4]).integers(0, day[-1] + 1, day[-1] + 1)
    pieces = [np.arange(first[block], after[block]) for block in taken]
    shifts = [np.full(len(p), (i - taken[i]) * length) for i, p in enumerate(pieces)]
    order, shift = np.concatenate(pieces), np.concatenate(shifts)
    found = jobs[order].copy()
    found["submit_ms"] += shift
    move_limits(found, shift)
    ids = tuple(f"{trace.names[i]}.{place}" for place, i in enumerate(order))
    return replace(trace, jobs=found, names=ids)


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and half width by Student's t."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, None)
    quantile = _T95[len(values) - 2] if len(values) - 2 < len(_T95) else 1.96
    return Estimate(mean, float(quantile * np.std(values, ddof=1) / np.sqrt(len(values))))


def table(summaries: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """A row per policy: each figure, and its ratio to the first policy's, pair by pair.

    A figure that is not known of every draw is null.
    """
    first = next(iter(summaries.values()))
    return [
        {"policy": name, "seeds": len(found)}
        | {figure: _figure(figure, found, first) for figure in FIGURES}
        for name, found in summaries.items()
    ]


def _figure(
    name: str, found: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """One figure of one policy."""
    if any(each[name] is None for each in found):
        return None
    values = [float(each[name]) for each in found]
    base = [float(each[name] or 0) for each in first]
    row: dict[str, Any] = _document(estimate(values))
    if all(base):
        row["ratio"] = _document(estimate([a / b for a, b in zip(values, base, strict=True)]))
    return row


def _document(found: Estimate) -> dict[str, Any]:
    half = None if found.half is None else _short(found.half)
    return {"mean": _short(found.mean), "plus_minus": half}


def _short(value: float) -> float:
    """Six digits that count."""
    return float(f"{value:.6g}")
