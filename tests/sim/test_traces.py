"""Simulations, checked by a reader of their log that shares no code with them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sim import openb_lists
from tests.sim.checker import Checker, beyond_bound, passed_over, waits

from dusuan.core.scheduling.arrays import Records, jobs_array
from dusuan.core.scheduling.policy import POLICIES, PolicyParts, named
from dusuan.sim.faults import draw_faults, horizon_ms, with_checkpoints, young_s
from dusuan.sim.journal import entries, write_log
from dusuan.sim.readers import read
from dusuan.sim.run import Outcome, Settings, simulate
from dusuan.sim.summary import summary, times
from dusuan.sim.trace import Rated, Site, Trace, read_cluster

TRACES = openb_lists.shared_traces()
needs_traces = pytest.mark.skipif(TRACES is None, reason="no shared traces here")
HOUR_MS = 3_600_000


def policy(name: str, **changes: Any) -> PolicyParts:
    found = named(name)
    assert isinstance(found, PolicyParts)
    return replace(found, **changes)


def cluster(text: str) -> Site:
    found = read_cluster(text, lambda _model: Rated(0, 0.0))
    assert isinstance(found, Site)
    return found


def made(jobs: Records) -> Trace:
    """A trace of these jobs, in the order of their submission."""
    jobs = jobs[np.argsort(jobs["submit_ms"], kind="stable")]
    return Trace(jobs, tuple(f"j{i}" for i in range(len(jobs))))


def crowd(seed: int, count: int = 120, most: int = 20, preemptible: int = 1) -> Trace:
    """More work than there is room for, of users who repeat themselves."""
    draw = np.random.default_rng(seed)
    jobs = jobs_array(count)
    jobs["submit_ms"] = np.sort(draw.integers(0, 20 * HOUR_MS, count)) // 60_000 * 60_000
    jobs["submit_ms"] -= jobs["submit_ms"].min()
    jobs["run_ms"] = draw.exponential(HOUR_MS, count).astype(np.int64) + 1
    jobs["estimate_ms"] = jobs["run_ms"] * draw.integers(1, 5, count)
    jobs["devices"] = np.minimum(2 ** draw.integers(0, 6, count), most)
    jobs["group"] = draw.integers(0, 6, count) * 32 + jobs["devices"]
    jobs["preemptible"] = preemptible
    return made(jobs)


def shares(trace: Trace, seed: int) -> Trace:
    """The same, half of it parts of one device."""
    jobs, draw = trace.jobs.copy(), np.random.default_rng(seed)
    part = draw.random(len(jobs)) < 0.5
    jobs["milli"] = np.where(part, draw.integers(100, 1000, len(jobs)), 1000)
    jobs["devices"] = np.where(part, 1, jobs["devices"])
    return replace(trace, jobs=jobs)


def run(site: Site, trace: Trace, how: PolicyParts, predict: str | None = None) -> Outcome:
    return simulate(site, trace, Settings(how, predict, 60.0, log=True), lambda: 0.0)


def checked(outcome: Outcome) -> Checker:
    found = Checker(outcome.site.nodes["gpus"].tolist()).read(entries(outcome))
    found.all_ended()
    return found


@pytest.mark.parametrize("name", sorted(POLICIES))
@pytest.mark.parametrize("text", ["24x1", "4x8", "2x4,1x8,3x2"])
def test_every_log_is_sound(name: str, text: str) -> None:
    for seed in range(3):
        trace = crowd(seed)
        for each in (trace, shares(trace, seed)) if text != "24x1" else (trace,):
            outcome = run(cluster(text), each, policy(name))
            seen = checked(outcome)
            assert len(seen.jobs) == len(trace.jobs)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(POLICIES)), st.sampled_from(["9x1", "2x8"]))
def test_any_log_is_sound(seed: int, name: str, text: str) -> None:
    checked(run(cluster(text), crowd(seed, 60), policy(name)))


@pytest.mark.timeout(600)
def test_two_that_may_stop_each_other_both_get_on() -> None:
    """By tier the one may stop the other, by service the other the one: no minimum run time."""
    jobs = jobs_array(2)
    jobs["run_ms"], jobs["tier"], jobs["preemptible"] = HOUR_MS // 4, [1, 0], 1
    levels = {"level_first_s": 10.0, "level_factor": 1.1, "levels": 60}
    endless = policy("las", preempt=("order", "tier"), run_min_s=0.0, **levels)
    log = list(entries(run(cluster("1x1"), made(jobs), endless)))  # a restart costs a minute
    assert sum(line["kind"] == "end" for line in log) == 2
    assert sum(line["kind"] == "preempt" for line in log) > 2


def moving(name: str) -> PolicyParts:
    """The policy, under which nobody is stopped but to go on elsewhere."""
    return policy(name, preempt=("move",))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["fcfs", "easy", "sjf", "las", "fair", "dusuan"]),
    st.sampled_from(["2x8", "5x4", "3x8,4x2"]),
    st.booleans(),
)
def test_who_moves_goes_on_at_once(seed: int, name: str, text: str, parts: bool) -> None:
    trace = crowd(seed, 60, 8)
    outcome = run(cluster(text), shares(trace, seed) if parts else trace, moving(name))
    checked(outcome)
    log = list(entries(outcome))
    moved = {(line["job"], line["time_ms"]) for line in log if line["kind"] == "preempt"}
    begun = {(line["job"], line["time_ms"]) for line in log if line["kind"] == "start"}
    assert moved <= begun
    assert {(line["for"], line["time_ms"]) for line in log if line["kind"] == "preempt"} <= begun


def test_moving_opens_a_node_for_a_gang() -> None:
    jobs = jobs_array(5)
    jobs["run_ms"], jobs["estimate_ms"] = 4 * HOUR_MS, 4 * HOUR_MS
    jobs["devices"] = [3, 3, 1, 1, 4]
    jobs["submit_ms"] = [0, 0, 0, 0, HOUR_MS]
    jobs["preemptible"] = 1
    site = cluster("3x4")  # spread as 3, 3 and 1 + 1, where the gang finds no node
    spread = replace(moving("easy"), placement="spread")
    log = [e for e in entries(run(site, made(jobs), spread)) if e["kind"] in ("preempt", "start")]
    at = [(e["kind"], e["job"], e["time_ms"] // HOUR_MS) for e in log]
    assert ("start", "j4", 1) in at
    movers = [job for kind, job, _ in at if kind == "preempt"]
    assert sorted(movers) == ["j2", "j3"]
    assert {("start", job, 1) for job in movers} <= set(at)
    for kept in (jobs["preemptible"] * 0, jobs["preemptible"]):
        jobs["preemptible"] = kept
        without = replace(policy("easy"), placement="spread") if kept.any() else spread
        log = [e for e in entries(run(site, made(jobs), without)) if e["kind"] == "start"]
        assert ("j4", 4) in [(e["job"], e["time_ms"] // HOUR_MS) for e in log]


def test_nobody_moves_for_a_lower_tier() -> None:
    trace = crowd(3, 120, 8)
    trace.jobs["tier"] = np.arange(len(trace.jobs)) % 3
    tier = {f"j{i}": int(job["tier"]) for i, job in enumerate(trace.jobs)}
    log = list(entries(run(cluster("4x8"), trace, moving("las"))))
    moves = [(tier[e["job"]], tier[e["for"]]) for e in log if e["kind"] == "preempt"]
    assert moves and all(mover >= of for mover, of in moves)


def test_first_come_first_served_is_strict() -> None:
    seen = checked(run(cluster("4x8"), crowd(1), policy("fcfs")))
    starts = [(job.starts[0]) for job in seen.jobs.values()]
    assert all(a <= b for a, b in pairwise(starts))


@pytest.mark.parametrize("preempt", ["never", "move"])
def test_no_promise_of_easy_backfill_is_broken_when_run_times_are_known(preempt: str) -> None:
    for text, seed, most in (("24x1", 3, 20), ("4x8", 3, 20), ("5x4", 58, 8)):
        trace = crowd(seed, most=most)
        outcome = run(cluster(text), trace, policy("easy", preempt=(preempt,)), "oracle")
        promised: dict[str, int] = {}
        for line in entries(outcome):
            if line["kind"] == "reserve":
                before = promised.setdefault(line["job"], line["expected_ms"])
                assert line["expected_ms"] <= before, "a promise is not put off"
            elif line["kind"] == "start" and line["job"] in promised:
                assert line["time_ms"] <= promised[line["job"]]
        assert promised


def test_backfill_beats_first_come_and_knowing_beats_guessing() -> None:
    site, trace = cluster("24x1"), crowd(5, 300)
    means = {
        name: times(run(site, trace, policy(name), "oracle")).wait_s.mean()
        for name in ("fcfs", "easy", "conservative", "sjf-backfill", "srtf")
    }
    assert means["easy"] < means["fcfs"]
    assert means["conservative"] < means["fcfs"]
    assert means["sjf-backfill"] < means["easy"]
    assert means["srtf"] < means["sjf-backfill"]


def test_the_same_run_twice_has_the_same_log() -> None:
    first, second = (run(cluster("4x8"), crowd(2), policy("dusuan")) for _ in range(2))
    assert first.lines.tobytes() == second.lines.tobytes()


def test_what_is_noted_first_of_one_moment_changes_nothing() -> None:
    """Jobs of one moment, numbered the other way round: under an order that tells them apart."""
    jobs = crowd(4).jobs.copy()
    jobs["submit_ms"] = jobs["submit_ms"] // HOUR_MS * HOUR_MS
    jobs["run_ms"] = HOUR_MS + np.arange(len(jobs)) * 1000  # no two alike
    forth, back = made(jobs), made(jobs[::-1].copy())
    ends = []
    for trace in (forth, back):
        state = run(cluster("4x8"), trace, policy("sjf-backfill"), "oracle").state
        ends.append(sorted(zip(state.jobs["run_ms"], state.jobs["end_ms"], strict=True)))
    assert ends[0] == ends[1]


def test_jobs_larger_than_the_cluster_are_reported_and_hang_nobody() -> None:
    trace = crowd(6)
    trace.jobs["devices"][::10] = 33
    found = summary(run(cluster("4x8"), trace, policy("dusuan")))
    assert found["jobs_rejected"] == 12
    assert found["jobs"] == 108


def test_a_preempted_job_pays_its_restart() -> None:
    jobs = jobs_array(2)
    jobs["run_ms"] = [10 * HOUR_MS, HOUR_MS // 60]
    jobs["submit_ms"] = [0, 5 * HOUR_MS]
    jobs["preemptible"] = 1
    outcome = run(cluster("1x1"), made(jobs), policy("las"))
    seen = checked(outcome)
    assert len(seen.jobs["j0"].starts) == 2
    found = summary(outcome)
    assert (found["restarts"], found["lost_gpu_s"]) == (1, 60.0)
    assert outcome.state.jobs["end_ms"].tolist() == [
        10 * HOUR_MS + 2 * 60_000,
        5 * HOUR_MS + 60_000,
    ]


def flood(seed: int) -> Trace:
    """Few large jobs among many small ones that run longer than predicted."""
    draw = np.random.default_rng(seed)
    trace = crowd(seed, 400, 16, preemptible=0)
    trace.jobs["run_ms"] = draw.exponential(HOUR_MS / 2, 400).astype(np.int64) + 60_000
    trace.jobs["estimate_ms"] = -1
    trace.jobs["devices"] = np.where(draw.random(400) < 0.05, 16, 1)
    return trace


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [0, 1, 3])
def test_nobody_is_passed_behind_the_gate_and_the_bound_holds(seed: int, most: int) -> None:
    trace = flood(seed)
    overdue_ms, gate_ms = HOUR_MS, HOUR_MS // 4
    numbers = {"overdue_s": overdue_ms / 1000, "gate_s": gate_ms / 1000, "overdue_most": most}
    seen = checked(run(cluster("16x1"), trace, policy("dusuan", **numbers), "last2"))
    assert any(one.start > one.first + gate_ms for one in waits(seen, overdue_ms)), (
        "the gate closes"
    )
    assert not passed_over(seen, overdue_ms, gate_ms)
    assert not beyond_bound(seen, overdue_ms, gate_ms)


def test_without_the_gate_somebody_is_passed() -> None:
    trace = flood(0)
    free = policy("dusuan", overdue_s=0.0, gate_s=0.0)
    assert passed_over(checked(run(cluster("16x1"), trace, free, "last2")), HOUR_MS, HOUR_MS // 4)


def test_half_a_device_is_held_by_half() -> None:
    jobs = jobs_array(2)
    jobs["run_ms"], jobs["milli"] = HOUR_MS, 500
    found = summary(run(cluster("1x2"), made(jobs), policy("fcfs")))
    assert found["allocation"] == found["utilisation"] == 0.5


def test_faults_lose_work_and_everything_ends() -> None:
    site, trace = cluster("8x8"), crowd(7, 200)
    factor = 300.0
    jobs = with_checkpoints(trace.jobs, factor, site.nodes)
    faults = draw_faults(site.nodes, horizon_ms(jobs, site.devices), factor, 1)
    outcome = simulate(
        site,
        replace(trace, jobs=jobs),
        Settings(policy("dusuan"), None, 60.0, log=True),
        lambda: 0.0,
        faults,
    )
    seen = checked(outcome)
    kinds = {line["kind"] for line in entries(outcome)}
    assert {"down", "up", "lost"} <= kinds
    assert sum(len(job.starts) for job in seen.jobs.values()) > len(seen.jobs)
    assert summary(outcome)["lost_gpu_s"] > 0


def test_faults_come_at_their_rates_and_a_device_breaks_only_when_whole() -> None:
    site = cluster("1000x8")
    year_ms = 365 * 86_400_000
    faults = draw_faults(site.nodes, year_ms, 1.0, 3)
    assert faults["time_ms"].tolist() == sorted(faults["time_ms"].tolist())
    devices = (faults["device"] >= 0) & (faults["up"] == 0)
    assert 0.9 < devices.sum() / (8000 * 365 * 0.000303) < 1.1
    last: dict[tuple[int, int], int] = {}
    for fault in faults[faults["device"] >= 0]:
        place = (int(fault["node"]), int(fault["device"]))
        assert last.get(place, 1) != int(fault["up"])
        last[place] = int(fault["up"])
    assert len(draw_faults(site.nodes, year_ms, 0.0, 3)) == 0


def test_youngs_interval() -> None:
    assert young_s(np.array([86_400.0])).tolist() == pytest.approx([3220.0], rel=1e-3)


def test_a_log_is_a_trace_again(tmp_path: Path) -> None:
    """A recorded run replays to the same decisions."""
    site, trace = cluster("4x8"), crowd(8, 400)
    first = run(site, trace, policy("dusuan"))
    path = tmp_path / "log.jsonl"
    write_log(path, entries(first))
    again = read(path, "journal")
    assert isinstance(again, Trace)
    second = tmp_path / "again.jsonl"
    write_log(second, entries(run(site, again, policy("dusuan"))))
    starts = [
        [(e["time_ms"], e["job"], e["kind"]) for e in map(json.loads, p.open()) if "job" in e]
        for p in (path, second)
    ]
    assert starts[0] == starts[1]
    assert len(starts[0]) > 1000


def shared(name: str, form: str) -> Trace:
    assert TRACES is not None
    found = read(TRACES / name, form)
    assert isinstance(found, Trace)
    return found


@needs_traces
def test_known_answers_on_kth() -> None:
    trace, site = shared("KTH-SP2-1996-2.1-cln.swf.gz", "swf"), cluster("100x1")

    def figures(name: str, predict: str | None = None) -> dict[str, Any]:
        return summary(simulate(site, trace, Settings(policy(name), predict), lambda: 0.0))

    fcfs = figures("fcfs")
    assert fcfs["avg_wait_s"] == pytest.approx(389_852, abs=2)
    assert fcfs["avg_bounded_slowdown"] == pytest.approx(7_518.7, abs=0.1)
    easy = figures("easy")
    assert easy["avg_bounded_slowdown"] <= 90.7
    assert figures("easy", "oracle")["avg_bounded_slowdown"] == pytest.approx(72.6, abs=0.05)
    ours = figures("dusuan", "last2")
    assert ours["avg_bounded_slowdown"] <= 60
    assert ours["max_wait_s"] <= 1.5 * easy["max_wait_s"]
    assert ours["p999_wait_s"] <= 1.5 * easy["p999_wait_s"]
    assert ours["prediction_accuracy"] > 0.5
