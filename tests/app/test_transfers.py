"""Degrees moved between the wallets of one organisation keep their price, age and validity."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.app.conftest import Desk

from dusuan.app import jobs, tenants, wallets
from dusuan.app.access import Actor
from dusuan.app.context import Refused
from dusuan.sim.engine import Behaviour


def move(desk: Desk, path: str, to: str, gflop: int) -> dict[str, Any]:
    return dict(desk.call(wallets.transfer_degrees, path, to, gflop))


def refused(desk: Desk, path: str, to: str, gflop: int) -> str:
    before = [desk.wallet(p) for p in (path, to)]
    with pytest.raises(Refused) as error:
        move(desk, path, to, gflop)
    assert [desk.wallet(p) for p in (path, to)] == before
    return error.value.problem.code


def test_moved_degrees_keep_price_age_and_validity(desk: Desk) -> None:
    desk.account()
    desk.account("acme/lab")
    soon = desk.buy("acme", 100, fen=11, days=2)
    desk.buy("acme", 1_000, fen=500)
    moved = move(desk, "acme", "acme/lab", 450)
    one, two = desk.wallet("acme/lab")["lots"]
    assert [one["id"], two["id"]] == moved["lots"]
    assert (one["remaining_gflop"], one["paid_fen"]) == (100, 11)
    assert (two["remaining_gflop"], two["paid_fen"]) == (350, 175)
    bought = desk.sql(f"SELECT expires_at, created_at FROM lot WHERE id = '{soon}'")
    assert desk.sql(f"SELECT expires_at, created_at FROM lot WHERE id = '{one['id']}'") == bought
    assert desk.wallet()["balance_gflop"] == 650
    job = desk.submit("acme/lab", Behaviour(run_ms=4_500, ignores_signal=True))
    desk.run(6)
    assert desk.receipt(job)["charge_fen"] == 11 + 175
    desk.assert_clean()


def test_what_jobs_have_set_aside_stays(desk: Desk) -> None:
    desk.account(gflop=1_000)
    desk.account("acme/lab")
    desk.submit("acme")
    assert desk.wallet()["available_gflop"] == 600
    assert refused(desk, "acme", "acme/lab", 601) == "balance_too_small"
    move(desk, "acme", "acme/lab", 600)
    assert desk.wallet()["available_gflop"] == 0
    desk.run(10)
    assert desk.wallet()["balance_gflop"] == 300  # it ran its second out of what was set aside
    desk.assert_clean()


def test_what_has_expired_cannot_be_moved(desk: Desk) -> None:
    desk.account()
    desk.account("acme/lab")
    desk.buy("acme", 100, days=1)
    desk.buy("acme", 50)
    desk.world.advance(int(timedelta(days=1).total_seconds() * 1_000))
    assert refused(desk, "acme", "acme/lab", 51) == "balance_too_small"
    move(desk, "acme", "acme/lab", 50)
    desk.step(2)
    assert desk.wallet()["balance_gflop"] == 0
    desk.assert_clean()


def test_only_within_an_organisation_and_between_two_wallets(desk: Desk) -> None:
    desk.account(gflop=100)
    desk.account("other")
    desk.account("acme/pooled", pooled=True)
    assert refused(desk, "acme", "other", 1) == "other_organisation"
    assert refused(desk, "acme", "acme/pooled", 1) == "same_wallet"
    assert refused(desk, "acme", "acme", 1) == "same_wallet"
    assert refused(desk, "acme", "acme/pooled", 0) == "bad_amount"


def test_only_an_owner_gives_degrees_away(desk: Desk) -> None:
    desk.account(gflop=100)
    desk.account("acme/lab")
    org = desk.ask(tenants.list_orgs)[0]["id"]
    for role, code in (("admin", "role_lacks"), ("owner", None)):
        member = desk.call(tenants.add_member, role, "acme", role)["id"]
        actor = Actor("key", member, org)
        with desk.platform.store.transaction() as tx:
            if code is None:
                wallets.transfer_degrees(desk.platform, tx, actor, "acme", "acme/lab", 10)
                continue
            with pytest.raises(Refused) as error:
                wallets.transfer_degrees(desk.platform, tx, actor, "acme", "acme/lab", 10)
            assert error.value.problem.code == code
    assert desk.wallet("acme/lab")["balance_gflop"] == 10
    assert desk.look(jobs.listing, None, None, 10)["jobs"] == []
    desk.assert_clean()
