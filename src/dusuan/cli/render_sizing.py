"""How estimates, the catalogue and conversions look to people."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dusuan.cli.render import Doc, fields, table


def converted(document: Doc) -> RenderableType:
    """A converted value."""
    about = "" if document["exact"] else " (rounded)"
    return Text(f"{document['value']} {document['unit']}{about}")


def short(value: float | None, unit: str = "") -> str:
    """A number to three figures with its unit; large ones in powers of ten."""
    if value is None:
        return "–"
    plain = abs(value) < 1e6 and (abs(value) >= 1e-3 or not value)
    text = f"{value:,.0f}" if plain and abs(value) >= 1_000 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def _span(document: Doc, name: str, unit: str) -> str:
    found = [document[f"{name}_{p}"] for p in ("p50", "p10", "p90")]
    if found[0] is None:
        return "–"
    middle, low, high = (short(float(value)) for value in found)
    return f"{middle} {unit} (80 % interval {low} to {high})"


def estimate(document: Doc) -> RenderableType:
    """What a workload takes."""
    active = document["params_active"]
    size = short(document["params_total"]) + ("" if active == document["params_total"] else
                                              f", {short(active)} active")  # fmt: skip
    top = fields(
        [
            ("model", f"{document['model']} ({size} parameters)"),
            ("work", _work(document)),
            ("computes", f"{short(document['flop_total'], 'FLOP')} = "
                         f"{short(float(document['delivered_degrees']), 'degrees')} delivered"),
            ("runs on", f"{document['count']} × {document['device']}"),
            ("holds", _span(document, "held_degrees", "degrees")),
            ("takes", _span(document, "device_hours", "device-hours")),
            ("", _wall(document)),
            ("memory", _memory(document)),
            ("layout", _layout(document["layout"])),
            ("energy", short(document["energy_kwh_p50"], "kWh")),
        ]
    )  # fmt: skip
    notes = [Text(f"assumed: {note}", style="dim") for note in document["assumptions"]]
    return Group(top, *notes)


def _work(document: Doc) -> str:
    kind = document["kind"]
    if "images" in document:
        return f"{kind} training on {short(document['images'], 'images')}"
    if "requests" in document:
        return f"{kind}, {short(document['requests'], 'requests')}"
    low, high = document["tokens_low"], document["tokens_high"]
    amount = short(document["tokens"], "tokens")
    return f"{kind} on {amount}" + ("" if low == high else f" ({short(low)} to {short(high)})")


def _wall(document: Doc) -> str | None:
    hours = document["device_hours_p50"]
    if hours is None:
        return None
    each = hours / document["count"]
    return f"{short(each, 'h')} on {document['count']}" if each < 72 else short(each / 24, "days")


def _memory(document: Doc) -> str:
    needed = document["memory_gib_per_device"]
    if needed is None:
        return document["reason"] or "–"
    fits = "fits" if document["fits"] else f"does not fit: {document['reason']}"
    return f"{needed:.1f} GiB a device, {fits}"


def _layout(layout: Doc | None) -> str:
    if layout is None:
        return "–"
    said: list[Any] = [f"{n} {layout[n]}" for n in ("tp", "pp", "dp", "ep") if layout[n] > 1]
    said += [f"ZeRO-{layout['zero']}"] if layout["zero"] else []
    said += [f"{layout['recompute']} recompute"] if layout["recompute"] != "none" else []
    return ", ".join([*said, f"micro-batch {layout['micro_batch']}"])


__all__ = ["converted", "estimate", "short", "table"]
