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
    gflops: int = 0


TIERS = ("reserved", "standard", "spot")  # the first goes first
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that has devices, or has been promised exactly these and waits for their last holder.

    `since_ms` is Unix time; `expected_ms` what the whole attempt is expected to take, and
    `limit_ms` the most it may (UNKNOWN: nobody knows). Only a `preemptible` one is ever stopped for
    another.
    """

    job_id: str
    devices: tuple[str, ...]
    since_ms: int = 0
    expected_ms: int = UNKNOWN
    limit_ms: int = UNKNOWN
    tier: str = "standard"
    owner: str = ""
    preemptible: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """What an account may use of the pool, in whole devices; None: no limit, no guarantee.

    `quota` is guaranteed to it and all below it, `borrow` is how much more it may use of what
    others leave idle, `lend` how much of its quota others may. `usage_gflop` is what it and all
    below have held of devices (GFLOP; 1,123,200,000 are a degree), faded up to `usage_at_ms`.
    `name` is what its members know it by.
    """

    account: str
    parent: str | None = None
    weight: float = 1.0
    quota: int | None = None
    borrow: int | None = None
    lend: int | None = None
    usage_gflop: float = 0.0
    usage_at_ms: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The pool at one moment: devices in a stable order, who holds them, and who may use how much.

    A device that a job outside `running` holds is not free, and nobody knows until when.
    """

    devices: tuple[DeviceSlot, ...]
    running: tuple[RunningJob, ...] = ()
    shares: tuple[Share, ...] = ()
    preempted_last_hour: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One way to run a job: `count` devices of a `kind` and, when named, a `model`, on one node."""

    count: int
    kind: str | None = None
    model: str | None = None


def matches(request: Request, device: DeviceSlot) -> bool:
    """Whether `device` is of the kind and model that `request` names, if it names any."""
    return request.kind in (None, device.kind) and request.model in (None, device.model)


def usable(device: DeviceSlot) -> bool:
    """Whether a job can be started on `device` and metered there."""
    return device.ready and device.rated


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job that waits. `order` is the order of submission; a higher `priority` goes first.

    `blocked` is a reason from outside the pool (such as the balance) that keeps it from starting
    whatever is free; such a job holds back nobody. Nor does one that `yields`: it takes what is
    free in its turn, and lets later jobs have what it cannot use. `owner` is its account, whose
    members may read its id. Times are milliseconds, as in `RunningJob`; `waits_since_ms` is its
    submission, or when it was queued again.
    """

    job_id: str
    order: int
    request: Request
    priority: int = 0
    blocked: Wait | None = None
    yields: bool = False
    owner: str = ""
    waits_since_ms: int = 0
    expected_ms: int = UNKNOWN
    limit_ms: int = UNKNOWN
    deadline_ms: int = UNKNOWN  # Unix time
    tier: str = "standard"
    preemptible: bool = False


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
    QUOTA = "quota"  # an account above may use no more, or others do not lend what is idle
    PREEMPTING = "preempting"  # its devices are chosen; whoever has them is saving their state


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
class Plan:
    """What a round decided. `waits` holds the reason for every job that does not start now.

    `claims` are starts on devices that those in `preemptions` have to leave first. `expected_ms` is
    when a waiting job is expected to start (Unix time), for those that a reservation was made for.
    `limits`: for those that lack quota, the account whose limit it is; "": others do not lend.
    `kept_ms`: of those, who only waits its turn, and until when (Unix time) what is left is kept
    for a job before it; `kept_for`: those jobs, and which accounts keep it; "": the pool.
    """

    starts: tuple[Start, ...] = ()
    waits: Mapping[str, Wait] = field(default_factory=dict)
    preemptions: tuple[Preempt, ...] = ()
    claims: tuple[Start, ...] = ()
    expected_ms: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    kept_ms: Mapping[str, int] = field(default_factory=dict)
    kept_for: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
