"""Where the parts are put together, and the only place with a clock, ids and secrets of its own.

`main` is the `dusuan` command: the command line over a `Launcher` that starts and stops the
embedded platform.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import structlog
import uvicorn
from fastapi import FastAPI
from psycopg import OperationalError

from dusuan import __version__
from dusuan.api import Hooks, create_app
from dusuan.app import access, pool, tenants, wallets
from dusuan.app.context import Platform
from dusuan.cli import LauncherError, build
from dusuan.engines.base import Device
from dusuan.engines.local import LocalEngine
from dusuan.engines.local.calibration import calibrate
from dusuan.service.datadir import DataDir, DataDirProblem
from dusuan.service.loop import Service
from dusuan.service.ratings import Ratings
from dusuan.store.database import Store
from dusuan.store.embedded import EmbeddedPostgres, EmbeddedPostgresError
from dusuan.store.migrate import SchemaTooNew, migrate

DEFAULT_PORT = 7340
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0

Report = Callable[[str], None]


def now() -> datetime:
    """The real time, in UTC."""
    return datetime.now(UTC)


def new_id(kind: str) -> str:
    """A new id such as `job_0199f3a2c4d1b7e09a1c`: sortable by time, 40 random bits."""
    return f"{kind}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(5)}"


def new_secret() -> str:
    """256 random bits as text."""
    return secrets.token_urlsafe(32)


@dataclass(slots=True)
class Running:
    """The parts of a platform in this process, to be closed in reverse order."""

    data: DataDir
    lock: int
    listener: socket.socket
    database: EmbeddedPostgres | None
    url: str
    platform: Platform
    service: Service
    app: FastAPI
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where the API answers."""
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    @property
    def status(self) -> dict[str, Any]:
        """What `up` answers and `platform.json` says."""
        return {
            "url": self.address,
            "pid": os.getpid(),
            "data_dir": str(self.data.root),
            "database_url": self.url,
            "version": __version__,
        }


def assemble(data_dir: Path, port: int | None, database: str | None, report: Report) -> Running:
    """Put a platform together on `data_dir`. Raises `LauncherError` for what a user can mend."""
    data = DataDir(data_dir.absolute())
    data.prepare()
    lock = data.lock()
    listener = _listen(port)
    report("starting the database")
    embedded = None if database else EmbeddedPostgres(data.postgres)
    url = database or (embedded.start() if embedded else "")
    migrate(url)
    store = Store(url)
    store.open()
    engine = LocalEngine(data.engine, node=socket.gethostname(), hidden=[data.root])
    platform = Platform(store, engine, now, new_id, new_secret, data.uploads)
    _seed(platform, data)
    ratings = Ratings(platform, _measure)
    service = Service(platform, ratings.prepare, lambda: _revive(embedded))
    app = create_app(platform, _hooks(engine, ratings, service))
    return Running(data, lock, listener, embedded, url, platform, service, app)


def _listen(port: int | None) -> socket.socket:
    """A listening socket on loopback: the port asked for, else the usual one or a free one."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", DEFAULT_PORT if port is None else port))
    except OSError as error:
        if port is not None:
            raise LauncherError(
                "port_in_use",
                f"port {port} on 127.0.0.1 cannot be used: {error.strerror}",
                "choose another with --port, or --port 0 for any free one",
            ) from error
        listener.bind(("127.0.0.1", 0))
    return listener


def _seed(platform: Platform, data: DataDir) -> None:
    """What a new platform needs: something on sale, and its operator's key."""
    known = False
    if data.operator_key.exists():
        key = data.operator_key.read_text().strip()
        with platform.store.transaction() as tx:
            known = bool(tx.dicts("key_by_hash", hash=access.hash_key(key)))
    with platform.store.transaction() as tx:
        if not tx.dicts("packages_on_sale"):
            wallets.seed_packages(platform, tx)
        if not known:
            data.write_key(tenants.issue_key(platform, tx, None, None)["key"])


def _revive(embedded: EmbeddedPostgres | None) -> None:
    if embedded is not None:
        embedded.start()


def _measure(devices: Sequence[Device]) -> list[pool.Measured]:
    """Calibrate, in the words of the pool."""
    return [
        pool.Measured(
            device=c.device,
            gflops=c.gflops,
            precision=c.precision,
            method=c.method,
            spread=c.spread,
            samples=c.samples,
            note=c.note,
        )
        for c in calibrate(devices)
    ]


def _hooks(engine: LocalEngine, ratings: Ratings, service: Service) -> Hooks:
    return Hooks(
        calibrate=ratings.calibrate,
        read_log=engine.read_log,
        outputs=engine.outputs,
        open_output=engine.open_output,
        healthy=lambda: {
            "status": "ok",
            "version": __version__,
            "leading": service.leading.is_set(),
        },
    )


