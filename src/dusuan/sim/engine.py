"""The simulated engine: the engine protocol on a virtual clock.

A `World` holds what is real in the simulation (devices, attempts, time); a `SimulatedEngine` is
a service's view of it, so that a restart of the service is a new engine on the same world.
"""

from __future__ import annotations

import heapq
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from dusuan.core.metering.journal import EndReason, Exit, Record, RecordKind
from dusuan.engines.base import (
    Action,
    Capabilities,
    Device,
    DeviceState,
    Lease,
    Observation,
    StartFailed,
    StartOrder,
)

_OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How an attempt behaves. Times are milliseconds on the virtual clock.

    It runs `run_ms` (None: until it is stopped) and then ends with `exit_code`, by `exit_signal`,
    or for lack of memory. At its checkpoint signal it needs `checkpoint_ms` to save its state and
    ends with `stop_code` (None: by that signal), unless it ignores it. `start_failure` says why
    it cannot even be started. It reports `steps_per_s` steps each second of `steps` in all.
    """

    run_ms: int | None = 1_000
    exit_code: int = 0
    exit_signal: int | None = None
    out_of_memory: bool = False
    ignores_signal: bool = False
    checkpoint_ms: int = 0
    stop_code: int | None = None
    start_failure: str = ""
    flop_per_ms: int = 0
    result: Mapping[str, Any] = field(default_factory=dict)
    steps_per_s: float = 0.0
    steps: float = 0.0


@dataclass(slots=True)
class _Attempt:
    """One attempt in the world. Times are milliseconds since it started."""

    order: StartOrder
    behaviour: Behaviour
    began_ms: int  # on the world's clock
    lease: Lease
    ends_ms: int | None
    records: list[Record] = field(default_factory=list)
    reason: EndReason | None = None
    signalled: bool = False
    kill_ms: int | None = None
    tick_ms: int | None = None
    over: bool = False
    lost: bool = False
    version: int = 0  # of its entry in the heap; older entries are stale

    @property
    def count(self) -> int:
        return len(self.order.devices)

    def ceiling_ms(self) -> int:
        return max(0, self.lease.held_ms_max) // self.count

    def stop_due_ms(self) -> tuple[int, EndReason]:
        """When it has to be told to stop, and why; the grace is at most half of the lease."""
        ceiling_ms = self.ceiling_ms()
        lease_ms = ceiling_ms - min(self.order.grace_ms, ceiling_ms // 2)
        if self.order.wall_ms is not None and self.order.wall_ms < lease_ms:
            return self.order.wall_ms, EndReason.WALL_TIME
        return lease_ms, EndReason.LEASE

    def kill_due_ms(self) -> int:
        """When it has to be dead, whatever it does."""
        due_ms = self.ceiling_ms()
        if self.order.wall_ms is not None:
            due_ms = min(due_ms, self.order.wall_ms + self.order.grace_ms)
        return due_ms if self.kill_ms is None else min(due_ms, self.kill_ms)

    def next_ms(self) -> int:
        """The next moment at which something happens to it."""
        due_ms = self.kill_due_ms()
        if self.reason is None:
            due_ms = min(due_ms, self.stop_due_ms()[0])
        if self.ends_ms is not None:
            due_ms = min(due_ms, self.ends_ms)
        return due_ms if self.tick_ms is None else min(due_ms, self.tick_ms)


class World:
    """Devices, attempts and a clock that moves only when it is told to.

    `behaviour` says how an order's attempt behaves: a function of the order, or a mapping from
    job id. With `ticks` every attempt also writes its journal every `tick_ms` of its order.
    `epoch_ms` is the wall clock (Unix milliseconds) at virtual time 0.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        behaviour: Callable[[StartOrder], Behaviour] | Mapping[str, Behaviour],
        *,
        ticks: bool = True,
        epoch_ms: int = 0,
    ) -> None:
        self.now_ms = 0
        self.devices = {device.device: device for device in devices}
        self.attempts: dict[str, _Attempt] = {}
        self.unread: dict[str, None] = {}  # attempts with news, in the order it came
        self._behaviour = behaviour
        self._ticks = ticks
        self._epoch_ms = epoch_ms
        self._holders: dict[str, str] = {}
        self._heap: list[tuple[int, int, str, int]] = []
        self._pushed = 0

    # -- time --------------------------------------------------------------------------------

    def advance(self, ms: int) -> None:
        """Let `ms` pass; whatever falls due happens in order of time."""
        self.advance_to(self.now_ms + ms)

    def advance_to(self, now_ms: int) -> None:
        """Let time pass up to and including `now_ms`."""
        while self._heap and self._heap[0][0] <= now_ms:
            moment_ms, _, attempt_id, version = heapq.heappop(self._heap)
            attempt = self.attempts[attempt_id]
            if attempt.version == version and not attempt.over:
                self.now_ms = max(self.now_ms, moment_ms)
                self._step(attempt)
        self.now_ms = max(self.now_ms, now_ms)

    def next_event_ms(self) -> int | None:
        """When something happens next, if nobody interferes; None when nothing will."""
        while self._heap:
            moment_ms, _, attempt_id, version = self._heap[0]
            attempt = self.attempts[attempt_id]
            if attempt.version == version and not attempt.over:
                return moment_ms
            heapq.heappop(self._heap)
        return None

    # -- faults ------------------------------------------------------------------------------

    def kill_shepherd(self, attempt_id: str) -> None:
        """The shepherd is gone, and its job with it; nothing more is written."""
        attempt = self.attempts[attempt_id]
        if not attempt.over:
            attempt.lost = True
            self._release(attempt)

    def lose_node(self, node: str) -> None:
        """Every device of `node` is down, and every attempt with a device there is lost."""
        self._set_state(node, DeviceState.DOWN)
        names = {name for name, device in self.devices.items() if device.node == node}
        for name in names & self._holders.keys():
            if name in self._holders:
                self.kill_shepherd(self._holders[name])

    def restore_node(self, node: str) -> None:
        """The devices of `node` are ready again."""
        self._set_state(node, DeviceState.READY)

    # -- what engines do ---------------------------------------------------------------------

    def start(self, order: StartOrder) -> None:
        """See the engine protocol."""
        if order.attempt_id in self.attempts:
            return
        self._refuse(order)
        behaviour = self._behaviour_of(order)
        attempt = _Attempt(order, behaviour, self.now_ms, order.lease, behaviour.run_ms)
        attempt.tick_ms = order.tick_ms if self._ticks else None
        self.attempts[order.attempt_id] = attempt
        if behaviour.start_failure:
            attempt.over = True
            self._end(attempt, Exit(EndReason.START_FAILED, text=behaviour.start_failure))
            return
        self._holders.update(dict.fromkeys(order.devices, order.attempt_id))
        self._write(attempt, RecordKind.START)
        self._schedule(attempt)

    def act(self, attempt_id: str, action: Action) -> None:
        """See `signal` of the engine protocol."""
        attempt = self.attempts.get(attempt_id)
        if attempt is None or attempt.over:
            return
        elapsed_ms = self._elapsed_ms(attempt)
        if action is Action.CHECKPOINT:
            self._deliver(attempt)
        elif action is Action.STOP and attempt.reason is None:
            self._commit(attempt, EndReason.STOPPED, elapsed_ms + attempt.order.grace_ms)
        elif action is Action.KILL:
            attempt.reason = attempt.reason or EndReason.STOPPED
            attempt.kill_ms = elapsed_ms
        self._schedule(attempt)

    def set_lease(self, attempt_id: str, lease: Lease) -> None:
        """See the engine protocol."""
        attempt = self.attempts.get(attempt_id)
        if attempt is None or attempt.over or lease.seq <= attempt.lease.seq:
            return
        attempt.lease = lease
        self._schedule(attempt)

    # -- inside ------------------------------------------------------------------------------

    def _refuse(self, order: StartOrder) -> None:
        """All of the devices or none."""
        unknown = [name for name in order.devices if name not in self.devices]
        if unknown or not order.devices:
            raise StartFailed(f"unknown device: {', '.join(unknown) or 'none named'}")
        down = [n for n in order.devices if self.devices[n].state is not DeviceState.READY]
        if down:
            raise StartFailed(f"device is down: {', '.join(down)}")
        taken = [name for name in order.devices if name in self._holders]
        if taken:
            raise StartFailed(f"held by another attempt: {', '.join(taken)}")

    def _behaviour_of(self, order: StartOrder) -> Behaviour:
        if isinstance(self._behaviour, Mapping):
            return self._behaviour[order.job_id]
        return self._behaviour(order)

    def _elapsed_ms(self, attempt: _Attempt) -> int:
        return self.now_ms - attempt.began_ms

    def _step(self, attempt: _Attempt) -> None:
        """What is due for one attempt: its end, a kill, a signal, a tick; in that order."""
        elapsed_ms = self._elapsed_ms(attempt)
        if attempt.ends_ms is not None and elapsed_ms >= attempt.ends_ms:
            self._end(attempt, self._own_exit(attempt))
            return
        stop_ms, reason = attempt.stop_due_ms()
        if attempt.reason is None and elapsed_ms >= stop_ms:
            self._commit(attempt, reason, attempt.kill_due_ms())
        if elapsed_ms >= attempt.kill_due_ms():
            killed = Exit(attempt.reason or EndReason.STOPPED, signal=int(signal.SIGKILL))
            self._end(attempt, killed)
            return
        if attempt.tick_ms is not None and elapsed_ms >= attempt.tick_ms:
            attempt.tick_ms = elapsed_ms + attempt.order.tick_ms
            self._write(attempt, RecordKind.TICK)
        self._schedule(attempt)

    def _commit(self, attempt: _Attempt, reason: EndReason, kill_ms: int) -> None:
        """From here on it stops, for this reason, whatever comes later."""
        attempt.reason, attempt.kill_ms = reason, kill_ms
        self._deliver(attempt)

    def _deliver(self, attempt: _Attempt) -> None:
        """The checkpoint signal reaches the job."""
        if attempt.behaviour.ignores_signal or attempt.signalled:
            return
        attempt.signalled = True
        saved_ms = self._elapsed_ms(attempt) + attempt.behaviour.checkpoint_ms
        if attempt.ends_ms is None or saved_ms < attempt.ends_ms:
            attempt.ends_ms = saved_ms
        else:
            attempt.signalled = False  # it is done before the signal matters

    def _own_exit(self, attempt: _Attempt) -> Exit:
        """How the job ends when it ends by itself."""
        reason = attempt.reason or EndReason.EXIT
        behaviour = attempt.behaviour
        if attempt.signalled:
            if behaviour.stop_code is not None:
                return Exit(reason, code=behaviour.stop_code)
            return Exit(reason, signal=int(signal.Signals[attempt.order.checkpoint_signal]))
        if behaviour.out_of_memory:
            return Exit(reason, signal=int(signal.SIGKILL), text=_OUT_OF_MEMORY)
        if behaviour.exit_signal is not None:
            return Exit(reason, signal=behaviour.exit_signal)
        return Exit(reason, code=behaviour.exit_code)

    def _end(self, attempt: _Attempt, ended: Exit) -> None:
        self._write(attempt, RecordKind.END, ended)
        self._release(attempt)

    def _release(self, attempt: _Attempt) -> None:
        attempt.over = True
        self.unread[attempt.order.attempt_id] = None
        for name in attempt.order.devices:
            self._holders.pop(name, None)

    def _write(self, attempt: _Attempt, kind: RecordKind, ended: Exit | None = None) -> None:
        elapsed_ms = self._elapsed_ms(attempt)
        work = attempt.behaviour.flop_per_ms * elapsed_ms
        steps = attempt.behaviour.steps_per_s * elapsed_ms / 1_000
        succeeded = ended is not None and ended.code == 0
        attempt.records.append(
            Record(
                n=len(attempt.records) + 1,
                kind=kind,
                held_ms=elapsed_ms * attempt.count,
                wall_ms=self._epoch_ms + self.now_ms,
                flop=work if attempt.behaviour.flop_per_ms else None,
                progress=(steps, attempt.behaviour.steps) if steps else None,
                result=attempt.behaviour.result if succeeded else {},
                exit=ended,
            )
        )
        self.unread[attempt.order.attempt_id] = None

    def _schedule(self, attempt: _Attempt) -> None:
        """Put its next moment on the heap; what stood there before is stale."""
        attempt.version += 1
        self._pushed += 1
        moment_ms = max(self.now_ms, attempt.began_ms + attempt.next_ms())
        entry = (moment_ms, self._pushed, attempt.order.attempt_id, attempt.version)
        heapq.heappush(self._heap, entry)

    def _set_state(self, node: str, state: DeviceState) -> None:
        for name, device in self.devices.items():
            if device.node == node:
                self.devices[name] = replace(device, state=state)


