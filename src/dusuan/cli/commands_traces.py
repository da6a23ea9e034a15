"""`sim run`: a trace on a cluster under a policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dusuan.cli import simulating
from dusuan.cli.failures import Failure
from dusuan.cli.session import Json, command
from dusuan.cli.simulating import (
    Cluster,
    FaultRate,
    Format,
    Jobs,
    Nodes,
    Predict,
    RestartS,
    Seed,
)

if TYPE_CHECKING:
    from dusuan.sim.run import Outcome

Policy = Annotated[str, typer.Option("--policy", help="A policy's name, or a YAML file.")]


def register(group: typer.Typer) -> None:
    """Add these commands to the group `sim`."""
    group.command()(run)


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
    seed: Seed = 0,
    log: Annotated[Path | None, typer.Option(help="Write every decision, as JSON lines.")] = None,
    as_json: Json = False,
) -> None:
    """Let a trace run on a cluster under a policy, on a virtual clock."""
    from dusuan.sim.summary import summary

    with command(ctx, as_json, None) as s:
        parts = simulating.policy_of(policy)
        given = simulating.read(form, jobs, nodes, cluster)
        how = simulating.How(predict.value if predict else None, restart_s, faults)
        settings = how.settings(parts, log=log is not None)
        outcome = simulating.simulate(s, given, settings, faults, seed)
        if log is not None:
            _write_log(log, outcome)
        document = summary(outcome, given.load_s)
        simulating.tell_notes(s, document)
        s.show(document, simulating.shown)


def _write_log(path: Path, outcome: Outcome) -> None:
    from dusuan.sim.journal import entries, write_log

    try:
        write_log(path, entries(outcome))
    except OSError as failed:
        told = f"{path} cannot be written: {failed.strerror}"
        raise Failure("unwritable", told, "name another file with --log") from None
