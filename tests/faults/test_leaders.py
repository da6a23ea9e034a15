"""Services that die, freeze and stand by: one leads, whatever happens, and what it does counts."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.conftest import create_database, drop_database
from tests.faults import strikes
from tests.faults.conftest import Process, Site, beats, site_at, wait_for


def term(site: Site) -> int:
    """How often the lead has changed."""
    with psycopg.connect(site.database_url) as connection:
        row = connection.execute("SELECT term FROM centre").fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A platform on which a second service stands by, on the same data directory."""
    # What is set aside bridges a change of leader, as it does in a centre (by far).
    slices = {"slice_ms": 60_000, "least_ms": 20_000, "head_ms": 20_000}
    # So many changes of leader would take minutes at the real pace, which another test keeps.
    pace = {"beat_s": 0.3, "silence_s": 1.5, "follower_s": 0.3}
    with site_at(tmp_path_factory.mktemp("pair") / "data", slices=slices, pace=pace) as site:
        site.account("acme", 10_000_000)
        yield site


def with_standby(site: Site) -> tuple[Process, Process]:
    """Who leads, and who stands by."""
    leader = next(p for p in site.services if p.exitcode is None and site.leads(p))
    standby = site.spawn(standby=True)
    wait_for(lambda: site.stands_by(standby), "the second service to stand by")
    return leader, standby


def stop(process: Process) -> None:
    assert process.pid is not None
    strikes.signal_service(process.pid, signal.SIGSTOP)


def continue_(process: Process) -> None:
    assert process.pid is not None
    strikes.signal_service(process.pid, signal.SIGCONT)


def test_a_standby_takes_over_from_a_leader_that_is_killed(pair: Site) -> None:
    leader, standby = with_standby(pair)
    job_id = pair.submit("acme", beats(4.0))
    pair.wait(job_id, "running")
    before = term(pair)
    with pair.recovering("a killed leader", standby):
        leader.kill()
        wait_for(lambda: pair.leads(standby), "the standby to lead")
    assert term(pair) == before + 1
    other_id = pair.submit("acme", beats(0.5))
    for each in (job_id, other_id):
        assert pair.wait_end(each)["state"] == "succeeded"
    pair.assert_sound()


# Where a leader is frozen: with a transaction open, between two, before and after it has called the
# engine. When it goes on, another one leads, and what it was about to do must not be done twice.
FROZEN_AT = (
    "turn",
    "start.written",
    "start.committed",
    "start.spawned",
    "tick.written",
    "settle.written",
    "settle.committed",
    "stop.committed",
)


@pytest.mark.parametrize("point", FROZEN_AT)
def test_a_standby_takes_over_from_a_leader_that_is_frozen(pair: Site, point: str) -> None:
    leader, standby = with_standby(pair)
    before = term(pair)
    job_id = pair.submit("acme", beats(30.0)) if point.startswith("stop") else ""
    if job_id:
        pair.wait(job_id, "running")
    pair.arm(point, "freeze")
    if job_id:
        pair.cancel(job_id)
    else:
        job_id = submit_while_freezing(pair, standby)
    pair.wait_struck()
    # 1. The other one leads, in time, and does the work.
    with pair.recovering(f"a leader frozen at {point}", standby):
        wait_for(lambda: pair.leads(standby), "the standby to lead")
    assert term(pair) == before + 1
    # 2. The frozen one goes on where it was, and finds that it does not lead.
    continue_(leader)
    wait_for(lambda: pair.stands_by(leader), "the frozen leader to stand back")
    assert pair.leads(standby)
    assert term(pair) == before + 1
    # 3. Everything was done once.
    job = pair.wait_end(job_id)
    assert job["state"] == ("cancelled" if point.startswith("stop") else "succeeded"), job
    assert len(job["attempts"]) == 1
    pair.assert_sound()
    # 4. And it can lead again.
    standby.kill()
    wait_for(lambda: pair.leads(leader), "the first one to lead again")


def submit_while_freezing(pair: Site, standby: Process) -> str:
    """Submit through the service that will not be frozen."""
    body = {"account": "acme", "job": beats(1.5)}
    return str(pair.ask_at(pair.url(standby), "POST", "/v1/jobs", body)["job_id"])


def test_an_orderly_end_hands_over_and_the_last_one_stops_the_database(tmp_path: Path) -> None:
    with site_at(tmp_path / "data") as site:
        leader, standby = with_standby(site)
        with site.recovering("a frozen leader, at the real pace", standby):
            stop(leader)
            wait_for(lambda: site.leads(standby), "the standby to lead")
        continue_(leader)
        wait_for(lambda: site.stands_by(leader), "the frozen leader to stand back")
        standby.terminate()
        standby.join(15.0)
        wait_for(lambda: site.leads(leader), "the first one to lead again")
        leader, standby = standby, leader
        site.account("acme", 1_000)  # so the database is there
        standby.terminate()
        standby.join(15.0)
        assert not (site.data / "platform.json").exists()
        assert not list((site.data / "postgres").rglob("postmaster.pid"))


@pytest.fixture
def shared_database(postgres_url: str) -> Iterator[str]:
    url = create_database(postgres_url)
    yield url
    with contextlib.suppress(psycopg.Error):
        drop_database(postgres_url, url)


def test_a_database_has_one_data_directory(shared_database: str, tmp_path: Path) -> None:
    """Elsewhere are no journals of its attempts: nobody there may call them lost."""
    with site_at(tmp_path / "a", database=shared_database) as site:
        site.account("acme", 1_000_000)
        job_id = site.submit("acme", beats(2.0))
        site.wait(job_id, "running")
        other = Site(tmp_path / "b", {"database": shared_database})
        stranger = other.spawn()
        stranger.join(30.0)
        assert stranger.exitcode == 1
        assert "database_of_another" in (other.data / "service.log").read_text()
        assert site.wait_end(job_id)["state"] == "succeeded"
        site.assert_sound()


def test_a_data_directory_that_is_gone_is_given_up_by_force(
    shared_database: str, tmp_path: Path
) -> None:
    with site_at(tmp_path / "a", database=shared_database) as site:
        site.account("acme", 1_000_000)
        job_id = site.submit("acme", beats(30.0))
        site.wait(job_id, "running")
        time.sleep(1.2)
        other = Site(tmp_path / "b", {"database": shared_database})
        try:
            leader = other.spawn(take_over=True)
            wait_for(lambda: other.leads(leader), "the new directory to lead")
            assert other.wait_end(job_id)["stop_reason"] == "lost"
            # The old one, should it live after all, has nothing to say any more.
            wait_for(lambda: site.stands_by(site.services[0]), "the old one to stand back")
            assert other.leads(leader)
            audit = other.ask("GET", "/v1/audit")
            assert audit["ok"], audit
        finally:
            other.end()
