"""Placing one request at a time on the best node of a large cluster.

What a round needs to know of the requests to come is their distribution: the *typical requests*,
the most popular kinds that together make up 95 % of all. From it come two measures of what an
idle device is good for:

- *Fragmentation* (Weng et al., "Beware of Fragmentation", USENIX ATC 2023, and its published
  simulator): the idle share that a typical request could not use, in expectation.
- *Worth*: what the rest of a device is worth when it is filled as well as the typical requests
  allow. The prices are the dual of the cutting-stock problem (Gilmore and Gomory, 1961): no set of
  requests that fits on one device is worth more than the device. A node is worth what its devices
  are, or what its CPU can serve at the typical need of a device, whichever is less.

Placements are numbers in compiled code (`kernels.packing`); ties go to the first node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.arrays import WHOLE, Records

Floats = npt.NDArray[np.float64]
Sizes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

PACKERS = {"dusuan": 0, "fgd": 1, "best_fit": 2, "pack": 3, "spread": 4, "first_fit": 5}
POPULARITY = 0.95  # the published setting of FGD
SIZES_MAX = 64  # shares of a device that get a price of their own
_ROUNDS_MAX = 500  # of column generation; it needs a few dozen

REQUEST = np.dtype(
    [
        ("cpu_milli", "i8"),
        ("memory_mib", "i8"),
        ("types", "i8"),  # acceptable device types, as bits
        ("milli", "i4"),  # of each device
        ("devices", "i4"),
    ],
    align=True,
)


@dataclass(frozen=True, slots=True)
class Hosts:
    """Idle nodes in order of preference among equals. N nodes, G the most devices on one."""

    type: npt.NDArray[np.int32]  # [N]
    devices: npt.NDArray[np.int32]  # [N]
    cpu_milli: Ints  # [N]
    memory_mib: Ints  # [N]

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


class Packing(NamedTuple):
    """All that a compiled decision works on. N nodes, G devices, S kinds of request, T types."""

    packer: int
    type: npt.NDArray[np.int32]  # [N]
    devices: npt.NDArray[np.int32]  # [N]
    free: npt.NDArray[np.int32]  # [N, G] milli
    cpu: Ints  # [N] free milli
    memory: Ints  # [N] free MiB
    cpu_max: int  # of any node
    requests: Records  # REQUEST[S]
    cpu_steps: Ints  # [B] CPU needs of typical requests, ascending
    level: npt.NDArray[np.int32]  # [1001] how many typical shares a free share could hold
    alone: Floats  # [T, B + 1, levels] part of typical requests that one such device serves
    together: Floats  # [T, B + 1, G + 1] part of them that so many whole devices serve
    worth: Floats  # [1001] of a device by what of it is free; 1 for a whole one
    cpu_per_device: float  # milli; what a typical request needs for a device; 0: no need
    trees: npt.NDArray[np.int32]  # [S, 2 * leaves] scores; a parent has the larger of its two
    cursors: Ints  # [S] changes that the tree has seen; -1: not built
    changes: npt.NDArray[np.int32]  # ring of changed nodes
    counts: Ints  # [2] changes so far, refreshes so far
    seen: Ints  # [N] the refresh that last looked at a node


def new_packing(
    hosts: Hosts, requests: Records, popularity: Ints, packer: str = "dusuan"
) -> Packing:
    """Idle `hosts` and the kinds of request to come, `popularity[s]` of kind `s`.

    Raises `KeyError` for an unknown packer, `ValueError` for shares of several devices.
    """
    if ((requests["devices"] > 1) & (requests["milli"] != WHOLE)).any():
        raise ValueError("a request for several devices takes whole ones")
    nodes, width = len(hosts), max(int(hosts.devices.max(initial=1)), 1)
    free = np.where(np.arange(width) < hosts.devices[:, None], WHOLE, 0).astype(np.int32)
    types = int(hosts.type.max(initial=0)) + 1
    leaves = 1 << max(nodes - 1, 1).bit_length()
    typical, weight = typical_requests(requests, popularity)
    steps, level, alone, together = fragmentation_tables(typical, weight, types, width)
    return Packing(
        packer=PACKERS[packer.replace("-", "_")],
        type=hosts.type.copy(),
        devices=hosts.devices.copy(),
        free=np.ascontiguousarray(free),
        cpu=hosts.cpu_milli.copy(),
        memory=hosts.memory_mib.copy(),
        cpu_max=max(int(hosts.cpu_milli.max(initial=1)), 1),
        requests=requests.copy(),
        cpu_steps=steps,
        level=level,
        alone=alone,
        together=together,
        worth=device_worth(typical, weight),
        cpu_per_device=cpu_need(typical, weight),
        trees=np.full((len(requests), 2 * leaves), -1, np.int32),
        cursors=np.full(len(requests), -1, np.int64),
        changes=np.zeros(1 << max(nodes, 1024).bit_length(), np.int32),
        counts=np.zeros(2, np.int64),
        seen=np.full(nodes, -1, np.int64),
    )


def typical_requests(
    requests: Records, popularity: Ints, part: float = POPULARITY
) -> tuple[Records, Floats]:
    """The most popular kinds that make up `part` of all requests, and their weights (sum 1).

    Kinds differ by CPU, share, devices and types, not by memory. Of equally popular kinds the one
    that is last in `requests` comes first.
    """
    kinds: dict[tuple[int, ...], tuple[int, int]] = {}
    for i, each in enumerate(requests):
        key = tuple(int(each[name]) for name in ("cpu_milli", "milli", "devices", "types"))
        count, first = kinds.get(key, (0, i))
        kinds[key] = (count + int(popularity[i]), first)
    ordered = sorted(kinds.values(), reverse=True)
    counts = np.array([count for count, _ in ordered], np.float64)
    before = np.cumsum(counts) - counts
    kept = int((before < part * counts.sum()).sum())
    rows = [first for _, first in ordered[:kept]]
    return requests[rows], counts[:kept] / max(counts[:kept].sum(), 1.0)


def fragmentation_tables(
    typical: Records, weight: Floats, types: int, width: int
) -> tuple[Ints, npt.NDArray[np.int32], Floats, Floats]:
    """`cpu_steps`, `level`, `alone` and `together` of a `Packing`."""
    steps = np.unique(typical["cpu_milli"])
    single = typical[typical["devices"] == 1]
    shares = np.unique(single["milli"])
    level = np.searchsorted(shares, np.arange(WHOLE + 1), side="right").astype(np.int32)
    alone = np.zeros((types, len(steps) + 1, len(shares) + 1))
    together = np.zeros((types, len(steps) + 1, width + 1))
    for each, part in zip(typical, weight, strict=True):
        step = int(np.searchsorted(steps, each["cpu_milli"], side="right"))
        able = [t for t in range(types) if int(each["types"]) >> t & 1]
        if each["devices"] == 1:
            alone[able, step:, level[each["milli"]] :] += part
        elif 1 < each["devices"] <= width:
            together[able, step:, each["devices"] :] += part
    return steps, level, alone, together


def cpu_need(typical: Records, weight: Floats) -> float:
    """Milli CPU that typical requests for devices need for each whole device."""
    devices = weight * typical["devices"] * typical["milli"] / WHOLE
    cpu = (weight * typical["cpu_milli"])[typical["devices"] > 0].sum()
    return float(cpu / devices.sum()) if devices.sum() > 0 else 0.0


def device_worth(typical: Records, weight: Floats) -> Floats:
    """What a device with c milli free is worth, for c from 0 to 1,000; a whole one is worth 1."""
    share = (typical["devices"] == 1) & (typical["milli"] < WHOLE) & (typical["milli"] > 0)
    sizes, place = np.unique(typical["milli"][share], return_inverse=True)
    demand: Floats = np.bincount(place, weight[share], len(sizes)).astype(np.float64)
    most = np.sort(np.argsort(-demand, kind="stable")[:SIZES_MAX])
    from dusuan.core.scheduling.kernels.packing import knapsack

    worth: Floats = knapsack(sizes[most], prices(sizes[most], demand[most]))[0]
    worth[WHOLE] = 1.0  # also to a request that takes all of it
    return worth


def prices(sizes: Sizes, demand: Floats) -> Floats:
    """Dual prices of packing `demand[i]` shares of `sizes[i]` milli on the fewest devices.

    Column generation from homogeneous patterns; the pattern that is worth the most at the present
    prices enters until none is worth more than a device. Prices are scaled so that none ever is,
    which keeps them dual feasible even where the iteration is cut off.
    """
    from dusuan.core.scheduling.kernels.packing import knapsack

    count = len(sizes)
    basis = np.diag((WHOLE // np.maximum(sizes, 1)).astype(np.float64))
    amounts = demand / np.diag(basis)
    price = np.zeros(count)
    for _ in range(_ROUNDS_MAX if count else 0):
        price = np.linalg.solve(basis.T, np.ones(count)).clip(0.0)
        worth, pattern = knapsack(sizes, price)
        if worth[WHOLE] <= 1.0 + 1e-9:
            break
        change = np.linalg.solve(basis, pattern)
        room = np.where(change > 1e-9, amounts / np.maximum(change, 1e-9), np.inf)
        leaves = int(np.argmin(room))
        entering = room[leaves]
        amounts = amounts - entering * change
        amounts[leaves] = entering
        basis[:, leaves] = pattern
    return price / max(float(knapsack(sizes, price)[0][WHOLE]), 1.0)
