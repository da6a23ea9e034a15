"""Estimates of rows of tables: a run, a step, a serving configuration. No platform is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dusuan.core.energy.power import energy_kwh
from dusuan.core.units import GFLOP_PER_DEGREE
from dusuan.core.workload import goodput, layout, runs, servingrows, stepmfu, steprows
from dusuan.core.workload import serving as servingmodel
from dusuan.core.workload.architecture import Architecture
from dusuan.core.workload.goodput import Span
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.runs import Run
from dusuan.facts.library import library

RUN_COLUMNS = (
    *("flop_total", "delivered_degrees"),
    *("held_degrees_p10", "held_degrees_p50", "held_degrees_p90"),
    *("device_hours_p10", "device_hours_p50", "device_hours_p90"),
    *("memory_gib_per_device", "fits", "layout", "energy_kwh_p50", "assumptions"),
)
DEGREE_TFLOPS = 312


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


def run(row: Row) -> dict[str, Any] | Problem:
    """The columns of `estimate` for a training run: FLOP, degrees, hours, memory, energy."""
    described = runs.read(row, library().device, library().models)
    if isinstance(described, Problem):
        return described
    hours = goodput.run_hours(library().runs, described.features)
    notes = list(described.notes)
    flop = round(described.features.flop)
    return {
        "flop_total": flop,
        "delivered_degrees": f"{flop / 1e9 / GFLOP_PER_DEGREE:.6f}",
        **_held(described, hours),
        "device_hours_p10": hours.p10,
        "device_hours_p50": hours.p50,
        "device_hours_p90": hours.p90,
        **_memory(described, notes),
        "energy_kwh_p50": _energy(described, hours, notes),
        "assumptions": notes,
    }


def _held(described: Run, hours: Span) -> dict[str, str]:
    rate = described.features.peak_tflops / DEGREE_TFLOPS
    return {f"held_degrees_{p}": f"{getattr(hours, p) * rate:.6f}" for p in ("p10", "p50", "p90")}


def _memory(described: Run, notes: list[str]) -> dict[str, Any]:
    unknown = {"memory_gib_per_device": None, "fits": None, "layout": None}
    size = described.device.memory_gib
    if not isinstance(described.model, Architecture):
        return unknown
    if size is None:
        notes.append(f"the memory of {described.device.name} is not published")
        return unknown
    need = layout.TrainingNeed(described.model, described.seq)
    chosen = layout.choose(need, size, described.devices)
    if isinstance(chosen, Problem):
        notes.append(chosen.text)
        return unknown | {"fits": False}
    words = " ".join(f"{name}={value}" for name, value in chosen.layout.describe().items())
    return {"memory_gib_per_device": chosen.memory.needed_gib, "fits": True, "layout": words}


def _energy(described: Run, hours: Span, notes: list[str]) -> float | None:
    power = described.device.tdp_w
    if power is None:
        notes.append(f"the power of {described.device.name} is not published")
        return None
    reached = goodput.utilisation(library().runs, described.features)
    return energy_kwh(library().power, power, reached, hours.p50)
