"""A platform for tests of the API and of the command line: real database, made-up engine."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import uvicorn

from dusuan.api import Hooks, create_app, server_options
from dusuan.app import calibrations, pool, tenants, wallets
from dusuan.app.context import Limits, Platform
from dusuan.core.metering.journal import EndReason, Exit, Record, RecordKind
from dusuan.engines.base import Action, Capabilities, Device, Lease, Observation, StartOrder
from dusuan.service import loop
from dusuan.store.database import Store

RATING_GFLOPS = 100


DEVICES = tuple(
    Device(f"cpu:{n}", "here", "TestMake", "Test CPU", "cpu", n, 1_024) for n in range(2)
)


@dataclass
class Run:
    """One attempt of the made-up engine."""

    order: StartOrder
    records: list[Record] = field(default_factory=list)
    log: bytes = b""
    ended: bool = False


class MadeUpEngine:
    """Runs nothing. What a job's command says decides what is reported: `hang`, `exit N`."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Be as new."""
        self.runs: dict[str, Run] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.saved: dict[str, bytes] = {}  # what attempts write to their logs, by job id

    def capabilities(self) -> Capabilities:
        return Capabilities("made-up", "none", False, False, False)

    def inventory(self) -> Sequence[Device]:
        return DEVICES

    def start(self, order: StartOrder) -> None:
        run = self.runs.setdefault(order.attempt_id, Run(order))
        if run.records:
            return
        command = order.script or " ".join(order.argv or ())
        devices = len(order.devices)
        run.log = f"running {command.strip()}\n".encode()
        self._write(run, RecordKind.START, 0)
        for n in range(1, 7):
            done = 20.0 * n * (1 if devices == 1 else 1.5)
            self._write(run, RecordKind.TICK, 100 * n * devices, (done, 400.0))
        self.files[(order.job_id, "model/weights.bin")] = b"weights"
        if "hang" not in command:
            code = int(command.split("exit")[1]) if "exit" in command else 0
            self.finish(run, Exit(EndReason.EXIT, code), 600 * devices)

    def finish(self, run: Run, ended: Exit, held_ms: int) -> None:
        run.ended = True
        self._write(run, RecordKind.END, held_ms, ended=ended)

    def _write(
        self,
        run: Run,
        kind: RecordKind,
        held_ms: int,
        progress: tuple[float, float] | None = None,
        ended: Exit | None = None,
    ) -> None:
        result = {"accuracy": 0.97} if ended else {}
        run.records.append(
            Record(
                len(run.records) + 1,
                kind,
                held_ms,
                1_700_000_000_000,
                progress=progress,
                result=result,
                exit=ended,
            )
        )

    def observe(self, cursors: Mapping[str, int]) -> Sequence[Observation]:
        news = []
        for attempt_id, cursor in cursors.items():
            run = self.runs.get(attempt_id)
            if run is None:
                news.append(Observation(attempt_id, cursor, lost=True))
            elif len(run.records) > cursor:
                fresh = tuple(run.records[cursor:])
                news.append(Observation(attempt_id, len(run.records), fresh))
        return news

    def signal(self, attempt_id: str, action: Action) -> None:
        run = self.runs[attempt_id]
        if action is not Action.CHECKPOINT and not run.ended:
            self.finish(run, Exit(EndReason.STOPPED, signal=15), 700 * len(run.order.devices))

    def set_lease(self, attempt_id: str, lease: Lease) -> None:
        pass

    def trouble(self) -> str:
        return ""

    def remove_files(self, job_id: str, attempt_ids: Sequence[str]) -> None:
        pass

    def adopt(self) -> Sequence[str]:
        return []

    def fileno(self) -> int | None:
        return None

    def drain(self) -> None:
        pass

    def read_log(self, attempt_id: str, offset: int, limit: int) -> bytes:
        run = self.runs.get(attempt_id)
        return b"" if run is None else run.log[offset : offset + limit]

    def outputs(self, job_id: str) -> Sequence[tuple[str, int]]:
        return sorted(
            (path, len(data)) for (job, path), data in self.files.items() if job == job_id
        )

    def open_output(self, job_id: str, relative: str) -> BinaryIO:
        if (job_id, relative) not in self.files:
            raise FileNotFoundError(relative)
        return BytesIO(self.files[(job_id, relative)])


EPOCH = datetime(2026, 3, 1, tzinfo=UTC)


class Clock:
    """A clock that tests can push."""

    def __init__(self) -> None:
        self.at = EPOCH
        self._ids = itertools.count(1)
        self._guard = threading.Lock()

    def now(self) -> datetime:
        return self.at

    def push(self, **delta: float) -> None:
        self.at += timedelta(**delta)

    def new_id(self, kind: str) -> str:
        with self._guard:
            return f"{kind}_{next(self._ids):08d}"

    def new_secret(self) -> str:
        return self.new_id("secret")


