"""The Pareto front of many plans at once: which of them no other one beats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 128

Values = NDArray[np.float64]


def front(values: Values) -> NDArray[np.bool_]:
    """Which rows of `values` (n plans, k figures; less is better) no other row beats.

    A row beats another where it is nowhere more and somewhere less. Figures must not be NaN.
    """
    count = len(values)
    kept = np.zeros(count, dtype=np.bool_)
    # In lexicographic order, whoever beats a row stands before it.
    order = np.lexsort(values.T[::-1]) if count else np.zeros(0, dtype=np.intp)
    best = np.empty((0, values.shape[1]))
    for start in range(0, count, _BLOCK):
        block = order[start : start + _BLOCK]
        block = block[~beaten(values[block], best)]
        block = block[~beaten(values[block], values[block])]
        kept[block] = True
        best = np.concatenate([best, values[block]])
    return kept


def beaten(rows: Values, by: Values) -> NDArray[np.bool_]:
    """Which of `rows` one of `by` beats."""
    found: NDArray[np.bool_] = np.any(_beats(rows, by), axis=1)
    return found


def beaters(rows: Values, by: Values) -> NDArray[np.intp]:
    """For each of `rows`, the first of `by` that beats it; -1 where none does."""
    if not len(by):
        return np.full(len(rows), -1, dtype=np.intp)
    found = _beats(rows, by)
    return np.where(found.any(axis=1), found.argmax(axis=1), -1)


def _beats(rows: Values, by: Values) -> NDArray[Any]:
    no_more = np.ones((len(rows), len(by)), dtype=np.bool_)
    less = np.zeros_like(no_more)
    for figure in range(rows.shape[1]):  # one figure at a time: two-dimensional arrays only
        mine, its = rows[:, figure, None], by[None, :, figure]
        no_more &= its <= mine
        less |= its < mine
    return no_more & less
