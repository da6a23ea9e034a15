"""What is measured by reading the log of decisions: fragmentation, shares, degrees, energy.

**Fragmentation** (Weng et al., "Beware of Fragmentation", USENIX ATC 2023, section 3): the idle
share of devices that a request of the workload's mix could not use, in expectation. To a request
that a node cannot take, all that is idle there is fragmented; to one that it can, only devices
whose idle share is less than the one it asks for. The mix is that of the trace, the most popular
kinds that make up 95 % of its requests. To a gang of more devices than a node has, a node is
usable when all of it is. Summed over nodes and over time.

**Shares.** What an account is owed at a moment is its part of the devices that are up by weighted
max-min over the tree of accounts (`core.scheduling.fairness.owed`), as far as its running and
waiting jobs ask for it; what it got is what its jobs held. Both are summed over time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dusuan.core.scheduling.arrays import REQUEST, Records, State
from dusuan.core.scheduling.typical import fragmentation_tables, typical_requests
from dusuan.sim.gauges.layout import BUCKETS, NOW, PART, Floats, Gauges

COST_MOST = 300_000_000  # accounts times moments at which shares owed are worked out exactly


@dataclass(frozen=True, slots=True)
class Series:
    """Means over equal spans of time: the first axis of `rows` is that of `gauges.layout`."""

    hours: Floats
    held: Floats  # devices
    waiting: Floats  # jobs
    fragmented: Floats  # devices
    down: Floats  # devices


@dataclass(frozen=True, slots=True)
class Measured:
    """What the log came to. Device-seconds; arrays per account, or per device type."""

    held_s: Floats  # [T]
    idle_s: float
    fragment_s: float
    fragment_peak: float  # devices
    owed_s: Floats  # [A] of the account itself, not of those below it
    got_s: Floats  # [A]
    step_s: float  # between two moments at which shares owed were worked out; 0: at every change
    series: Series


class Reader:
    """Reads a log, piece by piece, of a run that begins with `state` idle."""

    def __init__(self, state: State) -> None:
        self.place = state.places  # of each account in the tree
        self.gauges = _gauges(state)

    def read(self, lines: Records) -> None:
        """The next lines."""
        from dusuan.sim.gauges.read import read_on  # numba

        read_on(self.gauges, lines)

    def result(self) -> Measured:
        """What it came to, until the last line."""
        from dusuan.sim.gauges.read import close

        close(self.gauges)
        g, now = self.gauges, self.gauges.now[0]
        return Measured(
            held_s=g.held_ms / 1e6,
            idle_s=float(now["idle_ms"]) / 1e6,
            fragment_s=float(now["fragment_ms"]) / 1e6,
            fragment_peak=float(now["fragment_peak"]) / 1e3,
            owed_s=g.owed_ms[self.place] / 1e6,
            got_s=g.got_ms[self.place] / 1e6,
            step_s=float(now["step_ms"]) / 1e3,
            series=_series(g),
        )


def _series(g: Gauges) -> Series:
    """The buckets that have been reached, as means."""
    length, end = int(g.now["bucket_ms"][0]), int(g.now["now_ms"][0])
    edges = np.arange(BUCKETS + 1) * length
    spans = np.diff(np.minimum(edges, max(end, 1))) * 1000.0
    kept = spans > 0
    held, waiting, fragmented, down = g.series[:, kept] / spans[kept]
    return Series(edges[:-1][kept] / 3_600_000, held, waiting, fragmented, down)


def mix(state: State) -> tuple[Records, Floats]:
    """The typical requests of the trace for each type of device that they accept, and weights.

    A gang asks of a node for all of it.
    """
    jobs = state.jobs
    fields = np.stack([jobs[n] for n in ("cpu_milli", "milli", "devices", "types")], axis=1)
    kinds, counts = np.unique(fields, axis=0, return_counts=True)
    requests = np.zeros(len(kinds), REQUEST)
    for i, name in enumerate(("cpu_milli", "milli", "devices", "types")):
        requests[name] = kinds[:, i]
    typical, weight = typical_requests(requests, counts)
    found = [_on_type(state, typical, t) for t in range(len(state.types))]
    return np.concatenate(found), np.tile(weight, len(state.types))


def _on_type(state: State, typical: Records, t: int) -> Records:
    """The same requests, of a node of type `t` alone."""
    found = typical.copy()
    most = max(int(state.types["gpus_max"][t]), 1)
    gang = found["devices"] > most
    parts = found["cpu_milli"] * most / np.maximum(found["devices"], 1)
    found["cpu_milli"] = np.where(gang, np.ceil(parts), found["cpu_milli"])
    found["devices"] = np.minimum(found["devices"], most)
    found["types"] = (typical["types"] >> t & 1) << t
    return found


def _gauges(state: State) -> Gauges:
    """Everything idle and nobody waiting."""
    nodes, jobs, types = state.nodes, state.jobs, len(state.types)
    nothing = np.zeros((4, len(state.accounts)))
    steps, level, alone, together = fragmentation_tables(*mix(state), types, state.free.shape[1])
    found = Gauges(
        now=_now(state),
        free=state.free.copy(),
        cpu=nodes["cpu_milli"].copy(),
        gpus=nodes["gpus"].copy(),
        type=nodes["type"].copy(),
        downs=np.zeros(len(nodes), np.int64),
        faulty=np.zeros(len(nodes), np.uint64),
        idle=np.zeros(len(nodes), np.int64),
        usable=np.zeros(len(nodes)),
        cpu_steps=steps,
        level=level,
        alone=alone,
        together=together,
        parts=_parts(len(state.holdings)),
        first=np.full(len(jobs), -1),
        since_ms=np.zeros(len(jobs), np.int64),
        asked=jobs["devices"] * jobs["milli"],
        devices=jobs["devices"].copy(),
        gflops=jobs["gflops"].copy(),
        ratings=state.types["rating_gflops"].copy(),
        cpu_asked=jobs["cpu_milli"].copy(),
        account=jobs["account"].copy(),
        held=np.zeros(types),
        held_ms=np.zeros(types),
        series=np.zeros((4, BUCKETS)),
        parents=state.accounts["parent"].copy(),
        weights=state.accounts["weight"].copy(),
        demand=nothing[0].copy(),
        owed=nothing[1].copy(),
        owed_ms=nothing[2].copy(),
        got_ms=nothing[3].copy(),
    )
    from dusuan.sim.gauges.read import look_at_all

    look_at_all(found)
    return found


def _now(state: State) -> Records:
    now = np.zeros(1, NOW)
    now["bucket_ms"] = 1000
    allowed = max(COST_MOST // len(state.accounts), 1000)
    span_ms = int(state.jobs["submit_ms"].max(initial=0))
    if 4 * len(state.jobs) > allowed:
        now["step_ms"] = max(span_ms // allowed, 1)
    return now


def _parts(count: int) -> Records:
    parts = np.zeros(count, PART)
    parts["next"] = np.arange(1, count + 1)
    return parts
