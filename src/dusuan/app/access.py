"""Who may do what: keys, actors, roles, and the rule that other organisations do not exist."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dusuan.app.context import Platform, Refused, refuse
from dusuan.store.database import Tx
from dusuan.store.rows import Account, Job, Key, Role


class Need(StrEnum):
    """What an action needs of its actor."""

    READ = "read"
    SUBMIT = "submit"
    MANAGE = "manage"
    BUY = "buy"


_GRANTS = {
    "auditor": {Need.READ},
    "member": {Need.READ, Need.SUBMIT},
    "admin": {Need.READ, Need.SUBMIT, Need.MANAGE},
    "owner": {Need.READ, Need.SUBMIT, Need.MANAGE, Need.BUY},
}
ROLES = tuple(_GRANTS)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: an operator of the centre (`member_id` None) or a member of one organisation."""

    key_id: str
    member_id: str | None
    org_id: str | None

    @property
    def operator(self) -> bool:
        """Whether this is the centre's own operator."""
        return self.member_id is None


def hash_key(key: str) -> bytes:
    """What is stored of a key. Keys are 256 random bits, so a plain hash cannot be searched."""
    return hashlib.sha256(key.encode()).digest()


def authenticate(platform: Platform, key: str) -> Actor:
    """The actor behind `key`. Raises `Refused` for a key that is unknown, expired or revoked."""
    with platform.store.transaction() as tx:
        row = tx.one(Key, "key_by_hash", hash=hash_key(key))
    if row is None:
        raise refuse(
            "unauthenticated", "unknown_key", "this API key is not known", "check DUSUAN_API_KEY"
        )
    _check_alive(row, platform.now())
    return Actor(row.id, row.member_id, row.org_id)


def _check_alive(key: Key, now: datetime) -> None:
    ask = "ask an owner or admin of your organisation for a new one: dusuan key create"
    if key.revoked_at is not None:
        raise refuse("unauthenticated", "revoked_key", f"the API key {key.hint} was revoked", ask)
    if key.expires_at is not None and key.expires_at <= now:
        when = key.expires_at.isoformat(timespec="seconds")
        raise refuse(
            "unauthenticated", "expired_key", f"the API key {key.hint} expired {when}", ask
        )


def no_account(path: str) -> Refused:
    """There is no such account, or not for this actor: the two read the same."""
    return refuse(
        "not_found",
        "no_account",
        f"there is no account {path!r}",
        "dusuan account list shows yours",
    )


def account_for(tx: Tx, actor: Actor, path: str, need: Need) -> Account:
    """The account at `path`, when `actor` may do what it `need`s there.

    Raises `Refused` not_found when the actor may not even see it, forbidden when it may see it
    but its role does not grant the action.
    """
    account = tx.one(Account, "account_by_path", path=path)
    if account is None:
        raise no_account(path)
    return _allowed(tx, actor, account, need)


def _allowed(tx: Tx, actor: Actor, account: Account, need: Need) -> Account:
    if actor.operator:
        return account
    granted = _granted(tx, actor, account)
    if Need.READ not in granted:
        raise no_account(account.path)
    if need not in granted:
        raise refuse(
            "forbidden",
            "role_lacks",
            f"your role on {account.path} does not allow to {need.value}",
            "ask an owner of the organisation",
        )
    return account


def _granted(tx: Tx, actor: Actor, account: Account) -> set[Need]:
    if account.org_id != actor.org_id:
        return set()
    roles = tx.all(Role, "roles_of_member", member_id=actor.member_id)
    here = [r.role for r in roles if r.account_id in account.lineage]
    return {need for role in here for need in _GRANTS[role]}


def visible_accounts(tx: Tx, actor: Actor) -> list[Account]:
    """Every account that `actor` may read, by path."""
    accounts = tx.all(Account, "accounts_of_org", org_id=actor.org_id)
    if actor.operator:
        return accounts
    roles = {r.account_id for r in tx.all(Role, "roles_of_member", member_id=actor.member_id)}
    return [a for a in accounts if roles.intersection(a.lineage)]


def job_for(tx: Tx, actor: Actor, job_id: str, need: Need) -> Job:
    """The job, when `actor` may do what it `need`s on its account. Raises `Refused` otherwise."""
    job = tx.one(Job, "job_by_id", id=job_id)
    if job is None:
        raise no_job(job_id)
    account = tx.one(Account, "account_by_id", id=job.account_id)
    if account is None:  # the foreign key forbids it
        raise no_job(job_id)
    try:
        _allowed(tx, actor, account, need)
    except Refused as refused:
        raise (no_job(job_id) if refused.kind == "not_found" else refused) from None
    return job


def no_job(job_id: str) -> Refused:
    """There is no such job, or not for this actor: the two read the same."""
    return refuse("not_found", "no_job", f"there is no job {job_id!r}", "dusuan jobs lists yours")


def operator_only(actor: Actor) -> None:
    """Raise `Refused` forbidden unless `actor` is the operator."""
    if not actor.operator:
        raise refuse(
            "forbidden",
            "operator_only",
            "only the operator of the centre may do this",
            "ask the operator",
        )
