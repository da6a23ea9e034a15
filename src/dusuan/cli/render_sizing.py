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


_COLUMNS = ("bf16_tflops", "fp16_tflops", "fp8_tflops", "int8_tops")


def catalog(document: Doc, sources: bool = False, others: bool = False) -> RenderableType:
    """A line a device; with `sources` also who says so, with `others` who says otherwise."""
    columns = ("device", "make", "GiB", "GB/s", "W", "BF16", "FP16", "FP8", "INT8", "quotable")
    rows = [
        (
            *(d["name"], d["make"]),
            *(_plain(d[n]) for n in ("memory_gb", "bandwidth_gbs", "tdp_w", *_COLUMNS)),
            "yes" if d["quotable"] else "no",
        )
        for d in document["devices"]
    ]
    if not rows:
        return Text("no accelerator passes these filters; all of them: dusuan catalog")
    told: list[RenderableType] = []
    for each in document["devices"]:
        grade = f"{each['name']} ({each['confidence']}): {each['source']}"
        told += [Text(grade, style="dim")] if sources else []
        said = each["conflicts"] if others else ()
        told += [Text(f"{each['name']}: {_conflict(c)}", style="yellow") for c in said]
    return Group(table(columns, rows), *told)


def _plain(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _conflict(conflict: Doc) -> str:
    note = f" ({conflict['note']})" if conflict["note"] else ""
    return f"{conflict['field']} {conflict['value']:g} says {conflict['source']}{note}"


def device(document: Doc) -> RenderableType:
    """All that is known of one device."""
    top = fields(
        [
            ("device", document["name"]),
            ("make", f"{document['make']} ({document['origin']}), {document['form']}"),
            ("also called", ", ".join(document["aliases"])),
            ("rated", _rated(document)),
            ("source", document["source"]),
            ("note", document["note"]),
        ]
    )
    rows = [
        (name, _plain(f["value"]), f["confidence"], _elsewhere(f["source"], document["source"]))
        for name, f in document["figures"].items()
    ]
    told = [Text(f"other sources: {_conflict(c)}", style="dim") for c in document["conflicts"]]
    told += [Text(_override(each), style="dim") for each in document["overrides"]]
    if not document["quotable"]:
        told.append(Text(f"not quoted: {document['reason']}; {document['remedy']}", style="yellow"))
    return Group(top, table(("figure", "value", "grade", "source"), rows), *told)


def _elsewhere(source: str, usual: str) -> str:
    """The source of one figure, where it is not that of the whole device."""
    return "as above" if source == usual else source


def _rated(document: Doc) -> str | None:
    rating = document["rating_gflops"]
    if rating is None:
        return None
    each = f"{rating / 312_000:.4g} degrees an hour"
    return f"{rating:,} GFLOPS, dense {document['rating_precision'].upper()} = {each}"


def _override(each: Doc) -> str:
    value = "withdrawn" if each["value"] is None else f"{each['value']:g}"
    return f"set by {each['by']} at {each['at']}: {each['field']} {value} ({each['source']})"


def history(document: Doc) -> RenderableType:
    """An operator's figures, in the order they were set."""
    rows = [
        (o["at"], o["by"], o["device"], o["field"], _plain(o["value"]), o["source"])
        for o in document["overrides"]
    ]
    return table(("at", "by", "device", "figure", "value", "source"), rows)
