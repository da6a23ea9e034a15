# ruff: noqa: PTH123, PTH208 - importing pathlib would cost milliseconds of every start
"""Processes and their descendants, as the kernel tells them."""

from __future__ import annotations

import ctypes
import os
import signal
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION = 0x20080522


def _prctl(option: int, value: int) -> None:
    """Best effort: an old kernel only loses a second line of defence."""
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def become_reaper() -> None:
    """Orphans below this process become its children, however often they fork away."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_dumpable(on: bool) -> None:
    """Whether processes of the same user may attach to this one and change its memory."""
    _prctl(_PR_SET_DUMPABLE, int(on))


def forbid_new_privileges() -> None:
    """From here on no set-user-id program gives this process or its children more rights."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Empty the capability sets that a change of user leaves alone (the inheritable one)."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None, use_errno=True).capset(header, nothing)


def survive_parent() -> None:
    """Undo a parent-death signal: an orderly end needs the keeper to outlive its parent."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def children(pid: int) -> list[int]:
    """The children of all threads of `pid`; none when it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += [int(child) for child in file.read().split()]
    except OSError:
        return found
    return found


def descendants(pid: int) -> list[int]:
    """Everything below `pid`, parents before children. Zombies are among them."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children(waiting.pop())
        found += below
        waiting += below
    return found


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone already."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def kill_descendants() -> None:
    """SIGKILL everything below this process, without waiting for it."""
    if os.getpid() == 1:
        # First process of its own PID namespace: the kernel does it at once and misses none.
        send(-1, signal.SIGKILL)
        return
    for pid in descendants(os.getpid()):
        send(pid, signal.SIGKILL)


def reap() -> tuple[dict[int, int], bool]:
    """Collect the dead children: their wait statuses, and whether any child is left."""
    dead: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return dead, False
        if pid == 0:
            return dead, True
        dead[pid] = status


def clear() -> dict[int, int]:
    """Kill everything below this process until nothing is left; wait statuses of what died.

    Killing is repeated because a process may fork between the look and the kill. It ends when
    the kernel says that there is no child: this process is their reaper, so then there is no
    descendant either.
    """
    dead: dict[int, int] = {}
    pause_s = 0.001
    while True:
        kill_descendants()
        died, left = reap()
        dead.update(died)
        if not left:
            return dead
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.02)


def catches(pid: int, number: int) -> bool:
    """Whether process `pid` has a handler of its own for signal `number`."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for text in file:
                if text.startswith(b"SigCgt:"):
                    return bool(int(text.split()[1], 16) >> (number - 1) & 1)
    except OSError:
        return False
    return False


def command_line(pid: int) -> list[bytes]:
    """The arguments `pid` was started with; empty when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")[:-1]
    except OSError:
        return []
