"""Bring a database to this version's schema with Alembic, under a lock, or say why that fails.

Alembic and SQLAlchemy are imported only where there is something to do: they take half of the time
that a service needs to be back after it was killed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    import sqlalchemy
    from alembic.config import Config

_FOLDER = Path(__file__).parent / "migrations"


class SchemaTooNew(Exception):
    """The database was written by a newer version of dusuan than this one."""


class DatabaseUnreachable(Exception):
    """The database server does not answer."""


def sqlalchemy_url(url: str) -> str:
    """`url` with the driver named, as SQLAlchemy wants it."""
    for prefix in ("postgresql://", "postgres://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    return url


def migrate(url: str) -> None:
    """Upgrade the database at `url` to the newest revision this version knows.

    Raises `SchemaTooNew` when the database is at a revision that this version does not know,
    `DatabaseUnreachable` when it does not answer.
    """
    if revision_of(url) != newest_revision():
        _migrate(url)


def newest_revision() -> str:
    """The revision that this version's migrations lead to: their files are named in order."""
    return max(file.name[:4] for file in (_FOLDER / "versions").glob("[0-9]*.py"))


def revision_of(url: str) -> str | None:
    """The revision a database is at; None for an empty one. Raises `DatabaseUnreachable`."""
    try:
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    except psycopg.OperationalError as error:
        raise DatabaseUnreachable(str(error)) from error
    return None if row is None else str(row[0])


def _migrate(url: str) -> None:
    import sqlalchemy
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    engine = sqlalchemy.create_engine(sqlalchemy_url(url), poolclass=sqlalchemy.NullPool)
    try:
        _upgrade(config, engine)
    except sqlalchemy.exc.OperationalError as error:
        raise DatabaseUnreachable(str(error.orig)) from error
    finally:
        engine.dispose()


def _upgrade(config: Config, engine: sqlalchemy.Engine) -> None:
    import sqlalchemy
    from alembic import command
    from alembic.script import ScriptDirectory
    from alembic.util.exc import CommandError

    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(7402001)"))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            known = ScriptDirectory.from_config(config).get_current_head()
            raise SchemaTooNew(
                f"the database is newer than this version of dusuan (which knows {known}): {error}"
            ) from error
