"""Who may do what: keys, actors, roles, and the rule that other organisations do not exist."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dusuan.app.context import Refused, refuse
from dusuan.store.database import Look, Tx
from dusuan.store.rows import (
    Account,
    AccountSeen,
    Job,
    JobSeen,
    JobShown,
    Key,
    Role,
    WalletShown,
)


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


def find_key(key_hash: bytes) -> Look[Key]:
    """The key that was stored as `key_hash`. Raises `Refused` when there is none."""

    def answer(rows: list[Key]) -> Key:
        if not rows:
            ask = "check DUSUAN_API_KEY"
            raise refuse("unauthenticated", "unknown_key", "this API key is not known", ask)
        return rows[0]

    return Look("key_by_hash", {"hash": key_hash}, Key, answer)


def actor_of(key: Key, now: datetime) -> Actor:
    """Whom `key` speaks for. Raises `Refused` when it is expired or revoked."""
    _check_alive(key, now)
    return Actor(key.id, key.member_id, key.org_id)


def check_key(tx: Tx, actor: Actor, now: datetime) -> None:
    """Raise `Refused` when the actor's key was revoked, or has expired, since it was looked at."""
    key = tx.one(Key, "key_by_id", id=actor.key_id)
    if key is not None:  # an actor of the process itself has none
        _check_alive(key, now)


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
    account = tx.one(AccountSeen, "account_seen", path=path, member_id=actor.member_id)
    if account is None:
        raise no_account(path)
    check_account(actor, account, need)
    return account


def check_account(actor: Actor, account: AccountSeen | WalletShown, need: Need) -> None:
    """Raise as `account_for` does, about an account that is there."""
    granted = _granted(actor, account)
    if Need.READ not in granted:
        raise no_account(account.path)
    if need not in granted:
        raise _role_lacks(account.path, need)


def _role_lacks(path: str, need: Need) -> Refused:
    return refuse(
        "forbidden",
        "role_lacks",
        f"your role on {path} does not allow to {need.value}",
        "ask an owner of the organisation",
    )


def _granted(actor: Actor, seen: AccountSeen | WalletShown | JobSeen | JobShown) -> set[Need]:
    if actor.operator:
        return set(Need)
    if seen.org_id != actor.org_id:
        return set()
    return {need for role in seen.roles for need in _GRANTS[role]}


def visible_accounts(tx: Tx, actor: Actor) -> list[Account]:
    """Every account that `actor` may read, by path."""
    accounts = tx.all(Account, "accounts_of_org", org_id=actor.org_id)
    if actor.operator:
        return accounts
    roles = {r.account_id for r in tx.all(Role, "roles_of_member", member_id=actor.member_id)}
    return [a for a in accounts if roles.intersection(a.lineage)]


def job_for(tx: Tx, actor: Actor, job_id: str, need: Need) -> Job:
    """The job, when `actor` may do what it `need`s on its account. Raises `Refused` otherwise."""
    job = tx.one(JobSeen, "job_seen", id=job_id, member_id=actor.member_id)
    if job is None:
        raise no_job(job_id)
    check_job(actor, job, need)
    return job


def check_job(actor: Actor, job: JobSeen | JobShown, need: Need) -> None:
    """Raise as `job_for` does, about a job that is there."""
    granted = _granted(actor, job)
    if Need.READ not in granted:
        raise no_job(job.id)
    if need not in granted:
        raise _role_lacks(job.account_path, need)


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
