"""Gangs that keep together or spread, in every kind of round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dusuan.core.scheduling import accounts, arrays, decide, policy
from dusuan.core.scheduling import state as state_of

HOUR_MS = 3_600_000
pytestmark = pytest.mark.timeout(600)  # the first round compiles the rules


def leaves_of(decision: decide.Decision, leaf: list[int]) -> dict[int, list[int]]:
    return {j: [leaf[part.node] for part in parts] for j, parts in decision.starts}


def round_of(jobs: list[tuple[int, int]], leaf: list[int], name: str = "easy") -> Any:
    """One round: `jobs` are (devices, topology) on nodes of four devices, `leaf[i]` of node i."""
    nodes = arrays.nodes_array(len(leaf))
    nodes["gpus"], nodes["leaf"] = 4, leaf
    nodes["domain"] = leaf
    asked = arrays.jobs_array(len(jobs))
    for i, (devices, topology) in enumerate(jobs):
        asked["devices"][i], asked["topology"][i], asked["submit_ms"][i] = devices, topology, i
    for field in ("run_ms", "estimate_ms", "predicted_ms"):
        asked[field] = HOUR_MS
    state = state_of.new_state(nodes, np.array([312_000]), asked, accounts.accounts_array(1))
    state.jobs["state"] = arrays.WAITING
    found = policy.named(name)
    assert isinstance(found, policy.PolicyParts)
    rules = policy.rules(found, "user")
    decide.fill_queue(state, rules, 100)
    return decide.decide(state, rules, 100)


@pytest.mark.parametrize("wish", [arrays.SAME_LEAF, arrays.SAME_DOMAIN])
@pytest.mark.parametrize("name", ["easy", "conservative"])
def test_a_gang_stays_together(wish: int, name: str) -> None:
    # Leaf 70 has room for three nodes, leaf 9 for two: the gang of two takes the tighter one.
    leaf = [70, 9, 70, 9, 70]
    found = leaves_of(round_of([(8, wish), (12, wish)], leaf, name), leaf)
    if name == "easy":
        assert found == {0: [9, 9], 1: [70, 70, 70]}
    assert all(len(set(each)) == 1 for each in found.values()) and 0 in found


@pytest.mark.parametrize("name", ["easy", "conservative", "dusuan"])
def test_a_gang_that_finds_no_room_together_waits_though_enough_is_free(name: str) -> None:
    leaf = [0, 0, 1, 1]
    first = (4, arrays.ANYWHERE)
    found = round_of([first, (8, arrays.SAME_LEAF), (8, arrays.SAME_LEAF)], leaf, name)
    assert set(leaves_of(found, leaf)) == {0, 1} and [j for j, _ in found.waits] == [2]


def test_a_gang_spreads_over_leaves() -> None:
    leaf = [0, 0, 0, 1, 1, 1]
    found = leaves_of(round_of([(16, arrays.SPREAD)], leaf), leaf)
    assert sorted(found[0]) == [0, 0, 1, 1]


def test_single_jobs_spread_over_nodes() -> None:
    found = round_of([(1, arrays.SPREAD)] * 3 + [(1, arrays.ANYWHERE)], [0, 0, 0])
    nodes = [parts[0].node for _, parts in found.starts]
    assert sorted(nodes[:3]) == [0, 1, 2]


@pytest.mark.parametrize(("cpu_milli", "starts"), [(2, 0), (3, 1)])
def test_a_gangs_part_of_the_cpu_is_rounded_up_on_every_node(cpu_milli: int, starts: int) -> None:
    """Four devices with 5 milli of CPU: a node of two has to give 3."""
    nodes, jobs = arrays.nodes_array(2), arrays.jobs_array(1)
    nodes["gpus"], nodes["cpu_milli"] = 2, cpu_milli
    jobs["devices"], jobs["cpu_milli"], jobs["predicted_ms"] = 4, 5, HOUR_MS
    state = state_of.new_state(nodes, np.array([312_000]), jobs, accounts.accounts_array(1))
    state.jobs["state"] = arrays.WAITING
    rules = policy.rules(policy.PolicyParts("mine", backfill="skip"))
    decide.fill_queue(state, rules, 100)
    assert len(decide.decide(state, rules, 100).starts) == starts
