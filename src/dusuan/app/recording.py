"""The log of live rounds, written in the transaction in which a round is applied.

A recorder remembers what the next round is to see, so that an entry has only what differs. It
begins anew, with the whole sight, whenever a service begins to lead; and it never keeps a round
from deciding.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog

from dusuan.core.metering.journal import EndReason
from dusuan.core.plain import to_plain
from dusuan.core.scheduling.live import Moves, Sight, after
from dusuan.core.scheduling.model import Plan
from dusuan.core.scheduling.policy import PolicyParts
from dusuan.core.scheduling.record import (
    Entry,
    Left,
    bare,
    codes_of,
    leavers,
    outside,
    reasons_told,
)
from dusuan.store import ledger
from dusuan.store.database import Tx
from dusuan.store.rows import Id, LeftRow

log = structlog.get_logger()

WHOLE_MS = 3_600_000  # a reader may begin at any hour
WHOLE_ENTRIES = 100  # ... or sooner, when many entries have grown to
WHOLE_TIMES = 4  # so many times the last whole sight


@dataclass(frozen=True, slots=True)
class _Known:
    """The last entry, and what the round after it is to see. Sizes are characters."""

    n: int
    sight: Sight
    codes: Mapping[str, str]
    policy: PolicyParts
    whole_ms: int
    whole_size: int
    entries: int = 0
    size: int = 0
    quiet: int = 0
    quiet_ms: int | None = None

    def is_due(self, now_ms: int) -> bool:
        """Whether the next entry is to have the whole sight."""
        grown = self.entries >= WHOLE_ENTRIES and self.size > WHOLE_TIMES * self.whole_size
        return grown or now_ms - self.whole_ms >= WHOLE_MS


@dataclass(frozen=True, slots=True)
class _Round:
    """What is to be written down of one round."""

    seen: Sight
    moves: Moves
    codes: Mapping[str, str]
    policy: PolicyParts
    now_ms: int


class Recorder:
    """Writes one entry a round that saw or did something new. One for each term of a leader."""

    def __init__(self) -> None:
        self._known: _Known | None = None

    def note(
        self,
        tx: Tx,
        sight: Sight,
        moves: Moves,
        plan: Plan,
        policy: PolicyParts,
        now: datetime,
    ) -> _Known | None:
        """Append the entry of a round; what to `keep` once `tx` is committed."""
        now_ms = ledger.unix_ms(now)
        try:
            seen = bare(sight)
            this = _Round(seen, moves, codes_of(seen, moves, plan), policy, now_ms)
            return self._write(tx, this, now)
        except (TypeError, ValueError, LookupError) as error:  # a bug here is no reason to stop
            log.exception("round_not_recorded")
            lost = Entry(_last(tx) + 1, now_ms, lost=type(error).__name__)
            _insert(tx, lost, now)
            return None

    def keep(self, known: _Known | None) -> None:
        """The transaction of what `note` answered is committed."""
        self._known = known

    def _write(self, tx: Tx, this: _Round, now: datetime) -> _Known:
        known = self._known
        if known is None:
            return self._begin(tx, this, now)
        leaving = leavers(known.sight, this.seen)
        news = _news(known, this, leaving)
        if _is_quiet(known, this, news, leaving):
            return replace(known, quiet=known.quiet + 1, quiet_ms=this.now_ms)
        if known.n != _last(tx):  # somebody else decided in between
            return self._begin(tx, this, now)
        entry = replace(news, left=_left(tx, *leaving, this.seen))
        entry = _whole(entry, this) if known.is_due(this.now_ms) else entry
        return _remembered(known, this, entry, _insert(tx, entry, now))

    def _begin(self, tx: Tx, this: _Round, now: datetime) -> _Known:
        entry = _fresh(this, _last(tx) + 1)
        return _remembered(None, this, entry, _insert(tx, entry, now))


_Leaving = tuple[list[str], list[str]]  # from where they were placed, from where they waited


def _news(known: _Known, this: _Round, leaving: _Leaving) -> Entry:
    """What the round saw that was not to be expected, and what it did."""
    waits, runs = reasons_told(known.codes, this.codes)
    return Entry(
        known.n + 1,
        this.now_ms,
        known.quiet,
        known.quiet_ms,
        policy=None if this.policy == known.policy else this.policy,
        seen=outside(known.sight, this.seen, itertools.chain(*leaving)),
        moves=this.moves,
        waits=waits,
        runs=runs,
    )


def _is_quiet(known: _Known, this: _Round, news: Entry, leaving: _Leaving) -> bool:
    said = any(leaving) or news.seen or news.policy or news.waits or news.runs is not None
    return not (said or this.moves.any or known.is_due(this.now_ms))


def _fresh(this: _Round, n: int) -> Entry:
    _, runs = reasons_told(None, this.codes)
    return Entry(
        n,
        this.now_ms,
        fresh=True,
        policy=this.policy,
        whole=this.seen,
        moves=this.moves,
        runs=runs,
    )


def _whole(news: Entry, this: _Round) -> Entry:
    """The same entry, for a reader who begins with it or has read all before."""
    _, runs = reasons_told(None, this.codes)
    return replace(news, whole=this.seen, policy=this.policy, waits={}, runs=runs)


def _left(tx: Tx, placed: list[str], waited: list[str], seen: Sight) -> dict[str, Left]:
    """What became of jobs that are not where they were, whatever the round did with them then."""
    if not placed and not waited:
        return {}
    rows = {row.id: row for row in tx.all(LeftRow, "jobs_left", ids=[*placed, *waited])}
    ran = {name: _how(rows[name], ran=True) for name in placed}
    for name in ran.keys() & {each.job.job_id for each in seen.waiting}:
        ran[name] = replace(ran[name], to="queued")
    return ran | {name: _how(rows[name], ran=False) for name in waited}


def _how(row: LeftRow, *, ran: bool) -> Left:
    at = row.ended_at if ran else row.finished_at
    at_ms = None if at is None else ledger.unix_ms(at)
    made_way = row.stop_asked == "preempted" and row.end_reason == EndReason.STOPPED
    why = row.end_reason if ran and not made_way else row.stop_reason
    if not ran or at_ms is None or row.began_at is None:
        return Left(row.state, why, at_ms)
    return Left(row.state, why, at_ms, max(at_ms - ledger.unix_ms(row.began_at), 0))


def _last(tx: Tx) -> int:
    last = tx.one(Id, "round_last")
    return last.id if last else 0


def _insert(tx: Tx, entry: Entry, now: datetime) -> int:
    line = line_of(entry)
    whole = entry.whole is not None
    tx.run("round_insert", n=entry.n, at=now, whole=whole, line=line)
    return len(line)


def line_of(entry: Entry) -> str:
    """The entry as one line of JSON."""
    document: dict[str, Any] = {"kind": "round", **to_plain(entry)}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _remembered(known: _Known | None, this: _Round, entry: Entry, size: int) -> _Known:
    then = after(this.seen, this.moves, this.now_ms)
    if known is None or entry.whole is not None:
        return _Known(entry.n, then, this.codes, this.policy, this.now_ms, size)
    return replace(
        known,
        n=entry.n,
        sight=then,
        codes=this.codes,
        policy=this.policy,
        entries=known.entries + 1,
        size=known.size + size,
        quiet=0,
        quiet_ms=None,
    )
