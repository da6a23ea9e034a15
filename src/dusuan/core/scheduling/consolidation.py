"""Making room by moving: which preemptible requests have to move so that another fits.

A gang of eight devices finds no node when every node has a device or two in use, though enough are
idle in all. Moving a few small jobs (checkpoint, stop, start elsewhere) opens a node for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dusuan.core.scheduling.packing import Packing

NODES_MAX = 32  # looked at, those with the least to move first


@dataclass(frozen=True, slots=True)
class Held:
    """What a running job holds: its kind of request, its node, its devices as bits."""

    job: int
    request: int
    node: int
    devices: int
    movable: bool = True  # preemptible, and past its minimum run time


@dataclass(frozen=True, slots=True)
class Move:
    """Job `job` moves to `devices` (bits) of `node`."""

    job: int
    node: int
    devices: int


@dataclass(frozen=True, slots=True)
class Room:
    """Where the request goes, and who has to move for it; `moved_milli` of devices in all."""

    node: int
    devices: int
    moves: tuple[Move, ...]
    moved_milli: int


def make_room(packing: Packing, request: int, held: Sequence[Held]) -> Room | None:
    """The cheapest moves that let `request` in, or None. `packing` is left as if they were made.

    The cost of a move is what moves of devices. Of the `NODES_MAX` nodes where the least would have
    to move, the first whose jobs all find another place is taken. Nobody moves where it fits.
    """
    n = packing.choose(request)
    if n >= 0:
        return Room(n, packing.take(n, request), (), 0)
    on_node: dict[int, list[Held]] = {}
    for each in held:
        if each.movable:
            on_node.setdefault(each.node, []).append(each)
    asked = {each.job: _milli(packing, each.request) for each in held}
    plans = [
        (sum(asked[each.job] for each in leaving), node, leaving)
        for node in on_node
        if (leaving := _leaving(packing, request, node, on_node[node], asked)) is not None
    ]
    for cost, node, leaving in sorted(plans, key=lambda plan: plan[:2])[:NODES_MAX]:
        room = _tried(packing, request, node, leaving, cost)
        if room is not None:
            return room
    return None


def _milli(packing: Packing, request: int) -> int:
    kind = packing.requests[request]
    return int(kind["devices"]) * int(kind["milli"])


def _leaving(
    packing: Packing, request: int, node: int, there: list[Held], asked: dict[int, int]
) -> list[Held] | None:
    """The smallest jobs of a node without which `request` fits there; None if it never does."""
    leaving: list[Held] = []
    for each in sorted(there, key=lambda each: (asked[each.job], each.job)):
        packing.give_back(node, each.request, each.devices)
        leaving.append(each)
        if packing.evaluate(node, request)[0] >= 0:
            break
    fits = packing.evaluate(node, request)[0] >= 0
    for each in leaving:
        packing.retake(node, each.request, each.devices)
    return leaving if fits else None


def _tried(
    packing: Packing, request: int, node: int, leaving: list[Held], cost: int
) -> Room | None:
    """Move them and place `request`; all is undone when somebody finds no other place."""
    for each in leaving:
        packing.give_back(node, each.request, each.devices)
    devices = packing.take(node, request)
    moves: list[Move] = []
    for each in reversed(leaving):  # the large ones are the hardest to place
        n = packing.choose(each.request)
        if n < 0:
            break
        moves.append(Move(each.job, n, packing.take(n, each.request)))
    if len(moves) == len(leaving):
        return Room(node, devices, tuple(moves), cost)
    for move, each in zip(moves, reversed(leaving), strict=False):
        packing.give_back(move.node, each.request, move.devices)
    packing.give_back(node, request, devices)
    for each in leaving:
        packing.retake(node, each.request, each.devices)
    return None
