"""The tree of accounts as an array: what each is guaranteed, may borrow, and lends.

**Quota.** The quota of an account is guaranteed to it and to all below it; what its children are
guaranteed is part of it, the rest is for its own jobs and for who borrows. What nobody of a part of
the tree uses, others may borrow: an account at most `borrow_milli` above its quota, and of it at
most `lend_milli` is lent. The books are those of hierarchical cohorts in Kueue
(`pkg/cache/scheduler/resource_node.go`): an account uses first what it keeps to itself, and only
what is beyond that counts against its parent. So an account counts for

    its own jobs + for each child the larger of what that counts for and what it does not lend

which may be at most its guarantee and what it may borrow; the pool's may be at most the pool.

Account 0 is the pool, and everybody's ancestor. Accounts are numbered level by level, the children
of one parent together (`rooted` does it), so that a parent's number is below its children's.
Compiled rules read these records: `kernels.accounts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Records = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

UNLIMITED = 1 << 60
DEPTH_MAX = 32
RESOURCES = 3  # devices, CPU, memory

ACCOUNT = np.dtype(
    [
        # Given.
        ("parent", "i8"),  # -1 for the pool, or for what is right below it
        ("weight", "f8"),
        ("quota_milli", "i8"),  # guaranteed to it and all below; -1: nothing, as 0
        ("borrow_milli", "i8"),  # at most this much above it; -1: no limit
        ("lend_milli", "i8"),  # at most this much of it; -1: no limit
        # Worked out by `with_guarantees`.
        ("first", "i8"),  # first child
        ("children", "i8"),
        ("subtree_milli", "i8"),  # guaranteed, less what the children keep to themselves
        ("kept_milli", "i8"),  # of it, not lent
        ("own_milli", "i8"),  # guaranteed, less what the children are: for its own jobs
        # Kept by `hold` and `give`.
        ("used_milli", "i8"),  # of `subtree_milli`
        ("own_used_milli", "i8"),  # by its own jobs
        # The fair order.
        ("share", "f8"),  # of the dominant resource, by weight; the lowest goes first
        ("rank", "i8"),  # its place among all accounts; equals share one
        # Of one round.
        ("opens_ms", "i8"),  # what is left is kept for a job until then; 0: it is not
        ("own_opens_ms", "i8"),  # the same for its own jobs, one of which it is kept for
        ("mark", "i8"),  # the round that ranked it last
        ("slot", "i8"),  # where it stood among those
        # Of the admission of a queue at a time: see `fairness`.
        ("tree", "i8"),  # where the tournament of its children begins
        ("leaves", "i8"),  # of that tournament: a power of two, 0 for no children
        ("next", "i8"),  # first job of its queue that waits
        ("end", "i8"),  # one past the last
    ],
    align=True,
)
_GIVEN = ("weight", "quota_milli", "borrow_milli", "lend_milli")


@dataclass(frozen=True, slots=True)
class AccountProblem:
    """Why a tree of accounts cannot be used."""

    code: str
    text: str
    remedy: str


def accounts_array(count: int) -> Records:
    """`count` accounts right below the pool, of equal weight, without guarantees or limits."""
    found = np.zeros(count, ACCOUNT)
    for name in ("parent", "quota_milli", "borrow_milli", "lend_milli"):
        found[name] = -1
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


def rooted(accounts: Records) -> tuple[Records, Ints]:
    """A pool above all `accounts`, level by level; and where each of them is now.

    A parent of -1 means right below the pool. Raises `ValueError` where they are no tree.
    """
    above = np.concatenate([[-1], np.where(accounts["parent"] < 0, -1, accounts["parent"]) + 1])
    order = ordered(above.astype(np.int64))
    if isinstance(order, AccountProblem):
        raise ValueError(f"{order.text}: {order.remedy}")
    place = np.argsort(order, kind="stable").astype(np.int64)
    tree = accounts_array(len(order))
    for name in _GIVEN:
        tree[name][place[1:]] = accounts[name]
    tree["parent"][place[1:]] = place[above[1:]]
    return tree, place[1:]


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


def with_guarantees(tree: Records, pool_milli: int) -> Records:
    """A copy of the accounts with what each is guaranteed; nobody uses anything of the pool yet.

    Raises `ValueError` for accounts that have a problem (`problem_of`).
    """
    problem = problem_of(tree)
    if problem is not None:
        raise ValueError(problem.text)
    found = tree.copy()
    if found["quota_milli"][0] < 0:
        found["quota_milli"][0] = pool_milli
    parents, number = found["parent"], np.arange(len(found))
    found["first"] = np.searchsorted(parents, number)
    found["children"] = np.searchsorted(parents, number, side="right") - found["first"]
    _guarantee(found)
    for name in (
        "share",
        "rank",
        "used_milli",
        "own_used_milli",
        "opens_ms",
        "own_opens_ms",
        "mark",
    ):
        found[name] = 0
    return found


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


def has_limits(tree: Records) -> bool:
    """Whether anything is guaranteed to anybody or limited, so that there are books to keep."""
    return bool((tree["quota_milli"][1:] > 0).any() or (tree["borrow_milli"][1:] >= 0).any())
