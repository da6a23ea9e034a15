"""From journal bytes to usage intervals that tile an attempt."""

import random
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dusuan.core import units
from dusuan.core.metering.journal import (
    EndReason,
    Exit,
    Record,
    RecordKind,
    encode,
    read,
)
from dusuan.core.metering.usage import (
    Meter,
    UsageInterval,
    fold,
    next_interval,
    tiling_problems,
)


def journal(*held: int, reason: EndReason | None = EndReason.EXIT) -> list[Record]:
    """A journal whose register goes through `held` after its start at 0."""
    records = [Record(1, RecordKind.START, 0, 1_000, flop=0, progress=(0.0, 9.0))]
    for n, ms in enumerate(held, start=2):
        records.append(
            Record(n, RecordKind.TICK, ms, 1_000 + ms, flop=ms * 7, joules=ms * 3, log_bytes=n)
        )
    if reason is not None:
        end = replace(records[-1], n=len(records) + 1, kind=RecordKind.END)
        records.append(replace(end, exit=Exit(reason, code=0), result={"accuracy": 0.5}))
    return records


GROWING = st.lists(st.integers(0, 10**7), min_size=1, max_size=12).map(sorted)


@given(GROWING)
def test_what_is_written_is_read(held: list[int]) -> None:
    records = journal(*held)
    reading = read(b"".join(map(encode, records)))
    assert list(reading.records) == records
    assert reading.problems == ()


@given(GROWING, st.integers(0, 2_000))
def test_an_unfinished_line_is_left_for_later(held: list[int], cut: int) -> None:
    data = b"".join(map(encode, journal(*held)))
    cut = min(cut, len(data))
    first = read(data[:cut])
    rest = read(data[first.consumed :])
    assert first.consumed <= cut
    assert first.problems == rest.problems == ()
    assert list(first.records + rest.records) == journal(*held)


@given(GROWING, st.randoms(use_true_random=False))
def test_a_damaged_record_is_skipped_named_and_healed_by_the_next(
    held: list[int], chance: random.Random
) -> None:
    lines = [bytearray(encode(r)) for r in journal(*held)]
    victim = chance.randrange(len(lines) - 1)
    spot = chance.randrange(len(lines[victim]) - 1)
    lines[victim][spot] ^= 0x01
    if lines[victim][spot] == 0x0A or b"\n" in lines[victim][:-1]:
        return  # the damage made two lines of one: covered by the next test
    reading = read(b"".join(lines))
    assert len(reading.problems) == 1
    assert fold(Meter(), reading.records).held_ms == held[-1]


def test_garbage_is_named_line_by_line() -> None:
    good = encode(journal(5)[0])
    reading = read(b"nonsense\n" + good + b"zzzzzzzz {}\n" + b"\n")
    assert [r.n for r in reading.records] == [1]
    assert reading.problems == (
        "journal line 1 is damaged and was skipped",
        "journal line 3 is damaged and was skipped",
    )


def test_fold_keeps_every_register() -> None:
    meter = fold(Meter(), journal(10, 40, 90))
    assert meter == Meter(
        held_ms=90,
        started_wall_ms=1_000,
        flop=630,
        joules=270,
        progress=(0.0, 9.0),
        result={"accuracy": 0.5},
        log_bytes=4,
        exit=Exit(EndReason.EXIT, code=0),
    )


@given(GROWING, st.randoms(use_true_random=False))
def test_repeats_and_reorderings_change_nothing(held: list[int], chance: random.Random) -> None:
    records = journal(*held, reason=None)
    muddled = records[:1] + [chance.choice(records) for _ in range(20)] + records[1:]
    middle = muddled[1:-1]
    chance.shuffle(middle)
    assert fold(Meter(), [muddled[0], *middle, muddled[-1]]) == fold(Meter(), records)


def test_nothing_counts_after_the_end() -> None:
    ended = fold(Meter(), journal(10))
    assert fold(ended, [Record(9, RecordKind.TICK, 99, 0)]) == ended


@given(st.integers(1, 10**6), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_intervals_tile_and_sum_exactly(rating: int, held: list[int]) -> None:
    intervals: list[UsageInterval] = []
    metered_ms = 0
    for ms in held:  # any order: a register never falls
        interval = next_interval(rating, len(intervals) + 1, metered_ms, ms)
        if interval is None:
            assert ms <= metered_ms
        else:
            intervals.append(interval)
            metered_ms = interval.to_ms
    assert metered_ms == max(held)
    assert [i.from_ms for i in intervals[:1]] in ([0], [])
    assert all(a.to_ms == b.from_ms for a, b in pairwise(intervals))
    assert all(i.from_ms < i.to_ms for i in intervals)
    assert sum(i.held_gflop for i in intervals) == units.held_gflop(rating, max(held))
    assert tiling_problems(intervals, rating, metered_ms) == ()


def test_tiling_problems_names_each_kind() -> None:
    first, second = UsageInterval(1, 0, 1_000, 90), UsageInterval(2, 1_000, 2_500, 135)
    assert tiling_problems([first, second], 90, 2_500) == ()

    def problem(*intervals: UsageInterval, metered_ms: int = 2_500) -> str:
        return "; ".join(tiling_problems(intervals, 90, metered_ms))

    assert "interval 1 is missing" in problem(second)
    assert "gap before interval 2" in problem(first, UsageInterval(2, 1_100, 2_500, 126))
    assert "overlap before interval 2" in problem(first, UsageInterval(2, 900, 2_500, 144))
    assert "does not hold 91" in problem(replace(first, held_gflop=91), second)
    assert "does not hold" in problem(first, replace(second, to_ms=1_000, held_gflop=0))
    assert "end at 2500 ms" in problem(first, second, metered_ms=2_501)
    assert "end at 0 ms" in problem(metered_ms=1)
