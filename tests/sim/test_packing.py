"""Placement: the index decides as a scan does, scores are what they say, nothing is oversubscribed.

The auditor below reads only the log of decisions, and works everything out anew in plain Python.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from dusuan.core.scheduling import packing
from dusuan.core.scheduling.arrays import REQUEST
from dusuan.core.scheduling.kernels.score import UNFIT
from dusuan.core.scheduling.policy import PLACEMENTS
from dusuan.core.scheduling.typical import cpu_need, device_worth, prices, typical_requests

CPU, MEMORY = 64_000, 4_096


def hosts(types: Sequence[int], devices: Sequence[int], cpu: Sequence[int]) -> packing.Hosts:
    return packing.Hosts(
        np.array(types, np.int32),
        np.array(devices, np.int32),
        np.array(cpu, np.int64),
        np.full(len(types), MEMORY, np.int64),
    )


def requests(rows: Sequence[tuple[int, int, int, int, int]]) -> Any:
    found = np.zeros(len(rows), REQUEST)
    for i, (cpu, memory, types, milli, devices) in enumerate(rows):
        found[i] = (cpu, memory, types, milli, devices)
    return found


class Auditor:
    """Keeps its own books of what is free, from the log alone."""

    def __init__(self, nodes: packing.Hosts, kinds: Any) -> None:
        self.nodes, self.kinds = nodes, kinds
        self.free = [[1000] * int(count) for count in nodes.devices]
        self.cpu, self.memory = nodes.cpu_milli.tolist(), nodes.memory_mib.tolist()

    def fits(self, n: int, s: int) -> bool:
        r = self.kinds[s]
        room = sum(1 for free in self.free[n] if free >= r["milli"])
        return bool(
            self.cpu[n] >= r["cpu_milli"]
            and self.memory[n] >= r["memory_mib"]
            and int(r["types"]) >> int(self.nodes.type[n]) & 1
            and room >= r["devices"]
        )

    def move(self, s: int, n: int, bits: int, sign: int) -> None:
        """A request takes (1) or gives back (-1) its part of a node."""
        r = self.kinds[s]
        held = [d for d in range(len(self.free[n])) if int(bits) >> d & 1]
        assert len(held) == int(bits).bit_count() == r["devices"], "a gang is whole, on its node"
        assert int(r["types"]) >> int(self.nodes.type[n]) & 1, "on a type that it accepts"
        for d in held:
            self.free[n][d] -= sign * int(r["milli"])
            assert 0 <= self.free[n][d] <= 1000
        self.cpu[n] -= sign * int(r["cpu_milli"])
        self.memory[n] -= sign * int(r["memory_mib"])
        assert 0 <= self.cpu[n] <= self.nodes.cpu_milli[n]
        assert 0 <= self.memory[n] <= self.nodes.memory_mib[n]


REQUESTS = st.lists(
    st.tuples(
        st.sampled_from([0, 1_000, 3_152, 8_000, 11_908, 32_000]),
        st.sampled_from([0, 64, 1_024, 3_000]),
        st.sampled_from([0b11, 0b01, 0b10]),
        st.sampled_from([110, 250, 330, 470, 500, 650, 810, 1000]),
        st.sampled_from([0, 1, 1, 1, 2, 4]),
    ).map(lambda row: (*row[:3], row[3] if row[4] < 2 else 1000, row[4])),
    min_size=1,
    max_size=8,
)
NODES = st.lists(
    st.tuples(st.sampled_from([0, 1]), st.integers(0, 4), st.sampled_from([4_000, 16_000, CPU])),
    min_size=1,
    max_size=9,
)
STEPS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), max_size=60)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(PLACEMENTS)), NODES, REQUESTS, STEPS)
def test_the_index_decides_as_a_scan_and_the_books_stay_right(
    packer: str, nodes: Any, rows: Any, steps: Any
) -> None:
    cluster, kinds = hosts(*zip(*nodes, strict=True)), requests(rows)
    p = packing.new_packing(cluster, kinds, np.ones(len(kinds), np.int64), packer)
    auditor, held = Auditor(cluster, kinds), []
    for draw, leave in steps:
        s = draw % len(kinds)
        if leave == 0 and held:
            kind, n, bits = held.pop(draw % len(held))
            p.give_back(n, kind, bits)
            auditor.move(kind, n, bits, -1)
            continue
        n = p.choose(s)
        assert n == p.scan(s)
        assert (n >= 0) == any(auditor.fits(node, s) for node in range(len(nodes)))
        if n >= 0:
            bits = p.take(n, s)
            auditor.move(s, n, bits, 1)
            held.append((s, n, bits))
    assert p.state.nodes["cpu_free_milli"].tolist() == auditor.cpu
    assert [
        p.state.free[n, : len(free)].tolist() for n, free in enumerate(auditor.free)
    ] == auditor.free


def test_more_changes_than_the_ring_holds_rebuild_the_tree() -> None:
    kinds = requests([(0, 0, 1, 500, 1), (0, 0, 1, 250, 1)])
    p = packing.new_packing(hosts([0] * 3, [1] * 3, [CPU] * 3), kinds, np.ones(2, np.int64), "fgd")
    assert p.choose(1) == 0
    for _ in range(2 * p.state.changes.shape[1]):
        p.give_back(0, 0, p.take(0, 0))
    p.take(0, 0)
    assert p.choose(1) == p.scan(1)


def fragmentation(free: list[int], cpu: int, typical: Any, weight: Any, kind: int) -> float:
    """The published definition: idle milli that a typical request cannot use, in expectation."""
    total = 0.0
    for r, part in zip(typical, weight, strict=True):
        fitting = sum(1 for each in free if each >= r["milli"])
        able = r["devices"] > 0 and int(r["types"]) >> kind & 1
        if able and fitting >= r["devices"] and cpu >= r["cpu_milli"]:
            total += part * sum(each for each in free if each < r["milli"])
        else:
            total += part * sum(free)
    return total


def published_score(p: Any, cluster: Any, n: int, s: int, typical: Any, weight: Any) -> int:
    free = p.state.free[n, : cluster.devices[n]].tolist()
    kind, cpu, r = int(cluster.type[n]), int(p.state.nodes["cpu_free_milli"][n]), p.requests[s]
    before = fragmentation(free, cpu, typical, weight, kind)
    afters = []
    if r["devices"] == 1:
        for d, each in enumerate(free):
            if each >= r["milli"]:
                afters.append([*free[:d], each - int(r["milli"]), *free[d + 1 :]])
    else:
        left, missing = list(free), int(r["devices"])
        for d, each in enumerate(free):
            if missing and each == 1000:
                left[d], missing = 0, missing - 1
        afters.append(left)
    return max(
        int(100 / (1 + math.exp(-(before - fragmentation(after, cpu - int(r["cpu_milli"]),
            typical, weight, kind)) / 1000)))
        for after in afters
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(NODES, REQUESTS, STEPS)
def test_fgd_scores_are_the_published_ones(nodes: Any, rows: Any, steps: Any) -> None:
    cluster, kinds = hosts(*zip(*nodes, strict=True)), requests(rows)
    popularity = np.arange(1, len(kinds) + 1)
    p = packing.new_packing(cluster, kinds, popularity, "fgd")
    typical, weight = typical_requests(kinds, popularity)
    for draw, _ in steps[:12]:
        s = draw % len(kinds)
        for n in range(len(nodes)):
            score, _ = p.evaluate(n, s)
            if score != UNFIT:
                exact = published_score(p, cluster, n, s, typical, weight)
                assert abs(score - exact) <= 1  # sums in another order may truncate differently
        n = p.choose(s)
        if n >= 0:
            p.take(n, s)


SIZES = st.lists(st.integers(20, 999), min_size=1, max_size=6, unique=True).map(sorted)


def patterns(sizes: Sequence[int], room: int = 1000) -> Iterator[tuple[int, ...]]:
    if not sizes:
        yield ()
        return
    for count in range(room // sizes[0] + 1):
        for rest in patterns(sizes[1:], room - count * sizes[0]):
            yield (count, *rest)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(90, 999), min_size=1, max_size=5, unique=True).map(sorted), st.data())
def test_prices_are_the_dual_of_cutting_stock(sizes: list[int], data: st.DataObject) -> None:
    demand = np.array([data.draw(st.integers(1, 50)) for _ in sizes], float)
    price = prices(np.array(sizes, np.int32), demand)
    all_patterns = np.array(list(patterns(sizes)), float)
    assert (all_patterns @ price).max() <= 1 + 1e-6, "no device holds more than it is worth"
    least = linprog(np.ones(len(all_patterns)), A_ub=-all_patterns.T, b_ub=-demand).fun
    assert demand @ price == pytest.approx(least, rel=1e-6)


@given(SIZES)
@settings(max_examples=30, deadline=None)
def test_a_device_is_worth_no_more_in_parts(sizes: list[int]) -> None:
    rows = [(0, 0, 1, size, 1) for size in sizes]
    worth = device_worth(requests(rows), np.full(len(rows), 1 / len(rows)))
    assert worth[0] == 0 and worth[1000] == 1 and (np.diff(worth) >= -1e-9).all()
    for a in range(0, 1001, 37):
        assert worth[a] + worth[1000 - a] <= 1 + 1e-9


def test_typical_requests_are_the_popular_ones() -> None:
    kinds = requests([(1_000, 0, 1, 500, 1), (1_000, 9, 1, 500, 1), (2_000, 0, 1, 1000, 1),
                      (3_000, 0, 1, 1000, 1)])  # fmt: skip
    typical, weight = typical_requests(kinds, np.array([40, 20, 37, 3]))
    assert typical["cpu_milli"].tolist() == [1_000, 2_000], "memory sets no kinds apart"
    assert [Fraction(w).limit_denominator(1000) for w in weight] == [
        Fraction(60, 97),
        Fraction(37, 97),
    ]
    every = typical["devices"] > 0
    assert cpu_need(typical, weight, every) == pytest.approx((60 * 1000 + 37 * 2000) / (30 + 37))
    assert cpu_need(typical, weight, typical["milli"] == 500) == pytest.approx(60 * 1000 / 67)


def test_dusuan_keeps_cpu_for_the_devices_that_need_it() -> None:
    # A request with much CPU goes where CPU is plenty, one with little where it is scarce.
    kinds = requests([(8_000, 0, 1, 1000, 1), (20_000, 0, 1, 1000, 1), (1_000, 0, 1, 1000, 1)])
    cluster = hosts([0, 0], [4, 4], [32_000, 200_000])
    p = packing.new_packing(cluster, kinds, np.array([98, 1, 1]), "dusuan")
    assert p.choose(1) == 1
    assert p.choose(2) == 0


@pytest.mark.parametrize("cores", [0, 20])
def test_no_node_runs_out_of_cpu_while_its_devices_are_idle(cores: int) -> None:
    # Devices need half of all CPU, and what asks for CPU alone is what makes it scarce.
    kinds = requests([(8_000, 0, 1, 1000, 1), (cores * 1_000, 0, 1, 0, 0)])
    cluster = hosts([0, 0], [4, 4], [64_000, 64_000])
    p = packing.new_packing(cluster, kinds, np.array([50, 50]), "dusuan")
    assert bool(p.state.values["cpu_scarce"][0]) is (cores == 20)
    p.take(0, 0)
    assert p.choose(0) == (1 if cores else 0)
    assert p.scan(0) == p.choose(0)


def test_several_devices_are_asked_whole() -> None:
    with pytest.raises(ValueError, match="whole"):
        packing.new_packing(
            hosts([0], [2], [CPU]), requests([(0, 0, 1, 500, 2)]), np.ones(1, np.int64)
        )
