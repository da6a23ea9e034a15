"""Who may act on whom inside an organisation, and what does not exist for anybody outside it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.app.conftest import Desk

from dusuan.app import access, jobs, quotes, tenants, wallets
from dusuan.app.access import Actor
from dusuan.app.context import Refused
from dusuan.sim.engine import Behaviour


def person(desk: Desk, name: str, role: str, path: str = "acme") -> Actor:
    """A member with a role, as their key says."""
    desk.call(tenants.add_member, name, path, role)
    key = desk.call(tenants.create_key, path.partition("/")[0], name)["key"]
    return access.actor_of(
        desk.platform.store.read(lambda tx: tx.look(access.find_key(access.hash_key(key)))),
        desk.platform.now(),
    )


def do(desk: Desk, actor: Actor, verb: Any, *args: Any, **keys: Any) -> Any:
    """A verb as `actor`."""
    with desk.platform.store.transaction() as tx:
        return verb(desk.platform, tx, actor, *args, **keys)


def refused(desk: Desk, actor: Actor, verb: Any, *args: Any) -> str:
    with pytest.raises(Refused) as caught:
        do(desk, actor, verb, *args)
    return caught.value.kind


def test_an_admin_does_not_act_as_or_on_an_owner(desk: Desk) -> None:
    desk.account()
    owner, admin = person(desk, "olga", "owner"), person(desk, "adam", "admin")
    assert refused(desk, admin, tenants.create_key, "acme", "olga") == "forbidden"
    assert refused(desk, admin, tenants.revoke_key, owner.key_id) == "forbidden"
    assert refused(desk, admin, tenants.add_member, "olga", "acme", "auditor") == "forbidden"
    assert refused(desk, admin, tenants.add_member, "adam", "acme", "owner") == "forbidden"
    do(desk, admin, tenants.add_member, "mina", "acme", "member")
    do(desk, admin, tenants.create_key, "acme", "mina")
    do(desk, admin, tenants.create_key, "acme", "adam")
    do(desk, owner, tenants.create_key, "acme", "olga")
    do(desk, owner, tenants.revoke_key, admin.key_id)
    do(desk, owner, tenants.add_member, "olga", "acme", "auditor")


def test_another_organisation_does_not_exist(desk: Desk) -> None:
    desk.account(gflop=10_000)
    desk.account("bolt", gflop=10_000)
    job = desk.submit("acme", Behaviour(run_ms=None))
    quote = desk.call(quotes.create, "acme", '{"name": "j", "argv": ["x"]}')["quote_id"]
    stranger = person(desk, "bob", "owner", "bolt")
    for verb, *args in (
        (jobs.cancel, job),
        (jobs.submit, "acme", '{"name": "j", "argv": ["x"]}'),
        (jobs.submit_plan, quote, None),
        (wallets.buy_package, "acme", "made-to-measure"),
        (tenants.create_account, "acme/lab"),
        (tenants.add_member, "bob", "acme", "owner"),
        (tenants.create_key, "acme", "bob"),
        (lambda _p, tx, actor, path: tenants.set_budget(tx, actor, path, 1), "acme"),
        (lambda _p, tx, actor, path: tx.look(wallets.wallet(actor, path)), "acme"),
        (lambda _p, tx, actor, name: tx.look(jobs.show(actor, name)), job),
    ):
        assert refused(desk, stranger, verb, *args) == "not_found"
    assert (
        do(desk, stranger, lambda _p, tx, a: tx.look(jobs.listing(a, None, None, 9)))["jobs"] == []
    )


def test_a_job_that_names_nothing_is_given_what_can_run(desk: Desk) -> None:
    desk.account(gflop=10_000)
    desk.sql("UPDATE device SET model = 'Gone', state = 'down' WHERE device = 'cpu:0'")
    job = desk.submit("acme", Behaviour(run_ms=1_000))
    desk.run(3)
    assert desk.state(job) == "succeeded"
