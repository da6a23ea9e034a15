"""Loading what a ledger decision needs, and writing what it decided: a few statements, any size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from json import dumps
from typing import Any

from dusuan.core.ledger.balances import Balance, Delta
from dusuan.core.ledger.cover import Cover
from dusuan.core.ledger.lots import Lot, LotUse, burn_order
from dusuan.core.ledger.postings import Draft, House
from dusuan.core.ledger.tick import Claim, Outcome, Tick
from dusuan.store.database import Sent, Tx, json
from dusuan.store.rows import LedgerAccount, LotRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def unix_ms(moment: datetime) -> int:
    """`moment` (with zone) as whole milliseconds since 1970."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def from_unix_ms(ms: int) -> datetime:
    """The moment `ms` milliseconds after 1970, in UTC."""
    return _EPOCH + timedelta(milliseconds=ms)


@dataclass(frozen=True, slots=True)
class Promise:
    """What is promised to an attempt's shepherd now: the lease in force."""

    lease_seq: int
    lease_held_ms: int


def _claim(row: tuple[Any, ...]) -> tuple[Claim, Promise]:
    """A row of `claims`, column by column: there are tens of thousands of them."""
    job, attempt, seq, reserved, payer, limits = row[:6]
    rating, devices, grace_ms, usage_seq, metered_ms, held_ms, ended = row[6:13]
    lease_seq, lease_held_ms, cap_gflop, cap_fen, bears_gflop, until_ms = row[13:]
    cover = None
    if cap_gflop is not None:
        cover = Cover(cap_gflop, cap_fen, bears_gflop, until_ms, lease_held_ms)
    claim = Claim(
        job, attempt, seq, reserved, payer, tuple(limits),
        rating, devices, grace_ms, usage_seq, metered_ms, held_ms, ended, cover,
    )  # fmt: skip
    return claim, Promise(lease_seq, lease_held_ms)


def load_claims(tx: Tx, wallet: int | None = None) -> list[tuple[Claim, Promise]]:
    """Every attempt with something left to post, first started first, and its lease.

    With `wallet` (a ledger account) only those that it pays for.
    """
    return [_claim(row) for row in tx.tuples("claims", wallet=wallet)]


def lock_balances(tx: Tx, accounts: Iterable[int]) -> dict[int, Balance]:
    """The balances of `accounts`, locked until the transaction ends."""
    rows = tx.all(LedgerAccount, "balances_lock", ids=sorted(set(accounts)))
    return {row.id: as_balance(row) for row in rows}


def as_balance(row: LedgerAccount) -> Balance:
    """A ledger row as the core reads it."""
    floor = None if row.floor is None else int(row.floor)
    return Balance(int(row.posted_dr), int(row.posted_cr), int(row.pending_dr), floor)


def load_house(tx: Tx) -> House:
    """The centre's own ledger accounts."""
    rows = tx.all(LedgerAccount, "house_accounts")
    return House(**{row.path.removeprefix("house/"): row.id for row in rows})


def load_lots(tx: Tx, wallets: Iterable[int]) -> list[Lot]:
    """The open lots of `wallets`, whose balances the caller has locked."""
    return [_lot(row) for row in tx.all(LotRow, "lots_of_wallets", wallets=sorted(set(wallets)))]


def in_burn_order(rows: Iterable[LotRow]) -> list[Lot]:
    """Lots as the core sees them, in the order they will burn."""
    return burn_order(_lot(row) for row in rows)


def _lot(row: LotRow) -> Lot:
    return Lot(
        lot_id=row.id,
        wallet=row.wallet_id,
        initial_gflop=row.initial_gflop,
        remaining_gflop=row.remaining_gflop,
        paid_fen=row.paid_fen,
        spent_fen=row.spent_fen,
        priority=row.priority,
        granted=row.granted,
        created_ms=unix_ms(row.created_at),
        expires_ms=None if row.expires_at is None else unix_ms(row.expires_at),
    )


def apply_deltas(tx: Tx, deltas: Mapping[int, Delta]) -> None:
    """Change balances in one statement. The floor's CHECK refuses what no decision should ask."""
    ids = sorted(deltas)
    if not ids:
        return
    with tx.together():
        tx.send("balances_lock", ids=ids)
        tx.send(
            "balances_apply",
            ids=ids,
            dr=[deltas[i].dr for i in ids],
            cr=[deltas[i].cr for i in ids],
            pending=[deltas[i].pending for i in ids],
        )


