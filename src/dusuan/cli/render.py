"""How answers look to people. Nothing here talks to anyone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dusuan.core import units
from dusuan.core.planning.layouts import describe_layout

Doc = Mapping[str, Any]
PLANS_SHOWN = 12
_UNIT = {"gflops": "GFLOPS", "gbs": "GB/s"}
_TURNS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def yuan(fen: int | None) -> str:
    """Fen as yuan."""
    if fen is None:
        return "–"
    sign, cents = ("-" if fen < 0 else ""), abs(fen)
    return f"{sign}¥{cents // 100}.{cents % 100:02d}"


def degrees(gflop: int | None) -> str:
    """GFLOP as degrees to four figures, and as GFLOP while they are few enough to read."""
    text = f"{plain_degrees(gflop)} degrees"
    few = gflop is not None and abs(gflop) < 10**9
    return "–" if gflop is None else f"{text} ({gflop:,} GFLOP)" if few else text


def plain_degrees(gflop: int | None) -> str:
    """GFLOP as degrees to four figures, the number alone."""
    if gflop is None:
        return "–"
    exact = Decimal(units.degrees_text(gflop))
    places = max(0, 3 - exact.adjusted()) if exact else 0
    text = f"{round(exact, places):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def moment(text: str | None) -> str | None:
    """A time of the API (RFC 3339), to the second."""
    return None if text is None else re.sub(r"\.[0-9]+", "", text).replace("T", " ")


def seconds(value: float | None) -> str:
    """A duration in words short enough for a table."""
    if value is None:
        return "–"
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 120:
        return f"{minutes} min {rest:02d} s"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes / 1_440:,.1f} days"


def plain(value: Any) -> str:
    """A value as text that tells a terminal nothing but its letters; None is a dash.

    Names, reasons and reports come from whoever wrote them: whatever would move the cursor, colour,
    or turn the direction of writing shows as its code.
    """
    text = "–" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not commands(c) else _code(c) for c in text)


def commands(character: str) -> bool:
    """Whether it is a control (C0, C1, DEL) or turns the direction of writing."""
    kind = unicodedata.category(character)
    return kind in ("Cc", "Cs") or unicodedata.bidirectional(character) in _TURNS


def _code(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> Table:
    """A plain table; None shows as a dash."""
    drawn = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for n, column in enumerate(columns):
        drawn.add_column(column, overflow="fold", no_wrap=n == 0)
    for row in rows:
        drawn.add_row(*(Text(plain(cell)) for cell in row))
    return drawn


def fields(pairs: Iterable[tuple[str, Any]]) -> Table:
    """Names and values, one pair a line."""
    drawn = Table(box=None, show_header=False, pad_edge=False)
    for name, value in pairs:
        drawn.add_row(Text(name, style="dim"), Text(plain(value)))
    return drawn


def pool(document: Doc) -> RenderableType:
    """Devices with their ratings."""
    columns = ("device", "node", "make", "model", "rating", "basis", "spread", "state")
    rows = [
        (
            d["device"],
            d["node"],
            d["make"],
            d["model"],
            None if d["rating_gflops"] is None else f"{d['rating_gflops']:,} GFLOPS",
            " ".join(filter(None, (d["rating_basis"], d.get("rating_precision")))) or None,
            None if d["spread"] is None else f"{d['spread']:.1%}",
            d["state"],
        )
        for d in document["devices"]
    ]
    alarms = [Text(f"alarm: {alarm}", style="yellow") for alarm in document.get("alarms", [])]
    share = document.get("domestic_share")
    told = (
        [Text(f"domestic makes: {share:.1%} of the rated capacity", style="dim")] if share else []
    )
    return Group(table(columns, rows), *told, *alarms, *_sustained(document))


def _sustained(document: Doc) -> list[RenderableType]:
    """What devices sustain by class of work, and what finished runs taught."""
    columns = ("device", "class", "sustains", "interval", "with", "measured")
    rows = [
        (
            d["device"],
            c["class"],
            f"{c['value']:,.4g} {_UNIT[c['unit']]}",
            f"{c['low']:,.4g} to {c['high']:,.4g}",
            f"{c['software']}, {c['precision']}: {c['method']}",
            moment(c["measured_at"]),
        )
        for d in document["devices"]
        for c in d.get("calibrations", [])
    ]
    learnt = [
        (
            each["model"],
            f"learnt: {each['kind']}",
            f"{each['middle']:,.4g} GFLOPS",
            f"{each['low']:,.4g} to {each['high']:,.4g}",
            f"{each['samples']} finished runs",
            None,
        )
        for each in document.get("learnt", [])
    ]
    return [table(columns, [*rows, *learnt])] if rows or learnt else []


def items(document: Doc) -> RenderableType:
    """Paths with their ids."""
    return table(("path", "id"), [(i["path"], i["id"]) for i in document["items"]])


def members(document: Doc) -> RenderableType:
    """Members with their roles."""
    rows = [
        (m["name"], ", ".join(f"{r['role']} of {r['account']}" for r in m["roles"]), m["id"])
        for m in document["items"]
    ]
    return table(("name", "roles", "id"), rows)


def keys(document: Doc) -> RenderableType:
    """Keys, without their secrets."""
    rows = [
        (k["id"], k["member"] or "operator", k["hint"], k["state"], moment(k["expires_at"]))
        for k in document["items"]
    ]
    return table(("key", "of", "begins", "state", "ends"), rows)


def made(document: Doc) -> RenderableType:
    """Something that was just made or changed."""
    return fields((name, value) for name, value in document.items() if not _nested(value))


def made_with_lists(document: Doc) -> RenderableType:
    """The same, with lists as their items."""
    plain = {k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in document.items()}
    return made(plain)


def _nested(value: Any) -> bool:
    return isinstance(value, list | dict)


def packages(document: Doc) -> RenderableType:
    """What is on sale."""
    rows = [
        (
            p["name"],
            degrees(p["gflop"]),
            yuan(p["price_fen"]),
            None if p["valid_days"] is None else f"{p['valid_days']} days",
        )
        for p in document["packages"]
    ]
    return table(("package", "degrees", "price", "valid"), rows)


def wallet(document: Doc) -> RenderableType:
    """What an account has left."""
    top = fields(
        [
            ("account", document["account"]),
            ("pays from", document.get("wallet")),
            ("available", degrees(document["available_gflop"])),
            ("set aside", degrees(document["pending_gflop"])),
            ("cash", yuan(document["cash_fen"])),
        ]
    )
    rows = [
        (lot["id"], lot["kind"], plain_degrees(lot["remaining_gflop"]), moment(lot["expires_at"]))
        for lot in document["lots"]
    ]
    return Group(top, table(("lot", "kind", "remaining", "expires"), rows)) if rows else top


def quote(document: Doc, *, every: bool = False) -> RenderableType:
    """The plan menu; the plan that the goal picks is marked. A long one shows some, or `every`."""
    plans = document["plans"] if every else _some(document["plans"], document["chosen"])
    columns = ["plan", "device", "count", "degrees", "price", "at most", "P50", "P90"]
    known = [name for name in ("energy_kwh", "co2_kg") if any(p.get(name) for p in plans)]
    laid_out = any(p.get("layout") for p in plans)
    columns += [{"energy_kwh": "kWh", "co2_kg": "kgCO2"}[name] for name in known]
    rows = [
        (
            ("→ " if plan["plan_id"] == document["chosen"] else "  ") + plan["plan_id"],
            plan["device"] + ("" if plan.get("in_pool", True) else " (not here)"),
            plan["count"],
            plain_degrees(plan.get("held_gflop_p50")),
            yuan(plan["price_fen_p50"]),
            yuan(plan["price_fen_max"]),
            seconds(plan["finish_p50_s"]),
            seconds(plan["finish_p90_s"]),
            *(None if plan.get(name) is None else f"{plan[name]:,.4g}" for name in known),
            *([describe_layout(plan.get("layout"))] if laid_out else []),
        )
        for plan in plans
    ]
    drawn = table([*columns, *(["layout"] if laid_out else [])], rows)
    missed = document.get("missed")
    warning = [Text(missed["text"], style="bold yellow")] if missed else []
    notes = [Text(note, style="dim") for note in document.get("notes", [])]
    hidden = len(document["plans"]) - len(plans)
    more = [Text(f"and {hidden} more: --all", style="dim")] if hidden else []
    return Group(
        drawn, *more, *warning, *_left_out(document, every=every), *_probe_bill(document), *notes
    )


def _some(plans: Sequence[Doc], chosen: str | None) -> list[Doc]:
    """Of a long menu, the cheapest, the fastest, what is chosen, and some between them."""
    if len(plans) <= PLANS_SHOWN:
        return list(plans)
    step = (len(plans) - 1) / (PLANS_SHOWN - 1)
    picked = {round(i * step) for i in range(PLANS_SHOWN)}
    picked.add(min(range(len(plans)), key=lambda i: plans[i]["finish_p90_s"]))
    return [p for i, p in enumerate(plans) if i in picked or p["plan_id"] == chosen]


def _left_out(document: Doc, *, every: bool) -> list[Text]:
    named = document["excluded"] if every else document["excluded"][:PLANS_SHOWN]
    lines = [
        f"left out: {e['device']}" + (f" × {e['count']}" if e.get("count") else "")
        + f": {e['reason']}"
        for e in named
    ]  # fmt: skip
    hidden = len(document["excluded"]) - len(named)
    lines += [f"and {hidden} more devices left out: --all"] if hidden else []
    return [Text(line, style="dim") for line in lines]


def quote_report(document: Doc) -> RenderableType:
    """How well quotes were kept, by template."""
    columns = ("template", "of", "quotes", "took / P50", "error", "≤ P50", "≤ P90", "centre bore")
    named = document["templates"] or ([document["all"]] if document["all"] else [])
    rows = [
        (
            r.get("template", "all"),
            r.get("organisation"),
            r["quotes"],
            f"{r['bias']:.2f}",
            f"{r['error']:.1%}",
            f"{r['p50_coverage']:.0%}",
            f"{r['p90_coverage']:.0%}",
            f"{r['centre_share']:.2%}",
        )
        for r in named
    ]
    if not rows:
        return Text("no job has ended on an accepted quote yet")
    return table(columns, rows)


def prices(document: Doc) -> RenderableType:
    """What tiers cost."""
    tiers = [(tier, f"{permille / 10:g} % of a degree's price") for tier, permille in
             document["tiers"].items()]  # fmt: skip
    return fields([("price version", document["price_version"]), *tiers])


def _quoted(document: Doc) -> list[RenderableType]:
    """What was quoted, used and charged, and the centre's share."""
    quote = document.get("quote")
    if not quote:
        return []
    rows = [
        ("quoted", plain_degrees(quote["quoted_gflop"]), None, seconds(quote["quoted_p50_s"])),
        ("at most", plain_degrees(quote["cap_gflop"]), yuan(quote["cap_fen"]),
         seconds(quote["quoted_p90_s"])),
        ("used", plain_degrees(quote["used_gflop"]), None, seconds(quote["took_s"])),
        ("charged", plain_degrees(quote["charged_gflop"]), yuan(quote["charged_fen"]), None),
        ("the centre's", plain_degrees(quote["centre_gflop"]), None, None),
    ]  # fmt: skip
    if quote["beyond_gflop"]:
        more = (plain_degrees(quote["beyond_gflop"]), yuan(quote["beyond_fen"]), None)
        rows.append(("beyond it", *more))
    return [table((f"quote {quote['quote_id']}", "degrees", "price", "time"), rows)]


