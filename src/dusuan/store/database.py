"""The one place that talks to PostgreSQL: a pool, transactions, and typed rows of named queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import psycopg
from psycopg import sql as psycopg_sql
from psycopg.rows import class_row, dict_row, tuple_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from dusuan.store.sql import queries

Row = TypeVar("Row")
Out = TypeVar("Out")
CHANNEL = "dusuan"
# A process that is frozen in the middle of a transaction must not keep what it had locked.
IDLE_IN_TRANSACTION_S_MAX = 5

_STATEMENTS = {
    name: psycopg_sql.SQL(cast(Any, text))  # the text is a file of ours, never input
    for name, text in queries().items()
}


def json(value: Any) -> Jsonb:
    """`value` as a jsonb parameter."""
    return Jsonb(value)


_NUMBERS, _TEXTS = {int, bool, type(None)}, {str, type(None)}


def as_array(values: list[Any]) -> str | list[Any]:
    """A list of numbers, truths or text as PostgreSQL writes an array; others are the driver's.

    The driver adapts a list one value at a time, which a tick of thousands of jobs would notice.
    """
    kinds = set(map(type, values))
    if kinds <= _NUMBERS:
        return "{" + ",".join(map(str, values)).replace("None", "NULL") + "}"
    if kinds == {str}:
        whole = "".join(values)
        if '"' not in whole and "\\" not in whole:
            return '{"' + '","'.join(values) + '"}'
    return "{" + ",".join(map(_element, values)) + "}" if kinds <= _TEXTS else values


def _element(value: str | None) -> str:
    if value is None:
        return "NULL"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _bound(params: dict[str, Any]) -> dict[str, Any]:
    return {k: as_array(v) if isinstance(v, list) else v for k, v in params.items()}


@dataclass(frozen=True, slots=True)
class Look(Generic[Out]):
    """A read that is one statement: its query, its parameters, and what its rows come to.

    `answer` takes every row as a `row`; it only decides, and raises for what cannot be shown.
    """

    query: str
    params: Mapping[str, Any]
    row: type[Any]
    answer: Callable[[list[Any]], Out]


class Sent:
    """A statement whose answer is known when its `together` has ended."""

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    @property
    def touched(self) -> int:
        """How many rows it touched."""
        return self._cursor.rowcount


class Tx:
    """One open transaction. Parameters are named; rows come back as the given dataclass."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._together = False

    def all(self, row: type[Row], name: str, /, **params: Any) -> list[Row]:
        """Every row of query `name`."""
        with self._connection.cursor(row_factory=class_row(row)) as cursor:
            return cursor.execute(_STATEMENTS[name], _bound(params)).fetchall()

    def one(self, row: type[Row], name: str, /, **params: Any) -> Row | None:
        """The first row of query `name`, or None."""
        with self._connection.cursor(row_factory=class_row(row)) as cursor:
            return cursor.execute(_STATEMENTS[name], _bound(params)).fetchone()

    def look(self, look: Look[Out]) -> Out:
        """What `look` answers, in this transaction."""
        return look.answer(self.all(look.row, look.query, **look.params))

    def dicts(self, name: str, /, **params: Any) -> list[dict[str, Any]]:
        """Every row of query `name`, as dictionaries."""
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(_STATEMENTS[name], _bound(params)).fetchall()

    def tuples(self, name: str, /, **params: Any) -> list[tuple[Any, ...]]:
        """Every row of query `name`, as plain tuples: for rows by the ten thousand."""
        with self._connection.cursor(row_factory=tuple_row) as cursor:
            return cursor.execute(_STATEMENTS[name], _bound(params)).fetchall()

    def run(self, name: str, /, **params: Any) -> int:
        """Run statement `name`; how many rows it touched."""
        return self._connection.execute(_STATEMENTS[name], _bound(params)).rowcount

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is sent inside goes to the server without waiting; leaving waits for all of it."""
        if self._together:
            yield
            return
        self._together = True
        try:
            with self._connection.pipeline():
                yield
        finally:
            self._together = False

    def send(self, name: str, /, **params: Any) -> Sent:
        """Run statement `name`; inside `together`, without waiting for it."""
        return Sent(self._connection.execute(_STATEMENTS[name], _bound(params)))

    def wake(self) -> None:
        """Tell the service, when this transaction commits, that there is something to do."""
        self._connection.execute("NOTIFY " + CHANNEL)


class TermOver(psycopg.OperationalError):
    """Another service leads by now: this one's sessions are refused."""


