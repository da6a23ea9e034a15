"""Devices of the catalogue as documents, and which of them pass a filter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dusuan.core.catalog.accelerators import FIELDS, Accelerator, Override
from dusuan.core.catalog.makes import is_domestic


def passes(
    device: Accelerator,
    make: str | None = None,
    origin: str | None = None,
    memory_gib_min: float | None = None,
    precision: str | None = None,
    quotable: bool | None = None,
) -> bool:
    """Whether a device is of that make and origin, has that memory and that precision, and can
    be quoted from its figures."""
    if make is not None and make.lower() not in device.make.lower():
        return False
    if origin is not None and device.origin != origin:
        return False
    memory = device.memory_gib
    if memory_gib_min is not None and (memory is None or memory < memory_gib_min):
        return False
    if quotable is not None and quotable != (device.unquotable() is None):
        return False
    return precision is None or device.tflops(precision) is not None


def listed(device: Accelerator) -> dict[str, Any]:
    """One device: its figures (None where not published) and whether it can be quoted."""
    problem = device.unquotable()
    return {
        "name": device.name,
        "make": device.make,
        "origin": device.origin,
        "form": device.form,
        "year": device.year,
        **{name: device.value(name) for name in FIELDS},
        "memory_type": device.memory_type or None,
        "rating_gflops": device.rating_gflops,
        "rating_precision": device.rated_precision,
        "quotable": problem is None,
        "reason": None if problem is None else problem.text,
        "confidence": device.confidence,
        "source": device.source,
        "note": device.note or None,
        "conflicts": [
            {"field": c.field, "value": c.value, "source": c.source, "note": c.note or None}
            for c in device.conflicts
        ],
    }


def detailed(device: Accelerator) -> dict[str, Any]:
    """The same with the source and grade of every figure, aliases and the overrides in force."""
    figures = {
        name: {"value": f.value, "source": f.source, "confidence": f.confidence}
        for name, f in device.figures.items()
    }
    problem = device.unquotable()
    return {
        **listed(device),
        "aliases": list(device.aliases),
        "figures": figures,
        "overrides": [override(each) for each in device.overrides],
        "remedy": None if problem is None else problem.remedy,
    }


def override(each: Override) -> dict[str, Any]:
    """An operator's figure: what, by whom, when, on whose word."""
    return {
        "device": each.device,
        "field": each.field,
        "value": each.value,
        "source": each.source,
        "by": each.by,
        "at": each.at,
        "make": each.make,
    }


def domestic_share(devices: Iterable[tuple[str, int | None]]) -> float | None:
    """The share of domestic makes in the rated capacity, from `(make, rating in GFLOPS)` each.

    None where nothing is rated.
    """
    rated = [(make, gflops or 0) for make, gflops in devices]
    total = sum(gflops for _, gflops in rated)
    return sum(g for make, g in rated if is_domestic(make)) / total if total else None