def _probe_bill(document: Doc) -> list[Text]:
    probes = document.get("probes") or []
    fen = sum(probe["charge_fen"] for probe in probes)
    gflop = sum(probe["held_gflop"] for probe in probes)
    if not probes:
        return []
    return [Text(f"measuring it took {degrees(gflop)} and cost {yuan(fen)}", style="dim")]


def job(document: Doc) -> RenderableType:
    """A job with its attempts."""
    waiting = document.get("waiting") or {}
    top = fields(
        [
            ("job", document["job_id"]),
            ("name", document["name"]),
            ("account", document["account"]),
            ("state", document["state"]),
            ("stopped by", document["stop_reason"]),
            ("runs on", f"{document['count']} × {document['device'] or 'any device'}"),
            *([("waits", waiting["text"]), ("next", waiting["remedy"])] if waiting else []),
        ]
    )
    rows = [
        (a["number"], a["state"], seconds(a["held_ms"] / 1_000), a["end_reason"], _exit(a))
        for a in document["attempts"]
    ]
    columns = ("attempt", "state", "held", "ended by", "exit")
    return Group(top, table(columns, rows)) if rows else top


def _exit(attempt: Doc) -> str | None:
    if attempt["exit_code"] is not None:
        return f"code {attempt['exit_code']}"
    signal = attempt.get("exit_signal")
    return attempt.get("text") or None if signal is None else f"signal {signal}"


