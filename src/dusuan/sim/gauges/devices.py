"""What is idle on each node, and what of it the mix of requests could use."""

from __future__ import annotations

from typing import Any

import numpy as np

from dusuan.core.scheduling.arrays import WHOLE
from dusuan.core.scheduling.compiled import compiled


@compiled
def steps_of(g: Any, cpu: int) -> int:
    """How many of the CPU needs of the mix `cpu` covers."""
    return int(np.searchsorted(g.cpu_steps, cpu, side="right"))


@compiled
def look_at(g: Any, n: int) -> None:
    """Work out what is idle on node `n`, and what of it is usable."""
    idle, whole, usable = 0, 0, 0.0
    if g.downs[n] == 0:
        t, step = g.type[n], steps_of(g, g.cpu[n])
        for d in range(g.gpus[n]):
            free = g.free[n, d]
            idle += free
            whole += free == WHOLE
            usable += free * g.alone[t, step, g.level[free]]
        usable += WHOLE * whole * g.together[t, step, whole]
    g.now[0].idle += idle - g.idle[n]
    g.now[0].usable += usable - g.usable[n]
    g.idle[n] = idle
    g.usable[n] = usable


@compiled
def change(g: Any, n: int, devices: int, milli: int) -> int:
    """Give back (`milli` above 0) or take share of `devices` (bits) of node `n`; how many."""
    count = 0
    for d in range(g.gpus[n]):
        if (devices >> np.uint64(d)) & np.uint64(1):
            count += 1
            if (g.faulty[n] >> np.uint64(d)) & np.uint64(1) == 0:
                g.free[n, d] += milli
    return count


@compiled
def needed(g: Any, j: int, t: int) -> int:
    """Devices of type `t` that job `j` takes: `core.scheduling.kernels.amounts`."""
    if g.gflops[j] <= 0 or g.ratings[t] <= 0:
        return int(g.devices[j])
    return int(-(-g.gflops[j] // g.ratings[t]))


@compiled
def take_part(g: Any, j: int, line: Any) -> int:
    """Job `j` takes what the line says; returns the milli."""
    h, n = g.now[0].free_part, line.node
    g.now[0].free_part = g.parts[h].next
    count = change(g, n, line.devices, -line.milli)
    cpu, devices = g.cpu_asked[j], needed(g, j, g.type[n])
    if count < devices:  # a gang: its part falls on the node, rounded up
        cpu = -(-cpu * g.gpus[n] // devices)
    g.parts[h].node, g.parts[h].devices = n, line.devices
    g.parts[h].milli, g.parts[h].cpu_milli = line.milli, cpu
    g.parts[h].next = g.first[j]
    g.first[j] = h
    g.cpu[n] -= cpu
    look_at(g, n)
    g.held[g.type[n]] += count * line.milli
    return int(count * line.milli)


@compiled
def give_parts(g: Any, j: int) -> int:
    """Job `j` gives back all that it holds; returns the milli."""
    total, h = 0, g.first[j]
    while h >= 0:
        n, after = g.parts[h].node, g.parts[h].next
        milli = g.parts[h].milli * change(g, n, g.parts[h].devices, g.parts[h].milli)
        g.cpu[n] += g.parts[h].cpu_milli
        look_at(g, n)
        g.held[g.type[n]] -= milli
        total += milli
        g.parts[h].next = g.now[0].free_part
        g.now[0].free_part = h
        h = after
    g.first[j] = -1
    return int(total)


@compiled
def switch(g: Any, n: int, device: int, up: bool) -> None:
    """A node, or one device of it (unless that is -1), goes down or comes back; nobody is on it."""
    before = available(g, n)
    if device < 0:
        g.downs[n] += -1 if up else 1
    elif up:
        g.faulty[n] &= ~(np.uint64(1) << np.uint64(device))
        g.free[n, device] = WHOLE
    else:
        g.faulty[n] |= np.uint64(1) << np.uint64(device)
        g.free[n, device] = 0
    look_at(g, n)
    g.now[0].down += WHOLE * (before - available(g, n))


@compiled
def available(g: Any, n: int) -> int:
    """Devices of node `n` that are in order."""
    if g.downs[n] > 0:
        return 0
    found = 0
    for d in range(g.gpus[n]):
        found += (g.faulty[n] >> np.uint64(d)) & np.uint64(1) == 0
    return found
