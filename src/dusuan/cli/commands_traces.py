"""`sim run` and `sim make`: a trace on a cluster under a policy, and traces made up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from dusuan.cli import render, simulating
from dusuan.cli.failures import Failure
from dusuan.cli.session import Json, command
from dusuan.cli.simulating import (
    Accounts,
    Cluster,
    FaultFile,
    FaultRate,
    Format,
    Jobs,
    Nodes,
    Predict,
    RestartS,
    Seed,
)

Policy = Annotated[str, typer.Option("--policy", help="A policy's name, or a YAML file.")]


def register(group: typer.Typer) -> None:
    """Add these commands to the group `sim`."""
    group.command()(run)
    group.command()(make)


def run(
    ctx: typer.Context,
    form: Format,
    jobs: Jobs,
    nodes: Nodes = None,
    cluster: Cluster = None,
    policy: Policy = "dusuan",
    predict: Predict = None,
    restart_s: RestartS = 60.0,
    faults: FaultRate = 0.0,
    fault_rates: FaultFile = None,
    accounts: Accounts = None,
    seed: Seed = 0,
    log: Annotated[Path | None, typer.Option(help="Write every decision, as JSON lines.")] = None,
    as_json: Json = False,
) -> None:
    """Let a trace run on a cluster under a policy, on a virtual clock."""
    from dusuan.sim.journal import entries
    from dusuan.sim.summary import summary

    with command(ctx, as_json, None) as s:
        parts = simulating.policy_of(policy)
        given = simulating.read(form, jobs, nodes, cluster, accounts)
        how = simulating.How(predict, restart_s, faults, fault_rates)
        settings = how.settings(parts, log=log is not None)
        outcome = simulating.simulate(s, given, settings, how, seed)
        if log is not None:
            _write_lines(log, entries(outcome))
        document = summary(outcome, given.load_s)
        simulating.tell_notes(s, document)
        s.show(document, simulating.shown)


def make(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the trace goes, as JSON lines.")],
    jobs: Annotated[int, typer.Option(help="How many jobs.")] = 10_000,
    devices: Annotated[int, typer.Option(help="Devices that the load is for.")] = 640,
    load: Annotated[float, typer.Option(help="Device-time asked for, in parts of theirs.")] = 0.8,
    mix: Annotated[str, typer.Option(help="training, research, shared or large.")] = "training",
    arrivals: Annotated[str, typer.Option(help="steady, daily or bursts.")] = "daily",
    growth: Annotated[float, typer.Option(help="Load at the end: 1 is twice as high.")] = 0.0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Make up a trace for `sim run --format journal`."""
    from dusuan.sim.generate import Wanted, generate
    from dusuan.sim.journal import submissions

    with command(ctx, as_json, None) as s:
        wanted = Wanted(jobs, devices, load, mix, arrivals, growth, seed)
        trace = simulating.sound(generate(wanted))
        _write_lines(out, submissions(trace))
        days = int(trace.jobs["submit_ms"].max()) / 86_400_000
        document = {"file": str(out), "jobs": len(trace.jobs), "days": round(days, 2)}
        s.show(document, render.made)


def _write_lines(path: Path, lines: Iterator[dict[str, Any]]) -> None:
    from dusuan.sim.journal import write_log

    try:
        write_log(path, lines)
    except OSError as failed:
        told = f"{path} cannot be written: {failed.strerror}"
        raise Failure("unwritable", told, "name another file") from None
