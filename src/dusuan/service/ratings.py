"""Keeping the pool rated: the inventory at every start, a measurement where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any

import structlog

from dusuan.app import calibrations, pool
from dusuan.app.context import Platform, refuse
from dusuan.store.rows import DeviceRow, Name

log = structlog.get_logger()

# Measures every device of the engine at once, as they are when the host is full.
Measure = Callable[[], Sequence[pool.Measured]]
# Measures one class of work on every device.
MeasureClass = Callable[[str], Sequence[calibrations.Sampled]]
CLASSES = ("gemm", "bandwidth", "train_step", "prefill", "decode")


TRIES = 3
STEADY_SPREAD = 0.2


def steadiest(measure: Measure) -> list[pool.Measured]:
    """Of up to three measurements, the steadiest of each device.

    Other work on the host makes the windows of a measurement differ, and a rating taken then is
    too low: customers would be charged too little for what they get.
    """
    best: dict[str, pool.Measured] = {}
    for _ in range(TRIES):
        for item in measure():
            known = best.get(item.device)
            if known is None or (item.spread or 0.0) < (known.spread or 0.0):
                best[item.device] = item
        if all((item.spread or 0.0) <= STEADY_SPREAD for item in best.values()):
            break
    return list(best.values())


class Ratings:
    """Measures the devices of one engine, one measurement at a time: `guard` sees to that."""

    def __init__(
        self,
        platform: Platform,
        measure: Measure,
        measure_class: MeasureClass,
        guard: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self._platform = platform
        self._measure = measure
        self._measure_class = measure_class
        self._guard = guard

    def prepare(self) -> None:
        """Record the inventory, and measure the devices that have no rating yet."""
        devices = self._platform.engine.inventory()
        with self._platform.store.transaction() as tx:
            pool.record_inventory(self._platform, tx, devices)
            rows = tx.all(DeviceRow, "devices")
        unrated = {row.device for row in rows if row.gflops is None}
        if unrated:
            self._record(self._measured(unrated))

    def calibrate(self, classes: Sequence[str] = ()) -> dict[str, Any]:
        """Measure every device again: its rating, or the `classes` of work named instead.

        Raises `Refused` conflict when jobs hold devices, or one did meanwhile: then no figure is
        kept. Ratings bill; classes only size what is described, and learn from finished runs.
        """
        began = self._platform.now()
        self._refuse_beside_jobs(began)
        if classes:
            self._calibrate_classes(classes, began)
        else:
            measured = self._measured({d.device for d in self._platform.engine.inventory()})
            self._refuse_beside_jobs(began)
            self._record(measured)
        with self._platform.store.transaction() as tx:
            return pool.show(tx, operator=True)

    def _calibrate_classes(self, classes: Sequence[str], began: datetime) -> None:
        with self._guard():
            sampled = [item for each in classes for item in self._measure_class(each)]
        self._refuse_beside_jobs(began)
        for item in sampled:
            log.info("class_measured", device=item.device, kind=item.class_, note=item.note)
        with self._platform.store.transaction() as tx:
            calibrations.record(self._platform, tx, sampled)

    def _refuse_beside_jobs(self, since: datetime) -> None:
        with self._platform.store.transaction() as tx:
            held = [row.id for row in tx.all(Name, "devices_held_since", since=since)]
        if held:
            raise refuse(
                "conflict",
                "devices_busy",
                f"jobs hold {', '.join(held)}; a measurement beside them would be wrong",
                "wait until they have ended: dusuan jobs",
            )

    def _measured(self, devices: set[str]) -> list[pool.Measured]:
        with self._guard():
            return [item for item in self._measure() if item.device in devices]

    def _record(self, measured: Sequence[pool.Measured]) -> None:
        for item in measured:
            log.info("device_measured", device=item.device, gflops=item.gflops, note=item.note)
        with self._platform.store.transaction() as tx:
            pool.record_ratings(self._platform, tx, measured)
            tx.wake()
