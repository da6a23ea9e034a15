"""How fast decisions are: a cluster is filled one decision at a time, then decided in rounds.

Nodes have eight devices of three models, in equal parts; requests are drawn by chance from a mix
of whole devices, several of them and shares, until they ask for all devices. A round then gives
back what a part of the requests holds and decides a queue of pending ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.arrays import ANY_TYPE, REQUEST, WHOLE, Records
from dusuan.core.scheduling.packing import Hosts, Packing, new_packing

Clock = Callable[[], float]
NODE_DEVICES = 8
MODELS = 3
PENDING = 10_000
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
    """What was measured. Times are of compiled decisions; `wall_s` is the filling alone."""

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


def fill(devices: int, packer: str, seed: int, clock: Clock) -> Filled:
    """Fill `devices` (at least 1) with a placement of `policy.PLACEMENTS`, and time it."""
    kinds, popularity = requests()
    draw = np.random.default_rng(seed)
    packing = new_packing(hosts(devices), kinds, popularity, packer)
    come = _until(devices * WHOLE, kinds, popularity, draw)
    packing.place_all(come[:0])  # compiles
    began = clock()
    nodes, bits = packing.place_all(come)
    wall_s = clock() - began
    rounds = _rounds(packing, come, nodes, bits, popularity, draw, clock)
    return Filled(
        devices=devices,
        decisions=len(come),
        wall_s=round(wall_s, 6),
        decisions_per_s=round(len(come) / max(wall_s, 1e-9), 1),
        round_p50_ms=round(float(np.percentile(rounds, 50)), 3),
        round_p99_ms=round(float(np.percentile(rounds, 99)), 3),
    )


def _until(
    milli: int, kinds: Records, popularity: npt.NDArray[np.int64], draw: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Requests drawn by chance until they ask for `milli` of devices."""
    mean = float((kinds["milli"] * kinds["devices"] * popularity).sum() / popularity.sum())
    chance = popularity / popularity.sum()
    found = draw.choice(len(kinds), int(1.2 * milli / mean) + 100, p=chance)
    asked = np.cumsum((kinds["milli"] * kinds["devices"])[found])
    return found[: int(np.searchsorted(asked, milli)) + 1].astype(np.int64)


def _rounds(
    packing: Packing,
    come: npt.NDArray[np.int64],
    nodes: npt.NDArray[np.int64],
    bits: npt.NDArray[np.uint64],
    popularity: npt.NDArray[np.int64],
    draw: np.random.Generator,
    clock: Clock,
) -> list[float]:
    """Milliseconds of each round of `PENDING` decisions, with departures between them."""
    held = [(int(s), int(n), int(b)) for s, n, b in zip(come, nodes, bits, strict=True) if n >= 0]
    times = []
    for _ in range(ROUNDS):
        draw.shuffle(held)
        leaving, held = held[: PENDING // 2], held[PENDING // 2 :]
        for s, n, b in leaving:
            packing.give_back(n, s, b)
        queue = draw.choice(len(popularity), PENDING, p=popularity / popularity.sum())
        began = clock()
        found, taken = packing.place_all(queue)
        times.append((clock() - began) * 1000.0)
        held += [
            (int(s), int(n), int(b)) for s, n, b in zip(queue, found, taken, strict=True) if n >= 0
        ]
    return times
