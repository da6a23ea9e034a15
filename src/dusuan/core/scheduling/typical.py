"""What is known of the requests to come: a distribution, and what an idle device is worth to it.

The *typical requests* are the most popular kinds that together make up 95 % of all. From them come
two measures of what an idle device is good for:

- *Fragmentation* (Weng et al., "Beware of Fragmentation", USENIX ATC 2023, and its published
  simulator): the idle share that a typical request could not use, in expectation.
- *Worth*: what the rest of a device is worth when it is filled as well as the typical requests
  allow. The prices are the dual of the cutting-stock problem (Gilmore and Gomory, 1961): no set of
  requests that fits on one device is worth more than the device. A node is worth what its devices
  are, or what its CPU can serve at the typical need of a device, whichever is less.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.arrays import WHOLE, Integers, Records

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

POPULARITY = 0.95  # the published setting of FGD
TYPICAL_MAX = 256  # kinds at most, so that the tables stay small
SIZES_MAX = 64  # shares of a device that get a price of their own
_ROUNDS_MAX = 500  # of column generation; it needs a few dozen


def typical_requests(
    requests: Records, popularity: Integers, part: float = POPULARITY
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
    kept = min(int((before < part * counts.sum()).sum()), TYPICAL_MAX)
    rows = [first for _, first in ordered[:kept]]
    return requests[rows], counts[:kept] / max(counts[:kept].sum(), 1.0)


def fragmentation_tables(
    typical: Records, weight: Floats, types: int, width: int
) -> tuple[Integers, Integers, Floats, Floats]:
    """`steps`, `level`, `alone` and `together` of a `State`."""
    steps = np.unique(typical["cpu_milli"])
    single = typical[typical["devices"] == 1]
    shares = np.unique(single["milli"])
    level = np.searchsorted(shares, np.arange(WHOLE + 1), side="right").astype(np.int64)
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


def cpu_need(typical: Records, weight: Floats, of: Flags) -> float:
    """Milli CPU that the typical requests `of` need for each whole device of all."""
    devices = weight * typical["devices"] * typical["milli"] / WHOLE
    cpu = (weight * typical["cpu_milli"])[of].sum()
    return float(cpu / devices.sum()) if devices.sum() > 0 else 0.0


def device_worth(typical: Records, weight: Floats) -> Floats:
    """What a device with c milli free is worth, for c from 0 to 1,000; a whole one is worth 1."""
    share = (typical["devices"] == 1) & (typical["milli"] < WHOLE) & (typical["milli"] > 0)
    if not share.any():
        return np.repeat([0.0, 1.0], [WHOLE, 1])
    sizes, place = np.unique(typical["milli"][share], return_inverse=True)
    demand: Floats = np.bincount(place, weight[share], len(sizes)).astype(np.float64)
    most = np.sort(np.argsort(-demand, kind="stable")[:SIZES_MAX])
    from dusuan.core.scheduling.kernels.packing import knapsack

    worth: Floats = knapsack(sizes[most], prices(sizes[most], demand[most]))[0]
    worth[WHOLE] = 1.0  # also to a request that takes all of it
    return worth


def prices(sizes: Integers, demand: Floats) -> Floats:
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
