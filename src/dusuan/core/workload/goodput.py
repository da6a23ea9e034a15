"""How long a training run takes: device-hours from its FLOP, its model and its hardware.

The model FLOP utilisation of a whole run is not that of a step: it holds restarts, checkpoints,
loading and tuning as well. `log(utilisation)` is linear in a few physical features; the
coefficients are fitted on published runs by `bench/accuracy/fit_runs.py`, towards the priors named
there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HOUR_S = 3_600
UTILISATION_MIN, UTILISATION_MAX = 0.02, 0.75
# Failures: one in 50,000 device-hours (Llama 3, arXiv 2407.21783: 419 in 54 days on 16,384),
# each of which costs the whole job half an hour of work, restart and re-computation.
DEVICE_HOURS_PER_FAILURE = 50_000
LOST_HOURS_PER_FAILURE = 0.5
PEAK_A100_TFLOPS = 312.0
BALANCE_A100 = 312_000 / 2_039  # FLOP a byte of memory traffic
HUNGER_RANGE = (-0.1, 1.4)  # logarithms; nothing is known of hardware beyond
PARAMS_RANGE = (1e8, 7e11)
# Below, a faster device gains no less any more: it would take longer than a slow one.
SIZE_LEAST = 3e8
VISION_CONVOLUTION = "cnn"


@dataclass(frozen=True, slots=True)
class RunFeatures:
    """What the time of a run rests on.

    `flop` is the exact count of the model (without recomputation), `peak_tflops` dense at the
    rated precision, `kind` one of `dense`, `moe`, `vit`, `dit`, `cnn`; `devices` None where it is
    not known; `fp8` where the matrix products run in FP8 (while the peak stays BF16).
    """

    flop: float
    params_active: float
    peak_tflops: float
    bandwidth_gbs: float | None
    kind: str = "dense"
    devices: int | None = None
    fp8: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A prediction: the median and the ends of an 80 % interval, in one unit."""

    p10: float
    p50: float
    p90: float


@dataclass(frozen=True, slots=True)
class RunModel:
    """Fitted coefficients, and the half width of the 80 % interval as a logarithm."""

    coefficients: Mapping[str, float]
    spread: float
    provenance: Mapping[str, Any]


def run_model(document: Mapping[str, Any]) -> RunModel:
    """The model from the document that `bench/accuracy/fit_runs.py` writes."""
    coefficients = {str(k): float(v) for k, v in document["coefficients"].items()}
    return RunModel(coefficients, float(document["spread"]), document["provenance"])


def terms(run: RunFeatures) -> dict[str, float]:
    """The features of `log(utilisation)`, by the names of the coefficients."""
    if run.kind == VISION_CONVOLUTION:  # size and speed mean something else for convolutions
        return {"base": 1.0, "cnn": 1.0}
    params = min(max(run.params_active, PARAMS_RANGE[0]), PARAMS_RANGE[1])
    hunger = _hunger(run)
    return {
        "base": 1.0,
        "hunger": hunger,
        "hunger_size": hunger * math.log(max(params, SIZE_LEAST) / 1e10),
        "small": max(0.0, -math.log(params / 3e9)),
        "large": max(0.0, math.log(params / 1e11)),
        "moe": 1.0 if run.kind == "moe" else 0.0,
        "fp8": 1.0 if run.fp8 else 0.0,
    }


def availability(devices: int | None) -> float:
    """The share of the time in which no failure is being recovered from."""
    failures_per_hour = (devices or 0) / DEVICE_HOURS_PER_FAILURE
    return 1 / (1 + failures_per_hour * LOST_HOURS_PER_FAILURE)


def utilisation(model: RunModel, run: RunFeatures) -> float:
    """Median model FLOP utilisation of the whole run, a fraction of the peak."""
    log = sum(model.coefficients.get(name, 0.0) * value for name, value in terms(run).items())
    return min(max(math.exp(log) * availability(run.devices), UTILISATION_MIN), UTILISATION_MAX)


def run_hours(model: RunModel, run: RunFeatures) -> Span:
    """Device-hours of the run: P10, P50 and P90. Raises `ValueError` for a peak of zero."""
    if run.peak_tflops <= 0:
        raise ValueError("a device without a peak has no hours")
    p50 = run.flop / (run.peak_tflops * 1e12 * HOUR_S * utilisation(model, run))
    widen = math.exp(model.spread)
    return Span(p50 / widen, p50, p50 * widen)


def _hunger(run: RunFeatures) -> float:
    """How much harder than an A100 the device is to keep busy, as a logarithm.

    Half of it is its FLOP a byte of memory traffic, half its speed against everything else: the
    two A100 differ by a quarter in bandwidth, and by a few per cent in what runs reach.
    """
    speed = math.log(run.peak_tflops / PEAK_A100_TFLOPS)
    balance = 0.0
    if run.bandwidth_gbs:
        balance = math.log(run.peak_tflops * 1e3 / run.bandwidth_gbs / BALANCE_A100)
    return min(max((speed + balance) / 2, HUNGER_RANGE[0]), HUNGER_RANGE[1])
