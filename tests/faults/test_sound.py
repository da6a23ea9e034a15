"""The check of the books is itself checked: every lie in them is found."""

from __future__ import annotations

import psycopg
import pytest
from tests.faults.conftest import Site, beats
from tests.faults.sound import assert_sound

# One wrong figure each, in a job that has been paid for.
LIES = {
    "charged twice": "UPDATE lot_use SET gflop = gflop * 2",
    "a gap in the bill": "UPDATE usage SET from_ms = from_ms + 1 WHERE seq = 1",
    "metered more than billed": "UPDATE attempt SET metered_ms = metered_ms + 1",
    "a balance that moved": "UPDATE ledger_account SET posted_dr = posted_dr + 1 WHERE path"
    " = 'acme:wallet'",
    "a lot that shrank": "UPDATE lot SET remaining_gflop = remaining_gflop - 1",
    "a hold that stayed open": "UPDATE hold SET resolved_at = NULL, settled_gflop = NULL",
    "two holders of a device": "UPDATE allocation SET to_at = NULL WHERE attempt_id ="
    " (SELECT min(attempt_id) FROM allocation)",
    "a job that ended twice": "UPDATE attempt SET state = 'running'",
    "more than its lease": "UPDATE attempt SET lease_held_ms = 1",
}


def test_every_lie_in_the_books_is_found(shared_site: Site) -> None:
    site = shared_site
    for _ in range(2):
        site.wait_end(site.submit("acme", beats(0.6)))
    site.assert_sound()
    url = site.database_url
    site.services[-1].kill()  # nobody else writes while the books lie
    site.await_death()
    missed = [name for name, lie in LIES.items() if not found(url, site, lie)]
    assert not missed
    assert_sound(url, site.data)


def found(url: str, site: Site, lie: str) -> bool:
    """Whether the lie is found; the books are set right again."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # no trigger helps it
        tables = ("usage", "lot_use", "attempt", "ledger_account", "lot", "hold", "allocation")
        for table in tables:
            connection.execute(f"CREATE TABLE kept_{table} AS TABLE {table}".encode())
        try:
            connection.execute(lie.encode())
            with pytest.raises(AssertionError):
                assert_sound(url, site.data)
        except (pytest.fail.Exception, psycopg.errors.IntegrityError) as error:
            return isinstance(error, psycopg.errors.IntegrityError)  # the database refuses it
        finally:
            restore(connection, tables)
    return True


def restore(connection: psycopg.Connection[object], tables: tuple[str, ...]) -> None:
    for table in tables:
        connection.execute(f"DELETE FROM {table}".encode())
        connection.execute(
            f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM kept_{table}".encode()
        )
        connection.execute(f"DROP TABLE kept_{table}".encode())
