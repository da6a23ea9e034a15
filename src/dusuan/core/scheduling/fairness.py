"""Quota and hierarchical fair share over the tree of accounts, as arrays.

**Quota.** The quota of an account is guaranteed to it and to all below it; what its children are
guaranteed is part of it. What nobody of a part of the tree uses, others may borrow: an account at
most `borrow_milli` above its quota, and of it at most `lend_milli` is lent. The books are those of
hierarchical cohorts in Kueue (`pkg/cache/scheduler/resource_node.go`): an account uses first what
it keeps to itself, and only what is beyond that counts against its parent.

**Fair share.** The share of an account is what all below it use, in parts of the pool, of the
resource of which they use the most (dominant resource fairness, Ghodsi et al., NSDI 2011), by its
weight. From the root down, the child with the lowest share is served first, so fairness between
parents comes before fairness between their children. Use fades by half every half-life; instead of
fading all the old, new use weighs more (`weight_of_use`), which keeps the order and costs nothing.

**Nobody starves.** While account i waits with something that fits, a sibling j is served only
while its share is not above i's. So j gets at most `weight_j * (share_i - share_j) + s` more before
i's turn, s being the largest request, both in weighted use: see docs/placement.md for the bound in
hours, and `tests/sim/test_fairness.py` for the check from the log.

Account 0 is the pool, and everybody's ancestor. Accounts are numbered level by level, the children
of one parent together (`ordered` does it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Records = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

UNLIMITED = 1 << 60
DEPTH_MAX = 32

ACCOUNT = np.dtype(
    [
        # Given.
        ("parent", "i8"),  # -1 for the pool
        ("weight", "f8"),
        ("quota_milli", "i8"),  # guaranteed to it and all below; -1: nothing, as 0
        ("borrow_milli", "i8"),  # at most this much above it; -1: no limit
        ("lend_milli", "i8"),  # at most this much of it; -1: no limit
        # Worked out by `new_shares`.
        ("first", "i8"),  # first child
        ("children", "i8"),
        ("tree", "i8"),  # where the tournament of its children begins
        ("leaves", "i8"),  # of that tournament: a power of two, 0 for no children
        ("subtree_milli", "i8"),  # guaranteed, less what the children keep to themselves
        ("kept_milli", "i8"),  # of it, not lent
        ("own_milli", "i8"),  # guaranteed, less what the children are: for its own jobs
        # Kept by `charge` and `refund`.
        ("used_milli", "i8"),  # of `subtree_milli`
        ("own_used_milli", "i8"),  # by its own jobs
        ("share", "f8"),  # by weight; the lowest goes first
        # Kept by `admit`.
        ("next", "i8"),  # first job of its queue that waits
        ("end", "i8"),  # one past the last
    ],
    align=True,
)
QUEUED = np.dtype(
    [
        ("account", "i8"),
        ("milli", "i8"),  # of devices
        ("cpu_milli", "i8"),
        ("memory_mib", "i8"),
    ],
    align=True,
)
HELD = np.dtype([("account", "i8"), ("milli", "i8")], align=True)
RESOURCES = 3  # devices, CPU, memory


@dataclass(frozen=True, slots=True)
class AccountProblem:
    """Why a tree of accounts cannot be used."""

    code: str
    text: str
    remedy: str


class Shares(NamedTuple):
    """The state of quota and fair share. A accounts."""

    accounts: Records  # ACCOUNT[A]
    use: Floats  # [A, RESOURCES] weighted, of the account and all below it
    pool: Floats  # [RESOURCES]
    tree: Ints  # tournaments of the children: the account to serve, -1 for none


def accounts_array(count: int) -> Records:
    """The pool and `count - 1` accounts in it, of equal weight, without guarantees or limits."""
    found = np.zeros(count, ACCOUNT)
    for name in ("quota_milli", "borrow_milli", "lend_milli"):
        found[name] = -1
    found["parent"][:1] = -1
    found["weight"] = 1.0
    return found


def ordered(parents: Ints) -> Ints | AccountProblem:
    """An order of accounts level by level, children of one parent together.

    `parents[i]` is the account above i, -1 for the pool, which must be the only one.
    """
    if (parents < 0).sum() != 1:
        text = f"{int((parents < 0).sum())} accounts have nothing above them"
        return AccountProblem("bad_tree", text, "put all of them below one account, the pool")
    levels, placed = [np.flatnonzero(parents < 0)], int((parents < 0).sum())
    by_parent = np.argsort(parents, kind="stable")
    starts = np.searchsorted(parents[by_parent], np.arange(len(parents) + 1))
    while len(levels[-1]) and len(levels) <= DEPTH_MAX:
        children = [by_parent[starts[a] : starts[a + 1]] for a in levels[-1]]
        levels.append(np.concatenate(children) if children else np.empty(0, np.int64))
        placed += len(levels[-1])
    if placed < len(parents):
        text = f"{len(parents) - placed} accounts are not below the pool within {DEPTH_MAX} levels"
        return AccountProblem("bad_tree", text, "is an account its own ancestor?")
    return np.concatenate(levels)


def problem_of(accounts: Records) -> AccountProblem | None:
    """What is wrong with the accounts, if anything is."""
    number = np.arange(len(accounts))
    if len(accounts) == 0:
        return AccountProblem("no_accounts", "there is no account", "give at least one")
    parents = accounts["parent"]
    if (parents >= number).any() or (np.diff(parents) < 0).any() or (parents < 0).sum() != 1:
        return AccountProblem("bad_order", "accounts are not level by level", "see `ordered`")
    if not (np.isfinite(accounts["weight"]).all() and (accounts["weight"] > 0).all()):
        return AccountProblem("bad_weight", "a weight is not above 0", "give a positive number")
    return None


def new_shares(accounts: Records, pool: tuple[int, int, int]) -> Shares:
    """Nobody uses anything of a `pool` of device milli, CPU milli and memory MiB.

    Arrays are copied. Raises `ValueError` for accounts that have a problem (`problem_of`).
    """
    problem = problem_of(accounts)
    if problem is not None:
        raise ValueError(problem.text)
    found = accounts.copy()
    if found["quota_milli"][0] < 0:
        found["quota_milli"][0] = pool[0]
    _link(found)
    _guarantee(found)
    sizes = 2 * found["leaves"]
    found["tree"] = np.cumsum(sizes) - sizes
    for name in ("share", "used_milli", "own_used_milli", "next", "end"):
        found[name] = 0
    return Shares(
        accounts=found,
        use=np.zeros((len(found), RESOURCES)),
        pool=np.maximum(np.array(pool, np.float64), 1.0),
        tree=np.full(int(sizes.sum()) + 2, -1, np.int64),
    )


def _power(count: int) -> int:
    """The least power of two that is not below `count`."""
    return 1 << max(count - 1, 0).bit_length()


def _link(accounts: Records) -> None:
    """Where the children of each account are."""
    parents = accounts["parent"]
    number = np.arange(len(accounts))
    accounts["first"] = np.searchsorted(parents, number)
    accounts["children"] = np.searchsorted(parents, number, side="right") - accounts["first"]
    inner = accounts["children"] > 0
    accounts["leaves"] = 0
    accounts["leaves"][inner] = [_power(int(count)) for count in accounts["children"][inner]]


def _guarantee(accounts: Records) -> None:
    """What each account is guaranteed, and what of it is not lent, from the leaves up."""
    below = np.zeros(len(accounts), np.int64)  # what the children are guaranteed
    lent = np.zeros(len(accounts), np.int64)  # what of it they lend
    for a in range(len(accounts) - 1, -1, -1):
        each = accounts[a]
        own = max(int(each["quota_milli"]) - int(below[a]), 0)
        each["own_milli"], subtree = own, own + int(lent[a])
        limit = int(each["lend_milli"]) if each["lend_milli"] >= 0 else subtree
        each["subtree_milli"], each["kept_milli"] = subtree, subtree - min(subtree, limit)
        if each["parent"] >= 0:
            below[each["parent"]] += max(int(each["quota_milli"]), int(below[a]))
            lent[each["parent"]] += min(subtree, limit)


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
    """The place of each account in the fair order, 0 for the pool: the lower goes first."""
    from dusuan.core.scheduling.kernels.fairness import fair_ranks, set_shares

    set_shares(shares)
    parents = np.ascontiguousarray(shares.accounts["parent"])
    ranks: Ints = fair_ranks(parents, _ascending(shares.accounts["share"]))
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
