"""Cells of a table that somebody else wrote: blank, `NaN` and `None` mean not given."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dusuan.core.workload.jobspec import Problem

Row = Mapping[str, str | None]
LARGEST = 1e14
_BLANK = frozenset(("", "nan", "none", "null", "na", "n/a", "-"))


def word(row: Row, name: str) -> str:
    """The text of a cell, or an empty one where it is not given."""
    text = (row.get(name) or "").strip()
    return "" if text.lower() in _BLANK else text


def number(row: Row, name: str, default: float) -> float | Problem:
    """The number of a cell, zero or more; `default` where it is not given."""
    text = word(row, name)
    if not text:
        return default
    try:
        value = float(text.replace(",", "").replace("_", ""))
    except ValueError:
        value = math.nan
    if math.isfinite(value) and 0 <= value <= LARGEST:
        return value
    if value > LARGEST:
        words = f"{name}: {text[:40]} is more than anything that this counts"
        return Problem("out_of_range", words, remedy="check the unit")
    words = f"{name}: {text[:40]!r} is no number of zero or more"
    return Problem("not_a_number", words, remedy="correct the row")