def jobs(document: Doc) -> RenderableType:
    """A page of jobs."""
    rows = [
        (j["job_id"], j["name"], j["account"], j["state"], _reason(j), moment(j["submitted_at"]))
        for j in document["jobs"]
    ]
    listed = table(("job", "name", "account", "state", "why", "submitted"), rows)
    if document["next"] is None:
        return listed
    return Group(listed, Text(f"more: dusuan jobs --before {document['next']}", style="dim"))


def _reason(view: Doc) -> str | None:
    waiting = view.get("waiting")
    return str(waiting["code"]) if waiting else view["stop_reason"]


def why(document: Doc) -> RenderableType:
    """Why a job is where it is."""
    pairs = [("state", document["state"]), ("because", document["text"])]
    if document["remedy"]:
        pairs.append(("next", document["remedy"]))
    pairs += [("or", remedy["text"]) for remedy in document.get("remedies") or []]
    if document.get("expected_start_at"):
        pairs.append(("expected", f"starts about {document['expected_start_at']}"))
    return fields(pairs)


def receipt(document: Doc) -> RenderableType:
    """Both registers, what paid, and under which isolation."""
    delivered, rating = document["delivered_gflop"], document["rating_gflops"]
    source = f", {document['delivered_source']}" if delivered is not None else ""
    rated = None if rating is None else f"{rating:,} GFLOPS a device, {document['rating_basis']}"
    result = ", ".join(f"{name} {value}" for name, value in document["result"].items())
    top = fields(
        [
            ("job", document["job_id"]),
            ("outcome", f"{document.get('state')} ({document.get('stop_reason')})"),
            ("ran on", f"{document['count']} × {document['device']}" + _named(document)),
            ("rated", rated),
            ("held", f"{document['held_ms'] / 1_000:.3f} device-seconds"),
            ("", degrees(document["held_gflop"])),
            ("delivered", f"{degrees(delivered)}{source}"),
            ("billed by", f"the {document['meter_basis']} register"),
            ("charged", yuan(document["charge_fen"])),
            ("balance before", degrees(document["balance_before_gflop"])),
            ("balance after", degrees(document["balance_after_gflop"])),
            ("isolation", document["isolation"]),
            ("result", result or None),
        ]
    )
    lots = [
        (u["lot_id"], u["kind"], plain_degrees(u["gflop"]), yuan(u["fen"]))
        for u in document["lots"]
    ]
    paid = [table(("paid from", "kind", "degrees", "worth"), lots)] if lots else []
    notes = [Text(note, style="bold yellow") for note in document.get("notes", [])]
    return Group(top, *paid, *_quoted(document), *_probe_bill(document), *notes)


