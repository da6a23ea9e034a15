"""The group `sim`: the scheduler's rules on a virtual clock."""

from __future__ import annotations

import typer

from dusuan.cli import commands_pack


def register(app: typer.Typer) -> None:
    """Add the group and its commands."""
    group = typer.Typer(no_args_is_help=True, help="Try the scheduler on traces and load.")
    commands_pack.register(group)
    app.add_typer(group, name="sim")
