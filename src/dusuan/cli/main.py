"""Puts the command together."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable

import typer

from dusuan.cli import (
    commands_catalog,
    commands_centre,
    commands_jobs,
    commands_money,
    commands_quotes,
    commands_sim,
    commands_sizing,
    commands_tenants,
)
from dusuan.cli.launcher import Launcher
from dusuan.cli.session import Setup

_MODULES = (
    commands_centre,
    commands_tenants,
    commands_money,
    commands_jobs,
    commands_quotes,
    commands_sim,
    commands_catalog,
    commands_sizing,
)


def _fresh_key() -> str:
    """An Idempotency-Key that nobody used before."""
    return os.urandom(16).hex()


def build(launcher: Launcher, new_key: Callable[[], str] = _fresh_key) -> typer.Typer:
    """The command `dusuan` over `launcher`. `new_key` makes Idempotency-Keys."""
    app = typer.Typer(
        name="dusuan",
        help="Compute sold the way a utility sells electricity.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_show_locals=False,  # they would show keys
        context_settings={"obj": Setup(launcher, new_key)},
    )
    app.callback()(_begin)
    for module in _MODULES:
        module.register(app)
    return app


def _begin() -> None:
    """Compute sold the way a utility sells electricity."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError):
                stream.reconfigure(errors="replace")  # a terminal that lacks ¥ or 度 is no error
