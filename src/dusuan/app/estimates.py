"""Estimates of rows of tables: a run, a step, a serving configuration. No platform is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dusuan.core.energy.power import NATIONAL, PUE, GridFactor, carbon_kg, energy_kwh
from dusuan.core.units import degrees_text
from dusuan.core.workload import estimate, goodput, runs, servingrows, stepmfu, steprows
from dusuan.core.workload import serving as servingmodel
from dusuan.core.workload.goodput import Span
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.runs import Run
from dusuan.facts.library import library

PUE_MAX = 3.0
RUN_COLUMNS = (
    *("flop_total", "delivered_degrees"),
    *("held_degrees_p10", "held_degrees_p50", "held_degrees_p90"),
    *("device_hours_p10", "device_hours_p50", "device_hours_p90"),
    *("memory_gib_per_device", "fits", "layout"),
    *("energy_kwh_p50", "co2_kg_p50", "assumptions"),
)


Row = Mapping[str, str]


def step(row: Row) -> dict[str, Any] | Problem:
    """Utilisation of a training step: `mfu_p50`, a fraction, and `assumptions`."""
    read = steprows.step(row, library().device)
    if isinstance(read, Problem):
        return read
    described, notes = read
    return {
        "mfu_p50": stepmfu.utilisation(library().steps, described),
        "assumptions": notes,
    }


def serving(row: Row) -> dict[str, Any] | Problem:
    """Times of a serving configuration: `ttft_ms`, `tpot_ms`, and `assumptions`."""
    read = servingrows.deployment(row, library().device, library().models.find)
    if isinstance(read, Problem):
        return read
    use, notes = read
    return {
        "ttft_ms": servingmodel.ttft_s(library().serving, use) * 1e3,
        "tpot_ms": servingmodel.tpot_s(library().serving, use) * 1e3,
        "assumptions": notes,
    }


@dataclass(frozen=True, slots=True)
class Site:
    """Where a run is: what its grid emits, and how much power its hall adds (PUE)."""

    grid: GridFactor
    pue: float = PUE


def site(region: str, pue: float) -> Site | Problem:
    """The site on the grid of `region` (such as 贵州; blank: the nation's)."""
    grids = library().grids
    found = grids.get(region or NATIONAL)
    if found is None:
        words = f"no grid factor is known for {region[:40]!r}"
        return Problem("unknown_grid", words, remedy=f"known: {', '.join(grids)}")
    if not 1 <= pue <= PUE_MAX:
        words = f"a PUE of {pue:g} is outside 1 to {PUE_MAX:g}"
        return Problem("out_of_range", words, remedy="it is the power of the hall over that of IT")
    return Site(found, pue)


def run(row: Row, at: Site) -> dict[str, Any] | Problem:
    """The columns of `estimate` for a training run: FLOP, degrees, hours, memory, energy."""
    described = runs.read(row, library().device, library().models)
    if isinstance(described, Problem):
        return described
    hours = goodput.run_hours(library().runs, described.features)
    notes = list(described.notes)
    flop = round(described.features.flop)
    return {
        "flop_total": flop,
        "delivered_degrees": degrees_text(flop // 10**9),
        **_spans(described, hours),
        **_memory(described, notes),
        **_energy(described, hours, at, notes),
        "assumptions": notes,
    }


def _spans(described: Run, hours: Span) -> dict[str, Any]:
    gflops = described.features.peak_tflops * 1_000
    found: dict[str, Any] = {}
    for name in ("p10", "p50", "p90"):
        spent = getattr(hours, name)
        found[f"held_degrees_{name}"] = degrees_text(round(gflops * spent * goodput.HOUR_S))
        found[f"device_hours_{name}"] = spent
    return found


def _memory(described: Run, notes: list[str]) -> dict[str, Any]:
    fitted, fits, reason = estimate.fit(described.work, described.device, described.devices, None)
    if reason:
        notes.append(reason)
    if fitted is None:
        return {"memory_gib_per_device": None, "fits": fits, "layout": None}
    words = " ".join(f"{name}={value}" for name, value in fitted.layout.describe().items())
    return {"memory_gib_per_device": fitted.memory.total_gib, "fits": fits, "layout": words}


def _energy(described: Run, hours: Span, at: Site, notes: list[str]) -> dict[str, float | None]:
    power = described.device.tdp_w
    if power is None:
        notes.append(f"the power of {described.device.name} is not published")
        return {"energy_kwh_p50": None, "co2_kg_p50": None}
    reached = goodput.utilisation(library().runs, described.features)
    kwh = energy_kwh(library().power, power, reached, hours.p50)
    return {"energy_kwh_p50": kwh, "co2_kg_p50": carbon_kg(kwh, at.grid, at.pue)}
