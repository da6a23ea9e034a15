"""Where the parts are put together: the only place with a clock, ids and secrets of its own.

`main` is the `dusuan` command: the command line over a `Launcher` that starts and stops the
embedded platform. What a server needs is imported only by the process that becomes one, so that a
command which only asks starts fast.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dusuan.cli import LauncherError, build
from dusuan.service.datadir import DYING_S_MAX, DataDir, DataDirProblem

START_TIMEOUT_S = 300.0  # the first start compiles the scheduling rules
STOP_TIMEOUT_S = 30.0

Report = Callable[[str], None]


class EmbeddedLauncher:
    """Starts and stops the embedded platform for the command line."""

    def up(
        self,
        data: Path,
        port: int | None,
        database: str | None,
        detach: bool,
        report: Report,
        *,
        standby: bool = False,
        take_over: bool = False,
    ) -> dict[str, Any]:
        """Start a platform. In the foreground this returns when it has been stopped."""
        database = database or os.environ.get("DATABASE_URL")
        if detach:
            words = ["--standby"] * standby + ["--take-over"] * take_over
            words += [] if port is None else ["--port", str(port)]
            return self._detached(data, words, database, standby, report)
        from dusuan.wiring.assembly import Start, run_here  # a server's imports, for a server only

        return run_here(Start(data, port, database, standby, take_over), report)

    def _detached(
        self, data: Path, words: list[str], database: str | None, standby: bool, report: Report
    ) -> dict[str, Any]:
        """Start `up` in a process of its own and wait until it answers."""
        folder = DataDir(data.absolute())
        try:
            folder.prepare()
            if not standby:
                folder.refuse_if_taken(DYING_S_MAX)
        except DataDirProblem as problem:
            raise LauncherError(problem.code, problem.text, problem.remedy) from problem
        return _spawn(folder, words, database, report)

    def down(self, data: Path) -> dict[str, Any]:
        """Stop the services on `data`, and its database server, whichever still runs."""
        folder = DataDir(data.absolute())
        status = folder.read_status()
        was_running = folder.root.is_dir() and folder.is_taken()
        for entry in folder.entries() if was_running else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry["pid"]), signal.SIGTERM)
        if was_running:
            _wait(lambda: not folder.is_taken(), STOP_TIMEOUT_S, "the platform to stop")
        if folder.postgres.is_dir():
            from dusuan.store.embedded import EmbeddedPostgres  # imports the database driver

            EmbeddedPostgres(folder.postgres).stop()
        return {
            "url": status.get("url"),
            "pid": status.get("pid"),
            "data_dir": str(folder.root),
            "database_url": status.get("database_url"),
            "stopped": was_running,
        }

    def client(self, data: Path | None) -> tuple[str, str]:
        """The URL and key to use: both from the environment, or both of the platform on `data`."""
        url, key = os.environ.get("DUSUAN_URL"), os.environ.get("DUSUAN_API_KEY")
        if url is not None and key is None:
            # The local operator's key is not for another platform to see.
            raise LauncherError(
                "no_key", f"DUSUAN_URL names {url}, but no key for it", "set DUSUAN_API_KEY as well"
            )
        folder = DataDir((data or default_data_dir()).absolute())
        url = url or folder.read_status().get("url")
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
    folder: DataDir, words: list[str], database: str | None, report: Report
) -> dict[str, Any]:
    command = [sys.executable, "-m", "dusuan", "up", "--data", str(folder.root), "--json", *words]
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
    return _await_answer(folder, process, standby="--standby" in words)


def _await_answer(
    folder: DataDir, process: subprocess.Popen[bytes], standby: bool
) -> dict[str, Any]:
    """Its status, once it leads; one that stands by need only answer."""

    def said() -> dict[str, Any]:
        entries = folder.entries()
        return next((entry for entry in entries if entry["pid"] == process.pid), {})

    def answers() -> bool:
        if process.poll() is not None:
            raise _why_not(folder.log)
        status = said()
        health = _health(status["url"]) if status else {}
        return bool(health.get("leading") or (standby and health))

    _wait(answers, START_TIMEOUT_S, "the platform to answer")
    return said()


def _health(url: str) -> dict[str, Any]:
    """What the platform at `url` says of itself; nothing when it does not answer."""
    # As cheaply as can be: the platform may be measuring its devices just now.
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=2.0)
    try:
        connection.request("GET", "/healthz")
        return dict(json.loads(connection.getresponse().read()))
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    finally:
        connection.close()


def _why_not(log: Path) -> LauncherError:
    """What the detached process said last: the problem it ended with, or a line of its log."""
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    with contextlib.suppress(ValueError, KeyError, TypeError):
        problem = json.loads(lines[-1])
        return LauncherError(problem["code"], problem["detail"], problem["remedy"])
    return LauncherError("start_failed", f"the platform did not start: {lines[-1]}", f"see {log}")


def _wait(done: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            raise LauncherError("timeout", f"waited {timeout_s:.0f} s for {what}", "see its log")
        time.sleep(0.2)


def main() -> None:
    """The `dusuan` command."""
    build(EmbeddedLauncher())()
