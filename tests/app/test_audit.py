"""The audit finds every change made by hand, and names what it is about."""

from __future__ import annotations

import pytest
from tests.app.conftest import Desk

from dusuan.sim.engine import Behaviour

# statement -> a check that must fail, and what its subject must name
TAMPERINGS = {
    "UPDATE ledger_account SET posted_cr = posted_cr + 1 WHERE path = 'acme:wallet'": (
        "balances_equal_entries",
        "acme:wallet",
    ),
    "UPDATE ledger_account SET posted_dr = posted_dr - 1 WHERE path = 'acme:wallet'": (
        "lots_equal_wallets",
        "acme:wallet",
    ),
    "UPDATE ledger_account SET pending_dr = pending_dr + 1 WHERE path = 'acme:wallet'": (
        "pending_equals_open_holds",
        "acme:wallet",
    ),
    "UPDATE ledger_account SET posted_dr = posted_dr + 1 WHERE path = 'acme:spend'": (
        "ceilings_equal_usage",
        "acme:spend",
    ),
    "UPDATE ledger_account SET posted_cr = posted_cr + 1, posted_dr = posted_dr + 1"
    " WHERE path = 'house/revenue'": ("balances_equal_entries", "house/revenue"),
    "UPDATE entry SET dr = dr + 1 WHERE account_id ="
    " (SELECT wallet_id FROM account WHERE path = 'acme') AND dr > 0": (
        "debits_equal_credits",
        "acme:wallet",
    ),
    "DELETE FROM entry WHERE cr = 10000": ("balances_equal_entries", "acme:wallet"),
    "UPDATE entry SET dr = dr * 2, cr = cr * 2": ("balances_equal_entries", "acme:wallet"),
    "UPDATE usage SET to_ms = to_ms + 1 WHERE seq = 1": ("usage_tiles_attempts", "{job}"),
    "UPDATE usage SET from_ms = from_ms + 1 WHERE seq = 2": ("usage_tiles_attempts", "{job}"),
    "DELETE FROM usage WHERE seq = 1": ("usage_tiles_attempts", "{job}"),
    "DELETE FROM usage WHERE seq = (SELECT max(seq) FROM usage)": ("usage_tiles_attempts", "{job}"),
    "UPDATE usage SET held_gflop = held_gflop + 1, settled_gflop = settled_gflop + 1": (
        "usage_tiles_attempts",
        "{job}",
    ),
    "UPDATE usage SET settled_gflop = settled_gflop - 1, overrun_gflop = 1": (
        "usage_equals_lot_uses",
        "{job}",
    ),
    "UPDATE attempt SET held_ms = held_ms + 1": ("registers_are_metered", "{job}"),
    "UPDATE lot SET remaining_gflop = remaining_gflop - 1": ("lots_equal_wallets", "acme:wallet"),
    "UPDATE lot SET spent_fen = spent_fen + 1": ("lots_equal_uses", "acme:wallet"),
    "UPDATE lot SET paid_fen = paid_fen + 1": ("lots_equal_purchases", "acme:wallet"),
    "UPDATE lot_use SET fen = fen + 1": ("house_accounts_agree", "house/revenue"),
    "UPDATE lot_use SET gflop = gflop + 1": ("lots_equal_uses", "acme:wallet"),
    "DELETE FROM lot_use": ("usage_equals_lot_uses", "{job}"),
    "UPDATE hold SET settled_gflop = settled_gflop + 1 WHERE seq = 1": (
        "holds_resolve_once",
        "{job}",
    ),
    "DELETE FROM hold WHERE seq = 1": ("holds_resolve_once", "{job}"),
    "UPDATE hold SET resolved_at = NULL, settled_gflop = NULL"
    " WHERE seq = (SELECT max(seq) FROM hold)": ("jobs_have_their_holds", "{job}"),
    "UPDATE allocation SET device = 'cpu:0'": ("devices_are_not_shared", "cpu:0"),
    "UPDATE ledger_account SET floor = -1000000 WHERE path = 'acme:wallet'": (
        "no_balance_below_its_floor",
        "acme:wallet",
    ),
    "UPDATE ledger_account SET floor = NULL WHERE path = 'acme:cash'": (
        "no_balance_below_its_floor",
        "acme:cash",
    ),
    "DELETE FROM transfer WHERE kind = 'purchase'": ("debits_equal_credits", "is gone"),
    "UPDATE lot SET expires_at = now()": ("lots_equal_purchases", "acme:wallet"),
    "UPDATE usage SET settled_gflop = settled_gflop - 1, borne_gflop = 1 WHERE seq = 1": (
        "quotes_cap_bills",
        "{job}",
    ),
    "UPDATE ledger_account SET floor = 20000 WHERE path = 'acme:wallet'": (
        "no_balance_below_its_floor",
        "acme:wallet",
    ),
}


@pytest.mark.parametrize("statement", TAMPERINGS, ids=lambda s: s[:60])
def test_a_change_by_hand_is_found_and_named(desk: Desk, statement: str) -> None:
    desk.account(gflop=10_000, fen=1_000)
    job = desk.submit("acme", Behaviour(run_ms=9_000))
    other = desk.submit("acme", Behaviour(run_ms=9_000)) if "allocation" in statement else ""
    desk.run(12)
    desk.assert_clean()
    # A hand that may do anything: no triggers, no constraints.
    desk.sql("ALTER TABLE ledger_account DROP CONSTRAINT floor_holds")
    desk.sql("ALTER TABLE usage DROP CONSTRAINT usage_check, DROP CONSTRAINT usage_check1")
    desk.sql(f"SET session_replication_role = replica; {statement}")
    report = desk.audit()
    name, subject = TAMPERINGS[statement]
    failed = {check["name"]: check["subjects"] for check in report["checks"] if not check["ok"]}
    assert not report["ok"]
    assert name in failed, failed
    assert any(subject.format(job=job) in text for text in failed[name]), failed[name]
    assert other != job


def test_a_running_platform_is_clean_too(desk: Desk) -> None:
    desk.account(gflop=10_000, fen=1_000)
    desk.submit("acme", Behaviour(run_ms=None))
    desk.submit("acme", Behaviour(run_ms=None), resources={"accelerators": "cpu:2"})
    for _ in range(6):
        desk.run(0.7)
        desk.assert_clean()


@pytest.mark.parametrize("table", ["entry", "transfer"])
@pytest.mark.parametrize("verb", ["DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_what_was_posted_cannot_be_rewritten(desk: Desk, table: str, verb: str) -> None:
    desk.account(gflop=10_000)
    with pytest.raises(Exception, match="append-only"):
        desk.sql(verb.format(table))


def test_the_database_itself_refuses_a_balance_below_its_floor(desk: Desk) -> None:
    desk.account(gflop=100)
    with pytest.raises(Exception, match="floor_holds"):
        desk.sql("UPDATE ledger_account SET posted_dr = 101 WHERE path = 'acme:wallet'")
