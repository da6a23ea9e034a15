"""Organisations, accounts, members and keys."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from dusuan.app.access import (
    ROLES,
    Actor,
    Need,
    account_for,
    hash_key,
    no_account,
    operator_only,
    visible_accounts,
)
from dusuan.app.context import Platform, Refused, refuse
from dusuan.store.database import Tx
from dusuan.store.rows import Account, Id, Key, LedgerAccount, Member, Org, Role

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def _checked_name(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise refuse(
            "invalid",
            "bad_name",
            f"{name!r} cannot be the name of {what}",
            "use 1 to 63 of a-z, 0-9, - and _, beginning with a letter or digit",
        )
    return name


def create_org(platform: Platform, tx: Tx, actor: Actor, name: str) -> dict[str, Any]:
    """A new organisation and its root account, which bears its name. Operators only."""
    operator_only(actor)
    _checked_name(name, "an organisation")
    if name == "house":
        raise refuse("invalid", "bad_name", "'house' is the centre's own name in the ledger")
    now, org_id = platform.now(), platform.new_id("org")
    if not tx.run("org_insert", id=org_id, name=name, now=now):
        raise refuse("conflict", "org_exists", f"the organisation {name!r} exists already")
    account = _insert_account(platform, tx, org_id, None, name, now, pooled=False, budget=None)
    return {"id": org_id, "path": name, "account_id": account}


def list_orgs(tx: Tx, actor: Actor) -> list[dict[str, Any]]:
    """The organisations that exist for `actor`."""
    return [{"id": o.id, "path": o.name} for o in tx.all(Org, "org_list", org_id=actor.org_id)]


def create_account(
    platform: Platform,
    tx: Tx,
    actor: Actor,
    path: str,
    *,
    pooled: bool = False,
    budget_gflop: int | None = None,
) -> dict[str, Any]:
    """A new account below an existing one.

    `pooled`: it has no wallet of its own and pays from its parent's. `budget_gflop`: a ceiling on
    what it and all accounts below it may spend.
    """
    parent_path, _, name = path.rpartition("/")
    if not parent_path:
        raise refuse(
            "invalid",
            "no_parent",
            f"{path!r} names no parent account",
            "write ORGANISATION/NAME; an organisation's first account comes with it: org create",
        )
    parent = account_for(tx, actor, parent_path, Need.MANAGE)
    _checked_name(name, "an account")
    if tx.one(Account, "account_by_path", path=path) is not None:
        raise refuse("conflict", "account_exists", f"the account {path!r} exists already")
    now = platform.now()
    account_id = _insert_account(
        platform, tx, parent.org_id, parent, path, now, pooled=pooled, budget=budget_gflop
    )
    return {"id": account_id, "path": path}


def _insert_account(
    platform: Platform,
    tx: Tx,
    org_id: str,
    parent: Account | None,
    path: str,
    now: datetime,
    *,
    pooled: bool,
    budget: int | None,
) -> str:
    account_id = platform.new_id("acc")
    spend = _ledger_account(
        tx, f"{path}:spend", "gflop", rollup=True, floor=None if budget is None else -budget
    )
    if pooled and parent is not None:
        wallet, cash = parent.wallet_id, parent.cash_id
    else:
        wallet = _ledger_account(tx, f"{path}:wallet", "gflop", rollup=False, floor=0)
        cash = _ledger_account(tx, f"{path}:cash", "fen", rollup=False, floor=0)
    tx.run(
        "account_insert",
        id=account_id,
        org_id=org_id,
        parent_id=parent.id if parent else None,
        path=path,
        lineage=[account_id, *(parent.lineage if parent else [])],
        wallet_id=wallet,
        cash_id=cash,
        spend_id=spend,
        limit_ids=[spend, *(parent.limit_ids if parent else [])],
        now=now,
    )
    return account_id


def _ledger_account(tx: Tx, path: str, unit: str, *, rollup: bool, floor: int | None) -> int:
    row = tx.one(Id, "ledger_account_insert", path=path, unit=unit, rollup=rollup, floor=floor)
    if row is None:  # INSERT … RETURNING always returns
        raise RuntimeError(f"no ledger account was made for {path}")
    return row.id


def set_quota(
    tx: Tx,
    actor: Actor,
    path: str,
    *,
    quota: int | None,
    borrow: int | None,
    lend: int | None = None,
    weight: float,
) -> dict[str, Any]:
    """What an account and all below it may use of the pool, in whole devices. Operators only.

    `quota` is guaranteed: others that borrow give it back when it is asked for. `borrow`: how much
    more it may use of what is idle; `lend`: how much of its quota others may use while it is. None:
    no limit, and no guarantee. `weight`: its part of what is shared out among its siblings.
    """
    operator_only(actor)
    account = account_for(tx, actor, path, Need.READ)
    share = {"quota": quota, "borrow": borrow, "lend": lend, "weight": weight}
    tx.run("share_set", account_id=account.id, **share)
    tx.wake()
    return {"id": account.id, "path": path, **share}


def set_budget(tx: Tx, actor: Actor, path: str, budget_gflop: int | None) -> dict[str, Any]:
    """From now on, `path` and all below may spend `budget_gflop` more; None lifts the ceiling.

    Whoever manages the account above may set it (of an organisation: the operator), so that
    nobody raises their own ceiling.
    """
    account = account_for(tx, actor, path, Need.READ)
    if account.parent_id is None:
        operator_only(actor)
    else:
        account_for(tx, actor, path.rpartition("/")[0], Need.MANAGE)
    rows = tx.all(LedgerAccount, "balances_lock", ids=[account.spend_id])
    spent, pending = int(rows[0].posted_dr), int(rows[0].pending_dr)
    if budget_gflop is not None and budget_gflop < pending:
        raise refuse(
            "conflict",
            "budget_below_holds",
            f"{pending} GFLOP are set aside for jobs below {path} now",
            "set a higher budget, or cancel jobs first",
        )
    floor = None if budget_gflop is None else -(spent + budget_gflop)
    tx.run("floor_set", id=account.spend_id, floor=floor)
    tx.wake()
    return {"id": account.id, "path": path, "budget_gflop": budget_gflop}


def list_accounts(tx: Tx, actor: Actor) -> list[dict[str, Any]]:
    """The accounts that `actor` may read."""
    return [{"id": a.id, "path": a.path} for a in visible_accounts(tx, actor)]


def add_member(
    platform: Platform, tx: Tx, actor: Actor, name: str, path: str, role: str
) -> dict[str, Any]:
    """Give the person `name` a `role` on the account `path` and all below it.

    Only an owner (or the operator) may make owners, or make an owner something else.
    """
    if role not in ROLES:
        raise refuse(
            "invalid", "bad_role", f"there is no role {role!r}", f"one of {', '.join(ROLES)}"
        )
    need = Need.BUY if role == "owner" else Need.MANAGE
    account = account_for(tx, actor, path, need)
    _checked_name(name, "a member")
    tx.run(
        "member_insert",
        id=platform.new_id("mem"),
        org_id=account.org_id,
        name=name,
        now=platform.now(),
    )
    member = _member(tx, account.org_id, name)
    if _is_owner(tx, member.id, account.id):
        account_for(tx, actor, path, Need.BUY)
    tx.run("role_upsert", member_id=member.id, account_id=account.id, role=role)
    return {"id": member.id, "path": f"{path}:{name}", "name": name, "role": role}


def _member(tx: Tx, org_id: str, name: str) -> Member:
    member = tx.one(Member, "member_by_name", org_id=org_id, name=name)
    if member is None:
        raise refuse("not_found", "no_member", f"there is no member {name!r}", "dusuan member add")
    return member


def _is_owner(tx: Tx, member_id: str, account_id: str | None = None) -> bool:
    """Whether the member owns the account; with None, whether it owns any."""
    roles = tx.all(Role, "roles_of_member", member_id=member_id)
    return any(r.role == "owner" and account_id in (None, r.account_id) for r in roles)


def _may_act_for(tx: Tx, actor: Actor, member_id: str, root: str) -> None:
    """Raise `Refused` unless `actor` may make or revoke keys of the member.

    Everyone their own; who manages the organisation, everyone's; but only an owner an owner's,
    since a key lends all rights of its member.
    """
    if member_id != actor.member_id:
        need = Need.BUY if _is_owner(tx, member_id) else Need.MANAGE
        account_for(tx, actor, root, need)


def list_members(tx: Tx, actor: Actor, path: str) -> list[dict[str, Any]]:
    """The members of the organisation of `path`, with their roles."""
    account = account_for(tx, actor, path.partition("/")[0], Need.READ)
    return [
        {"id": row["id"], "name": row["name"], "roles": row["roles"] or []}
        for row in tx.dicts("members_of_org", org_id=account.org_id)
    ]


def create_key(
    platform: Platform,
    tx: Tx,
    actor: Actor,
    org: str,
    member_name: str,
    *,
    expires_at: datetime | None = None,
    expires_in_s: int | None = None,
) -> dict[str, Any]:
    """A new key for a member of `org`. The key is in this answer and nowhere else.

    A member makes keys for itself, those who manage the organisation for everyone in it, and
    only owners for owners.
    """
    root = _org_account(tx, actor, org)
    member = _member(tx, root.org_id, member_name)
    _may_act_for(tx, actor, member.id, root.path)
    ends = _key_end(platform.now(), expires_at, expires_in_s)
    return issue_key(platform, tx, member.id, ends)


def _key_end(now: datetime, at: datetime | None, in_s: int | None) -> datetime | None:
    """When a new key ends. Raises `Refused` for two answers, or one that has passed."""
    if at is not None and in_s is not None:
        text = "both `expires_at` and `expires_in_s` say when the key ends"
        raise refuse("invalid", "two_ends", text, "give one of them")
    if at is not None and at <= now:
        raise refuse("invalid", "already_expired", "the key would be expired already")
    return now + timedelta(seconds=in_s) if in_s is not None else at


def list_keys(tx: Tx, actor: Actor, org: str | None, now: datetime) -> list[dict[str, Any]]:
    """Keys without their secrets, newest first.

    Who manages the organisation sees everyone's, others their own; an operator who names no
    organisation sees the centre's.
    """
    if org is None and not actor.operator:
        org = next(o.name for o in tx.all(Org, "org_list", org_id=actor.org_id))
    root = None if org is None else _org_account(tx, actor, org)
    org_id = None if root is None else root.org_id
    own = None if actor.operator or _manages(tx, actor, org) else actor.member_id
    return [_key_view(row, now) for row in tx.dicts("keys_listed", org_id=org_id, member_id=own)]


def _manages(tx: Tx, actor: Actor, org: str | None) -> bool:
    try:
        account_for(tx, actor, org or "", Need.MANAGE)
    except Refused:
        return False
    return True


def _key_view(row: dict[str, Any], now: datetime) -> dict[str, Any]:
    ends = row["expires_at"]
    over = "expired" if ends is not None and ends <= now else "valid"
    moments = ("created_at", "expires_at", "revoked_at")
    return {
        "id": row["id"],
        "member": row["member"],
        "hint": row["hint"],
        "state": over if row["revoked_at"] is None else "revoked",
        **{name: None if row[name] is None else row[name].isoformat() for name in moments},
    }


def _org_account(tx: Tx, actor: Actor, org: str) -> Account:
    root = tx.one(Account, "account_by_path", path=org)
    if root is None or (not actor.operator and root.org_id != actor.org_id):
        raise no_account(org)
    return root


def issue_key(
    platform: Platform, tx: Tx, member_id: str | None, expires_at: datetime | None
) -> dict[str, Any]:
    """Make a key; `member_id` None makes an operator's. The caller has checked who asks."""
    key_id, key = platform.new_id("key"), "dk_" + platform.new_secret()
    tx.run(
        "key_insert",
        id=key_id,
        member_id=member_id,
        hash=hash_key(key),
        hint=key[:7] + "…",
        now=platform.now(),
        expires_at=expires_at,
    )
    expires = None if expires_at is None else expires_at.isoformat()
    return {"id": key_id, "path": key_id, "key": key, "expires_at": expires}


def revoke_key(platform: Platform, tx: Tx, actor: Actor, key_id: str) -> dict[str, Any]:
    """Revoke a key: one's own, or one of the organisation one manages."""
    key = tx.one(Key, "key_by_id", id=key_id)
    missing = refuse("not_found", "no_key", f"there is no key {key_id!r}")
    if key is None or (not actor.operator and key.org_id != actor.org_id):
        raise missing
    if not actor.operator and key.member_id is not None:
        org = next(o for o in tx.all(Org, "org_list", org_id=actor.org_id))
        _may_act_for(tx, actor, key.member_id, org.name)
    tx.run("key_revoke", id=key_id, now=platform.now())
    return {"id": key_id, "path": key_id, "revoked": True}
