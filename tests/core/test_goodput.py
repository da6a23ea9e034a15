"""Device-hours: monotone, bounded, and an interval around the median."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dusuan.core.workload.goodput import RunFeatures, availability, run_hours, utilisation
from dusuan.facts import run_model

RUN = RunFeatures(6 * 7e9 * 1e12, 7e9, 312, 2_039)
FLOPS = st.floats(1e15, 1e27)
PARAMS = st.floats(1e7, 2e12)
PEAKS = st.floats(20, 5_000)


def test_a_dense_7b_on_an_a100_and_an_h100_lands_where_runs_land() -> None:
    a100 = utilisation(run_model(), RUN)
    h100 = utilisation(run_model(), replace(RUN, peak_tflops=989.4, bandwidth_gbs=3_350))
    assert 0.3 < a100 < 0.5
    assert 0.15 < h100 < a100


@given(FLOPS, PARAMS, PEAKS)
def test_more_work_never_costs_less_and_a_faster_card_never_takes_longer(
    flop: float, params: float, peak: float
) -> None:
    run = RunFeatures(flop, params, peak, 2_000)
    hours = run_hours(run_model(), run)
    assert hours.p10 < hours.p50 < hours.p90
    assert run_hours(run_model(), replace(run, flop=flop * 1.1)).p50 > hours.p50
    faster = run_hours(run_model(), replace(run, peak_tflops=peak * 1.1)).p50
    assert faster <= hours.p50 * (1 + 1e-9)


def test_failures_cost_more_on_more_devices() -> None:
    assert availability(None) == 1
    assert availability(8) > availability(1_024) > availability(16_384) > 0.8


def test_a_device_without_a_peak_is_refused() -> None:
    with pytest.raises(ValueError, match="peak"):
        run_hours(run_model(), replace(RUN, peak_tflops=0))