def write_transfer(
    tx: Tx, transfer_id: str, kind: str, draft: Draft, now: datetime, note: Mapping[str, Any]
) -> None:
    """Write a transfer and its entries. Balances are the caller's to change, once per account."""
    entries = draft.entries()
    with tx.together():
        tx.send("transfer_insert", id=transfer_id, kind=kind, now=now, note=json(dict(note)))
        tx.send(
            "entries_insert",
            transfer_id=transfer_id,
            ids=[e.account for e in entries],
            dr=[e.dr for e in entries],
            cr=[e.cr for e in entries],
        )


@dataclass(frozen=True, slots=True)
class Posting:
    """A transfer to be written: its id, its kind, its entries, and a note on why."""

    transfer_id: str
    kind: str
    draft: Draft
    note: Mapping[str, Any]


def post(
    tx: Tx, transfer_id: str, kind: str, draft: Draft, now: datetime, note: Mapping[str, Any]
) -> None:
    """Write a transfer and apply it to the balances it names, in one round trip."""
    pair = draft.pair()
    if pair is None:
        post_all(tx, [Posting(transfer_id, kind, draft, note)], now)
        return
    debit, credit, amount = pair
    tx.send(
        "post_transfer",
        id=transfer_id,
        kind=kind,
        now=now,
        note=json(dict(note)),
        debit=debit,
        credit=credit,
        amount=amount,
    )


def post_all(tx: Tx, postings: Sequence[Posting], now: datetime) -> None:
    """Write any number of transfers in one round trip; each balance is changed once.

    Raises `psycopg.errors.IntegrityConstraintViolation` (and so rolls back) when one of them does
    not balance, or would take an account below its floor.
    """
    lines = [
        (place, account, dr, cr)
        for place, posting in enumerate(postings, start=1)
        for account, (dr, cr) in posting.draft.sums.items()
    ]
    tx.send(
        "post_transfers",
        ids=[p.transfer_id for p in postings],
        kinds=[p.kind for p in postings],
        now=now,
        notes=[dumps(dict(p.note)) if p.note else "{}" for p in postings],
        entry_of=[place for place, _, _, _ in lines],
        accounts=[account for _, account, _, _ in lines],
        drs=[dr for _, _, dr, _ in lines],
        crs=[cr for _, _, _, cr in lines],
    )


def write_lots(tx: Tx, lots: Sequence[Lot]) -> None:
    """Write what remains of lots that a decision took from."""
    tx.send(
        "lots_update",
        ids=[lot.lot_id for lot in lots],
        remaining=[lot.remaining_gflop for lot in lots],
        spent=[lot.spent_fen for lot in lots],
    )


def write_move(
    tx: Tx, transfer_id: str, uses: Sequence[LotUse], ids: Sequence[str], wallet: int
) -> None:
    """Write the lots `ids` that `uses` became in `wallet`, and that they left where they were."""
    tx.send(
        "lots_insert_moved",
        transfer_id=transfer_id,
        wallet_id=wallet,
        ids=list(ids),
        sources=[use.lot_id for use in uses],
        gflop=[use.gflop for use in uses],
        fen=[use.fen for use in uses],
    )
    write_lot_uses(tx, transfer_id, [(None, use) for use in uses], ids)


def write_lot_uses(
    tx: Tx,
    transfer_id: str,
    uses: Sequence[tuple[str | None, LotUse]],
    to_lots: Sequence[str] | None = None,
) -> None:
    """Write what was taken from lots: pairs of attempt id and use.

    Without an attempt it moved to the lot of `to_lots`, or, without those, it lapsed.
    """
    if not uses:
        return
    tx.send(
        "lot_uses_insert",
        transfer_id=transfer_id,
        lots=[use.lot_id for _, use in uses],
        attempts=[attempt for attempt, _ in uses],
        gflop=[use.gflop for _, use in uses],
        fen=[use.fen for _, use in uses],
        to_lots=[None] * len(uses) if to_lots is None else list(to_lots),
    )


def merged(tick: Tick) -> dict[int, Delta]:
    """Every balance a tick changes: wallets and ceilings from its decision, the house's from the
    transfer (wallets stand in both; the decision's figure is the one that counts)."""
    deltas = tick.balances.deltas()
    return {**{a: d for a, d in tick.draft.deltas().items() if a not in deltas}, **deltas}


