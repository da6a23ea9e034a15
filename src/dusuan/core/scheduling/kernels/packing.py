"""Compiled decisions of `core.scheduling.packing`: score, index, take, give back.

Per kind of request a tournament tree over the nodes keeps their scores; the root has the best. A
tree is brought up to date when its kind is asked for, by the nodes that changed since. So a
decision costs the logarithm of the cluster's size, and is the one that a scan of all nodes makes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dusuan.core.scheduling.arrays import TYPES_MAX, WHOLE
from dusuan.core.scheduling.compiled import compiled, entry, inlined

DUSUAN, FGD, BEST_FIT, PACK, SPREAD, FIRST_FIT = range(6)  # see packing.PACKERS
UNFIT = -1
_BASE = 1 << 20  # scores that count losses start here, so that they stay positive
_SCORE_MAX = 100  # of the published scores


@inlined
def fits(p: Any, n: int, s: int) -> bool:
    """Whether node `n` has room for request `s`: its type, CPU, memory, and devices."""
    r = p.requests[s]
    if p.cpu[n] < r.cpu_milli or p.memory[n] < r.memory_mib:
        return False
    if (r.types >> p.type[n]) & 1 == 0 or p.devices[n] < r.devices:
        return False
    missing = r.devices
    for d in range(p.devices[n]):
        if missing == 0:
            break
        if p.free[n, d] >= r.milli:
            missing -= 1
    return bool(missing == 0)


@inlined
def cpu_step(p: Any, cpu: int) -> int:
    """How many of the typical CPU needs `cpu` covers."""
    low, high = 0, len(p.cpu_steps)
    while low < high:
        middle = (low + high) // 2
        if p.cpu_steps[middle] <= cpu:
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def whole_devices(p: Any, n: int) -> int:
    """Wholly free devices of node `n`."""
    found = 0
    for d in range(p.devices[n]):
        if p.free[n, d] == WHOLE:
            found += 1
    return found


@inlined
def idle_milli(p: Any, n: int) -> int:
    """What of the devices of node `n` is free."""
    total = 0
    for d in range(p.devices[n]):
        total += p.free[n, d]
    return total


@inlined
def jointly(p: Any, t: int, step: int, whole: int) -> float:
    """What `whole` free devices serve of typical requests for several."""
    return float(WHOLE * whole * p.together[t, step, whole])


@inlined
def singly(p: Any, t: int, step: int, free: int) -> float:
    """What a device with `free` milli serves of typical requests for one or a share."""
    return float(free * p.alone[t, step, p.level[free]])


@inlined
def usable(p: Any, n: int, step: int, whole: int) -> float:
    """Idle milli of node `n` that a typical request can use, in expectation."""
    t = p.type[n]
    total = jointly(p, t, step, whole)
    for d in range(p.devices[n]):
        total += singly(p, t, step, p.free[n, d])
    return total


@inlined
def descent(gain_milli: float) -> int:
    """The published score of a node whose fragmentation falls by so much: 0 to 100, truncated."""
    return int(_SCORE_MAX / (1.0 + math.exp(-gain_milli / WHOLE)))


@compiled
def fgd(p: Any, n: int, s: int) -> tuple[int, int]:
    """Fragmentation gradient descent: score of node `n` and, for a share, the device to use."""
    r = p.requests[s]
    t, whole = p.type[n], whole_devices(p, n)
    step = cpu_step(p, p.cpu[n] - r.cpu_milli)
    now = usable(p, n, cpu_step(p, p.cpu[n]), whole)
    then = usable(p, n, step, whole)  # with less CPU and all devices as they are
    asked = r.devices * r.milli
    if r.devices != 1 or r.milli == WHOLE:
        taken = r.devices * singly(p, t, step, WHOLE)
        taken += jointly(p, t, step, whole) - jointly(p, t, step, whole - r.devices)
        return descent(asked - now + then - taken), -1
    best, device = UNFIT, -1
    for d in range(p.devices[n]):
        free = p.free[n, d]
        if free < r.milli or (d > 0 and free == p.free[n, d - 1]):
            continue
        taken = singly(p, t, step, free) - singly(p, t, step, free - r.milli)
        if free == WHOLE:
            taken += jointly(p, t, step, whole) - jointly(p, t, step, whole - 1)
        score = descent(asked - now + then - taken)
        if score > best:
            best, device = score, d
    return best, device


@inlined
def node_worth(p: Any, devices: float, cpu: int) -> float:
    """What a node is worth: its devices, or as many as its CPU can serve."""
    if p.cpu_per_device <= 0:
        return devices
    return float(min(devices, cpu / p.cpu_per_device))


@compiled
def dusuan(p: Any, n: int, s: int) -> tuple[int, int]:
    """The least worth lost beyond the request's own, in whole percent of a device."""
    r = p.requests[s]
    devices, cpu = 0.0, p.cpu[n] - r.cpu_milli
    for d in range(p.devices[n]):
        devices += p.worth[p.free[n, d]]
    now = node_worth(p, devices, p.cpu[n])
    if r.devices != 1 or r.milli == WHOLE:
        lost = now - node_worth(p, devices - r.devices, cpu) - r.devices
        return _BASE + math.floor(-100.0 * lost), -1
    best, device = UNFIT, -1
    for d in range(p.devices[n]):
        free = p.free[n, d]
        if free < r.milli or (d > 0 and free == p.free[n, d - 1]):
            continue
        taken = p.worth[free] - p.worth[free - r.milli]
        lost = now - node_worth(p, devices - taken, cpu) + taken - 2.0 * p.worth[r.milli]
        score = _BASE + math.floor(-100.0 * lost - (free - r.milli) / WHOLE)
        if score > best:
            best, device = score, d
    return best, device


