"""What happens around the platform: power cuts, frozen services, clocks that jump, restarts."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import psycopg
import pytest
from tests.faults import strikes
from tests.faults.conftest import CHECKPOINT, Site, beats, site_at, wait_for
from tests.faults.victim import CLOCK, RATING_GFLOPS

from dusuan.store.embedded import EmbeddedPostgres

DAY_S = 86_400


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A platform in a zone that has summer time."""
    with site_at(tmp_path_factory.mktemp("world") / "data", zone="Europe/Berlin") as site:
        site.account("acme", 10_000_000)
        yield site


# -- the machine ---------------------------------------------------------------------------------


def test_a_machine_that_starts_anew(shared_site: Site) -> None:
    """All is gone, process ids mean others, and the kernel has a new boot id."""
    site = shared_site
    plain = site.submit("acme", beats(60.0))
    saved = site.submit("acme", CHECKPOINT + once_more())
    for job_id in (plain, saved):
        site.wait(job_id, "running")
    time.sleep(1.3)
    attempt_id = site.job(plain)["attempts"][0]["attempt_id"]
    strikes.kill_everything(site.data)
    # After a boot, a process that has the marks of an attempt is somebody else's.
    marks = {"DUSUAN_ATTEMPT": attempt_id, "DUSUAN_JOB_ID": plain, "DUSUAN_WORK_DIR": "elsewhere"}
    with stranger(marks) as pid:
        site.recover("a new boot", boot_id="another-boot")
        assert site.wait_end(plain)["stop_reason"] == "lost"
        assert site.wait_end(saved)["state"] == "succeeded"
        os.kill(pid, 0)
    site.assert_sound()


def once_more() -> str:
    """A job that runs until it is killed, and ends at once when it is started again."""
    return """\
name: once-more
run: |
  if [ -e "$DUSUAN_CHECKPOINT_DIR/begun" ]; then exit 0; fi
  touch "$DUSUAN_CHECKPOINT_DIR/begun"
  sleep 60
"""