class Store:
    """A pool of connections to one database. `timeout_s`: how long to wait for one of them.

    With `term` it is the pool of a leader: its sessions bear the term in their name, by which a
    later leader ends them, and none is opened any more once there is a later term.
    """

    def __init__(
        self,
        url: str,
        *,
        min_size: int = 1,
        max_size: int = 16,
        timeout_s: float = 10.0,
        term: int | None = None,
    ) -> None:
        self.url = url
        self._term = term
        name = "dusuan" if term is None else f"dusuan loop {term}"
        self._pool = ConnectionPool(
            url,
            kwargs={"application_name": name},
            configure=self._configure,
            min_size=min_size,
            max_size=max_size,
            open=False,
            timeout=timeout_s,
            check=ConnectionPool.check_connection,  # after a restart of the server none is usable
        )
        # Reads are short and many: their connections are not asked first whether they still work,
        # and begin their transactions themselves, which halves the cost of each.
        self._readers = ConnectionPool(
            url,
            kwargs={"autocommit": True, "application_name": "dusuan reads"},
            min_size=0,
            max_size=max(1, max_size // 2),
            open=False,
            timeout=timeout_s,
        )

    def open(self, *, wait: bool = True) -> None:
        """Connect. Raises `psycopg_pool.PoolTimeout` when the server does not answer in 10 s.

        Without `wait` it goes on trying.
        """
        self._pool.open(wait=wait, timeout=10.0)
        self._readers.open()

    def close(self) -> None:
        """Give every connection back."""
        self._pool.close()
        self._readers.close()

    def _configure(self, connection: psycopg.Connection[Any]) -> None:
        """Prepare a new session, in the order that fencing needs: it has its name already."""
        bound = f"SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_S_MAX}s'"
        connection.execute(bound.encode())
        if self._term is not None:
            row = connection.execute("SELECT term FROM centre").fetchone()
            if row is None or row[0] != self._term:
                raise TermOver(f"term {self._term} is over")
        connection.commit()

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """One transaction: committed on leaving, rolled back by an exception."""
        with self._pool.connection() as connection, connection.transaction():
            yield Tx(connection)

    @contextmanager
    def snapshot(self) -> Iterator[Tx]:
        """A read-only transaction that sees one moment of the whole database."""
        with self._pool.connection() as connection, connection.transaction():
            connection.execute(
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;"
                " SET LOCAL idle_in_transaction_session_timeout = 0"  # it locks nothing
            )
            yield Tx(connection)

    def of_term(self, term: int, timeout_s: float) -> Store:
        """A pool of the same database for the loop of a leader of `term`, opened."""
        store = Store(self.url, max_size=4, timeout_s=timeout_s, term=term)
        store.open()
        return store

    def read(self, verb: Callable[[Tx], Out]) -> Out:
        """What `verb` answers, on one moment of the database. It may run twice.

        The second time when the connection turns out to be broken: then all of them are looked at.
        """
        try:
            return self._read(verb)
        except psycopg.OperationalError:
            self._readers.check()
            return self._read(verb)

    def _read(self, verb: Callable[[Tx], Out]) -> Out:
        with self._readers.connection() as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                return verb(Tx(connection))
            finally:
                if not connection.broken:
                    connection.execute("ROLLBACK")  # nothing was written

    def listen(self) -> psycopg.Connection[Any]:
        """A connection of its own that is told of every `Tx.wake`."""
        connection = psycopg.connect(self.url, autocommit=True, application_name="dusuan listener")
        connection.execute("LISTEN " + CHANNEL)
        return connection
