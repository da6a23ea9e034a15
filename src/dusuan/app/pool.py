"""The pool: which devices there are, and at which rating they are metered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dusuan.app import calibrations
from dusuan.app.context import Platform
from dusuan.core.catalog.calibration import Drift
from dusuan.core.catalog.views import domestic_share
from dusuan.engines.base import Device
from dusuan.store.database import Tx
from dusuan.store.rows import DeviceRow


@dataclass(frozen=True, slots=True)
class Measured:
    """One device measured: sustained GFLOPS (None when it could not be; `note` says why).

    `spread` is the relative spread of `samples` windows.
    """

    device: str
    gflops: int | None
    precision: str = "fp32"
    method: str = ""
    spread: float | None = None
    samples: int | None = None
    note: str = ""


def record_ratings(platform: Platform, tx: Tx, measured: Sequence[Measured]) -> None:
    """Append ratings; older ones stay as history. A device without a figure gets none."""
    for item in measured:
        if item.gflops is not None:
            tx.run(
                "rating_insert",
                device=item.device,
                gflops=item.gflops,
                precision=item.precision,
                basis="calibrated",
                method=item.method,
                spread=item.spread,
                samples=item.samples,
                now=platform.now(),
            )


def with_domestic_share(shown: dict[str, Any]) -> dict[str, Any]:
    """What `show` answers, with the share of domestic makes in the rated capacity; None where
    nothing is rated."""
    rated = [(d["make"], d["rating_gflops"]) for d in shown["devices"]]
    return {**shown, "domestic_share": domestic_share(rated)}


def record_inventory(platform: Platform, tx: Tx, devices: Sequence[Device]) -> None:
    """Write what the engine has; devices it no longer names are down."""
    tx.run("devices_gone", device=[d.device for d in devices])
    tx.run(
        "devices_upsert",
        device=[d.device for d in devices],
        node=[d.node for d in devices],
        make=[d.make for d in devices],
        model=[d.model for d in devices],
        kind=[d.kind for d in devices],
        position=list(range(len(devices))),
        memory_mib=[d.memory_mib for d in devices],
        state=[d.state.value for d in devices],
        now=platform.now(),
    )


def show(tx: Tx, *, operator: bool) -> dict[str, Any]:
    """Every device, its latest rating, what it sustains by class, and whether it is taken; by which
    job, operators see. `alarms` name devices that are slower than others like them."""
    known, slow = calibrations.by_device(tx), calibrations.slow(tx)
    devices = [
        _view(d, operator, known.get(d.device, []), slow.get(d.device))
        for d in tx.all(DeviceRow, "devices")
    ]
    return {
        "devices": devices,
        "learnt": calibrations.learnt_view(tx),
        "alarms": [f"{name}: {each.reason}" for name, each in sorted(slow.items())],
    }


def _state(d: DeviceRow, slow: Drift | None) -> str:
    if d.state != "ready":
        return d.state
    if d.gflops is None:
        return "uncalibrated"
    if d.holder is not None:
        return "allocated"
    return "ready" if slow is None else "slow"


def _view(
    d: DeviceRow, operator: bool, known: list[dict[str, Any]], slow: Drift | None
) -> dict[str, Any]:
    return {
        "device": d.device,
        "node": d.node,
        "make": d.make,
        "model": d.model,
        "kind": d.kind,
        "memory_mib": d.memory_mib,
        "rating_gflops": d.gflops,
        "rating_basis": d.basis,
        "rating_precision": d.precision,
        "rating_method": d.method,
        "samples": d.samples,
        "spread": d.spread,
        "measured_at": None if d.measured_at is None else d.measured_at.isoformat(),
        "state": _state(d, slow),
        "drift": None if slow is None else {"ratio": slow.ratio, "reason": slow.reason},
        "calibrations": known,
        "holder": d.holder if operator else None,
    }
