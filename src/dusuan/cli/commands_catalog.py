"""The catalogue of accelerators as a command: list, show, and an operator's own figures.

What is shipped needs no platform. Where one runs, its operator's figures are in place.
"""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import typer

from dusuan.cli import render_sizing
from dusuan.cli.failures import NOT_FOUND, USAGE, Failure
from dusuan.cli.launcher import LauncherError
from dusuan.cli.session import Data, Json, Session, command
from dusuan.core.catalog import overrides, views
from dusuan.core.catalog.accelerators import Catalogue, Override
from dusuan.core.workload.jobspec import Problem
from dusuan.facts import catalogue

_NUMBERS = {"ignore_unknown_options": True}  # a negative figure is refused in words, not as a flag
OVERRIDES = "/v1/catalog/overrides"


class Origin(StrEnum):
    """Where a make is from."""

    DOMESTIC = "domestic"
    FOREIGN = "foreign"


class Precision(StrEnum):
    """A precision that a device may be published at."""

    FP32 = "fp32"
    TF32 = "tf32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    FP4 = "fp4"
    INT8 = "int8"


def register(app: typer.Typer) -> None:
    """Add `catalog`, which lists, with the commands about one device below it."""
    group = typer.Typer()
    group.callback(invoke_without_command=True)(catalog)
    group.command()(show)
    group.command("set", context_settings=_NUMBERS)(change)
    group.command()(history)
    app.add_typer(group, name="catalog", help="Accelerators, with sources.")


def seen_catalogue(s: Session) -> Catalogue:
    """The catalogue with the figures of the platform's operator; as shipped where none answers."""
    try:
        found = s.client.glance(OVERRIDES)["overrides"]
    except LauncherError:
        return catalogue()
    except Failure as failure:
        s.say(f"figures as shipped, without the platform's own: {failure.text}")
        return catalogue()
    return catalogue().with_overrides(Override(**each) for each in found)


def catalog(
    ctx: typer.Context,
    make: Annotated[str | None, typer.Option(help="Of this make only.")] = None,
    origin: Annotated[Origin | None, typer.Option(help="Domestic or foreign makes.")] = None,
    min_memory: Annotated[float | None, typer.Option(min=0, help="At least so many GiB.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Published at this one.")] = None,
    quotable: Annotated[
        bool | None,
        typer.Option("--quotable/--not-quotable", help="What can be quoted, or what cannot."),
    ] = None,
    sources: Annotated[bool, typer.Option("--sources", help="Who says so.")] = False,
    conflicts: Annotated[bool, typer.Option("--conflicts", help="Who says otherwise.")] = False,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Accelerators: dense TFLOPS by precision, memory, bandwidth, power, sources, conflicts."""
    if ctx.invoked_subcommand is not None:
        return
    with command(ctx, as_json, data) as s:
        kept = [
            views.listed(device)
            for device in seen_catalogue(s).devices
            if views.passes(device, make, origin, min_memory, precision, quotable)
        ]
        if conflicts:
            kept = [device for device in kept if device["conflicts"]]
        s.show({"devices": kept}, partial(render_sizing.catalog, sources=sources, others=conflicts))


def show(
    ctx: typer.Context,
    device: Annotated[str, typer.Argument(help="A name, such as H100-SXM5-80GB.")],
    as_json: Json = False,
    data: Data = None,
) -> None:
    """All that is known of one device: every figure with its source, conflicts, overrides."""
    with command(ctx, as_json, data) as s:
        found = seen_catalogue(s).find(device)
        if isinstance(found, Problem):
            raise _missing(found)
        s.show(views.detailed(found), render_sizing.device)


def change(
    ctx: typer.Context,
    device: Annotated[str, typer.Argument(help="A name, such as S60.")],
    field: Annotated[str, typer.Argument(help="Such as bf16, memory, bandwidth, tdp, link.")],
    value: Annotated[str, typer.Argument(help="TFLOPS, GB, GB/s or W; `shipped` takes it back.")],
    source: Annotated[str, typer.Option(help="Who says so: a datasheet, a letter, a test.")],
    make: Annotated[str | None, typer.Option(help="Adds a card of this make.")] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Set a figure of a device on this platform; every earlier one stays in its history."""
    with command(ctx, as_json, data) as s:
        found = overrides.value_of(value)
        if isinstance(found, Problem):
            raise _missing(found)
        checked = overrides.checked(seen_catalogue(s), device, field, found, source, make)
        if isinstance(checked, Problem):
            raise _missing(checked)
        body = {"device": checked[0].name, "field": checked[1], "value": found, "source": source}
        body |= {} if make is None else {"make": make}
        s.show(s.client.post(OVERRIDES, body), render_sizing.device)


def history(
    ctx: typer.Context,
    device: Annotated[str | None, typer.Argument(help="A name; without one, all.")] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """The operator's figures of a device, or of all: what, by whom, when, on whose word."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.get(OVERRIDES, device=device), render_sizing.history)


def _missing(problem: Any) -> Failure:
    """The failure of a name that means no device, or of a figure that makes no sense."""
    code = NOT_FOUND if problem.code == "unknown_device" else USAGE
    return Failure(problem.code, problem.text, problem.remedy, code)
