"""Conservative backfill against a plain one that gives every job its slot once, when it comes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from tests.sim.test_traces import cluster, crowd, policy, run

from dusuan.sim.trace import Trace


@dataclass
class Plain:
    """Slots on nodes of `gpus` devices; with known run times they never have to move."""

    gpus: list[int]
    taken: list[list[tuple[int, int, int]]] = field(default_factory=list)  # begin, end, devices

    def __post_init__(self) -> None:
        self.taken = [[] for _ in self.gpus]

    def least(self, n: int, begin: int, end: int) -> int:
        """The fewest devices that node n has free between."""
        moments = {begin, *(b for b, _, _ in self.taken[n] if begin < b < end)}
        used = [sum(d for b, e, d in self.taken[n] if b <= at < e) for at in moments]
        return self.gpus[n] - max(used)

    def nodes_for(self, begin: int, end: int, devices: int) -> list[tuple[int, int]]:
        """Node and devices: the tightest node, or the first whole ones for a gang."""
        if devices <= max(self.gpus):
            left = [self.least(n, begin, end) - devices for n in range(len(self.gpus))]
            fits = [n for n, rest in enumerate(left) if rest >= 0]
            return [(min(fits, key=lambda n: left[n]), devices)] if fits else []
        chosen: list[tuple[int, int]] = []
        for n, gpus in enumerate(self.gpus):
            if sum(g for _, g in chosen) < devices and self.least(n, begin, end) == gpus:
                chosen.append((n, gpus))
        return chosen if sum(g for _, g in chosen) >= devices else []

    def slot(self, now: int, run_ms: int, devices: int) -> int:
        """The first moment at which it fits until its end; it is taken from then on."""
        ends = {e for taken in self.taken for _, e, _ in taken if e > now}
        for begin in sorted({now, *ends}):
            for n, count in (chosen := self.nodes_for(begin, begin + run_ms, devices)):
                self.taken[n].append((begin, begin + run_ms, count))
            if chosen:
                return begin
        raise AssertionError("it fits on an empty cluster")


def known(seed: int, count: int, most: int) -> Trace:
    trace = crowd(seed, count, most, preemptible=0)
    trace.jobs["run_ms"] = trace.jobs["run_ms"] // 60_000 * 60_000 + 60_000
    return trace


@pytest.mark.parametrize(("text", "gpus"), [("24x1", [24]), ("4x8", [8] * 4), ("3x4", [4] * 3)])
@pytest.mark.parametrize("seed", range(4))
def test_every_job_starts_in_its_first_slot(text: str, gpus: list[int], seed: int) -> None:
    trace, plain = known(seed, 150, min(sum(gpus), 20)), Plain(gpus)
    rows = trace.jobs[["submit_ms", "run_ms", "devices"]].tolist()
    wanted = [plain.slot(*row) for row in rows]
    jobs = run(cluster(text), trace, policy("conservative", depth=1000), "oracle").state.jobs
    assert jobs["first_start_ms"].tolist() == wanted
    assert (np.array(wanted) > trace.jobs["submit_ms"]).mean() > 0.3, "the cluster is full"


def test_nobody_is_delayed_by_who_comes_later() -> None:
    trace = known(9, 200, 20)
    half = replace(trace, jobs=trace.jobs[:100].copy(), names=trace.names[:100])
    how = policy("conservative", depth=1000)
    whole, alone = (run(cluster("4x8"), each, how, "oracle").state.jobs for each in (trace, half))
    assert whole["first_start_ms"][:100].tolist() == alone["first_start_ms"].tolist()
