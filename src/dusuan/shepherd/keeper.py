# ruff: noqa: PTH100, PTH120, PTH123 - importing pathlib would cost milliseconds of every start
"""Between shepherd and job: the process that owns the job's tree and dies with it.

Started as `python -I -S keeper.py CONTROL STATUS SPEC LOCK` (numbers of inherited descriptors),
inside the sandbox where there is one. It reads commands, one byte each, from CONTROL (`c`: send
the checkpoint signal, `k`: kill the tree). The end of CONTROL means that the shepherd is dead:
then the job's whole tree is killed. To STATUS it writes lines: `start NS`, `failed TEXT`,
`exit CODE`, `signal NUMBER`, `memory KIB` (the largest process it had), `dead NS` with NS on the
steady clock of the host.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import signal
import sys
import time

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from dusuan.shepherd import tree

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
_TIDY_MS = 500  # how often orphans are collected when nothing else happens


def main(argv: list[str]) -> None:
    """Run one job to its end; exits when nothing of its tree is left."""
    control, status, spec_file, lock = (int(number) for number in argv[1:5])
    for descriptor in (control, status, spec_file, lock):
        os.set_inheritable(descriptor, False)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    tree.survive_parent()
    tree.become_reaper()
    tree.set_dumpable(False)
    with os.fdopen(spec_file, "rb") as file:
        spec = json.load(file)
    Keeper(spec, control, status).run()


class Keeper:
    """One job: its main process, and everything that descends from it."""

    def __init__(self, spec: dict[str, object], control: int, status: int) -> None:
        self._spec = spec
        self._control = control
        self._status = status
        self._main = 0
        self._wake = 0

    def run(self) -> None:
        """Start, watch, clear away."""
        self._watch_children()
        problem = self._start()
        if problem:
            self._say("failed", problem)
        else:
            self._release_log()
            self._watch()
        tree.clear()
        dead_ns = time.monotonic_ns()
        self._say("memory", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
        self._say("dead", dead_ns)

    def _say(self, word: str, value: object) -> None:
        try:
            os.write(self._status, f"{word} {value}\n".encode())
        except OSError:
            return  # the shepherd is gone, and the end of CONTROL says so as well

    def _watch_children(self) -> None:
        """Make the death of any child wake the poll."""
        self._wake, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def _start(self) -> str:
        """Fork and execute the job; why it could not be, or an empty string."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        began_ns = time.monotonic_ns()
        self._main = os.fork()
        if self._main == 0:
            _become_job(self._spec, writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            problem = file.read().decode("utf-8", "replace")  # ends when exec closes the pipe
        if problem:
            os.waitpid(self._main, 0)
            return problem
        self._say("start", began_ns)
        return ""

    def _release_log(self) -> None:
        """The log's pipe belongs to the job alone, so that it ends when the job does."""
        os.dup2(0, 1)
        os.dup2(0, 2)

    def _watch(self) -> None:
        """Serve commands until the main process has ended."""
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        while not self._reap():
            for descriptor, _ in poller.poll(_TIDY_MS):
                if descriptor == self._wake:
                    os.read(self._wake, 4096)
                elif not self._obey(os.read(self._control, 1)):
                    self._report(tree.clear())
                    return

    def _obey(self, command: bytes) -> bool:
        """False when the tree has to go: on a kill, or when the shepherd is dead."""
        if command == b"c":
            self._checkpoint()
        return command == b"c"

    def _reap(self) -> bool:
        dead, _ = tree.reap()
        return self._report(dead)

    def _report(self, dead: dict[int, int]) -> bool:
        """Say how the main process ended, if it is among the dead."""
        status = dead.get(self._main)
        if status is None:
            return False
        if os.WIFSIGNALED(status):
            self._say("signal", os.WTERMSIG(status))
        else:
            self._say("exit", os.WEXITSTATUS(status))
        return True

    def _checkpoint(self) -> None:
        """Signal every process of the job, except a shell of ours that would die of it.

        Two looks, since a process may fork during the first.
        """
        number = int(str(self._spec["checkpoint_signal"]))
        done: set[int] = set()
        for _ in range(2):
            for pid in tree.descendants(os.getpid()):
                if pid not in done and not self._spared(pid, number):
                    done.add(pid)
                    tree.send(pid, number)

    def _spared(self, pid: int, number: int) -> bool:
        """Whether `pid` is our own top-level shell that waits for the process that matters.

        Without a trap it would die at once, and the job's end would be taken for its child's.
        """
        if pid != self._main or not self._spec["shell"]:
            return False
        argv = [os.fsencode(part) for part in self._spec["argv"]]  # type: ignore[attr-defined] # a list
        still_shell = tree.command_line(pid) == argv
        return still_shell and not tree.catches(pid, number) and bool(tree.children(pid))


def _nothing(_number: int, _frame: object) -> None:
    """Handle SIGCHLD: being interrupted is all that is wanted."""


def _become_job(spec: dict[str, object], problem_pipe: int) -> None:
    """Turn this forked process into the job; never returns."""
    try:
        _execute(spec)
    except BaseException as error:
        os.write(problem_pipe, _why(error, spec).encode("utf-8", "replace")[:4000])
    os._exit(127)


def _execute(spec: dict[str, object]) -> None:
    """Limits, rights, folder, signals, then exec. Order matters: rights are dropped late."""
    os.setsid()
    _prefer_as_oom_victim()
    cpus: list[int] = spec["cpus"]  # type: ignore[assignment] # JSON
    if cpus:
        os.sched_setaffinity(0, cpus)
    limits: dict[str, int] = spec["limits"]  # type: ignore[assignment] # JSON
    _limit(limits)
    user: list[int] | None = spec["user"]  # type: ignore[assignment] # JSON
    if user is not None:
        os.setgroups([])
        os.setresgid(user[1], user[1], user[1])
        os.setresuid(user[0], user[0], user[0])
        tree.drop_capabilities()
    tree.forbid_new_privileges()
    os.umask(0o022)
    os.chdir(str(spec["cwd"]))
    for number in (*_IGNORED, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    argv: list[str] = spec["argv"]  # type: ignore[assignment] # JSON
    env: dict[str, str] = spec["env"]  # type: ignore[assignment] # JSON
    os.execvpe(argv[0], argv, env)


def _prefer_as_oom_victim() -> None:
    """Out of memory, the kernel should take the job and not the meter beside it."""
    tree.set_dumpable(True)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
    except OSError:
        return


def _limit(limits: dict[str, int]) -> None:
    """Set resource limits by name, such as {"RLIMIT_CORE": 0}; never above the hard limit."""
    for name, value in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, value))


def _why(error: BaseException, spec: dict[str, object]) -> str:
    argv: list[str] = spec["argv"]  # type: ignore[assignment] # JSON
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        if error.filename == spec["cwd"]:
            return f"work directory not found: {error.filename}"
        return f"command not found: {argv[0]}"
    if isinstance(error, PermissionError):
        if error.filename == spec["cwd"]:
            return f"work directory cannot be entered: {error.filename}"
        return f"not allowed to run: {argv[0]} ({error.strerror})"
    if isinstance(error, OSError) and error.errno == errno.ENOEXEC:
        return f"not a program, nor a script that names its interpreter: {argv[0]}"
    return f"cannot run {argv[0]}: {error}"


if __name__ == "__main__":
    main(sys.argv)
