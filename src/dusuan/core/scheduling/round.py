"""One scheduling round: priority, then submission order; a gang starts whole or not at all.

Strict order: a job that waits for devices holds back every later job that could use them, so
nobody starves. A job that yields, or waits for something other than devices, holds back nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dusuan.core.scheduling.model import (
    Cluster,
    DeviceSlot,
    Plan,
    Policy,
    QueuedJob,
    Request,
    Start,
    Wait,
    WaitCode,
)


@dataclass(slots=True)
class _Round:
    """The working state of one round: which devices are free, and who waits for which."""

    free: dict[str, DeviceSlot]
    promised: dict[str, QueuedJob] = field(default_factory=dict)  # device -> who waits for it
    starts: list[Start] = field(default_factory=list)
    waits: dict[str, Wait] = field(default_factory=dict)


def schedule(cluster: Cluster, queue: Sequence[QueuedJob], policy: Policy, now_ms: int) -> Plan:
    """Decide what starts now, and give the reason for every job that does not.

    `now_ms` is the time of the round; ageing and reservations read it. Raises `ValueError` for a
    policy whose parts are unknown.
    """
    del now_ms  # this policy's order does not depend on time
    # 1. Snapshot: what is free.
    state = _Round({d.device: d for d in cluster.devices if _usable(d) and d.holder is None})
    # 2. Order the queue; 3. place each job in turn, or say why not.
    for job in _ordered(queue, policy):
        if job.blocked is not None:
            state.waits[job.job_id] = job.blocked
            continue
        devices = _place(job.request, state)
        if devices is None:
            state.waits[job.job_id] = _explain(job, cluster, state)
            if not job.yields:
                _promise(job, cluster, state)
        else:
            state.starts.append(Start(job.job_id, devices))
            for device in devices:
                del state.free[device]
    return Plan(tuple(state.starts), state.waits)


def _ordered(queue: Sequence[QueuedJob], policy: Policy) -> list[QueuedJob]:
    if policy.order != "priority":
        raise ValueError(f"unknown queue order {policy.order!r}; known: priority")
    return sorted(queue, key=lambda job: (-job.priority, job.order))


def matches(request: Request, device: DeviceSlot) -> bool:
    """Whether `device` is of the kind and model that `request` names, if it names any."""
    return request.kind in (None, device.kind) and request.model in (None, device.model)


def _usable(device: DeviceSlot) -> bool:
    return device.ready and device.rated


def _gangs(request: Request, devices: Sequence[DeviceSlot]) -> dict[tuple[str, str], list[str]]:
    """Devices that may form one gang: of one model on one node, so that they step together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for device in devices:
        if matches(request, device):
            groups.setdefault((device.node, device.model), []).append(device.device)
    return groups


def _place(request: Request, state: _Round) -> tuple[str, ...] | None:
    """The tightest group of free, unpromised devices that holds the gang, or None."""
    open_devices = [d for name, d in state.free.items() if name not in state.promised]
    fitting = [g for g in _gangs(request, open_devices).values() if len(g) >= request.count]
    if not fitting:
        return None
    return tuple(min(fitting, key=len)[: request.count])


def _promise(job: QueuedJob, cluster: Cluster, state: _Round) -> None:
    """Keep the free devices that `job` waits for from later jobs."""
    for names in _gangs(job.request, [d for d in cluster.devices if _usable(d)]).values():
        if len(names) >= job.request.count:
            for name in names:
                state.promised.setdefault(name, job)


def _largest(request: Request, devices: Sequence[DeviceSlot]) -> int:
    return max((len(group) for group in _gangs(request, devices).values()), default=0)


def _explain(job: QueuedJob, cluster: Cluster, state: _Round) -> Wait:
    """The reason, from the most lasting to the most passing."""
    request, devices = job.request, cluster.devices
    data = {"needs": request.count, "exist": _largest(request, devices)}
    if data["exist"] < request.count:
        return Wait(
            WaitCode.TOO_LARGE,
            f"needs {_what(request)} on one node; the pool has at most {data['exist']}",
            f"ask for {data['exist']} or fewer" if data["exist"] else "ask for another device",
            data,
        )
    if _largest(request, [d for d in devices if d.ready]) < request.count:
        return Wait(
            WaitCode.UNAVAILABLE,
            f"needs {_what(request)}; too many such devices are down",
            "wait until the operator has them back in service",
            data,
        )
    if _largest(request, [d for d in devices if _usable(d)]) < request.count:
        return Wait(
            WaitCode.UNCALIBRATED,
            f"needs {_what(request)}; such devices have no rating yet",
            "the operator runs: dusuan calibrate",
            data,
        )
    return _passing(job, state, data)


def _passing(job: QueuedJob, state: _Round, data: dict[str, int]) -> Wait:
    """What a running job or one before it will give way to. Other owners' jobs are not named."""
    request = job.request
    free = _largest(request, list(state.free.values()))
    ahead = {
        state.promised[name].job_id: state.promised[name].owner
        for name, device in state.free.items()
        if name in state.promised and matches(request, device)
    }
    if free >= request.count and ahead:
        own = sorted(job_id for job_id, owner in ahead.items() if owner == job.owner)
        first = own[0] if own else "another customer's job"
        return Wait(
            WaitCode.ORDER,
            f"{free} such devices are free, but {first} is before it and waits for them",
            f"starts after {first}, or with a higher priority",
            {**data, "free": free, "behind": own, "behind_others": len(ahead) - len(own)},
        )
    return Wait(
        WaitCode.CAPACITY,
        f"needs {_what(request)}; {free} are free now",
        "starts when running jobs end" + (f"; {free} could start now" if free else ""),
        {**data, "free": free},
    )


def _what(request: Request) -> str:
    name = request.model or request.kind or "any"
    return f"{request.count} {name} device{'s' if request.count != 1 else ''}"
