"""How well requests are placed, and how fast accounts are served; JSON lines.

The lists of the FGD paper are found through `DUSUAN_SHARED` or in `shared` beside the checkout;
without them only what needs no trace is measured. `--bound` adds an upper bound by a linear
program: what any rule can reach that, as ours, turns nobody away before ours does.

    python bench/placement.py [--seeds 10] [--repeats 3] [--bound] [--made]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linprog

from dusuan.core.scheduling import fairness
from dusuan.core.scheduling.accounts import accounts_array
from dusuan.core.workload.jobspec import Problem
from dusuan.sim import openb, pack

LISTS = ("default", "cpu050", "cpu200", "gpushare40", "gpuspec10", "multigpu20")
SHARED = Path(os.environ.get("DUSUAN_SHARED", Path(__file__).parents[2] / "shared"))
QUEUES, JOBS, ACCOUNTS = 1_000, 50_000, 100_000
KUEUE_PER_S = 42.0  # workloads admitted a second in Kueue's own performance run


def say(**row: Any) -> None:
    print(json.dumps(row), flush=True)


def published() -> dict[str, float]:
    """FGD's allocation at 130 % of demand, by list (Weng et al., USENIX ATC 2023)."""
    with (SHARED / "facts" / "fgd_published.csv").open() as file:
        return {
            row["pod_list"].removeprefix("openb_pod_list_"): float(row["gpu_allocated_pct_at_130"])
            for row in csv.DictReader(file)
            if row["policy"] == "06-FGD"
        }


def allocation(seeds: int, bound: bool) -> None:
    """Allocation on every list, by `fgd` and by `dusuan`."""
    traces, known = SHARED / "traces", published()
    nodes = openb.read_nodes(traces / "openb_node_list_gpu_node.csv")
    assert not isinstance(nodes, Problem)
    for name in LISTS:
        pods = openb.read_pods(traces / f"openb_pod_list_{name}.csv", nodes.models)
        assert not isinstance(pods, Problem)
        packed(nodes, pods, seeds, list=name, published_fgd=known[name])
        if bound:
            say(measured="upper bound", list=name, seed=0, gpu_allocated_pct=most(nodes, pods, 0))


def packed(nodes: openb.NodeList, pods: openb.PodList, seeds: int, **about: Any) -> None:
    """A row for each of the two rules: means over the seeds."""
    for packer in ("fgd", "dusuan"):
        runs = [
            pack.pack(nodes, pods, packer, 1.3, seed, time.perf_counter)[0] for seed in range(seeds)
        ]
        shares = [run.gpu_allocated_pct for run in runs]
        say(
            measured="sim pack", policy=packer, seeds=seeds, **about,
            gpu_allocated_pct_at_100=statistics.mean(run.gpu_allocated_pct_at_100 for run in runs),
            gpu_allocated_pct=statistics.mean(shares), sd=statistics.pstdev(shares),
        )  # fmt: skip


def made_up(seeds: int) -> None:
    """The same on lists that nobody published, made from the default one."""
    traces = SHARED / "traces"
    nodes = openb.read_nodes(traces / "openb_node_list_gpu_node.csv")
    assert not isinstance(nodes, Problem)
    pods = openb.read_pods(traces / "openb_pod_list_default.csv", nodes.models)
    assert not isinstance(pods, Problem)
    asked = pods.requests
    share, gang = (asked["devices"] == 1) & (asked["milli"] < 1_000), asked["devices"] > 1
    for times in (2, 3):
        requests = asked.copy()
        requests["cpu_milli"] *= times
        packed(nodes, replace(pods, requests=requests), seeds, list=f"{times} times the CPU")
    alone = np.flatnonzero(asked["devices"][pods.pods] == 0)
    more = np.concatenate([pods.pods, *[pods.pods[alone]] * 3])
    packed(nodes, replace(pods, pods=more), seeds, list="4 times those for CPU alone")
    for name, flags, part in (("shares", share, 0.8), ("gangs", gang, 0.4), ("gangs", gang, 0.6)):
        drawn = replace(pods, pods=redrawn(pods, flags, part))
        packed(nodes, drawn, seeds, list=f"{part:.0%} {name}")


def redrawn(pods: openb.PodList, flags: Any, part: float) -> Any:
    """8,000 pods drawn by chance, of which `part` are of the kinds that the flags say."""
    draw, those = np.random.default_rng(0), flags[pods.pods]
    groups = pods.pods[those], pods.pods[~those]
    return np.concatenate([
        draw.choice(group, round(8_000 * each))
        for group, each in zip(groups, (part, 1 - part), strict=True)
    ])  # fmt: skip


