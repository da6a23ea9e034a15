"""Commands about prices of tiers, and about how well quotes were kept."""

from __future__ import annotations

from typing import Annotated

import typer

from dusuan.cli import render
from dusuan.cli.failures import usage
from dusuan.cli.session import Data, Json, command

Factor = Annotated[
    float | None, typer.Option(help="What it costs: 0.6 is 60 % of the price of a degree.")
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    quotes = typer.Typer(help="How well quotes were kept.", no_args_is_help=True)
    quotes.callback()(_group)
    quotes.command("report")(report)
    price = typer.Typer(help="What service tiers cost.", no_args_is_help=True)
    price.command("show")(show)
    price.command("set")(change)
    app.add_typer(quotes, name="quotes")
    app.add_typer(price, name="price")


def _group() -> None:
    """How well quotes were kept."""


def report(
    ctx: typer.Context,
    template: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """The error of accepted quotes by template: P50, P90, and what the centre bore."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.get("/v1/reports/quotes", template=template), render.quote_report)


def show(ctx: typer.Context, as_json: Json = False, data: Data = None) -> None:
    """What each tier costs."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.get("/v1/prices"), render.prices)


def change(
    ctx: typer.Context,
    reserved: Factor = None,
    standard: Factor = None,
    spot: Factor = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Put a new price version in force; quotes made before keep theirs."""
    given = {"reserved": reserved, "standard": standard, "spot": spot}
    with command(ctx, as_json, data) as s:
        body = {tier: round(f * 1_000) for tier, f in given.items() if f is not None}
        if not body:
            raise usage("no_tier", "no tier is named", "such as: dusuan price set --spot 0.6")
        s.show(s.client.post("/v1/prices", body), render.prices)
