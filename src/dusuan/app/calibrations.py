"""What devices sustain by class of work: measured, learnt from finished runs, and who is slow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from dusuan.app.context import Platform
from dusuan.core.catalog.calibration import (
    CLASS_OF_KIND,
    Drift,
    Run,
    Sustained,
    below_peers,
    drift,
    learn,
    robust,
)
from dusuan.store.database import Tx, json
from dusuan.store.rows import DeviceRow

GFLOP = 1e9


@dataclass(frozen=True, slots=True)
class Sampled:
    """One class of work measured on one device; no values where it could not be (`note`)."""

    device: str
    class_: str
    values: tuple[float, ...] = ()
    unit: str = "gflops"
    precision: str = ""
    software: str = ""
    method: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    device: str
    model: str
    class_: str
    software: str
    precision: str
    unit: str
    value: float
    low: float
    high: float
    samples: int
    method: str
    detail: Mapping[str, Any]
    measured_at: datetime


@dataclass(frozen=True, slots=True)
class _Finished:
    id: str
    device: str
    model: str
    devices: int
    template: str
    org_id: str
    kind: str | None
    held_ms: int
    flop: float | None
    done: float | None


def record(platform: Platform, tx: Tx, sampled: Sequence[Sampled]) -> None:
    """Append what was measured; older figures stay as history."""
    for item in sampled:
        if not item.values:
            continue
        figure = robust(item.values)
        tx.run(
            "calibration_insert",
            device=item.device,
            class_=item.class_,
            software=item.software,
            precision=item.precision,
            unit=item.unit,
            value=figure.middle,
            low=figure.low,
            high=figure.high,
            samples=figure.samples,
            method=item.method,
            detail=json(dict(item.detail)),
            now=platform.now(),
        )


def by_device(tx: Tx) -> dict[str, list[dict[str, Any]]]:
    """The latest figure of each class, by device, as `pool` shows it."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in tx.all(_Known, "calibrations_latest"):
        view = {k: v for k, v in asdict(row).items() if k not in ("device", "model", "class_")}
        moment = {"class": row.class_, "measured_at": row.measured_at.isoformat()}
        found[row.device].append({**view, **moment})
    return found


def sustained(tx: Tx, kind: str) -> dict[str, tuple[float, float, float]]:
    """What devices sustain on work of this kind, by model: low, middle and high GFLOPS."""
    found = _learnt(tx, kind)
    return {model: (s.low, s.middle, s.high) for model, s in found.items()}


def learnt_view(tx: Tx) -> list[dict[str, Any]]:
    """What is believed of each model after its finished runs, by kind of workload."""
    runs = tx.all(_Finished, "runs_finished")
    kinds = sorted({str(r.kind) for r in runs if r.kind in CLASS_OF_KIND and r.flop})
    return [
        {"model": model, "kind": kind, "unit": "gflops", **asdict(figure)}
        for kind in kinds
        for model, figure in sorted(_learnt(tx, kind).items())
        if figure != _measured(tx, CLASS_OF_KIND[kind]).get(model)  # else no run has said a thing
    ]


def _learnt(tx: Tx, kind: str) -> dict[str, Sustained]:
    """Measurements of the class closest to `kind`, moved by what finished runs of it delivered.

    A run that delivered more than its devices could hold says nothing true, and is left out.
    """
    measured = _measured(tx, CLASS_OF_KIND.get(kind, ""))
    paces: dict[str, list[float]] = defaultdict(list)
    for run in _once(tx.all(_Finished, "runs_finished")):
        if run.kind == kind and run.flop and run.held_ms:
            paces[run.model].append(run.flop / GFLOP / (run.held_ms / 1_000))
    ratings = {d.model: d.gflops for d in tx.all(DeviceRow, "devices") if d.gflops}
    believed = {}
    for model in measured.keys() | paces.keys():
        most = ratings.get(model, 0) * 1.1
        figure = learn(measured.get(model), [p for p in paces.get(model, ()) if p <= most])
        if figure is not None:
            believed[model] = figure
    return believed


def _measured(tx: Tx, class_: str) -> dict[str, Sustained]:
    """The median over a model's devices of what each sustains on a class of work."""
    rows: dict[str, list[_Known]] = defaultdict(list)
    for row in tx.all(_Known, "calibrations_latest"):
        if row.class_ == class_ and row.unit == "gflops":
            rows[row.model].append(row)
    middle = {model: sorted(known, key=lambda k: k.value) for model, known in rows.items()}
    return {
        model: Sustained(k.low, k.value, k.high, k.samples)
        for model, known in middle.items()
        for k in [known[(len(known) - 1) // 2]]
    }


def _once(runs: Sequence[_Finished]) -> list[_Finished]:
    """Each attempt once, however many devices it had."""
    return list({run.id: run for run in runs}.values())


def slow(tx: Tx) -> dict[str, Drift]:
    """Devices that are slower than others like them: in finished runs, or as last measured."""
    finished = tx.all(_Finished, "runs_finished")
    runs = [
        Run(r.device, f"{r.org_id}/{r.template}/{r.model}/{r.devices}", r.done / r.held_ms)
        for r in finished
        if r.done and r.held_ms
    ]
    found = {each.device: each for each in drift(runs) if each.slow}
    for each in _below_peers(tx):
        found.setdefault(each.device, each)
    return found


def _below_peers(tx: Tx) -> list[Drift]:
    """By the latest rating: a card that fell behind the others of its model."""
    rated: dict[str, dict[str, float]] = defaultdict(dict)
    for d in tx.all(DeviceRow, "devices"):
        if d.gflops is not None and d.basis == "calibrated" and d.kind != "cpu":
            rated[d.model][d.device] = float(d.gflops)
    found = []
    for peers in rated.values():
        for device, own in peers.items():
            others = [value for name, value in peers.items() if name != device]
            verdict = below_peers(device, own, others) if len(others) > 1 else None
            found += [] if verdict is None else [verdict]
    return found
