"""Decides, by trying, how jobs are kept apart on this host; says it in words for a receipt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dusuan.engines.local.sandbox import SYSTEM_FOLDERS, Host, sandbox_argv

# Uid and gid of jobs when the platform runs as root: of a range that Debian hands out by hand only.
# Not `nobody`, who owns the embedded database's files (decision 0001).
JOB_USER = (60987, 60987)
_PACKAGE = Path(__file__).resolve().parents[2]
_PROBE_S = 20


@dataclass(frozen=True, slots=True)
class Isolation:
    """How jobs run: in `sandbox` or as plain processes, as `user` (uid, gid) or as the service."""

    sandbox: Host | None
    user: tuple[int, int] | None
    sentence: str


class IsolationUnavailable(Exception):
    """The isolation asked for does not work here; `str()` says why."""


def choose(asked: str, jobs: Path, hidden: Sequence[Path]) -> Isolation:
    """The isolation for `asked`: "auto", "process" or "bubblewrap".

    `jobs` is the folder jobs live in; `hidden` is what no job may see. Raises
    IsolationUnavailable for "bubblewrap" where it does not work, ValueError for another word.
    """
    if asked not in ("auto", "process", "bubblewrap"):
        raise ValueError(f"isolation is auto, process or bubblewrap, not {asked!r}")
    if asked == "process":
        return _as_processes(jobs)
    problem = "bwrap is not installed"
    bwrap = shutil.which("bwrap")
    if bwrap is not None:
        host = describe_host(bwrap, hidden)
        problem = probe(host)
        if not problem:
            return _in_sandbox(host)
    if asked == "bubblewrap":
        raise IsolationUnavailable(f"bubblewrap cannot be used: {problem}")
    return _as_processes(jobs)


def describe_host(bwrap: str, hidden: Sequence[Path]) -> Host:
    """What there is to show and to hide on this host."""
    folders = [Path(folder) for folder in SYSTEM_FOLDERS if Path(folder).is_dir()]
    prefixes = {Path(sys.prefix), Path(sys.base_prefix), interpreter().parent.parent, _PACKAGE}
    return Host(
        bwrap=bwrap,
        as_root=os.geteuid() == 0,
        system=tuple(str(folder) for folder in folders if not folder.is_symlink()),
        system_links=tuple(
            (str(folder), str(folder.readlink())) for folder in folders if folder.is_symlink()
        ),
        # An interpreter in /bin has the prefix "/", which would show everything.
        readable=tuple(sorted({str(prefix.resolve()) for prefix in prefixes} - {"/"})),
        hidden=tuple(sorted(str(path.resolve()) for path in hidden)),
    )


def interpreter() -> Path:
    """The real interpreter, which needs nothing of a virtual environment."""
    return Path(sys.executable).resolve()


def probe(host: Host) -> str:
    """Really run something in the sandbox; why it does not work, or an empty string."""
    uid, gid = JOB_USER
    code = f"import os; os.setgid({gid}); os.setuid({uid})" if host.as_root else "pass"
    argv = sandbox_argv(host, [], [], network=False)
    argv += [str(interpreter()), "-I", "-S", "-c", f"{code}; print('works')"]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_S, env={}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.stdout == b"works\n":
        return ""
    return done.stderr.decode(errors="replace").strip()[:300] or f"it ended with {done.returncode}"


def _in_sandbox(host: Host) -> Isolation:
    who = (
        "an unprivileged user of its own" if host.as_root else "the platform's user, without rights"
    )
    sentence = (
        "bubblewrap sandbox: own process, IPC and mount namespaces, read-only system, private "
        "/tmp, other jobs and the platform's data not visible, no network unless asked for, "
        f"as {who}"
    )
    return Isolation(host, JOB_USER if host.as_root else None, sentence)


def _as_processes(jobs: Path) -> Isolation:
    shared = "plain processes with resource limits; files, processes and network are shared"
    if os.geteuid() != 0:
        return Isolation(None, None, f"{shared}; jobs run as the platform's own user")
    if _reachable_by_jobs(jobs):
        return Isolation(None, JOB_USER, f"{shared}; jobs run as an unprivileged user")
    return Isolation(
        None,
        None,
        f"{shared}; jobs run as root, because the interpreter or the data folder can be "
        "entered by root alone",
    )


def _reachable_by_jobs(jobs: Path) -> bool:
    """Whether an unprivileged job could run Python and enter its work folder."""
    python = Path(sys.prefix) / "bin" / "python"
    code = "import os, sys; sys.exit(not os.access(sys.argv[1], os.X_OK))"
    uid, gid = JOB_USER
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", code, str(jobs)],
            user=uid,
            group=gid,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_S,
            cwd="/",
            env={},
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
