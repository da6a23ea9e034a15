"""Commands about packages, payments and wallets."""

from __future__ import annotations

from typing import Annotated

import typer

from dusuan.cli import render
from dusuan.cli.commands_tenants import gflop_of
from dusuan.cli.failures import usage
from dusuan.cli.session import AccountOption, Data, Json, command


def register(app: typer.Typer) -> None:
    """Add these commands."""
    package = typer.Typer(help="Packages of degrees.", no_args_is_help=True)
    package.command("list")(package_list)
    package.command("create")(package_create)
    package.command("buy")(package_buy)
    cash = typer.Typer(help="Money received.", no_args_is_help=True)
    cash.command("add")(cash_add)
    app.add_typer(package, name="package")
    app.add_typer(cash, name="cash")
    app.command()(wallet)
    app.command()(transfer)


def package_list(ctx: typer.Context, as_json: Json = False, data: Data = None) -> None:
    """What is on sale."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.get("/v1/packages"), render.packages)


def amount(degrees: str | None, gflop: int | None) -> int:
    """GFLOP from the two options that name them. Raises `Failure` unless just one is given."""
    if degrees is not None and gflop is None:
        return gflop_of(degrees)
    if gflop is not None and degrees is None:
        return gflop
    raise usage("how_much", "give either --degrees or --gflop")


def package_create(
    ctx: typer.Context,
    name: str,
    price_fen: Annotated[int, typer.Option("--price-fen", min=0, help="Price in fen.")],
    degrees: Annotated[str | None, typer.Option("--degrees", help="How many degrees.")] = None,
    gflop: Annotated[int | None, typer.Option("--gflop", min=1, help="Or how many GFLOP.")] = None,
    valid_days: Annotated[int | None, typer.Option("--valid-days", min=1)] = None,
    priority: Annotated[int, typer.Option(help="Lots of a lower one burn first.")] = 100,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Put a package on sale; one of the same name is replaced."""
    with command(ctx, as_json, data) as s:
        body = {
            "name": name,
            "gflop": amount(degrees, gflop),
            "price_fen": price_fen,
            "valid_days": valid_days,
            "priority": priority,
        }
        s.show(s.client.post("/v1/packages", body), render.made)


def package_buy(
    ctx: typer.Context,
    name: str,
    account: AccountOption = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Buy a package; a member pays from the account's cash."""
    with command(ctx, as_json, data) as s:
        body = {"account": s.account(account), "package": name}
        s.show(s.client.post("/v1/purchases", body), render.wallet)


def cash_add(
    ctx: typer.Context,
    fen: Annotated[int, typer.Option("--fen", min=1, help="How many fen.")],
    reference: Annotated[str, typer.Option("--reference", help="Such as a bank's number.")] = "",
    account: AccountOption = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Record money received from a customer."""
    with command(ctx, as_json, data) as s:
        body = {"account": s.account(account), "fen": fen, "reference": reference}
        s.show(s.client.post("/v1/payments", body), render.made)


def wallet(
    ctx: typer.Context, account: AccountOption = None, as_json: Json = False, data: Data = None
) -> None:
    """What an account has left."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.get("/v1/wallet", account=s.account(account)), render.wallet)


def transfer(
    ctx: typer.Context,
    to: Annotated[str, typer.Argument(help="The account that gets them.")],
    degrees: Annotated[str | None, typer.Option("--degrees", help="How many degrees.")] = None,
    gflop: Annotated[int | None, typer.Option("--gflop", min=1, help="Or how many GFLOP.")] = None,
    account: AccountOption = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Move degrees to another account of the organisation; their price and validity stay."""
    with command(ctx, as_json, data) as s:
        body = {"account": s.account(account), "to": to, "gflop": amount(degrees, gflop)}
        s.show(s.client.post("/v1/transfers", body), render.made)
