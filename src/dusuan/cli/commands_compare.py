"""`sim compare`, `sim report`, `policy show` and `policy try`: policies side by side, and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from dusuan.cli import render, simulating
from dusuan.cli.failures import Failure, usage
from dusuan.cli.session import Json, Session, command
from dusuan.cli.simulating import (
    Accounts,
    Cluster,
    FaultFile,
    FaultRate,
    Format,
    Input,
    Jobs,
    Nodes,
    Predict,
    RestartS,
)
from dusuan.core.scheduling.policy import POLICIES, PolicyParts

if TYPE_CHECKING:
    from dusuan.sim.run import Outcome

Policies = Annotated[
    str, typer.Option("--policies", help="Names or YAML files, with commas; the first is the base.")
]
Seeds = Annotated[
    int, typer.Option(min=1, max=1000, help="Draws: the trace itself, then days of it redrawn.")
]
Html = Annotated[Path | None, typer.Option("--html", "-o", help="Write a page with plots.")]
_SHOWN = (
    *("avg_jct_s", "avg_wait_s", "avg_bounded_slowdown", "p99_wait_s", "restarts"),
    *("fragmentation", "jain_share"),
)


def register(group: typer.Typer) -> None:
    """Add these commands to the group `sim`."""
    group.command()(compare)
    group.command()(report)


def register_policy(group: typer.Typer) -> None:
    """Add these commands to the group `policy`."""
    group.command("show")(show)
    group.command("try")(try_policy)


def compare(
    ctx: typer.Context,
    form: Format,
    jobs: Jobs,
    nodes: Nodes = None,
    cluster: Cluster = None,
    policies: Policies = "dusuan,fcfs,easy,sjf,las",
    seeds: Seeds = 1,
    predict: Predict = None,
    restart_s: RestartS = 60.0,
    faults: FaultRate = 0.0,
    fault_rates: FaultFile = None,
    accounts: Accounts = None,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Compare policies on a trace: means over seeds with 95 % confidence intervals."""
    with command(ctx, as_json, None) as s:
        chosen = [simulating.policy_of(name.strip()) for name in policies.split(",")]
        if len({each.name for each in chosen}) < len(chosen):
            raise usage("twice", "a policy is named twice", "name each once")
        given = simulating.read(form, jobs, nodes, cluster, accounts)
        how = simulating.How(predict, restart_s, faults, fault_rates)
        _compared(s, given, chosen, how, seeds, html)


def _compared(
    s: Session,
    given: Input,
    chosen: Sequence[PolicyParts],
    how: simulating.How,
    seeds: int,
    html: Path | None,
) -> None:
    """Run all, and show what they came to."""
    from dusuan.sim.compare import drawn, table
    from dusuan.sim.summary import summary, times

    found: dict[str, list[dict[str, Any]]] = {each.name: [] for each in chosen}
    curves: dict[str, Any] = {}
    for seed in range(seeds):
        trace = drawn(given.trace, seed)
        for each in chosen:
            redrawn = replace(given, trace=trace)
            outcome = simulating.simulate(s, redrawn, how.settings(each), how, seed)
            found[each.name].append(summary(outcome, given.load_s))
            if seed == 0:
                curves[each.name] = times(outcome)
    rows = table(found)
    document: dict[str, Any] = {"seeds": seeds, "policies": rows}
    if html is not None:
        document["page"] = str(_write(html, _comparison(rows, curves, seeds)))
    s.show(document, _side_by_side)


def report(
    ctx: typer.Context,
    form: Format,
    jobs: Jobs,
    html: Annotated[Path, typer.Option("--html", "-o", help="Where the page goes.")],
    nodes: Nodes = None,
    cluster: Cluster = None,
    policy: Annotated[str, typer.Option("--policy", help="A name, or a YAML file.")] = "dusuan",
    predict: Predict = None,
    restart_s: RestartS = 60.0,
    faults: FaultRate = 0.0,
    fault_rates: FaultFile = None,
    accounts: Accounts = None,
    seed: simulating.Seed = 0,
    as_json: Json = False,
) -> None:
    """One run as a page: its figures, its waits, and how the devices were used over time."""
    from dusuan.sim.summary import summary

    with command(ctx, as_json, None) as s:
        parts = simulating.policy_of(policy)
        given = simulating.read(form, jobs, nodes, cluster, accounts)
        how = simulating.How(predict, restart_s, faults, fault_rates)
        outcome = simulating.simulate(s, given, how.settings(parts), how, seed)
        document = summary(outcome, given.load_s)
        simulating.tell_notes(s, document)
        document["page"] = str(_write(html, _report(outcome, document)))
        s.show(document, simulating.shown)


