"""Reads without a thread: what they answer, together and apart, and when sessions break."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg
import pytest

from dusuan.store import reads
from dusuan.store.database import Look, Store
from dusuan.store.reads import Reads
from dusuan.store.rows import Key, Org


class Wrong(NamedTuple):
    """Columns that no query gives."""

    nothing: str


@pytest.fixture
def store(clean_url: str) -> Iterator[Store]:
    store = Store(clean_url)
    store.open()
    yield store
    store.close()


def org(store: Store, name: str) -> str:
    """A new organisation; its id."""
    with store.transaction() as tx:
        tx.run("org_insert", id=f"org_{name}", name=name, now=datetime.now(UTC))
    return f"org_{name}"


def orgs(org_id: str | None = None) -> Look[list[str]]:
    return Look("org_list", {"org_id": org_id}, Org, lambda rows: [row.name for row in rows])


def run(store: Store, body: Callable[[Reads], Awaitable[Any]]) -> Any:
    """Run `body` in an event loop of its own."""

    async def main() -> Any:
        made = Reads(store.url)
        try:
            return await body(made)
        finally:
            made.close()

    return asyncio.run(main())


def test_many_at_once_are_each_answered_with_their_own(store: Store) -> None:
    names = [f"n{number:03}" for number in range(60)]
    ids = [org(store, name) for name in names]

    async def body(made: Reads) -> list[list[str]]:
        return list(await asyncio.gather(*(made.look(orgs(each)) for each in ids * 5)))

    assert run(store, body) == [[name] for name in names * 5]


def test_what_was_committed_is_seen_by_the_next_one(store: Store) -> None:
    async def body(made: Reads) -> None:
        for number in range(200):
            await asyncio.to_thread(org, store, f"n{number:03}")
            found = await made.look(orgs())
            assert found[-1] == f"n{number:03}"

    run(store, body)


def test_values_are_what_the_other_driver_gives(store: Store) -> None:
    """A look answers the same in a transaction and here: bytes, moments, nothing, any text."""
    org(store, "é\"',{}\\ %")
    with store.transaction() as tx:
        tx.run(
            "key_insert",
            id="key",
            member_id=None,
            hash=b"\0\xff\\",
            hint="dk_",
            now=datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC),
            expires_at=None,
        )
    looks: list[Look[Any]] = [
        Look("key_by_hash", {"hash": b"\0\xff\\"}, Key, lambda rows: rows),
        orgs(None),
    ]

    async def body(made: Reads) -> list[Any]:
        return [await made.look(look) for look in looks]

    with store.transaction() as tx:
        assert run(store, body) == [tx.look(look) for look in looks]


def test_what_an_answer_raises_is_raised(store: Store) -> None:
    def refuse(_: list[Org]) -> None:
        raise LookupError("none")

    async def body(made: Reads) -> list[str]:
        with pytest.raises(LookupError):
            await made.look(Look("org_list", {"org_id": None}, Org, refuse))
        return await made.look(orgs())

    assert run(store, body) == []


def sever(url: str) -> int:
    """End every session of the reads, as a server that restarts does."""
    with psycopg.connect(url, autocommit=True) as connection:
        statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name"
        return connection.execute(statement + " = 'dusuan reads'").rowcount


def test_sessions_that_end_are_replaced_unnoticed(store: Store) -> None:
    org(store, "acme")

    async def body(made: Reads) -> None:
        for _ in range(5):
            await asyncio.gather(*(made.look(orgs()) for _ in range(20)))
            assert await asyncio.to_thread(sever, store.url) > 0
            assert await made.look(orgs()) == ["acme"]

    run(store, body)


def test_sessions_that_end_while_many_wait(store: Store) -> None:
    org(store, "acme")

    async def body(made: Reads) -> None:
        async def ask() -> None:
            for _ in range(200):
                assert await made.look(orgs()) == ["acme"]

        asking = [asyncio.create_task(ask()) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert await asyncio.to_thread(sever, store.url) > 0
        await asyncio.gather(*asking)

    run(store, body)


def test_a_session_that_has_ended_lets_others_have_its_socket(store: Store) -> None:
    """The number of its socket is the next one's: whoever ends it again must not mean that one."""
    org(store, "acme")

    async def body(made: Reads) -> None:
        await made.look(orgs())
        (first,) = made._lines
        first.give_up("for a test")
        assert await made.look(orgs()) == ["acme"]
        assert made._lines[0]._socket == first._socket
        first.retire(opened_before_s=float("inf"))
        first.give_up("once more")
        assert await asyncio.wait_for(made.look(orgs()), 5.0) == ["acme"]

    run(store, body)


