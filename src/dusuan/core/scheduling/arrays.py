"""The state of a scheduler as arrays: what a round reads, live and simulated alike.

Times are integer milliseconds, shares of a device are milli (1,000 is a whole one), ratings are
GFLOPS. One record per node, job, account and holding; free shares are a matrix (node, device).
`State` is everything that a compiled round works on; `state.new_state` makes one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dusuan.core.scheduling.accounts import Records as Records

Integers = npt.NDArray[np.int64]

WHOLE = 1_000  # milli of a whole device
FOREVER_MS = 1 << 60
DEVICES_PER_NODE_MAX = 64  # the devices of a node are the bits of one word
TYPES_MAX = 62  # and so are the types that a job accepts
KEYS = 4  # parts of an order
ARRAYS = (
    *("nodes", "free", "types", "jobs", "accounts", "holdings", "keys", "queue", "running"),
    *("ending", "lines", "later", "later_nodes", "picks", "history", "scratch", "marks"),
    *("requests", "of_type", "idle", "scores", "trees", "changes", "seen"),
    *("worth", "level", "steps", "alone", "together"),
    *("work", "use", "using", "chosen"),
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
        ("place", "i8"),  # among the nodes of its type
    ],
    align=True,
)
TYPE = np.dtype(
    [
        ("rating_gflops", "i8"),
        ("rank", "i8"),  # 0 is the fastest; types of one rating share theirs
        ("ranked", "i8"),  # of type i: which type is at place i by rank
        ("gpus_max", "i8"),  # the most on one node
        ("gpus", "i8"),
        ("nodes", "i8"),
        ("later_ms", "i8"),  # the moment of a reservation on this type; 0: none
        ("first", "i8"),  # where its nodes begin in `of_type`
        ("changes", "i8"),  # of its nodes, so far
    ],
    align=True,
)
REQUEST = np.dtype(
    [
        ("cpu_milli", "i8"),
        ("memory_mib", "i8"),
        ("types", "i8"),  # acceptable device types, as bits
        ("milli", "i8"),  # of each device
        ("devices", "i8"),
    ],
    align=True,
)
TREE = np.dtype(
    [
        ("key", "i8"),  # of which request, type, placement and view; -1: of none
        ("cursor", "i8"),  # changes of its type that it has seen
        ("stamp", "i8"),  # the reserved moment that it has seen
    ],
    align=True,
)
JOB = np.dtype(
    [
        # What a round looks at most, side by side in the memory's lines.
        ("state", "i8"),
        ("tier", "i8"),  # lower goes first
        ("preemptible", "i8"),
        ("overdue", "i8"),
        ("protected_ms", "i8"),  # not preempted before
        ("since_ms", "i8"),  # waiting or running since
        ("attained_ms", "i8"),  # device-milliseconds held in earlier attempts
        ("devices", "i8"),
        ("milli", "i8"),  # of each device
        ("gflops", "i8"),  # asked for of all devices together, see `kernels.amounts`; 0: `devices`
        ("types", "i8"),  # acceptable device types, as bits
        ("first", "i8"),  # its first holding, -1 for none
        ("taken_milli", "i8"),  # of devices, while it runs
        ("earliest_ms", "i8"),
        ("predicted_ms", "i8"),  # what the round goes by; same unit of work
        ("request", "i8"),  # which kind of request it is
        ("submit_ms", "i8"),
        # What else was given.
        ("run_ms", "i8"),  # true work, as run time on a device of `rating_gflops`; -1: not known
        ("estimate_ms", "i8"),  # the user's; -1: none
        ("foretold_ms", "i8"),  # what was predicted at submission
        ("checkpoint_ms", "i8"),  # work between two checkpoints; 0: none
        ("rating_gflops", "i8"),  # what the times refer to; 0: the same on every device
        ("cpu_milli", "i8"),  # of the whole job
        ("memory_mib", "i8"),
        ("account", "i8"),
        ("group", "i8"),  # similar jobs of one user
        ("priority", "i8"),  # higher goes first
        ("yields", "i8"),  # holds back nobody while it waits
        ("topology", "i8"),
        ("deadline_ms", "i8"),
        # What became of it.
        ("restarts", "i8"),
        ("first_start_ms", "i8"),
        ("end_ms", "i8"),
        ("done_ms", "i8"),  # work done in earlier attempts
        ("overhead_ms", "i8"),  # of this attempt: what its restart costs
        ("expected_end_ms", "i8"),
        ("speed_gflops", "i8"),  # of what it runs on, for each of its `devices`
        ("lost_ms", "i8"),  # device-milliseconds of lost work and restarts
        ("held_ms", "i8"),  # device-milliseconds held
        ("first_ms", "i8"),  # since when it waits as the first of those; 0: it does not
        ("slot", "i8"),  # where it stands in `running`
        ("version", "i8"),  # of its attempt; older events are stale
        ("reason", "i8"),  # why it waits
        ("limit", "i8"),  # for want of quota: the account whose limit it is
        ("leaving", "i8"),  # chosen to be stopped, while others are being chosen
        ("goes_to", "i8"),  # it is moved to this node, less 1; 0: it is not
        ("goes_on", "u8"),  # and these devices
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
        ("requests", "i8"),
        ("leaves", "i8"),  # of a tree
        ("trees", "i8"),
        ("ring", "i8"),  # changes that are remembered of a type
        ("steps", "i8"),
        ("levels", "i8"),
        ("indexed", "i8"),  # whether nodes are found by trees; else by a scan
        ("refreshes", "i8"),
        ("later_stamp", "i8"),  # counts views of reserved moments
        ("cpu_max", "i8"),  # of any node
        ("cpu_per_device", "f8"),  # milli; what a typical request needs for one; 0: no need
        ("cpu_scarce", "i8"),  # whether typical requests use up all CPU before all devices
        ("waiting", "i8"),
        ("running", "i8"),
        ("in_order", "i8"),  # so many of `ending` are in order, the rest as they came
        ("free_record", "i8"),
        ("line_count", "i8"),
        ("pick_count", "i8"),
        ("free_milli", "i8"),
        ("victims", "i8"),
        ("moving", "i8"),  # whether they are to go on elsewhere
        ("moving_tried", "i8"),  # in this round
        ("movers", "i8"),  # jobs that were stopped to go on elsewhere, and have not yet
        ("preempted", "i8"),
        ("preempt_from_ms", "i8"),
        ("preempt_count", "i8"),
        ("oldest_ms", "i8"),  # nobody who is not overdue waits for longer than since then
        ("plain", "i8"),  # 1: nothing is cut short or remembered; it decides the same
        ("unasked", "i8"),  # 1: nobody asks why a job waits, so a round may end before it knows
        ("failed", "i8"),  # of the jobs that nobody could be stopped for, the one that asks least
        ("spare", "i8"),  # 1: for that one a node had room as it is, kept for somebody else
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
        ("moves", "i8"),  # counts starts, stops, and whatever else changes who can be stopped
        ("marked_moves", "i8"),  # the count when nodes were marked last; -1: for one job alone
        ("marked_ms", "i8"),  # when that was
        ("marked_tier", "i8"),  # and for a job of which claim
        ("marked_overdue", "i8"),
        ("marked_types", "i8"),
        ("marked_owed", "i8"),  # whether something is guaranteed to it
        ("marked_most", "i8"),  # devices that could be free on any one node
        ("marked_key", "f8"),
        ("marked_key_next", "f8"),
        ("behind_ms", "f8"),  # the service from which on one stands behind that job
        ("marked_best", "i8"),  # the cheapest job to stop; -1: nobody
        ("debtor", "i8"),  # to whom a reservation is owed once somebody could pass it
        ("careful", "i8"),  # whether the reservation is of a job that has waited too long
        ("stamp", "i8"),  # of the marks of nodes on which somebody can be stopped
        ("smallest_milli", "i8"),  # the least that any job asks for
        ("least_milli", "i8"),  # the same of those in the queue, or less
        ("first_tier", "i8"),  # of any job
        ("deviceless", "i8"),  # whether there are jobs that need no device
        ("limits", "i8"),  # whether anything is guaranteed to an account, or limited
        ("closed", "i8"),  # whether some account keeps what is left for a job
        ("barred", "i8"),  # the job that fits, and lacks only quota
        ("chosen", "i8"),  # how many are to be stopped for one job
        ("ranked", "i8"),  # how often accounts were ranked
        ("opened_ms", "i8"),  # use of that moment weighs 1
        ("unrated_gflops", "i8"),  # what a device of unknown rating counts for
        ("pool_devices", "f8"),  # all devices, in GFLOPS
        ("pool_cpu", "f8"),  # in milli
        ("pool_memory", "f8"),  # in MiB
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
    accounts: Records  # ACCOUNT[A], the pool first
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
    requests: Records  # REQUEST[K] kinds of request that jobs are of
    work: Integers  # [K] GFLOPS that they ask for in all; 0: so many devices of any type
    of_type: Integers  # [N] nodes by type
    idle: Integers  # [65] how many nodes have so many devices wholly free
    scores: npt.NDArray[np.int32]  # [trees, 2 * leaves] see `kernels.index`
    trees: Records  # TREE[trees]
    changes: Integers  # [T, ring] places of nodes that changed, a ring per type
    seen: Integers  # [N] the refresh that last looked at a node
    worth: npt.NDArray[np.float64]  # [1001] of a device by what of it is free
    level: Integers  # [1001] how many typical shares a free share could hold
    steps: Integers  # [B] CPU needs of typical requests, ascending
    alone: npt.NDArray[np.float64]  # [T, B + 1, levels] part of them that one such device serves
    together: npt.NDArray[np.float64]  # [T, B + 1, G + 1] that so many whole devices serve
    use: npt.NDArray[np.float64]  # [A, RESOURCES] weighted; units: `kernels.quota`
    using: npt.NDArray[np.float64]  # [A, RESOURCES] by attempts that run, for one order
    chosen: Integers  # [2 J] jobs to be stopped for another
    places: Integers  # [A - 1] where in `accounts` the accounts stand that were given
    values: Records  # STATE[1]

    @property
    def record(self) -> Any:
        """What compiled functions take."""
        return self.values[0]


def jobs_array(count: int) -> Records:
    """`count` jobs with the values that mean "nothing special"."""
    plain = np.zeros(1, JOB)
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
        plain[name] = value
    return np.repeat(plain, count)


def nodes_array(count: int) -> Records:
    """`count` nodes without devices, each a link domain and all on one leaf switch."""
    nodes = np.zeros(count, NODE)
    nodes["up"] = 1
    nodes["domain"] = np.arange(count)
    nodes["closes_ms"] = FOREVER_MS
    nodes["first"] = -1
    return nodes
