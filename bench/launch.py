"""How fast short jobs start and how many go through a second, each durable, metered and settled.

Jobs of `true` on slots that are no real device, through the API of a whole platform with its own
PostgreSQL server (fsync on): quoted in nothing, submitted, held, started beside a shepherd, read
from its journal, settled and closed. In the same rounds, interleaved: a loop of bare subprocesses,
and HyperQueue (server and worker of its Python package), which keep no account of anything.

    python bench/launch.py [--rounds 3] [--jobs 300] [--clients 8] [--isolation process]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

SLOTS = 64
SLOT_GFLOPS = 1
JOB = "run: exec true\nresources: {accelerators: slot}\n"
PATIENCE_S = 120.0


# --- the platform, in a process of its own ---------------------------------------------------


def serve(data: Path, isolation: str) -> None:
    """Run a platform whose devices are slots, until it is told to stop."""
    from dusuan.app import pool
    from dusuan.engines.base import Device
    from dusuan.engines.local import LocalEngine
    from dusuan.service.datadir import DataDir
    from dusuan.wiring import assembly

    slots = [Device(f"slot:{n}", "here", "none", "slot", "slot", n, None) for n in range(SLOTS)]

    def engine_on(folder: DataDir) -> LocalEngine:
        return LocalEngine(folder.engine, isolation=isolation, devices=slots, hidden=[folder.root])

    running = assembly.assemble(assembly.Start(data, 0, engine_on=engine_on), lambda _text: None)
    measured = [pool.Measured(slot.device, SLOT_GFLOPS, "none", "given") for slot in slots]
    with running.platform() as platform, platform.store.transaction() as tx:
        pool.record_inventory(platform, tx, slots)
        pool.record_ratings(platform, tx, measured)
    assembly.serve(running, lambda _text: None)


class Centre:
    """A platform in a process of its own, and one connection to it per thread."""

    def __init__(self, folder: Path, isolation: str) -> None:
        self._data = folder / "data"
        self._errors = (folder / "errors").open("w+b")
        command = [sys.executable, __file__, "--serve", str(self._data), "--isolation", isolation]
        self._process = subprocess.Popen(command, stdout=self._errors, stderr=self._errors)
        self._local = threading.local()
        until(self._answers, "the platform to answer")
        self._key = (self._data / "operator.key").read_text().strip()
        self.post("/orgs", {"name": "bench"})
        self.post("/packages", {"name": "big", "gflop": 10**9, "price_fen": 1})
        self.post("/purchases", {"account": "bench", "package": "big"})

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            self._errors.seek(0)
            sys.exit(self._errors.read().decode())
        try:
            status = json.loads((self._data / "platform.json").read_text())
        except (OSError, ValueError):
            return False
        self._address = status["url"].removeprefix("http://")
        connection = http.client.HTTPConnection(self._address, timeout=5)
        try:
            connection.request("GET", "/healthz")
            return bool(json.loads(connection.getresponse().read()).get("leading"))
        except OSError:
            return False
        finally:
            connection.close()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer to a POST; anything but success ends the run."""
        return self._ask("POST", path, json.dumps(body))

    def get(self, path: str) -> Any:
        """The answer to a GET."""
        try:
            return self._ask("GET", path, None)
        except http.client.RemoteDisconnected:  # kept open too long; a read may be repeated
            return self._ask("GET", path, None)

    def _ask(self, method: str, path: str, body: str | None) -> Any:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection(self._address, timeout=60)
        connection = self._local.connection
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        connection.request(method, f"/v1{path}", body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text)

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=60)