def _named(document: Doc) -> str:
    names = document.get("devices") or []
    return f" ({', '.join(names)})" if names else ""


def outputs(document: Doc) -> RenderableType:
    """Output files."""
    return table(("file", "bytes"), [(f["path"], f"{f['bytes']:,}") for f in document["files"]])


def audit(document: Doc) -> RenderableType:
    """Every invariant, and what breaks it."""
    rows = [
        (
            "ok" if check["ok"] else "BROKEN",
            check["name"].replace("_", " "),
            ", ".join(str(subject) for subject in check["subjects"][:5]),
        )
        for check in document["checks"]
    ]
    alarms = [Text(f"alarm: {alarm}", style="yellow") for alarm in document.get("alarms", [])]
    return Group(table(("", "invariant", "broken by"), rows), *alarms)


def meter_line(document: Doc) -> str:
    """The live meter in one line."""
    parts = [document["state"], f"held {degrees(document['held_gflop'])}"]
    parts.append(yuan(document["cost_fen"]))
    if document.get("balance_left_s") is not None:
        parts.append(f"balance lasts {seconds(document['balance_left_s'])}")
    progress = document.get("progress")
    if progress and progress[1]:
        parts.append(f"{progress[0]:g}/{progress[1]:g} done")
    if document.get("waiting"):
        parts.append(f"waits: {document['waiting']['text']}")
    return " · ".join(parts)
