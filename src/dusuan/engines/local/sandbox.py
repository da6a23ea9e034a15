"""The sandbox as a command line: a pure builder. `isolation.py` decides whether it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

# What a program needs of the host, and all it sees of it. Everything else (home folders, other
# jobs, the platform's data, mounted storage) is simply not there.
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt")
# The keeper is root inside: it changes to the job's user, and signals that user's processes.
_KEEPER_RIGHTS = ("CAP_SETUID", "CAP_SETGID", "CAP_KILL")
SCRATCH_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
# What is done to a path; at equal depth in this order.
_STEP = {
    "open": ("--perms", "0755", "--dir"),
    "scratch": ("--perms", "1777", "--tmpfs"),
    "show": ("--ro-bind",),
    "cover": ("--perms", "0755", "--tmpfs"),
}
_ORDER = {what: place for place, what in enumerate(_STEP)}


@dataclass(frozen=True, slots=True)
class Host:
    """What the sandbox is built from. Paths are absolute and free of symbolic links.

    `system` are the top-level folders there are, `system_links` those that are links to others.
    `readable` is shown read-only (interpreter, platform code), `hidden` is covered even where a
    folder that is shown contains it (the platform's data). The longer path wins.
    """

    bwrap: str
    as_root: bool
    system: tuple[str, ...]
    system_links: tuple[tuple[str, str], ...]
    readable: tuple[str, ...]
    hidden: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """One path of the host at its place in the sandbox."""

    source: str
    target: str
    writable: bool


def sandbox_argv(
    host: Host, shown: Sequence[Shown], devices: Sequence[str], network: bool
) -> list[str]:
    """The `bwrap` command up to and including `--`."""
    argv = [host.bwrap, "--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"]
    argv += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if not network:
        argv.append("--unshare-net")
    if host.as_root:
        for right in _KEEPER_RIGHTS:
            argv += ["--cap-add", right]
    else:
        argv.append("--unshare-user")
    argv += _host_mounts(host)
    argv += ["--ro-bind", "/sys", "/sys", "--proc", "/proc", "--dev", "/dev"]
    argv += [*_STEP["scratch"], "/dev/shm"]
    argv += ["--dir", "/run"]
    if network:
        argv += ["--ro-bind-try", "/run/systemd/resolve", "/run/systemd/resolve"]
    for device in devices:
        argv += ["--dev-bind-try", device, device]
    for parent in sorted({parent for item in shown for parent in _parents(item.target)}):
        argv += ["--perms", "0755", "--dir", parent]
    for item in shown:
        argv += ["--bind" if item.writable else "--ro-bind", item.source, item.target]
    return [*argv, "--remount-ro", "/", "--chdir", "/", "--"]


def _host_mounts(host: Host) -> list[str]:
    """System, interpreter and covers, shallow before deep: a mount hides what lies under it."""
    argv: list[str] = []
    for target, link in host.system_links:
        argv += ["--symlink", link, target]
    steps = [(path, "show") for path in (*host.system, *host.readable)]
    steps += [(path, "cover") for path in host.hidden if _needs_cover(path, host)]
    steps += [(path, "scratch") for path in SCRATCH_FOLDERS[:2]]
    # bwrap itself would make missing parents so that only root may enter them.
    steps += [(parent, "open") for path in host.readable for parent in _parents(path)]
    for path, what in sorted(set(steps), key=lambda step: (_depth(step[0]), _ORDER[step[1]], step)):
        argv += [*_STEP[what], path, *([path] if what == "show" else [])]
    return argv


def _parents(path: str) -> list[str]:
    return [str(parent) for parent in PurePosixPath(path).parents if str(parent) != "/"]


def _depth(path: str) -> int:
    return len(PurePosixPath(path).parts)


def _needs_cover(path: str, host: Host) -> bool:
    """Whether `path` lies in something that is shown, and not already under another cover."""
    shown = [(place, False) for place in (*host.system, *host.readable)]
    covered = [(place, True) for place in host.hidden if place != path]
    around = [
        (_depth(place), cover)
        for place, cover in (*shown, *covered)
        if PurePosixPath(path).is_relative_to(place)
    ]
    return bool(around) and not max(around)[1]