def patterns(sizes: list[int], room: int = 1_000) -> Iterator[tuple[int, ...]]:
    """Every set of shares that leaves no room for one more of the smallest."""
    if len(sizes) == 1:
        yield (room // sizes[0],)
        return
    for count in range(room // sizes[-1] + 1):
        for rest in patterns(sizes[:-1], room - count * sizes[-1]):
            yield (*rest, count)


def most(nodes: openb.NodeList, pods: openb.PodList, seed: int) -> float:
    """An upper bound for rules that, as `dusuan`, turn nobody away before `dusuan` does.

    Those who came before are in; of those who came later, the best ones are, and fractions of
    them. Devices hold any set of shares that fits; nodes, CPU and memory are no limit.
    """
    _, log = pack.pack(nodes, pods, "dusuan", 1.3, seed, time.perf_counter)
    share = (pods.requests["devices"] == 1) & (pods.requests["milli"] < 1_000)
    first = int(np.flatnonzero((log.nodes < 0) & (pods.milli[log.kinds] > 0))[0])
    sizes = np.unique(pods.requests["milli"][share])
    before, after = log.kinds[:first], log.kinds[first:]

    def count(kinds: Any) -> Any:
        return np.array([(pods.requests["milli"][kinds[share[kinds]]] == s).sum() for s in sizes])

    def whole(kinds: Any) -> float:
        return float((pods.milli * ~share)[kinds].sum() / 1_000)

    devices = nodes.hosts.capacity_milli / 1_000
    later = linear_program(
        np.array(list(patterns(sizes.tolist()))).T, sizes / 1_000, count(before), count(after),
        devices - whole(before), whole(after),
    )  # fmt: skip
    return round(100 * (float(pods.milli[before].sum()) / 1_000 + later) / devices, 4)


def linear_program(
    held: Any, sizes: Any, must: Any, may: Any, devices: float, whole: float
) -> float:
    """The most that can be added. Variables: devices by pattern, shares by size, whole ones."""
    shares, ways = held.shape
    limits = np.zeros((shares + 1, ways + shares + 1))
    limits[:shares, :ways], limits[:shares, ways:-1] = -held, np.eye(shares)
    limits[shares, :ways], limits[shares, -1] = 1, 1
    found = linprog(
        np.concatenate([np.zeros(ways), -sizes, [-1.0]]),
        A_ub=limits,
        b_ub=np.concatenate([-must, [devices]]),
        bounds=[(0, None)] * ways + [(0, each) for each in may] + [(0, whole)],
    )
    return float(-found.fun)


def tree(organisations: int, count: int, draw: np.random.Generator) -> Any:
    """A pool, `organisations` in it, and `count` accounts in them, with weights."""
    accounts = accounts_array(1 + organisations + count)
    accounts["parent"][1 : 1 + organisations] = 0
    accounts["parent"][1 + organisations :] = 1 + np.arange(count) * organisations // count
    accounts["weight"] = draw.integers(1, 5, len(accounts))
    return accounts


def admission(repeats: int) -> None:
    """50,000 jobs in 1,000 queues: all are admitted, in fair order and within quotas."""
    from dusuan.core.scheduling.kernels import fairness as kernels

    draw = np.random.default_rng(0)
    accounts = tree(10, QUEUES, draw)
    jobs = np.zeros(JOBS, fairness.QUEUED)
    jobs["account"] = np.sort(draw.integers(11, len(accounts), JOBS))
    jobs["milli"] = draw.choice([250, 500, 1_000, 2_000, 8_000], JOBS)
    pool = int(jobs["milli"].sum())
    accounts["quota_milli"][1:11], accounts["quota_milli"][11:] = pool // 10, pool // QUEUES

    def admit() -> float:
        shares, out = fairness.new_shares(accounts, (pool, 1, 1)), np.empty(JOBS, np.int64)
        began = time.perf_counter()
        kernels.open_queues(shares.record, jobs)
        count = kernels.admit(shares.record, jobs, pool, 1.0, out)
        wall_s = time.perf_counter() - began
        assert count == JOBS
        return JOBS / wall_s

    admit()  # compiles
    per_s = statistics.median(admit() for _ in range(repeats))
    say(measured="admission", jobs=JOBS, queues=QUEUES, jobs_per_s=round(per_s), kueue=KUEUE_PER_S)


def fair_share(repeats: int) -> None:
    """The fair order of 100,000 accounts, and what each is owed."""
    draw = np.random.default_rng(0)
    shares = fairness.new_shares(tree(1_000, ACCOUNTS - 1_001, draw), (10**8, 10**9, 10**9))
    shares.use[:] = draw.random(shares.use.shape) * 1e6
    demand = draw.random(ACCOUNTS) * 2_000
    for name, run in (
        ("fair order", lambda: fairness.fair_order(shares)),
        ("share owed", lambda: fairness.owed(shares.accounts, 5e7, demand)),
    ):
        say(
            measured=name, accounts=ACCOUNTS,
            ms=round(timed(run, repeats, time.perf_counter) * 1_000, 2),
            cpu_ms=round(timed(run, repeats, time.process_time) * 1_000, 2),
        )  # fmt: skip


def timed(run: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """Median seconds, after a first run that compiles."""
    took = []
    for _ in range(repeats + 1):
        began = clock()
        run()
        took.append(clock() - began)
    return statistics.median(took[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bound", action="store_true")
    parser.add_argument("--made", action="store_true", help="lists that nobody published too")
    given = parser.parse_args()
    if (SHARED / "traces").is_dir():
        allocation(given.seeds, given.bound)
        if given.made:
            made_up(given.seeds)
    admission(given.repeats)
    fair_share(max(given.repeats, 9))


if __name__ == "__main__":
    main()
