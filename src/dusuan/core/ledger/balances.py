"""One ledger account's balance, and the rule that it never falls below its floor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Balance:
    """A ledger account as stored: cumulative debits and credits, open holds, and its floor.

    Amounts are GFLOP or fen, by the account's unit. `floor` is the least that may be left when
    every open hold is posted in full; None means that nothing limits it.
    """

    posted_dr: int = 0
    posted_cr: int = 0
    pending_dr: int = 0
    floor: int | None = 0

    @property
    def posted(self) -> int:
        """Credits less debits: the balance before open holds."""
        return self.posted_cr - self.posted_dr

    @property
    def available(self) -> int | None:
        """What can still be set aside; None when nothing limits it."""
        if self.floor is None:
            return None
        return self.posted - self.pending_dr - self.floor


@dataclass(frozen=True, slots=True)
class Delta:
    """A change of one balance. The database applies it under the floor's CHECK constraint."""

    dr: int = 0
    cr: int = 0
    pending: int = 0


class Balances:
    """The balances a decision works on, and what it has changed of them so far.

    A small mutable working set: it lives inside one decision and never leaves it. A change is
    kept as three plain sums, since a tick makes tens of thousands of them.
    """

    def __init__(self, balances: Mapping[int, Balance]) -> None:
        self._before = dict(balances)
        self._left = {a: b.available for a, b in self._before.items()}
        self._sums: dict[int, list[int]] = {}

    def __getitem__(self, account: int) -> Balance:
        before = self._before[account]
        dr, cr, pending = self._sums.get(account, (0, 0, 0))
        return Balance(
            before.posted_dr + dr, before.posted_cr + cr, before.pending_dr + pending, before.floor
        )

    def change(self, account: int, *, dr: int = 0, cr: int = 0, pending: int = 0) -> None:
        """Add to an account's debits, credits and open holds."""
        left = self._left[account]
        if left is not None:
            self._left[account] = left + cr - dr - pending
        sums = self._sums.get(account)
        if sums is None:
            self._sums[account] = [dr, cr, pending]
            return
        sums[0] += dr
        sums[1] += cr
        sums[2] += pending

    def left(self, account: int) -> int | None:
        """What can still be set aside on one account; None when nothing limits it."""
        return self._left[account]

    def available(self, accounts: Iterable[int], most: int) -> int:
        """The most, up to `most`, that every one of `accounts` can still set aside (≥ 0)."""
        for account in accounts:
            limit = self._left[account]
            if limit is not None and limit < most:
                most = limit
        return max(most, 0)

    def deltas(self) -> dict[int, Delta]:
        """Every account touched and its change, without those that come to nothing."""
        return {a: Delta(*sums) for a, sums in self._sums.items() if any(sums)}