def test_who_cannot_connect_is_told_together(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that does not answer is tried twice by all who ask, and not by each in turn."""
    tries = []

    async def never(_: str) -> Any:
        tries.append(1)
        await asyncio.sleep(0.2)
        raise psycopg.OperationalError("no answer")

    monkeypatch.setattr(reads, "_line_to", never)

    async def body(made: Reads) -> list[Any]:
        asked = [made.look(orgs()) for _ in range(30)]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    assert {type(each) for each in run(store, body)} == {psycopg.OperationalError}
    assert len(tries) == 2


def test_a_database_that_is_gone_is_said_so() -> None:
    async def main() -> None:
        made = Reads("postgresql://nobody@/none?host=/nowhere")
        with pytest.raises(psycopg.OperationalError):
            await made.look(orgs())

    asyncio.run(main())


def test_an_error_of_a_statement_is_its_own(store: Store) -> None:
    """Those that were sent with it are answered all the same."""
    org(store, "acme")
    bad: Look[Any] = Look("jobs_shown", page("no number"), Wrong, lambda rows: rows)

    async def body(made: Reads) -> list[Any]:
        asked = [made.look(each) for each in (orgs(), bad, orgs(), bad, orgs())]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    first, *_ = answers = run(store, body)
    assert first == ["acme"]
    assert [answers[2], answers[4]] == [first, first]
    assert all(isinstance(answers[n], psycopg.DataError) for n in (1, 3)), answers


def page(limit: Any) -> dict[str, Any]:
    return {"org_id": None, "member_id": None, "before": 1, "state": None, "limit": limit}


def test_a_statement_that_cannot_be_prepared_says_why(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(reads.queries(), "broken", "SELECT nothing FROM nowhere")

    async def body(made: Reads) -> None:
        with pytest.raises(psycopg.errors.UndefinedTable):
            await made.look(Look("broken", {}, Org, lambda rows: rows))

    run(store, body)


def test_columns_that_are_not_the_rows_fields_are_refused(store: Store) -> None:
    async def body(made: Reads) -> None:
        with pytest.raises(TypeError, match="org_list gives"):
            await made.look(Look("org_list", {"org_id": None}, Wrong, lambda rows: rows))

    run(store, body)


def test_who_does_not_wait_any_more_is_skipped(store: Store) -> None:
    org(store, "acme")

    async def body(made: Reads) -> list[str]:
        await made.look(orgs())
        asked = [asyncio.create_task(made.look(orgs())) for _ in range(10)]
        await asyncio.sleep(0)
        for each in asked[::2]:
            each.cancel()
        answers = await asyncio.gather(*asked[1::2])
        assert all(answer == ["acme"] for answer in answers)
        return await made.look(orgs())

    assert run(store, body) == ["acme"]


def test_a_server_that_falls_silent_is_given_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a lock that is not let go of; who waits is told in time, and later ones are answered."""
    monkeypatch.setattr(reads, "ANSWER_S_MAX", 0.4)
    org(store, "acme")

    async def body(made: Reads) -> None:
        with psycopg.connect(store.url) as connection:
            connection.execute("LOCK TABLE organisation")
            with pytest.raises(psycopg.OperationalError):
                await asyncio.wait_for(made.look(orgs()), 5.0)
        assert await made.look(orgs()) == ["acme"]

    run(store, body)


def test_an_answer_larger_than_a_socket_takes(store: Store) -> None:
    """Both ways: parameters of megabytes, and rows of megabytes."""

    async def body(made: Reads) -> None:
        long = "n" * 2_000_000
        asked = [made.look(orgs(long + str(number))) for number in range(8)]
        assert list(await asyncio.gather(*asked)) == [[]] * 8

    run(store, body)
    with psycopg.connect(store.url, autocommit=True) as connection:
        for number in range(20):
            values = [f"org_{number}", "w" * 100_000 + str(number)]
            connection.execute("INSERT INTO organisation VALUES (%s, %s, now())", values)

    async def all_of_them(made: Reads) -> int:
        found = await asyncio.gather(*(made.look(orgs()) for _ in range(4)))
        return sum(len(each) for each in found)

    assert run(store, all_of_them) == 80