def serve(running: Running, report: Report) -> None:
    """Run the service and the API until the process is told to stop, then close everything."""
    thread = threading.Thread(target=running.service.run, name="service", daemon=True)
    thread.start()
    config = uvicorn.Config(
        running.app, log_config=None, access_log=False, timeout_graceful_shutdown=3
    )
    server = uvicorn.Server(config)
    running.data.write_status(running.status)
    report(f"dusuan answers at {running.address}")
    try:
        server.run(sockets=[running.listener])
    finally:
        running.service.stop()
        thread.join(timeout=10.0)
        running.platform.store.close()
        if running.database is not None:
            running.database.stop()
        running.data.status.unlink(missing_ok=True)
        os.close(running.lock)


class EmbeddedLauncher:
    """Starts and stops the embedded platform for the command line."""

    def up(
        self, data: Path, port: int | None, database: str | None, detach: bool, report: Report
    ) -> dict[str, Any]:
        """Start a platform. In the foreground this returns when it has been stopped."""
        database = database or os.environ.get("DATABASE_URL")
        if detach:
            return self._detached(data, port, database, report)
        try:
            running = assemble(data, port, database, report)
        except DataDirProblem as problem:
            raise LauncherError(problem.code, problem.text, problem.remedy) from problem
        except EmbeddedPostgresError as error:
            raise LauncherError("database_failed", str(error), error.next_step) from error
        except SchemaTooNew as error:
            raise LauncherError(
                "data_dir_newer", str(error), "use the newer dusuan that wrote it"
            ) from error
        except OperationalError as error:
            raise LauncherError(
                "database_unreachable",
                f"the database does not answer: {str(error).strip()}",
                "check --database / DATABASE_URL",
            ) from error
        status = running.status
        serve(running, report)
        return status

    def _detached(
        self, data: Path, port: int | None, database: str | None, report: Report
    ) -> dict[str, Any]:
        """Start `up` in a process of its own and wait until it answers."""
        folder = DataDir(data.absolute())
        try:
            folder.prepare()
            if folder.is_taken():
                folder.lock()
        except DataDirProblem as problem:
            raise LauncherError(problem.code, problem.text, problem.remedy) from problem
        return _spawn(folder, port, database, report)

    def down(self, data: Path) -> dict[str, Any]:
        """Stop the platform on `data`, and its database server, whichever still runs."""
        folder = DataDir(data.absolute())
        status = folder.read_status()
        was_running = folder.is_taken()
        if was_running and "pid" in status:
            os.kill(int(status["pid"]), signal.SIGTERM)
            _wait(lambda: not folder.is_taken(), STOP_TIMEOUT_S, f"process {status['pid']} to stop")
        if folder.postgres.is_dir():
            EmbeddedPostgres(folder.postgres).stop()
        return {
            "url": status.get("url"),
            "pid": status.get("pid"),
            "data_dir": str(folder.root),
            "database_url": status.get("database_url"),
            "stopped": was_running,
        }

    def client(self, data: Path | None) -> tuple[str, str]:
        """The URL and key to use: from the environment, else of the platform on `data`."""
        url, key = os.environ.get("DUSUAN_URL"), os.environ.get("DUSUAN_API_KEY")
        folder = DataDir((data or default_data_dir()).absolute())
        if url is None:
            url = folder.read_status().get("url")
        if url is None or (key is None and not folder.operator_key.exists()):
            raise LauncherError(
                "not_running",
                f"no platform is running on {folder.root}",
                "start it: dusuan up --detach; or name one with DUSUAN_URL and DUSUAN_API_KEY",
            )
        return url, key or folder.operator_key.read_text().strip()


def default_data_dir() -> Path:
    """Where the embedded platform lives unless told otherwise."""
    return Path(os.environ.get("DUSUAN_DATA", ".dusuan"))


def _spawn(
    folder: DataDir, port: int | None, database: str | None, report: Report
) -> dict[str, Any]:
    command = [sys.executable, "-m", "dusuan", "up", "--data", str(folder.root), "--json"]
    command += [] if port is None else ["--port", str(port)]
    environment = dict(os.environ) | ({"DATABASE_URL": database} if database else {})
    with folder.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    report("starting the platform")
    return _await_answer(folder, process)


def _await_answer(folder: DataDir, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    def answers() -> bool:
        if process.poll() is not None:
            raise LauncherError(
                "start_failed",
                f"the platform did not start: {_last_line(folder.log)}",
                f"see {folder.log}",
            )
        status = folder.read_status()
        return status.get("pid") == process.pid and _healthy(status["url"])

    _wait(answers, START_TIMEOUT_S, "the platform to answer")
    return folder.read_status()


def _healthy(url: str) -> bool:
    try:
        return bool(httpx.get(f"{url}/healthz", timeout=2.0).json().get("leading"))
    except (httpx.HTTPError, ValueError):
        return False


def _last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _wait(done: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            raise LauncherError("timeout", f"waited {timeout_s:.0f} s for {what}", "see its log")
        time.sleep(0.05)


def main() -> None:
    """The `dusuan` command."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    build(EmbeddedLauncher())()
