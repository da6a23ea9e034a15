"""Reads and submits of a whole platform with 50 clients, beside its own framework doing nothing.

The platform is a real `dusuan up`: its database, its loop, its engine; the only device is busy, so
what is submitted queues. The peers are FastAPI under the same uvicorn that return a constant:
`async` without a thread, `sync` through the thread pool. Every server gets the same load, closed
loop over kept connections, in interleaved rounds; medians are printed as JSON lines, with the
processor time of a request beside them: of the server's processes, and of the database's.

    python bench/api.py [--rounds 3] [--seconds 4] [--clients 50] [--each]

With `--each` every kind of read also gets rounds of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

JOB = "run: sleep 600\nwall_time: 1h\n"
ORGS = 10
JOBS_PER_ORG = 20
# What a person at a portal or a script that waits asks for, in this proportion.
READS = ("job", "job", "job", "job", "wallet", "wallet", "why", "jobs")
GOAL_READS = 0.3
GOAL_P99_MS = 100.0


@dataclass(frozen=True, slots=True)
class Result:
    """One round: requests a second, and milliseconds between asking and the whole answer.

    Processor time is in microseconds a request, of the server's processes and of its database's.
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    server_us: float
    database_us: float


class Connection(asyncio.Protocol):
    """One client: sends the next request when the last was answered."""

    def __init__(self, requests: Iterator[bytes], took_s: list[float], until: float) -> None:
        self._requests = requests
        self._took_s = took_s
        self._until = until
        self._data = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._began = time.perf_counter()
        if self._began >= self._until:
            self._transport.close()
            self.done.set_result(None)
            return
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 20"):
            self.done.set_exception(RuntimeError(self._data.decode()))
            self._transport.abort()
            return
        self._data = b""
        self._took_s.append(time.perf_counter() - self._began)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server hung up"))


