"""One way to drive any engine through its conformance suite."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from dusuan.core.metering.journal import Record
from dusuan.engines.base import Device, Engine, Lease, StartOrder
from dusuan.engines.local import LocalEngine
from dusuan.sim.engine import Behaviour, SimulatedEngine, World

PLENTY = Lease(1, 3_600_000)
PATIENCE_S = 15


@dataclass(frozen=True)
class Program:
    """The same job for a real engine and for the simulated one."""

    script: str
    behaviour: Behaviour


def sleeps(ms: int) -> Program:
    """Sleeps, then ends well. As `exec`, so that the shell is the process that sleeps."""
    return Program(f"exec sleep {ms / 1000}", Behaviour(run_ms=ms))


def exits(code: int) -> Program:
    """Ends at once with `code`."""
    return Program(f"exit {code}", Behaviour(run_ms=0, exit_code=code))


def dies_by(number: int) -> Program:
    """Ends at once by a signal."""
    return Program(f"kill -{number} $$", Behaviour(run_ms=0, exit_signal=number))


# A trap runs when the sleep that is waited for has ended, so it reacts within 20 ms.
STUBBORN = Program(
    "trap '' TERM; echo ready; while :; do sleep 0.02; done",
    Behaviour(run_ms=None, ignores_signal=True),
)
SAVING = Program(
    "trap 'echo saved; exit 7' TERM; echo ready; while :; do sleep 0.02; done",
    Behaviour(run_ms=None, stop_code=7, checkpoint_ms=20),
)
# No trap: the shell is spared the signal, its child takes it, and `-e` ends the script with 143.
SHELL_WITH_CHILD = Program(
    "echo ready; sleep 60\necho not reached", Behaviour(run_ms=None, stop_code=143)
)


@dataclass
class Story:
    """What was seen of one attempt so far."""

    attempt_id: str
    cursor: int = 0
    records: list[Record] = field(default_factory=list)
    lost: bool = False

    @property
    def over(self) -> bool:
        """Whether its end was seen."""
        return self.lost or any(record.exit is not None for record in self.records)

    @property
    def end(self) -> Record:
        """Its end record; fails the test when there is not exactly one, in last place."""
        assert [r.exit is not None for r in self.records] == [False] * (len(self.records) - 1) + [
            True
        ], self.records
        return self.records[-1]


class Harness(Protocol):
    """What a conformance test may do with an engine's world."""

    # How far a real clock may be off, in elapsed ms; 0 on a virtual one.
    slack_ms: int

    @property
    def engine(self) -> Engine:
        """The engine of the service that runs now."""

    def order(self, program: Program, **changes: Any) -> StartOrder:
        """An order for `program`, on device d0 unless told otherwise."""

    def devices(self, count: int) -> tuple[str, ...]:
        """The names of the first `count` devices."""

    def pass_ms(self, ms: int) -> None:
        """Let time pass."""

    def restart(self) -> None:
        """The service dies without a word, and a new one takes over."""

    def kill_shepherd(self, attempt_id: str) -> None:
        """The shepherd is killed, as by `kill -9`."""


class Driver:
    """Verbs over any harness."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness

    @property
    def engine(self) -> Engine:
        return self.harness.engine

    def start(self, program: Program, **changes: Any) -> Story:
        order = self.harness.order(program, **changes)
        self.engine.start(order)
        return Story(order.attempt_id)

    def look(self, *stories: Story) -> None:
        """Observe once."""
        by_id = {story.attempt_id: story for story in stories}
        self.engine.drain()
        for news in self.engine.observe({s.attempt_id: s.cursor for s in stories}):
            story = by_id[news.attempt_id]
            assert not news.problems
            assert news.lost or news.cursor > story.cursor
            story.cursor = news.cursor
            story.records += news.records
            story.lost |= news.lost

    def until(self, story: Story, condition: Callable[[Story], bool]) -> Story:
        """Observe until `condition` holds."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self.look(story)
            if condition(story):
                return story
            assert time.monotonic() < deadline, f"in vain: {story}"
            self.harness.pass_ms(10)

    def started(self, story: Story) -> Story:
        """Wait for the start record."""
        return self.until(story, lambda s: bool(s.records))

    def ready(self, story: Story) -> Story:
        """Wait until the job has set its traps, as it says in its log."""
        self.started(story)
        if isinstance(self.harness, LocalHarness):
            engine, name = self.engine, story.attempt_id
            wait_for(lambda: engine.read_log(name, 0, 5) == b"ready", "the job")
        return story

    def finished(self, story: Story) -> Story:
        """Wait for the end, or for its being lost."""
        return self.until(story, lambda s: s.over)


