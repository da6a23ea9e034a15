"""Robust figures: outliers move nothing, runs move what is believed, slow devices stand out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dusuan.core.catalog.calibration import (
    PRIOR_RUNS,
    Run,
    Sustained,
    below_peers,
    drift,
    learn,
    robust,
)


def test_an_outlier_moves_nothing() -> None:
    plain = robust([99.0, 100.0, 101.0, 100.5, 99.5])
    spoilt = robust([99.0, 100.0, 101.0, 100.5, 3.0])
    assert plain.middle == 100.0
    assert abs(spoilt.middle - plain.middle) <= 0.5
    assert plain.low < 99 < 101 < plain.high
    assert robust([7.0]).low == pytest.approx(7 * 0.98)  # one sample is not certainty
    with pytest.raises(ValueError, match="nothing"):
        robust([])


def test_runs_move_a_measurement_bit_by_bit() -> None:
    prior = Sustained(90.0, 100.0, 110.0, 5)
    one, many = learn(prior, [50.0]), learn(prior, [50.0] * 200)
    assert one is not None
    assert many is not None
    share = 1 / (1 + PRIOR_RUNS)
    assert one.middle == pytest.approx(math.exp(math.log(100) * (1 - share) + math.log(50) * share))
    assert many.middle == pytest.approx(50.0, rel=0.02)
    assert many.high / many.low < one.high / one.low
    assert learn(prior, []) is prior
    assert learn(None, []) is None
    alone = learn(None, [40.0, 50.0, 60.0])
    assert alone is not None
    assert (alone.middle, alone.samples) == (pytest.approx(50.0), 3)


@given(st.lists(st.floats(1.0, 1e6), min_size=1, max_size=30), st.floats(1.0, 1e6))
def test_what_is_believed_lies_between_measurement_and_runs(paces: list[float], at: float) -> None:
    found = learn(Sustained(at * 0.9, at, at * 1.1, 3), paces)
    assert found is not None
    assert min(at, *paces) * 0.999 <= found.middle <= max(at, *paces) * 1.001
    assert found.low < found.middle < found.high


def runs(paces: dict[str, list[float]], template: str = "t") -> list[Run]:
    return [Run(device, template, pace) for device, each in paces.items() for pace in each]


def test_a_slow_card_stands_out_and_the_others_do_not() -> None:
    good = [100.0, 101.0, 99.0, 100.5]
    found = drift(runs({"a": good, "b": good, "slow": [75.0, 76.0, 74.0], "c": good}))
    assert [d.device for d in found if d.slow] == ["slow"]
    assert found[0].ratio == pytest.approx(0.75, abs=0.01)
    assert "25% below" in found[0].reason


def test_what_noise_explains_is_no_drift() -> None:
    wild = {name: [60.0, 140.0, 95.0, 105.0] for name in "abc"}
    assert not any(d.slow for d in drift(runs(wild)))
    # Two runs are too few, and other work is not comparable.
    few = runs({"a": [100.0] * 4, "b": [100.0] * 4, "slow": [70.0, 70.0]})
    assert not any(d.slow for d in drift(few))
    other = runs({"a": [100.0] * 4}) + runs({"slow": [70.0] * 4}, "another")
    assert drift(other) == []


def test_a_measurement_far_below_its_peers() -> None:
    assert below_peers("a", 95.0, [100.0, 101.0]) is None
    assert below_peers("a", 80.0, []) is None
    found = below_peers("a", 80.0, [100.0, 101.0, 99.0])
    assert found is not None
    assert found.slow
    assert "20% below the median of 3 others" in found.reason