class SimulatedEngine:
    """A service's view of a `World`. A cursor counts the records read.

    Only attempts that have news, or whose last news was not confirmed by a higher cursor yet, are
    looked at: with nothing new, `observe` costs one pass of the interpreter's own set code.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        # After a restart the service may know less than it was told before.
        self._unread = dict.fromkeys(world.attempts, False)  # value: was it handed out before?

    def capabilities(self) -> Capabilities:
        """A simulation can do everything."""
        return Capabilities("simulated", "simulated: nothing runs", True, True, True)

    def inventory(self) -> Sequence[Device]:
        """The world's devices in their present state."""
        return list(self.world.devices.values())

    def start(self, order: StartOrder) -> None:
        """See the protocol."""
        self.world.start(order)

    def observe(self, cursors: Mapping[str, int]) -> Sequence[Observation]:
        """News since `cursors`. See the protocol."""
        self._unread.update(dict.fromkeys(self.world.unread, False))
        self.world.unread.clear()
        found: list[Observation] = []
        if not cursors.keys() <= self.world.attempts.keys():
            unknown = cursors.keys() - self.world.attempts.keys()
            found += [Observation(name, cursors[name], lost=True) for name in sorted(unknown)]
        for attempt_id in list(self._unread):
            news = self._news(attempt_id, cursors.get(attempt_id))
            if news is not None:
                found.append(news)
        return found

    def _news(self, attempt_id: str, cursor: int | None) -> Observation | None:
        """News of one attempt; forgotten here once its reader has it all."""
        attempt = self.world.attempts[attempt_id]
        if cursor is None:  # not asked about; once it is over it may never be again
            if attempt.over and self._unread[attempt_id]:
                del self._unread[attempt_id]
            return None
        fresh = tuple(attempt.records[cursor:])
        if not fresh and not attempt.lost:
            del self._unread[attempt_id]
            return None
        self._unread[attempt_id] = True
        # As in a real engine: first everything that was written, then that it is lost.
        lost = attempt.lost and not fresh
        return Observation(attempt_id, cursor + len(fresh), fresh, lost=lost)

    def signal(self, attempt_id: str, action: Action) -> None:
        """See the protocol."""
        self.world.act(attempt_id, action)

    def set_lease(self, attempt_id: str, lease: Lease) -> None:
        """See the protocol."""
        self.world.set_lease(attempt_id, lease)

    def trouble(self) -> str:
        """None: a node that is lost shows in the inventory."""
        return ""

    def remove_files(self, job_id: str, attempt_ids: Sequence[str]) -> None:
        """Nothing is kept."""

    def adopt(self) -> Sequence[str]:
        """The attempts that are still running."""
        attempts = self.world.attempts.items()
        return sorted(attempt_id for attempt_id, attempt in attempts if not attempt.over)

    def fileno(self) -> int | None:
        """None: nothing happens behind the simulator's back."""
        return None

    def drain(self) -> None:
        """Nothing to read."""

    def read_log(self, attempt_id: str, offset: int, limit: int) -> bytes:  # noqa: ARG002 - protocol
        """Simulated jobs say nothing."""
        return b""

    def outputs(self, job_id: str) -> Sequence[tuple[str, int]]:  # noqa: ARG002 - protocol
        """Simulated jobs leave nothing."""
        return []

    def open_output(self, job_id: str, relative: str) -> BinaryIO:
        """Always raises FileNotFoundError."""
        raise FileNotFoundError(f"{job_id}: {relative}")
