"""What a round reads, without reading again what cannot have changed since the last one.

At a hundred thousand devices nearly everything that a round sees is as it was. So a `Memory` keeps
the facts of the last round, each with a *stamp*: all of a row that may change while it is of
interest. Every round reads the stamps, and rows only where those are others. What is as it was is
the same object, by which all that comes after knows at a glance what has not changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from dusuan.core.scheduling.live import Placed, Sight, Waiting, placed_key, share_key, waiting_key
from dusuan.core.scheduling.model import (
    UNKNOWN,
    Cluster,
    DeviceSlot,
    QueuedJob,
    Request,
    RunningJob,
    Share,
    Wait,
)
from dusuan.store import ledger
from dusuan.store.database import Tx
from dusuan.store.rows import DeviceRow, Id, PlacedRow, Queued, RatedDevice, ShareRow, Stamp


@dataclass(frozen=True, slots=True)
class Inventory:
    """The devices, their order, and at what each model is metered, as of a `stamp`."""

    stamp: Stamp | None = None
    slots: tuple[DeviceSlot, ...] = ()
    rows: Mapping[str, RatedDevice] = field(default_factory=dict)
    ratings: Mapping[str, tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a round loads: rows, and the facts that they are for the rules, side by side."""

    inventory: Inventory = field(default_factory=Inventory)
    queued: tuple[Queued, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    placed: tuple[Placed, ...] = ()
    shares: tuple[Share, ...] = ()
    preempted_last_hour: int = 0

    def sight(self, blocked: Mapping[str, Wait], trouble: Wait | None = None) -> Sight:
        """The facts of a round."""
        pool = Cluster(
            self.inventory.slots,
            shares=self.shares,
            preempted_last_hour=self.preempted_last_hour,
        )
        return Sight(pool, self.placed, self.waiting, blocked, trouble)


@dataclass(frozen=True, slots=True)
class _Waiter:
    """A job that waits: its stamp and row, and what was made of them."""

    stamp: tuple[Any, ...]
    row: Queued
    fact: Waiting


@dataclass(frozen=True, slots=True)
class _Runner:
    """An attempt that has devices: its stamp, and what was made of its row."""

    stamp: tuple[Any, ...]
    fact: Placed


@dataclass(frozen=True, slots=True)
class _Known:
    """What the last round read: waiters by job, runners by attempt."""

    inventory: Inventory = field(default_factory=Inventory)
    waiters: Mapping[str, _Waiter] = field(default_factory=dict)
    runners: Mapping[str, _Runner] = field(default_factory=dict)


class Memory:
    """Loads snapshots. What it knows is replaced as a whole, so that any thread may ask."""

    def __init__(self) -> None:
        self._known = _Known()

    def load(self, tx: Tx, now: datetime) -> Snapshot:
        """The pool, the queue and who runs, as of one moment."""
        old = self._known
        known = _Known(
            _inventory(tx, old.inventory), _waiters(tx, old.waiters), _runners(tx, old.runners)
        )
        self._known = known
        waiting = sorted((each.fact for each in known.waiters.values()), key=waiting_key)
        placed = sorted((each.fact for each in known.runners.values()), key=placed_key)
        owners = {each.job.owner for each in waiting} | {each.job.owner for each in placed}
        stopped = tx.one(Id, "preempted_since", since=now - timedelta(hours=1))
        return Snapshot(
            known.inventory,
            tuple(each.row for each in known.waiters.values()),
            tuple(waiting),
            tuple(placed),
            _shares(tx, owners),
            stopped.id if stopped else 0,
        )


def _inventory(tx: Tx, known: Inventory) -> Inventory:
    """The devices, read again only when a row of theirs or a rating was written."""
    stamp = tx.one(Stamp, "devices_stamp")
    if stamp == known.stamp:
        return known
    rows = tx.all(RatedDevice, "devices_rated")
    slots = tuple(_slot(row) for row in rows)
    same = slots == known.slots
    return Inventory(
        stamp,
        known.slots if same else slots,
        {row.device: row for row in rows},
        ratings(rows),
    )


def _slot(d: RatedDevice) -> DeviceSlot:
    ready, rated = d.state == "ready", d.gflops is not None
    return DeviceSlot(d.device, d.node, d.kind, d.model, ready, rated, None, d.gflops or 0)


def ratings(devices: Iterable[DeviceRow | RatedDevice]) -> dict[str, tuple[int, str]]:
    """The rating at which every device of a model is metered, and its basis, by model.

    One model, one rating: the median of its devices' ratings, the lower one of two.
    """
    rated: dict[str, list[DeviceRow | RatedDevice]] = {}
    for d in devices:
        if d.gflops is not None:
            rated.setdefault(d.model, []).append(d)
    return {model: _median(of_model) for model, of_model in rated.items()}


def _median(rated: Sequence[DeviceRow | RatedDevice]) -> tuple[int, str]:
    gflops = sorted(d.gflops for d in rated if d.gflops is not None)
    bases = {d.basis for d in rated if d.basis}
    return gflops[(len(gflops) - 1) // 2], "/".join(sorted(bases))


# --- who waits ---------------------------------------------------------------------------------


def _waiters(tx: Tx, known: Mapping[str, _Waiter]) -> dict[str, _Waiter]:
    stamps = {stamp[0]: stamp for stamp in tx.tuples("queue_stamps")}
    found, stale = _as_they_were(stamps, known)
    for row in tx.all(Queued, "jobs_queued", ids=stale) if stale else ():
        found[row.id] = _Waiter(stamps[row.id], row, _waiting(row))
    return found


_Each = TypeVar("_Each", _Waiter, _Runner)


def _as_they_were(
    stamps: Mapping[str, tuple[Any, ...]], known: Mapping[str, _Each]
) -> tuple[dict[str, _Each], list[str]]:
    """Those whose stamp is the one that is known, and the names of the others."""
    found = {
        name: before
        for name, stamp in stamps.items()
        if (before := known.get(name)) is not None and before.stamp == stamp
    }
    return found, [name for name in stamps if name not in found]


def _waiting(job: Queued) -> Waiting:
    claim = tuple(job.claim or ())
    queued = QueuedJob(
        job.id,
        job.position,
        Request(job.count, job.kind, job.model),
        job.priority,
        yields=job.probe,
        owner=job.account_id,
        waits_since_ms=ledger.unix_ms(job.queued_at),
        expected_ms=_told(job.expected_ms),
        limit_ms=_told(job.wall_ms),
        tier=job.tier,
    )
    return Waiting(queued, job.grace_ms, job.requeues, claim, bool(claim) and not job.held)


def _told(ms: int | None) -> int:
    return UNKNOWN if ms is None else ms


# --- who runs ----------------------------------------------------------------------------------


def _runners(tx: Tx, known: Mapping[str, _Runner]) -> dict[str, _Runner]:
    """Attempts that have not ended. The devices of one are the same from its start to its end."""
    stamps = {stamp[0]: stamp for stamp in tx.tuples("placed_stamps")}
    found, stale = _as_they_were(stamps, known)
    for row in tx.all(PlacedRow, "jobs_placed", ids=stale) if stale else ():
        found[row.attempt_id] = _Runner(stamps[row.attempt_id], _placed(row))
    return found


def _placed(job: PlacedRow) -> Placed:
    running = RunningJob(
        job.id,
        tuple(sorted(job.devices)),
        ledger.unix_ms(job.since),
        _told(job.expected_ms),
        _told(job.wall_ms),
        job.tier,
        job.account_id,
    )
    return Placed(running, job.grace_ms, job.requeues, job.probe, job.stop_asked is not None)


# --- accounts ----------------------------------------------------------------------------------


def _shares(tx: Tx, owners: set[str]) -> tuple[Share, ...]:
    rows = tx.all(ShareRow, "shares_of", accounts=sorted(owners))
    return tuple(sorted(map(_share, rows), key=share_key))


def _share(row: ShareRow) -> Share:
    return Share(
        row.id,
        row.parent_id,
        row.weight,
        row.quota_devices,
        row.borrow_devices,
        row.lend_devices,
        row.usage_gflop,
        0 if row.usage_at is None else ledger.unix_ms(row.usage_at),
        row.path,
    )
