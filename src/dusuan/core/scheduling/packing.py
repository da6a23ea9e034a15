"""Placing one request at a time on the best node of a large cluster: placement without a queue.

The state, the scores and the index are those of a round (`kernels.score`, `kernels.index`); here
somebody else says who comes and who leaves. Requests are of kinds that are known beforehand, each
as popular as `typical` needs it. Ties go to the first node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.accounts import accounts_array
from dusuan.core.scheduling.arrays import (
    WHOLE,
    Integers,
    Records,
    State,
    jobs_array,
    nodes_array,
)
from dusuan.core.scheduling.policy import PLACEMENTS
from dusuan.core.scheduling.state import new_state

Bits = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Hosts:
    """Idle nodes in order of preference among equals. N nodes, G the most devices on one."""

    type: npt.NDArray[np.int32]  # [N]
    devices: npt.NDArray[np.int32]  # [N]
    cpu_milli: Integers  # [N]
    memory_mib: Integers  # [N]

    def __len__(self) -> int:
        return len(self.type)

    @property
    def capacity_milli(self) -> int:
        """All devices, in milli."""
        return int(self.devices.sum()) * WHOLE

    def reordered(self, order: npt.NDArray[np.intp]) -> Hosts:
        """The same nodes, `order[i]` of them at place i."""
        return Hosts(
            self.type[order], self.devices[order], self.cpu_milli[order], self.memory_mib[order]
        )

    def nodes(self) -> Records:
        """The same as a state has them: NODE[N]."""
        nodes = nodes_array(len(self))
        nodes["type"], nodes["gpus"] = self.type, self.devices
        nodes["cpu_milli"], nodes["memory_mib"] = self.cpu_milli, self.memory_mib
        return nodes


@dataclass(frozen=True, slots=True)
class Packing:
    """A cluster on which requests are placed one by one. Kinds of request are numbers."""

    state: State
    placement: int

    @property
    def requests(self) -> Records:
        """The kinds: REQUEST[K]."""
        return self.state.requests

    def choose(self, kind: int) -> int:
        """The best node for a request of that kind, or -1 when none fits."""
        return int(_kernels().choose(self.state.record, self.placement, kind))

    def scan(self, kind: int) -> int:
        """The same by looking at all nodes: what `choose` must equal."""
        return int(_kernels().scan(self.state.record, self.placement, kind))

    def evaluate(self, node: int, kind: int) -> tuple[int, int]:
        """Score of a node, -1 where nothing fits, and the device for a share."""
        score, device = _kernels().evaluate(self.state.record, self.placement, node, kind)
        return int(score), int(device)

    def take(self, node: int, kind: int) -> int:
        """Give a request its part of a node where it fits; returns the devices as bits."""
        return int(_kernels().take(self.state.record, self.placement, node, kind))

    def give_back(self, node: int, kind: int, bits: int) -> None:
        """Undo `take`."""
        _kernels().give_back(self.state.record, node, kind, np.uint64(bits))

    def place_all(self, arrivals: Integers) -> tuple[Integers, Bits]:
        """Decide requests, given by kind, in turn: the node of each or -1, its devices as bits."""
        nodes, devices = np.empty(len(arrivals), np.int64), np.empty(len(arrivals), np.uint64)
        _kernels().place_all(self.state.record, self.placement, arrivals, nodes, devices)
        return nodes, devices


def _kernels() -> Any:
    from dusuan.core.scheduling.kernels import packing  # numba, for a decision only

    return packing


def new_packing(
    hosts: Hosts, requests: Records, popularity: Integers, placement: str = "dusuan"
) -> Packing:
    """Idle `hosts` and the kinds of request to come, `popularity[k]` of kind `k`.

    Raises `KeyError` for an unknown placement, `ValueError` for shares of several devices.
    """
    if ((requests["devices"] > 1) & (requests["milli"] != WHOLE)).any():
        raise ValueError("a request for several devices takes whole ones")
    ratings = np.zeros(int(hosts.type.max(initial=0)) + 1, np.int64)
    kinds = requests, np.asarray(popularity, np.int64)
    state = new_state(hosts.nodes(), ratings, jobs_array(0), accounts_array(1), kinds)
    return Packing(state, PLACEMENTS[placement])
