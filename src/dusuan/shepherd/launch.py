# ruff: noqa: PTH100, PTH118, PTH120 - importing pathlib would cost milliseconds of every start
"""Starts the keeper, with or without a sandbox around it, and speaks with it."""

from __future__ import annotations

import fcntl
import os
import sys

from dusuan.shepherd import keeper
from dusuan.shepherd.title import set_title

_KEEPER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "keeper.py")
_F_SETPIPE_SZ = 1031
_PIPE_BYTES = 1 << 20
_DESCRIPTORS_MAX = 1 << 20


class Link:
    """The shepherd's ends of the pipes to one keeper."""

    __slots__ = ("_rest", "control", "log", "pid", "status")

    def __init__(self, pid: int, control: int, status: int, log: int) -> None:
        self.pid = pid
        self.control = control
        self.status = status
        self.log = log
        self._rest = b""

    def command(self, letter: bytes) -> None:
        """Send a command; a keeper that is gone shows itself on the status pipe."""
        try:
            os.write(self.control, letter)
        except OSError:
            return

    def lines(self) -> list[list[str]] | None:
        """Status lines as [word, value]; None when the keeper is gone."""
        try:
            data = os.read(self.status, 65536)
        except BlockingIOError:
            return []
        if not data:
            return None
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [text.decode("utf-8", "replace").split(" ", 1) for text in whole]


def launch(sandbox: list[str], spec_path: str, lock: int) -> Link:
    """Fork the keeper, and execute it inside `sandbox` (an argument prefix) where there is one.

    The lock's descriptor goes along: it is held until the last of shepherd and keeper is gone,
    so a free lock means that the tree was cleared.
    """
    control_reader, control = os.pipe()
    status, status_writer = os.pipe()
    log, log_writer = os.pipe()
    spec_file = os.open(spec_path, os.O_RDONLY)
    _widen(log)
    passed = (control_reader, status_writer, spec_file, lock)
    pid = os.fork()
    if pid == 0:
        _become_keeper(sandbox, passed, log_writer)
    for descriptor in (control_reader, status_writer, spec_file, log_writer):
        os.close(descriptor)
    for descriptor in (control, status, log):
        os.set_blocking(descriptor, False)
    return Link(pid, control, status, log)


def _widen(pipe: int) -> None:
    try:
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        return  # a user's share of pipe memory may be used up: only slower


def _become_keeper(sandbox: list[str], passed: tuple[int, ...], log_writer: int) -> None:
    """Never returns. A sandbox needs a program to run; without one this process goes on as it."""
    try:
        null = os.open("/dev/null", os.O_RDWR)
        for target, source in ((0, null), (1, log_writer), (2, log_writer)):
            os.dup2(source, target)
        numbers = [str(descriptor) for descriptor in passed]
        argv = [sys.executable, "-I", "-S", _KEEPER, *numbers]
        if sandbox:
            for descriptor in passed:
                os.set_inheritable(descriptor, True)
            os.execve(sandbox[0], [*sandbox, *argv], {})
        _close_all_but(passed)
        set_title(argv)
        keeper.main(argv[3:])
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(126)


def _close_all_but(kept: tuple[int, ...]) -> None:
    """The shepherd's descriptors are not the keeper's: it has to notice when they end."""
    below = 3
    for descriptor in sorted(kept):
        os.closerange(below, descriptor)
        below = descriptor + 1
    os.closerange(below, _DESCRIPTORS_MAX)