class stranger:  # noqa: N801 - a context manager
    """A process with an environment of its own."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def __enter__(self) -> int:
        self._pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], self._environment)
        return self._pid

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def test_kills_at_random_times(shared_site: Site) -> None:
    site = shared_site
    seed = int(os.environ.get("DUSUAN_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"DUSUAN_TEST_SEED={seed}")
    chance = random.Random(seed)
    waiting = []
    for _ in range(4):
        waiting.append(site.submit("acme", beats(1.5)))
        time.sleep(chance.uniform(0.0, 1.5))
        victim = chance.choice(["service", "database", "beside", "all"])
        if victim in ("service", "all"):
            site.services[-1].kill()
        if victim != "service":
            strikes.VICTIMS[victim](site.data)
        if victim in ("service", "all"):
            site.await_death()
            site.recover(f"{victim} killed at a random time")
    for job_id in waiting:
        site.wait_end(job_id)
    site.assert_sound()


# -- a service that is frozen for longer than what was set aside ---------------------------------


def test_a_service_frozen_for_longer_than_a_hold(shared_site: Site) -> None:
    site = shared_site
    process = site.services[-1]
    job_id = site.submit("acme", beats(60.0))
    job = site.wait(job_id, "running")
    wait_for(lambda: site.job(job_id)["attempts"][0]["held_ms"] > 400, "the meter to run")
    lease_ms = lease_of(site, job_id)
    assert process.pid is not None
    strikes.signal_service(process.pid, signal.SIGSTOP)
    wait_for(lambda: b'"end"' in site.journal(job).read_bytes(), "its lease to end", 30.0)
    end = wait_for(lambda: site.journal(job).read_bytes().splitlines()[-1], "its end record")
    assert b'"reason":"lease"' in end
    with site.recovering("a frozen service", process):
        strikes.signal_service(process.pid, signal.SIGCONT)
        job = site.wait_end(job_id)
    assert job["stop_reason"] == "balance"
    assert lease_ms - 2_500 <= job["attempts"][0]["held_ms"] <= lease_ms
    site.assert_sound(overrun_gflop_max=0)


def lease_of(site: Site, job_id: str) -> int:
    """The ceiling in force, in device-milliseconds, once it no longer grows."""
    seen = [0, -1]
    with psycopg.connect(site.database_url, autocommit=True) as connection:
        while seen[-1] != seen[-2]:
            row = connection.execute(
                "SELECT lease_held_ms FROM attempt WHERE job_id = %s", [job_id]
            ).fetchone()
            assert row is not None
            seen.append(row[0])
            time.sleep(0.6)
    return seen[-1]


# -- clocks --------------------------------------------------------------------------------------


def seconds_to(moment: str) -> float:
    """From now to a moment, given in RFC 3339."""
    return datetime.fromisoformat(moment).timestamp() - time.time()


@pytest.mark.parametrize(
    "jumps_s",
    [
        pytest.param([0, DAY_S, 0], id="a day ahead and back"),
        pytest.param([0, -DAY_S, 0], id="a day back and ahead"),
        # One second before the clocks of Berlin change, so that they do while the job runs.
        pytest.param(["2027-03-28T00:59:59+00:00"], id="into summer time"),
        pytest.param(["2027-10-31T00:59:59+00:00"], id="out of summer time"),
    ],
)
def test_a_clock_that_jumps_changes_no_bill(shared_site: Site, jumps_s: list[float | str]) -> None:
    site = shared_site
    set_clock(site, jumps_s[0])
    job_id = site.submit("acme", beats(2.5))
    site.wait(job_id, "running")
    for jump in jumps_s[1:]:
        set_clock(site, jump)
        time.sleep(0.7)
    job = site.wait_end(job_id)
    set_clock(site, 0)
    assert job["state"] == "succeeded"
    assert 2_400 <= job["attempts"][0]["held_ms"] <= 4_500
    site.assert_sound()


def set_clock(site: Site, jump: float | str) -> None:
    """Let the service's clock be wrong from now on, or show `jump` now."""
    wrong_s = seconds_to(jump) if isinstance(jump, str) else jump
    draft = site.data / "clock.new"
    draft.write_text(str(wrong_s))
    draft.replace(site.data / CLOCK)


# -- the database --------------------------------------------------------------------------------


def test_a_database_that_is_restarted_under_load(shared_site: Site) -> None:
    """Every request that was answered was done, every one that was not can be repeated: once."""
    site = shared_site
    server = EmbeddedPostgres(site.data / "postgres")
    with ThreadPoolExecutor(4) as hands:
        asked = [hands.submit(site.submit, "acme", beats(0.1)) for _ in range(16)]
        for _ in range(2):
            time.sleep(0.4)
            server.stop()
            with site.recovering("a restart of the database", site.services[-1]):
                server.start()
                wait_for(lambda: site.leads(site.services[-1]), "the service to lead again")
        job_ids = [each.result(60.0) for each in asked]
    assert len(set(job_ids)) == 16
    for job_id in job_ids:
        assert site.wait_end(job_id, 60.0)["state"] == "succeeded"
    listed = [job["job_id"] for job in site.ask("GET", "/v1/jobs?limit=16")["jobs"]]
    assert sorted(listed) == sorted(job_ids)
    site.assert_sound()


def test_a_small_balance_is_spent_to_its_end_across_kills(shared_site: Site) -> None:
    """No degree too much, however often the service dies on the way."""
    site = shared_site
    site.account("poor", 6 * RATING_GFLOPS)
    job_id = site.submit("poor", beats(60.0))
    site.wait(job_id, "running")
    for _ in range(2):
        time.sleep(0.8)
        site.services[-1].kill()
        site.await_death()
        site.recover("a kill near the end of a balance")
    job = site.wait_end(job_id)
    assert job["stop_reason"] == "balance"
    assert job["attempts"][0]["held_ms"] <= 6_000
    site.assert_sound(overrun_gflop_max=0)
