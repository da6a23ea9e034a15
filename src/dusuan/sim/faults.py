"""What breaks: devices, nodes, leaf switches and power, at published rates; checkpoints by Young.

Rates, each per thousand days of one thing:

- devices: 220 faults of GPUs and their memory in 54 days on 16,384 GPUs (Llama Team, The Llama 3
  Herd of Models, 2024, table 5);
- nodes: 6.50 faults per thousand node-days on RSC-1 (Kokolis et al., Revisiting Reliability in
  Large-Scale Machine Learning Research Clusters, 2024), less those of its eight devices;
- leaf switches: 35 interruptions by switches and cables in those 54 days, 128 leaves of 16 nodes;
- power: one distribution unit a year in a cluster of 1,800 machines, 500 to 1,000 of them gone for
  about 6 hours (Dean, LADIS 2009 keynote).

How long a repair takes is published for power alone; the other means are assumptions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.arrays import Integers, Records

DAY_MS = 86_400_000
POWER_NODES = 750
CHECKPOINT_S = 60.0  # to write one
FAULT = np.dtype([("time_ms", "i8"), ("node", "i8"), ("device", "i8"), ("up", "i8")], align=True)


# The nodes that are hit, and which device of each; -1: all.
Hit = Callable[[int], tuple[npt.NDArray[np.int64], int]]


@dataclass(frozen=True, slots=True)
class Rate:
    """Faults per thousand days of one thing, and the mean hours until it is back."""

    per_thousand_days: float
    repair_h: float


DEVICE = Rate(220 / (16_384 * 54) * 1000, 12.0)
NODE = Rate(6.50 - 8 * DEVICE.per_thousand_days, 12.0)
LEAF = Rate(35 / (128 * 54) * 1000, 4.0)
POWER = Rate(POWER_NODES / 1_800 / 365 * 1000, 6.0)


def draw_faults(nodes: Records, until_ms: int, factor: float, seed: int) -> Records:
    """FAULT[F] by time: what breaks on `nodes` before `until_ms`, and its repairs.

    `factor` multiplies every rate. A device breaks again only after its repair.
    """
    draw = np.random.default_rng([seed, 3])
    owner = np.repeat(np.arange(len(nodes)), nodes["gpus"])
    device = np.arange(len(owner)) - (np.cumsum(nodes["gpus"]) - nodes["gpus"])[owner]
    each = np.arange(len(nodes))
    things: list[tuple[Rate, int, Hit]] = [
        (DEVICE, len(owner), lambda i: (owner[[i]], int(device[i]))),
        (NODE, len(nodes), lambda i: (each[[i]], -1)),
    ]
    for rate, groups in ((LEAF, np.asarray(nodes["leaf"])), (POWER, each // POWER_NODES)):
        things.append((rate, int(groups.max(initial=-1)) + 1, partial(_members, groups)))
    found = [_of(draw, rate, count, until_ms, factor, hit) for rate, count, hit in things]
    faults = np.concatenate(found)
    return faults[np.argsort(faults["time_ms"], kind="stable")]


def _members(groups: npt.NDArray[np.int64], i: int) -> tuple[npt.NDArray[np.int64], int]:
    return np.flatnonzero(groups == i), -1


def _of(
    draw: np.random.Generator, rate: Rate, things: int, until_ms: int, factor: float, hit: Hit
) -> Records:
    """Faults of `things` alike: `hit(i)` says on which nodes, and which device, thing i is."""
    count = int(draw.poisson(things * rate.per_thousand_days / 1000 * factor * until_ms / DAY_MS))
    at = np.sort(draw.integers(0, max(until_ms, 1), count))
    which = draw.integers(0, max(things, 1), count)
    lasts = np.maximum(draw.exponential(rate.repair_h * 3_600_000, count).astype(np.int64), 1)
    back: dict[int, int] = {}
    rows: list[tuple[int, int, int, int]] = []
    for moment, i, down in zip(at.tolist(), which.tolist(), lasts.tolist(), strict=True):
        if back.get(i, -1) >= moment:
            continue
        back[i] = moment + down
        where, device = hit(i)
        for up, when in enumerate((moment, moment + down)):
            rows += [(when, int(n), device, up) for n in where]
    return np.array(rows, FAULT)


def with_checkpoints(jobs: Records, factor: float, nodes: Records) -> Records:
    """The jobs with Young's interval (1974, Daly 2006) between checkpoints, and their cost.

    The interval is the root of twice the time to write one by the mean time between faults of all
    that the job runs on. Only jobs that can be preempted write checkpoints; the others begin anew.
    """
    found = jobs.copy()
    per_node = max(float(nodes["gpus"].mean()), 1.0)
    devices = np.maximum(jobs["devices"], 1)
    hosts = np.ceil(devices / per_node)
    daily = (devices * DEVICE.per_thousand_days + hosts * NODE.per_thousand_days) / 1000 * factor
    interval_s = young_s(86_400 / daily)
    keeps = jobs["preemptible"] > 0
    found["checkpoint_ms"] = np.where(keeps, np.rint(interval_s * 1000), 0)
    cost = 1 + CHECKPOINT_S / interval_s
    found["run_ms"] = np.where(keeps, np.rint(jobs["run_ms"] * cost), jobs["run_ms"])
    return found


def young_s(between_faults_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The work between two checkpoints, in seconds, with which least is lost."""
    return np.asarray(np.sqrt(2 * CHECKPOINT_S * between_faults_s))


def horizon_ms(jobs: Records, devices: int) -> int:
    """Until when things may break: the last submission and three times all the work after it."""
    wanted: Integers = jobs["devices"] * np.maximum(jobs["run_ms"], 0)
    last = int(jobs["submit_ms"].max(initial=0))
    return last + 3 * int(wanted.sum()) // max(devices, 1) + 30 * DAY_MS
