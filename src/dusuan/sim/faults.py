"""What breaks: devices, nodes, leaf switches and power, at published rates; checkpoints by Young.

Rates, each per thousand days of one thing:

- devices: 268 interruptions in 54 days on 16,384 GPUs by the GPU itself: faulty GPU 148, HBM3 72,
  SRAM 19, system processor 17, silent corruption 6, thermal 6 (Llama Team, The Llama 3 Herd of
  Models, arXiv 2407.21783, table 5);
- nodes: 6.50 per thousand node-days on RSC-1, which is 1.8 hours between failures of 16,384 GPUs
  (Kokolis et al., Revisiting Reliability in Large-Scale Machine Learning Research Clusters, HPCA
  2025, arXiv 2410.21680), less those of a node's eight devices;
- leaf switches: of 180,000 in Azure 2 % failed within three months, half of the failures were over
  in 6 minutes (Singh et al., Surviving Switch Failures in Cloud Datacenters, SIGCOMM CCR, 2021);
- power: in its first year a cluster of 1,800 machines loses 500 to 1,000 of them once for about 6
  hours when a power distribution unit fails (Dean, Google I/O, May 2008).

How long devices and nodes are away is not published: 12 hours are an assumption, as is the minute
that it takes to write a checkpoint. All can be given (`rates_from`). docs/faults.md says more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.arrays import Integers, Records
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.quantities import did_you_mean

DAY_MS = 86_400_000
FAULT = np.dtype([("time_ms", "i8"), ("node", "i8"), ("device", "i8"), ("up", "i8")], align=True)


# The nodes that are hit, and which device of each; -1: all.
Hit = Callable[[int], tuple[npt.NDArray[np.int64], int]]


@dataclass(frozen=True, slots=True)
class Rate:
    """Faults per thousand days of one thing, and the mean hours until it is back."""

    per_thousand_days: float
    repair_h: float


_GPU_DAYS = 16_384 * 54
_DEVICE = Rate(268 / _GPU_DAYS * 1000, 12.0)


@dataclass(frozen=True, slots=True)
class Rates:
    """What breaks how often, and what a checkpoint costs. A `power_nodes`-th node shares a feed."""

    device: Rate = _DEVICE
    node: Rate = Rate(6.50 - 8 * _DEVICE.per_thousand_days, 12.0)
    leaf: Rate = Rate(0.02 / 91.25 * 1000, 0.1 / math.log(2))
    power: Rate = Rate(750 / 1_800 / 365 * 1000, 6.0)
    power_nodes: int = 750
    checkpoint_s: float = 60.0


PUBLISHED = Rates()
_THINGS = ("device", "node", "leaf", "power")
_NUMBERS = ("power_nodes", "checkpoint_s")


def rates_from(data: Any) -> Rates | Problem:
    """Rates as a file gives them: `device: {per_thousand_days: 0.3, repair_h: 12}` and so on.

    What it does not give is as published.
    """
    if not isinstance(data, Mapping):
        text = "rates are a mapping, such as {device: {per_thousand_days: 0.3, repair_h: 12}}"
        return Problem("bad_rates", text, remedy=f"known: {', '.join((*_THINGS, *_NUMBERS))}")
    found: dict[str, Any] = {}
    for key, value in data.items():
        read = _thing(key, value) if key in _THINGS else _number(key, value)
        if isinstance(read, Problem):
            return read
        found[key] = read
    return replace(PUBLISHED, **found)


def _thing(name: str, value: Any) -> Rate | Problem:
    known = sorted(field.name for field in fields(Rate))
    if not isinstance(value, Mapping) or not set(value) <= set(known):
        return Problem("bad_rates", f"{name} is {value!r}", remedy=f"give {' and '.join(known)}")
    if not all(_is_number(each) for each in value.values()):
        return Problem("bad_rates", f"{name} is {dict(value)!r}", remedy="give numbers from 0 on")
    published: Rate = getattr(PUBLISHED, name)
    return replace(published, **value)


def _number(name: Any, value: Any) -> float | Problem:
    if name not in _NUMBERS:
        near = did_you_mean(str(name), (*_THINGS, *_NUMBERS))
        return Problem("unknown_rate", f"nothing breaks that is called {name!r}", remedy=near)
    if not _is_number(value) or value < 1:
        return Problem("bad_rates", f"{name} is {value!r}", remedy="give a number from 1 on")
    return int(value) if name == "power_nodes" else float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9


def draw_faults(
    nodes: Records, until_ms: int, factor: float, seed: int, rates: Rates = PUBLISHED
) -> Records:
    """FAULT[F] by time: what breaks on `nodes` before `until_ms`, and its repairs.

    `factor` multiplies every rate. A device breaks again only after its repair.
    """
    draw = np.random.default_rng([seed, 3])
    owner = np.repeat(np.arange(len(nodes)), nodes["gpus"])
    device = np.arange(len(owner)) - (np.cumsum(nodes["gpus"]) - nodes["gpus"])[owner]
    each = np.arange(len(nodes))
    things: list[tuple[Rate, int, Hit]] = [
        (rates.device, len(owner), lambda i: (owner[[i]], int(device[i]))),
        (rates.node, len(nodes), lambda i: (each[[i]], -1)),
    ]
    feeds = each // rates.power_nodes
    for rate, groups in ((rates.leaf, np.asarray(nodes["leaf"])), (rates.power, feeds)):
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


def with_checkpoints(
    jobs: Records, factor: float, nodes: Records, rates: Rates = PUBLISHED
) -> Records:
    """The jobs with Young's interval (1974, Daly 2006) between checkpoints, and their cost.

    The interval is the root of twice the time to write one by the mean time between faults of all
    that the job runs on. Only jobs that can be preempted write checkpoints; the others begin anew.
    """
    found = jobs.copy()
    per_node = max(float(nodes["gpus"].mean()), 1.0)
    devices = np.maximum(jobs["devices"], 1)
    hosts = np.ceil(devices / per_node)
    of_devices, of_hosts = rates.device.per_thousand_days, rates.node.per_thousand_days
    daily = (devices * of_devices + hosts * of_hosts) / 1000 * factor
    interval_s = young_s(86_400 / np.maximum(daily, 1e-9), rates.checkpoint_s)
    keeps = jobs["preemptible"] > 0
    found["checkpoint_ms"] = np.where(keeps, np.rint(interval_s * 1000), 0)
    cost = 1 + rates.checkpoint_s / interval_s
    found["run_ms"] = np.where(keeps, np.rint(jobs["run_ms"] * cost), jobs["run_ms"])
    return found


def young_s(
    between_faults_s: npt.NDArray[np.float64], checkpoint_s: float = 60.0
) -> npt.NDArray[np.float64]:
    """The work between two checkpoints, in seconds, with which least is lost."""
    return np.asarray(np.sqrt(2 * checkpoint_s * between_faults_s))


def horizon_ms(jobs: Records, devices: int) -> int:
    """Until when things may break: the last submission and three times all the work after it."""
    wanted: Integers = jobs["devices"] * np.maximum(jobs["run_ms"], 0)
    last = int(jobs["submit_ms"].max(initial=0))
    return last + 3 * int(wanted.sum()) // max(devices, 1) + 30 * DAY_MS
