"""Reads without a thread: statements of one event loop, sent without waiting for those before them.

Each is a transaction of its own, so it sees one moment of the database, and everything that was
committed before it was asked. Many share one session, in PostgreSQL's pipeline mode: what is asked
in one turn of the event loop goes out together, and answers come back in order. That costs a tenth
of what a thread, a session and a transaction for each would.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
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
        self._opening = asyncio.Lock()
        self._closed = False

    async def look(self, look: Look[Out]) -> Out:
        """What `look` answers. Raises what its answer raises, and OperationalError.

        A session that turns out to be broken is given up, and the statement sent once more.
        """
        try:
            rows = await self._ask(look)
        except psycopg.OperationalError:
            rows = await self._ask(look)
        return look.answer(rows)

    def close(self) -> None:
        """End the sessions."""
        self._closed = True
        for line in self._lines:
            line.give_up("it is closed")

    async def _ask(self, look: Look[Any]) -> list[Any]:
        self._lines = [line for line in self._lines if line.works]
        if len(self._lines) < LINES and all(line.waiting for line in self._lines):
            await self._open()
        line = min(self._lines, key=lambda each: each.waiting)
        return await line.ask(look.query, look.params, look.row)

    async def _open(self) -> None:
        """One more session, by one of those who want it; with some already the others need not."""
        if self._lines and self._opening.locked():
            return
        async with self._opening:
            if self._closed:
                raise psycopg.OperationalError("it is closed")
            if all(line.waiting or not line.works for line in self._lines):
                self._lines.append(await _line_to(self._url))


@dataclass(slots=True)
class _Asked:
    """A statement on its way, and where its rows go."""

    query: str
    row: Callable[..., Any]
    answer: asyncio.Future[list[Any]]
    asked_s: float
    result: pq.abc.PGresult | None = None


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
        self._prepared: set[str] = set()
        self._loaders: dict[str, _Loader] = {}
        self._asked: deque[_Asked] = deque()
        self._flushing = False
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

    async def ask(
        self, query: str, params: Mapping[str, Any], row: Callable[..., Any]
    ) -> list[Any]:
        """The rows of a named query. Raises the database's error."""
        asked = _Asked(query, row, self._loop.create_future(), self._loop.time())
        try:
            self._send(query, params)
        except psycopg.Error as error:
            self.give_up(str(error))
            raise psycopg.OperationalError(_BROKEN) from error
        self._asked.append(asked)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return await asked.answer

    def give_up(self, why: str) -> None:
        """End the session; whoever waits gets an OperationalError."""
        self.works = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._watcher.cancel()
        self._pg.finish()
        while self._asked:
            answer = self._asked.popleft().answer
            if not answer.done():
                answer.set_exception(psycopg.OperationalError(why))

    def _send(self, query: str, params: Mapping[str, Any]) -> None:
        text, names = _numbered(query)
        name = query.encode()
        if query not in self._prepared:
            self._pg.send_prepare(name, text)
            self._prepared.add(query)
        self._pg.send_query_prepared(name, [_text(params[each]) for each in names])
        self._pg.pipeline_sync()

    def _flush(self) -> None:
        if self._pg.status == pq.ConnStatus.BAD:
            return
        try:
            left = self._pg.flush()
        except psycopg.Error as error:
            self.give_up(str(error))
            return
        self._flushing = bool(left)
        if left:  # more than the socket takes now
            self._loop.add_writer(self._socket, self._flush)
        else:
            self._loop.remove_writer(self._socket)

    def _receive(self) -> None:
        try:
            self._pg.consume_input()
            while self._asked and not self._pg.is_busy():
                if self._pg.status == pq.ConnStatus.BAD:
                    break
                self._take(self._pg.get_result())
        except psycopg.Error as error:
            self.give_up(str(error))
            return
        if self._pg.status == pq.ConnStatus.BAD or not (self.works or self._asked):
            self.give_up(_BROKEN)

    def _take(self, result: pq.abc.PGresult | None) -> None:
        """What comes: the result of a preparation, that of its statement, the end of both."""
        if result is None:  # stands between two results
            return
        asked = self._asked[0]
        if result.status != pq.ExecStatus.PIPELINE_SYNC:
            # The first error counts: what follows it is skipped.
            if asked.result is None or asked.result.status != pq.ExecStatus.FATAL_ERROR:
                asked.result = result
            return
        self._asked.popleft()
        if not asked.answer.done():  # else nobody waits any more
            self._settle(asked)

    def _settle(self, asked: _Asked) -> None:
        assert asked.result is not None
        if asked.result.status == pq.ExecStatus.TUPLES_OK:
            asked.answer.set_result(self._rows(asked, asked.result))
        else:
            self.works = False  # what was prepared here may not fit any more
            asked.answer.set_exception(errors.error_from_result(asked.result))

    def _rows(self, asked: _Asked, result: pq.abc.PGresult) -> list[Any]:
        loader = self._loaders.get(asked.query)
        if loader is None:
            names = [(result.fname(n) or b"").decode() for n in range(result.nfields)]
            loader = self._loaders[asked.query] = _Loader(Transformer(self._connection), names)
            loader.transformer.set_pgresult(result)
        loader.transformer.set_pgresult(result, set_loaders=False)
        names, row = loader.names, asked.row
        return loader.transformer.load_rows(
            0, result.ntuples, lambda values: row(**dict(zip(names, values, strict=True)))
        )

    def _watch(self) -> None:
        """A server that says nothing for too long is as good as gone."""
        now_s = self._loop.time()
        self._watcher = self._loop.call_later(ANSWER_S_MAX / 4, self._watch)
        if self._asked and now_s - self._asked[0].asked_s > ANSWER_S_MAX:
            self.give_up("the database did not answer in time")


@dataclass(frozen=True, slots=True)
class _Loader:
    """How the rows of one query become values; their names."""

    transformer: abc.Transformer
    names: list[str]


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
