"""How long a menu takes: every card of the catalogue, 14 counts, every layout; and how that grows.

`cold` is the first menu of a model in a process (its layouts are listed), `warm` the next one for
other tokens. `front` is the Pareto core alone. JSON lines, medians of the rounds.

    python bench/planning.py [--rounds 5] [--models llama-3-8b llama-3-70b deepseek-v3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from dusuan.app.describing import WHAT_IF_COUNTS, models
from dusuan.core.planning import front, grid
from dusuan.core.planning.grid import Option
from dusuan.core.planning.menu import Menu, Price, Site, Terms, assemble
from dusuan.core.workload import layout
from dusuan.core.workload.describe import Asked, Work, describe
from dusuan.facts import catalogue
from dusuan.facts.library import library

DEVICES = 64
TIERS = {"reserved": 1_200, "standard": 1_000, "spot": 600}
TERMS = Terms(Price(2_000, 20_000_000), "standard", Site("bench", 1.2, 0.5), TIERS)


def work(model: str, tokens: float) -> Work:
    """Training of a named model."""
    found = describe(Asked(model=library().models.find(model), tokens=tokens))
    assert isinstance(found, Work), found
    return found


def options(devices: int, counts: Sequence[int]) -> list[Option]:
    """The first cards of the catalogue that can be quoted, again under other names if need be."""
    usable = [d for d in catalogue().devices if not grid.unquotable(d)]
    cards = [usable[i % len(usable)] for i in range(devices)]
    return [Option(d, "gpu", d.rating_gflops or 1, tuple(counts)) for d in cards]


def menu(job: Work, cards: Sequence[Option]) -> Menu:
    """Everything: memory, layouts, times, prices, the Pareto set and the reasons."""
    ways, excluded = grid.ways(job, cards, models())
    return assemble(ways, TERMS, excluded)


def forget() -> None:
    """As in a process that has seen no model yet."""
    layout.layouts.cache_clear()
    grid.fitting.cache_clear()


def seconds(run: Callable[[], object], before: Callable[[], object], rounds: int) -> float:
    """Median seconds of `run`, each time after `before`."""
    taken = []
    for _ in range(rounds):
        before()
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def tell(**row: object) -> None:
    print(json.dumps(row), flush=True)


def measure(model: str, devices: int, counts: Sequence[int], rounds: int) -> None:
    """One size, cold and warm."""
    cards, job = options(devices, counts), work(model, 1e12)
    found = menu(job, cards)
    ways, _ = grid.ways(job, cards, models())
    every = sum(len(layout.layouts(grid.estimate.need_of(job), c)) for c in counts)
    cold = seconds(lambda: menu(work(model, 2e12), cards), forget, rounds)
    warm = seconds(lambda: menu(work(model, 3e12), cards), lambda: None, rounds)
    tell(
        bench="menu",
        model=model,
        devices=devices,
        counts=len(counts),
        layouts=every,
        ways=len(ways),
        plans=len(found.plans),
        excluded=len(found.excluded),
        cold_ms=round(cold * 1e3, 1),
        warm_ms=round(warm * 1e3, 1),
        goal_ms=100,
    )


def measure_front(rows: int, rounds: int) -> None:
    """The Pareto core alone, on figures that trade off against each other."""
    drawn = np.random.default_rng(0).random((rows, 6))
    taken = seconds(lambda: front.front(drawn), lambda: None, rounds)
    kept = int(front.front(drawn).sum())
    tell(bench="front", rows=rows, figures=6, kept=kept, ms=round(taken * 1e3, 2))


def main() -> None:
    """Sizes one after another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=["llama-3-8b", "llama-3-70b", "deepseek-v3"])
    given = parser.parse_args()
    for model in given.models:
        measure(model, DEVICES, WHAT_IF_COUNTS, given.rounds)
    for devices in (8, 16, 32, 64, 128, 256):
        measure(given.models[0], devices, WHAT_IF_COUNTS, given.rounds)
    for rows in (100, 1_000, 10_000):
        measure_front(rows, given.rounds)


if __name__ == "__main__":
    main()
