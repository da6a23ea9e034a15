"""Reads without a thread: statements of one event loop, sent without waiting for those before them.

Each is a transaction of its own, so it sees one moment of the database, and everything that was
committed before it was asked. Many share one session, in PostgreSQL's pipeline mode: what is asked
in one turn of the event loop goes out together, and answers come back in order. That costs a tenth
of what a thread, a session and a transaction for each would.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from re import Match
from re import sub as replaced
from typing import Any, TypeVar

import psycopg
from psycopg import abc, errors, pq
from psycopg.adapt import Transformer

from dusuan.store.database import Look, as_array
from dusuan.store.sql import queries

Out = TypeVar("Out")
Values = list[bytes | None]
LINES = 4  # sessions: a long answer keeps only those waiting that share its own
ANSWER_S_MAX = 10.0
_BROKEN = "the connection to the database was lost"


class Reads:
    """Answers `Look`s on a few sessions of the database at `url`. For one event loop alone."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lines: list[_Line] = []
        self._opening: asyncio.Task[None] | None = None
        self._closed = False

    async def look(self, look: Look[Out]) -> Out:
        """What `look` answers. Raises what its answer raises, and OperationalError.

        When a session turns out to be broken, it and all that are as old are done with, and the
        statement is sent once more.
        """
        began_s, last = asyncio.get_running_loop().time(), False
        while True:
            try:
                rows = await self._ask(look)
            except _Skipped:  # another one has had its error for that, so there is an end to it
                continue
            except psycopg.OperationalError:
                if last:
                    raise
                last = True
                for line in self._lines:
                    line.retire(opened_before_s=began_s)
            else:
                return look.answer(rows)

    def close(self) -> None:
        """End the sessions."""
        self._closed = True
        for line in self._lines:
            line.give_up("it is closed")

    async def _ask(self, look: Look[Any]) -> list[Any]:
        working = self._working()
        if len(working) < LINES and all(line.waiting for line in working):
            await self._open()
        line = min(self._working(), key=lambda each: each.waiting, default=None)
        if line is None:
            raise psycopg.OperationalError(_BROKEN)
        return await line.ask(look)

    def _working(self) -> list[_Line]:
        self._lines = [line for line in self._lines if line.works]
        return self._lines

    async def _open(self) -> None:
        """One more session, for all who want it now; who can do without does not wait for it."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._begin())
        elif self._lines:
            return
        await asyncio.shield(self._opening)

    async def _begin(self) -> None:
        try:
            if self._closed:
                raise psycopg.OperationalError("it is closed")
            line = await _line_to(self._url)  # meanwhile the list may be another one
            self._lines.append(line)
        finally:
            self._opening = None


class _Skipped(psycopg.OperationalError):
    """An error before it in its pipeline kept the statement from being run."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A statement on its way, and where its rows go."""

    look: Look[Any]
    answer: asyncio.Future[list[Any]]
    asked_s: float


async def _line_to(url: str) -> _Line:
    connection = await psycopg.AsyncConnection.connect(
        url, autocommit=True, application_name="dusuan reads", connect_timeout=int(ANSWER_S_MAX)
    )
    return _Line(connection, asyncio.get_running_loop())


