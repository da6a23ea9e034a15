"""What a simulation is fed with: jobs as arrays, and the cluster they run on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.arrays import (
    DEVICES_PER_NODE_MAX,
    FOREVER_MS,
    TYPES_MAX,
    Records,
    nodes_array,
)
from dusuan.core.workload.jobspec import Problem

PLENTY = 1 << 40  # CPU and memory of a node that nobody counts
NODES_MAX = 1_000_000
_PART = re.compile(r"(\d+)\s*[x×]\s*(\d+)(?::([^,]+))?")
LEAF_NODES = 16  # nodes on one leaf switch, where nothing is said


@dataclass(frozen=True, slots=True)
class Rated:
    """What is known of a device model: GFLOPS, and watts under load."""

    gflops: int
    watts: float


@dataclass(frozen=True, slots=True)
class Site:
    """The cluster of a simulation. Type i of `nodes` is `models[i]`, rated `ratings[i]` GFLOPS."""

    nodes: Records  # NODE[N]
    models: tuple[str, ...]
    ratings: npt.NDArray[np.int64]
    watts: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return int(self.nodes["gpus"].sum())


@dataclass(frozen=True, slots=True)
class Trace:
    """Jobs in the order of their submission, from time 0 on. `rejected` rows could not be used."""

    jobs: Records  # JOB[J]
    names: tuple[str, ...]
    accounts: tuple[str, ...] = ("all",)
    rejected: int = 0
    notes: tuple[str, ...] = ()
    began_ms: int = 0  # Unix time or the trace's own clock at time 0
    about: Mapping[str, str] = field(default_factory=dict)


Rate = Callable[[str], Rated | Problem]


def read_cluster(text: str, rate: Rate) -> Site | Problem:
    """A cluster such as `80x8:A100` or `80x8:A100,20x8:H800`: nodes x devices of each, and model.

    `rate` tells a model's rating. Without a model, devices are all alike and have no rating.
    """
    parts = []
    for piece in text.split(","):
        match = _PART.fullmatch(piece.strip())
        if match is None:
            words = f"{piece.strip()[:40]!r} is no cluster"
            return Problem("bad_cluster", words, remedy="write it as 80x8:A100 (nodes x devices)")
        parts.append((int(match[1]), int(match[2]), (match[3] or "").strip()))
    problem = _unusable(parts)
    return problem if problem is not None else _site(parts, rate)


def _unusable(parts: list[tuple[int, int, str]]) -> Problem | None:
    nodes, devices = sum(n for n, _, _ in parts), max(g for _, g, _ in parts)
    if nodes == 0 or all(n * g == 0 for n, g, _ in parts):
        return Problem("no_devices", "the cluster has no devices", remedy="give at least 1x1")
    if nodes > NODES_MAX:
        return Problem("bad_cluster", f"{nodes} nodes", remedy=f"give at most {NODES_MAX}")
    if devices > DEVICES_PER_NODE_MAX:
        words = f"a node of {devices} devices"
        return Problem("bad_cluster", words, remedy=f"give at most {DEVICES_PER_NODE_MAX} on one")
    if len({model for _, _, model in parts}) > TYPES_MAX:
        return Problem("bad_cluster", "too many models", remedy=f"give at most {TYPES_MAX}")
    return None


def _site(parts: list[tuple[int, int, str]], rate: Rate) -> Site | Problem:
    models = tuple(dict.fromkeys(model for _, _, model in parts))
    rated = [rate(model) if model else Rated(0, 0.0) for model in models]
    for each in rated:
        if isinstance(each, Problem):
            return each
    known = [each for each in rated if isinstance(each, Rated)]
    nodes = nodes_array(sum(n for n, _, _ in parts))
    nodes["gpus"] = np.concatenate([np.full(n, g) for n, g, _ in parts])
    nodes["type"] = np.concatenate([np.full(n, models.index(model)) for n, _, model in parts])
    nodes["cpu_milli"] = nodes["memory_mib"] = PLENTY
    nodes["leaf"] = np.arange(len(nodes)) // LEAF_NODES
    ratings = np.array([each.gflops for each in known], np.int64)
    return Site(nodes, models, ratings, tuple(each.watts for each in known))


def move_limits(jobs: Records, by_ms: int | npt.NDArray[np.int64]) -> None:
    """Let the earliest starts and deadlines that jobs name be so much later."""
    jobs["earliest_ms"] += np.where(jobs["earliest_ms"] > 0, by_ms, 0)
    jobs["deadline_ms"] += np.where(jobs["deadline_ms"] < FOREVER_MS, by_ms, 0)
