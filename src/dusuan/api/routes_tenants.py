"""Endpoints about organisations, accounts, members and keys."""

from __future__ import annotations

from typing import Annotated

from anyio import from_thread
from fastapi import APIRouter, Path, Query

from dusuan.api import models
from dusuan.api.call import Answer, Calling, IdempotencyKey
from dusuan.app import tenants

router = APIRouter(tags=["tenants"])


@router.get("/orgs", response_model=models.PathList, response_model_exclude_unset=True)
def list_orgs(call: Calling) -> Answer:
    """The organisations you may see."""
    return {"items": call.read(lambda tx: tenants.list_orgs(tx, call.actor))}


@router.post(
    "/orgs", status_code=201, response_model=models.Made, response_model_exclude_unset=True
)
def create_org(call: Calling, body: models.NewOrg, key: IdempotencyKey = None) -> Answer:
    """A new organisation with its root account. Operators only."""
    return call.once(
        key, body, lambda tx: tenants.create_org(call.platform, tx, call.actor, body.name)
    )


@router.get("/accounts", response_model=models.PathList, response_model_exclude_unset=True)
def list_accounts(call: Calling) -> Answer:
    """The accounts you may read."""
    return {"items": call.read(lambda tx: tenants.list_accounts(tx, call.actor))}


@router.post(
    "/accounts", status_code=201, response_model=models.Made, response_model_exclude_unset=True
)
def create_account(call: Calling, body: models.NewAccount, key: IdempotencyKey = None) -> Answer:
    """A new account below an existing one."""
    return call.once(
        key,
        body,
        lambda tx: tenants.create_account(
            call.platform,
            tx,
            call.actor,
            body.path,
            pooled=body.pooled,
            budget_gflop=body.budget_gflop,
        ),
    )


@router.post("/accounts/budget", response_model=models.Made, response_model_exclude_unset=True)
def set_budget(call: Calling, body: models.Budget, key: IdempotencyKey = None) -> Answer:
    """Set how much an account and all below it may spend from now on; null lifts the ceiling."""
    return call.once(
        key, body, lambda tx: tenants.set_budget(tx, call.actor, body.path, body.budget_gflop)
    )


@router.post("/accounts/quota", response_model=models.Made, response_model_exclude_unset=True)
def set_quota(call: Calling, body: models.Quota, key: IdempotencyKey = None) -> Answer:
    """Guarantee an account a part of the pool; what it may borrow, what it lends, its weight."""
    return call.once(
        key,
        body,
        lambda tx: tenants.set_quota(
            tx,
            call.actor,
            body.path,
            quota=body.quota,
            borrow=body.borrow,
            lend=body.lend,
            weight=body.weight,
        ),
    )


@router.get("/members", response_model=models.MemberList, response_model_exclude_unset=True)
def list_members(call: Calling, account: Annotated[models.Text, Query()]) -> Answer:
    """The members of an account's organisation, with their roles."""
    return {"items": call.read(lambda tx: tenants.list_members(tx, call.actor, account))}


@router.post(
    "/members", status_code=201, response_model=models.Made, response_model_exclude_unset=True
)
def add_member(call: Calling, body: models.NewMember, key: IdempotencyKey = None) -> Answer:
    """Give a person a role on an account and all below it."""
    return call.once(
        key,
        body,
        lambda tx: tenants.add_member(
            call.platform, tx, call.actor, body.name, body.account, body.role
        ),
    )


@router.get("/keys", response_model=models.KeyList, response_model_exclude_unset=True)
def list_keys(call: Calling, org: Annotated[models.Text | None, Query()] = None) -> Answer:
    """Your keys, or those of all you manage in an organisation; never a secret.

    For an operator without `org`: the centre's own.
    """
    now = call.platform.now()
    return {"items": call.read(lambda tx: tenants.list_keys(tx, call.actor, org, now))}


@router.post(
    "/keys", status_code=201, response_model=models.MadeKey, response_model_exclude_unset=True
)
def create_key(call: Calling, body: models.NewKey) -> Answer:
    """A new API key. It is in this answer and nowhere else, so no Idempotency-Key is kept."""
    return call.write(
        lambda tx: tenants.create_key(
            call.platform,
            tx,
            call.actor,
            body.org,
            body.member,
            expires_at=body.expires_at,
            expires_in_s=body.expires_in_s,
        )
    )


@router.delete("/keys/{key_id}", response_model=models.Made, response_model_exclude_unset=True)
def revoke_key(call: Calling, key_id: Annotated[models.Text, Path()]) -> Answer:
    """Revoke a key, at once."""
    answer = call.write(lambda tx: tenants.revoke_key(call.platform, tx, call.actor, key_id))
    from_thread.run_sync(call.door.forget_keys)  # in the loop, where the doorkeeper lives
    return answer
