"""A platform put together, with the real clock, ids and secrets, and the processes it runs in."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import uvicorn
from psycopg import OperationalError

from dusuan import __version__
from dusuan.api import Hooks, create_app, server_options
from dusuan.app import access, calibrations, pool, tenants, wallets
from dusuan.app.context import Platform
from dusuan.cli import LauncherError
from dusuan.core.planning.menu import Site
from dusuan.core.scheduling.warm import is_warm, warm
from dusuan.engines.local import LocalEngine
from dusuan.engines.local.calibration import Uncalibrated
from dusuan.facts.library import library
from dusuan.service.datadir import DYING_S_MAX, DataDir, DataDirProblem
from dusuan.service.leading import Leading
from dusuan.service.loop import Service
from dusuan.service.ratings import Ratings
from dusuan.store.database import Store
from dusuan.store.embedded import EmbeddedPostgres, EmbeddedPostgresError, without_password
from dusuan.store.migrate import DatabaseUnreachable, SchemaTooNew, migrate
from dusuan.store.rows import Id
from dusuan.wiring.family import Family

_AS_JSON = json.JSONEncoder(default=repr).encode
DEFAULT_PORT = 7340
SWITCH_S = 0.0005
BACKLOG = 2048

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


@dataclass(frozen=True, slots=True)
class Start:
    """What `up` was told. `standby`: wait beside one that leads. `take_over`: the database's other
    data directory is gone for good, and the attempts it knew are lost. `engine_on` makes the engine
    that keeps its files in a data directory; else it is this host's."""

    data: Path
    port: int | None = None
    database: str | None = None
    standby: bool = False
    take_over: bool = False
    engine_on: Callable[[DataDir], LocalEngine] | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """What the processes of one service have in common. Its parts are closed in reverse order."""

    data: DataDir
    share: int
    listener: socket.socket
    database: EmbeddedPostgres | None
    url: str
    identity: str
    engine: LocalEngine
    leading: Leading
    pid: int

    @property
    def address(self) -> str:
        """Where the API answers."""
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    @property
    def status(self) -> dict[str, Any]:
        """What `up` answers and `platform.json` says."""
        return {
            "url": self.address,
            "pid": self.pid,
            "data_dir": str(self.data.root),
            "database_url": without_password(self.url),
            "version": __version__,
        }

    @contextlib.contextmanager
    def platform(self, *, wait: bool = True) -> Iterator[Platform]:
        """The platform for one process, on connections of its own, which the end of the block
        closes. Without `wait` they may come later."""
        with _store(self.url, wait) as store:
            data = self.data
            yield Platform(store, self.engine, now, new_id, new_secret, data.uploads, _site())

    def ratings(self, platform: Platform) -> Ratings:
        """What measures the devices."""
        engine = self.engine
        return Ratings(
            platform,
            lambda: _measure(engine),
            lambda class_: _sample(engine, class_),
            self.data.measuring,
        )


@contextlib.contextmanager
def _store(url: str, wait: bool = True) -> Iterator[Store]:
    store = Store(url)
    try:
        store.open(wait=wait)
        yield store
    finally:
        store.close()


def assemble(start: Start, report: Report) -> Running:
    """Put a platform together. Raises `LauncherError` for what a user can mend."""
    data = DataDir(start.data.absolute())
    data.prepare()
    share = data.join(beside=start.standby, patience_s=DYING_S_MAX)
    if not start.standby:
        data.status.unlink(missing_ok=True)  # of one that was killed: its pid may be another's
    listener = _listen(start.port)
    _compile_rules(report)
    report("starting the database")
    embedded = None if start.database else EmbeddedPostgres(data.postgres)
    try:
        url = embedded.start() if embedded is not None else str(start.database)
        return _put_together(start, data, share, listener, embedded, url)
    except BaseException:
        with data.leave(share) as last:
            if last and embedded is not None:
                embedded.stop()  # nothing is left running by a start that failed
        raise


