"""What is remembered of whom could be stopped changes no decision."""

from __future__ import annotations

import numpy as np
import pytest
from tests.sim.test_traces import cluster, crowd, policy, run, shares

from dusuan.core.scheduling.arrays import PREEMPT

ORDER = ("tier", "attained", "tier")  # the third part decides nothing that the first has not


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
    numbers = {"levels": 6, "level_first_s": 900.0, "level_factor": 3.0, "run_min_s": 120.0}
    waits = {"overdue_s": 7200.0 if tiers == 1 else 0.0, "overdue_most": seed, "reserve_s": 3600.0}
    policies = [
        policy("dusuan", order=ORDER, preempt_depth=depth, **numbers, **waits) for depth in (2, 3)
    ]
    first, second = (run(cluster(text), trace, each) for each in policies)
    assert (first.lines["kind"] == PREEMPT).sum() > 50
    assert first.lines.tobytes() == second.lines.tobytes()
