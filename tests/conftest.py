"""Fixtures for every test: one real PostgreSQL server, and a fresh database where one is asked."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql

from dusuan.store.embedded import EmbeddedPostgres, with_database
from dusuan.store.migrate import migrate

# The suite tries the same examples every time, so that a change is judged by itself. `make search`
# looks for new ones.
settings.register_profile("suite", derandomize=True)
settings.register_profile("search", print_blob=True)
settings.load_profile("suite")

# A test's database need not survive a power cut, so the server need not wait for the disk.
HASTY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the test session's own server. Do not write to the database it names."""
    folder = tmp_path_factory.mktemp("postgres")
    server = EmbeddedPostgres(folder, settings=HASTY)
    yield server.start()
    server.stop()
    shutil.rmtree(folder)  # pytest would keep its 40 MB


def create_database(postgres_url: str, template: str = "template1") -> str:
    """Create a database of a new name as a copy of `template`; returns its URL."""
    name = f"test_{uuid.uuid4().hex}"
    statement = sql.SQL("create database {} template {}")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return with_database(postgres_url, name)


def drop_database(postgres_url: str, url: str) -> None:
    """Drop a database made by `create_database`, ending whoever is still connected to it."""
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("drop database {} with (force)").format(sql.Identifier(str(name)))
        )


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """URL of an empty database of this test alone, dropped after it."""
    url = create_database(postgres_url)
    yield url
    drop_database(postgres_url, url)


# What migrations wrote is kept beside the tables. `replica`: what is append-only for dusuan is
# not so for us.
KEEP = """
CREATE SCHEMA fresh;
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('CREATE TABLE fresh.%I AS TABLE public.%I', name, name);
    END LOOP;
END $$;
"""
EMPTY = """
SET session_replication_role = replica;
SET lock_timeout = '20s';
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'fresh' LOOP
        EXECUTE format('DELETE FROM public.%I', name);
        EXECUTE format('INSERT INTO public.%I OVERRIDING SYSTEM VALUE TABLE fresh.%I', name, name);
    END LOOP;
END $$;
"""


def empty_database(url: str) -> None:
    """Make the database at `url`, on which KEEP ran, as it was then."""
    with psycopg.connect(url) as connection:
        connection.execute(EMPTY.encode())


@pytest.fixture(scope="session")
def migrated_url(postgres_url: str) -> Iterator[str]:
    """URL of the session's one migrated database, which tests share one after another."""
    url = create_database(postgres_url)
    migrate(url)
    with psycopg.connect(url) as connection:
        connection.execute(KEEP.encode())
    yield url
    drop_database(postgres_url, url)


@pytest.fixture
def clean_url(migrated_url: str) -> str:
    """The migrated database with nothing in it: far cheaper than a copy of one."""
    empty_database(migrated_url)
    return migrated_url
