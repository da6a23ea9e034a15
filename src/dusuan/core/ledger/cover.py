"""The cover of an accepted quote: what its work may still be charged, and what the centre bears.

A quote binds for the work it described. Until that work is done, a job is charged at most the cap;
what it uses beyond is the centre's, up to a bound, at which its lease ends. Work after the
described work is billed like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dusuan.core import units
from dusuan.core.ledger.lots import LotBook, LotUse


@dataclass(frozen=True, slots=True)
class Cover:
    """What is left of an accepted quote, as a tick finds it.

    `cap_gflop`, `cap_fen`: what the described work may still be charged. `bears_gflop`: what the
    centre may still bear. `until_ms`: the attempt's register when the described work was done,
    None while it is not. `promised_ms`: the lease in force.
    """

    cap_gflop: int
    cap_fen: int
    bears_gflop: int
    until_ms: int | None
    promised_ms: int

    @property
    def done(self) -> bool:
        """Whether the described work is done, and what follows is billed."""
        return self.until_ms is not None

    def reached_by(self, reserved_gflop: int) -> bool:
        """Whether a hold has all that may still be charged, so that the centre stands behind it."""
        return not self.done and reserved_gflop >= self.cap_gflop

    def promise(self, reserved_gflop: int) -> int:
        """GFLOP that may be used with a hold: it, or the cap and all that the centre bears."""
        if not self.reached_by(reserved_gflop):
            return reserved_gflop
        return self.cap_gflop + self.bears_gflop


@dataclass(frozen=True, slots=True)
class Charge:
    """What a stretch of usage costs its payer, and what the centre bears of it under a quote.

    `uses` are all lots burnt; `beyond` those of them for work after the described work. `cover` is
    what is left of the quote then.
    """

    uses: tuple[LotUse, ...]
    beyond: tuple[LotUse, ...] = ()
    borne_gflop: int = 0
    cover: Cover | None = None

    @property
    def gflop(self) -> int:
        """GFLOP that leave the payer's wallet."""
        return sum(use.gflop for use in self.uses)


def charge(
    cover: Cover, wallet: int, rating_gflops: int, metered_ms: int, held_ms: int, most: int,
    book: LotBook,
) -> Charge:  # fmt: skip
    """Charge the register's way from `metered_ms` to `held_ms` to `wallet`, `most` GFLOP in all.

    The described work first, under both caps; then what follows it. When the price cap is reached
    before the cap in degrees (dearer lots burnt than when it was quoted), nothing more is charged.
    """
    described = _gflop(rating_gflops, metered_ms, _described_ms(cover, held_ms))
    after = _gflop(rating_gflops, metered_ms, held_ms) - described
    due = min(described, cover.cap_gflop)
    payable = min(due, most)
    uses = book.burn(wallet, payable, fen_max=cover.cap_fen)
    paid = sum(use.gflop for use in uses)
    beyond = book.burn(wallet, min(after, most - payable))
    borne = described - due + payable - paid
    left = replace(
        cover,
        cap_gflop=0 if paid < payable else cover.cap_gflop - paid,
        cap_fen=cover.cap_fen - sum(use.fen for use in uses),
        bears_gflop=max(cover.bears_gflop - borne, 0),
    )
    return Charge(uses + beyond, beyond, borne, left)


def _described_ms(cover: Cover, held_ms: int) -> int:
    return held_ms if cover.until_ms is None else min(held_ms, cover.until_ms)


def _gflop(rating_gflops: int, from_ms: int, to_ms: int) -> int:
    if to_ms <= from_ms:
        return 0
    return units.held_gflop(rating_gflops, to_ms) - units.held_gflop(rating_gflops, from_ms)
