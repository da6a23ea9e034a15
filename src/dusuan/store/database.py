"""The one place that talks to PostgreSQL: a pool, transactions, and typed rows of named queries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import psycopg
from psycopg import sql as psycopg_sql
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from dusuan.store.sql import queries

Row = TypeVar("Row")
CHANNEL = "dusuan"
LEADER_LOCK = 7_402_002

_STATEMENTS = {
    name: psycopg_sql.SQL(cast(Any, text))  # the text is a file of ours, never input
    for name, text in queries().items()
}


def json(value: Any) -> Jsonb:
    """`value` as a jsonb parameter."""
    return Jsonb(value)


class Tx:
    """One open transaction. Parameters are named; rows come back as the given dataclass."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def all(self, row: type[Row], name: str, /, **params: Any) -> list[Row]:
        """Every row of query `name`."""
        with self._connection.cursor(row_factory=class_row(row)) as cursor:
            return cursor.execute(_STATEMENTS[name], params).fetchall()

    def one(self, row: type[Row], name: str, /, **params: Any) -> Row | None:
        """The first row of query `name`, or None."""
        with self._connection.cursor(row_factory=class_row(row)) as cursor:
            return cursor.execute(_STATEMENTS[name], params).fetchone()

    def dicts(self, name: str, /, **params: Any) -> list[dict[str, Any]]:
        """Every row of query `name`, as dictionaries."""
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(_STATEMENTS[name], params).fetchall()

    def run(self, name: str, /, **params: Any) -> int:
        """Run statement `name`; how many rows it touched."""
        return self._connection.execute(_STATEMENTS[name], params).rowcount

    def wake(self) -> None:
        """Tell the service, when this transaction commits, that there is something to do."""
        self._connection.execute("NOTIFY " + CHANNEL)


class Store:
    """A pool of connections to one database. `timeout_s`: how long to wait for one of them."""

    def __init__(
        self, url: str, *, min_size: int = 1, max_size: int = 16, timeout_s: float = 10.0
    ) -> None:
        self.url = url
        self._pool = ConnectionPool(
            url,
            min_size=min_size,
            max_size=max_size,
            open=False,
            timeout=timeout_s,
            check=ConnectionPool.check_connection,  # after a restart of the server none is usable
        )

    def open(self) -> None:
        """Connect. Raises `psycopg_pool.PoolTimeout` when the server does not answer in 10 s."""
        self._pool.open(wait=True, timeout=10.0)

    def close(self) -> None:
        """Give every connection back."""
        self._pool.close()

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """One transaction: committed on leaving, rolled back by an exception."""
        with self._pool.connection() as connection, connection.transaction():
            yield Tx(connection)

    @contextmanager
    def snapshot(self) -> Iterator[Tx]:
        """A read-only transaction that sees one moment of the whole database."""
        with self._pool.connection() as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield Tx(connection)

    def listen(self) -> psycopg.Connection[Any]:
        """A connection of its own that is told of every `Tx.wake`."""
        connection = psycopg.connect(self.url, autocommit=True)
        connection.execute("LISTEN " + CHANNEL)
        return connection

    @staticmethod
    def try_lead(connection: psycopg.Connection[Any]) -> bool:
        """Take the one leader's lock of the database for as long as `connection` lives."""
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LEADER_LOCK,)).fetchone()
        return bool(row and row[0])