def _put_together(
    start: Start,
    data: DataDir,
    share: int,
    listener: socket.socket,
    embedded: EmbeddedPostgres | None,
    url: str,
) -> Running:
    migrate(url)
    identity = data.identity(new_id("dir"))
    with _store(url) as store:
        _claim(store, identity, start.take_over)
    engine = (start.engine_on or _engine_of_host)(data)
    leading, pid = Leading(), os.getpid()
    running = Running(data, share, listener, embedded, url, identity, engine, leading, pid)
    with running.platform() as platform:
        _seed(platform, data)
    return running


def _compile_rules(report: Report) -> None:
    """Once for each version of the scheduling rules, in a process of its own; see `warm.py`."""
    if not is_warm():
        report("compiling the scheduling rules; this takes a minute, once")
        subprocess.run([sys.executable, "-m", warm.__module__], check=False)


def _engine_of_host(data: DataDir) -> LocalEngine:
    """The devices of this host, in the best isolation there is."""
    return LocalEngine(data.engine, node=socket.gethostname(), hidden=[data.root])


def _claim(store: Store, identity: str, by_force: bool) -> None:
    """One database, one data directory: only there are the journals of its attempts."""
    with store.transaction() as tx:
        ours = tx.one(Id, "centre_claim", data_dir=identity, by_force=by_force)
    if ours is None:
        raise LauncherError(
            "database_of_another",
            "this database belongs to another data directory, where its attempts' journals are",
            "use that directory with --data (and --standby beside a running platform); if it is "
            "lost for good, --take-over gives its attempts up as lost",
        )


def _listen(port: int | None) -> socket.socket:
    """A listening socket on loopback: the port asked for, else the usual one or a free one."""
    # TCP by name: asyncio turns Nagle's algorithm off only on sockets that say so, and an answer
    # of two writes would wait 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
            rows = tx.dicts("key_by_hash", hash=access.hash_key(key))
        known = any(row["revoked_at"] is None for row in rows)
    with platform.store.transaction() as tx:
        if not tx.dicts("packages_on_sale"):
            wallets.seed_packages(platform, tx)
        if not known:
            data.write_key(tenants.issue_key(platform, tx, None, None)["key"])


def _revive(embedded: EmbeddedPostgres | None) -> None:
    if embedded is not None:
        embedded.start()


def _measure(engine: LocalEngine) -> list[pool.Measured]:
    """Calibrate, in the words of the pool."""
    return [
        pool.Measured(found.device, None, note=found.reason)
        if isinstance(found, Uncalibrated)
        else pool.Measured(
            device=found.device,
            gflops=found.gflops_median,
            precision=found.precision,
            method=found.method,
            spread=found.spread,
            samples=len(found.samples),
        )
        for found in engine.calibrate()
    ]


def _site() -> Site:
    """Where this is: `DUSUAN_SITE` names it, `DUSUAN_SITE_PUE` is what it draws for each kWh of its
    computers, `DUSUAN_SITE_GRID` a region of the table of grid factors, or kgCO2 for each kWh."""
    grid, pue = os.environ.get("DUSUAN_SITE_GRID"), os.environ.get("DUSUAN_SITE_PUE")
    known = library().grids.get(grid) if grid else None
    try:
        factor = known.kg_per_kwh if known else (float(grid) if grid else None)
        return Site(os.environ.get("DUSUAN_SITE", "local"), float(pue or 1.0), factor)
    except ValueError as error:
        text = f"the site's settings cannot be read: {error}"
        remedy = "DUSUAN_SITE_PUE is like 1.2, DUSUAN_SITE_GRID like 0.53 or a region's name"
        raise LauncherError("bad_site", text, remedy) from error


def _sample(engine: LocalEngine, class_: str) -> list[calibrations.Sampled]:
    """Measure one class of work, in the words of the pool."""
    return [
        calibrations.Sampled(
            device=load.device,
            class_=load.class_,
            values=load.values,
            unit=load.unit,
            precision=load.precision,
            software=load.software,
            method=load.method,
            detail=load.detail,
            note=load.reason,
        )
        for load in engine.measure_class(class_)
    ]


