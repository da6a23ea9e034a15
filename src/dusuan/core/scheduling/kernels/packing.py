"""Compiled decisions of `core.scheduling.packing`, and the knapsack behind a device's worth."""

from __future__ import annotations

from typing import Any

import numpy as np

from dusuan.core.scheduling.arrays import WHOLE
from dusuan.core.scheduling.compiled import compiled, entry
from dusuan.core.scheduling.kernels import index, score
from dusuan.core.scheduling.kernels.access import free_of, kind, node, request
from dusuan.core.scheduling.kernels.amounts import devices_of
from dusuan.core.scheduling.kernels.hold import give_part, take_part


@compiled
def best(s: Any, how: int, k: int, indexed: bool) -> int:
    """The best node for request `k` of all types that it accepts, the first among equals."""
    found, most = -1, score.UNFIT
    for t in range(s.types):
        if (request(s, k).types >> t) & 1 == 0 or kind(s, t).gpus_max < devices_of(s, k, t):
            continue
        if indexed:
            n, value = index.choose(s, how, k, t, False)
        else:
            n, value = index.scan(s, how, k, t, False)
        if n >= 0 and (value > most or (value == most and n < found)):
            found, most = n, value
    return found


@entry
def choose(s: Any, how: int, k: int) -> int:
    """The best node for request `k`, or -1 when none fits."""
    return best(s, how, k, True)


@entry
def scan(s: Any, how: int, k: int) -> int:
    """The same by looking at all."""
    return best(s, how, k, False)


@entry
def evaluate(s: Any, how: int, n: int, k: int) -> tuple[int, int]:
    """Score of node `n` for request `k`, and the device for a share."""
    if (request(s, k).types >> node(s, n).type) & 1 == 0:
        return score.UNFIT, -1
    return score.evaluate(s, how, n, k, False)


@compiled
def part_of(s: Any, how: int, n: int, k: int) -> Any:
    """The devices of node `n` for request `k`, as bits: the best for a share, else the first."""
    device = score.evaluate(s, how, n, k, False)[1]
    bits, missing = np.uint64(0), devices_of(s, k, node(s, n).type)
    for d in range(node(s, n).gpus):
        fits = free_of(s)[n, d] >= request(s, k).milli
        if missing > 0 and (d == device or (device < 0 and fits)):
            bits |= np.uint64(1) << np.uint64(d)
            missing -= 1
    return bits


@compiled
def hold(s: Any, n: int, k: int, bits: Any) -> None:
    """Take the part of node `n` that request `k` gets with these devices."""
    ask = request(s, k)
    take_part(s, n, bits, ask.milli, ask.cpu_milli, ask.memory_mib)


@entry
def take(s: Any, how: int, n: int, k: int) -> Any:
    """Give request `k` its part of node `n`, where it fits; returns the devices as bits."""
    bits = part_of(s, how, n, k)
    hold(s, n, k, bits)
    return bits


@entry
def give_back(s: Any, n: int, k: int, bits: Any) -> None:
    """Give back what request `k` holds of node `n`."""
    ask = request(s, k)
    give_part(s, n, bits, ask.milli, ask.cpu_milli, ask.memory_mib)


@entry
def place_all(s: Any, how: int, arrivals: Any, nodes: Any, devices: Any) -> None:
    """Decide `arrivals` (kinds of request) in turn.

    `nodes[i]` becomes the node of arrival i, or -1; `devices[i]` its devices as bits.
    """
    for i in range(len(arrivals)):
        k, bits = arrivals[i], np.uint64(0)
        n = best(s, how, k, True)
        if n >= 0:
            bits = part_of(s, how, n, k)
            hold(s, n, k, bits)
        nodes[i], devices[i] = n, bits


@entry
def knapsack(sizes: Any, prices: Any) -> tuple[Any, Any]:
    """The most that c milli can hold for c in 0..1000, and what then fills a device."""
    worth, last = np.zeros(WHOLE + 1), np.full(WHOLE + 1, -1)
    for c in range(1, WHOLE + 1):
        worth[c] = worth[c - 1]
        for i in range(len(sizes)):
            if sizes[i] <= c and worth[c - sizes[i]] + prices[i] > worth[c] + 1e-12:
                worth[c], last[c] = worth[c - sizes[i]] + prices[i], i
    pattern, c = np.zeros(len(sizes)), WHOLE
    while c > 0:
        if last[c] < 0:
            c -= 1
        else:
            pattern[last[c]] += 1
            c -= sizes[last[c]]
    return worth, pattern
