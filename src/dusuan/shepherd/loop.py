# ruff: noqa: PTH123 - importing pathlib would cost milliseconds of every start
"""The shepherd's main loop: one attempt, from launch to its one end record."""

from __future__ import annotations

import json
import os
import select
import signal
import time

from dusuan.shepherd import tree
from dusuan.shepherd.bounds import Bounds
from dusuan.shepherd.course import Course, Limits
from dusuan.shepherd.joblog import JobLog
from dusuan.shepherd.journal import Journal
from dusuan.shepherd.launch import Link, launch
from dusuan.shepherd.orders import ControlFile, LeaseFile
from dusuan.shepherd.report import Report
from dusuan.shepherd.wake import nudge

TYPE_CHECKING = False  # importing typing would cost milliseconds of every start
if TYPE_CHECKING:
    from dusuan.shepherd.pattern import Pattern

_LAUNCH_MS_MAX = 30_000  # a sandbox that takes longer than this is broken
_KEEPER_KILL_MS = 5_000  # how long the keeper may take over a kill before it is killed itself
_QUIET_MS = 250  # no disk sync this close to a deadline: a slow disk must not cost the lease
_END_TRIES = 60  # seconds to go on trying to write the end record to a full disk


def main(argv: list[str]) -> None:
    """Run the attempt in folder argv[1]; argv[2] is the descriptor that holds its lock."""
    os.chdir(argv[1])
    lock = int(argv[2])
    os.set_inheritable(lock, False)
    with open("spec.json", "rb") as file:
        spec = json.load(file)
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    tree.become_reaper()
    Shepherd(spec, lock).run()