def _hooks(running: Running, ratings: Ratings, closing: threading.Event) -> Hooks:
    engine = running.engine
    return Hooks(
        closing=closing.is_set,
        calibrate=ratings.calibrate,
        read_log=engine.read_log,
        outputs=engine.outputs,
        open_output=engine.open_output,
        healthy=lambda: {
            "status": "ok",
            "version": __version__,
            "leading": running.leading.is_set(),
        },
    )


class _Server(uvicorn.Server):
    """Tells the streams that the process ends, so that they let it."""

    def __init__(self, config: uvicorn.Config, closing: threading.Event) -> None:
        super().__init__(config)
        self._closing = closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._closing.set()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End when the parent says so. uvicorn would raise the signal once more after that."""
        signal.signal(signal.SIGTERM, self.handle_exit)
        yield


def _serve_loop(running: Running, entry: int) -> None:
    """The process of the service's loop."""
    os.close(entry)  # it says that the parent lives
    _revive(running.database)  # who else would, if it died together with the last one of us
    with running.platform() as platform:
        ratings = running.ratings(platform)

        def prepare() -> None:
            running.data.write_status(running.status)
            ratings.prepare()

        service = Service(
            platform,
            prepare,
            lambda: _revive(running.database),
            data_dir=running.identity,
            leading=running.leading,
        )
        signal.signal(signal.SIGTERM, lambda *_: service.stop())
        service.run()


def _serve_api(running: Running, entry: int) -> None:
    """The process of the API. It answers without a database too: that it has none."""
    os.close(entry)  # it says that the parent lives
    closing = threading.Event()
    with running.platform(wait=False) as platform:
        app = create_app(platform, _hooks(running, running.ratings(platform), closing))
        # Threads that read the database hold the interpreter for moments between two waits: with
        # the usual 5 ms each of those moments would wait for the event loop's turn to end.
        sys.setswitchinterval(SWITCH_S)
        config = uvicorn.Config(app, timeout_graceful_shutdown=3, **server_options())
        _Server(config, closing).run(sockets=[running.listener])


def serve(running: Running, report: Report) -> None:
    """Run the loop and the API until the process is told to stop, then close everything."""
    running.listener.listen(BACKLOG)  # here, so that who comes while the API begins anew can wait
    entry = running.data.enter(running.status)
    report(f"dusuan answers at {running.address}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # one that comes twice does not cut the end short
    gc.collect()
    gc.freeze()  # what was imported is never looked through again: that would hold up a request
    roles = {
        "loop": partial(_serve_loop, running, entry),
        "api": partial(_serve_api, running, entry),
    }
    try:
        Family(roles, lambda role: running.leading.clear() if role == "loop" else None).run()
    finally:
        running.listener.close()
        _leave(running)
        os.close(entry)


def _leave(running: Running) -> None:
    """The last service of a data directory stops its database; one that stays behind needs it."""
    running.data.withdraw_status(running.pid)
    with running.data.leave(running.share) as last:
        if last and running.database is not None:
            running.database.stop()


def run_here(start: Start, report: Report) -> dict[str, Any]:
    """Run a platform in this process until it is told to stop. Raises `LauncherError`."""
    _configure_logs()
    try:
        running = assemble(start, report)
    except DataDirProblem as problem:
        raise LauncherError(problem.code, problem.text, problem.remedy) from problem
    except EmbeddedPostgresError as error:
        raise LauncherError("database_failed", str(error), error.next_step) from error
    except SchemaTooNew as error:
        remedy = "use the newer dusuan that wrote it"
        raise LauncherError("data_dir_newer", str(error), remedy) from error
    except (DatabaseUnreachable, OperationalError) as error:
        text = f"the database does not answer: {str(error).strip()}"
        raise LauncherError(
            "database_unreachable", text, "check --database / DATABASE_URL"
        ) from error
    status = running.status
    serve(running, report)
    return status


def _configure_logs() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(lambda event, **_: _AS_JSON(event)),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,  # there is a line for every request
    )
