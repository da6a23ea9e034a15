"""The cluster of a simulation from a node list, in the format `openb`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dusuan.core.scheduling.arrays import nodes_array
from dusuan.core.workload.jobspec import Problem
from dusuan.sim import openb
from dusuan.sim.trace import LEAF_NODES, Rate, Rated, Site


def read_site(path: Path, rate: Rate) -> Site | Problem:
    """The nodes of the list at `path`. A model that `rate` does not know has no rating."""
    listed = openb.read_nodes(path)
    if isinstance(listed, Problem):
        return listed
    rated = [rate(model) for model in listed.models]
    known = [each if isinstance(each, Rated) else Rated(0, 0.0) for each in rated]
    unknown = [m for m, each in zip(listed.models, rated, strict=True) if isinstance(each, Problem)]
    notes = [*listed.notes]
    if unknown:
        known = [Rated(0, 0.0)] * len(known)  # ratings of some only would compare unlike with like
        notes.append(f"without ratings, since these models are not known: {', '.join(unknown)}")
    hosts = listed.hosts
    nodes = nodes_array(len(hosts))
    nodes["type"], nodes["gpus"] = hosts.type, hosts.devices
    nodes["cpu_milli"], nodes["memory_mib"] = hosts.cpu_milli, hosts.memory_mib
    nodes["leaf"] = np.arange(len(nodes)) // LEAF_NODES
    ratings = np.array([each.gflops for each in known], np.int64)
    watts = tuple(each.watts for each in known)
    return Site(nodes, listed.models, ratings, watts, listed.names, tuple(notes))
