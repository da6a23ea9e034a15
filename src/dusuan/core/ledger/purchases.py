"""Money in, degrees out: payments received and packages bought."""

from __future__ import annotations

from dataclasses import dataclass

from dusuan.core.ledger.lots import Lot
from dusuan.core.ledger.postings import Draft, House

MS_PER_DAY = 86_400_000


@dataclass(frozen=True, slots=True)
class Package:
    """Prepaid degrees on sale. One row is one price version: it never changes once sold.

    `valid_days` None: the degrees do not expire. A lower `priority` burns first.
    """

    package_id: str
    name: str
    gflop: int
    price_fen: int
    valid_days: int | None
    priority: int


@dataclass(frozen=True, slots=True)
class Purchase:
    """A package turned into a lot, and the transfer that pays for it."""

    lot: Lot
    draft: Draft


def receive_payment(cash: int, fen: int, house: House) -> Draft:
    """Money received for a customer: debit the bank, credit the customer's cash account."""
    draft = Draft()
    draft.move(house.bank, cash, fen)
    return draft


def buy(
    package: Package, lot_id: str, wallet: int, payer: int, house: House, now_ms: int
) -> Purchase:
    """Sell `package` into `wallet`; `payer` is the customer's cash, or the bank when paid outside.

    The price is owed as service until the degrees are used: it goes to deferred revenue.
    """
    draft = Draft()
    draft.move(payer, house.deferred, package.price_fen)
    draft.move(house.issued, wallet, package.gflop)
    expires = None if package.valid_days is None else now_ms + package.valid_days * MS_PER_DAY
    lot = Lot(
        lot_id=lot_id,
        wallet=wallet,
        initial_gflop=package.gflop,
        remaining_gflop=package.gflop,
        paid_fen=package.price_fen,
        spent_fen=0,
        priority=package.priority,
        granted=package.price_fen == 0,
        created_ms=now_ms,
        expires_ms=expires,
    )
    return Purchase(lot, draft)
