"""The state of a scheduler as arrays: what a round reads, live and simulated alike.

Times are integer milliseconds, shares of a device are milli (1,000 is a whole one), ratings are
GFLOPS. One record per node, job, account and holding; free shares are a matrix (node, device).
`State` is everything that a compiled round works on; `new_state` makes one from nodes and jobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Records = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

WHOLE = 1_000  # milli of a whole device
FOREVER_MS = 1 << 60
DEVICES_PER_NODE_MAX = 64  # the devices of a node are the bits of one word
TYPES_MAX = 62  # and so are the types that a job accepts
KEYS = 4  # parts of an order
ARRAYS = (
    *("nodes", "free", "types", "jobs", "accounts", "holdings", "keys", "queue", "running"),
    *("ending", "lines", "later", "later_nodes", "picks", "history", "scratch", "marks"),
)
ANY_TYPE = (1 << TYPES_MAX) - 1

# States of a job in the arrays.
COMING, WAITING, RUNNING, ENDED, REJECTED, BLOCKED = range(6)
# Topology wishes.
ANYWHERE, SAME_DOMAIN, SAME_LEAF, SPREAD = range(4)
# What a line of a plan says.
START, PREEMPT, END, LOST, SUBMIT, REJECT, DOWN, UP, RESERVE = range(1, 10)

NODE = np.dtype(
    [
        ("type", "i8"),
        ("gpus", "i8"),  # devices it has
        ("up", "i8"),  # 1, less one for each thing that keeps it down
        ("whole", "i8"),  # of them wholly free and in order
        ("cpu_milli", "i8"),
        ("cpu_free_milli", "i8"),
        ("memory_mib", "i8"),
        ("memory_free_mib", "i8"),
        ("domain", "i8"),  # link domain: devices joined by a scale-up network
        ("leaf", "i8"),  # leaf switch
        ("closes_ms", "i8"),  # from then on it is promised: a lease, maintenance
        ("first", "i8"),  # first holding on it, -1 for none
        ("faulty", "u8"),  # devices that are down, as bits
    ],
    align=True,
)
TYPE = np.dtype(
    [
        ("rating_gflops", "i8"),
        ("rank", "i8"),  # 0 is the fastest
        ("gpus_max", "i8"),  # the most on one node
        ("gpus", "i8"),
        ("nodes", "i8"),
        ("later_ms", "i8"),  # the moment of a reservation on this type; 0: none
    ],
    align=True,
)
JOB = np.dtype(
    [
        ("submit_ms", "i8"),
        ("run_ms", "i8"),  # true work, as run time on a device of `rating_gflops`; -1: not known
        ("estimate_ms", "i8"),  # the user's; -1: none
        ("predicted_ms", "i8"),  # what the round goes by; same unit of work
        ("foretold_ms", "i8"),  # what was predicted at submission
        ("checkpoint_ms", "i8"),  # work between two checkpoints; 0: none
        ("rating_gflops", "i8"),  # what the times refer to; 0: the same on every device
        ("devices", "i8"),
        ("milli", "i8"),  # of each device
        ("cpu_milli", "i8"),  # of the whole job
        ("memory_mib", "i8"),
        ("types", "i8"),  # acceptable device types, as bits
        ("account", "i8"),
        ("group", "i8"),  # similar jobs of one user
        ("tier", "i8"),  # lower goes first
        ("priority", "i8"),  # higher goes first
        ("preemptible", "i8"),
        ("yields", "i8"),  # holds back nobody while it waits
        ("topology", "i8"),
        ("earliest_ms", "i8"),
        ("deadline_ms", "i8"),
        # What became of it.
        ("state", "i8"),
        ("restarts", "i8"),
        ("since_ms", "i8"),  # waiting or running since
        ("first_start_ms", "i8"),
        ("end_ms", "i8"),
        ("done_ms", "i8"),  # work done in earlier attempts
        ("attained_ms", "i8"),  # device-milliseconds held in earlier attempts
        ("overhead_ms", "i8"),  # of this attempt: what its restart costs
        ("expected_end_ms", "i8"),
        ("speed_gflops", "i8"),  # rating of the devices it runs on
        ("lost_ms", "i8"),  # device-milliseconds of lost work and restarts
        ("held_ms", "i8"),  # device-milliseconds held
        ("protected_ms", "i8"),  # not preempted before
        ("overdue", "i8"),
        ("first_ms", "i8"),  # since when it waits as the first of those; 0: it does not
        ("slot", "i8"),  # where it stands in `running`
        ("first", "i8"),  # its first holding, -1 for none
        ("version", "i8"),  # of its attempt; older events are stale
        ("reason", "i8"),  # why it waits
        ("gpus_held", "i8"),  # devices set aside for it while it runs
        ("taken_milli", "i8"),  # of devices, while it runs
    ],
    align=True,
)
ACCOUNT = np.dtype(
    [
        ("parent", "i8"),  # -1 for a root
        ("weight", "f8"),
        ("quota_milli", "i8"),  # guaranteed share of devices; -1: unlimited
        ("borrow_milli", "i8"),  # at most this much above it; -1: unlimited
        ("lend_milli", "i8"),  # at most this much of what is idle; -1: unlimited
        ("used_milli", "i8"),  # by running jobs of it and of all below
        ("usage", "f8"),  # decayed, in device-milliseconds, of it and of all below
        ("usage_at_ms", "i8"),
        ("share", "f8"),  # its place in the fair order; lower goes first
    ],
    align=True,
)
HOLDING = np.dtype(
    [
        ("job", "i8"),
        ("node", "i8"),
        ("devices", "u8"),
        ("milli", "i8"),  # of each of them
        ("next", "i8"),  # of the same job, or the next free record
        ("next_on_node", "i8"),
        ("previous_on_node", "i8"),
        ("cpu_milli", "i8"),
        ("memory_mib", "i8"),
    ],
    align=True,
)
LINE = np.dtype(
    [
        ("time_ms", "i8"),
        ("kind", "i8"),
        ("job", "i8"),
        ("node", "i8"),
        ("milli", "i8"),
        ("devices", "u8"),
        ("cause", "i8"),  # for which job; or what was known: an expected moment
    ],
    align=True,
)
# What a compiled round gets: where the arrays are, how long they are, and single values.
STATE = np.dtype(
    [
        *((f"{name}_at", "i8") for name in ARRAYS),
        ("nodes", "i8"),
        ("width", "i8"),  # devices of the largest node
        ("types", "i8"),
        ("jobs", "i8"),
        ("accounts", "i8"),
        ("lines", "i8"),
        ("groups", "i8"),
        ("waiting", "i8"),
        ("running", "i8"),
        ("free_record", "i8"),
        ("line_count", "i8"),
        ("pick_count", "i8"),
        ("free_milli", "i8"),
        ("victims", "i8"),
        ("preempted", "i8"),
        ("preempt_from_ms", "i8"),
        ("preempt_count", "i8"),
        ("oldest_ms", "i8"),  # nobody who is not overdue waits for longer than since then
        ("failed", "i8"),  # of the jobs that nobody could be stopped for, the one that asks least
        ("none_from", "i8"),  # no node has this many whole devices free in this round
        ("hem_one", "i8"),  # the same for who would run into the reservation, on one node
        ("hem_gang", "i8"),  # and on several
        ("leases", "i8"),  # whether some node is promised from some moment on
        ("node_min", "i8"),  # devices of the smallest node that has any
        ("shares", "i8"),  # whether there are jobs that take a part of a device
        ("calm", "i8"),  # nobody could be stopped for a job of these keys, until an alarm
        ("calm_tier", "i8"),
        ("calm_key", "f8"),
        ("calm_key_next", "f8"),
        ("debtor", "i8"),  # to whom a reservation is owed once somebody could pass it
        ("careful", "i8"),  # whether the reservation is of a job that has waited too long
        ("stamp", "i8"),  # of the marks of nodes on which somebody can be stopped
        ("smallest_milli", "i8"),  # the least that any job asks for
        ("deviceless", "i8"),  # whether there are jobs that need no device
        ("predictions", "i8"),
        ("error_ms", "f8"),  # sum of absolute errors
        ("accuracy", "f8"),  # sum of min / max of predicted and true
        ("run_sum_ms", "f8"),  # of ended jobs
        ("ended", "i8"),
    ],
    align=True,
)


@dataclass(frozen=True, slots=True)
class State:
    """Everything a round works on. Shapes: N nodes, G devices, J jobs, A accounts.

    `values` is what compiled code gets: STATE[1] with the addresses of the arrays, which this
    object keeps alive. The arrays must not be replaced.
    """

    nodes: Records  # NODE[N]
    free: Integers  # [N, G] free milli
    types: Records  # TYPE[T]
    jobs: Records  # JOB[J]
    accounts: Records  # ACCOUNT[A]
    holdings: Records  # HOLDING[H]; those not in use form a list
    keys: npt.NDArray[np.float64]  # [J, KEYS] places in the order
    queue: Integers  # [J] waiting jobs in order; `waiting` of them
    running: Integers  # [J] running jobs; `running` of them
    ending: Integers  # [J] running jobs by expected end
    lines: Records  # LINE[L] what the round decided
    later: Integers  # [N, G] free at the reserved moment, less the reservation
    later_nodes: Records  # NODE[N] likewise
    picks: Records  # HOLDING[N] the placement under consideration
    history: Integers  # [groups, 3] last run times of similar jobs, and how many
    scratch: Integers  # [max(N, J, G)] working space
    marks: Integers  # [N] stamp of the search that marked a node
    values: Records  # STATE[1]

    @property
    def record(self) -> Any:
        """What compiled functions take."""
        return self.values[0]


def jobs_array(count: int) -> Records:
    """`count` jobs with the values that mean "nothing special"."""
    jobs = np.zeros(count, JOB)
    for name, value in {
        "run_ms": -1,
        "estimate_ms": -1,
        "predicted_ms": -1,
        "milli": WHOLE,
        "devices": 1,
        "types": ANY_TYPE,
        "deadline_ms": FOREVER_MS,
        "first_start_ms": -1,
        "end_ms": -1,
        "slot": -1,
        "first": -1,
    }.items():
        jobs[name] = value
    return jobs


def nodes_array(count: int) -> Records:
    """`count` nodes without devices, each a link domain and all on one leaf switch."""
    nodes = np.zeros(count, NODE)
    nodes["up"] = 1
    nodes["domain"] = np.arange(count)
    nodes["closes_ms"] = FOREVER_MS
    nodes["first"] = -1
    return nodes


def accounts_array(count: int) -> Records:
    """`count` root accounts of equal weight without limits."""
    accounts = np.zeros(count, ACCOUNT)
    accounts["parent"] = -1
    accounts["weight"] = 1.0
    for name in ("quota_milli", "borrow_milli", "lend_milli"):
        accounts[name] = -1
    return accounts


def new_state(nodes: Records, ratings_gflops: Integers, jobs: Records, accounts: Records) -> State:
    """An idle cluster with nobody in its queue. `ratings_gflops` is per device type.

    Arrays are copied. Raises `ValueError` for a cluster that the arrays cannot hold.
    """
    nodes, jobs = nodes.copy(), jobs.copy()
    for name in ("domain", "leaf"):  # as numbers below the count of nodes
        nodes[name] = np.unique(nodes[name], return_inverse=True)[1]
    if len(nodes) and nodes["gpus"].max() > DEVICES_PER_NODE_MAX:
        raise ValueError(f"a node has more than {DEVICES_PER_NODE_MAX} devices")
    if len(ratings_gflops) > TYPES_MAX:
        raise ValueError(f"more than {TYPES_MAX} device types")
    free = _all_free(nodes)
    holdings = _holdings(nodes, jobs)
    size = max(len(jobs), 1)
    state = State(
        nodes=nodes,
        free=free,
        types=_types(nodes, ratings_gflops),
        jobs=jobs,
        accounts=accounts.copy() if len(accounts) else accounts_array(1),
        holdings=holdings,
        keys=np.zeros((size, KEYS)),
        queue=np.zeros(size, np.int64),
        running=np.zeros(size, np.int64),
        ending=np.zeros(size, np.int64),
        lines=np.zeros(3 * len(holdings) + 2 * TYPES_MAX, LINE),
        later=free.copy(),
        later_nodes=nodes.copy(),
        picks=np.zeros(len(nodes) + 1, HOLDING),
        history=np.zeros((int(jobs["group"].max(initial=0)) + 1, 3), np.int64),
        scratch=np.zeros(max(len(nodes), size, DEVICES_PER_NODE_MAX), np.int64),
        marks=np.zeros(max(len(nodes), 1), np.int64),
        values=np.zeros(1, STATE),
    )
    _fill_in(state)
    return state


def _fill_in(state: State) -> None:
    """The values that compiled code needs beside the arrays."""
    values, jobs = state.values, state.jobs
    for name in ARRAYS:
        values[f"{name}_at"] = getattr(state, name).ctypes.data
    for name in ("nodes", "types", "jobs", "accounts", "lines"):
        values[name] = len(getattr(state, name))
    values["width"] = state.free.shape[1]
    values["groups"] = len(state.history)
    values["oldest_ms"] = FOREVER_MS
    values["free_milli"] = int(state.free.sum())
    values["smallest_milli"] = int((jobs["devices"] * jobs["milli"]).min(initial=WHOLE))
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
    """Per type: its rating, its rank (fastest first), the most devices on a node, and in all."""
    types = np.zeros(max(len(ratings_gflops), 1), TYPE)
    types["rating_gflops"][: len(ratings_gflops)] = ratings_gflops
    order = np.argsort(-types["rating_gflops"], kind="stable")
    types["rank"][order] = np.arange(len(types))
    np.maximum.at(types["gpus_max"], nodes["type"], nodes["gpus"])
    np.add.at(types["gpus"], nodes["type"], nodes["gpus"])
    np.add.at(types["nodes"], nodes["type"], 1)
    return types


def _holdings(nodes: Records, jobs: Records) -> Records:
    """Room for every holding that can exist at once, as one list of free records."""
    devices, smallest = int(nodes["gpus"].sum()), int(jobs["milli"].min(initial=WHOLE))
    by_devices = devices * (WHOLE // max(smallest, 1)) + int((jobs["devices"] == 0).sum())
    by_jobs = int(np.minimum(jobs["devices"], max(len(nodes), 1)).clip(1).sum())
    holdings = np.zeros(min(by_devices, by_jobs) + 1, HOLDING)
    holdings["next"] = np.arange(1, len(holdings) + 1)
    holdings["next"][-1] = -1
    return holdings
