"""A new `State`: the arrays that a round works on, from nodes, jobs and accounts."""

from __future__ import annotations

from typing import Any

import numpy as np

from dusuan.core.scheduling.accounts import (
    RESOURCES,
    accounts_array,
    has_limits,
    rooted,
    with_guarantees,
)
from dusuan.core.scheduling.arrays import (
    ARRAYS,
    DEVICES_PER_NODE_MAX,
    FOREVER_MS,
    HOLDING,
    KEYS,
    LINE,
    REQUEST,
    STATE,
    TREE,
    TYPE,
    TYPES_MAX,
    WHOLE,
    Integers,
    Records,
    State,
)
from dusuan.core.scheduling.typical import (
    cpu_need,
    device_worth,
    fragmentation_tables,
    typical_requests,
)

TREES_BYTES = 1 << 26  # of scores at most; taken only as trees are used
_CODES_MAX = 1 << 40
Arrays = dict[str, Any]


def new_state(
    nodes: Records,
    ratings_gflops: Integers,
    jobs: Records,
    accounts: Records,
    kinds: tuple[Records, Integers] | None = None,
) -> State:
    """An idle cluster with nobody in its queue. `ratings_gflops` is per device type.

    `kinds` are kinds of request and how popular each is, where jobs do not tell. Arrays are
    copied. `accounts` may be in any order, without a pool above them (`accounts.rooted`). Raises
    `ValueError` for a cluster that the arrays cannot hold, and for accounts that are no tree.
    """
    _check(nodes, ratings_gflops)
    nodes, jobs = nodes.copy(), jobs.copy()
    requests, popularity = kinds if kinds is not None else kinds_of(jobs)
    work = np.zeros(max(len(requests), 1), np.int64)
    if kinds is None:
        work[jobs["request"]] = jobs["gflops"]
    types = _types(nodes, ratings_gflops)
    pool = _pool(nodes, types)
    fewest, most = _amounts(jobs, types)
    books = _books(accounts, jobs, nodes)
    arrays = pool | books | _work(nodes, jobs, most) | _index(types, requests) | {"work": work}
    values = np.zeros(1, STATE)
    outlook = _outlook(values, requests, popularity, nodes, types)
    state = State(jobs=jobs, values=values, **arrays, **outlook)
    _fill_in(state, fewest)
    _size_up(state)
    return state


def _books(accounts: Records, jobs: Records, nodes: Records) -> Arrays:
    """The tree of accounts with a pool above all, and what they have used: nothing."""
    tree, places = rooted(accounts if len(accounts) else accounts_array(1))
    jobs["account"] = places[jobs["account"]]
    return {
        "accounts": with_guarantees(tree, int(nodes["gpus"].sum()) * WHOLE),
        "places": places,
        "use": np.zeros((len(tree), RESOURCES)),
        "using": np.zeros((len(tree), RESOURCES)),
        "chosen": np.zeros(2 * max(len(jobs), 1), np.int64),
    }


def _size_up(state: State) -> None:
    """What the pool holds, in the units of use, and whether quotas have to be looked at."""
    values, nodes, rating = state.values, state.nodes, state.types["rating_gflops"]
    unrated = int(rating[rating > 0].min(initial=FOREVER_MS)) if (rating > 0).any() else 1
    gflops = np.where(rating > 0, rating, unrated).astype(np.float64)[nodes["type"]]
    values["unrated_gflops"] = unrated
    values["pool_devices"] = max(float((nodes["gpus"] * gflops).sum()), 1.0)
    values["pool_cpu"] = max(int(nodes["cpu_milli"].sum()), 1)
    values["pool_memory"] = max(int(nodes["memory_mib"].sum()), 1)
    values["limits"] = has_limits(state.accounts)


def _check(nodes: Records, ratings_gflops: Integers) -> None:
    if len(nodes) and nodes["gpus"].max() > DEVICES_PER_NODE_MAX:
        raise ValueError(f"a node has more than {DEVICES_PER_NODE_MAX} devices")
    if len(ratings_gflops) > TYPES_MAX:
        raise ValueError(f"more than {TYPES_MAX} device types")


