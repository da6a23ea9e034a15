"""A store whose transactions can be cut at any statement: the connection killed, or the code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from dusuan.store.database import Store, Tx


class CutError(Exception):
    """The process died here, as far as the transaction can tell."""


class Saboteur:
    """Cuts one transaction after so many of its statements. Unarmed it does nothing."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._side: psycopg.Connection[Any] | None = None
        self.left: int | None = None
        self.kills = False
        self.cuts = 0

    def arm(self, statements: int, *, kills: bool) -> None:
        """Cut after `statements`: by killing the server's process, or by an exception."""
        self.left, self.kills = statements, kills

    def disarm(self) -> bool:
        """Whether the cut did not come about."""
        unused, self.left = self.left is not None, None
        return unused

    def before(self, connection: psycopg.Connection[Any]) -> None:
        """Called before each statement."""
        if self.left is None:
            return
        self.left -= 1
        if self.left < 0:
            self.left = None
            self.cuts += 1
            if not self.kills:
                raise CutError
            self._kill(connection.info.backend_pid)

    def _kill(self, pid: int) -> None:
        if self._side is None or self._side.closed:
            self._side = psycopg.connect(self._url, autocommit=True)
        self._side.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    def close(self) -> None:
        """Give the side connection back."""
        if self._side is not None:
            self._side.close()


class _Watched:
    """A connection that asks the saboteur before every statement."""

    def __init__(self, connection: psycopg.Connection[Any], saboteur: Saboteur) -> None:
        self._connection, self._saboteur = connection, saboteur

    def cursor(self, **options: Any) -> Any:
        self._saboteur.before(self._connection)
        return self._connection.cursor(**options)

    def execute(self, *args: Any) -> Any:
        self._saboteur.before(self._connection)
        return self._connection.execute(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class CuttableStore(Store):
    """The platform's own store, watched."""

    def __init__(self, url: str, saboteur: Saboteur, **options: Any) -> None:
        super().__init__(url, **options)
        self.saboteur = saboteur

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """As ever, but for the watcher."""
        with super().transaction() as tx:
            yield Tx(_Watched(tx._connection, self.saboteur))
            self.saboteur.before(tx._connection)  # everything is written, nothing committed