@inlined
def tightest(p: Any, n: int, s: int) -> int:
    """The device of node `n` with the least left over for a share; -1 for other requests."""
    r = p.requests[s]
    best = -1
    if r.devices == 1 and r.milli < WHOLE:
        for d in range(p.devices[n]):
            if p.free[n, d] >= r.milli and (best < 0 or p.free[n, d] < p.free[n, best]):
                best = d
    return best


@inlined
def freest(p: Any, n: int, s: int) -> int:
    """The device of node `n` with the most free for a share; -1 for other requests."""
    r = p.requests[s]
    best = -1
    if r.devices == 1 and r.milli < WHOLE:
        for d in range(p.devices[n]):
            if best < 0 or p.free[n, d] > p.free[n, best]:
                best = d
    return best


@compiled
def best_fit(p: Any, n: int, s: int) -> tuple[int, int]:
    """The published best fit: the least CPU and devices left over, each in parts of the largest."""
    r = p.requests[s]
    cpu = (p.cpu[n] - r.cpu_milli) / p.cpu_max
    devices = (idle_milli(p, n) - r.devices * r.milli) / (WHOLE * p.free.shape[1])
    return int(_SCORE_MAX * (1.0 - 0.5 * cpu - 0.5 * devices)), tightest(p, n, s)


@compiled
def pack(p: Any, n: int, s: int) -> tuple[int, int]:
    """Devices in use before idle devices of nodes in use before idle nodes; then the fullest."""
    device, idle = tightest(p, n, s), idle_milli(p, n)
    score = WHOLE * p.free.shape[1] - idle
    if idle < WHOLE * p.devices[n]:
        score += _BASE
    if device >= 0 and p.free[n, device] < WHOLE:
        score += _BASE
    return score, device


@entry
def evaluate(p: Any, n: int, s: int) -> tuple[int, int]:
    """Score of node `n` for request `s`, higher is better, and the device for a share."""
    if not fits(p, n, s):
        return UNFIT, -1
    if p.packer == DUSUAN:
        return dusuan(p, n, s)
    if p.packer == FGD:
        return fgd(p, n, s)
    if p.packer == BEST_FIT:
        return best_fit(p, n, s)
    if p.packer == PACK:
        return pack(p, n, s)
    if p.packer == SPREAD:
        return idle_milli(p, n), freest(p, n, s)
    return 0, tightest(p, n, s)


@entry
def scan(p: Any, s: int) -> int:
    """The best node for request `s` by looking at all, or -1. What `choose` must equal."""
    best, found = UNFIT, -1
    for n in range(len(p.type)):
        score, _ = evaluate(p, n, s)
        if score > best:
            best, found = score, n
    return found


@inlined
def alike(p: Any, n: int, m: int) -> bool:
    """Whether two nodes of one type are in the same state, device by device."""
    if p.cpu[n] != p.cpu[m] or p.memory[n] != p.memory[m] or p.devices[n] != p.devices[m]:
        return False
    for d in range(p.devices[n]):
        if p.free[n, d] != p.free[m, d]:
            return False
    return True


@compiled
def build(p: Any, s: int) -> None:
    """Score all nodes for request `s`; one in the state of the last of its type scores the same."""
    tree, leaves = p.trees[s], p.trees.shape[1] // 2
    last = np.full(TYPES_MAX, -1)
    for n in range(len(p.type)):
        m = last[p.type[n]]
        last[p.type[n]] = n
        tree[leaves + n] = tree[leaves + m] if m >= 0 and alike(p, n, m) else evaluate(p, n, s)[0]
    for i in range(leaves - 1, 0, -1):
        tree[i] = max(tree[2 * i], tree[2 * i + 1])


