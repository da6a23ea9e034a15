"""The engine protocol: what runs jobs, whatever it is.

An engine starts attempts on devices, says what became of them, and carries signals and leases to
them. It decides nothing: no price, no rating, no queue. Every engine passes one conformance suite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Protocol

from dusuan.core.metering.journal import Record


class Action(StrEnum):
    """What can be asked of a running attempt."""

    CHECKPOINT = "checkpoint"  # send the job's checkpoint signal; it goes on
    STOP = "stop"  # checkpoint signal, grace, then kill
    KILL = "kill"  # kill the whole tree now


class DeviceState(StrEnum):
    """Whether a device can be given to a job."""

    READY = "ready"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Device:
    """One schedulable chip. `device` is unique in the engine, such as `cpu:0` or `gpu:3`."""

    device: str
    node: str
    make: str
    model: str
    kind: str  # "cpu" or "gpu": also what a job file's `resources.accelerators` may name
    index: int
    memory_mib: int | None
    state: DeviceState = DeviceState.READY


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do, as told to the customer. `isolation` goes on every receipt."""

    name: str
    isolation: str
    network_off: bool
    tells_oom: bool
    limits_disk: bool
    limits_memory: bool = False  # of the whole job, not of each process
    limits_processes: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """A ceiling on an attempt's own cumulative `held_ms` register. A higher `seq` replaces."""

    seq: int
    held_ms_max: int


@dataclass(frozen=True, slots=True)
class StartOrder:
    """Everything an engine needs to start one attempt. Starting it twice is one start.

    Exactly one of `argv` (run as it is) and `script` (run by `bash -e`) is set. `files` is a gzip
    tar archive that is unpacked into the job's work directory before its first attempt. All
    attempts of a job share its work, checkpoint and output directories.
    """

    job_id: str
    attempt_id: str
    devices: tuple[str, ...]
    lease: Lease
    argv: tuple[str, ...] | None = None
    script: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    files: Path | None = None
    checkpoint_signal: str = "SIGTERM"
    grace_ms: int = 10_000
    wall_ms: int | None = None
    tick_ms: int = 1_000  # how often the journal is written while nothing happens
    network: bool = False
    memory_mib: int | None = None
    progress_pattern: str | None = None  # a regular expression over the job's log: done, total
    progress_total: float | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """News of one attempt: the records read since `cursor`, and where to go on reading.

    `lost` is set when the attempt can write no more although its journal has no end record; then
    `began` is False when it is certain that nothing of it ever ran.
    """

    attempt_id: str
    cursor: int
    records: tuple[Record, ...] = ()
    problems: tuple[str, ...] = ()
    lost: bool = False
    began: bool = True


class StartFailed(Exception):
    """The engine could not start an attempt. `str()` says why, in words for the customer."""


class Engine(Protocol):
    """The port between the platform and whatever runs processes."""

    def capabilities(self) -> Capabilities:
        """What this engine can do on this machine."""

    def inventory(self) -> Sequence[Device]:
        """The devices there are, in a stable order."""

    def start(self, order: StartOrder) -> None:
        """Start an attempt; a no-op when it was started before.

        Raises `StartFailed` (and leaves nothing running) for an unknown device or a device that
        another live attempt holds, OSError where the machine fails it. It does not wait for files
        to be unpacked: where they cannot be, the attempt ends, by a record that says start_failed.
        """

    def observe(self, cursors: Mapping[str, int]) -> Sequence[Observation]:
        """News since `cursors` (attempt id -> bytes of journal already read; 0 at first).

        Only attempts with news appear. An attempt the engine has never heard of is `lost`.
        """

    def signal(self, attempt_id: str, action: Action) -> None:
        """Ask for `action`; a no-op for an attempt that has ended."""

    def set_lease(self, attempt_id: str, lease: Lease) -> None:
        """Replace the lease when `lease.seq` is higher than the one in force, else a no-op."""

    def trouble(self) -> str:
        """Why nothing can be started now, in words for the customer; empty when all is well."""

    def remove_files(self, job_id: str, attempt_ids: Sequence[str]) -> None:
        """Remove what is kept of a job whose attempts have all ended: logs, outputs, journals."""

    def adopt(self) -> Sequence[str]:
        """After a restart of the service: the attempts that are still running."""

    def fileno(self) -> int | None:
        """A descriptor that turns readable when there may be news, or None if there is none."""

    def drain(self) -> None:
        """Read what made `fileno()` readable, so that it can signal again."""

    def read_log(self, attempt_id: str, offset: int, limit: int) -> bytes:
        """Up to `limit` bytes of the job's output from byte `offset`; empty at its end."""

    def outputs(self, job_id: str) -> Sequence[tuple[str, int]]:
        """The job's output files: (path relative to its output folder, bytes), sorted."""

    def open_output(self, job_id: str, relative: str) -> BinaryIO:
        """Open one output file for reading; the caller closes it.

        It is opened, and not named, because the job may swap what a name leads to. Raises
        FileNotFoundError for anything that is no plain file below the output folder.
        """
