"""Packages on sale, payments, purchases, and what an account has left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dusuan.app.access import (
    Actor,
    Need,
    account_for,
    check_account,
    no_account,
    operator_only,
)
from dusuan.app.context import Platform, refuse
from dusuan.core import units
from dusuan.core.ledger.balances import Balance, Balances
from dusuan.core.ledger.lots import LotBook
from dusuan.core.ledger.postings import Draft
from dusuan.core.ledger.purchases import Package, buy, receive_payment
from dusuan.core.ledger.tick import lapse
from dusuan.core.ledger.transfers import move
from dusuan.store import ledger
from dusuan.store.database import Look, Tx
from dusuan.store.rows import Account, LotRow, PackageRow, WalletShown

DEMO_PACK = Package("pkg_demo", "demo-pack", 20_000, 2_000, 365, 100)


def create_package(
    platform: Platform,
    tx: Tx,
    actor: Actor,
    name: str,
    gflop: int,
    price_fen: int,
    valid_days: int | None,
    priority: int = 100,
) -> dict[str, Any]:
    """Put a package on sale. An existing one of the name is replaced: its price version ends."""
    operator_only(actor)
    if gflop <= 0 or price_fen < 0 or (valid_days is not None and valid_days <= 0):
        raise refuse(
            "invalid", "bad_package", "a package has degrees, and no negative price or term"
        )
    now, package_id = platform.now(), platform.new_id("pkg")
    tx.run("package_withdraw", name=name, now=now)
    package = Package(package_id, name, gflop, price_fen, valid_days, priority)
    if not _insert(platform, tx, package):
        text = f"the package {name!r} was put on sale by somebody else at the same moment"
        raise refuse("conflict", "package_exists", text, "look at it: dusuan package list")
    return _package_view(package)


def seed_packages(platform: Platform, tx: Tx) -> None:
    """What a new platform has on sale, so that it can be tried at once."""
    _insert(platform, tx, DEMO_PACK)


def _insert(platform: Platform, tx: Tx, package: Package) -> bool:
    """Whether it is on sale now; not when one of its name is already."""
    return (
        tx.run(
            "package_insert",
            id=package.package_id,
            name=package.name,
            gflop=package.gflop,
            price_fen=package.price_fen,
            valid_days=package.valid_days,
            priority=package.priority,
            now=platform.now(),
        )
        > 0
    )


def list_packages(tx: Tx) -> list[dict[str, Any]]:
    """What is on sale, cheapest first."""
    return [_package_view(_package(row)) for row in tx.all(PackageRow, "packages_on_sale")]


def _package(row: PackageRow) -> Package:
    return Package(row.id, row.name, row.gflop, row.price_fen, row.valid_days, row.priority)


def _package_view(package: Package) -> dict[str, Any]:
    return {
        "id": package.package_id,
        "name": package.name,
        "gflop": package.gflop,
        "degrees": units.degrees_text(package.gflop),
        "price_fen": package.price_fen,
        "valid_days": package.valid_days,
    }


def record_payment(
    platform: Platform, tx: Tx, actor: Actor, path: str, fen: int, reference: str
) -> dict[str, Any]:
    """Money received from a customer, outside dusuan. Operators only."""
    operator_only(actor)
    if fen <= 0:
        raise refuse("invalid", "bad_amount", "a payment is a positive number of fen")
    account = account_for(tx, actor, path, Need.READ)
    ledger.lock_balances(tx, [account.cash_id])
    draft = receive_payment(account.cash_id, fen, ledger.load_house(tx))
    transfer_id = platform.new_id("trf")
    note = {"account": path, "reference": reference}
    ledger.post(tx, transfer_id, "payment", draft, platform.now(), note)
    return {"id": transfer_id, "path": path, "fen": fen}


def buy_package(platform: Platform, tx: Tx, actor: Actor, path: str, name: str) -> dict[str, Any]:
    """Buy a package into the wallet that `path` pays from.

    A member pays from the account's cash balance. When the operator buys, the money is taken as
    received outside. Raises `Refused` insufficient when the cash does not reach.
    """
    account = account_for(tx, actor, path, Need.BUY)
    row = tx.one(PackageRow, "package_by_name", name=name)
    if row is None:
        raise refuse(
            "not_found", "no_package", f"no package {name!r} is on sale", "dusuan package list"
        )
    if row.price_fen == 0:
        operator_only(actor)  # a grant is given, not taken
    house = ledger.load_house(tx)
    cash = ledger.lock_balances(tx, [account.cash_id, account.wallet_id])[account.cash_id]
    if not actor.operator and (cash.available or 0) < row.price_fen:
        raise _not_enough_cash(row, path, cash.available or 0)
    now, lot_id, transfer_id = platform.now(), platform.new_id("lot"), platform.new_id("trf")
    payer = house.bank if actor.operator else account.cash_id
    purchase = buy(_package(row), lot_id, account.wallet_id, payer, house, ledger.unix_ms(now))
    note = {"account": path, "package": row.id, "by": actor.member_id or "operator"}
    ledger.post(tx, transfer_id, "purchase", purchase.draft, now, note)
    lot = purchase.lot
    tx.run(
        "lot_insert",
        id=lot_id,
        wallet_id=lot.wallet,
        transfer_id=transfer_id,
        package_id=row.id,
        kind="grant" if lot.granted else "package",
        initial_gflop=lot.initial_gflop,
        paid_fen=lot.paid_fen,
        priority=lot.priority,
        granted=lot.granted,
        now=now,
        expires_at=None if lot.expires_ms is None else ledger.from_unix_ms(lot.expires_ms),
    )
    tx.wake()
    view = tx.look(wallet(actor, path))
    return {"id": lot_id, "path": path, **view}


def transfer_degrees(
    platform: Platform, tx: Tx, actor: Actor, path: str, to_path: str, gflop: int
) -> dict[str, Any]:
    """Move degrees from the wallet of `path` to that of `to_path`, inside one organisation.

    Those that would burn first go first, and keep their price and validity. Raises `Refused`
    insufficient when less is available: what jobs have set aside stays.
    """
    if gflop <= 0:
        raise refuse("invalid", "bad_amount", "a transfer is a positive number of degrees")
    account = account_for(tx, actor, path, Need.BUY)
    target = account_for(tx, actor, to_path, Need.READ)
    _check_pair(account, target)
    balances = Balances(ledger.lock_balances(tx, [account.wallet_id, target.wallet_id]))
    book = lapse_wallet(platform, tx, account.wallet_id, balances)
    available = max(balances.left(account.wallet_id) or 0, 0)
    if available < gflop:
        raise _not_enough_degrees(account.path, gflop, available)
    decided = move(account.wallet_id, target.wallet_id, gflop, book)
    lots = [platform.new_id("lot") for _ in decided.uses]
    transfer_id = platform.new_id("trf")
    note = {"account": path, "to": to_path, "by": actor.member_id or "operator"}
    ledger.post(tx, transfer_id, "transfer", decided.draft, platform.now(), note)
    ledger.write_lots(tx, book.changed())
    ledger.write_move(tx, transfer_id, decided.uses, lots, target.wallet_id)
    tx.wake()
    return {"id": transfer_id, "path": path, "to": to_path, "gflop": gflop, "lots": lots}


def _check_pair(account: Account, target: Account) -> None:
    if account.org_id != target.org_id:
        raise refuse(
            "invalid",
            "other_organisation",
            f"{account.path} and {target.path} belong to different organisations",
            "degrees are sold to one organisation; the other one buys its own",
        )
    if account.wallet_id == target.wallet_id:
        raise refuse(
            "invalid",
            "same_wallet",
            f"{account.path} and {target.path} pay from the same wallet already",
        )


def _not_enough_degrees(path: str, gflop: int, available: int) -> Exception:
    return refuse(
        "insufficient",
        "balance_too_small",
        f"{path} has {units.degrees_text(available)} degrees that no job has set aside; "
        f"{units.degrees_text(gflop)} were to be moved",
        f"move less, or top up: dusuan package buy NAME --account {path}",
    )


def lapse_wallet(platform: Platform, tx: Tx, wallet: int, balances: Balances) -> LotBook:
    """Post what has expired in one wallet; `balances` (locked) is brought up to date.

    The wallet's lots as they are after it, for what the caller takes next.
    """
    now = platform.now()
    book, draft = LotBook(ledger.load_lots(tx, [wallet])), Draft()
    uses = lapse([wallet], balances, book, draft, ledger.load_house(tx), ledger.unix_ms(now))
    if uses:
        transfer_id = platform.new_id("trf")
        ledger.post(tx, transfer_id, "lapse", draft, now, {})
        ledger.write_lots(tx, book.changed())
        ledger.write_lot_uses(tx, transfer_id, [(None, use) for use in uses])
    return book


def _not_enough_cash(package: PackageRow, path: str, available: int) -> Exception:
    return refuse(
        "insufficient",
        "not_enough_cash",
        f"{package.name} costs {package.price_fen} fen; {path} has {available} fen",
        f"pay in first; the operator records it: dusuan cash add --account {path} --fen N",
    )


def wallet(actor: Actor, path: str) -> Look[dict[str, Any]]:
    """What the wallet that `path` pays from has. Raises as `account_for` does."""

    def answer(rows: list[WalletShown]) -> dict[str, Any]:
        if not rows:
            raise no_account(path)
        check_account(actor, rows[0], Need.READ)
        return _wallet_view(rows)

    params = {"path": path, "member_id": actor.member_id}
    return Look("wallet_shown", params, WalletShown, answer)


def _wallet_view(rows: Sequence[WalletShown]) -> dict[str, Any]:
    row = rows[0]
    gflop = _balance(row.posted_dr, row.posted_cr, row.pending_dr, row.floor)
    spend = _balance(row.spent_dr, row.spent_cr, row.spent_pending_dr, row.spent_floor)
    lots = {lot.id: lot for each in rows if (lot := each.lot) is not None}
    order = [lot.lot_id for lot in ledger.in_burn_order(lots.values())]
    return {
        "account": row.path,
        "wallet": row.wallet_path.removesuffix(":wallet"),
        "balance_gflop": gflop.posted,
        "available_gflop": gflop.available or 0,
        "available_degrees": units.degrees_text(gflop.available or 0),
        "pending_gflop": gflop.pending_dr,
        "cash_fen": int(row.cash_fen),
        "spent_gflop": spend.posted_dr,
        "budget_left_gflop": spend.available,
        "lots": [_lot_view(lots[lot_id]) for lot_id in order],
    }


def _balance(dr: int, cr: int, pending_dr: int, floor: int | None) -> Balance:
    """As the core reads it: the database's numbers may be decimals."""
    return Balance(int(dr), int(cr), int(pending_dr), None if floor is None else int(floor))


def _lot_view(lot: LotRow) -> dict[str, Any]:
    return {
        "id": lot.id,
        "kind": lot.kind,
        "remaining_gflop": lot.remaining_gflop,
        "initial_gflop": lot.initial_gflop,
        "paid_fen": lot.paid_fen,
        "expires_at": None if lot.expires_at is None else lot.expires_at.isoformat(),
    }
