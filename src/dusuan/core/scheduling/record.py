"""The log of live rounds: what each saw that was not to be expected, and what it decided.

An `Entry` is one line. It holds the difference between what the round saw and what `live.after`
made of the entry before, so a reader who evolves a sight by decisions of its own, and by what the
entry says of the world, sees what the round saw. Now and then an entry has the sight as a `whole`;
the first after a start of the service is `fresh`: what came between it and the one before is
unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby
from typing import Any

from dusuan.core.plain import Key, NotPlain, apart, difference, patched
from dusuan.core.scheduling.live import (
    Moves,
    Placed,
    Sight,
    Waiting,
    claims_of,
    placed_key,
    share_key,
    waiting_key,
    without,
)
from dusuan.core.scheduling.model import DeviceSlot, Plan, Share, Wait, WaitCode
from dusuan.core.scheduling.policy import PolicyParts

FORMAT = "dusuan-rounds"
VERSION = 1
KEYS = {
    DeviceSlot: Key(lambda d: d.device),
    Share: Key(share_key, share_key),
    Placed: Key(placed_key, placed_key),
    Waiting: Key(lambda each: each.job.job_id, waiting_key),
}
RUNS_FROM = 32  # so many changed reasons may be shorter as runs over the whole queue


@dataclass(frozen=True, slots=True)
class Left:
    """What became of a job that had devices, or waited, and is not there any more.

    `to` is its state then, `why` its attempt (or it) ended; `ran_ms` how long the attempt ran, None
    for a job that only waited. `at_ms` is Unix time.
    """

    to: str
    why: str | None = None
    at_ms: int | None = None
    ran_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """The next so many jobs of the queue wait for one reason."""

    code: str
    jobs: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One round. `quiet` rounds before it saw and did nothing new, the last of them at `quiet_ms`.

    `waits` has the jobs whose reason changed, by its code; or `runs` the reasons of the whole
    queue, in its order. `lost`: it decided, but why and what could not be written down.
    """

    n: int
    at_ms: int
    quiet: int = 0
    quiet_ms: int | None = None
    fresh: bool = False
    lost: str | None = None
    policy: PolicyParts | None = None
    left: Mapping[str, Left] = field(default_factory=dict)
    seen: Mapping[str, Any] = field(default_factory=dict)
    whole: Sight | None = None
    moves: Moves = field(default_factory=Moves)
    waits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    runs: tuple[Run, ...] | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a file."""

    format: str = FORMAT
    version: int = VERSION
    software: str = ""
    exported_at: str = ""


# --- writing -----------------------------------------------------------------------------------


def bare(sight: Sight) -> Sight:
    """The sight without words: names of accounts, and reasons from outside, which say amounts."""
    if any(share.name for share in sight.pool.shares):
        nameless = tuple(replace(share, name="") for share in sight.pool.shares)
        sight = replace(sight, pool=replace(sight.pool, shares=nameless))
    if not sight.blocked and sight.trouble is None:
        return sight
    blocked = {name: _bare(wait.code) for name, wait in sight.blocked.items()}
    return replace(sight, blocked=blocked, trouble=sight.trouble and _bare(sight.trouble.code))


@cache
def _bare(code: WaitCode) -> Wait:
    return Wait(code, "", "")


def leavers(before: Sight, now: Sight) -> tuple[list[str], list[str]]:
    """Jobs of `before` that have no devices any more, and those that waited and are gone."""
    ran, placed = _names_apart(before.placed, now.placed)
    waited, waiting = _names_apart(before.waiting, now.waiting)
    return (
        [name for name in ran if name not in placed],
        [name for name in waited if name not in placed and name not in waiting],
    )


def _names_apart(
    before: Sequence[Placed | Waiting], now: Sequence[Placed | Waiting]
) -> tuple[list[str], set[str]]:
    """The ids of both, without those that are the same object in both: most of very many."""
    old, new = apart(before, now)
    return [each.job.job_id for each in old], {each.job.job_id for each in new}


def outside(expected: Sight, seen: Sight, left: Iterable[str]) -> dict[str, Any]:
    """What a round saw beside what was to be expected, when these jobs have left."""
    return difference(without(expected, left), seen, KEYS)


def codes_of(sight: Sight, moves: Moves, plan: Plan) -> dict[str, str]:
    """Why the rules let each job wait, in the order of the queue."""
    return {name: plan.waits[name].code.value for name in waiters(sight, moves)}


def waiters(sight: Sight, moves: Moves) -> list[str]:
    """Jobs to which the rules gave a reason to wait, in the order of the queue."""
    if sight.trouble:
        return []
    without_reason = {each.job.job_id for each in claims_of(sight).values()}
    without_reason |= {start.job_id for start in moves.starts} | sight.blocked.keys()
    names = (each.job.job_id for each in sight.waiting)
    return [name for name in names if name not in without_reason]


def reasons_told(
    old: Mapping[str, str] | None, now: Mapping[str, str]
) -> tuple[dict[str, tuple[str, ...]], tuple[Run, ...] | None]:
    """`waits` and `runs` of an entry, whichever is shorter; all of them when `old` is None."""
    changed = {name: code for name, code in now.items() if old is None or old.get(name) != code}
    if old is None or len(changed) > RUNS_FROM:
        runs = tuple(Run(code, len(list(group))) for code, group in groupby(now.values()))
        if old is None or 2 * len(runs) < len(changed):
            return {}, runs
    waits: dict[str, list[str]] = {}
    for name, code in changed.items():
        waits.setdefault(code, []).append(name)
    return {code: tuple(names) for code, names in waits.items()}, None


# --- reading -----------------------------------------------------------------------------------


def unheld(sight: Sight) -> Sight:
    """The sight of a log that told holders with the devices too, as logs did once."""
    if all(device.holder is None for device in sight.pool.devices):
        return sight
    devices = tuple(replace(device, holder=None) for device in sight.pool.devices)
    return replace(sight, pool=replace(sight.pool, devices=devices))


def evolved(expected: Sight, entry: Entry) -> Sight:
    """What the round of `entry` saw, for a reader who expected `expected`.

    Raises `NotPlain` where the entry does not fit what came before it.
    """
    seen: Sight = patched(without(expected, entry.left), entry.seen, KEYS)
    return unheld(seen)


def reasons_read(entry: Entry, old: Mapping[str, str], queue: Sequence[str]) -> dict[str, str]:
    """The code of every job of `queue` (as by `waiters`). Raises `NotPlain`."""
    if entry.runs is not None:
        codes = [run.code for run in entry.runs for _ in range(run.jobs)]
        if len(codes) != len(queue):
            raise NotPlain(f"it has reasons for {len(codes)} jobs, and {len(queue)} wait")
        return dict(zip(queue, codes, strict=True))
    changed = {name: code for code, names in entry.waits.items() for name in names}
    return {name: changed.get(name) or old.get(name, "") for name in queue}
