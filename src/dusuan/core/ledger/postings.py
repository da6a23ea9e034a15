"""Double entry: a transfer is a set of entries whose debits equal its credits in every unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dusuan.core.ledger.balances import Delta


@dataclass(frozen=True, slots=True)
class House:
    """The ledger accounts of the centre itself, by their database ids.

    GFLOP: `issued` (debited when degrees are sold), `consumed` (credited when they are used),
    `lapsed` (credited when they expire), `loss` (debited for overrun that no customer pays),
    `borne` (debited for what work used beyond the cap of its quote).
    Fen: `bank` (money received), `deferred` (sold, not yet earned), `revenue`, `breakage` (earned
    by expiry).
    """

    issued: int
    consumed: int
    lapsed: int
    loss: int
    bank: int
    deferred: int
    revenue: int
    breakage: int
    borne: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a transfer: an amount on the debit or on the credit side of an account."""

    account: int
    dr: int = 0
    cr: int = 0


@dataclass(slots=True)
class Draft:
    """A transfer being put together: entries summed per account."""

    sums: dict[int, tuple[int, int]] = field(default_factory=dict)

    def move(self, debit: int, credit: int, amount: int) -> None:
        """Debit one account and credit another by `amount` of their common unit."""
        if amount < 0:
            raise ValueError(f"a transfer moves a positive amount, not {amount}")
        if amount:
            self._add(debit, amount, 0)
            self._add(credit, 0, amount)

    def _add(self, account: int, dr: int, cr: int) -> None:
        before = self.sums.get(account, (0, 0))
        self.sums[account] = (before[0] + dr, before[1] + cr)

    def entries(self) -> Sequence[Entry]:
        """The lines, in order of account id (the order in which rows are locked)."""
        return [Entry(a, dr, cr) for a, (dr, cr) in sorted(self.sums.items())]

    def pair(self) -> tuple[int, int, int] | None:
        """(debit, credit, amount) of a transfer of one debit and one credit, the commonest kind."""
        if len(self.sums) != 2:
            return None
        (a, (a_dr, a_cr)), (b, (b_dr, b_cr)) = self.sums.items()
        if a_dr and not a_cr and (b_dr, b_cr) == (0, a_dr):
            return a, b, a_dr
        return None

    def deltas(self) -> dict[int, Delta]:
        """What the transfer changes on each account."""
        return {a: Delta(dr, cr) for a, (dr, cr) in self.sums.items()}
