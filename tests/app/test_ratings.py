"""A measurement that other work disturbed is taken again."""

from __future__ import annotations

from dusuan.app.pool import Measured
from dusuan.service.ratings import STEADY_SPREAD, TRIES, steadiest


def test_a_steady_measurement_is_taken_at_once() -> None:
    calls = []

    def measure() -> list[Measured]:
        calls.append(1)
        return [Measured("cpu:0", 90, spread=STEADY_SPREAD), Measured("cpu:1", None, note="why")]

    assert [m.gflops for m in steadiest(measure)] == [90, None]
    assert len(calls) == 1


def test_the_steadiest_of_three_counts_for_each_device() -> None:
    rounds = [
        [Measured("cpu:0", 40, spread=0.9), Measured("cpu:1", 80, spread=0.3)],
        [Measured("cpu:0", 85, spread=0.4), Measured("cpu:1", 50, spread=0.8)],
        [Measured("cpu:0", 60, spread=0.5), Measured("cpu:1", 55, spread=0.7)],
    ]
    left = iter(rounds)
    assert [m.gflops for m in steadiest(lambda: next(left))] == [85, 80]
    assert len(rounds) == TRIES
