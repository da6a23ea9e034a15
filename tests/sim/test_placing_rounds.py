"""Placement inside rounds: the index decides as a scan does, and as the placement engine alone."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sim.test_pack import cluster, frozen

from dusuan.core.scheduling import accounts, arrays, decide, packing, policy, state
from dusuan.sim import openb
from dusuan.sim.run import Settings, simulate
from dusuan.sim.trace import Site, Trace

MINUTE_MS = 60_000
NOBODY = accounts.accounts_array(1)
pytestmark = pytest.mark.timeout(600)  # the first round compiles the rules

NODES = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 4), st.sampled_from([4_000, 16_000, 64_000]),
        st.sampled_from([1_024, 4_096]), st.integers(0, 2),
    ),
    min_size=1, max_size=9,
)  # fmt: skip
ASKED = st.tuples(
    st.sampled_from([0, 0, 3_152, 11_908]),
    st.sampled_from([0, 64, 1_024]),
    st.sampled_from([arrays.ANY_TYPE, 0b001, 0b110]),
    st.sampled_from([250, 330, 500, 810, 1000, 1000]),
    st.sampled_from([0, 1, 1, 1, 2, 4, 8]),
)
JOBS = st.lists(
    st.tuples(
        ASKED, st.integers(1, 9), st.sampled_from([arrays.ANYWHERE, arrays.SPREAD]),
        st.integers(0, 2), st.booleans(),
    ),
    min_size=1, max_size=14,
)  # fmt: skip
STEPS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8)
RATINGS = st.sampled_from([(0, 0, 0), (312_000, 312_000, 165_000), (1_000, 2_000, 3_000)])


def nodes_of(rows: Any) -> Any:
    nodes = arrays.nodes_array(len(rows))
    for name, column in zip(
        ("type", "gpus", "cpu_milli", "memory_mib", "leaf"), zip(*rows, strict=True), strict=True
    ):
        nodes[name] = column
    return nodes


def jobs_of(rows: Any) -> Any:
    jobs = arrays.jobs_array(len(rows))
    for job, (asked, minutes, topology, tier, stoppable) in zip(jobs, rows, strict=True):
        for name, value in zip(arrays.REQUEST.names or (), asked, strict=True):
            job[name] = value
        job["estimate_ms"] = job["predicted_ms"] = minutes * MINUTE_MS
        job["topology"], job["tier"], job["preemptible"] = topology, tier, stoppable
    return jobs


def steps_of(cluster: Any, rules: Any, steps: Any) -> Any:
    """A decision a step: some come, a round, some leave. The state is compared after each."""
    jobs, now = cluster.jobs, 0
    for come, leave in steps:
        now += MINUTE_MS
        coming = np.flatnonzero(jobs["state"] == arrays.COMING)[:come]
        jobs["state"][coming], jobs["since_ms"][coming] = arrays.WAITING, now
        decide.fill_queue(cluster, rules, now)
        yield decide.decide(cluster, rules, now), cluster.free.tolist(), now
        check_ends(cluster)
        running = np.flatnonzero(jobs["state"] == arrays.RUNNING)
        decide.vacate_all(cluster, rules, running[:leave], now, arrays.ENDED)


def check_ends(cluster: Any) -> None:
    """Who runs is in `ending` once, and in order as far as it says."""
    values = cluster.values[0]
    ending = cluster.ending[: values["running"]]
    assert sorted(ending) == sorted(cluster.running[: values["running"]])
    ends = cluster.jobs["expected_end_ms"][ending[: values["in_order"]]]
    assert (np.diff(ends) >= 0).all()


@pytest.mark.parametrize("count", [0, 1, 2, 30, 1000])
@pytest.mark.parametrize("overdue_s", [0.0, 50.0])
def test_the_queue_is_in_order_however_it_was(count: int, overdue_s: float) -> None:
    draw = np.random.default_rng(count)
    jobs = arrays.jobs_array(count)
    jobs["state"], jobs["tier"] = arrays.WAITING, draw.integers(0, 3, count)
    jobs["predicted_ms"] = draw.integers(1, 40, count)
    jobs["submit_ms"] = jobs["since_ms"] = draw.integers(0, 100_000, count)
    made = state.new_state(nodes_of([(0, 0, 0, 0, 0)]), np.zeros(1, np.int64), jobs, NOBODY)
    parts = policy.PolicyParts("mine", order=("tier", "shortest"), overdue_s=overdue_s)
    decide.fill_queue(made, policy.rules(parts), 100_000)
    decide.decide(made, policy.rules(parts), 100_000)

    def key(j: int) -> Any:
        since = int(jobs["since_ms"][j])
        if overdue_s and 100_000 - since >= 50_000:
            return (0, since, since, j)
        return (1, int(jobs["tier"][j]), int(jobs["predicted_ms"][j]), since, j)

    assert made.queue[: made.values["waiting"][0]].tolist() == sorted(range(count), key=key)


def one_round(nodes: Any, ratings: list[int], minutes: int) -> list[int]:
    """The nodes on which a job of one device, `minutes` long, starts at 0."""
    jobs = jobs_of([((0, 0, arrays.ANY_TYPE, 1000, 1), minutes, arrays.ANYWHERE, 1, False)])
    jobs["state"] = arrays.WAITING
    made = state.new_state(nodes, np.array(ratings), jobs, NOBODY)
    rules = policy.rules(policy.PolicyParts("mine", backfill="skip", placement="dusuan"))
    decide.fill_queue(made, rules, 0)
    starts = decide.decide(made, rules, 0).starts
    return [part.node for _, parts in starts for part in parts]


def test_the_fastest_type_goes_before_the_better_score() -> None:
    nodes = nodes_of([(0, 1, 0, 0, 0), (1, 4, 0, 0, 0)])  # the smaller node would be the fuller
    assert one_round(nodes, [165_000, 312_000], 1) == [1]
    assert one_round(nodes, [312_000, 312_000], 1) == [0]


@pytest.mark.parametrize(("minutes", "found"), [(60, [0]), (61, [])])
def test_a_promised_node_is_given_back_in_time(minutes: int, found: list[int]) -> None:
    nodes = nodes_of([(0, 1, 0, 0, 0)])
    nodes["closes_ms"] = 60 * MINUTE_MS
    assert one_round(nodes, [0], minutes) == found


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(policy.PLACEMENTS)), st.sampled_from(["easy", "conservative", "dusuan"]),
    NODES, JOBS, RATINGS, STEPS, st.sampled_from([1, 1 << 26]), st.booleans(),
)  # fmt: skip
def test_rounds_with_the_index_decide_as_those_that_look_at_all_nodes(
    placement: str, name: str, nodes: Any, jobs: Any, ratings: Any, steps: Any, room: int,
    leases: bool,
) -> None:  # fmt: skip
    rules = policy.rules(replace(policy.POLICIES[name], placement=placement, run_min_s=0.0))
    found = []
    for indexed in (1, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(state, "TREES_BYTES", room)  # for one tree, or for all
            pool = nodes_of(nodes)
            pool["closes_ms"][0] = 5 * MINUTE_MS if leases else arrays.FOREVER_MS
            made = state.new_state(pool, np.array(ratings), jobs_of(jobs), NOBODY)
        assert len(made.trees) == 1 or room > 1
        made.values["indexed"] = indexed
        found.append(list(steps_of(made, rules, steps)))
    assert found[0] == found[1]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(policy.PLACEMENTS)), NODES, st.lists(ASKED, min_size=1, max_size=40))
def test_a_round_chooses_what_the_placement_engine_chooses(
    placement: str, nodes: Any, asked: Any
) -> None:
    asked = [row if row[4] < 2 else (*row[:3], 1000, row[4]) for row in asked if row[4] <= 4]
    jobs = jobs_of([(row, 1, arrays.ANYWHERE, 1, False) for row in asked])
    pool = nodes_of(nodes)
    made = state.new_state(pool, np.zeros(3, np.int64), jobs, NOBODY)
    kinds, popularity = state.kinds_of(jobs)
    hosts = packing.Hosts(pool["type"], pool["gpus"], pool["cpu_milli"], pool["memory_mib"])
    engine = packing.new_packing(hosts, kinds, popularity, placement)
    rules = policy.rules(policy.PolicyParts("mine", backfill="skip", placement=placement))
    for j in range(len(jobs)):
        kind = int(jobs["request"][j])
        made.jobs["state"][j] = arrays.WAITING
        decide.fill_queue(made, rules, 0)
        decided = decide.decide(made, rules, 0)
        best = engine.choose(kind)
        whole_nodes = best < 0 and decided.starts and len(decided.starts[0][1]) > 1
        if whole_nodes:  # a gang that no node holds
            return
        assert [part.node for _, parts in decided.starts for part in parts] == [best][: best >= 0]
        made.jobs["state"][j] = arrays.RUNNING if decided.starts else arrays.REJECTED
        if best >= 0:
            engine.take(best, kind)
            assert made.free.tolist() == engine.state.free.tolist(), "and the same devices"


def allocated_milli(nodes: openb.NodeList, pods: openb.PodList, placement: str, seed: int) -> int:
    """What is allocated after pods for 130 % of the devices came one by one, none to leave."""
    draw = np.random.default_rng(seed)
    kinds = draw.choice(pods.pods, 1000)
    asked = np.cumsum(pods.milli[kinds])
    kinds = kinds[: int(np.searchsorted(asked, 1.3 * nodes.hosts.capacity_milli))]
    jobs = arrays.jobs_array(len(kinds))
    for name in arrays.REQUEST.names or ():
        jobs[name] = pods.requests[name][kinds]
    jobs["submit_ms"] = np.arange(len(kinds)) * 1000
    jobs["run_ms"] = jobs["estimate_ms"] = 10**9
    site = Site(nodes.hosts.nodes(), nodes.models, np.zeros(len(nodes.models), np.int64))
    chosen = policy.PolicyParts("mine", backfill="skip", placement=placement)
    trace = Trace(jobs, tuple(f"j{i}" for i in range(len(jobs))))
    lines = simulate(site, trace, Settings(chosen, "user", log=True), frozen).lines
    early = lines[(lines["kind"] == arrays.START) & (lines["time_ms"] < 10**9)]
    devices = np.array([int(bits).bit_count() for bits in early["devices"]], np.int64)
    return int((devices * early["milli"]).sum())


def test_a_simulated_cluster_of_shares_fragments_less_by_worth_than_by_best_fit(
    tmp_path: Path,
) -> None:
    mean = {
        placement: statistics.mean(
            allocated_milli(*cluster(tmp_path, seed), placement, seed) for seed in range(6)
        )
        for placement in ("dusuan", "fgd", "best-fit", "spread")
    }
    assert mean["dusuan"] > mean["fgd"] > mean["best-fit"] > mean["spread"]


def test_whole_devices_without_cpu_fill_the_fullest_node_that_holds_them() -> None:
    jobs = jobs_of([((0, 0, arrays.ANY_TYPE, 1000, n), 1, 0, 1, False) for n in (2, 3, 1, 1)])
    pool = nodes_of([(0, gpus, 0, 0, 0) for gpus in (4, 4, 2)])
    made = state.new_state(pool, np.zeros(1, np.int64), jobs, NOBODY)
    made.jobs["state"] = arrays.WAITING
    rules = policy.rules(policy.PolicyParts("mine", placement="dusuan"))
    decide.fill_queue(made, rules, 0)
    found = decide.decide(made, rules, 0).starts
    assert [parts[0].node for _, parts in found] == [2, 0, 0, 1]
