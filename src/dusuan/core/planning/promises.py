"""How well quotes were kept: the error of P50 and the coverage of P50 and P90 over time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

RECENT = 20


@dataclass(frozen=True, slots=True)
class Kept:
    """One accepted quote whose job has ended well: what was said, and what came of it.

    Times are seconds of the described work, amounts GFLOP.
    """

    finished_at: str
    quoted_p50_s: float
    quoted_p90_s: float
    took_s: float
    cap_gflop: int
    charged_gflop: int
    borne_gflop: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """Calibration of quotes. A calibrated P50 is kept half the time, a P90 nine times in ten.

    `bias` is the median of took / P50; `error` the median of |took / P50 - 1|. The coverages are
    the shares that took no longer than P50 and P90; `p90_low`, `p90_high` an interval of 95 % for
    the latter (Wilson score). `recent_*` is of the last 20. `centre_share` is what the centre bore
    of all that was used.
    """

    quotes: int
    bias: float
    error: float
    p50_coverage: float
    p90_coverage: float
    p90_low: float
    p90_high: float
    recent_error: float
    recent_p90_coverage: float
    centre_gflop: int
    centre_share: float


def reliability(kept: Sequence[Kept]) -> Reliability:
    """The calibration of `kept`, which are in order of time. Raises `ValueError` for none."""
    if not kept:
        raise ValueError("no quote has been kept or broken yet")
    ratios = [_ratio(k) for k in kept]
    covered = [k.took_s <= k.quoted_p90_s for k in kept]
    low, high = wilson(sum(covered), len(covered))
    borne = sum(k.borne_gflop for k in kept)
    used = borne + sum(k.charged_gflop for k in kept)
    return Reliability(
        quotes=len(kept),
        bias=round(statistics.median(ratios), 4),
        error=_error(ratios),
        p50_coverage=_share([k.took_s <= k.quoted_p50_s for k in kept]),
        p90_coverage=_share(covered),
        p90_low=round(low, 4),
        p90_high=round(high, 4),
        recent_error=_error(ratios[-RECENT:]),
        recent_p90_coverage=_share(covered[-RECENT:]),
        centre_gflop=borne,
        centre_share=round(borne / used, 6) if used else 0.0,
    )


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share (Wilson 1927): honest for few samples."""
    share, wide = hits / n, z * z / n
    middle = (share + wide / 2) / (1 + wide)
    half = z * math.sqrt(share * (1 - share) / n + wide / (4 * n)) / (1 + wide)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _ratio(kept: Kept) -> float:
    return kept.took_s / kept.quoted_p50_s if kept.quoted_p50_s > 0 else 1.0


def _error(ratios: Sequence[float]) -> float:
    return round(statistics.median(abs(r - 1) for r in ratios), 4)


def _share(flags: Sequence[bool]) -> float:
    return round(sum(flags) / len(flags), 4)
