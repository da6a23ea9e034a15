"""The groups `sim` and `policy`: the scheduler's rules on a virtual clock."""

from __future__ import annotations

import typer

from dusuan.cli import commands_compare, commands_pack, commands_replay, commands_traces


def register(app: typer.Typer) -> None:
    """Add the groups and their commands."""
    group = typer.Typer(no_args_is_help=True, help="Try the scheduler on traces and load.")
    commands_traces.register(group)
    commands_compare.register(group)
    commands_pack.register(group)
    commands_replay.register(group)
    app.add_typer(group, name="sim")
    policies = typer.Typer(no_args_is_help=True, help="How the queue is served: show, try.")
    commands_compare.register_policy(policies)
    app.add_typer(policies, name="policy")
