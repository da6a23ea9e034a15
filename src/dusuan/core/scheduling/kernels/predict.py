"""Run times foretold from what similar jobs took: the mean of the last two (Tsafrir et al., 2007).

"Similar" is the job's `group`: the same user asking for as many devices.
"""

from __future__ import annotations

from typing import Any

from dusuan.core.scheduling.compiled import compiled
from dusuan.core.scheduling.kernels.access import history_of, job

USER, ORACLE, LAST2, NONE = range(4)
UNKNOWN_MS = 10 * 365 * 86_400_000  # so long that nothing is backfilled in front of it


@compiled
def mean_of_last(s: Any, group: int) -> int:
    """Mean run time of the last two of a group; -1 when none has ended yet."""
    known = history_of(s)[group, 2]
    if known == 0:
        return -1
    if known == 1:
        return history_of(s)[group, 0]
    return (history_of(s)[group, 0] + history_of(s)[group, 1]) // 2


@compiled
def foretell(s: Any, rules: Any, j: int) -> int:
    """How long `j` is expected to run, in its reference time. Never longer than its user says."""
    how, estimate = rules.predict, job(s, j).estimate_ms
    if how == ORACLE:
        return max(job(s, j).run_ms, 1)
    if how == LAST2:
        found = mean_of_last(s, job(s, j).group)
        if found < 0 and estimate < 0 and s.ended > 0:
            found = int(s.run_sum_ms / s.ended)
        if found >= 0:
            return max(min(found, estimate) if estimate > 0 else found, 1)
    if how == NONE or estimate <= 0:
        return UNKNOWN_MS
    return estimate


@compiled
def learn(s: Any, j: int, run_ms: int) -> None:
    """`j` ended after `run_ms` of work: remember it, and how wrong the prediction was."""
    group = job(s, j).group
    history_of(s)[group, 1] = history_of(s)[group, 0]
    history_of(s)[group, 0] = run_ms
    history_of(s)[group, 2] += 1
    s.run_sum_ms += run_ms
    s.ended += 1
    foretold = job(s, j).foretold_ms
    if foretold < UNKNOWN_MS:
        s.predictions += 1
        s.error_ms += abs(foretold - run_ms)
        s.accuracy += max(min(foretold, run_ms), 1) / max(foretold, run_ms, 1)
