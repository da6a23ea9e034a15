"""Garbage is collected between rounds, and not in them.

A full collection looks at every object that a process keeps: at a hundred thousand devices it takes
longer than a round decides, and comes of itself in the middle of one.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PERIOD_S = 60.0
_NEVER = 1_000_000_000


@contextmanager
def between_rounds(clock: Callable[[], float]) -> Iterator[Callable[[], None]]:
    """Inside, full collections are made by what this gives: every `PERIOD_S` at most.

    `clock` is in seconds. Those of young objects, which are short, come as ever.
    """
    before, last = gc.get_threshold(), clock()

    def collect() -> None:
        nonlocal last
        if clock() - last >= PERIOD_S:
            gc.collect()
            last = clock()

    gc.set_threshold(before[0], before[1], _NEVER)
    try:
        yield collect
    finally:
        gc.set_threshold(*before)
