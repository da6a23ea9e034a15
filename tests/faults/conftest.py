"""A real platform whose processes faults strike, driven over HTTP."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess as Process
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.faults import strikes, victim
from tests.faults.sound import assert_sound

RECOVERY_S_MAX = 10.0
# A job that shows every 50 ms that it runs, and ends by itself after {seconds}.
BEATS = """\
name: beats
run: |
  exec 3<> <(:)
  beats=$DUSUAN_OUTPUT_DIR/beats.$(date +%s%N)
  read begun _ < /proc/uptime
  now=$begun
  while [ $(( ${{now/./}} - ${{begun/./}} )) -lt {centis} ]; do
    echo "$now" >> "$beats"
    read -rt 0.05 -u 3 || true
    read now _ < /proc/uptime
  done
{more}"""
CHECKPOINT = "checkpoint: {signal: SIGTERM, grace: 1s}\n"


def beats(seconds: float, more: str = "") -> str:
    """The job file of a job that beats for `seconds`."""
    return BEATS.format(centis=round(seconds * 100), more=more)


def wait_for(done: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """The first true answer of `done`; a platform that cannot answer just now is asked again."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError, OSError, ValueError):
            if answer := done():
                return answer
        time.sleep(0.02)
    pytest.fail(f"waited {timeout_s} s for {what}")


def waited_for_processor_s(process: Process) -> float:
    """How long the main threads of a service were ready to run while others ran: the longest."""
    assert process.pid is not None
    waited = [0]
    for pid in strikes.service_of(process.pid):
        with contextlib.suppress(OSError):
            waited.append(int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]))
    return max(waited) / 1e9


