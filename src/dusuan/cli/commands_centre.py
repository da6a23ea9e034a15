"""Commands about the centre: start, stop, pool, audit, units."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from dusuan import __version__
from dusuan.cli import render
from dusuan.cli.demo import Demo
from dusuan.cli.failures import FAILED, usage
from dusuan.cli.session import Data, Json, command
from dusuan.core.workload.quantities import did_you_mean

CLASSES = ("gemm", "bandwidth", "train_step", "prefill", "decode")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(up)
    app.command()(down)
    app.command()(demo)
    app.command()(pool)
    app.command()(calibrate)
    app.command()(audit)
    app.command()(version)


def up(
    ctx: typer.Context,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port on 127.0.0.1.")] = None,
    database: Annotated[
        str | None, typer.Option(help="URL of a PostgreSQL database (default: our own).")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when it answers.")] = False,
    standby: Annotated[
        bool, typer.Option("--standby", help="Wait beside one that runs; take over when it fails.")
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="The database's other data directory is lost for good."),
    ] = False,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Start the platform."""
    with command(ctx, as_json, data) as s:
        launcher = s.setup.launcher
        started = launcher.up(
            s.data_dir, port, database, detach, s.say, standby=standby, take_over=take_over
        )
        s.show(started, render.made)


def down(ctx: typer.Context, as_json: Json = False, data: Data = None) -> None:
    """Stop the platform. Running jobs end inside what is set aside for them."""
    with command(ctx, as_json, data) as s, s.busy("stopping"):
        s.show(s.setup.launcher.down(s.data_dir), render.made)


def demo(ctx: typer.Context, as_json: Json = False, data: Data = None) -> None:
    """The whole way of a job on this machine: package, quote, training, receipt, audit."""
    with command(ctx, as_json, data) as s:
        told = Demo(s).run()
        if as_json:
            s.show(told, render.made)


def pool(ctx: typer.Context, as_json: Json = False, data: Data = None) -> None:
    """The devices, and what they are rated at."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.get("/v1/pool"), render.pool)


def calibrate(
    ctx: typer.Context,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="gemm, bandwidth, train_step, prefill, decode, or all."),
    ] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Measure what the devices are rated at, or what they sustain on classes of work."""
    with command(ctx, as_json, data) as s:
        asked = "&".join(f"class={each}" for each in _classes(classes or []))
        with s.busy("measuring the devices"):
            measured = s.client.ask("/v1/pool/calibrate" + (f"?{asked}" if asked else ""))
        s.show(measured, render.pool)


def _classes(named: list[str]) -> list[str]:
    """The classes that are meant. Raises `Failure` for one that there is none of."""
    wrong = next((name for name in named if name not in (*CLASSES, "all")), None)
    if wrong is not None:
        remedy = did_you_mean(wrong, (*CLASSES, "all"))
        raise usage("unknown_class", f"{wrong!r} is no class of work", remedy)
    return list(CLASSES) if "all" in named else named


def audit(ctx: typer.Context, as_json: Json = False, data: Data = None) -> None:
    """Check every invariant of the ledger; exit 1 when one is broken."""
    with command(ctx, as_json, data) as s:
        with s.busy("checking"):
            checked = s.client.get("/v1/audit")
        s.show(checked, render.audit)
        if not checked["ok"]:
            raise typer.Exit(FAILED)


def version(ctx: typer.Context, as_json: Json = False, data: Data = None) -> None:
    """The version of this program."""
    with command(ctx, as_json, data) as s:
        document = {"version": __version__, "installed_at": str(Path(__file__).parents[1])}
        s.show(document, lambda shown: Text(shown["version"]))
