"""What devices sustain by class of work: robust figures, learning from finished runs, slow devices.

Everything here is by medians: a run beside other work, or one that was mis-reported, must not move
what is believed of a device. Nothing here changes what is billed: that is the versioned rating.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SIGMA = 1.4826  # of a normal distribution, in median absolute deviations
Z80 = 1.2816  # half an 80 % interval, in standard deviations
LEAST_SPREAD = 0.02  # relative: no figure is known better than this
PRIOR_RUNS = 4.0  # how many runs what was measured on purpose weighs
PRIOR_SPREAD = 0.25  # of the logarithm: how far real work lies from a measurement of its class
SLOW_RATIO = 0.85
SLOW_RUNS_MIN = 3
SLOW_Z = 3.0

# Kinds of workload, and the class of measurement that is closest to each.
CLASS_OF_KIND: Mapping[str, str] = {
    "train": "train_step",
    "finetune": "train_step",
    "vision": "train_step",
    "batch": "decode",
    "serve": "decode",
}


@dataclass(frozen=True, slots=True)
class Sustained:
    """A figure with its 80 % interval, and how many samples it rests on."""

    low: float
    middle: float
    high: float
    samples: int


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run on one device: what it did a second, in units of its own template.

    `pace` is FLOP or steps a second and device; only runs of one `template` are compared.
    """

    device: str
    template: str
    pace: float


@dataclass(frozen=True, slots=True)
class Drift:
    """How a device compares with others on the same work. `ratio` below 1 is slower."""

    device: str
    ratio: float
    runs: int
    slow: bool
    reason: str


def robust(samples: Sequence[float]) -> Sustained:
    """Median and MAD of samples as a figure with an 80 % interval. Raises `ValueError` for none."""
    if not samples:
        raise ValueError("nothing was measured")
    middle = statistics.median(samples)
    spread = SIGMA * statistics.median(abs(s - middle) for s in samples)
    half = max(Z80 * spread, LEAST_SPREAD * middle)
    return Sustained(max(middle - half, 0.0), middle, middle + half, len(samples))


def learn(prior: Sustained | None, paces: Sequence[float]) -> Sustained | None:
    """What is believed after runs at `paces` (GFLOPS a device), starting from a measurement.

    The logarithms' median is shrunk towards the measurement, which weighs `PRIOR_RUNS` runs. The
    interval is that of one further run: the runs' own spread and, less and less, the prior's.
    """
    logs = [math.log(pace) for pace in paces if pace > 0]
    if not logs:
        return prior
    seen = statistics.median(logs)
    spread = SIGMA * statistics.median(abs(log - seen) for log in logs)
    weight = len(logs) / (len(logs) + PRIOR_RUNS)
    if prior is None or prior.middle <= 0:
        middle, wide = seen, math.hypot(spread, PRIOR_SPREAD / math.sqrt(len(logs)))
    else:
        middle = weight * seen + (1 - weight) * math.log(prior.middle)
        wide = math.hypot(weight * spread, (1 - weight) * PRIOR_SPREAD)
    half = Z80 * max(wide, LEAST_SPREAD)
    return Sustained(math.exp(middle - half), math.exp(middle), math.exp(middle + half), len(logs))


def drift(runs: Sequence[Run]) -> list[Drift]:
    """Devices against the others that ran the same templates, the slowest first.

    A device is slow when its median pace is below `SLOW_RATIO` of the others' over at least
    `SLOW_RUNS_MIN` runs, and by more than the spread of all runs explains.
    """
    ratios: dict[str, list[float]] = defaultdict(list)
    for template in {run.template for run in runs}:
        of_it = [run for run in runs if run.template == template and run.pace > 0]
        for run in of_it:
            others = [r.pace for r in of_it if r.device != run.device]
            if others:
                ratios[run.device].append(math.log(run.pace / statistics.median(others)))
    noise = _noise(ratios)
    found = [_drift(device, logs, noise) for device, logs in ratios.items()]
    return sorted(found, key=lambda each: (each.ratio, each.device))


def _noise(ratios: Mapping[str, Sequence[float]]) -> float:
    """The spread of one run around its own device's median."""
    left = [x - statistics.median(logs) for logs in ratios.values() for x in logs]
    return SIGMA * statistics.median(abs(x) for x in left) if left else 0.0


def _drift(device: str, logs: Sequence[float], noise: float) -> Drift:
    middle = statistics.median(logs)
    ratio, runs = math.exp(middle), len(logs)
    beyond = middle < -SLOW_Z * noise / math.sqrt(runs)
    slow = ratio < SLOW_RATIO and runs >= SLOW_RUNS_MIN and beyond
    reason = ""
    if slow:
        reason = f"slow: {1 - ratio:.0%} below the others on the same work, over {runs} runs"
    return Drift(device, round(ratio, 4), runs, slow, reason)


def below_peers(device: str, own: float, peers: Sequence[float]) -> Drift | None:
    """Whether one measurement of a device is far below that of others of its model."""
    if not peers or own <= 0:
        return None
    ratio = own / statistics.median(peers)
    if ratio >= SLOW_RATIO:
        return None
    words = f"slow: measured {1 - ratio:.0%} below the median of {len(peers)} others of its model"
    return Drift(device, round(ratio, 4), 1, True, words)
