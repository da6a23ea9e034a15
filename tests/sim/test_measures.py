"""What a run is said to have come to: small cases worked out by hand, and a second reader."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.sim.test_traces import HOUR_MS, cluster, crowd, made, policy, shares

from dusuan.core.scheduling import fairness
from dusuan.core.scheduling.accounts import accounts_array
from dusuan.core.scheduling.arrays import jobs_array
from dusuan.sim.faults import (
    FAULT,
    PUBLISHED,
    Rate,
    Rates,
    draw_faults,
    rates_from,
    with_checkpoints,
)
from dusuan.sim.journal import entries
from dusuan.sim.measures import mix
from dusuan.sim.run import Outcome, Settings, simulate
from dusuan.sim.summary import summary
from dusuan.sim.trace import Rated, Site, Trace, read_cluster


def run(site: Site, trace: Trace, name: str = "fcfs", **more: Any) -> Outcome:
    return simulate(site, trace, Settings(policy(name), None, 60.0, log=True), lambda: 0.0, **more)


def jobs_of(*rows: tuple[int, int, int]) -> Trace:
    """Jobs of (submitted after s, run s, devices)."""
    jobs = jobs_array(len(rows))
    for name, column in zip(
        ("submit_ms", "run_ms", "devices"), zip(*rows, strict=True), strict=True
    ):
        jobs[name] = column
    jobs["submit_ms"] *= 1000
    jobs["run_ms"] *= 1000
    return made(jobs)


def test_waits_and_slowdowns_by_hand() -> None:
    found = summary(run(cluster("1x1"), jobs_of((0, 100, 1), (0, 100, 1), (150, 2, 1))))
    # Waits 0, 100, 50; completions 100, 200, 52; slowdowns 1, 2, and 52 by 10 of the short one.
    assert found["avg_wait_s"] == 50.0
    assert found["avg_jct_s"] == pytest.approx(352 / 3, abs=0.01)
    assert found["avg_bounded_slowdown"] == pytest.approx((1 + 2 + 5.2) / 3, abs=0.001)
    assert (found["makespan_s"], found["max_wait_s"]) == (202.0, 100.0)
    assert found["utilisation"] == found["allocation"] == 1.0
    assert found["idle_while_waiting"] == 0.0


def test_fragmentation_by_hand() -> None:
    """One of two devices of a node is idle for 10 s: to half of the mix, which asks for two."""
    found = summary(run(cluster("2x2"), jobs_of((0, 10, 1), (0, 10, 2))))
    assert found["fragmentation"] == found["fragmentation_peak"] == 0.5 * 10 / 40
    assert found["fragmentation_of_idle"] == 0.5


def test_fragmentation_of_shares_by_hand() -> None:
    """400 milli for 10 s that no share of the mix fits into, then 500 that every other one does."""
    trace = jobs_of((0, 10, 1), (0, 10, 1))
    trace.jobs["milli"] = [600, 500]
    found = summary(run(cluster("1x1"), trace))
    assert found["fragmentation"] == (0.4 * 10 + 0.25 * 10) / 20
    assert found["fragmentation_peak"] == 0.4


def test_cpu_strands_devices() -> None:
    """A job takes all the CPU of a node; its other device is of no use to anybody."""
    site = cluster("1x2")
    site.nodes["cpu_milli"] = 4000
    trace = jobs_of((0, 10, 1))
    trace.jobs["cpu_milli"] = 4000
    assert summary(run(site, trace))["fragmentation"] == 0.5


def test_to_a_gang_only_whole_nodes_are_of_use() -> None:
    """Half of the mix takes both nodes: a node with one device in use is of no use to it."""
    found = summary(run(cluster("2x2"), jobs_of((0, 10, 1), (0, 10, 4))))
    # First 10 s: one idle device on a broken node, to the gang; the other node is whole.
    assert found["fragmentation"] == 0.5 * 10 / 80


def two_accounts() -> Trace:
    """`a` asks for both devices, `b` for one, at once; first come, first served: `a` gets both."""
    trace = jobs_of((0, 10, 1), (0, 10, 1), (0, 10, 1))
    trace.jobs["account"] = [0, 0, 1]
    return replace(trace, accounts=("a", "b"))


def test_shares_by_hand() -> None:
    found = summary(run(cluster("2x1"), two_accounts()))
    rows = {row["account"]: row for row in found["accounts"]}
    assert (rows["a"]["owed_gpu_s"], rows["a"]["got_gpu_s"]) == (10.0, 20.0)
    assert (rows["b"]["owed_gpu_s"], rows["b"]["got_gpu_s"]) == (20.0, 10.0)
    assert found["accounts"][0]["account"] == "b", "who got least of its share comes first"
    assert (found["shortfall_most"], found["shortfall_gpu_s"]) == (0.5, 10.0)
    assert found["jain_share"] == round((2 + 0.5) ** 2 / (2 * (4 + 0.25)), 4)
    assert found["jain_slowdown"] == round((1 + 2) ** 2 / (2 * (1 + 4)), 4)


def test_weights_count() -> None:
    """Of three devices `a` is owed two and `b` one; with equal weights one and a half each."""
    trace = two_accounts()
    trace.jobs["devices"] = [2, 1, 3]
    accounts = np.zeros(2, dtype=run(cluster("3x1"), trace).state.accounts.dtype)
    accounts["parent"], accounts["weight"] = -1, [2.0, 1.0]
    for name in ("quota_milli", "borrow_milli", "lend_milli"):
        accounts[name] = -1
    rows = summary(run(cluster("3x1"), trace, accounts=accounts))["accounts"]
    owed = {row["account"]: row["owed_gpu_s"] for row in rows}
    assert owed == {"a": 20.0, "b": 10.0 + 30.0}  # from 10 s on `b` is alone


def test_degrees_and_energy_by_hand() -> None:
    """An hour of one of two devices of 312 TFLOPS and 10 kW; the idle one draws a fifth."""
    site = read_cluster("2x1:X", lambda _model: Rated(312_000, 10_000.0))
    assert isinstance(site, Site)
    found = summary(run(site, jobs_of((0, 3600, 1))))
    assert found["sold_degrees"] == "1.0000"
    assert found["energy_kwh"] == 12.0
    assert summary(run(cluster("2x1"), jobs_of((0, 3600, 1))))["sold_degrees"] is None


def test_lost_work_by_hand() -> None:
    """Its node is down from 1,000 s until 1,100 s: 900 s were saved, and the restart takes 60 s."""
    trace = jobs_of((0, 2000, 1))
    trace.jobs["preemptible"], trace.jobs["checkpoint_ms"] = 1, 300_000
    faults = np.array([(1_000_000, 0, -1, 0), (1_100_000, 0, -1, 1)], FAULT)
    found = summary(run(cluster("1x1"), trace, faults=faults))
    assert (found["restarts"], found["lost_gpu_s"]) == (1, 160.0)
    assert found["makespan_s"] == 1100 + 60 + 1100
    assert found["down"] == round(100 / 2260, 6)
    assert found["accounts"][0]["owed_gpu_s"] == 2160.0, "nobody is owed what is down"


class Second:
    """Reads the log in plain Python, and sums up by the definitions."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome, state = outcome, outcome.state
        self.nodes, self.jobs = state.nodes, state.jobs
        self.names = {name: j for j, name in enumerate(outcome.trace.names)}
        self.typical, self.weight = mix(state)
        self.free = [[1000] * int(n["gpus"]) for n in self.nodes]
        self.downs: dict[int, int] = defaultdict(int)
        self.broken: set[tuple[int, int]] = set()
        self.parts: dict[int, list[Any]] = defaultdict(list)
        self.since: dict[int, int] = {}
        self.waiting: set[int] = set()
        accounts, self.account = len(state.places), outcome.trace.jobs["account"]
        self.owed, self.got = np.zeros(accounts + 1), np.zeros(accounts)
        self.fragment = self.held = 0.0
        self.now = 0

    def read(self) -> Second:
        for line in entries(self.outcome):
            self.pass_time(line["time_ms"] - self.now)
            self.now = line["time_ms"]
            j = self.names.get(line.get("job", ""), -1)
            getattr(self, line["kind"], lambda *_: None)(j, line)
        return self

    def pass_time(self, ms: int) -> None:
        if ms == 0:
            return
        self.fragment += ms * sum(self.fragmented(n) for n in range(len(self.nodes)))
        self.owed += ms * self.owed_now()
        for j, parts in self.parts.items():
            milli = sum(len(devices) * share for _, devices, share in parts)
            self.held += ms * milli
            self.got[self.account[j]] += ms * milli

    def idle(self, n: int) -> list[int]:
        if self.downs[n]:
            return []
        return [0 if (n, d) in self.broken else free for d, free in enumerate(self.free[n])]

    def fragmented(self, n: int) -> float:
        """Of node n, by the definition: for each request of the mix that its type serves."""
        idle, total = self.idle(n), 0.0
        for each, part in zip(self.typical, self.weight, strict=True):
            t = int(self.nodes["type"][n])
            of_type = int(each["types"]) == 1 << t
            if of_type:
                fits = sum(free >= each["milli"] for free in idle) >= each["devices"]
                useful = sum(free for free in idle if free >= each["milli"]) if fits else 0
                total += part * (sum(idle) - useful)
        return total

    def owed_now(self) -> Any:
        demand = np.zeros(len(self.got) + 1)
        for j in self.waiting:
            demand[self.account[j] + 1] += self.jobs["devices"][j] * self.jobs["milli"][j]
        for j, parts in self.parts.items():
            demand[self.account[j] + 1] += sum(len(d) * m for _, d, m in parts)
        accounts = accounts_array(len(demand))
        accounts["parent"][1:] = 0
        up = sum(
            (n, d) not in self.broken
            for n in range(len(self.nodes))
            for d in range(int(self.nodes["gpus"][n]))
            if not self.downs[n]
        )
        return fairness.owed(accounts, up * 1000.0, demand)

    def submit(self, j: int, _line: Any) -> None:
        self.waiting.add(j)

    def start(self, j: int, line: Any) -> None:
        self.waiting.discard(j)
        self.parts[j].append((line["node"], line["devices"], line["milli"]))
        for d in line["devices"]:
            self.free[line["node"]][d] -= line["milli"]

    def end(self, j: int, _line: Any) -> None:
        for n, devices, milli in self.parts.pop(j):
            for d in devices:
                self.free[n][d] += milli

    def preempt(self, j: int, line: Any) -> None:
        self.end(j, line)
        self.waiting.add(j)

    lost = preempt

    def down(self, _j: int, line: Any) -> None:
        if line["device"] < 0:
            self.downs[line["node"]] += 1
        else:
            self.broken.add((line["node"], line["device"]))

    def up(self, _j: int, line: Any) -> None:
        if line["device"] < 0:
            self.downs[line["node"]] -= 1
        else:
            self.broken.discard((line["node"], line["device"]))