def until(done: Callable[[], bool], what: str) -> None:
    """Wait for `done`."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > deadline:
            sys.exit(f"waited {PATIENCE_S} s for {what}")
        time.sleep(0.05)


def submit(centre: Centre) -> tuple[str, float]:
    """Submit one job; its id, and the wall clock (s) before its request was sent."""
    began_s = time.time()
    answer = centre.post("/jobs", {"account": "bench", "job": JOB})
    return answer["job_id"], began_s


def ended(centre: Centre, job_id: str) -> bool:
    """Whether a job is over and paid for."""
    job = centre.get(f"/jobs/{job_id}")
    if job["state"] in ("failed", "cancelled"):
        sys.exit(f"a job {job['state']}: {job}")
    return bool(job["state"] == "succeeded")


def latencies_ms(centre: Centre, jobs: int) -> list[float]:
    """One job after the other: from the request's departure to the start of the job's process."""
    found = []
    for _ in range(jobs):
        job_id, began_s = submit(centre)
        until(lambda job_id=job_id: ended(centre, job_id), f"{job_id} to end")  # type: ignore[misc] # a default binds it
        started = centre.get(f"/jobs/{job_id}")["attempts"][0]["started_at"]
        found.append((datetime.fromisoformat(started).timestamp() - began_s) * 1_000)
    return found


def all_ended(centre: Centre, jobs: int) -> bool:
    """Whether the newest `jobs` jobs are over and paid for."""
    states: list[str] = []
    page = ""
    while len(states) < jobs:
        answer = centre.get(f"/jobs?limit=200{page}")
        states += [job["state"] for job in answer["jobs"]]
        page = f"&before={answer['next']}"
    if {"failed", "cancelled"} & set(states[:jobs]):
        sys.exit("a job failed")
    return set(states[:jobs]) == {"succeeded"}


def dusuan_jobs_per_s(centre: Centre, jobs: int, clients: int) -> float:
    """Jobs submitted by `clients` at once, until the last one is settled and closed."""
    ids: list[str] = []

    def client(share: int) -> None:
        ids.extend(submit(centre)[0] for _ in range(share))

    began = time.perf_counter()
    threads = [threading.Thread(target=client, args=(jobs // clients,)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: all_ended(centre, len(ids)), "the last job to end")
    return len(ids) / (time.perf_counter() - began)


# --- the peers -------------------------------------------------------------------------------


def subprocess_jobs_per_s(jobs: int) -> float:
    """A loop of bare subprocesses: no queue, no journal, no account."""
    began = time.perf_counter()
    for _ in range(jobs):
        subprocess.run(["/bin/bash", "-e", "-c", "exec true"], check=True, env={})
    return jobs / (time.perf_counter() - began)


class HyperQueue:
    """A HyperQueue server and a worker with as many slots, in this process."""

    def __init__(self, folder: Path) -> None:
        from hyperqueue import LocalCluster
        from hyperqueue.cluster import WorkerConfig

        self._folder = folder
        self._cluster = LocalCluster(str(folder / "hq"), WorkerConfig(cores=SLOTS))
        self._client = self._cluster.client()

    def jobs_per_s(self, jobs: int) -> float:
        """One submission per job, as a customer's are."""
        from hyperqueue import Job

        began = time.perf_counter()
        made = []
        for _ in range(jobs):
            job = Job(default_workdir=str(self._folder))
            job.program(["/bin/bash", "-e", "-c", "exec true"], stdout=None, stderr=None)
            made.append(self._client.submit(job))
        self._client.wait_for_jobs(made)
        return jobs / (time.perf_counter() - began)

    def close(self) -> None:
        self._cluster.stop()


# --- the run ---------------------------------------------------------------------------------


def measure(rounds: int, jobs: int, clients: int, isolation: str, folder: Path) -> None:
    """Print a JSON line: medians over interleaved rounds."""
    figures: dict[str, list[float]] = {}
    queue = HyperQueue(folder)
    with contextlib.closing(Centre(folder, isolation)) as centre:
        latencies_ms(centre, 3)  # warm
        for _ in range(rounds):
            for name, value in one_round(centre, queue, jobs, clients):
                figures.setdefault(name, []).append(value)
        clean = centre.get("/audit")["ok"]
    queue.close()
    row = {name: round(statistics.median(values), 1) for name, values in figures.items()}
    print(
        json.dumps(
            {
                "bench": "launch",
                "jobs": jobs,
                "clients": clients,
                "isolation": isolation,
                "audit": clean,
                **row,
            }
        )
    )


def one_round(
    centre: Centre, queue: HyperQueue, jobs: int, clients: int
) -> Iterator[tuple[str, float]]:
    """Every figure once, one after the other."""
    waits = sorted(latencies_ms(centre, 40))
    yield "submit_to_running_p50_ms", statistics.median(waits)
    yield "submit_to_running_p99_ms", waits[-1]
    yield "dusuan_jobs_per_s", dusuan_jobs_per_s(centre, jobs, clients)
    yield "subprocess_jobs_per_s", subprocess_jobs_per_s(jobs)
    yield "hyperqueue_jobs_per_s", queue.jobs_per_s(jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=304)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--isolation", default="process", choices=["process", "bubblewrap"])
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve, chosen.isolation)
        return
    with tempfile.TemporaryDirectory(prefix="dusuan-launch-") as folder:
        measure(chosen.rounds, chosen.jobs, chosen.clients, chosen.isolation, Path(folder))
        sys.stdout.flush()
        os._exit(0)  # HyperQueue's threads do not end by themselves


if __name__ == "__main__":
    main()
