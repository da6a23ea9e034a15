"""The best node for a kind of request without looking at all of them.

A tournament tree over the nodes of one type keeps their scores for one kind of request under one
placement; its root has the best. A tree is brought up to date when it is asked, by the nodes of
its type that changed since. So a decision costs the logarithm of the cluster's size, and is the
one that a scan of all nodes makes.

There is room for so many trees; two that fall on one place push each other out.
"""

from __future__ import annotations

from typing import Any

from dusuan.core.scheduling.compiled import compiled
from dusuan.core.scheduling.kernels.access import (
    change_of,
    free_of,
    kind,
    later_node,
    later_of,
    node,
    of_type,
    seen_of,
    tree_of,
    tree_state,
)
from dusuan.core.scheduling.kernels.score import UNFIT, evaluate

_PLACEMENTS = 16  # more than there are


@compiled
def changed(s: Any, n: int) -> None:
    """Note that node `n` is not as it was."""
    t = node(s, n).type
    change_of(s)[t, kind(s, t).changes & (s.ring - 1)] = node(s, n).place
    kind(s, t).changes += 1


@compiled
def alike(s: Any, n: int, m: int, guard: bool) -> bool:
    """Whether two nodes of one type are in the same state, device by device."""
    if not same_host(node(s, n), node(s, m)):
        return False
    if guard and not same_host(later_node(s, n), later_node(s, m)):
        return False
    for d in range(node(s, n).gpus):
        if free_of(s)[n, d] != free_of(s)[m, d]:
            return False
        if guard and later_of(s)[n, d] != later_of(s)[m, d]:
            return False
    return True


@compiled
def same_host(a: Any, b: Any) -> bool:
    """Whether two nodes have as many devices and as much CPU and memory free, and are up or not."""
    if a.gpus != b.gpus or (a.up < 1) != (b.up < 1) or a.whole != b.whole:
        return False
    return bool(a.cpu_free_milli == b.cpu_free_milli and a.memory_free_mib == b.memory_free_mib)


@compiled
def build(s: Any, i: int, how: int, k: int, t: int, guard: bool) -> None:
    """Score all nodes of type `t`; one in the state of the one before it scores the same."""
    tree, last = tree_of(s, i), -1
    for place in range(s.leaves):
        leaf = s.leaves + place
        if place >= kind(s, t).nodes:
            tree[leaf] = UNFIT
            continue
        n = of_type(s)[kind(s, t).first + place]
        if last >= 0 and alike(s, n, last, guard):
            tree[leaf] = tree[leaf - 1]
        else:
            tree[leaf] = evaluate(s, how, n, k, guard)[0]
        last = n
    for leaf in range(s.leaves - 1, 0, -1):
        tree[leaf] = max(tree[2 * leaf], tree[2 * leaf + 1])


@compiled
def update(s: Any, i: int, how: int, k: int, n: int, guard: bool) -> None:
    """Score node `n` anew, and carry it up as far as it matters."""
    tree, at = tree_of(s, i), s.leaves + node(s, n).place
    score = evaluate(s, how, n, k, guard)[0]
    if tree[at] == score:
        return
    tree[at] = score
    while at > 1:
        at //= 2
        larger = max(tree[2 * at], tree[2 * at + 1])
        if tree[at] == larger:
            return
        tree[at] = larger


@compiled
def place_of(s: Any, key: int) -> int:
    """Where the tree of `key` is kept; it may be another's by now."""
    return key // _PLACEMENTS % s.trees


@compiled
def refresh(s: Any, how: int, k: int, t: int, guard: bool) -> int:
    """Bring a tree up to date, each changed node once; returns where it is."""
    key = ((k * s.types + t) * 2 + guard) * _PLACEMENTS + how
    i = place_of(s, key)
    mine = tree_state(s, i)
    stale = mine.key != key or (guard and mine.stamp != s.later_stamp)
    if stale or kind(s, t).changes - mine.cursor > s.ring:
        build(s, i, how, k, t, guard)
        mine.key, mine.stamp = key, s.later_stamp
    elif mine.cursor < kind(s, t).changes:
        catch_up(s, i, how, k, t, guard)
    mine.cursor = kind(s, t).changes
    return i


@compiled
def catch_up(s: Any, i: int, how: int, k: int, t: int, guard: bool) -> None:
    """Look at the nodes that changed since the tree was asked last, each once."""
    s.refreshes += 1
    for change in range(tree_state(s, i).cursor, kind(s, t).changes):
        n = of_type(s)[kind(s, t).first + change_of(s)[t, change & (s.ring - 1)]]
        if seen_of(s)[n] != s.refreshes:
            seen_of(s)[n] = s.refreshes
            update(s, i, how, k, n, guard)


@compiled
def choose(s: Any, how: int, k: int, t: int, guard: bool) -> tuple[int, int]:
    """The best node of type `t` for request `k`, the first among equals, and its score; or -1."""
    i = refresh(s, how, k, t, guard)
    tree, at = tree_of(s, i), 1
    if tree[1] == UNFIT:
        return -1, UNFIT
    while at < s.leaves:
        at = 2 * at if tree[2 * at] == tree[at] else 2 * at + 1
    return of_type(s)[kind(s, t).first + at - s.leaves], tree[1]


@compiled
def scan(s: Any, how: int, k: int, t: int, guard: bool) -> tuple[int, int]:
    """The same by looking at all of them: what `choose` must equal."""
    best, found = UNFIT, -1
    for place in range(kind(s, t).nodes):
        n = of_type(s)[kind(s, t).first + place]
        score = evaluate(s, how, n, k, guard)[0]
        if score > best:
            best, found = score, n
    return found, best
