"""Loading what a ledger decision needs, and writing what it decided: a few statements, any size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from dusuan.core.ledger.balances import Balance, Delta
from dusuan.core.ledger.cover import Cover
from dusuan.core.ledger.lots import Lot, LotUse, burn_order
from dusuan.core.ledger.postings import Draft, House
from dusuan.core.ledger.tick import Claim, Outcome, Tick
from dusuan.store.database import Tx, json
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


@dataclass(frozen=True, slots=True)
class _ClaimRow:
    attempt_id: str
    job_id: str
    hold_seq: int
    reserved_gflop: int
    wallet_id: int
    limit_ids: list[int]
    rating_gflops: int
    devices: int
    grace_ms: int
    usage_seq: int
    metered_ms: int
    held_ms: int
    ended: bool
    lease_seq: int
    lease_held_ms: int
    cap_gflop: int | None
    cap_fen: int | None
    bears_gflop: int | None
    until_ms: int | None

    @property
    def cover(self) -> Cover | None:
        if self.cap_gflop is None or self.cap_fen is None or self.bears_gflop is None:
            return None
        return Cover(
            self.cap_gflop, self.cap_fen, self.bears_gflop, self.until_ms, self.lease_held_ms
        )


def load_claims(tx: Tx, wallet: int | None = None) -> list[tuple[Claim, Promise]]:
    """Every attempt with something left to post, first started first, and its lease.

    With `wallet` (a ledger account) only those that it pays for.
    """
    return [
        (
            Claim(
                job_id=r.job_id,
                attempt_id=r.attempt_id,
                hold_seq=r.hold_seq,
                reserved_gflop=r.reserved_gflop,
                wallet=r.wallet_id,
                limits=tuple(r.limit_ids),
                rating_gflops=r.rating_gflops,
                devices=r.devices,
                grace_ms=r.grace_ms,
                usage_seq=r.usage_seq,
                metered_ms=r.metered_ms,
                held_ms=r.held_ms,
                ended=r.ended,
                cover=r.cover,
            ),
            Promise(r.lease_seq, r.lease_held_ms),
        )
        for r in tx.all(_ClaimRow, "claims", wallet=wallet)
    ]


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
    tx.all(LedgerAccount, "balances_lock", ids=ids)
    tx.run(
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
    tx.run("transfer_insert", id=transfer_id, kind=kind, now=now, note=json(dict(note)))
    entries = draft.entries()
    tx.run(
        "entries_insert",
        transfer_id=transfer_id,
        ids=[e.account for e in entries],
        dr=[e.dr for e in entries],
        cr=[e.cr for e in entries],
    )


def post(
    tx: Tx, transfer_id: str, kind: str, draft: Draft, now: datetime, note: Mapping[str, Any]
) -> None:
    """Write a transfer and apply it to the balances it names."""
    write_transfer(tx, transfer_id, kind, draft, now, note)
    apply_deltas(tx, draft.deltas())


def write_lots(tx: Tx, lots: Sequence[Lot]) -> None:
    """Write what remains of lots that a decision took from."""
    tx.run(
        "lots_update",
        ids=[lot.lot_id for lot in lots],
        remaining=[lot.remaining_gflop for lot in lots],
        spent=[lot.spent_fen for lot in lots],
    )


def write_lot_uses(tx: Tx, transfer_id: str, uses: Sequence[tuple[str | None, LotUse]]) -> None:
    """Write what was taken from lots: pairs of attempt id (None: it lapsed) and use."""
    tx.run(
        "lot_uses_insert",
        transfer_id=transfer_id,
        lots=[use.lot_id for _, use in uses],
        attempts=[attempt for attempt, _ in uses],
        gflop=[use.gflop for _, use in uses],
        fen=[use.fen for _, use in uses],
    )


def merged(tick: Tick) -> dict[int, Delta]:
    """Every balance a tick changes: wallets and ceilings from its decision, the house's from the
    transfer (wallets stand in both; the decision's figure is the one that counts)."""
    deltas = tick.balances.deltas()
    return {**{a: d for a, d in tick.draft.deltas().items() if a not in deltas}, **deltas}


def write_tick(tx: Tx, transfer_id: str, tick: Tick, now: datetime) -> None:
    """Write a whole tick: one transfer, each account updated once.

    Raises `RuntimeError` (and so rolls back) when a hold had been resolved by someone else.
    """
    write_transfer(tx, transfer_id, "tick", tick.draft, now, {"attempts": len(tick.outcomes)})
    apply_deltas(tx, merged(tick))
    write_lots(tx, tick.lots)
    uses: list[tuple[str | None, LotUse]] = [
        (o.claim.attempt_id, use) for o in tick.outcomes for use in o.uses
    ]
    write_lot_uses(tx, transfer_id, uses + [(None, use) for use in tick.lapsed])
    _write_usage(tx, transfer_id, tick.outcomes)
    _write_holds(tx, tick.outcomes, now)
    _write_meters(tx, tick.outcomes)
    _write_bindings(tx, [o for o in tick.outcomes if o.cover is not None])


def _write_usage(tx: Tx, transfer_id: str, outcomes: Sequence[Outcome]) -> None:
    posted = [(o, o.interval) for o in outcomes if o.interval is not None]
    tx.run(
        "usage_insert",
        transfer_id=transfer_id,
        attempts=[o.claim.attempt_id for o, _ in posted],
        seqs=[i.seq for _, i in posted],
        hold_seqs=[o.claim.hold_seq for o, _ in posted],
        from_ms=[i.from_ms for _, i in posted],
        to_ms=[i.to_ms for _, i in posted],
        held=[i.held_gflop for _, i in posted],
        settled=[o.settled_gflop for o, _ in posted],
        overrun=[o.overrun_gflop for o, _ in posted],
        borne=[o.borne_gflop for o, _ in posted],
    )


def _write_bindings(tx: Tx, outcomes: Sequence[Outcome]) -> None:
    """What accepted quotes were charged for, and what the centre bore under them."""
    if not outcomes:
        return
    beyond = [(sum(u.gflop for u in o.beyond), sum(u.fen for u in o.beyond)) for o in outcomes]
    tx.run(
        "bindings_charged",
        jobs=[o.claim.job_id for o in outcomes],
        charged=[o.settled_gflop - b[0] for o, b in zip(outcomes, beyond, strict=True)],
        charged_fen=[o.fen - b[1] for o, b in zip(outcomes, beyond, strict=True)],
        beyond=[gflop for gflop, _ in beyond],
        beyond_fen=[fen for _, fen in beyond],
        borne=[o.borne_gflop for o in outcomes],
        capped=[o.cover is not None and o.cover.cap_gflop == 0 for o in outcomes],
    )


def _write_holds(tx: Tx, outcomes: Sequence[Outcome], now: datetime) -> None:
    resolved = tx.run(
        "holds_resolve",
        jobs=[o.claim.job_id for o in outcomes],
        seqs=[o.claim.hold_seq for o in outcomes],
        settled=[o.settled_gflop for o in outcomes],
        now=now,
    )
    if resolved != len(outcomes):
        raise RuntimeError(f"{len(outcomes) - resolved} holds were resolved by another service")
    # A running attempt always has an open hold, even an empty one: late usage finds it there.
    running = [o for o in outcomes if not o.claim.ended]
    tx.run(
        "holds_open",
        jobs=[o.claim.job_id for o in running],
        seqs=[o.claim.hold_seq + 1 for o in running],
        reserved=[o.reserved_gflop for o in running],
        now=now,
    )


def _write_meters(tx: Tx, outcomes: Sequence[Outcome]) -> None:
    tx.run(
        "attempts_metered",
        attempts=[o.claim.attempt_id for o in outcomes],
        metered_ms=[max(o.claim.held_ms, o.claim.metered_ms) for o in outcomes],
        usage_seqs=[o.interval.seq if o.interval else o.claim.usage_seq for o in outcomes],
        lease_held_ms=[o.held_ms_max for o in outcomes],
        settled=[o.claim.ended for o in outcomes],
    )
