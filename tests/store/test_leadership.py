"""One leads; whoever led before can do nothing more, wherever it was stopped."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from dusuan.store.database import Store
from dusuan.store.leadership import Leadership, NotOurs
from dusuan.store.migrate import migrate

ADD = "package_insert"
VALUES = {"gflop": 1, "price_fen": 1, "valid_days": None, "priority": 1, "now": "2030-01-01T00:00Z"}


@pytest.fixture
def candidate(database_url: str) -> Iterator[Callable[..., Leadership]]:
    """Makes candidates for the lead of one database, each with a steady clock of its own."""
    migrate(database_url)
    made: list[Leadership] = []

    def make(data_dir: str | None = None, patience_s: float = 3.0) -> Leadership:
        ticks = itertools.count()
        made.append(Leadership(database_url, data_dir, patience_s, lambda: float(next(ticks))))
        return made[-1]

    yield make
    for each in made:
        each.close()


def names(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM package ORDER BY 1")]


def test_the_lead_is_free_when_its_holder_is_gone(candidate: Callable[..., Leadership]) -> None:
    first, second = candidate(), candidate(patience_s=1e9)  # that it is silent is not enough
    assert first.campaign() == 1
    assert second.campaign() is None
    first.close()
    deadline = time.monotonic() + 10  # the server takes a moment to see that a session has ended
    while (term := second.campaign()) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert term == 2


def test_a_leader_that_beats_is_not_deposed(candidate: Callable[..., Leadership]) -> None:
    first, second = candidate(), candidate()
    assert first.campaign() == 1
    for _ in range(20):  # each look at the clock is a second later
        first.beat()
        assert second.campaign() is None


def test_a_silent_leader_is_deposed_and_can_do_nothing_more(
    candidate: Callable[..., Leadership], database_url: str
) -> None:
    first, second = candidate(), candidate()
    term = first.campaign()
    assert term == 1
    old = Store(database_url).of_term(term, timeout_s=0.5)
    with pytest.raises(psycopg.OperationalError), old.transaction() as tx:
        # 1. In the middle of a transaction, it says nothing for too long.
        tx.run(ADD, id="pkg_1", name="unfinished", **VALUES)
        assert next(won for _ in range(9) if (won := second.campaign()) is not None) == 2
        # 2. What it would have committed now is rolled back already.
    assert names(database_url) == []
    # 3. It gets no session any more, nor the lead.
    with pytest.raises((PoolTimeout, psycopg.OperationalError)), old.transaction() as tx:
        tx.run(ADD, id="pkg_2", name="too-late", **VALUES)
    assert names(database_url) == []
    with pytest.raises(psycopg.OperationalError):
        first.beat()
    # 4. The new one works.
    new = Store(database_url).of_term(2, timeout_s=5.0)
    with new.transaction() as tx:
        tx.run(ADD, id="pkg_3", name="done", **VALUES)
    assert names(database_url) == ["done"]
    old.close()
    new.close()


def test_a_database_of_another_directory_is_not_led(
    candidate: Callable[..., Leadership], database_url: str
) -> None:
    ours = candidate("dir_a")
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE centre SET data_dir = 'dir_a'")
    assert ours.campaign() == 1
    ours.beat()
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE centre SET data_dir = 'dir_b'")
    with pytest.raises(NotOurs):
        ours.beat()
    ours.close()
    with pytest.raises(NotOurs):
        candidate("dir_a").campaign()


def test_an_idle_transaction_is_ended_for_all_that_wait(database_url: str) -> None:
    store = Store(database_url)
    store.open()
    with store.transaction() as tx:
        (bound,) = tx._connection.execute("SHOW idle_in_transaction_session_timeout").fetchone()
    assert bound == "5s"
    store.close()
