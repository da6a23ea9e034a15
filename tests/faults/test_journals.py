"""Journals that are cut, doubled and replayed, shepherds that die at exact points, full disks."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults import strikes
from tests.faults.conftest import CHECKPOINT, Site, beats, wait_for
from tests.faults.sound import assert_sound
from tests.faults.victim import CANNOT_MOUNT

# -- shepherds -----------------------------------------------------------------------------------

SHEPHERD_POINTS = (
    "shepherd.launch.before",
    "shepherd.launch.after",
    "shepherd.start.before",
    "shepherd.tick.before",
    "shepherd.tick.torn",
    "shepherd.tick.after",
    "shepherd.end.before",
    "shepherd.end.torn",
    "shepherd.end.after",
)


@pytest.mark.parametrize(
    ("victim", "point"),
    list(itertools.product(("shepherd", "keeper"), SHEPHERD_POINTS)),
)
def test_killed_at_a_step_of_the_shepherd(shared_site: Site, victim: str, point: str) -> None:
    site = shared_site
    site.arm(point, victim)
    job_id = site.submit("acme", CHECKPOINT + beats(1.3))
    site.wait_struck()
    job = site.wait_end(job_id)
    # It declares a checkpoint, so that it is started again wherever it was lost.
    assert (job["state"], job["stop_reason"]) == ("succeeded", "exit"), job
    assert len(job["attempts"]) <= 2
    site.assert_sound()


# -- journals ------------------------------------------------------------------------------------


def cut(journal: Path) -> None:
    """Truncate it in the middle of its last record."""
    data = journal.read_bytes()
    last = data.rstrip(b"\n").rfind(b"\n") + 1
    with journal.open("r+b") as file:
        file.truncate(last + (len(data) - last) // 2)


def empty(journal: Path) -> None:
    """Lose all of it."""
    with journal.open("r+b") as file:
        file.truncate(0)


def double(journal: Path) -> None:
    """Every record twice."""
    data = journal.read_bytes()
    with journal.open("ab") as file:
        file.write(data)


def replay(journal: Path) -> None:
    """The first records once more, after the last ones."""
    first = b"".join(journal.read_bytes().splitlines(keepends=True)[:2])
    with journal.open("ab") as file:
        file.write(first)


def scribble(journal: Path) -> None:
    """Something in it that is no record, and zeros as a crash of a file system leaves them."""
    with journal.open("ab") as file:
        file.write(b"deadbeef {}\n\x00\x00\x00\x00\n{half")


CUT: set[str] = set()  # attempts of the shared platform whose journals say less than was read


@pytest.mark.parametrize("damage", [cut, empty, double, replay, scribble])
def test_a_damaged_journal_of_a_running_job(
    shared_site: Site, damage: Callable[[Path], None]
) -> None:
    """The registers are cumulative: the next record makes everything good."""
    site = shared_site
    job_id = site.submit("acme", beats(3.2))
    job = site.wait(job_id, "running")
    wait_for(lambda: site.job(job_id)["attempts"][0]["held_ms"] > 900, "a first tick to be read")
    damage(site.journal(job))
    job = site.wait_end(job_id)
    assert (job["state"], len(job["attempts"])) == ("succeeded", 1), job
    assert 3_100 <= job["attempts"][0]["held_ms"] <= 5_000
    site.assert_sound()


@pytest.mark.parametrize("damage", [cut, empty, double, replay, scribble])
def test_a_journal_damaged_by_a_power_cut(
    shared_site: Site, damage: Callable[[Path], None]
) -> None:
    """What is left of it is what can be billed; what it never said is the operator's loss."""
    site = shared_site
    job_id = site.submit("acme", beats(60.0))
    job = site.wait(job_id, "running")
    wait_for(lambda: site.job(job_id)["attempts"][0]["held_ms"] > 900, "a first tick to be read")
    site.services[-1].kill()
    site.await_death()
    strikes.kill_everything(site.data)
    damage(site.journal(job))
    site.recover(f"a power cut and a journal that is {damage.__name__}")
    job = site.wait_end(job_id)
    assert job["stop_reason"] == "lost"
    assert job["attempts"][0]["held_ms"] > 900  # what had been read before stays billed
    if damage in (cut, empty):
        CUT.add(job["attempts"][0]["attempt_id"])
    site.assert_sound(cut=CUT)


# -- full disks ----------------------------------------------------------------------------------


@pytest.fixture
def small_disks(tmp_path: Path) -> Iterator[Site]:
    """A platform whose engine and database have small file systems that only they can see."""
    # So long a name that the database's socket is elsewhere, where we see it too.
    site = Site(tmp_path / ("data" * 25), {"disks": {"engine": "24m", "postgres": "320m"}})
    try:
        process = site.spawn()
        wait_for(lambda: process.exitcode is not None or site.leads(process), "it to lead", 60.0)
        yield site
    except AssertionError:
        if CANNOT_MOUNT in (site.data / "service.log").read_text():
            pytest.skip(CANNOT_MOUNT)
        raise
    finally:
        site.end()


def inside(site: Site) -> Path:
    """The data directory as the service sees it."""
    return Path(f"/proc/{site.services[-1].pid}/root{site.data}")


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """A file system without a free byte, for a while."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4_096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\1" * size)
    try:
        yield
    finally:
        filler.unlink()


def test_disks_that_are_full(small_disks: Site) -> None:
    small_disks.account("acme", 10_000_000)
    a_full_disk_of_journals(small_disks)
    a_full_disk_of_the_database(small_disks)


def a_full_disk_of_journals(site: Site) -> None:
    running = [site.submit("acme", beats(seconds)) for seconds in (2.5, 60.0)]
    for job_id in running:
        site.wait(job_id, "running")
    ended, stopped = running
    with full(inside(site) / "engine"):
        # 1. What runs goes on, and its end is written: for that there is room set aside.
        assert site.wait_end(ended)["state"] == "succeeded"
        # 2. What waits says why, and is not failed.
        waits = site.submit("acme", beats(0.5))
        reason = wait_for(lambda: site.job(waits)["waiting"], "a reason to wait")
        assert reason["code"] == "trouble"
        assert "disk" in reason["text"]
        # 3. A stop cannot be written down now; it is not forgotten.
        site.cancel(stopped)
        time.sleep(0.5)
    began_s = time.monotonic()
    assert site.wait_end(waits)["state"] == "succeeded"
    site.note("a full disk of journals", time.monotonic() - began_s - 0.5)
    assert site.wait_end(stopped)["state"] in ("cancelled", "failed")
    assert_sound(site.database_url, inside(site))
    assert site.ask("GET", "/v1/audit")["ok"]


def a_full_disk_of_the_database(site: Site) -> None:
    job_id = site.submit("acme", beats(6.0))
    site.wait(job_id, "running")
    with full(inside(site) / "postgres"):
        # The server cannot commit, or dies of it; the job goes on inside what is set aside.
        time.sleep(3.0)
    with site.recovering("a full disk of the database", site.services[-1]):
        wait_for(lambda: site.leads(site.services[-1]), "the service to lead")
        wait_for(lambda: site.job(job_id), "an answer")
    job = site.wait_end(job_id)
    assert (job["state"], job["stop_reason"]) in {("succeeded", "exit"), ("failed", "balance")}
    assert_sound(site.database_url, inside(site))
    assert site.ask("GET", "/v1/audit")["ok"]
