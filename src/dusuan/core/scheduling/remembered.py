"""What was made of objects is remembered from one round to the next, in which most are there again.

Objects are known by being the same ones, which is seen without looking at them: looking at so many
is what takes the time. What is remembered is replaced as a whole, so that any thread may ask; and
whoever remembers nothing comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dusuan.core.scheduling.arrays import Integers, Records


class Table:
    """A row for each of many frozen objects. `read` makes the rows of those that are new."""

    def __init__(self, read: Callable[[Sequence[Any]], Records]) -> None:
        nobody = np.zeros(0, np.int64)
        self._read = read
        self._known: tuple[Sequence[Any], Integers, Records] = (), nobody, read(())

    def of(self, objects: Sequence[Any]) -> Records:
        """The rows of `objects`, in their order; they must not be changed."""
        ids = np.fromiter(map(id, objects), np.int64, len(objects))
        rows = self._rows(objects, ids)
        order = np.argsort(ids, kind="stable")
        self._known = tuple(objects), ids[order], rows[order]  # alive, so that ids stay theirs
        return rows

    def _rows(self, objects: Sequence[Any], ids: Integers) -> Records:
        alive, known, rows = self._known
        if not len(known) or not len(ids):
            return self._read(objects)
        at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        found, new = rows[at], known[at] != ids
        if new.any():
            found[new] = self._read([objects[i] for i in np.flatnonzero(new).tolist()])
        del alive  # not before now: an id belongs to another once its object is gone
        return found


class Made:
    """Something made of each of some objects, as long as it is asked for in every round."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make
        self._known: dict[int, tuple[Any, Any]] = {}

    def of(self, objects: Sequence[Any]) -> list[Any]:
        """What was made of each of `objects`, in their order."""
        known, now = self._known, dict[int, tuple[Any, Any]]()
        for each in objects:
            now[id(each)] = known.get(id(each)) or (each, self._make(each))
        self._known = now
        return [now[id(each)][1] for each in objects]