class SimulatedHarness:
    """The simulated engine on its virtual clock."""

    slack_ms = 0

    def __init__(self) -> None:
        devices = [Device(f"d{i}", f"n{i // 2}", "Test", "T1", "gpu", i, 1024) for i in range(4)]
        self._behaviours: dict[str, Behaviour] = {}
        self.world = World(devices, self._behaviours)
        self.engine: Engine = SimulatedEngine(self.world)

    def order(self, program: Program, **changes: Any) -> StartOrder:
        order = _order(program, ("d0",), changes)
        self._behaviours[order.job_id] = program.behaviour
        return order

    def devices(self, count: int) -> tuple[str, ...]:
        return tuple(self.world.devices)[:count]

    def pass_ms(self, ms: int) -> None:
        self.world.advance(ms)

    def restart(self) -> None:
        self.engine = SimulatedEngine(self.world)

    def kill_shepherd(self, attempt_id: str) -> None:
        self.world.kill_shepherd(attempt_id)

    def close(self) -> None:
        """Nothing is left behind."""


class LocalHarness:
    """The embedded engine with real processes."""

    slack_ms = 350  # a busy machine with two cores

    def __init__(self, root: Path, isolation: str, **options: Any) -> None:
        self.root = root
        self._options: dict[str, Any] = {
            "isolation": isolation,
            "devices": host_devices(),
            **options,
        }
        self.engine: LocalEngine = LocalEngine(root, **self._options)
        self.started: list[str] = []

    def order(self, program: Program, **changes: Any) -> StartOrder:
        order = _order(program, ("cpu:a",), changes)
        self.started.append(order.attempt_id)
        return order

    def devices(self, count: int) -> tuple[str, ...]:
        return tuple(device.device for device in self.engine.inventory())[:count]

    def pass_ms(self, ms: int) -> None:
        """Wait, but no longer than until a shepherd nudges."""
        deadline = time.monotonic() + ms / 1000
        descriptor = self.engine.fileno()
        assert descriptor is not None
        select.select([descriptor], [], [], ms / 1000)
        if ms > 10:  # asked for real time, not for news
            time.sleep(max(0.0, deadline - time.monotonic()))

    def restart(self) -> None:
        self.engine.close()
        self.engine = LocalEngine(self.root, **self._options)

    def kill_shepherd(self, attempt_id: str) -> None:
        os.kill(self.shepherd_pid(attempt_id), signal.SIGKILL)

    def shepherd_pid(self, attempt_id: str) -> int:
        """The process that was started for this attempt's folder."""
        (pid,) = self._shepherds(attempt_id)
        return pid

    def _shepherds(self, attempt_id: str) -> list[int]:
        folder = str(self.root / "attempts" / attempt_id).encode()
        return [pid for pid, argv in processes() if folder in argv and b"-S" in argv]

    def close(self) -> None:
        """Kill what a failed test may have left."""
        for attempt_id in self.engine.adopt() if self.root.exists() else ():
            for pid in self._shepherds(attempt_id):  # none, if it ended this very moment
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.engine.close()


def host_devices() -> list[Device]:
    """Two devices on real cores, whatever this machine has."""
    cores = sorted(os.sched_getaffinity(0))
    return [
        Device("cpu:a", "here", "Test", "Core", "cpu", cores[0], None),
        Device("cpu:b", "here", "Test", "Core", "cpu", cores[-1], None),
    ]


def processes() -> list[tuple[int, list[bytes]]]:
    """All processes of this host with their arguments; zombies have none."""
    found: list[tuple[int, list[bytes]]] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((int(entry.name), (entry / "cmdline").read_bytes().split(b"\0")[:-1]))
            except OSError:
                continue
    return found


def running(*argv: str) -> list[int]:
    """Processes with exactly these arguments, in whatever PID namespace they are."""
    wanted = [part.encode() for part in argv]
    return [pid for pid, found in processes() if found == wanted]


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.01)


def _order(program: Program, devices: tuple[str, ...], changes: dict[str, Any]) -> StartOrder:
    order = StartOrder(
        job_id="job1",
        attempt_id="attempt1",
        devices=devices,
        lease=PLENTY,
        script=program.script,
        grace_ms=300,
        tick_ms=50,
    )
    return replace(order, **changes)
