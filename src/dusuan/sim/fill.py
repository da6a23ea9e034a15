"""How fast decisions are: a cluster is filled one decision at a time, then decided in rounds.

Nodes have eight devices of three models, in equal parts; requests are drawn by chance from a mix
of whole devices, several of them and shares, until they ask for all devices. A round then gives
back what a part of the requests holds and decides a queue of pending ones. All of it is decided by
the round that live service and simulator run, in the order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.accounts import accounts_array
from dusuan.core.scheduling.arrays import (
    ANY_TYPE,
    COMING,
    ENDED,
    REQUEST,
    RUNNING,
    WAITING,
    WHOLE,
    Integers,
    Records,
    State,
    jobs_array,
)
from dusuan.core.scheduling.decide import vacate_all
from dusuan.core.scheduling.packing import Hosts
from dusuan.core.scheduling.policy import PolicyParts, rules
from dusuan.core.scheduling.state import new_state

Clock = Callable[[], float]
NODE_DEVICES = 8
MODELS = 3
PENDING = 10_000
_SPARE = 3 * PENDING  # places for jobs that come after the filling
ROUNDS = 50

# How many in 100, devices, milli of each, CPU cores, memory in GiB, models as bits (0: any).
MIX = (
    (18, 1, 1000, 8, 32, 0),
    (10, 1, 1000, 12, 64, 0),
    (6, 1, 1000, 16, 64, 0b001),
    (5, 2, 1000, 16, 128, 0),
    (4, 4, 1000, 40, 256, 0b011),
    (3, 8, 1000, 96, 512, 0),
    (2, 8, 1000, 64, 512, 0b100),
    (12, 1, 500, 6, 16, 0),
    (8, 1, 500, 12, 32, 0),
    (8, 1, 250, 4, 16, 0),
    (6, 1, 750, 8, 32, 0),
    (6, 1, 330, 4, 16, 0b110),
    (5, 1, 200, 2, 8, 0),
    (4, 1, 125, 1, 4, 0),
    (3, 0, 0, 8, 32, 0),
)


@dataclass(frozen=True, slots=True)
class Filled:
    """What was measured. Times are of compiled rounds; `wall_s` is the filling alone."""

    devices: int
    decisions: int
    wall_s: float
    decisions_per_s: float
    round_p50_ms: float
    round_p99_ms: float


def hosts(devices: int) -> Hosts:
    """Nodes with `devices` in all; the last may have fewer than eight."""
    nodes = -(-devices // NODE_DEVICES)
    each = np.full(nodes, NODE_DEVICES, np.int32)
    each[-1] = devices - NODE_DEVICES * (nodes - 1)
    models = (np.arange(nodes) % MODELS).astype(np.int32)
    cpu = np.array([96_000, 128_000, 96_000])[models]
    return Hosts(models, each, cpu, np.full(nodes, 1024 * 1024))


def requests() -> tuple[Records, npt.NDArray[np.int64]]:
    """The kinds of request of the mix, and how many in 100 are of each."""
    found = np.zeros(len(MIX), REQUEST)
    for i, (_, devices, milli, cores, memory_gib, models) in enumerate(MIX):
        found[i] = (cores * 1000, memory_gib * 1024, models or ANY_TYPE, milli, devices)
    return found, np.array([part for part, *_ in MIX], np.int64)


def fill(devices: int, placement: str, seed: int, clock: Clock) -> Filled:
    """Fill `devices` (at least 1) with a placement of `policy.PLACEMENTS`, and time it."""
    kinds, popularity = requests()
    draw = np.random.default_rng(seed)
    come = until(devices * WHOLE, kinds, popularity, draw)
    desk = _Desk.of(devices, placement, come, kinds, popularity)
    desk.decide(come[:0], lambda: 0.0)  # compiles
    wall_s = desk.decide(come, clock)
    rounds = _rounds(desk, popularity, draw, clock)
    return Filled(
        devices=devices,
        decisions=len(come),
        wall_s=round(wall_s, 6),
        decisions_per_s=round(len(come) / max(wall_s, 1e-9), 1),
        round_p50_ms=round(float(np.percentile(rounds, 50)), 3),
        round_p99_ms=round(float(np.percentile(rounds, 99)), 3),
    )


def until(
    milli: int, kinds: Records, popularity: npt.NDArray[np.int64], draw: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Requests drawn by chance until they ask for `milli` of devices."""
    mean = float((kinds["milli"] * kinds["devices"] * popularity).sum() / popularity.sum())
    chance = popularity / popularity.sum()
    found = draw.choice(len(kinds), int(1.2 * milli / mean) + 100, p=chance)
    asked = np.cumsum((kinds["milli"] * kinds["devices"])[found])
    return found[: int(np.searchsorted(asked, milli)) + 1].astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Desk:
    """A state, and the kinds of request that are brought before it."""

    state: State
    rules: Records
    kinds: Records

    @classmethod
    def of(
        cls, devices: int, placement: str, come: Integers, kinds: Records, popularity: Integers
    ) -> _Desk:
        """An idle cluster, with room for those who come and for more."""
        jobs = jobs_array(len(come) + len(kinds) + _SPARE)
        every = np.concatenate([come, np.arange(len(kinds))])  # as the state has to know them all
        for name in REQUEST.names or ():
            jobs[name][: len(every)] = kinds[name][every]
        nodes, ratings = hosts(devices).nodes(), np.zeros(MODELS, np.int64)
        state = new_state(nodes, ratings, jobs, accounts_array(1), (kinds, popularity))
        policy = PolicyParts("fill", backfill="skip", placement=placement)
        return cls(state, rules(policy), kinds)

    def decide(self, come: Integers, clock: Clock) -> float:
        """One round for requests of the kinds `come`, in this order; who finds no room leaves.

        The seconds from the first that joins the queue to the last decision.
        """
        from dusuan.core.scheduling.kernels import round as rounds
        from dusuan.core.scheduling.kernels import snapshot

        jobs, record, book = self.state.jobs, self.state.record, self.rules[0]
        free = np.flatnonzero(jobs["state"] != RUNNING)[: len(come)]
        for name in REQUEST.names or ():
            jobs[name][free] = self.kinds[name][come]
        jobs["request"][free], jobs["submit_ms"][free] = come, np.arange(len(free))
        jobs["predicted_ms"][free], jobs["state"][free] = 1, WAITING
        began = clock()
        snapshot.fill_queue(record, book, len(free))
        rounds.round_at(record, book, len(free))
        took = clock() - began
        jobs["state"][free[jobs["state"][free] == WAITING]] = COMING
        return took

    def leave(self, draw: np.random.Generator, count: int) -> None:
        """Jobs drawn by chance end."""
        running = np.flatnonzero(self.state.jobs["state"] == RUNNING)
        ended = draw.permutation(running)[:count]
        vacate_all(self.state, self.rules, ended, PENDING, ENDED)


def _rounds(
    desk: _Desk, popularity: Integers, draw: np.random.Generator, clock: Clock
) -> list[float]:
    """Milliseconds of each round of `PENDING` decisions, with departures between them."""
    times: list[float] = []
    chance = popularity / popularity.sum()
    for _ in range(ROUNDS):
        desk.leave(draw, PENDING // 2)
        times.append(1000.0 * desk.decide(draw.choice(len(chance), PENDING, p=chance), clock))
    return times
