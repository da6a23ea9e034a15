"""`kill -9` of the service, the database, shepherds, keepers and all of them, at every step.

One platform lives through all of it: what one fault leaves behind, the next one finds.
"""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.faults.conftest import Site, beats

# Where the service is: before a commit ("written") or after it, before the engine is called or not.
POINTS = {
    "submit": ("submit.written", "submit.committed"),
    "start": ("start.written", "start.committed", "start.spawned"),
    "tick": ("tick.written", "tick.committed"),
    "settle": ("settle.written", "settle.committed", "close.written"),
    "stop": ("stop.committed", "stop.told"),
}
STEP_OF = {point: step for step, points in POINTS.items() for point in points}
# Beside a job there is nobody to kill before it has started.
RUNS = [p for p in STEP_OF if STEP_OF[p] not in ("submit", "start") or p == "start.spawned"]
CASES = [
    *itertools.product(("service", "database", "all"), STEP_OF),
    *itertools.product(("beside",), RUNS),  # one of the two alone: test_journals.py
]
RUN_S = 1.0


@pytest.fixture(scope="module")
def hands() -> Iterator[ThreadPoolExecutor]:
    """For requests that have to wait until the platform is there again."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.mark.parametrize(("victim", "point"), CASES)
def test_killed_at_a_step(
    shared_site: Site, hands: ThreadPoolExecutor, victim: str, point: str
) -> None:
    site = shared_site
    # 1. A job comes to the point, and the fault strikes.
    submitted = begin(site, hands, victim, point)
    site.wait_struck()
    # 2. Who was killed comes back.
    if victim in ("service", "all"):
        site.await_death()
        site.recover(f"{victim} killed at {point}")
    # 3. The request was done once, the job ends as it should, and the books are right.
    job_id = submitted.result(20.0)
    job = site.wait_end(job_id)
    assert (job["state"], job["stop_reason"]) in outcomes(victim, point), job
    assert newest(site, 2)[0] == job_id
    site.assert_sound()


def begin(site: Site, hands: ThreadPoolExecutor, victim: str, point: str) -> Future[str]:
    """Let a job come to `point`; the future gives its id."""
    if STEP_OF[point] != "stop":
        site.arm(point, victim)
        return hands.submit(site.submit, "acme", beats(RUN_S))
    job_id = site.submit("acme", beats(30.0))
    site.wait(job_id, "running")
    site.arm(point, victim)
    return hands.submit(lambda: site.cancel(job_id) or job_id)


def outcomes(victim: str, point: str) -> set[tuple[str, str]]:
    """How a job may end that declares no checkpoint. Lost is only what ran and was killed."""
    if STEP_OF[point] == "stop":
        return {("cancelled", "cancelled")}
    if victim in ("service", "database") or point in RUNLESS:
        return {("succeeded", "exit")}
    # Where an attempt may not have begun yet, may run (the loop has seen the submission by now), or
    # may have ended.
    if point in ("submit.committed", "close.written", "settle.written", "start.spawned"):
        return {("succeeded", "exit"), ("failed", "lost")}
    return {("failed", "lost")}


RUNLESS = ("submit.written", "start.written", "start.committed")


def newest(site: Site, count: int) -> list[str]:
    """The newest jobs."""
    return [job["job_id"] for job in site.ask("GET", f"/v1/jobs?limit={count}")["jobs"]]


def test_killed_while_it_unpacks_an_archive(shared_site: Site, tmp_path: Path) -> None:
    """What a service left half unpacked is begun anew; the job finds its files whole."""
    site = shared_site
    upload_id = site.upload(packed(tmp_path, 50))
    site.arm("unpack", "service")
    body = {"account": "acme", "upload_id": upload_id, "job": "name: w\nrun: test -e f49\n"}
    job_id = str(site.insist("POST", "/v1/jobs", body)["job_id"])
    site.wait_struck()
    site.await_death()
    site.recover("the service killed while it unpacks")
    job = site.wait_end(job_id)
    assert (job["state"], len(job["attempts"])) == ("succeeded", 1), job
    site.assert_sound()


def packed(folder: Path, count: int) -> bytes:
    """An archive of empty files."""
    path = folder / "files.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        for number in range(count):
            file.addfile(tarfile.TarInfo(f"f{number}"))
    return path.read_bytes()