def write_tick(tx: Tx, transfer_id: str, tick: Tick, now: datetime) -> None:
    """Write a whole tick: one transfer, each account updated once, in one round trip.

    Raises `RuntimeError` (and so rolls back) when a hold had been resolved by someone else.
    """
    with tx.together():
        apply_deltas(tx, merged(tick))
        note = {"attempts": len(tick.outcomes)}
        write_transfer(tx, transfer_id, "tick", tick.draft, now, note)
        write_lots(tx, tick.lots)
        uses: list[tuple[str | None, LotUse]] = [
            (o.claim.attempt_id, use) for o in tick.outcomes for use in o.uses
        ]
        write_lot_uses(tx, transfer_id, uses + [(None, use) for use in tick.lapsed])
        resolved = _write_outcomes(tx, transfer_id, tick.outcomes, now)
    if resolved.touched != len(tick.outcomes):
        lacking = len(tick.outcomes) - resolved.touched
        raise RuntimeError(f"{lacking} holds were resolved by another service")


def _write_outcomes(tx: Tx, transfer_id: str, outcomes: Sequence[Outcome], now: datetime) -> Sent:
    """Usage, holds and meters; which holds were resolved comes with the answer."""
    _write_usage(tx, transfer_id, outcomes)
    resolved = tx.send(
        "holds_resolve",
        jobs=[o.claim.job_id for o in outcomes],
        seqs=[o.claim.hold_seq for o in outcomes],
        settled=[o.settled_gflop for o in outcomes],
        now=now,
    )
    # A running attempt always has an open hold, even an empty one: late usage finds it there.
    running = [o for o in outcomes if not o.claim.ended]
    tx.send(
        "holds_open",
        jobs=[o.claim.job_id for o in running],
        seqs=[o.claim.hold_seq + 1 for o in running],
        reserved=[o.reserved_gflop for o in running],
        now=now,
    )
    _write_meters(tx, outcomes)
    _write_bindings(tx, [o for o in outcomes if o.cover is not None])
    return resolved


def _write_usage(tx: Tx, transfer_id: str, outcomes: Sequence[Outcome]) -> None:
    posted = [(o.claim, o, o.interval) for o in outcomes if o.interval is not None]
    tx.send(
        "usage_insert",
        transfer_id=transfer_id,
        attempts=[c.attempt_id for c, _, _ in posted],
        seqs=[i.seq for _, _, i in posted],
        hold_seqs=[c.hold_seq for c, _, _ in posted],
        from_ms=[i.from_ms for _, _, i in posted],
        to_ms=[i.to_ms for _, _, i in posted],
        held=[i.held_gflop for _, _, i in posted],
        settled=[o.settled_gflop for _, o, _ in posted],
        overrun=[o.overrun_gflop for _, o, _ in posted],
        borne=[o.borne_gflop for _, o, _ in posted],
    )


def _write_meters(tx: Tx, outcomes: Sequence[Outcome]) -> None:
    tx.send(
        "attempts_metered",
        attempts=[o.claim.attempt_id for o in outcomes],
        metered_ms=[max(o.claim.held_ms, o.claim.metered_ms) for o in outcomes],
        usage_seqs=[o.interval.seq if o.interval else o.claim.usage_seq for o in outcomes],
        lease_held_ms=[o.held_ms_max for o in outcomes],
        settled=[o.claim.ended for o in outcomes],
    )


def _write_bindings(tx: Tx, outcomes: Sequence[Outcome]) -> None:
    """What accepted quotes were charged for, and what the centre bore under them."""
    if not outcomes:
        return
    beyond = [(sum(u.gflop for u in o.beyond), sum(u.fen for u in o.beyond)) for o in outcomes]
    tx.send(
        "bindings_charged",
        jobs=[o.claim.job_id for o in outcomes],
        charged=[o.settled_gflop - b[0] for o, b in zip(outcomes, beyond, strict=True)],
        charged_fen=[o.fen - b[1] for o, b in zip(outcomes, beyond, strict=True)],
        beyond=[gflop for gflop, _ in beyond],
        beyond_fen=[fen for _, fen in beyond],
        borne=[o.borne_gflop for o in outcomes],
        capped=[o.cover is not None and o.cover.cap_gflop == 0 for o in outcomes],
    )
