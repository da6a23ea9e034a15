"""Who leads a database: one lock, a term that only grows, and sessions that end with their term.

The lock is an advisory lock of a session, so it is free the moment its holder dies. A holder that
is frozen keeps it, though: others see that its session has been silent for too long (it says
something every second), and end that session. Whoever gets the lock raises the term and ends every
session of earlier terms before it does anything; a session of an earlier term that is opened later
is refused when it is opened. So nothing an earlier leader does after that reaches the database,
wherever it was frozen, and no statement of a leader pays for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from dusuan.store.database import Tx
from dusuan.store.rows import Id

LEADER_LOCK = 7_402_002
_END_MS = 5_000


@dataclass(frozen=True, slots=True)
class _Granted:
    granted: bool


@dataclass(frozen=True, slots=True)
class _Holder:
    pid: int
    said: str


class NotOurs(Exception):
    """The database belongs to another data directory than this service's."""


class Leadership:
    """One service's claim to lead the database at `url`, for the data directory `data_dir`.

    `patience_s`: how long a leader may be silent, measured on `clock`, a steady clock in seconds of
    our own: the wall clock of no machine has a say in it.
    """

    def __init__(
        self, url: str, data_dir: str | None, patience_s: float, clock: Callable[[], float]
    ) -> None:
        self._connection = psycopg.connect(url, autocommit=True, application_name="dusuan leader")
        self._tx = Tx(self._connection)
        self._data_dir = data_dir
        self._patience_s = patience_s
        self._clock = clock
        self._seen: tuple[_Holder, float] | None = None

    def campaign(self) -> int | None:
        """The new term when we lead now; None while another does. Raises `NotOurs`.

        A leader that has been silent for `patience_s` is deposed, for the next try to succeed.
        """
        if not self._granted():
            self._watch(self._tx.one(_Holder, "lead_holder", lock=LEADER_LOCK))
            return None
        term = self._tx.one(Id, "lead_term", data_dir=self._data_dir)
        if term is None:
            raise NotOurs("this database belongs to another data directory")
        self._tx.dicts("loops_end", wait_ms=_END_MS)
        return term.id

    def beat(self) -> None:
        """Say that we live. Raises OperationalError when we lead no more, `NotOurs`."""
        if self._tx.one(Id, "lead_beat", data_dir=self._data_dir) is None:
            raise NotOurs("another data directory has taken this database over")

    def close(self) -> None:
        """Let go of the lock."""
        with contextlib.suppress(psycopg.Error):
            self._connection.close()

    def _granted(self) -> bool:
        answer = self._tx.one(_Granted, "lead_try", lock=LEADER_LOCK)
        return answer is not None and answer.granted

    def _watch(self, holder: _Holder | None) -> None:
        now_s = self._clock()
        if holder is None or self._seen is None or self._seen[0] != holder:
            self._seen = None if holder is None else (holder, now_s)
        elif now_s - self._seen[1] >= self._patience_s:
            self._tx.dicts("session_end", pid=holder.pid, wait_ms=_END_MS)


@contextlib.contextmanager
def candidate(*args: Any) -> Iterator[Leadership]:
    """A `Leadership` that is closed on leaving."""
    leadership = Leadership(*args)
    try:
        yield leadership
    finally:
        leadership.close()
