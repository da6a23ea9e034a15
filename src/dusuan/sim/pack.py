"""The protocol of the FGD paper: pods of a list arrive and never leave.

The list is shuffled and extended by pods drawn from it (or thinned) until what they ask of devices
is `load` times what the nodes have. Each is placed when it comes or turned away for good. The
figure is the share of the devices that is allocated, when as much as the nodes have was asked for
and at the end. Nodes are shuffled too: the order decides between equals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.packing import new_packing
from dusuan.sim.openb import NodeList, PodList

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Decisions:
    """What was decided: arrival i is of kind `kinds[i]` and got `devices[i]` (bits) of `nodes[i]`.

    Nodes are numbered as in the node list; -1 is none.
    """

    kinds: npt.NDArray[np.int64]
    nodes: npt.NDArray[np.int32]
    devices: npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Packed:
    """A run's figures. `wall_s` is the decisions alone, compiled."""

    gpu_allocated_pct_at_100: float
    gpu_allocated_pct: float
    decisions: int
    wall_s: float


def arrivals(nodes: NodeList, pods: PodList, load: float, seed: int) -> npt.NDArray[np.int64]:
    """Kinds of request in the order in which they arrive."""
    draw = np.random.default_rng([seed, 1])
    milli, target = pods.milli, load * nodes.hosts.capacity_milli
    order = draw.permutation(pods.pods)
    asked = int(milli[order].sum())
    if asked > target:
        return _thinned(order, milli, asked - target, draw)
    more = []
    while asked < target:
        kind = int(pods.pods[draw.integers(len(pods.pods))])
        if asked + pods.requests["milli"][kind] > target:
            break
        asked += int(milli[kind])
        more.append(kind)
    return np.concatenate([order, np.array(more, np.int64)])


def _thinned(
    order: npt.NDArray[np.int64],
    milli: npt.NDArray[np.int64],
    excess: float,
    draw: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """`order` without as many of its pods, drawn by chance, as ask for `excess` milli."""
    leaving = draw.permutation(len(order))
    gone = np.concatenate([[0], np.cumsum(milli[order[leaving]])])
    count = int(np.searchsorted(gone, excess))
    return np.delete(order, leaving[:count])


def pack(
    nodes: NodeList, pods: PodList, packer: str, load: float, seed: int, clock: Clock
) -> tuple[Packed, Decisions]:
    """Run the protocol with a placement of `policy.PLACEMENTS`. Same seed, same decisions."""
    come = arrivals(nodes, pods, load, seed)
    shuffled = np.random.default_rng([seed, 2]).permutation(len(nodes.hosts))
    popularity = np.bincount(pods.pods, minlength=len(pods.requests))
    packing = new_packing(nodes.hosts.reordered(shuffled), pods.requests, popularity, packer)
    packing.place_all(come[:0])  # compiles
    began = clock()
    found, devices = packing.place_all(come)
    wall_s = clock() - began
    decisions = Decisions(come, np.where(found >= 0, shuffled[found], -1).astype(np.int32), devices)
    return _figures(nodes, pods, decisions, wall_s), decisions


def _figures(nodes: NodeList, pods: PodList, decided: Decisions, wall_s: float) -> Packed:
    """How much is allocated, in percent of all devices."""
    capacity = nodes.hosts.capacity_milli
    asked = pods.milli[decided.kinds]
    allocated = np.cumsum(np.where(decided.nodes >= 0, asked, 0))
    allocated = np.concatenate([[0], allocated])  # before the first, between them, after the last
    full = min(int(np.searchsorted(np.cumsum(asked), capacity)) + 1, len(asked))
    return Packed(
        gpu_allocated_pct_at_100=round(100.0 * float(allocated[full]) / capacity, 4),
        gpu_allocated_pct=round(100.0 * float(allocated[-1]) / capacity, 4),
        decisions=len(decided.kinds),
        wall_s=round(wall_s, 6),
    )
