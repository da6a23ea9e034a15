"""Degrees from one wallet to another of the same customer."""

from __future__ import annotations

from dataclasses import dataclass

from dusuan.core.ledger.lots import LotBook, LotUse
from dusuan.core.ledger.postings import Draft


@dataclass(frozen=True, slots=True)
class Move:
    """What leaves the source's lots, in the order they burn, and the transfer that posts it."""

    uses: tuple[LotUse, ...]
    draft: Draft


def move(source: int, target: int, gflop: int, book: LotBook) -> Move:
    """Take `gflop` from the lots of `source` for `target` (both ledger accounts).

    What is taken from a lot becomes a lot of `target` with the same age, validity and priority, for
    which was paid what the taken part had cost: moving changes only who may use the degrees.
    The caller has checked that so much is available: neither set aside nor expired. Raises
    `ValueError` when the lots hold less.
    """
    draft = Draft()
    draft.move(source, target, gflop)
    return Move(book.burn(source, gflop), draft)