async def _load(port: int, clients: Sequence[Iterator[bytes]], seconds: float) -> list[float]:
    loop, took_s = asyncio.get_running_loop(), list[float]()
    until = time.perf_counter() + seconds
    made = [
        await loop.create_connection(
            lambda each=each: Connection(each, took_s, until), "127.0.0.1", port
        )
        for each in clients
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    return took_s


def load(server: Server, clients: Sequence[Iterator[bytes]], seconds: float) -> Result:
    """What `clients` got from the server."""
    before, began = server.used_s(), time.perf_counter()
    took_s = sorted(asyncio.run(_load(server.port, clients, seconds)))
    count, elapsed_s = len(took_s), time.perf_counter() - began
    used = [(now - then) / count * 1e6 for now, then in zip(server.used_s(), before, strict=True)]
    p50, p99 = took_s[count // 2], took_s[count * 99 // 100]
    return Result(count / elapsed_s, p50 * 1e3, p99 * 1e3, *used)


@dataclass(frozen=True, slots=True)
class Server:
    """Where one answers, its process, and the folder in which its database's processes are."""

    port: int
    pid: int
    database: Path | None = None

    def used_s(self) -> tuple[float, float]:
        """Processor time so far: of its process and all below it, and of its database."""
        stats = {int(p.name): p for p in Path("/proc").iterdir() if p.name.isdigit()}
        fields = {pid: found for pid, path in stats.items() if (found := _stat(path))}
        ours, grown = {self.pid}, True
        while grown:
            more = {pid for pid, found in fields.items() if int(found[1]) in ours} - ours
            ours, grown = ours | more, bool(more)
        base = {pid for pid in fields if self.database and _works_in(stats[pid], self.database)}
        return _ticks_s(fields, ours - base), _ticks_s(fields, base)


def _stat(process: Path) -> list[str]:
    """Its fields from the state on; nothing when it has ended."""
    with contextlib.suppress(OSError):
        return (process / "stat").read_text().rpartition(")")[2].split()
    return []


def _works_in(process: Path, folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return (process / "cwd").resolve().is_relative_to(folder)
    return False


def _ticks_s(fields: dict[int, list[str]], pids: set[int]) -> float:
    """User and system time of the processes, and of their children that have ended."""
    ticks = sum(int(each) for pid in pids for each in fields.get(pid, [])[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def request(method: str, path: str, key: str, body: Any = None, extra: str = "") -> bytes:
    """One request as bytes."""
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n{extra}"
        f"Content-Length: {len(content)}\r\nContent-Type: application/json\r\n\r\n"
    )
    return head.encode() + content


# The peers


def serve_peer(listener: socket.socket) -> None:
    """FastAPI that returns a constant, served as the platform serves itself."""
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI(openapi_url=None)

    @app.get("/async")
    async def constant_async() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/sync")
    def constant_sync() -> dict[str, str]:
        return {"status": "ok"}

    config = uvicorn.Config(app, log_config=None, access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


@contextlib.contextmanager
def peer() -> Iterator[Server]:
    """The peers."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    process = multiprocessing.get_context("fork").Process(target=serve_peer, args=(listener,))
    process.start()
    try:
        yield Server(listener.getsockname()[1], process.pid or 0)
    finally:
        process.terminate()
        process.join()


# The platform


@contextlib.contextmanager
def platform(folder: Path) -> Iterator[tuple[Server, str]]:
    """A platform of its own, and its operator's key."""
    words = [sys.executable, "-m", "dusuan", "up", "--data", str(folder), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        status = folder / "platform.json"
        while not status.exists():
            assert process.poll() is None, "the platform did not start"
            time.sleep(0.1)
        port = httpx.URL(json.loads(status.read_text())["url"]).port or 80
        server = Server(port, process.pid, (folder / "postgres").resolve())
        yield server, (folder / "operator.key").read_text().strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


@dataclass(frozen=True, slots=True)
class Customer:
    """One organisation with something to look at."""

    org: str
    key: str
    jobs: list[str]


def settle_in(port: int, key: str) -> list[Customer]:
    """Make customers with jobs; the devices are taken by the first."""
    url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:

        def post(path: str, **body: Any) -> Any:
            answer = client.post(path, json=body)
            assert answer.is_success, answer.text
            return answer.json()

        while any(d["rating_gflops"] is None for d in client.get("/v1/pool").json()["devices"]):
            time.sleep(0.2)
        post("/v1/packages", name="bench", gflop=10**15, price_fen=100)
        found = []
        for org in (f"org{n}" for n in range(ORGS)):
            post("/v1/orgs", name=org)
            post("/v1/purchases", account=org, package="bench")
            post("/v1/members", name="ann", account=org, role="owner")
            made = post("/v1/keys", org=org, member="ann")["key"]
            ids = [post("/v1/jobs", account=org, job=JOB)["job_id"] for _ in range(JOBS_PER_ORG)]
            found.append(Customer(org, made, ids))
        return found


def reads(customer: Customer, offset: int, kinds: Sequence[str] = READS) -> Iterator[bytes]:
    """Reads of one customer, for ever, of these kinds in turn."""
    paths = {
        "job": lambda n: f"/v1/jobs/{customer.jobs[n % JOBS_PER_ORG]}",
        "wallet": lambda _: f"/v1/wallet?account={customer.org}",
        "why": lambda n: f"/v1/jobs/{customer.jobs[n % JOBS_PER_ORG]}/why",
        "jobs": lambda _: "/v1/jobs?limit=10",
    }
    made = [
        request("GET", paths[kind](offset + n), customer.key)
        for n, kind in enumerate([*kinds] * JOBS_PER_ORG)
    ]
    return itertools.cycle(made[offset:] + made[:offset])


def submits(customer: Customer, offset: int) -> Iterator[bytes]:
    """Submissions of one customer, each under an Idempotency-Key of its own."""
    body = {"account": customer.org, "job": JOB}
    for n in itertools.count():
        extra = f"Idempotency-Key: {offset}-{n}-{time.time_ns()}\r\n"
        yield request("POST", "/v1/jobs", customer.key, body, extra)


def constant(path: str) -> Iterator[bytes]:
    return itertools.repeat(request("GET", path, "dk_" + "x" * 43))


Load = Callable[[], tuple[Server, list[Iterator[bytes]]]]


def loads(
    options: argparse.Namespace, server: Server, peers: Server, found: list[Customer]
) -> dict[str, Load]:
    """Every kind of load, and at whom."""
    spread = [found[n % ORGS] for n in range(options.clients)]

    def of(*kinds: str) -> Load:
        return lambda: (server, [reads(c, n, kinds) for n, c in enumerate(spread)])

    each = {f"read {kind}": of(kind) for kind in dict.fromkeys(READS)} if options.each else {}
    return {
        "peer_async": lambda: (peers, [constant("/async") for _ in spread]),
        "reads": of(*READS),
        **each,
        "peer_sync": lambda: (peers, [constant("/sync") for _ in spread]),
        "submits": lambda: (server, [submits(c, n) for n, c in enumerate(spread)]),
    }


def measure(options: argparse.Namespace, kinds: dict[str, Load]) -> None:
    """Interleaved rounds of everything, then the medians."""
    results: dict[str, list[Result]] = {kind: [] for kind in kinds}
    for kind in kinds:
        load(*kinds[kind](), 0.5)  # warm
    for _ in range(options.rounds):
        for kind in kinds:
            results[kind].append(load(*kinds[kind](), options.seconds))
    peers = statistics.median(r.per_s for r in results["peer_async"])
    for kind, got in results.items():
        report(kind, got, peers, options.clients)


def report(kind: str, got: list[Result], peers: float, clients: int) -> None:
    def median(field: str, digits: int) -> float:
        return round(statistics.median(getattr(r, field) for r in got), digits)

    per_s = statistics.median(r.per_s for r in got)
    line = {
        "bench": "api",
        "what": kind,
        "clients": clients,
        "req_per_s": round(per_s),
        "p50_ms": median("p50_ms", 1),
        "p99_ms": median("p99_ms", 1),
        "of_peer": round(per_s / peers, 3),
        "server_us": median("server_us", 0),
        "database_us": median("database_us", 0),
    }
    if kind == "reads":
        line |= {"goal_of_peer": GOAL_READS, "goal_p99_ms": GOAL_P99_MS}
    print(json.dumps(line), flush=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--each", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        peer() as peers,
        platform(Path(folder) / "data") as (server, key),
    ):
        measure(options, loads(options, server, peers, settle_in(server.port, key)))


if __name__ == "__main__":
    main()