def kinds_of(jobs: Records) -> tuple[Records, Integers]:
    """The kinds of request that jobs are of, and how many jobs are of each; notes it with them."""
    code, count = np.zeros(len(jobs), np.int64), 1
    for name in (*(REQUEST.names or ()), "gflops"):
        column = jobs[name]
        if len(jobs) and column.min() != column.max():
            values, each = np.unique(column, return_inverse=True)
            if count * len(values) > _CODES_MAX:
                seen, code = np.unique(code, return_inverse=True)
                count = len(seen)
            code, count = code * len(values) + each, count * len(values)
    _, first, kind, popularity = np.unique(code, True, True, True)
    jobs["request"] = kind
    requests = np.zeros(len(first), REQUEST)
    for name in REQUEST.names or ():
        requests[name] = jobs[name][first]
    return requests, popularity.astype(np.int64)


def _amounts(jobs: Records, types: Records) -> tuple[Integers, Integers]:
    """[J] the fewest and the most devices that each job takes of any type: `kernels.amounts`."""
    rated = types["rating_gflops"][types["rating_gflops"] > 0]
    fewest, most, asks = jobs["devices"].copy(), jobs["devices"].copy(), jobs["gflops"] > 0
    if len(rated):
        work = jobs["gflops"][asks]
        fewest[asks] = np.minimum(fewest[asks], -(-work // rated.max()))
        most[asks] = np.maximum(most[asks], -(-work // rated.min()))
    return fewest, most


def _pool(nodes: Records, types: Records) -> Arrays:
    """The nodes as they are free now and at the reserved moment."""
    for name in ("domain", "leaf"):  # as numbers below the count of nodes
        nodes[name] = np.unique(nodes[name], return_inverse=True)[1]
    free = _all_free(nodes)
    of_type = np.argsort(nodes["type"], kind="stable").astype(np.int64)
    nodes["place"][of_type] = np.arange(len(nodes)) - types["first"][nodes["type"][of_type]]
    idle = np.bincount(nodes["gpus"], minlength=DEVICES_PER_NODE_MAX + 1).astype(np.int64)
    return {
        **{"nodes": nodes, "types": types, "free": free, "of_type": of_type, "idle": idle},
        **{"later": free.copy(), "later_nodes": nodes.copy()},
        "seen": np.zeros(max(len(nodes), 1), np.int64),
        "marks": np.zeros(max(len(nodes), 1), np.int64),
        "picks": np.zeros(len(nodes) + 1, HOLDING),
    }


def _work(nodes: Records, jobs: Records, most: Integers) -> Arrays:
    """Who waits, who runs, and what they hold."""
    holdings, size = _holdings(nodes, jobs, most), max(len(jobs), 1)
    return {
        "holdings": holdings,
        "keys": np.zeros((size, KEYS)),
        **{name: np.zeros(size, np.int64) for name in ("queue", "running", "ending")},
        "lines": np.zeros(3 * len(holdings) + 2 * TYPES_MAX, LINE),
        "history": np.zeros((int(jobs["group"].max(initial=0)) + 1, 3), np.int64),
        "scratch": np.zeros(max(len(nodes), size, DEVICES_PER_NODE_MAX), np.int64),
    }


def _index(types: Records, requests: Records) -> Arrays:
    """Room for trees of scores: of every kind of request on every type, where that is not much."""
    leaves = _power_of_two(int(types["nodes"].max(initial=1)))
    wanted, most = 2 * len(requests) * len(types), TREES_BYTES // (8 * leaves)
    trees = np.zeros(max(min(wanted, most), 1), TREE)
    trees["key"] = -1
    return {
        "requests": requests.copy(),
        "trees": trees,
        "scores": np.zeros((len(trees), 2 * leaves), np.int32),
        "changes": np.zeros((len(types), max(leaves, 64)), np.int64),
    }


def _power_of_two(least: int) -> int:
    return 1 << max(least - 1, 0).bit_length()


def _outlook(
    values: Records, requests: Records, popularity: Integers, nodes: Records, types: Records
) -> Arrays:
    """What the requests to come make of an idle device."""
    typical, weight = typical_requests(requests, popularity)
    width = max(int(nodes["gpus"].max(initial=1)), 1)
    steps, level, alone, together = fragmentation_tables(typical, weight, len(types), width)
    values["cpu_per_device"] = cpu_need(typical, weight, typical["devices"] > 0)
    every = cpu_need(typical, weight, typical["devices"] >= 0)
    values["cpu_scarce"] = nodes["gpus"].sum() * every > nodes["cpu_milli"].sum()
    worth = device_worth(typical, weight)
    return {"worth": worth, "level": level, "steps": steps, "alone": alone, "together": together}


def _fill_in(state: State, fewest: Integers) -> None:
    """The values that compiled code needs beside the arrays."""
    values, jobs = state.values, state.jobs
    for name in ARRAYS:
        values[f"{name}_at"] = getattr(state, name).ctypes.data
    for name in ("nodes", "types", "jobs", "accounts", "lines", "requests", "trees", "steps"):
        values[name] = len(getattr(state, name))
    values["width"], values["levels"] = state.free.shape[1], state.alone.shape[2]
    values["leaves"], values["ring"] = state.scores.shape[1] // 2, state.changes.shape[1]
    values["indexed"], values["groups"] = 1, len(state.history)
    values["cpu_max"] = max(int(state.nodes["cpu_milli"].max(initial=1)), 1)
    values["oldest_ms"] = FOREVER_MS
    values["free_milli"] = int(state.free.sum())
    values["smallest_milli"] = int((fewest * jobs["milli"]).min(initial=WHOLE))
    values["first_tier"] = int(jobs["tier"].min(initial=FOREVER_MS))
    values["shares"] = bool((jobs["milli"] < WHOLE).any())
    with_devices = state.nodes["gpus"][state.nodes["gpus"] > 0]
    values["node_min"] = int(with_devices.min(initial=DEVICES_PER_NODE_MAX))
    values["leases"] = bool((state.nodes["closes_ms"] < FOREVER_MS).any())
    values["deviceless"] = bool((jobs["devices"] == 0).any())


def _all_free(nodes: Records) -> Integers:
    """Every device of every node wholly free; also sets what of a node is free."""
    width = int(nodes["gpus"].max(initial=1))
    free = np.where(np.arange(max(width, 1)) < nodes["gpus"][:, None], WHOLE, 0).astype(np.int64)
    nodes["whole"] = nodes["gpus"]
    nodes["cpu_free_milli"] = nodes["cpu_milli"]
    nodes["memory_free_mib"] = nodes["memory_mib"]
    return np.ascontiguousarray(free)


def _types(nodes: Records, ratings_gflops: Integers) -> Records:
    """Per type: its rating, its rank (fastest first), its nodes, and the most devices on one."""
    types = np.zeros(max(len(ratings_gflops), 1), TYPE)
    types["rating_gflops"][: len(ratings_gflops)] = ratings_gflops
    types["ranked"] = np.argsort(-types["rating_gflops"], kind="stable")
    types["rank"] = np.unique(-types["rating_gflops"], return_inverse=True)[1]
    np.maximum.at(types["gpus_max"], nodes["type"], nodes["gpus"])
    np.add.at(types["gpus"], nodes["type"], nodes["gpus"])
    np.add.at(types["nodes"], nodes["type"], 1)
    types["first"] = np.cumsum(types["nodes"]) - types["nodes"]
    return types


def _holdings(nodes: Records, jobs: Records, most: Integers) -> Records:
    """Room for every holding that can exist at once, as one list of free records."""
    devices, smallest = int(nodes["gpus"].sum()), int(jobs["milli"].min(initial=WHOLE))
    by_devices = devices * (WHOLE // max(smallest, 1)) + int((jobs["devices"] == 0).sum())
    by_jobs = int(np.minimum(most, max(len(nodes), 1)).clip(1).sum())
    holdings = np.zeros(min(by_devices, by_jobs) + 1, HOLDING)
    holdings["next"] = np.arange(1, len(holdings) + 1)
    holdings["next"][-1] = -1
    return holdings