@pytest.mark.parametrize("text", ["4x8", "2x4,1x8,3x2"])
@pytest.mark.parametrize("name", ["dusuan", "easy"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_second_reader_of_the_log_agrees(text: str, name: str, seed: int) -> None:
    site, trace = cluster(text), crowd(seed, 80, 12)
    if seed == 2:
        trace = shares(trace, seed)
    trace.jobs["account"] = np.arange(80) % 5
    trace = replace(trace, accounts=tuple("abcde"))
    faults = draw_faults(site.nodes, 40 * HOUR_MS, 300.0, seed)
    outcome = run(site, trace, name, faults=faults)
    second, measured = Second(outcome).read(), outcome.measured
    assert "lost" in {line["kind"] for line in entries(outcome)}
    assert measured.held_s.sum() == pytest.approx(second.held / 1e6)
    assert measured.fragment_s == pytest.approx(second.fragment / 1e6)
    assert measured.got_s == pytest.approx(second.got / 1e6)
    assert measured.owed_s == pytest.approx(second.owed[1:] / 1e6)
    series = measured.series
    span_s = np.diff([*(series.hours * 3600), second.now / 1000])
    assert (series.held * span_s).sum() == pytest.approx(second.held / 1e6)
    assert (series.fragmented * span_s).sum() == pytest.approx(second.fragment / 1e6)


def test_with_many_accounts_shares_owed_are_worked_out_in_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trace = crowd(3, 400)
    trace.jobs["account"] = np.arange(400) % 5
    trace = replace(trace, accounts=tuple("abcde"))
    exact = run(cluster("4x8"), trace).measured
    monkeypatch.setattr("dusuan.sim.measures.COST_MOST", 0)
    stepped = run(cluster("4x8"), trace)
    assert summary(stepped)["share_step_s"] > 0
    assert stepped.measured.got_s == pytest.approx(exact.got_s)
    assert stepped.measured.owed_s == pytest.approx(exact.owed_s, rel=0.05)


def test_rates_of_faults_can_be_given() -> None:
    given = rates_from({"leaf": {"repair_h": 2}, "device": {"per_thousand_days": 0}})
    assert given == replace(
        PUBLISHED,
        leaf=replace(PUBLISHED.leaf, repair_h=2),
        device=Rate(0, PUBLISHED.device.repair_h),
    )
    assert isinstance(given, Rates)
    faults = draw_faults(cluster("100x8").nodes, 365 * 24 * HOUR_MS, 1.0, 1, given)
    assert (faults["device"] < 0).all()
    assert len(faults)
    trace, nodes = crowd(1), cluster("1x1").nodes
    jobs = with_checkpoints(trace.jobs, 1.0, nodes, replace(given, checkpoint_s=240.0))
    twice = with_checkpoints(trace.jobs, 1.0, nodes, given)
    assert jobs["checkpoint_ms"] == pytest.approx(2 * twice["checkpoint_ms"], rel=1e-6)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (3, "bad_rates"),
        ({"devise": {}}, "unknown_rate"),
        ({"device": 3}, "bad_rates"),
        ({"device": {"repair": 3}}, "bad_rates"),
        ({"device": {"repair_h": -1}}, "bad_rates"),
        ({"power_nodes": 0}, "bad_rates"),
        ({"checkpoint_s": "a minute"}, "bad_rates"),
    ],
)
def test_wrong_rates_are_told(wrong: Any, code: str) -> None:
    found = rates_from(wrong)
    assert getattr(found, "code", "") == code
    assert getattr(found, "remedy", "")