class Centre:
    """A whole centre: its database, its engine, its operator, and a client for each person.

    One serves many tests; `begin` and `end` stand around each, on a database that is empty.
    """

    def __init__(self, database_url: str, folder: Path) -> None:
        self.clock, self.engine = Clock(), MadeUpEngine()
        self.store = Store(database_url, max_size=8)
        self.store.open()
        uploads = folder / "uploads"
        uploads.mkdir()
        self.platform = Platform(
            self.store,
            self.engine,
            self.clock.now,
            self.clock.new_id,
            self.clock.new_secret,
            uploads,
        )
        self.closing = threading.Event()
        self.app = create_app(self.platform, self._hooks())
        self._clients: list[httpx.Client] = []
        self._turner: threading.Thread | None = None
        self._serve()

    def begin(self) -> None:
        """Be as new, whatever the last test did to anything."""
        self.clock.at = EPOCH
        self.engine.forget()
        self.closing.clear()
        self.app.state.door.forget()
        for file in self.platform.uploads.iterdir():
            file.unlink()
        _restore(self.app.state.hooks, self._hooks())
        _restore(self.platform.limits, Limits())
        with self.store.transaction() as tx:
            self.operator_key = tenants.issue_key(self.platform, tx, None, None)["key"]
            wallets.seed_packages(self.platform, tx)
            pool.record_inventory(self.platform, tx, DEVICES)
        self.calibrate()

    def end(self) -> None:
        """Leave nothing at work: no stream, no loop, no connection."""
        self.closing.set()
        if self._turner is not None:
            self._turner.join()
            self._turner = None
        for client in self._clients:
            client.close()
        self._clients.clear()
        self.__dict__.pop("operator", None)
        while self._server.server_state.tasks:
            time.sleep(0.005)

    def _serve(self) -> None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(self.app, timeout_graceful_shutdown=1, **server_options())
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],))
        self._thread.start()

    def keep_turning(self) -> None:
        """Let the service work on its own until the test ends."""

        def turn() -> None:
            while not self.closing.wait(0.02):
                loop.step(self.platform)

        self._turner = threading.Thread(target=turn)
        self._turner.start()

    def _hooks(self) -> Hooks:
        return Hooks(
            calibrate=self.calibrate,
            read_log=self.engine.read_log,
            outputs=self.engine.outputs,
            open_output=self.engine.open_output,
            healthy=lambda: {"status": "ok"},
            closing=self.closing.is_set,
        )

    def calibrate(self, classes: Sequence[str] = ()) -> dict[str, Any]:
        sampled = [
            calibrations.Sampled(d.device, name, (40.0, 50.0, 60.0), "gflops", "fp32", "test")
            for d in DEVICES
            for name in classes
        ]
        with self.store.transaction() as tx:
            calibrations.record(self.platform, tx, sampled)
        measured = [pool.Measured(d.device, RATING_GFLOPS, "fp32", "test") for d in DEVICES]
        with self.store.transaction() as tx:
            pool.record_ratings(self.platform, tx, measured)
            return pool.show(tx, operator=True)

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        made = httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=20.0)
        self._clients.append(made)
        return made

    @cached_property
    def operator(self) -> httpx.Client:
        return self.client(self.operator_key)

    def person(self, org: str, name: str, role: str, account: str | None = None) -> httpx.Client:
        """A client for a member with one role, on the organisation's root unless said otherwise."""
        return self.client(self.person_key(org, name, role, account))

    def person_key(self, org: str, name: str, role: str, account: str | None = None) -> str:
        member = {"name": name, "account": account or org, "role": role}
        assert self.operator.post("/v1/members", json=member).status_code == 201
        made = self.operator.post("/v1/keys", json={"org": org, "member": name})
        assert made.status_code == 201, made.text
        return str(made.json()["key"])

    def organisation(self, name: str, packs: int = 0) -> None:
        """An organisation, with packages bought for it by the operator."""
        assert self.operator.post("/v1/orgs", json={"name": name}).status_code == 201
        for _ in range(packs):
            order = {"account": name, "package": "demo-pack"}
            assert self.operator.post("/v1/purchases", json=order).status_code == 201

    def turn(self, times: int = 4) -> None:
        """Let the service do its steps."""
        for _ in range(times):
            loop.step(self.platform)

    def close(self) -> None:
        """For good."""
        self._server.should_exit = True
        self._thread.join()
        self.store.close()


def _restore(changed: Any, fresh: Any) -> None:
    """Give a frozen record back the values that tests have replaced in it."""
    for each in fields(fresh):
        object.__setattr__(changed, each.name, getattr(fresh, each.name))