class _Line:
    """One session, and what was asked on it and not answered yet, oldest first."""

    def __init__(
        self, connection: psycopg.AsyncConnection[Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._connection = connection  # its own way to talk is not used any more
        self._pg = connection.pgconn
        self._loop = loop
        self._loaders: dict[str, abc.Transformer] = {}
        self._asked: deque[_Asked | None] = deque()  # None: a statement being prepared
        self._prepared: set[str] = set()
        self._unprepared: psycopg.Error | None = None
        self._sending = False
        self._opened_s = loop.time()
        self._ended = False
        self.works = True
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()
        self._socket = self._pg.socket
        loop.add_reader(self._socket, self._receive)
        self._watch()

    @property
    def waiting(self) -> int:
        """How many answers are still to come."""
        return len(self._asked)

    async def ask(self, look: Look[Any]) -> list[Any]:
        """The rows of a statement. Raises the database's error."""
        asked = _Asked(look, self._loop.create_future(), self._loop.time())
        try:
            self._add(look)
        except psycopg.Error as error:
            self.give_up(str(error))
            raise psycopg.OperationalError(_BROKEN) from error
        self._asked.append(asked)
        if not self._sending:
            self._sending = True
            self._loop.call_soon(self._send)
        return await asked.answer

    def retire(self, opened_before_s: float) -> None:
        """Take no more statements, if it was opened before that; it ends with its last answer."""
        if self._opened_s <= opened_before_s:
            self.works = False
            if not self._asked:
                self.give_up(_BROKEN)

    def give_up(self, why: str) -> None:
        """End the session; whoever waits gets an OperationalError."""
        self.works = False
        if self._ended:
            return  # its socket's number may be another's by now
        self._ended = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._watcher.cancel()
        self._pg.finish()
        while self._asked:
            asked = self._asked.popleft()
            if asked is not None and not asked.answer.done():
                asked.answer.set_exception(psycopg.OperationalError(why))

    def _add(self, look: Look[Any]) -> None:
        text, names = _numbered(look.query)
        name = look.query.encode()
        if look.query not in self._prepared:
            self._pg.send_prepare(name, text)
            self._prepared.add(look.query)
            self._asked.append(None)
        self._pg.send_query_prepared(name, [_text(look.params[each]) for each in names])

    def _send(self) -> None:
        """Send what was asked in this turn of the event loop, with one end for all of it."""
        self._sending = False
        if self.works or self._asked:
            self._attempt(self._pg.pipeline_sync)
            self._flush()

    def _flush(self) -> None:
        """A socket that does not take it all now is asked again."""
        if self._attempt(self._pg.flush):
            self._loop.add_writer(self._socket, self._flush)
        elif not self._ended:
            self._loop.remove_writer(self._socket)

    def _attempt(self, step: Callable[[], Any]) -> Any:
        """What `step` returns; nothing when the session turns out to be broken."""
        if self._pg.status == pq.ConnStatus.BAD:
            return None
        try:
            return step()
        except psycopg.Error as error:
            self.give_up(str(error))
            return None

    def _receive(self) -> None:
        self._attempt(self._take_all)
        if self._pg.status == pq.ConnStatus.BAD or not (self.works or self._asked):
            self.give_up(_BROKEN)

    def _take_all(self) -> None:
        self._pg.consume_input()
        while self._asked and not self._pg.is_busy() and self._pg.status == pq.ConnStatus.OK:
            result = self._pg.get_result()
            # Nothing stands between two results; an end needs no answer.
            if result is not None and result.status != pq.ExecStatus.PIPELINE_SYNC:
                self._take(self._asked.popleft(), result)

    def _take(self, asked: _Asked | None, result: pq.abc.PGresult) -> None:
        done = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
        if result.status not in done:
            self.works = False  # what was prepared here may not fit any more
        skipped = result.status == pq.ExecStatus.PIPELINE_ABORTED
        if asked is None:
            failed = not skipped and result.status not in done
            self._unprepared = errors.error_from_result(result) if failed else None
        elif asked.answer.done():  # nobody waits any more
            return
        elif skipped:
            asked.answer.set_exception(self._unprepared or _Skipped("skipped"))
            self._unprepared = None
        elif result.status not in done:
            asked.answer.set_exception(errors.error_from_result(result))
        else:
            self._answer(asked, result)

    def _answer(self, asked: _Asked, result: pq.abc.PGresult) -> None:
        """Make rows now: the driver needs the session for that, which may end the next moment."""
        try:
            asked.answer.set_result(self._rows(asked.look, result))
        except Exception as error:
            asked.answer.set_exception(error)

    def _rows(self, look: Look[Any], result: pq.abc.PGresult) -> list[Any]:
        loader = self._loaders.get(look.query)
        if loader is None:
            names = [(result.fname(n) or b"").decode() for n in range(result.nfields)]
            _check_columns(look, names)
            loader = self._loaders[look.query] = Transformer(self._connection)
            loader.set_pgresult(result)
        loader.set_pgresult(result, set_loaders=False)
        row = look.row
        return loader.load_rows(0, result.ntuples, lambda values: row(*values))

    def _watch(self) -> None:
        """A server that says nothing for too long is as good as gone."""
        self._watcher = self._loop.call_later(ANSWER_S_MAX / 4, self._watch)
        oldest = next((asked for asked in self._asked if asked is not None), None)
        if oldest is not None and self._loop.time() - oldest.asked_s > ANSWER_S_MAX:
            self.give_up("the database did not answer in time")


def _check_columns(look: Look[Any], names: list[str]) -> None:
    """Values go into a row by their places, so the columns have to stand as its fields do."""
    fields = list(inspect.signature(look.row).parameters)
    if names != fields:
        raise TypeError(f"{look.query} gives {names}, not the fields of {look.row.__name__}")


@cache
def _numbered(query: str) -> tuple[bytes, tuple[str, ...]]:
    """A named query with numbers for its parameters, and their names in that order."""
    numbers: dict[str, int] = {}

    def number(found: Match[str]) -> str:
        name = found[1]
        return "%" if name is None else f"${numbers.setdefault(name, len(numbers) + 1)}"

    text = replaced(r"%(?:\((\w+)\)s|%)", number, queries()[query])
    return text.encode(), tuple(numbers)


def _text(value: Any) -> bytes | None:
    """A parameter as PostgreSQL reads it; of which type it is, the statement says."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    return str(as_array(value) if isinstance(value, list) else value).encode()
