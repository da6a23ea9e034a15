"""The cluster of a simulation from a node list, in the format `openb`."""

from __future__ import annotations

from collections.abc import Sequence
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
    known, notes = _ratings(listed.models, rate)
    hosts = listed.hosts
    nodes = nodes_array(len(hosts))
    nodes["type"], nodes["gpus"] = hosts.type, hosts.devices
    nodes["cpu_milli"], nodes["memory_mib"] = hosts.cpu_milli, hosts.memory_mib
    nodes["leaf"] = np.arange(len(nodes)) // LEAF_NODES
    ratings = np.array([each.gflops for each in known], np.int64)
    watts = tuple(each.watts for each in known)
    return Site(nodes, listed.models, ratings, watts, listed.names, (*listed.notes, *notes))


def _ratings(models: Sequence[str], rate: Rate) -> tuple[list[Rated], tuple[str, ...]]:
    """What is known of the models; nothing of any where one is unknown: no mix of both."""
    rated = {model: rate(model) for model in models}
    unknown = [model for model, each in rated.items() if isinstance(each, Problem)]
    if not unknown:
        return [each for each in rated.values() if isinstance(each, Rated)], ()
    note = f"without ratings, since these models are not known: {', '.join(unknown)}"
    return [Rated(0, 0.0)] * len(models), (note,)
