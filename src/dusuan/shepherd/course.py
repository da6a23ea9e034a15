"""When a job has to be signalled and when it has to be killed: pure arithmetic, no clock.

All times are milliseconds elapsed since the job's process began, on one steady clock.
"""

from __future__ import annotations

LEASE = "lease"
WALL_TIME = "wall_time"
STOPPED = "stopped"
LIMIT = "limit"


class Limits:
    """What bounds one attempt.

    `grace_ms` is the time between the checkpoint signal and the kill. `margin_ms` is how long
    before a ceiling the kill is sent, so that the tree is dead when the ceiling comes.
    """

    __slots__ = ("device_count", "grace_ms", "margin_ms", "wall_ms")

    def __init__(
        self, device_count: int, grace_ms: int, wall_ms: int | None, margin_ms: int
    ) -> None:
        self.device_count = device_count
        self.grace_ms = grace_ms
        self.wall_ms = wall_ms
        self.margin_ms = margin_ms

    def held_ms(self, elapsed_ms: int) -> int:
        """Device-milliseconds held after `elapsed_ms`."""
        return elapsed_ms * self.device_count

    def lease_kill_ms(self, held_ms_max: int) -> int:
        """The last moment at which a kill still ends the job inside its lease."""
        return max(0, self._ceiling_ms(held_ms_max) - self.margin_ms)

    def lease_signal_ms(self, held_ms_max: int) -> int:
        """When the job is asked to save its state; the grace is at most half of the lease."""
        grace_ms = min(self.grace_ms, self._ceiling_ms(held_ms_max) // 2)
        return max(0, self.lease_kill_ms(held_ms_max) - grace_ms)

    def wall_kill_ms(self) -> int | None:
        """Wall time and grace together are the most a job may take."""
        if self.wall_ms is None:
            return None
        return self.wall_ms + self.grace_ms - min(self.grace_ms, self.margin_ms)

    def _ceiling_ms(self, held_ms_max: int) -> int:
        return max(0, held_ms_max) // self.device_count


class Course:
    """The course of one attempt: runs, is asked to stop (once, for one reason), is killed."""

    __slots__ = ("kill_ms", "killed", "limits", "reason", "text")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.reason: str | None = None
        self.text = ""
        self.kill_ms: int | None = None
        self.killed = False

    def stop(self, elapsed_ms: int, text: str = "") -> bool:
        """Asked from outside: True when the checkpoint signal is to be sent now."""
        if self.reason is not None:
            return False
        self._commit(STOPPED, elapsed_ms + self.limits.grace_ms, text)
        return True

    def kill(self, elapsed_ms: int, text: str = "") -> None:
        """Asked from outside: the next `step` says kill, whatever was going on."""
        if self.reason is None:
            self._commit(STOPPED, elapsed_ms, text)
        self.kill_ms = elapsed_ms

    def exceed(self, elapsed_ms: int, text: str) -> None:
        """It has more of the host than it may: the next `step` says kill, without a grace."""
        if self.reason is None:
            self._commit(LIMIT, elapsed_ms, text)
        self.kill_ms = elapsed_ms

    def step(self, elapsed_ms: int, held_ms_max: int) -> str:
        """What is due now: "signal", "kill" (once) or nothing ("")."""
        signal_due = self.reason is None and self._ceiling_reached(elapsed_ms, held_ms_max)
        if not self.killed and elapsed_ms >= self._kill_due_ms(held_ms_max):
            self.killed = True
            return "kill"
        return "signal" if signal_due else ""

    def due_ms(self, held_ms_max: int) -> int | None:
        """The next moment at which `step` will have something to say; None when never."""
        if self.killed:
            return None
        if self.reason is not None:
            return self._kill_due_ms(held_ms_max)
        lease_ms = self.limits.lease_signal_ms(held_ms_max)
        return lease_ms if self.limits.wall_ms is None else min(lease_ms, self.limits.wall_ms)

    def _ceiling_reached(self, elapsed_ms: int, held_ms_max: int) -> bool:
        """Commit to stop, once and for good, at the ceiling that comes first."""
        lease_ms = self.limits.lease_signal_ms(held_ms_max)
        wall_ms = self.limits.wall_ms
        wall_kill_ms = self.limits.wall_kill_ms()
        wall_first = wall_ms is not None and wall_ms < lease_ms
        if wall_first and wall_kill_ms is not None and wall_ms is not None:
            if elapsed_ms < wall_ms:
                return False
            self._commit(WALL_TIME, wall_kill_ms, "")
            return True
        if elapsed_ms < lease_ms:
            return False
        self._commit(LEASE, self.limits.lease_kill_ms(held_ms_max), "")
        return True

    def _commit(self, reason: str, kill_ms: int, text: str) -> None:
        self.reason, self.kill_ms, self.text = reason, kill_ms, text

    def _kill_due_ms(self, held_ms_max: int) -> int:
        """The earliest of the stop's own kill, the lease's and the wall time's."""
        due = [self.limits.lease_kill_ms(held_ms_max)]
        wall_kill_ms = self.limits.wall_kill_ms()
        if wall_kill_ms is not None:
            due.append(wall_kill_ms)
        if self.kill_ms is not None:
            due.append(self.kill_ms)
        return min(due)
