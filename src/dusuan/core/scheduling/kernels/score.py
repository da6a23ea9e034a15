"""What is for a node: its score for a kind of request, by each placement; higher is better.

A placement is a number (`policy.PLACEMENTS`). With `guard`, what is promised to a reservation
counts as taken: a device has free what it has both now and at the reserved moment.
"""

from __future__ import annotations

import math
from typing import Any

from dusuan.core.scheduling.arrays import WHOLE
from dusuan.core.scheduling.compiled import compiled
from dusuan.core.scheduling.kernels.access import (
    alone_of,
    free_of,
    later_node,
    later_of,
    level_of,
    node,
    request,
    steps_of,
    together_of,
    worth_of,
)
from dusuan.core.scheduling.kernels.amounts import devices_of

DUSUAN, FGD, BEST_FIT, PACK, SPREADING, FIRST_FIT = range(6)  # see policy.PLACEMENTS
UNFIT = -1
_BASE = 1 << 14  # scores that count losses start here, so that they stay positive
_SCORE_MAX = 100  # of the published scores
_FINE = 1_000_000  # steps of scores that are not truncated as those are
_FULL = 1 << 20  # what is in use already goes before what is not
_EQUALS = 1 << 7  # scores among equal losses
_CPU_STEPS = 8  # of them, in what a device needs


@compiled
def free_at(s: Any, n: int, d: int, guard: bool) -> int:
    """Free share of device `d` of node `n`."""
    free = free_of(s)[n, d]
    return min(free, later_of(s)[n, d]) if guard else free


@compiled
def cpu_at(s: Any, n: int, guard: bool) -> int:
    """Free CPU of node `n`."""
    free = node(s, n).cpu_free_milli
    return min(free, later_node(s, n).cpu_free_milli) if guard else free


@compiled
def memory_at(s: Any, n: int, guard: bool) -> int:
    """Free memory of node `n`."""
    free = node(s, n).memory_free_mib
    return min(free, later_node(s, n).memory_free_mib) if guard else free


@compiled
def roomy_at(s: Any, n: int, milli: int, guard: bool) -> int:
    """How many devices of node `n` have that much free."""
    if milli == WHOLE and (not guard or node(s, n).whole == 0):
        return node(s, n).whole
    found = 0
    for d in range(node(s, n).gpus):
        found += free_at(s, n, d, guard) >= milli
    return found


@compiled
def idle_milli(s: Any, n: int, guard: bool) -> int:
    """What of the devices of node `n` is free."""
    total = 0
    for d in range(node(s, n).gpus):
        total += free_at(s, n, d, guard)
    return total


@compiled
def fits(s: Any, n: int, k: int, guard: bool) -> bool:
    """Whether node `n`, of a type that request `k` accepts, is up and has room for it."""
    ask, here = request(s, k), node(s, n)
    needed = devices_of(s, k, here.type)
    if here.up < 1 or here.gpus < needed:
        return False
    if cpu_at(s, n, guard) < ask.cpu_milli or memory_at(s, n, guard) < ask.memory_mib:
        return False
    return needed == 0 or roomy_at(s, n, ask.milli, guard) >= needed


@compiled
def is_share(s: Any, k: int) -> bool:
    """Whether request `k` takes a part of one device, so that it matters of which."""
    return request(s, k).devices == 1 and request(s, k).milli < WHOLE


@compiled
def cpu_step(s: Any, cpu: int) -> int:
    """How many of the typical CPU needs `cpu` covers."""
    low, high = 0, s.steps
    while low < high:
        middle = (low + high) // 2
        if steps_of(s)[middle] <= cpu:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def jointly(s: Any, t: int, step: int, whole: int) -> float:
    """What `whole` free devices serve of typical requests for several."""
    return float(WHOLE * whole * together_of(s)[t, step, max(whole, 0)])


@compiled
def singly(s: Any, t: int, step: int, free: int) -> float:
    """What a device with `free` milli serves of typical requests for one or a share."""
    return float(free * alone_of(s)[t, step, level_of(s)[free]])


@compiled
def usable(s: Any, n: int, step: int, whole: int, guard: bool) -> float:
    """Idle milli of node `n` that a typical request can use, in expectation."""
    t = node(s, n).type
    total = jointly(s, t, step, whole)
    for d in range(node(s, n).gpus):
        total += singly(s, t, step, free_at(s, n, d, guard))
    return total


@compiled
def descent(gain_milli: float) -> int:
    """The published score of a node whose fragmentation falls by so much: 0 to 100, truncated."""
    return int(_SCORE_MAX / (1.0 + math.exp(-gain_milli / WHOLE)))


@compiled
def fgd(s: Any, n: int, k: int, guard: bool) -> tuple[int, int]:
    """Fragmentation gradient descent: score of node `n` and, for a share, the device to use."""
    t, whole = node(s, n).type, roomy_at(s, n, WHOLE, guard)
    cpu, devices = cpu_at(s, n, guard), devices_of(s, k, t)
    step = cpu_step(s, cpu - request(s, k).cpu_milli)
    now = usable(s, n, cpu_step(s, cpu), whole, guard)
    then = usable(s, n, step, whole, guard)  # with less CPU and all devices as they are
    gain = devices * request(s, k).milli - now + then
    if is_share(s, k):
        return best_share(s, n, k, guard, step, gain)
    taken = devices * singly(s, t, step, WHOLE)
    taken += jointly(s, t, step, whole) - jointly(s, t, step, whole - devices)
    return descent(gain - taken), -1


