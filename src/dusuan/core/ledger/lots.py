"""Lots: what a purchase or grant left in a wallet, the order they burn in, and what they are worth.

The money of a lot is spread over its GFLOP by one rule: after `g` of `initial` GFLOP have left it,
`round(paid * g / initial)` fen have left it. Rounding is cumulative per lot, so what was
recognised and what lapsed sum to exactly what was paid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dusuan.core import units


@dataclass(frozen=True, slots=True)
class Lot:
    """GFLOP of one origin in one wallet. Times are Unix milliseconds; `expires_ms` None: never.

    `wallet` is the ledger account that holds it. `spent_fen` is the part of `paid_fen` that has
    left with the GFLOP that left. A lower `priority` burns first.
    """

    lot_id: str
    wallet: int
    initial_gflop: int
    remaining_gflop: int
    paid_fen: int
    spent_fen: int
    priority: int
    granted: bool
    created_ms: int
    expires_ms: int | None


@dataclass(frozen=True, slots=True)
class LotUse:
    """What was taken from a lot: GFLOP, and the fen they stand for."""

    lot_id: str
    gflop: int
    fen: int


def burn_order(lots: Iterable[Lot]) -> list[Lot]:
    """Lots in the order they burn: priority, then expiry, then granted before paid, then age."""

    def key(lot: Lot) -> tuple[int, bool, int, bool, int, str]:
        never = lot.expires_ms is None
        return (
            lot.priority,
            never,
            0 if lot.expires_ms is None else lot.expires_ms,
            not lot.granted,
            lot.created_ms,
            lot.lot_id,
        )

    return sorted(lots, key=key)


def _worth(lot: Lot, gflop: int) -> int:
    """Fen that leave `lot` with `gflop`."""
    used = lot.initial_gflop - lot.remaining_gflop + gflop
    return units.rounded_share(lot.paid_fen, used, lot.initial_gflop) - lot.spent_fen


def _within(lot: Lot, gflop: int, fen_max: int) -> int:
    """The most of `gflop` that can leave `lot` with at most `fen_max` fen."""
    low, high = 0, min(gflop, lot.remaining_gflop)
    if _worth(lot, high) <= fen_max:
        return gflop
    while low < high:  # the money that leaves never falls as more GFLOP leave
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _worth(lot, middle) <= fen_max else (low, middle - 1)
    return low


class LotBook:
    """The lots of some wallets inside one decision: burns them in order, keeps what changed."""

    def __init__(self, lots: Iterable[Lot]) -> None:
        self._lots = {lot.lot_id: lot for lot in lots}
        self._now: dict[str, tuple[int, int]] = {}  # remaining GFLOP and spent fen, once touched
        self._queues: dict[int, list[str]] = {}
        for lot in burn_order(self._lots.values()):
            self._queues.setdefault(lot.wallet, []).append(lot.lot_id)

    def burn(self, wallet: int, gflop: int, fen_max: int | None = None) -> tuple[LotUse, ...]:
        """Take `gflop` from `wallet`'s lots in order, or as much as is worth `fen_max` at most.

        Raises `ValueError` when the lots hold less: the wallet's balance and its lots disagree,
        which no correct history produces.
        """
        uses: list[LotUse] = []
        queue = self._queues.get(wallet, [])
        while gflop > 0:
            if not queue:
                raise ValueError(f"wallet {wallet}: {gflop} GFLOP more were settled than lots hold")
            most = gflop if fen_max is None else _within(self.lot(queue[0]), gflop, fen_max)
            use = self.take(queue[0], most)
            gflop -= use.gflop
            fen_max = None if fen_max is None else fen_max - use.fen
            if use.gflop:
                uses.append(use)
            if use.gflop == most < gflop + use.gflop:
                break  # the next GFLOP would pass `fen_max`
            if not self._now[queue[0]][0]:
                queue.pop(0)
        return tuple(uses)

    def lapse(self, wallet: int, now_ms: int, most: int) -> tuple[LotUse, ...]:
        """Take what has expired by `now_ms` from `wallet`'s lots, `most` GFLOP in all.

        What open holds have set aside is not available, so a hold made before the expiry is
        honoured to its end.
        """
        uses: list[LotUse] = []
        for lot_id in self._queues.get(wallet, []):
            lot = self._lots[lot_id]
            if lot.expires_ms is None or lot.expires_ms > now_ms or most <= 0:
                continue
            use = self.take(lot_id, most)
            most -= use.gflop
            if use.gflop:
                uses.append(use)
        return tuple(uses)

    def take(self, lot_id: str, gflop: int) -> LotUse:
        """Take up to `gflop` from one lot, and the fen that leave with it."""
        lot = self._lots[lot_id]
        remaining, spent = self._now.get(lot_id) or (lot.remaining_gflop, lot.spent_fen)
        taken = min(gflop, remaining)
        used = lot.initial_gflop - remaining + taken
        spent_now = units.rounded_share(lot.paid_fen, used, lot.initial_gflop)
        self._now[lot_id] = remaining - taken, spent_now
        return LotUse(lot_id, taken, spent_now - spent)

    def lot(self, lot_id: str) -> Lot:
        """One lot as it is now."""
        lot = self._lots[lot_id]
        remaining, spent = self._now.get(lot_id) or (lot.remaining_gflop, lot.spent_fen)
        return replace(lot, remaining_gflop=remaining, spent_fen=spent)

    def changed(self) -> Sequence[Lot]:
        """The lots as they are now, of those that were touched."""
        return [self.lot(lot_id) for lot_id in sorted(self._now)]
