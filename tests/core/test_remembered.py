"""What is remembered of objects is what one who remembers nothing makes of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from dusuan.core.scheduling.remembered import Made, Table

ROWS = np.dtype([("number", "i8"), ("name", "O")])


@dataclass(frozen=True, slots=True)
class Thing:
    """Looks like many others."""

    number: int
    name: str


def read(things: Sequence[Any]) -> Any:
    return np.array([(each.number, each.name) for each in things], ROWS)


def remembering(kind: str) -> Callable[[Sequence[Any]], Any]:
    """Asks one of the two, which alone keeps the objects alive: as (number, name) of each."""
    if kind == "table":
        table = Table(read)
        return lambda things: table.of(things).tolist()
    return Made(lambda each: (each.number, each.name)).of


@pytest.mark.parametrize("kind", ["table", "made"])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_is_true_of_the_objects(seed: int, kind: str) -> None:
    """Objects go, so that new ones get their places in memory; come; move; stand twice."""
    rng, things, ask = random.Random(seed), list[Thing](), remembering(kind)
    for turn in range(60):
        things = [each for each in things if rng.random() > 0.2]
        fresh = [Thing(rng.randrange(9), f"t{turn}") for _ in range(rng.randrange(30))]
        things += [*fresh, *(rng.sample(things, 1) if things else [])]
        fresh.clear()
        rng.shuffle(things)
        if rng.random() < 0.1:
            things = []
        assert ask(things) == [(each.number, each.name) for each in things]


def test_only_new_objects_are_looked_at() -> None:
    looked_at = list[Thing]()

    def noting(things: Sequence[Any]) -> Any:
        looked_at.extend(things)
        return read(things)

    table, old = Table(noting), [Thing(i, "old") for i in range(100)]
    table.of(old)
    looked_at.clear()
    new = Thing(7, "new")
    assert table.of([*old[50:], new, *old[:50]])["number"].tolist() == [
        *range(50, 100), 7, *range(50),
    ]  # fmt: skip
    assert looked_at == [new]
