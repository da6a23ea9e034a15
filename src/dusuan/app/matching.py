"""From what a job asks for to what the pool has: which kind or model of device it can run on."""

from __future__ import annotations

from collections.abc import Sequence

from dusuan.app.context import Refused, refuse
from dusuan.app.loading import ratings
from dusuan.core.catalog.makes import is_domestic
from dusuan.core.planning.menu import Excluded
from dusuan.core.scheduling.model import Request
from dusuan.core.workload.jobspec import Resources
from dusuan.store.rows import DeviceRow


def resolve(resources: Resources, devices: Sequence[DeviceRow], count: int | None) -> Request:
    """The request for a job, on the first model of the pool that fits what it names.

    A model is fixed here, so that a job is metered at one rating; `count` defaults to what the
    job file says, then to 1. Raises `Refused` invalid when the pool has nothing that fits.
    """
    fitting = candidates(resources, devices)
    if not fitting:
        raise _nothing_fits(resources, devices)
    first = fitting[0]
    return Request(count or resources.count or 1, first.kind, first.model)


def candidates(resources: Resources, devices: Sequence[DeviceRow]) -> list[DeviceRow]:
    """The devices of the pool that a job may run on: those in service and rated go first."""
    fitting = [d for d in devices if _fits(resources, d)]
    return sorted(fitting, key=lambda d: (d.state != "ready", d.gflops is None))


def usable(resources: Resources, devices: Sequence[DeviceRow]) -> list[DeviceRow]:
    """The devices that a job may run on now: those of `candidates` in service, rated, and with
    the memory that it asks for."""
    return [d for d in candidates(resources, devices) if _why_not(resources, d) is None]


def outcasts(resources: Resources, devices: Sequence[DeviceRow]) -> list[Excluded]:
    """The models of the pool that a job cannot run on, and why."""
    good = {d.model for d in usable(resources, devices)}
    found: dict[str, Excluded] = {}
    for d in devices:
        if d.model not in good:
            found.setdefault(d.model, Excluded(d.model, None, _why_not(resources, d) or ""))
    return list(found.values())


def _why_not(resources: Resources, device: DeviceRow) -> str | None:
    if not _named(resources, device):
        return f"not named: the job asks for {resources.device}"
    if not _origin_fits(resources, device):
        return f"origin: {device.make} is no domestic make, and the job asks for one"
    if device.state != "ready":
        return "not in service"
    if device.gflops is None:
        return "unrated: nothing is published or measured for it; dusuan calibrate"
    memory_gib = resources.memory_gib
    if memory_gib is not None and device.memory_mib and device.memory_mib < memory_gib * 1_024:
        return f"memory: {device.memory_mib / 1_024:.1f} GiB, and the job asks for {memory_gib:g}"
    return None


def _fits(resources: Resources, device: DeviceRow) -> bool:
    return _named(resources, device) and _origin_fits(resources, device)


def _named(resources: Resources, device: DeviceRow) -> bool:
    wanted = (resources.device or "").lower()
    return wanted in ("", device.kind.lower()) or wanted in device.model.lower()


def _origin_fits(resources: Resources, device: DeviceRow) -> bool:
    return resources.origin != "domestic" or is_domestic(device.make)


def _nothing_fits(resources: Resources, devices: Sequence[DeviceRow]) -> Refused:
    models = sorted({d.model for d in devices})
    asked = " ".join(filter(None, (resources.origin, resources.device))) or "any device"
    return refuse(
        "invalid",
        "no_such_device",
        f"the pool has no device that fits {asked!r}",
        f"it has: {', '.join(models) or 'none yet'}; or name no device at all",
    )


def largest_gang(request: Request, devices: Sequence[DeviceRow]) -> int:
    """The most devices of the request's model that one node has in service."""
    sizes: dict[str, int] = {}
    for d in devices:
        if d.model == request.model and d.kind == request.kind and d.state == "ready":
            sizes[d.node] = sizes.get(d.node, 0) + 1
    return max(sizes.values(), default=0)


def rating_of(model: str | None, devices: Sequence[DeviceRow]) -> tuple[int, str] | None:
    """The rating at which every device of `model` is metered, and its basis; None: none yet.

    One model, one rating: the median of its devices' ratings, the lower one of two.
    """
    return ratings(d for d in devices if d.model == model).get(model) if model else None
