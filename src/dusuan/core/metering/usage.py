"""From journal records to usage intervals: what an attempt held, tiled without gap or overlap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dusuan.core import units
from dusuan.core.metering.journal import Exit, Record


@dataclass(frozen=True, slots=True)
class Meter:
    """What is known of an attempt's registers. All of them are cumulative and never fall.

    `held_ms`: device-milliseconds held. `flop`, `joules`: as reported, None when nobody says.
    `exit` is set once, by the first end record.
    """

    held_ms: int = 0
    started_wall_ms: int | None = None
    flop: int | None = None
    joules: int | None = None
    progress: tuple[float, float] | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    log_bytes: int = 0
    exit: Exit | None = None
    peak_mib: int | None = None


@dataclass(frozen=True, slots=True)
class UsageInterval:
    """A half-open stretch `[from_ms, to_ms)` of an attempt's register, and the GFLOP it held.

    `seq` counts from 1 within the attempt. GFLOP are the difference of two rounded cumulative
    values, so the intervals of an attempt sum to exactly `held_gflop(rating, its held_ms)`.
    """

    seq: int
    from_ms: int
    to_ms: int
    held_gflop: int


def fold(meter: Meter, records: Iterable[Record]) -> Meter:
    """Advance `meter` by `records`; a repeated or older record changes nothing."""
    for record in records:
        if meter.exit is None:
            meter = _advance(meter, record)
    return meter


def _advance(meter: Meter, record: Record) -> Meter:
    return replace(
        meter,
        held_ms=max(meter.held_ms, record.held_ms),
        started_wall_ms=record.wall_ms if meter.started_wall_ms is None else meter.started_wall_ms,
        flop=_later(meter.flop, record.flop),
        joules=_later(meter.joules, record.joules),
        progress=record.progress or meter.progress,
        result={**meter.result, **record.result},
        log_bytes=max(meter.log_bytes, record.log_bytes),
        exit=record.exit,
        peak_mib=_later(meter.peak_mib, record.peak_mib),
    )


def _later(before: int | None, now: int | None) -> int | None:
    if before is None or now is None:
        return now if before is None else before
    return max(before, now)


def next_interval(
    rating_gflops: int, seq: int, metered_ms: int, held_ms: int
) -> UsageInterval | None:
    """The interval from the last one's end to the register's present value; None when empty.

    `seq` is the number the interval gets; `metered_ms` is where the last interval ended.
    """
    if held_ms <= metered_ms:
        return None
    gflop = units.held_gflop(rating_gflops, held_ms) - units.held_gflop(rating_gflops, metered_ms)
    return UsageInterval(seq, metered_ms, held_ms, gflop)


def tiling_problems(
    intervals: Sequence[UsageInterval], rating_gflops: int, metered_ms: int
) -> tuple[str, ...]:
    """Why `intervals` (in order of `seq`) do not tile `[0, metered_ms)`; empty when they do."""
    problems: list[str] = []
    end_ms = 0
    for expected_seq, interval in enumerate(intervals, start=1):
        if interval.seq != expected_seq:
            problems.append(f"interval {expected_seq} is missing before {interval.seq}")
            break
        if interval.from_ms != end_ms:
            kind = "gap" if interval.from_ms > end_ms else "overlap"
            problems.append(f"{kind} before interval {interval.seq} at {end_ms} ms")
        honest = next_interval(rating_gflops, interval.seq, interval.from_ms, interval.to_ms)
        if honest is None or honest.held_gflop != interval.held_gflop:
            problems.append(f"interval {interval.seq} does not hold {interval.held_gflop} GFLOP")
        end_ms = interval.to_ms
    if not problems and end_ms != metered_ms:
        problems.append(f"intervals end at {end_ms} ms, the register was metered to {metered_ms}")
    return tuple(problems)