@inlined
def update(p: Any, s: int, n: int) -> None:
    """Score node `n` anew for request `s`, and carry it up as far as it matters."""
    tree, i = p.trees[s], p.trees.shape[1] // 2 + n
    score = evaluate(p, n, s)[0]
    if tree[i] == score:
        return
    tree[i] = score
    while i > 1:
        i //= 2
        larger = max(tree[2 * i], tree[2 * i + 1])
        if tree[i] == larger:
            return
        tree[i] = larger


@inlined
def refresh(p: Any, s: int) -> None:
    """Bring the tree of request `s` up to date, each changed node once."""
    behind = p.counts[0] - p.cursors[s]
    if p.cursors[s] < 0 or behind > len(p.changes):
        build(p, s)
    else:
        p.counts[1] += 1
        for i in range(p.counts[0] - 1, p.cursors[s] - 1, -1):
            n = p.changes[i & (len(p.changes) - 1)]
            if p.seen[n] != p.counts[1]:
                p.seen[n] = p.counts[1]
                update(p, s, n)
    p.cursors[s] = p.counts[0]


@entry
def choose(p: Any, s: int) -> int:
    """The best node for request `s`, the first among equals, or -1 when none fits."""
    refresh(p, s)
    tree, leaves, i = p.trees[s], p.trees.shape[1] // 2, 1
    if tree[1] == UNFIT:
        return -1
    while i < leaves:
        i = 2 * i if tree[2 * i] == tree[i] else 2 * i + 1
    return int(i - leaves)


@inlined
def changed(p: Any, n: int) -> None:
    """Note that node `n` is not as it was."""
    p.changes[p.counts[0] & (len(p.changes) - 1)] = n
    p.counts[0] += 1


@entry
def take(p: Any, n: int, s: int) -> Any:
    """Give request `s` its part of node `n`, where it fits; returns the devices as bits."""
    r = p.requests[s]
    device = evaluate(p, n, s)[1]
    bits, missing = np.uint64(0), r.devices
    for d in range(p.devices[n]):
        if missing > 0 and (d == device or (device < 0 and p.free[n, d] >= r.milli)):
            bits |= np.uint64(1) << np.uint64(d)
            p.free[n, d] -= r.milli
            missing -= 1
    p.cpu[n] -= r.cpu_milli
    p.memory[n] -= r.memory_mib
    changed(p, n)
    return bits


@entry
def give_back(p: Any, n: int, s: int, bits: Any) -> None:
    """Undo `take`."""
    r = p.requests[s]
    for d in range(p.devices[n]):
        if (bits >> np.uint64(d)) & np.uint64(1):
            p.free[n, d] += r.milli
    p.cpu[n] += r.cpu_milli
    p.memory[n] += r.memory_mib
    changed(p, n)


@entry
def retake(p: Any, n: int, s: int, bits: Any) -> None:
    """Undo `give_back`: the very devices."""
    r = p.requests[s]
    for d in range(p.devices[n]):
        if (bits >> np.uint64(d)) & np.uint64(1):
            p.free[n, d] -= r.milli
    p.cpu[n] -= r.cpu_milli
    p.memory[n] -= r.memory_mib
    changed(p, n)


@entry
def place_all(p: Any, arrivals: Any, nodes: Any, devices: Any) -> int:
    """Decide `arrivals` (kinds of request) in turn; returns how many found room.

    `nodes[i]` becomes the node of arrival i, or -1; `devices[i]` its devices as bits.
    """
    placed = 0
    for i in range(len(arrivals)):
        n = choose(p, arrivals[i])
        nodes[i] = n
        devices[i] = np.uint64(0)
        if n >= 0:
            devices[i] = take(p, n, arrivals[i])
            placed += 1
    return placed


@entry
def knapsack(sizes: Any, prices: Any) -> tuple[Any, Any]:
    """The most that c milli can hold for c in 0..1000, and what then fills a device."""
    worth, last = np.zeros(WHOLE + 1), np.full(WHOLE + 1, -1)
    for c in range(1, WHOLE + 1):
        worth[c] = worth[c - 1]
        for i in range(len(sizes)):
            if sizes[i] <= c and worth[c - sizes[i]] + prices[i] > worth[c] + 1e-12:
                worth[c], last[c] = worth[c - sizes[i]] + prices[i], i
    pattern, c = np.zeros(len(sizes)), WHOLE
    while c > 0:
        if last[c] < 0:
            c -= 1
        else:
            pattern[last[c]] += 1
            c -= sizes[last[c]]
    return worth, pattern
