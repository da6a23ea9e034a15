"""Journals as unreliable as they may be: late, repeated, out of order, sometimes past a lease."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from dusuan.core.metering.journal import EndReason, Exit, Record, RecordKind
from dusuan.engines.base import Action, Capabilities, Device, Lease, Observation, StartOrder


@dataclass
class Journal:
    """One attempt as its node has it: what can be read, and what is written but not there yet."""

    order: StartOrder
    lease: Lease
    held_ms: int = 0
    over: bool = False
    lost: bool = False
    seen: list[Record] = field(default_factory=list)
    late: list[Record] = field(default_factory=list)


class Shepherds:
    """The engine protocol over those journals. `broken`: the next lease does not reach its node."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.devices = list(devices)
        self.journals: dict[str, Journal] = {}
        self.started: list[StartOrder] = []
        self.broken = False

    # -- what the nodes do ---------------------------------------------------------------------

    def work(self, rng: random.Random, attempt: str, ms: int, end: EndReason | None) -> None:
        """`ms` device-milliseconds pass; the journal says so, more or less in order."""
        journal = self.journals[attempt]
        journal.held_ms += ms
        marks = [journal.held_ms - rng.randrange(ms + 1) for _ in range(rng.choice((0, 0, 1, 2)))]
        fresh = [self._record(journal, mark) for mark in (*marks, journal.held_ms)]
        rng.shuffle(fresh)
        if journal.seen and rng.random() < 0.2:
            fresh.append(rng.choice(journal.seen))  # read twice
        if end is None and rng.random() < 0.1:
            journal.late += fresh
            return
        journal.seen += [*journal.late, *fresh]
        journal.late.clear()
        if end is not None:
            self._end(journal, end)

    def _end(self, journal: Journal, end: EndReason) -> None:
        journal.over, journal.lost = True, end is EndReason.LOST
        if not journal.lost:
            code = 0 if end is EndReason.EXIT else 75
            exit_ = Exit(end, code=code)
            journal.seen.append(self._record(journal, journal.held_ms, RecordKind.END, exit_))

    @staticmethod
    def _record(
        journal: Journal,
        held_ms: int,
        kind: RecordKind = RecordKind.TICK,
        ended: Exit | None = None,
    ) -> Record:
        return Record(len(journal.seen) + 1, kind, held_ms, 0, exit=ended)

    # -- the engine protocol -------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        """It can do everything."""
        return Capabilities("proof", "none: nothing runs", True, True, True)

    def inventory(self) -> Sequence[Device]:
        """The devices, all ready."""
        return self.devices

    def start(self, order: StartOrder) -> None:
        """The first record says that the job began."""
        if order.attempt_id not in self.journals:
            journal = Journal(order, order.lease)
            journal.seen.append(self._record(journal, 0, RecordKind.START))
            self.journals[order.attempt_id] = journal
            self.started.append(order)

    def observe(self, cursors: Mapping[str, int]) -> Sequence[Observation]:
        """What was written since."""
        found = []
        for attempt, cursor in cursors.items():
            journal = self.journals[attempt]
            fresh = tuple(journal.seen[cursor:])
            if fresh or journal.lost:
                found.append(
                    Observation(
                        attempt, cursor + len(fresh), fresh, lost=journal.lost and not fresh
                    )
                )
        return found

    def signal(self, attempt_id: str, action: Action) -> None:
        """Whoever is told may stop or not."""

    def set_lease(self, attempt_id: str, lease: Lease) -> None:
        """A lease only ever grows."""
        if self.broken:
            self.broken = False
            raise ConnectionError("the node cannot be reached")
        journal = self.journals.get(attempt_id)
        if journal is not None and lease.seq > journal.lease.seq:
            journal.lease = lease

    def trouble(self) -> str:
        """None that is known: what fails here fails unannounced."""
        return ""

    def remove_files(self, job_id: str, attempt_ids: Sequence[str]) -> None:
        """Nothing is kept."""

    def adopt(self) -> Sequence[str]:
        """Those that still run."""
        return [name for name, journal in self.journals.items() if not journal.over]

    def fileno(self) -> int | None:
        """Nothing tells."""
        return None

    def drain(self) -> None:
        """Nothing to read."""

    def read_log(self, attempt_id: str, offset: int, limit: int) -> bytes:  # noqa: ARG002 - protocol
        """They say nothing."""
        return b""

    def outputs(self, job_id: str) -> Sequence[tuple[str, int]]:  # noqa: ARG002 - protocol
        """They leave nothing."""
        return []

    def open_output(self, job_id: str, relative: str) -> BinaryIO:  # noqa: ARG002 - protocol
        """There is none."""
        raise FileNotFoundError(relative)