@compiled
def best_share(s: Any, n: int, k: int, guard: bool, step: int, gain: float) -> tuple[int, int]:
    """The device of node `n` that fragments least by a share, and its score."""
    t, whole, milli = node(s, n).type, roomy_at(s, n, WHOLE, guard), request(s, k).milli
    best, device, last = UNFIT, -1, -1
    for d in range(node(s, n).gpus):
        free = free_at(s, n, d, guard)
        if free < milli or free == last:
            continue
        last = free
        taken = singly(s, t, step, free) - singly(s, t, step, free - milli)
        if free == WHOLE:
            taken += jointly(s, t, step, whole) - jointly(s, t, step, whole - 1)
        score = descent(gain - taken)
        if score > best:
            best, device = score, d
    return best, device


@compiled
def node_worth(s: Any, devices: float, cpu: int) -> float:
    """What a node is worth: its devices, or as many as its CPU can serve."""
    if s.cpu_per_device <= 0:
        return devices
    return float(min(devices, cpu / s.cpu_per_device))


@compiled
def by_loss(s: Any, n: int, loss: float, cpu: int, guard: bool) -> int:
    """The score of so much loss, in percent of a device, where `cpu` is left.

    Among equals: where nobody asks for CPU, the node with the fewest idle devices, so that whole
    nodes stay for those who need them; where CPU is used up before devices, the node with the most
    of it left, so that no node is without while its devices are idle.
    """
    score = (_BASE + math.floor(-loss)) * _EQUALS
    if s.cpu_per_device <= 0:
        return score + _EQUALS // 2 - roomy_at(s, n, WHOLE, guard)
    if s.cpu_scarce:
        return score + min(int(_CPU_STEPS * cpu / s.cpu_per_device), _EQUALS - 1)
    return score


@compiled
def dusuan(s: Any, n: int, k: int, guard: bool) -> tuple[int, int]:
    """The least worth lost beyond the request's own, in whole percent of a device."""
    devices, asked = 0.0, devices_of(s, k, node(s, n).type)
    for d in range(node(s, n).gpus):
        devices += worth_of(s)[free_at(s, n, d, guard)]
    cpu = cpu_at(s, n, guard)
    now, cpu = node_worth(s, devices, cpu), cpu - request(s, k).cpu_milli
    if is_share(s, k):
        return least_loss(s, n, k, guard, devices, now, cpu)
    lost = now - node_worth(s, devices - asked, cpu) - asked
    return by_loss(s, n, 100.0 * lost, cpu, guard), -1


@compiled
def least_loss(
    s: Any, n: int, k: int, guard: bool, devices: float, now: float, cpu: int
) -> tuple[int, int]:
    """The device of node `n` that loses least by a share, and its score."""
    best, device, last, milli = UNFIT, -1, -1, request(s, k).milli
    own = worth_of(s)[milli]
    for d in range(node(s, n).gpus):
        free = free_at(s, n, d, guard)
        if free < milli or free == last:
            continue
        last = free
        taken = worth_of(s)[free] - worth_of(s)[free - milli]
        lost = now - node_worth(s, devices - taken, cpu) + taken - 2.0 * own
        score = by_loss(s, n, 100.0 * lost + (free - milli) / WHOLE, cpu, guard)
        if score > best:
            best, device = score, d
    return best, device


@compiled
def tightest(s: Any, n: int, k: int, guard: bool) -> int:
    """The device of node `n` with the least left over for a share; -1 for other requests."""
    best, least = -1, WHOLE + 1
    if is_share(s, k):
        for d in range(node(s, n).gpus):
            free = free_at(s, n, d, guard)
            if request(s, k).milli <= free < least:
                best, least = d, free
    return best


@compiled
def freest(s: Any, n: int, k: int, guard: bool) -> int:
    """The device of node `n` with the most free for a share; -1 for other requests."""
    best, most = -1, -1
    if is_share(s, k):
        for d in range(node(s, n).gpus):
            free = free_at(s, n, d, guard)
            if free > most:
                best, most = d, free
    return best


@compiled
def best_fit(s: Any, n: int, k: int, guard: bool) -> int:
    """The least CPU and devices left over, each in parts of the largest, as in the FGD paper."""
    ask, asked = request(s, k), devices_of(s, k, node(s, n).type)
    cpu = (cpu_at(s, n, guard) - ask.cpu_milli) / s.cpu_max
    devices = (idle_milli(s, n, guard) - asked * ask.milli) / (WHOLE * s.width)
    return int(_FINE * (1.0 - 0.5 * cpu - 0.5 * devices))


@compiled
def pack(s: Any, n: int, k: int, guard: bool) -> int:
    """Devices in use before idle devices of nodes in use before idle nodes; then the fullest."""
    device, idle = tightest(s, n, k, guard), idle_milli(s, n, guard)
    score = WHOLE * s.width - idle
    if idle < WHOLE * node(s, n).gpus:
        score += _FULL
    if device >= 0 and free_at(s, n, device, guard) < WHOLE:
        score += _FULL
    return score


@compiled
def evaluate(s: Any, how: int, n: int, k: int, guard: bool) -> tuple[int, int]:
    """Score of node `n`, of a type that request `k` accepts, and the device for a share."""
    if not fits(s, n, k, guard):
        return UNFIT, -1
    if how == DUSUAN:
        return dusuan(s, n, k, guard)
    if how == FGD:
        return fgd(s, n, k, guard)
    if how == SPREADING:
        return idle_milli(s, n, guard), freest(s, n, k, guard)
    device = tightest(s, n, k, guard)
    if how == BEST_FIT:
        return best_fit(s, n, k, guard), device
    if how == PACK:
        return pack(s, n, k, guard), device
    return 0, device
