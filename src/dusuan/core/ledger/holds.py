"""Opening a hold: degrees set aside before anything runs, under every floor above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dusuan.core.ledger.balances import Balances


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a hold could not be opened: the ledger account that lacks, and how much it lacks."""

    account: int
    wanted_gflop: int
    available_gflop: int


def open_hold(
    wallet: int, limits: Sequence[int], gflop: int, balances: Balances
) -> Shortage | None:
    """Set `gflop` aside on `wallet` and on every account of `limits`, or on none of them."""
    for account in (wallet, *limits):
        available = balances[account].available
        if available is not None and available < gflop:
            return Shortage(account, gflop, max(available, 0))
    for account in (wallet, *limits):
        balances.change(account, pending=gflop)
    return None


def void_hold(wallet: int, limits: Sequence[int], gflop: int, balances: Balances) -> None:
    """Release what `open_hold` set aside, unused."""
    for account in (wallet, *limits):
        balances.change(account, pending=-gflop)
