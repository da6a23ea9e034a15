"""Errors of estimates as one line of a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


@dataclass(frozen=True)
class Errors:
    """Errors of a split, each as the log of estimate over truth."""

    target: str
    split: str
    logs: tuple[float, ...]
    covered: float | None = None  # share of truths inside the 80 % interval

    @property
    def relative(self) -> np.ndarray:
        """Errors as shares of the truth, without sign."""
        return np.abs(np.expm1(self.logs))

    @property
    def median(self) -> float:
        """The median error, a share."""
        return float(np.median(self.relative))

    @property
    def p90(self) -> float:
        """The error that nine of ten are below."""
        return float(np.percentile(self.relative, 90))

    @property
    def within_two(self) -> float:
        """The share of estimates between half and twice the truth."""
        return float(np.mean(np.abs(self.logs) <= math.log(2) + 1e-12))

    def line(self) -> str:
        """A row of the table."""
        covered = "" if self.covered is None else f"{self.covered:.0%}"
        cells = (
            *(self.target, self.split, str(len(self.logs)), f"{self.median:.1%}"),
            *(f"{self.p90:.0%}", f"{self.within_two:.0%}", covered),
        )
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| what | left out | n | median error | p90 | within 2x | in the 80 % interval |\n"
    "|---|---|---|---|---|---|---|"
)


def left_out(
    data: Sequence[Item],
    group: Callable[[Item], Hashable],
    predict: Callable[[list[Item], list[Item]], Sequence[float]],
) -> list[float]:
    """Log errors of every item, each predicted by a fit that has not seen its group.

    `predict(seen, unseen)` returns the errors of `unseen` under a fit of `seen`.
    """
    found: list[float] = []
    for name in sorted({group(item) for item in data}, key=str):
        unseen = [item for item in data if group(item) == name]
        seen = [item for item in data if group(item) != name]
        found += predict(seen, unseen)
    return found
