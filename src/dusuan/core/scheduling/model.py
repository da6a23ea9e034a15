"""What a scheduling round reads and what it returns.

The round is a pure function `(cluster, queue, policy, now_ms) -> Plan`, used alike by the live
service and by the simulator. Every job in the queue ends up in exactly one of `starts` and
`waits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class DeviceSlot:
    """One device as the scheduler sees it. `holder` is the job that has it, None when free."""

    device: str
    node: str
    kind: str
    model: str
    ready: bool = True
    rated: bool = True
    holder: str | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """The pool at one moment, devices in a stable order."""

    devices: tuple[DeviceSlot, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One way to run a job: `count` devices of a `kind` and, when named, a `model`, on one node."""

    count: int
    kind: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job that waits. `order` is the order of submission; a higher `priority` goes first.

    `blocked` is a reason from outside the pool (such as the balance) that keeps it from starting
    whatever is free; such a job holds back nobody. Nor does one that `yields`: it takes what is
    free in its turn, and lets later jobs have what it cannot use. `owner` is who may read its id.
    """

    job_id: str
    order: int
    request: Request
    priority: int = 0
    blocked: Wait | None = None
    yields: bool = False
    owner: str = ""


class WaitCode(StrEnum):
    """Why a job waits."""

    CAPACITY = "capacity"  # fewer devices are free than it needs
    ORDER = "order"  # devices are free, but a job before it needs them
    TOO_LARGE = "too_large"  # the pool has never had so many such devices
    UNAVAILABLE = "unavailable"  # enough devices exist, but too many are down
    UNCALIBRATED = "uncalibrated"  # devices have no rating yet, so nothing can be metered on them
    BALANCE = "balance"  # the account cannot set aside the first slice
    BUDGET = "budget"  # an account above has reached its ceiling
    TROUBLE = "trouble"  # the engine can start nothing now; its operator has to help


@dataclass(frozen=True, slots=True)
class Wait:
    """Why one job waits, in words and in data, and what would make it start."""

    code: WaitCode
    text: str
    remedy: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Start:
    """Start `job_id` now on `devices`, all of them together."""

    job_id: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Preempt:
    """Stop `job_id` (after its checkpoint) so that `for_job` can start."""

    job_id: str
    for_job: str


@dataclass(frozen=True, slots=True)
class Resize:
    """Give the running `job_id` these devices instead of those it has."""

    job_id: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """How a round decides, as data. `order` names the queue order; later parts join it here."""

    name: str = "priority"
    order: str = "priority"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a round decided. `waits` holds the reason for every job that does not start."""

    starts: tuple[Start, ...] = ()
    waits: Mapping[str, Wait] = field(default_factory=dict)
    preemptions: tuple[Preempt, ...] = ()
    resizes: tuple[Resize, ...] = ()