def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name or a YAML file; without it, all.")] = "",
    as_json: Json = False,
) -> None:
    """Show what a policy is made of, as a policy file has it."""
    with command(ctx, as_json, None) as s:
        if name:
            s.show(_parts(simulating.policy_of(name)), render.made_with_lists)
            return
        listed = [_parts(each) for each in POLICIES.values()]
        s.show({"policies": listed}, _all_policies)


def try_policy(
    ctx: typer.Context,
    policy: Annotated[str, typer.Argument(help="A policy's name, or a YAML file.")],
    form: Format,
    jobs: Jobs,
    nodes: Nodes = None,
    cluster: Cluster = None,
    against: Annotated[str, typer.Option(help="The policy to compare with.")] = "dusuan",
    seeds: Seeds = 1,
    predict: Predict = None,
    restart_s: RestartS = 60.0,
    faults: FaultRate = 0.0,
    fault_rates: FaultFile = None,
    accounts: Accounts = None,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """What a policy would do on a trace, compared with the default. Nothing live changes."""
    with command(ctx, as_json, None) as s:
        base, tried = simulating.policy_of(against), simulating.policy_of(policy)
        if base.name == tried.name:
            raise usage("same_policy", f"{policy} is {against}", "try another, or --against")
        given = simulating.read(form, jobs, nodes, cluster, accounts)
        how = simulating.How(predict, restart_s, faults, fault_rates)
        _compared(s, given, [base, tried], how, seeds, html)


def _parts(policy: PolicyParts) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(policy).items()}


def _all_policies(document: Mapping[str, Any]) -> RenderableType:
    rows = [
        (p["name"], ", ".join(p["order"]), p["backfill"], ", ".join(p["preempt"]) or "never")
        for p in document["policies"]
    ]
    return render.table(("policy", "order", "backfill", "preempts by"), rows)


def _side_by_side(document: Mapping[str, Any]) -> RenderableType:
    rows = [[row["policy"], *(_cell(row[name]) for name in _SHOWN)] for row in document["policies"]]
    return render.table(("policy", *_SHOWN), rows)


def _cell(figure: Mapping[str, Any] | None) -> str:
    """A mean with its interval, and its ratio to the first policy's."""
    if figure is None:
        return "not known"
    half, ratio = figure["plus_minus"], figure.get("ratio")
    text = f"{figure['mean']:,g}" + ("" if half is None else f" ± {half:,.3g}")
    return text if ratio is None else f"{text}  ({ratio['mean']:.3g}×)"


def _comparison(rows: Sequence[Mapping[str, Any]], curves: Mapping[str, Any], seeds: int) -> str:
    from dusuan.sim import page

    names = [name for name in rows[0] if any(isinstance(row[name], dict) for row in rows)]
    cells = [["policy", *names]]
    cells += [[row["policy"], *(_cell(row[name]) for name in names)] for row in rows]
    waits = {name: found.wait_s for name, found in curves.items()}
    slow = {name: found.slowdown for name, found in curves.items()}
    plots = page.distribution(waits, "wait", "s")
    plots += page.distribution(slow, "bounded slowdown", "times the run")
    told = {"seeds": seeds, "in brackets": "times the first policy's", "±": "95 % confidence"}
    return page.page("Policies compared", told, cells, plots)


def _report(outcome: Outcome, document: Mapping[str, Any]) -> str:
    from dusuan.sim import page
    from dusuan.sim.summary import times

    known = {k: v for k, v in document.items() if v is not None and not isinstance(v, list)}
    cells = [["figure", "value"], *([k, str(v)] for k, v in known.items())]
    found, series = times(outcome), outcome.measured.series
    name = outcome.settings.policy.name
    devices = {"held": series.held, "fragmented": series.fragmented, "down": series.down}
    plots = page.table("Share owed, share got", _account_cells(document["accounts"]))
    plots += page.over_time(series.hours, devices, "devices")
    plots += page.over_time(series.hours, {"waiting": series.waiting}, "jobs waiting")
    plots += page.distribution({name: found.wait_s}, "wait", "s")
    plots += page.distribution({name: found.slowdown}, "bounded slowdown", "times the run")
    facts = {"devices": outcome.site.devices, "nodes": len(outcome.site.nodes)}
    return page.page(f"A run under {name}", facts, cells, plots)


def _account_cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The accounts as rows of a table, with their head."""
    names = list(rows[0]) if rows else []
    return [names, *([str(row[name]) for name in names] for row in rows)]


def _write(path: Path, text: str) -> Path:
    try:
        path.write_text(text, "utf-8")
    except OSError as failed:
        told = f"{path} cannot be written: {failed.strerror}"
        raise Failure("unwritable", told, "name another file with --html") from None
    return path