@dataclass
class Site:
    """One data directory, and the services on it. The first one that is started leads."""

    data: Path
    settings: dict[str, Any] = field(default_factory=dict)
    services: list[Process] = field(default_factory=list)
    recoveries_s: list[tuple[str, float]] = field(default_factory=list)

    # -- services ----------------------------------------------------------------------------

    def spawn(self, **settings: Any) -> Process:
        """Start a service, without waiting for it."""
        self.data.mkdir(parents=True, exist_ok=True)
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(["tests.faults.victim"])
        document = {"data": str(self.data), **self.settings, **settings}
        process = forks.Process(target=victim.serve, args=(document,))
        process.start()
        self.services.append(process)
        return process

    def up(self, **settings: Any) -> Process:
        """Start a service and wait until it leads."""
        process = self.spawn(**settings)
        wait_for(lambda: self.leads(process), "the service to lead", 60.0)
        return process

    def await_death(self) -> None:
        """The service that was started last has been killed."""
        self.services[-1].join(10.0)
        assert self.services[-1].exitcode == -signal.SIGKILL

    def recover(self, what: str, **settings: Any) -> Process:
        """Start a service after a fault, in time."""
        began_s = time.monotonic()
        process = self.up(**settings)
        self.note(what, time.monotonic() - began_s - waited_for_processor_s(process))
        return process

    @contextlib.contextmanager
    def recovering(self, what: str, process: Process) -> Iterator[None]:
        """The block ends when `process` has recovered from a fault, in time."""
        began_s = time.monotonic() - waited_for_processor_s(process)
        yield
        self.note(what, time.monotonic() - waited_for_processor_s(process) - began_s)

    def note(self, what: str, seconds: float) -> None:
        """Keep how long a recovery took. None may take longer than promised.

        What a process waited for a processor, because others use the machine, does not count.
        """
        self.recoveries_s.append((what, seconds))
        assert seconds <= RECOVERY_S_MAX, f"{what}: recovered after {seconds:.1f} s"

    def url(self, process: Process) -> str:
        """Where this service answers."""
        return str(json.loads((self.data / "services" / str(process.pid)).read_text())["url"])

    def leads(self, process: Process) -> bool:
        """Whether this service says that it leads."""
        assert process.exitcode is None, (self.data / "service.log").read_text()[-4_000:]
        answer = httpx.get(self.url(process) + "/healthz", timeout=1.0)
        return bool(answer.json().get("leading", False))

    def stands_by(self, process: Process) -> bool:
        """Whether this service answers, and does not lead."""
        return not self.leads(process)

    # -- the API -----------------------------------------------------------------------------

    @property
    def database_url(self) -> str:
        return str(json.loads((self.data / "platform.json").read_text())["database_url"])

    def ask(self, method: str, path: str, body: Any = None, key: str = "") -> Any:
        """One request to the service that leads, as the operator."""
        url = json.loads((self.data / "platform.json").read_text())["url"]
        return self.ask_at(url, method, path, body, key)

    def ask_at(self, url: str, method: str, path: str, body: Any = None, key: str = "") -> Any:
        """One request to the service at `url`, as the operator. An answer of 5xx is none."""
        secret = (self.data / "operator.key").read_text().strip()
        headers = {"Authorization": f"Bearer {secret}"}
        headers |= {"Idempotency-Key": key} if key else {}
        answer = httpx.request(method, url + path, json=body, headers=headers, timeout=5.0)
        if answer.status_code >= 500:
            raise httpx.ReadError(answer.text)
        assert answer.is_success, answer.text
        return answer.json()

    def insist(self, method: str, path: str, body: Any = None) -> Any:
        """As a client does: the same request with the same key until there is an answer."""
        key = f"key-{time.monotonic_ns()}"
        return wait_for(lambda: self.ask(method, path, body, key), f"an answer to {path}")

    def account(self, path: str, gflop: int) -> str:
        """A new organisation's account, with `gflop` in its wallet."""
        self.insist("POST", "/v1/orgs", {"name": path})
        self.buy(path, gflop)
        return path

    def buy(self, path: str, gflop: int) -> None:
        """One more package of exactly this size."""
        name = f"pack-{gflop}-{time.monotonic_ns()}"
        self.insist("POST", "/v1/packages", {"name": name, "gflop": gflop, "price_fen": 1_000})
        self.insist("POST", "/v1/purchases", {"account": path, "package": name})

    def submit(self, path: str, job: str) -> str:
        """Submit a job; its id."""
        return str(self.insist("POST", "/v1/jobs", {"account": path, "job": job})["job_id"])

    def upload(self, archive: bytes) -> str:
        """Upload an archive; its id."""
        url = json.loads((self.data / "platform.json").read_text())["url"]
        secret = (self.data / "operator.key").read_text().strip()
        headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/gzip"}
        answer = httpx.post(url + "/v1/uploads", content=archive, headers=headers, timeout=10.0)
        return str(answer.raise_for_status().json()["upload_id"])

    def cancel(self, job_id: str) -> None:
        """Cancel a job."""
        self.insist("POST", f"/v1/jobs/{job_id}/cancel")

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/v1/jobs/{job_id}"))

    def wait(self, job_id: str, *states: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """The job, once it is in one of `states`."""

        def reached() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] in states else None

        return dict(wait_for(reached, f"{job_id} to be {states}", timeout_s))

    def wait_end(self, job_id: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """The job, once it has ended and is paid for."""
        return self.wait(job_id, "succeeded", "failed", "cancelled", timeout_s=timeout_s)

    def journal(self, job: dict[str, Any], number: int = -1) -> Path:
        """The journal of an attempt of `job`, the last one unless told otherwise."""
        attempt_id = job["attempts"][number]["attempt_id"]
        return self.data / "engine" / "attempts" / attempt_id / "journal"

    # -- faults ------------------------------------------------------------------------------

    def arm(self, point: str, *victims: str) -> None:
        strikes.arm(self.data, point, *victims)

    def wait_struck(self, timeout_s: float = 20.0) -> None:
        """Wait until the fault that was armed has struck."""
        wait_for(lambda: not strikes.armed(self.data), "the fault to strike", timeout_s)

    def assert_sound(self, **tolerances: Any) -> None:
        """The books are right, by our own reckoning and by the platform's own audit."""
        assert_sound(self.database_url, self.data, **tolerances)
        audit = self.ask("GET", "/v1/audit")
        assert audit["ok"], [check for check in audit["checks"] if not check["ok"]]

    def end(self) -> None:
        """Leave nothing that runs."""
        strikes.disarm(self.data)
        for process in self.services:
            if process.exitcode is None and process.pid is not None:
                process.kill()  # also one that is frozen, and its children with it
            process.join()
        strikes.kill_everything(self.data)


@contextlib.contextmanager
def site_at(data: Path, **settings: Any) -> Iterator[Site]:
    """A site on which a first service leads."""
    site = Site(data, settings)
    try:
        site.up()
        yield site
    finally:
        site.end()
        for what, seconds in site.recoveries_s:
            print(f"recovered from {what}: {seconds:.2f} s")


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One platform for all the faults of a module: what one fault leaves, the next one finds."""
    with site_at(tmp_path_factory.mktemp("site") / "data") as site:
        site.account("acme", 10_000_000)
        yield site