class Shepherd:
    """One attempt. The steady clock is CLOCK_MONOTONIC.

    It does not count the time a host is suspended: no device works then, so nobody pays for it.
    """

    def __init__(self, spec: dict[str, object], lock: int) -> None:
        self._spec = spec
        self._lock = lock
        self._pattern = _pattern(spec.get("progress"))
        reader = None if self._pattern is None else self._pattern.feed
        self._log = JobLog("log", self._number("log_bytes_max"), reader)
        self._report = Report(str(spec["report"]))
        self._lease = LeaseFile("lease.json")
        self._control = ControlFile("control.json")
        wall_ms = self._number("wall_ms") if spec["wall_ms"] is not None else None
        limits = Limits(
            self._number("device_count"),
            self._number("grace_ms"),
            wall_ms,
            self._number("margin_ms"),
        )
        self._course = Course(limits)
        bounds = spec.get("bounds")
        self._bounds = Bounds(bounds if isinstance(bounds, dict) else {})
        self._began_ns = time.monotonic_ns()
        self._start_ns: int | None = None
        self._dead_ns: int | None = None
        self._keeper_lost = False
        self._code: int | None = None
        self._signal: int | None = None
        self._peak_kib = 0
        self._failure = ""
        self._tick_due_ms = self._number("tick_ms")
        self._killed_ns: int | None = None
        self._host_stop = False
        # The journal comes last: where there is none, nothing has been run.
        self._journal = Journal("journal")

    def run(self) -> None:
        """Launch, turn until the tree is dead, write the end."""
        signal.signal(signal.SIGTERM, self._on_term)
        sandbox: list[str] = self._spec["sandbox"]  # type: ignore[assignment] # JSON
        self._link = launch(sandbox, "spec.json", self._lock)
        self._poller = select.poll()
        self._poller.register(self._link.status, select.POLLIN)
        self._poller.register(self._link.log, select.POLLIN)
        while self._dead_ns is None and not self._keeper_lost:
            self._turn()
        self._finish(self._link)

    def _turn(self) -> None:
        """One round: output, status, orders, deadlines, tick."""
        for descriptor, _ in self._poller.poll(self._pause_ms()):
            if descriptor == self._link.status:
                self._hear()
            elif not self._log.drain(self._link.log):
                self._poller.unregister(self._link.log)
        self._lease.poll()
        self._obey(self._control.poll())
        self._look()
        self._steer()
        self._tick()

    # -- clocks ------------------------------------------------------------------------------

    def _elapsed_ms(self) -> int:
        if self._start_ns is None:
            return 0
        end_ns = time.monotonic_ns() if self._dead_ns is None else self._dead_ns
        return (end_ns - self._start_ns) // 1_000_000

    def _held_ms(self) -> int:
        return self._course.limits.held_ms(self._elapsed_ms())

    def _pause_ms(self) -> int:
        """Until the next look at lease and control, or the next deadline when that is sooner."""
        pause_ms = self._number("poll_ms")
        due_ms = self._course.due_ms(self._lease.held_ms_max)
        if due_ms is None or self._start_ns is None:
            return pause_ms
        return max(0, min(pause_ms, due_ms - self._elapsed_ms()))

    # -- what comes in -----------------------------------------------------------------------

    def _hear(self) -> None:
        """Take in what the keeper says."""
        lines = self._link.lines()
        if lines is None:
            self._keeper_lost = True
            return
        for word, value in lines:
            if word == "start":
                self._begin(int(value))
            elif word == "failed":
                self._failure = value
            elif word == "exit":
                self._code = int(value)
            elif word == "signal":
                self._signal = int(value)
            elif word == "memory":
                self._peak_kib = int(value)
            elif word == "dead":
                self._dead_ns = self._bounded(int(value))

    def _bounded(self, moment_ns: int) -> int:
        """The keeper's clock is ours; a value outside our own knowledge is not believed."""
        earliest_ns = self._began_ns if self._start_ns is None else self._start_ns
        return max(earliest_ns, min(moment_ns, time.monotonic_ns()))

    def _begin(self, moment_ns: int) -> None:
        self._start_ns = self._bounded(moment_ns)
        self._journal.append("start", 0, {"log_bytes": 0})
        self._nudge()

    def _obey(self, action: str) -> None:
        if self._host_stop:
            self._host_stop = False
            self._ask_to_stop("the host is shutting down")
        if action == "checkpoint":
            self._link.command(b"c")
        elif action == "stop":
            self._ask_to_stop("")
        elif action == "kill":
            self._course.kill(self._elapsed_ms(), "killed on request")

    def _ask_to_stop(self, text: str) -> None:
        if self._course.stop(self._elapsed_ms(), text):
            self._link.command(b"c")

    def _on_term(self, _number: int, _frame: object) -> None:
        self._host_stop = True

    # -- what goes out -----------------------------------------------------------------------

    def _steer(self) -> None:
        """Signal or kill what is due, and make sure that a kill happens."""
        due = self._course.step(self._elapsed_ms(), self._lease.held_ms_max)
        if due == "signal":
            self._link.command(b"c")
        elif due == "kill":
            self._killed_ns = time.monotonic_ns()
            self._link.command(b"k")
        now_ns = time.monotonic_ns()
        overdue = (
            self._killed_ns is not None and now_ns - self._killed_ns > _KEEPER_KILL_MS * 1_000_000
        )
        stuck = self._start_ns is None and now_ns - self._began_ns > _LAUNCH_MS_MAX * 1_000_000
        if overdue or stuck:
            self._keeper_lost = True

    def _look(self) -> None:
        """End a tree that has more of the host than it may."""
        if self._start_ns is None or self._course.killed:
            return
        pid, elapsed_ms = self._link.pid, self._elapsed_ms()
        text = self._bounds.look(pid, elapsed_ms) or self._bounds.look_at_disk(pid, elapsed_ms)
        if text:
            self._course.exceed(elapsed_ms, text)

    def _tick(self) -> None:
        elapsed_ms = self._elapsed_ms()
        due_ms = self._course.due_ms(self._lease.held_ms_max)
        near = due_ms is not None and due_ms - elapsed_ms < _QUIET_MS
        if self._dead_ns is not None or elapsed_ms < self._tick_due_ms or near:
            return
        self._tick_due_ms = elapsed_ms + self._number("tick_ms")
        self._poll_reports()
        body = self._registers(whole=self._report.result_news)
        if self._journal.append("tick", self._held_ms(), body):
            self._report.result_news = False

    def _registers(self, whole: bool) -> dict[str, object]:
        """What a record says besides its held register; `whole`: with the job's result."""
        body: dict[str, object] = {"log_bytes": self._log.bytes_total}
        if self._report.flop is not None:
            body["flop"] = self._report.flop
        progress = self._report.progress
        if progress is None and self._pattern is not None:
            progress = self._pattern.progress
        if progress is not None:
            body["progress"] = progress
        if self._peak_kib:
            body["peak_mib"] = -(-self._peak_kib // 1024)
        if whole and self._report.result:
            body["result"] = self._report.result
        return body

    def _poll_reports(self) -> None:
        """What the job says about itself, in its report and in its log."""
        self._report.poll()
        if self._pattern is not None:
            self._pattern.poll()

    # -- the end -----------------------------------------------------------------------------

    def _finish(self, link: Link) -> None:
        """Nothing of the tree lives after this; then the one end record."""
        if self._dead_ns is None:
            tree.clear()
            self._dead_ns = time.monotonic_ns()
        else:
            os.close(link.control)
            tree.clear()
        self._log.drain(link.log)
        if self._pattern is not None:
            self._pattern.feed(b"\n")  # the last line may have no end
        self._poll_reports()
        body = {**self._registers(whole=True), "exit": self._exit()}
        self._log.close()
        for _ in range(_END_TRIES):
            if self._journal.append("end", self._held_ms(), body):
                break
            time.sleep(1)
        self._journal.close()
        self._nudge()

    def _exit(self) -> dict[str, object]:
        reason, text = self._course.reason or "exit", self._course.text
        if self._pattern is not None and self._pattern.failure:
            text = text or self._pattern.failure
        if self._start_ns is None:
            # Nothing ran, so whatever was asked meanwhile, this is why there is no result.
            reason, text = "start_failed", self._failure or self._sandbox_problem()
        elif self._keeper_lost and self._code is None and self._signal is None:
            # Whoever did that, it was no end of the job's own.
            reason = self._course.reason or "lost"
            text = text or "the job's keeper was killed, and the job with it"
        return {"reason": reason, "code": self._code, "signal": self._signal, "text": text}

    def _sandbox_problem(self) -> str:
        """The keeper never spoke: what the sandbox said is in the log."""
        with open("log", "rb") as file:
            said = file.read(400).decode("utf-8", "replace").strip()
        return f"the sandbox could not be set up: {said or 'no reason given'}"

    def _nudge(self) -> None:
        nudge(str(self._spec["wake_folder"]), str(self._spec["wake_name"]))

    def _number(self, name: str) -> int:
        return int(str(self._spec[name]))


def _pattern(asked: object) -> Pattern | None:
    """The reader of a foreign log, if its owner gave a pattern."""
    if not isinstance(asked, dict):
        return None
    from dusuan.shepherd.pattern import Pattern  # regular expressions, for those who ask only

    total = asked["total"]
    return Pattern(str(asked["pattern"]), None if total is None else float(total))
