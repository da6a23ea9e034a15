"""Exact integer units: GFLOP for work, fen for money, milliseconds for time.

A rate of one GFLOPS held for one second is one GFLOP, so capacity and work share one unit and no
floating-point number ever enters a balance. 1 degree = 312,000 GFLOPS x 3,600 s.
"""

from __future__ import annotations

from decimal import Decimal

GFLOP_PER_DEGREE = 312_000 * 3_600
MS_PER_SECOND = 1_000


def degrees_text(gflop: int) -> str:
    """GFLOP as a decimal string of degrees, exact, without an exponent or trailing zeros.

    1 GFLOP is 1 / 1,123,200,000 degree, which has no finite decimal expansion; twelve places
    keep every GFLOP apart (one GFLOP is 8.9e-10 degree).
    """
    value = (Decimal(gflop) / GFLOP_PER_DEGREE).quantize(Decimal("1e-12"))
    text = format(value, "f").rstrip("0").rstrip(".")
    return text if text not in ("", "-0") else "0"


def held_gflop(rating_gflops: int, held_ms: int) -> int:
    """Capacity held, in whole GFLOP, rounded down.

    `rating_gflops` is the rating of one device and `held_ms` its cumulative device-milliseconds.
    Callers charge the difference of two cumulative values, so rounding never accumulates.
    """
    return rating_gflops * held_ms // MS_PER_SECOND


def tier_rate(rating_gflops: int, permille: int) -> int:
    """GFLOPS at which a tier bills a device: its rating times the tier's price, at least 1."""
    return max(rating_gflops * permille // 1_000, 1)


def held_ms_within(rating_gflops: int, gflop: int) -> int:
    """The most device-milliseconds that `gflop` pays for at `rating_gflops`.

    The largest `ms` with `held_gflop(rating_gflops, ms) <= gflop`.
    """
    return ((gflop + 1) * MS_PER_SECOND - 1) // rating_gflops


def rounded_share(total: int, part: int, whole: int) -> int:
    """`total * part / whole` rounded half to even, in exact integers. `whole` must be positive."""
    quotient, remainder = divmod(total * part, whole)
    twice = 2 * remainder
    return quotient + (1 if twice > whole or (twice == whole and quotient % 2) else 0)
