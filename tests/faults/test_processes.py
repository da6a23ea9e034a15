"""One process of a service dies: the others go on, it is begun again, and nothing is done twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from tests.faults import strikes
from tests.faults.conftest import Process, Site, beats, site_at, wait_for

from dusuan.api.doorkeeper import FRESH_S


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One platform that lives through all of it."""
    with site_at(tmp_path_factory.mktemp("family") / "data") as site:
        site.account("acme", 10_000_000)
        yield site


def child(site: Site, role: str, process: Process | None = None) -> int:
    """The process of a service that has this role."""
    parent = (process or site.services[-1]).pid
    assert parent is not None

    def named() -> list[int]:
        pids = strikes.service_of(parent)
        return [p for p in pids if Path(f"/proc/{p}/comm").read_text() == f"dusuan-{role}\n"]

    return int(wait_for(named, f"the process of the {role}")[0])


def term(site: Site) -> int:
    with psycopg.connect(site.database_url) as connection:
        row = connection.execute("SELECT term FROM centre").fetchone()
    assert row is not None
    return int(row[0])


def test_the_api_dies(shared_site: Site) -> None:
    """The meter goes on, the lead stays, and a moment later there is an API again."""
    site = shared_site
    job_id = site.submit("acme", beats(4.0))
    site.wait(job_id, "running")
    before, loop, api = term(site), child(site, "loop"), child(site, "api")
    with site.recovering("the API killed", site.services[-1]):
        os.kill(api, signal.SIGKILL)
        wait_for(lambda: site.job(job_id), "the API to answer")
    assert child(site, "api") != api
    assert (term(site), child(site, "loop")) == (before, loop)
    assert site.wait_end(job_id)["state"] == "succeeded"
    site.assert_sound()


def test_the_loop_dies(shared_site: Site) -> None:
    """The API answers all the while, and says that nobody leads until somebody does."""
    site = shared_site
    job_id = site.submit("acme", beats(4.0))
    site.wait(job_id, "running")
    before, loop, api = term(site), child(site, "loop"), child(site, "api")
    with site.recovering("the loop killed", site.services[-1]):
        os.kill(loop, signal.SIGKILL)
        wait_for(lambda: site.stands_by(site.services[-1]), "it to say that it does not lead")
        assert site.job(job_id)["state"] == "running"
        other_id = site.submit("acme", beats(0.5))
        wait_for(lambda: site.leads(site.services[-1]), "the new loop to lead")
    assert child(site, "loop") != loop
    assert (term(site), child(site, "api")) == (before + 1, api)
    for each in (job_id, other_id):
        job = site.wait_end(each)
        assert (job["state"], len(job["attempts"])) == ("succeeded", 1)
    site.assert_sound()


@pytest.mark.parametrize(
    "point",
    ["submit.written", "submit.committed", "start.written", "start.spawned", "settle.committed"],
)
def test_one_process_dies_at_a_step(shared_site: Site, point: str) -> None:
    """The request is repeated with its key, and done once; the job runs once, and is paid once."""
    site = shared_site
    site.arm(point, "process")
    with ThreadPoolExecutor(1) as hands:
        submitted = hands.submit(site.submit, "acme", beats(1.0))
        site.wait_struck()
        job_id = submitted.result(30.0)
    job = site.wait_end(job_id)
    assert (job["state"], job["stop_reason"], len(job["attempts"])) == ("succeeded", "exit", 1)
    newest = [each["job_id"] for each in site.ask("GET", "/v1/jobs?limit=2")["jobs"]]
    assert newest[0] == job_id
    assert site.services[-1].exitcode is None
    site.assert_sound()


def test_a_frozen_loop_is_not_shown_as_a_leader(shared_site: Site) -> None:
    site = shared_site
    loop = child(site, "loop")
    os.kill(loop, signal.SIGSTOP)
    try:
        wait_for(lambda: site.stands_by(site.services[-1]), "it to say that it does not lead")
    finally:
        os.kill(loop, signal.SIGCONT)
    wait_for(lambda: site.leads(site.services[-1]), "it to lead again")


def test_nothing_outlives_the_parent(shared_site: Site) -> None:
    """`kill -9` of the process that `up` named takes the others with it, frozen ones too."""
    site = shared_site
    process = site.services[-1]
    pids = [child(site, role) for role in ("loop", "api")]
    os.kill(pids[0], signal.SIGSTOP)
    process.kill()
    site.await_death()
    wait_for(lambda: not [p for p in pids if Path(f"/proc/{p}/cmdline").exists()], "their end", 5.0)
    site.recover("the parent killed")
    site.assert_sound()


def test_what_one_process_writes_the_other_reads(shared_site: Site) -> None:
    """Two services, two APIs: an answer of the one is true for the next question to the other."""
    site = shared_site
    leader, other = site.services[-1], site.spawn(standby=True)
    site.services.insert(0, site.services.pop())  # who leads stays the last
    urls = [site.url(leader), wait_for(lambda: site.url(other), "the other's address")]
    wait_for(lambda: site.stands_by(other), "the other to answer")
    for turn in range(30):
        here, there = urls[turn % 2], urls[1 - turn % 2]
        bought = site.ask_at(here, "POST", "/v1/purchases", purchase(site))
        wallet = site.ask_at(there, "GET", "/v1/wallet?account=acme")
        assert wallet["lots"] == bought["lots"]
        body = {"account": "acme", "job": "run: 'true'\n"}
        job_id = site.ask_at(here, "POST", "/v1/jobs", body)["job_id"]
        assert site.ask_at(there, "GET", f"/v1/jobs/{job_id}")["job_id"] == job_id
        assert site.ask_at(there, "GET", "/v1/jobs?limit=1")["jobs"][0]["job_id"] == job_id
        site.ask_at(here, "POST", f"/v1/jobs/{job_id}/cancel")
    check_revocation(site, *urls)
    other.terminate()
    other.join(20.0)


def purchase(site: Site) -> dict[str, str]:
    """One more small package; on sale already after the first time."""
    body = {"name": "small", "gflop": 1_000, "price_fen": 0}
    if not any(p["name"] == "small" for p in site.ask("GET", "/v1/packages")["packages"]):
        site.ask("POST", "/v1/packages", body)
    return {"account": "acme", "package": "small"}


def check_revocation(site: Site, here: str, there: str) -> None:
    """A key revoked at one service: there at once, elsewhere at once for writes, soon for reads."""
    site.ask("POST", "/v1/members", {"name": "ann", "account": "acme", "role": "owner"})
    made = site.ask("POST", "/v1/keys", {"org": "acme", "member": "ann"})
    headers = {"Authorization": f"Bearer {made['key']}"}
    job = {"account": "acme", "job": "run: 'true'\n"}

    def asked(url: str) -> int:
        return httpx.get(url + "/v1/wallet?account=acme", headers=headers).status_code

    assert (asked(here), asked(there)) == (200, 200)
    site.ask_at(here, "DELETE", f"/v1/keys/{made['id']}")
    revoked_s = time.monotonic()
    assert asked(here) == 401
    assert httpx.post(there + "/v1/jobs", json=job, headers=headers).status_code == 401
    while asked(there) == 200:
        asked_s = time.monotonic() - revoked_s
        assert asked_s < FRESH_S + 0.5
        time.sleep(0.02)
