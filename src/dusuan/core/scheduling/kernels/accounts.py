"""Books of the tree of accounts: who may use how much more, who borrows, what everybody has used.

See `core.scheduling.accounts`. `s` is what has the books: the state of a round, or the queues of
an admission (`fairness.Shares`). Every question is answered along one path up the tree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from dusuan.core.scheduling.accounts import RESOURCES, UNLIMITED
from dusuan.core.scheduling.compiled import compiled, entry
from dusuan.core.scheduling.kernels.access import account, pointer


@compiled
def use_of(s: Any) -> Any:
    """Weighted use of devices, CPU and memory by each account and all below it."""
    return carray(pointer(s.use_at), (s.accounts, RESOURCES), np.float64)


@compiled
def own_idle(s: Any, a: int) -> int:
    """What account `a` keeps to itself and does not use."""
    return max(0, account(s, a).kept_milli - account(s, a).used_milli)


@compiled
def may_borrow(s: Any, a: int) -> int:
    """How much more may count for account `a` than it keeps to itself."""
    borrow = account(s, a).borrow_milli
    if borrow < 0:
        return UNLIMITED
    lent = account(s, a).subtree_milli - account(s, a).kept_milli
    return lent - max(0, account(s, a).used_milli - account(s, a).kept_milli) + borrow


@entry
def available(s: Any, a: int) -> int:
    """How much more account `a` may use: its own, and what it may borrow on each level above."""
    own, most = 0, UNLIMITED
    while account(s, a).parent >= 0:
        own += own_idle(s, a)
        most = min(most, own + may_borrow(s, a))
        a = account(s, a).parent
    return min(most, own + account(s, a).subtree_milli - account(s, a).used_milli)


@compiled
def limit_of(s: Any, a: int, wanted: int) -> int:
    """The lowest account whose limit keeps `a` from using `wanted` more; -1 when none does.

    0, the pool: what is idle of it is guaranteed to others, who do not lend it.
    """
    own = 0
    while account(s, a).parent >= 0:
        own += own_idle(s, a)
        if own + may_borrow(s, a) < wanted:
            return a
        a = account(s, a).parent
    return a if own + account(s, a).subtree_milli - account(s, a).used_milli < wanted else -1


@compiled
def ever(s: Any, a: int) -> int:
    """How much account `a` may use when nobody uses anything."""
    own, most = 0, UNLIMITED
    while account(s, a).parent >= 0:
        own += account(s, a).kept_milli
        if account(s, a).borrow_milli >= 0:
            lent = account(s, a).subtree_milli - account(s, a).kept_milli
            most = min(most, own + lent + account(s, a).borrow_milli)
        a = account(s, a).parent
    return min(most, own + account(s, a).subtree_milli)


@entry
def hold(s: Any, a: int, milli: int) -> None:
    """Account `a` holds `milli` more: what it keeps to itself first, the rest from its parent."""
    account(s, a).own_used_milli += milli
    while a >= 0 and milli > 0:
        own = own_idle(s, a)
        account(s, a).used_milli += milli
        milli = max(0, milli - own)
        a = account(s, a).parent


@entry
def give(s: Any, a: int, milli: int) -> None:
    """Account `a` holds `milli` less. What it used stays in its share, and fades."""
    account(s, a).own_used_milli -= milli
    while a >= 0 and milli > 0:
        beyond = account(s, a).used_milli - account(s, a).kept_milli
        account(s, a).used_milli -= milli
        milli = min(milli, max(0, beyond))
        a = account(s, a).parent


@compiled
def own_fits(s: Any, a: int, wanted: int) -> bool:
    """Whether the own jobs of `a` would use no more than is guaranteed to them."""
    return bool(account(s, a).own_used_milli + wanted <= account(s, a).own_milli)


@compiled
def fits(s: Any, a: int, wanted: int) -> bool:
    """Whether no more than its guarantee would count for account `a` with `wanted` more."""
    return bool(account(s, a).used_milli + wanted <= account(s, a).subtree_milli)


@compiled
def is_guaranteed(s: Any, a: int, wanted: int) -> bool:
    """Whether `wanted` more is guaranteed to `a`, or to an account above it, by somebody."""
    if own_fits(s, a, wanted):
        return True
    while account(s, a).parent >= 0:
        if fits(s, a, wanted):
            return True
        wanted -= own_idle(s, a)
        a = account(s, a).parent
    return False


@compiled
def ever_guaranteed(s: Any, a: int, wanted: int) -> bool:
    """Whether `is_guaranteed` may ever hold, whatever others use."""
    if account(s, a).own_milli >= wanted:
        return True
    while account(s, a).parent >= 0:
        if account(s, a).subtree_milli >= wanted:
            return True
        wanted -= account(s, a).kept_milli
        a = account(s, a).parent
    return False


@compiled
def takes_back(s: Any, a: int, wanted: int, b: int) -> bool:
    """Whether `a` may have the devices of a job of `b`, to use `wanted` of what is guaranteed.

    Where their paths meet, the side of `a` uses no more than its guarantee, and the side of `b`
    borrows, on every level down to the job: else it is somebody else who borrows.
    """
    if a == b:
        return False
    mine = own_fits(s, a, wanted)
    borrowed = not own_fits(s, b, 0)
    while a != b:
        if a > b:
            mine = fits(s, a, wanted)
            wanted = max(0, wanted - own_idle(s, a))
            a = account(s, a).parent
        else:
            borrowed = borrowed and not fits(s, b, 0)
            b = account(s, b).parent
    return bool(mine and borrowed)


@entry
def reclaim(
    s: Any, whose: Any, milli: Any, order: Any, a: int, wanted: int, free: int, chosen: Any
) -> bool:
    """Choose which jobs stop so that `a` can use `wanted` of what it is guaranteed.

    `whose[h]` is the account of job h, which holds `milli[h]`; `order` has those that may be
    stopped, the least costly first; `free` is idle now. Only jobs of accounts that borrow are
    `chosen` (1 is the first, 0 nobody), and none that is not needed; in the books they hold nothing
    any more. False, and nothing chosen or changed, when that is not enough.
    """
    taken = np.empty(len(order), np.int64)
    count = take_borrowed(s, whose, milli, order, a, wanted, free, taken)
    for i in range(count):
        free += milli[taken[i]]
    if free < wanted or available(s, a) < wanted:
        for i in range(count):
            hold(s, whose[taken[i]], milli[taken[i]])
        return False
    spare_unneeded(s, whose, milli, taken, count, a, wanted, free)
    for i in range(count):
        if taken[i] >= 0:
            chosen[taken[i]] = i + 1
    return True


@compiled
def take_borrowed(
    s: Any, whose: Any, milli: Any, order: Any, a: int, wanted: int, free: int, taken: Any
) -> int:
    """Give back what borrowers hold until there is enough; returns how many jobs, `taken[:n]`.

    Another pass finds those of whom `a` could ask for nothing before its own kin gave back.
    """
    count, before = 0, -1
    left = np.ones(len(order), np.bool_)
    while before < count:
        before = count
        for i in range(len(order)):
            if free >= wanted and available(s, a) >= wanted:
                return count
            h = order[i]
            if left[i] and takes_back(s, a, wanted, whose[h]):
                give(s, whose[h], milli[h])
                free += milli[h]
                taken[count] = h
                left[i] = False
                count += 1
    return count


@compiled
def spare_unneeded(
    s: Any, whose: Any, milli: Any, taken: Any, count: int, a: int, wanted: int, free: int
) -> None:
    """Let those go on, the costly ones first, without whom there is enough: -1 in `taken`."""
    for i in range(count - 1, -1, -1):
        h = taken[i]
        hold(s, whose[h], milli[h])
        taken[i] = -1
        needed = free - milli[h] < wanted or available(s, a) < wanted
        if needed or not all_borrow(s, whose, milli, taken, count, a, wanted):
            give(s, whose[h], milli[h])
            taken[i] = h
        else:
            free -= milli[h]


@compiled
def all_borrow(s: Any, whose: Any, milli: Any, taken: Any, count: int, a: int, wanted: int) -> bool:
    """Whether each of `taken` borrowed when it was its turn, which have all been given back."""
    for i in range(count):
        if taken[i] >= 0:
            hold(s, whose[taken[i]], milli[taken[i]])
    found = True
    for i in range(count):
        if taken[i] >= 0:
            found = found and takes_back(s, a, wanted, whose[taken[i]])
            give(s, whose[taken[i]], milli[taken[i]])
    return found


@compiled
def keep_for(s: Any, a: int, wanted: int, until_ms: int) -> None:
    """What is left to the accounts above `a` is kept for its job, up to the highest that limits it.

    See `keeps`.
    """
    top, own, b = a, 0, a
    while account(s, b).parent >= 0:
        own += own_idle(s, b)
        if own + may_borrow(s, b) < wanted:
            top = b
        b = account(s, b).parent
    if own + account(s, b).subtree_milli - account(s, b).used_milli < wanted:
        top = b
    account(s, a).own_opens_ms = max(account(s, a).own_opens_ms, until_ms)
    while a >= top:
        account(s, a).opens_ms = max(account(s, a).opens_ms, until_ms)
        a = account(s, a).parent
    s.closed = 1


@compiled
def keeps(s: Any, a: int, wanted: int, end_ms: int) -> int:
    """The account that keeps what is left for another job, from which `a` wants some; or -1.

    Nothing is kept from who gives it back in time, nor from who is guaranteed it, unless it is the
    same guarantee.
    """
    if 0 < account(s, a).own_opens_ms < end_ms:
        return a
    mine = own_fits(s, a, wanted)
    while a >= 0 and wanted > 0:
        if not mine and 0 < account(s, a).opens_ms < end_ms:
            return a
        mine = fits(s, a, wanted)
        wanted -= own_idle(s, a)
        a = account(s, a).parent
    return -1


@compiled
def open_all(s: Any) -> None:
    """Nothing is kept for anybody: a round begins."""
    if s.closed:
        for a in range(s.accounts):
            account(s, a).opens_ms = 0
            account(s, a).own_opens_ms = 0
        s.closed = 0


@compiled
def add_use(s: Any, a: int, devices: float, cpu: float, memory: float) -> None:
    """Account `a`, and with it all above, has used so much more, weighted."""
    while a >= 0:
        use_of(s)[a, 0] += devices
        use_of(s)[a, 1] += cpu
        use_of(s)[a, 2] += memory
        a = account(s, a).parent


@compiled
def share_of(s: Any, a: int, devices: float, cpu: float, memory: float) -> float:
    """The dominant share of who has used so much, by the weight of account `a`."""
    most = max(devices / s.pool_devices, cpu / s.pool_cpu, memory / s.pool_memory)
    return float(most / account(s, a).weight)
