"""Commands about customers: organisations, accounts, members, keys."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated
from urllib.parse import quote

import typer

from dusuan.cli import render
from dusuan.cli.failures import Failure, usage
from dusuan.cli.session import AccountOption, Data, Json, Session, command
from dusuan.core.units import GFLOP_PER_DEGREE
from dusuan.core.workload.quantities import duration_s

_GFLOP_MAX = 2**63 - 1
_KEY_S_MAX = Decimal(100 * 366 * 86_400)
_MOMENT = re.compile(r"\d{4}-")
Degrees = Annotated[str | None, typer.Option("--degrees", help="A decimal number of degrees.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    org = typer.Typer(help="Organisations.", no_args_is_help=True)
    org.command("create")(org_create)
    org.command("list")(org_list)
    account = typer.Typer(help="Accounts, their budgets and quotas.", no_args_is_help=True)
    account.command("create")(account_create)
    account.command("list")(account_list)
    account.command("budget")(account_budget)
    account.command("quota")(account_quota)
    member = typer.Typer(help="Members and their roles.", no_args_is_help=True)
    member.command("add")(member_add)
    member.command("list")(member_list)
    key = typer.Typer(help="API keys.", no_args_is_help=True)
    key.command("create")(key_create)
    key.command("list")(key_list)
    key.command("revoke")(key_revoke)
    for name, group in (("org", org), ("account", account), ("member", member), ("key", key)):
        app.add_typer(group, name=name)


def gflop_of(degrees: str) -> int:
    """A decimal number of degrees in whole GFLOP, rounded down. Raises `Failure` for no number."""
    try:
        gflop = Decimal(degrees) * GFLOP_PER_DEGREE
        whole = int(gflop)
    except (InvalidOperation, ValueError, OverflowError):
        raise _bad_degrees(degrees) from None
    if not 0 <= whole <= _GFLOP_MAX:
        raise _bad_degrees(degrees)
    return whole


def _bad_degrees(text: str) -> Failure:
    return usage("bad_degrees", f"{text!r} is no number of degrees", "write it like 1.5")


def org_create(ctx: typer.Context, name: str, as_json: Json = False, data: Data = None) -> None:
    """A new organisation with its root account."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.post("/v1/orgs", {"name": name}), render.made)


def org_list(ctx: typer.Context, as_json: Json = False, data: Data = None) -> None:
    """The organisations you may see."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.get("/v1/orgs"), render.items)


def account_create(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(help="ORGANISATION/NAME")],
    pooled: Annotated[
        bool, typer.Option("--pooled", help="No wallet of its own: pay from the one above.")
    ] = False,
    degrees: Degrees = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """A new account below an existing one; --degrees sets a budget."""
    with command(ctx, as_json, data) as s:
        budget = None if degrees is None else gflop_of(degrees)
        body = {"path": path, "pooled": pooled, "budget_gflop": budget}
        s.show(s.client.post("/v1/accounts", body), render.made)


def account_list(ctx: typer.Context, as_json: Json = False, data: Data = None) -> None:
    """The accounts you may read."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.get("/v1/accounts"), render.items)


def account_budget(
    ctx: typer.Context,
    path: str,
    degrees: Degrees = None,
    none: Annotated[bool, typer.Option("--none", help="Lift the ceiling.")] = False,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """What an account and all below it may spend from now on."""
    with command(ctx, as_json, data) as s:
        if (degrees is None) == (not none):
            raise usage("which_budget", "give either --degrees N or --none")
        budget = None if degrees is None else gflop_of(degrees)
        body = {"path": path, "budget_gflop": budget}
        s.show(s.client.post("/v1/accounts/budget", body), render.made)


def account_quota(
    ctx: typer.Context,
    path: str,
    devices: Annotated[
        int | None, typer.Option(min=0, help="Devices that are guaranteed to it and all below.")
    ] = None,
    borrow: Annotated[
        int | None, typer.Option(min=0, help="How many more it may use of what is idle.")
    ] = None,
    lend: Annotated[
        int | None, typer.Option(min=0, help="How many of its own others may use while idle.")
    ] = None,
    weight: Annotated[float, typer.Option(min=1e-6, help="Its part among its siblings.")] = 1.0,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Guarantee an account and all below it a part of the pool. For the operator."""
    with command(ctx, as_json, data) as s:
        limits = {"quota": devices, "borrow": borrow, "lend": lend}
        body = {"path": path, **limits, "weight": weight}
        s.show(s.client.post("/v1/accounts/quota", body), render.made)


def member_add(
    ctx: typer.Context,
    name: str,
    account: AccountOption = None,
    role: Annotated[str, typer.Option(help="auditor, member, admin or owner.")] = "member",
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Give a person a role on an account and all below it."""
    with command(ctx, as_json, data) as s:
        body = {"name": name, "account": s.account(account), "role": role}
        s.show(s.client.post("/v1/members", body), render.made)


def member_list(
    ctx: typer.Context, account: AccountOption = None, as_json: Json = False, data: Data = None
) -> None:
    """The members of an account's organisation."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.get("/v1/members", account=s.account(account)), render.members)


def key_create(
    ctx: typer.Context,
    member: str,
    org: Annotated[str | None, typer.Option("--org", help="The organisation.")] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", help="Such as 30d, or 2027-01-31T00:00:00Z.")
    ] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """A new API key for a member. It is shown once."""
    with command(ctx, as_json, data) as s:
        body = {"org": org or _only_org(s), "member": member, **_end(expires)}
        s.show(s.client.ask("/v1/keys", body), render.made)


def _end(expires: str | None) -> dict[str, object]:
    """When a key ends, as the API takes it: after a duration, or at a moment."""
    if expires is None or _MOMENT.match(expires):
        return {"expires_at": expires}
    lasts_s = duration_s(expires, _KEY_S_MAX)
    if isinstance(lasts_s, float) and lasts_s >= 1:
        return {"expires_in_s": int(lasts_s)}
    text = f"{expires!r} does not say when the key ends"
    raise usage("bad_expiry", text, "write it like 30d, 12h or 2027-01-31T00:00:00Z")


def key_list(
    ctx: typer.Context,
    org: Annotated[str | None, typer.Option("--org", help="The organisation.")] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """The keys there are, without their secrets: yours, or those of all you manage."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.get("/v1/keys", org=org), render.keys)


def _only_org(session: Session) -> str:
    paths = [item["path"] for item in session.client.get("/v1/orgs")["items"]]
    if len(paths) == 1:
        return str(paths[0])
    listed = ", ".join(paths[:20]) or "none yet: dusuan org create NAME"
    raise usage("which_org", f"which organisation? There are: {listed}", "name one with --org")


def key_revoke(
    ctx: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Revoke a key, at once."""
    with command(ctx, as_json, data) as s:
        s.show(s.client.delete(f"/v1/keys/{quoted(key_id)}"), render.made)


def quoted(part: str) -> str:
    """One part of a path, whatever it holds."""
    return quote(part, safe="")
