"""The processes of one service: a parent that does nothing but keep its children alive.

Each role is forked from here, so that it begins with everything imported; for that to be safe this
process has no threads and no connections. When it dies, however it dies, the kernel kills its
children at once: nothing of a service outlives what `up` started. A role that ends is begun again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping

import structlog

RESTART_S = 1.0  # at the least between two beginnings of one role
END_S_MAX = 15.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_log = structlog.get_logger("dusuan.family")


class Family:
    """Runs every role in a process of its own until this one is told to stop.

    `ended(role)` is called whenever one has ended by itself.
    """

    def __init__(
        self, roles: Mapping[str, Callable[[], None]], ended: Callable[[str], None]
    ) -> None:
        self._roles = roles
        self._ended = ended
        self._children: dict[int, str] = {}
        self._due_s: dict[str, float] = dict.fromkeys(roles, 0.0)  # of those that do not run

    def run(self) -> None:
        """Return after SIGTERM or SIGINT, when every child has ended."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            while self._wait():
                self._reap()
        finally:
            self._end()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _wait(self) -> bool:
        """Begin what is due, and wait until something happens; whether to go on."""
        now_s = time.monotonic()
        for role in [role for role, due_s in self._due_s.items() if due_s <= now_s]:
            self._begin(role)
        patience_s = min((due_s - now_s for due_s in self._due_s.values()), default=60.0)
        got = signal.sigtimedwait(_SIGNALS, max(patience_s, 0.0))
        return got is None or got.si_signo == signal.SIGCHLD

    def _begin(self, role: str) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(role, parent)
        self._children[pid] = role
        del self._due_s[role]

    def _become(self, role: str, parent: int) -> None:
        """The rest of this process's life is one role's."""
        status = 1
        try:
            _die_with(parent)
            _prctl(_PR_SET_NAME, f"dusuan-{role}".encode())  # what `ps` and `top` call it
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells the parent too
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until the role has its own way to end
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self._roles[role]()
            status = 0
        except BaseException:
            _log.exception("process_failed", role=role)
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        """Note which children have ended."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                role = self._children.pop(pid, None)  # not of ours: an orphan left to us
                if role is not None:
                    code = os.waitstatus_to_exitcode(status)
                    _log.warning("process_ended", role=role, pid=pid, status=code)
                    self._due_s[role] = time.monotonic() + RESTART_S
                    self._ended(role)

    def _end(self) -> None:
        """Ask every child to end, and do not wait for ever."""
        deadline_s = time.monotonic() + END_S_MAX
        self._tell(signal.SIGTERM)
        while self._children and time.monotonic() < deadline_s:
            signal.sigtimedwait((signal.SIGCHLD,), 0.1)
            self._reap_quietly()
        self._tell(signal.SIGKILL)
        while self._children:
            self._reap_quietly(wait=True)

    def _tell(self, number: signal.Signals) -> None:
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _reap_quietly(self, wait: bool = False) -> None:
        with contextlib.suppress(ChildProcessError):
            while (pid := os.waitpid(-1, 0 if wait else os.WNOHANG)[0]) != 0:
                self._children.pop(pid, None)
                if not self._children:
                    return
            return
        self._children.clear()  # somebody else has waited for them


def _prctl(option: int, value: int | bytes) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with(parent: int) -> None:
    """Be killed when the parent dies, also when it did just now."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
