"""Compiled access to the arrays of a state, by their addresses.

A compiled function that takes the arrays themselves gets seven values for each, and counts
references at every use; a record of addresses is one pointer, and these accessors are inlined.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from dusuan.core.scheduling.accounts import ACCOUNT
from dusuan.core.scheduling.arrays import (
    HOLDING,
    JOB,
    KEYS,
    LINE,
    NODE,
    REQUEST,
    TREE,
    TYPE,
    WHOLE,
)
from dusuan.core.scheduling.compiled import compiled


@intrinsic
def pointer(_typing: Any, _address: Any) -> Any:
    """An integer address as a pointer."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), code


@compiled
def node(s: Any, n: int) -> Any:
    """Node `n`."""
    return carray(pointer(s.nodes_at), (s.nodes,), NODE)[n]


@compiled
def later_node(s: Any, n: int) -> Any:
    """Node `n` at the reserved moment."""
    return carray(pointer(s.later_nodes_at), (s.nodes,), NODE)[n]


@compiled
def kind(s: Any, t: int) -> Any:
    """Device type `t`."""
    return carray(pointer(s.types_at), (s.types,), TYPE)[t]


@compiled
def job(s: Any, j: int) -> Any:
    """Job `j`."""
    return carray(pointer(s.jobs_at), (s.jobs,), JOB)[j]


@compiled
def account(s: Any, a: int) -> Any:
    """Account `a`."""
    return carray(pointer(s.accounts_at), (s.accounts,), ACCOUNT)[a]


@compiled
def holding(s: Any, h: int) -> Any:
    """Holding `h`."""
    return carray(pointer(s.holdings_at), (1 << 40,), HOLDING)[h]


@compiled
def line(s: Any, i: int) -> Any:
    """Line `i` of the plan."""
    return carray(pointer(s.lines_at), (s.lines,), LINE)[i]


@compiled
def picked(s: Any, i: int) -> Any:
    """Node `i` of the placement under consideration."""
    return carray(pointer(s.picks_at), (s.nodes + 1,), HOLDING)[i]


@compiled
def free_of(s: Any) -> Any:
    """Free milli per node and device."""
    return carray(pointer(s.free_at), (s.nodes, s.width), np.int64)


@compiled
def later_of(s: Any) -> Any:
    """The same at the reserved moment."""
    return carray(pointer(s.later_at), (s.nodes, s.width), np.int64)


@compiled
def keys_of(s: Any) -> Any:
    """Places in the order."""
    return carray(pointer(s.keys_at), (s.jobs, KEYS), np.float64)


@compiled
def queue_of(s: Any) -> Any:
    """Waiting jobs in order."""
    return carray(pointer(s.queue_at), (s.jobs,), np.int64)


@compiled
def running_of(s: Any) -> Any:
    """Running jobs."""
    return carray(pointer(s.running_at), (s.jobs,), np.int64)


@compiled
def ending_of(s: Any) -> Any:
    """Running jobs by expected end."""
    return carray(pointer(s.ending_at), (s.jobs,), np.int64)


@compiled
def history_of(s: Any) -> Any:
    """Last run times of similar jobs."""
    return carray(pointer(s.history_at), (s.groups, 3), np.int64)


@compiled
def scratch_of(s: Any) -> Any:
    """Working space."""
    return carray(pointer(s.scratch_at), (max(s.nodes, s.jobs, 64),), np.int64)


@compiled
def marks_of(s: Any) -> Any:
    """Marks of nodes."""
    return carray(pointer(s.marks_at), (max(s.nodes, 1),), np.int64)


@compiled
def request(s: Any, k: int) -> Any:
    """Kind of request `k`."""
    return carray(pointer(s.requests_at), (s.requests,), REQUEST)[k]


@compiled
def work_of(s: Any) -> Any:
    """GFLOPS that kinds of request ask for in all; 0: so many devices."""
    return carray(pointer(s.work_at), (s.requests,), np.int64)


@compiled
def of_type(s: Any) -> Any:
    """Nodes by type."""
    return carray(pointer(s.of_type_at), (s.nodes,), np.int64)


@compiled
def idle_of(s: Any) -> Any:
    """How many nodes have so many devices wholly free."""
    return carray(pointer(s.idle_at), (65,), np.int64)


@compiled
def tree_of(s: Any, i: int) -> Any:
    """Scores in tree `i`; a parent has the larger of its two."""
    return carray(pointer(s.scores_at), (s.trees, 2 * s.leaves), np.int32)[i]


@compiled
def tree_state(s: Any, i: int) -> Any:
    """Whose tree `i` is, and what it has seen."""
    return carray(pointer(s.trees_at), (s.trees,), TREE)[i]


@compiled
def change_of(s: Any) -> Any:
    """Places of changed nodes, a ring per type."""
    return carray(pointer(s.changes_at), (s.types, s.ring), np.int64)


@compiled
def seen_of(s: Any) -> Any:
    """The refresh that last looked at a node."""
    return carray(pointer(s.seen_at), (s.nodes,), np.int64)


@compiled
def worth_of(s: Any) -> Any:
    """Worth of a device by what of it is free."""
    return carray(pointer(s.worth_at), (WHOLE + 1,), np.float64)


@compiled
def level_of(s: Any) -> Any:
    """How many typical shares a free share could hold."""
    return carray(pointer(s.level_at), (WHOLE + 1,), np.int64)


@compiled
def steps_of(s: Any) -> Any:
    """CPU needs of typical requests, ascending."""
    return carray(pointer(s.steps_at), (s.steps,), np.int64)


@compiled
def alone_of(s: Any) -> Any:
    """Part of typical requests that one such device serves."""
    return carray(pointer(s.alone_at), (s.types, s.steps + 1, s.levels), np.float64)


@compiled
def together_of(s: Any) -> Any:
    """Part of them that so many whole devices serve."""
    return carray(pointer(s.together_at), (s.types, s.steps + 1, s.width + 1), np.float64)


@compiled
def chosen_of(s: Any) -> Any:
    """Jobs that are to be stopped for another."""
    return carray(pointer(s.chosen_at), (2 * max(s.jobs, 1),), np.int64)


@compiled
def lines_of(s: Any) -> Any:
    """Lines of the plan."""
    return carray(pointer(s.lines_at), (s.lines,), LINE)
