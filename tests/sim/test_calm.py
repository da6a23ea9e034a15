"""What is remembered of whom could be stopped, and what cuts a round short, changes no decision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.sim.quotas import Limits
from tests.sim.test_quota_rounds import as_array
from tests.sim.test_traces import TRACES, cluster, crowd, needs_traces, policy, run, shared, shares

from dusuan.core.scheduling.arrays import ANYWHERE, PREEMPT, SAME_LEAF, SPREAD
from dusuan.core.scheduling.policy import PolicyParts
from dusuan.sim import run as runs
from dusuan.sim.run import Outcome, Settings, simulate
from dusuan.sim.trace import Site, Trace

pytestmark = pytest.mark.timeout(600)  # the first simulation compiles the rules
ORDER = ("tier", "attained", "tier")  # the third part decides nothing that the first has not
LEVELS = {"levels": 6, "level_first_s": 900.0, "level_factor": 3.0, "run_min_s": 120.0}
STOPS = ["order", "tier", "quota", "move"]
TREE = {
    "a": Limits(None, 8_000, 4_000), "a1": Limits("a", 4_000, None, 2_000), "a2": Limits("a"),
    "b": Limits(None, 6_000, None, 2_000),
}  # fmt: skip


def both(site: Site, trace: Trace, how: PolicyParts, predict: str, tree: Any = None) -> Outcome:
    """A simulation, once with all shortcuts and once without: the log of decisions is the same."""
    found, new_state = [], runs._state
    books = None if tree is None else as_array(tree)
    for plain in (0, 1):

        def started(*given: Any, plain: int = plain) -> Any:
            state = new_state(*given)
            state.values["plain"] = plain
            return state

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runs, "_state", started)
            how_long = Settings(how, predict, 60.0, log=True)
            found.append(simulate(site, trace, how_long, lambda: 0.0, accounts=books))
    assert found[0].lines.tobytes() == found[1].lines.tobytes()
    return found[0]


def mixed(draw: np.random.Generator, count: int, most: int, types: int) -> Trace:
    """A crowd of several tiers, kinds and wishes, in which some wait too long."""
    trace = crowd(int(draw.integers(1 << 30)), count, most)
    if draw.random() < 0.4:
        trace = shares(trace, int(draw.integers(1 << 30)))
    jobs, shape = trace.jobs, len(trace.jobs)
    jobs["tier"] = draw.integers(0, draw.integers(1, 4), shape)
    jobs["preemptible"] = draw.random(shape) < draw.choice([0.5, 0.9])
    jobs["yields"] = draw.random(shape) < draw.choice([0.0, 0.2])
    jobs["priority"] = draw.integers(0, 3, shape)
    jobs["deadline_ms"] = jobs["submit_ms"] + jobs["run_ms"] * draw.integers(1, 20, shape)
    jobs["topology"] = draw.choice([ANYWHERE, ANYWHERE, SAME_LEAF, SPREAD], shape)
    if types > 1:
        jobs["types"] = draw.choice([1, 2, 3, 3], shape)
        jobs["rating_gflops"] = 312_000
        whole = (jobs["milli"] == 1_000) & (draw.random(shape) < 0.5)
        jobs["gflops"] = np.where(whole, jobs["devices"] * 312_000, 0)
    if draw.random() < 0.4:
        jobs["cpu_milli"] = draw.choice([0, 1_000, 16_000], shape)
    return replace(trace, jobs=jobs)


def ruled(draw: np.random.Generator) -> PolicyParts:
    """Any policy under which somebody may be stopped."""
    parts = ["tier", "attained", "expansion", "shortest", "priority", "slack", "fair", "submitted"]
    order = tuple(draw.choice(parts, int(draw.integers(1, 4)), replace=False).tolist())
    if draw.random() < 0.5:
        order = ("tier", "attained", "expansion")
    return policy(
        "dusuan", **LEVELS | {"run_min_s": float(draw.choice([120, 600]))},
        order=order,
        preempt_depth=int(draw.integers(1, 4)),
        preempt=tuple(draw.choice(STOPS, int(draw.integers(0, 5)), False)),
        margin=float(draw.choice([0.0, 0.0, 0.3])),
        backfill=str(draw.choice(["easy", "easy", "skip", "strict"])),
        backfill_order=str(draw.choice(["queue", "queue", "shortest"])),
        overdue_s=float(draw.choice([0, 3_600, 7_200])),
        overdue_most=int(draw.integers(0, 4)),
        gate_s=float(draw.choice([0, 1_800])),
        reserve_s=float(draw.choice([0, 3_600])),
    )  # fmt: skip


@settings(max_examples=300, deadline=None)
@example(384)  # one that fails, overdue, of a lower tier than those behind it
@given(st.integers(0, 2**31))
def test_no_shortcut_changes_a_decision(seed: int) -> None:
    draw = np.random.default_rng(seed)
    text = str(draw.choice(["9x1", "2x8", "4x4", "2x4,1x8,3x2"]))
    types = int(draw.integers(1, 3))
    site = cluster(text)
    if types > 1:
        nodes = site.nodes.copy()
        nodes["type"] = np.arange(len(nodes)) % 2
        ratings = np.array([312_000, 165_000]) if draw.random() < 0.5 else np.zeros(2, np.int64)
        site = replace(site, nodes=nodes, ratings=ratings, models=("a", "b"))
    site.nodes["cpu_milli"] = 4_000 * site.nodes["gpus"]
    site.nodes["leaf"] = np.arange(len(site.nodes)) // 2
    trace = mixed(draw, 60, int(site.nodes["gpus"].sum()), types)
    tree = None
    if draw.random() < 0.4:
        tree, trace = TREE, replace(trace, accounts=tuple(TREE))
        trace.jobs["account"] = draw.integers(0, len(TREE), len(trace.jobs))
    predict = str(draw.choice(["user", "last2", "oracle"]))
    both(site, trace, ruled(draw), predict, tree)


@pytest.mark.parametrize("text", ["24x1", "4x8", "2x4,1x8,3x2"])
@pytest.mark.parametrize("tiers", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_remembering_changes_nothing(text: str, tiers: int, seed: int) -> None:
    """Nothing is remembered for a policy that compares three parts (`CALM_KEYS`)."""
    trace, draw = crowd(seed, 250, 16), np.random.default_rng(seed)
    if seed % 2 and text != "24x1":
        trace = shares(trace, seed)
    trace.jobs["tier"] = draw.integers(0, tiers, len(trace.jobs))
    trace.jobs["preemptible"] = draw.random(len(trace.jobs)) < 0.9
    waits = {"overdue_s": 7200.0, "overdue_most": seed, "reserve_s": 3600.0}
    policies = [
        policy("dusuan", order=ORDER, preempt_depth=depth, **LEVELS, **waits) for depth in (2, 3)
    ]
    first = both(cluster(text), trace, policies[0], "last2")
    second = run(cluster(text), trace, policies[1])
    assert (first.lines["kind"] == PREEMPT).sum() > 50
    assert first.lines.tobytes() == second.lines.tobytes()


@needs_traces
@pytest.mark.parametrize(
    ("file", "form", "text", "name", "jobs"),
    [
        ("KTH-SP2-1996-2.1-cln.swf.gz", "swf", "100x1", "dusuan", 4_000),
        ("lublin_256.swf.gz", "swf", "256x1", "dusuan", 1_000),
        ("philly_until_20171115.csv.gz", "philly-csv", "80x8", "dusuan", 5_000),
        ("philly_until_20171115.csv.gz", "philly-csv", "80x8", "srtf", 6_000),
        ("pai_100k.csv.gz", "arrivals", "18x8", "dusuan", 12_000),
    ],
)
def test_nor_on_a_recorded_trace(file: str, form: str, text: str, name: str, jobs: int) -> None:
    assert TRACES is not None
    trace = shared(file, form)
    part = replace(trace, jobs=trace.jobs[:jobs], names=trace.names[:jobs])
    both(cluster(text), part, policy(name), "last2" if name == "dusuan" else "oracle")
