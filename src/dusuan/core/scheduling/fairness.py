"""Fair share over the tree of accounts, and the admission of queues in fair order.

**Fair share.** The share of an account is what all below it use, in parts of the pool, of the
resource of which they use the most (dominant resource fairness, Ghodsi et al., NSDI 2011), by its
weight. From the root down, the child with the lowest share is served first, so fairness between
parents comes before fairness between their children. Use fades by half every half-life; instead of
fading all the old, new use weighs more (`weight_of_use`), which keeps the order and costs nothing.

**Nobody starves.** While account i waits with something that fits, a sibling j is served only
while its share is not above i's. So j gets at most `weight_j * (share_i - share_j) + s` more before
i's turn, s being the largest request, both in weighted use: see docs/placement.md for the bound in
hours, and `tests/sim/test_fairness.py` for the check from the log.

The tree and its quotas are those of `accounts`; rounds (`kernels.round`) keep the same books and
serve the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.accounts import RESOURCES, Ints, Records, with_guarantees

Floats = npt.NDArray[np.float64]

QUEUED = np.dtype(
    [
        ("account", "i8"),
        ("milli", "i8"),  # of devices
        ("cpu_milli", "i8"),
        ("memory_mib", "i8"),
    ],
    align=True,
)
POOL = ("pool_devices", "pool_cpu", "pool_memory")
BOOKS = np.dtype(
    [
        *((f"{name}_at", "i8") for name in ("accounts", "use", "tree")),
        ("accounts", "i8"),
        ("leaves", "i8"),
        *((name, "f8") for name in POOL),
    ],
    align=True,
)


@dataclass(frozen=True, slots=True)
class Shares:
    """The state of quota and fair share. A accounts. The arrays must not be replaced."""

    accounts: Records  # ACCOUNT[A]
    use: Floats  # [A, RESOURCES] weighted, of the account and all below it
    tree: Ints  # tournaments of the children: the account to serve, -1 for none
    values: Records  # BOOKS[1]: where they are, and the size of the pool

    @property
    def record(self) -> Any:
        """What compiled functions take."""
        return self.values[0]


def new_shares(accounts: Records, pool: tuple[int, int, int]) -> Shares:
    """Nobody uses anything of a `pool` of device milli, CPU milli and memory MiB.

    `accounts` are a tree, level by level. Arrays are copied. Raises `ValueError` for accounts that
    have a problem (`accounts.problem_of`).
    """
    found = with_guarantees(accounts, pool[0])
    inner = found["children"] > 0
    found["leaves"], found["next"], found["end"] = 0, 0, 0
    found["leaves"][inner] = [_power(int(count)) for count in found["children"][inner]]
    sizes = 2 * found["leaves"]
    found["tree"] = np.cumsum(sizes) - sizes
    shares = Shares(
        accounts=found,
        use=np.zeros((len(found), RESOURCES)),
        tree=np.full(int(sizes.sum()) + 2, -1, np.int64),
        values=np.zeros(1, BOOKS),
    )
    for name in ("accounts", "use", "tree"):
        shares.values[f"{name}_at"] = getattr(shares, name).ctypes.data
    shares.values["accounts"], shares.values["leaves"] = len(found), len(shares.tree)
    for name, size in zip(POOL, pool, strict=True):
        shares.values[name] = max(size, 1)
    return shares


def _power(count: int) -> int:
    """The least power of two that is not below `count`."""
    return 1 << max(count - 1, 0).bit_length()


def weight_of_use(since_ms: int, half_life_ms: int) -> float:
    """What a unit of use weighs `since_ms` after the books were opened; 1.0 at their opening.

    Doubling every half-life is the same as fading all older use. Above about a thousand half-lives
    the weight would overflow: rebase the books (`rebase`) long before.
    """
    return float(2.0 ** (since_ms / half_life_ms)) if half_life_ms > 0 else 1.0


def rebase(shares: Shares, weight: float) -> None:
    """Open the books anew at a moment when use weighs `weight`: all use is divided by it."""
    shares.use[:] /= weight
    shares.accounts["share"] /= weight


def fair_order(shares: Shares) -> Ints:
    """The place of each account in the fair order, 0 for the pool: the lower goes first.

    Accounts whose shares are equal on every level have one place.
    """
    from dusuan.core.scheduling.kernels.fairness import fair_ranks, set_shares

    set_shares(shares.record)
    parents = np.ascontiguousarray(shares.accounts["parent"])
    share = np.ascontiguousarray(shares.accounts["share"])
    ranks: Ints = fair_ranks(parents, share, _ascending(share))
    return ranks


def owed(accounts: Records, pool: float, demand: Floats) -> Floats:
    """What each account and all below it are owed of `pool`, by hierarchical weighted max-min.

    `demand[a]` is what account a asks for by itself. Siblings get equal parts by weight, none more
    than is asked for; what one does not ask for goes to the others.
    """
    from dusuan.core.scheduling.kernels.fairness import level_out, summed_up

    parents = np.ascontiguousarray(accounts["parent"])
    weights = np.ascontiguousarray(accounts["weight"])
    asked = summed_up(parents, demand)
    found: Floats = level_out(parents, weights, demand, asked, pool, _ascending(asked / weights))
    return found


def _ascending(keys: Floats) -> Ints:
    """An order of non-negative `keys`, to 35 bits of their fractions; equals by number.

    Keys and numbers are sorted as one integer each, which is faster than `argsort`, and stable.
    """
    bits = max(len(keys) - 1, 1).bit_length()
    whole = np.ascontiguousarray(keys, np.float64).view(np.int64)
    packed = (whole >> bits << bits) | np.arange(len(keys))
    return np.sort(packed) & ((1 << bits) - 1)
