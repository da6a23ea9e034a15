"""Balances, lots, holds and the tick, checked against the rules in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dusuan.core import units
from dusuan.core.ledger.balances import Balance, Balances, Delta
from dusuan.core.ledger.holds import Shortage, open_hold, void_hold
from dusuan.core.ledger.lots import Lot, LotBook, burn_order
from dusuan.core.ledger.postings import Draft, Entry, House
from dusuan.core.ledger.purchases import MS_PER_DAY, Package, buy, receive_payment
from dusuan.core.ledger.tick import Claim, SlicePolicy, Tick, due, first_slice, tick

HOUSE = House(1, 2, 3, 4, 5, 6, 7, 8, 9)
WALLET, SPEND, ORG_SPEND, CASH = 20, 21, 22, 23
POLICY = SlicePolicy(slice_ms=60_000, least_ms=4_000, settle_ms=5_000, head_ms=3_000)


def lot(name: str = "lot", gflop: int = 1_000, **changes: object) -> Lot:
    plain = Lot(name, WALLET, gflop, gflop, gflop // 10, 0, 100, False, 0, None)
    return replace(plain, **changes)


def claim(**changes: object) -> Claim:
    plain = Claim(
        job_id="job",
        attempt_id="att",
        hold_seq=1,
        reserved_gflop=1_000,
        wallet=WALLET,
        limits=(SPEND,),
        rating_gflops=100,
        devices=1,
        grace_ms=2_000,
        usage_seq=0,
        metered_ms=0,
        held_ms=5_000,
        ended=False,
    )
    return replace(plain, **changes)


def balances(posted: int, pending: int, spend_floor: int | None = None) -> Balances:
    return Balances(
        {
            WALLET: Balance(posted_cr=posted, pending_dr=pending),
            SPEND: Balance(pending_dr=pending, floor=spend_floor),
        }
    )


def run(claims: list[Claim], lots: list[Lot], funds: Balances, now_ms: int = 0) -> Tick:
    return tick(claims, funds, lots, HOUSE, POLICY, now_ms)


# --- balances ---------------------------------------------------------------------------------


def test_available_is_posted_less_pending_less_floor() -> None:
    assert Balance(posted_dr=10, posted_cr=100, pending_dr=20, floor=5).available == 65
    assert Balance(posted_dr=10, posted_cr=100).posted == 90
    assert Balance(posted_dr=10, floor=None).available is None


def test_balances_remember_what_changed() -> None:
    funds = balances(100, 0)
    funds.change(WALLET, dr=5, pending=7)
    funds.change(WALLET, cr=1, pending=-7)
    funds.change(SPEND, pending=3)
    funds.change(SPEND, pending=-3)
    assert funds.deltas() == {WALLET: Delta(dr=5, cr=1)}
    assert funds[WALLET] == Balance(posted_dr=5, posted_cr=101)


def test_the_tightest_account_limits_what_is_available() -> None:
    funds = balances(100, 0, spend_floor=-40)
    assert funds.available((WALLET, SPEND), 1_000) == 40
    assert funds.available((WALLET,), 1_000) == 100
    assert funds.available((WALLET,), 7) == 7
    funds.change(WALLET, pending=150)
    assert funds.available((WALLET,), 7) == 0


# --- lots -------------------------------------------------------------------------------------


def test_burn_order_is_priority_expiry_granted_age() -> None:
    lots = [
        lot("older", created_ms=1),
        lot("younger", created_ms=2),
        lot("granted", created_ms=9, granted=True),
        lot("expires-late", expires_ms=900),
        lot("expires-soon", expires_ms=100, created_ms=9),
        lot("first", priority=1, created_ms=9),
    ]
    names = [item.lot_id for item in burn_order(reversed(lots))]
    assert names == ["first", "expires-soon", "expires-late", "granted", "older", "younger"]


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.lists(st.integers(1, 10**5), max_size=30))
def test_a_lots_money_leaves_with_its_gflop_to_the_last_fen(
    gflop: int, paid: int, bites: list[int]
) -> None:
    item, used, fen = lot(gflop=gflop, paid_fen=paid), 0, 0
    for bite in [*bites, gflop]:
        book = LotBook([item])
        use = book.take(item.lot_id, bite)
        (item,) = book.changed()
        used, fen = used + use.gflop, fen + use.fen
        assert use.gflop >= 0
        assert use.fen >= 0
        assert item.remaining_gflop == gflop - used
        assert abs(fen * gflop - paid * used) * 2 <= gflop  # never half a fen off
    assert (used, fen) == (gflop, paid)


def test_burning_more_than_there_is_says_so() -> None:
    with pytest.raises(ValueError, match=f"wallet {WALLET}: 1 GFLOP more"):
        LotBook([lot(gflop=10)]).burn(WALLET, 11)


def test_burning_goes_from_lot_to_lot_of_that_wallet_only() -> None:
    book = LotBook([lot("a", 10), lot("b", 10, created_ms=1), lot("c", 10, wallet=99)])
    assert [(u.lot_id, u.gflop) for u in book.burn(WALLET, 15)] == [("a", 10), ("b", 5)]
    assert [(item.lot_id, item.remaining_gflop) for item in book.changed()] == [("a", 0), ("b", 5)]


def test_only_what_has_expired_lapses_and_only_as_far_as_allowed() -> None:
    book = LotBook(
        [lot("old", 10, expires_ms=100), lot("new", 10, expires_ms=101), lot("ever", 10)]
    )
    assert book.lapse(WALLET, 99, 100) == ()
    assert [(u.lot_id, u.gflop) for u in book.lapse(WALLET, 100, 4)] == [("old", 4)]
    assert [(u.lot_id, u.gflop) for u in book.lapse(WALLET, 100, 100)] == [("old", 6)]
    assert book.lapse(WALLET, 100, 0) == ()
    both = LotBook(
        [lot("a", 3, expires_ms=1), lot("b", 3, expires_ms=2), lot("c", 3, expires_ms=3)]
    )
    assert [(u.lot_id, u.gflop) for u in both.lapse(WALLET, 9, 5)] == [("a", 3), ("b", 2)]


# --- postings and purchases -------------------------------------------------------------------


def test_a_draft_sums_per_account_and_balances() -> None:
    draft = Draft()
    draft.move(1, 2, 10)
    draft.move(1, 3, 5)
    draft.move(3, 1, 2)
    draft.move(8, 9, 0)
    assert draft.entries() == [Entry(1, 15, 2), Entry(2, 0, 10), Entry(3, 2, 5)]
    assert draft.deltas()[3] == Delta(dr=2, cr=5)
    with pytest.raises(ValueError, match="positive amount"):
        draft.move(1, 2, -1)


def test_a_purchase_owes_its_price_until_it_is_used() -> None:
    package = Package("pkg", "demo", 20_000, 2_000, 30, 7)
    bought = buy(package, "lot_1", WALLET, CASH, HOUSE, 1_000)
    assert bought.draft.entries() == [
        Entry(HOUSE.issued, dr=20_000),
        Entry(HOUSE.deferred, cr=2_000),
        Entry(WALLET, cr=20_000),
        Entry(CASH, dr=2_000),
    ]
    assert bought.lot == Lot(
        "lot_1", WALLET, 20_000, 20_000, 2_000, 0, 7, False, 1_000, 1_000 + 30 * MS_PER_DAY
    )
    free = buy(replace(package, price_fen=0, valid_days=None), "l", WALLET, CASH, HOUSE, 0).lot
    assert free.granted
    assert free.expires_ms is None


def test_a_payment_is_owed_to_the_customer() -> None:
    assert receive_payment(CASH, 50, HOUSE).entries() == [Entry(HOUSE.bank, 50), Entry(CASH, 0, 50)]


# --- holds ------------------------------------------------------------------------------------


def test_a_hold_is_set_aside_on_every_account_or_on_none() -> None:
    funds = balances(100, 0, spend_floor=-60)
    assert open_hold(WALLET, [SPEND], 60, funds) is None
    assert funds[WALLET].available == 40
    assert funds[SPEND].available == 0
    assert open_hold(WALLET, [SPEND], 1, funds) == Shortage(SPEND, 1, 0)
    assert funds[WALLET].available == 40
    void_hold(WALLET, [SPEND], 60, funds)
    assert funds.deltas() == {}
    assert open_hold(WALLET, [SPEND], 101, funds) == Shortage(WALLET, 101, 100)


# --- the tick ---------------------------------------------------------------------------------


def test_used_is_settled_the_rest_stays_promised_and_the_next_slice_is_added() -> None:
    done = run([claim()], [lot(gflop=50_000)], balances(50_000, 1_000))
    (outcome,) = done.outcomes
    assert outcome.interval is not None
    assert (outcome.interval.seq, outcome.interval.from_ms, outcome.interval.to_ms) == (1, 0, 5_000)
    assert (outcome.settled_gflop, outcome.overrun_gflop, outcome.fen) == (500, 0, 50)
    # 49,000 are left beside the 500 still promised; a minute at 100 GFLOPS is 6,000.
    assert outcome.reserved_gflop == 6_000
    assert outcome.held_ms_max == units.held_ms_within(100, 500 + 6_000)
    assert done.balances.deltas() == {
        WALLET: Delta(dr=500, pending=5_000),
        SPEND: Delta(dr=500, pending=5_000),
    }
    assert done.draft.entries() == [
        Entry(HOUSE.consumed, cr=500),
        Entry(HOUSE.deferred, dr=50),
        Entry(HOUSE.revenue, cr=50),
        Entry(WALLET, dr=500),
    ]


def test_an_ended_attempt_pays_what_it_used_and_releases_the_rest() -> None:
    done = run([claim(ended=True)], [lot(gflop=50_000)], balances(50_000, 1_000))
    assert done.outcomes[0].reserved_gflop == 0
    assert done.balances[WALLET] == Balance(posted_cr=50_000, posted_dr=500, pending_dr=0)
    assert done.balances[SPEND] == Balance(posted_dr=500, floor=None)


def test_overrun_is_the_centres_loss() -> None:
    done = run([claim(held_ms=12_345, ended=True)], [lot(gflop=1_000)], balances(1_000, 1_000))
    (outcome,) = done.outcomes
    assert (outcome.settled_gflop, outcome.overrun_gflop) == (1_000, 234)
    assert done.balances[WALLET].posted == 0
    assert Entry(HOUSE.loss, dr=234) in done.draft.entries()
    assert Entry(HOUSE.consumed, cr=1_234) in done.draft.entries()


def test_nothing_used_is_nothing_posted() -> None:
    done = run([claim(held_ms=0, ended=True)], [lot()], balances(1_000, 1_000))
    assert done.outcomes[0].interval is None
    assert done.draft.entries() == []
    assert done.balances.deltas() == {
        WALLET: Delta(pending=-1_000),
        SPEND: Delta(pending=-1_000),
    }


def test_half_of_a_scarce_balance_is_kept_for_others() -> None:
    done = run([claim(held_ms=0, reserved_gflop=600)], [lot(gflop=4_600)], balances(4_600, 600))
    # 4,000 left: half is 2,000 = 20 s ahead, above the least of 4 s and a grace of 2 s.
    assert done.outcomes[0].reserved_gflop == 2_000


def test_a_slice_that_is_still_half_full_is_left_alone() -> None:
    enough = claim(held_ms=0, reserved_gflop=3_000)
    assert (
        run([enough], [lot(gflop=90_000)], balances(90_000, 3_000)).outcomes[0].reserved_gflop
        == 3_000
    )
    short = claim(held_ms=0, reserved_gflop=2_999)
    assert (
        run([short], [lot(gflop=90_000)], balances(90_000, 2_999)).outcomes[0].reserved_gflop
        == 6_000
    )


def test_the_end_of_a_balance_is_handed_out_whole_in_order() -> None:
    first = claim(job_id="a", attempt_id="a", held_ms=0, reserved_gflop=500)
    second = claim(job_id="b", attempt_id="b", held_ms=0, reserved_gflop=500, devices=2)
    done = run([first, second], [lot(gflop=2_000)], balances(2_000, 1_000))
    # 1,000 left for 300 GFLOPS: 1.7 s ahead is below the least, so each gets its share of it.
    assert [o.reserved_gflop for o in done.outcomes] == [500 + 334, 500 + 666]
    assert done.balances[WALLET].available == 0


def test_the_end_of_a_budget_is_handed_out_whole_in_order() -> None:
    first = claim(job_id="a", attempt_id="a", held_ms=0, reserved_gflop=500)
    second = claim(job_id="b", attempt_id="b", held_ms=0, reserved_gflop=500, devices=2)
    funds = balances(500_000, 1_000, spend_floor=-2_000)  # the wallet has plenty
    done = run([first, second], [lot(gflop=500_000)], funds)
    assert [o.reserved_gflop for o in done.outcomes] == [500 + 334, 500 + 666]


def test_the_least_slice_is_the_boundary_of_the_end_phase() -> None:
    # At 100 GFLOPS the least slice and the grace are 6 s: 600 GFLOP, from 1,200 left.
    above = run([claim(held_ms=0, reserved_gflop=0)], [lot(gflop=1_200)], balances(1_200, 0))
    assert above.outcomes[0].reserved_gflop == 600
    below = run([claim(held_ms=0, reserved_gflop=0)], [lot(gflop=1_199)], balances(1_199, 0))
    assert below.outcomes[0].reserved_gflop == 1_199


def test_a_ceiling_above_limits_the_next_slice() -> None:
    done = run([claim()], [lot(gflop=50_000)], balances(50_000, 1_000, spend_floor=-1_300))
    assert done.outcomes[0].reserved_gflop == 800
    assert done.balances[SPEND].available == 0


def test_a_released_hold_serves_a_later_attempt_in_the_same_tick() -> None:
    ended = claim(job_id="a", attempt_id="a", ended=True, held_ms=0)
    running = claim(job_id="b", attempt_id="b", held_ms=0, reserved_gflop=0)
    done = run([running, ended], [lot(gflop=1_000)], balances(1_000, 1_000))
    assert [o.reserved_gflop for o in done.outcomes] == [1_000, 0]


def test_expired_degrees_lapse_but_never_what_a_hold_has_set_aside() -> None:
    lots = [lot("old", 2_000, expires_ms=100), lot("new", 100, created_ms=1)]
    done = run([claim(held_ms=0)], lots, balances(2_100, 1_000), now_ms=100)
    assert [(u.lot_id, u.gflop, u.fen) for u in done.lapsed] == [("old", 1_100, 110)]
    assert done.balances[WALLET].posted == 1_000
    assert done.outcomes[0].reserved_gflop == 1_000
    assert Entry(HOUSE.lapsed, cr=1_100) in done.draft.entries()
    assert Entry(HOUSE.breakage, cr=110) in done.draft.entries()
    assert Entry(HOUSE.deferred, dr=110) in done.draft.entries()


def test_a_budget_is_handed_out_like_a_balance() -> None:
    # The wallet has plenty; the budget has 4,000 left: half of it, not an hour's worth.
    funds = balances(500_000, 600, spend_floor=-4_600)
    done = run([claim(held_ms=0, reserved_gflop=600)], [lot(gflop=500_000)], funds)
    assert done.outcomes[0].reserved_gflop == 2_000
    funds = balances(500_000, 600, spend_floor=-1_200)
    done = run([claim(held_ms=0, reserved_gflop=600)], [lot(gflop=500_000)], funds)
    assert done.outcomes[0].reserved_gflop == 1_200


def test_what_runs_beside_is_counted_when_a_balance_is_shared() -> None:
    def reserved(beside: dict[int, int]) -> int:
        funds, lots = balances(4_400, 400), [lot(gflop=4_400)]
        held = claim(held_ms=0, reserved_gflop=400)
        return tick([held], funds, lots, HOUSE, POLICY, 0, beside).outcomes[0].reserved_gflop

    assert reserved({}) == 2_000
    assert reserved({WALLET: 100, SPEND: 100}) == 1_000
    assert reserved({99: 100}) == 2_000


def test_only_what_changes_is_to_be_written() -> None:
    def changes(**what: object) -> bool:
        return run([claim(**what)], [lot(gflop=1_000)], balances(1_000, 1_000)).outcomes[0].changes

    assert not changes(held_ms=0)
    assert changes(held_ms=10)
    assert changes(held_ms=0, ended=True)
    assert run([claim(held_ms=0)], [lot(gflop=2_000)], balances(2_000, 1_000)).outcomes[0].changes


def test_due_when_ended_long_unposted_or_running_short() -> None:
    full = claim(reserved_gflop=100_000)
    assert not due(replace(full, held_ms=4_999), POLICY)
    assert due(replace(full, held_ms=5_000), POLICY)
    assert not due(replace(full, held_ms=9_999, devices=2), POLICY)  # 5 s of one clock
    assert due(replace(full, held_ms=10_000, devices=2), POLICY)
    assert due(replace(full, held_ms=0, ended=True), POLICY)
    # Grace and head are 5 s: 500 GFLOP, which is all that a first slice has.
    assert not due(replace(full, held_ms=1_000, reserved_gflop=601), POLICY)
    assert due(replace(full, held_ms=1_000, reserved_gflop=600), POLICY)
    assert due(replace(full, held_ms=0, reserved_gflop=first_slice(100, 2_000, POLICY)), POLICY)
    metered = replace(full, held_ms=2_000, metered_ms=1_000, reserved_gflop=601)
    assert not due(metered, POLICY)
    assert not due(replace(full, held_ms=6_000, metered_ms=2_000), POLICY)
    assert due(replace(full, held_ms=7_000, metered_ms=2_000), POLICY)


def test_the_first_slice_is_grace_and_head_rounded_up() -> None:
    assert first_slice(100, 2_000, POLICY) == 500
    assert first_slice(101, 2_001, POLICY) == 506


# --- the tick against an account kept by hand -----------------------------------------------------

STEPS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 9_000), st.integers(0, 9), st.integers(0, 400)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 4_000), min_size=1, max_size=5), STEPS)
def test_random_histories_keep_every_promise(
    packs: list[int], steps: list[tuple[int, ...]]
) -> None:
    """Four attempts on one wallet, any order of work and endings: an independent tally agrees."""
    lots = [lot(f"lot{i}", g, created_ms=i, paid_fen=g * 3) for i, g in enumerate(packs)]
    bought = sum(packs)
    wallet = Balance(posted_cr=bought)
    spend = Balance(floor=None)
    live: dict[int, Claim] = {}
    used = dict.fromkeys(range(4), 0)
    paid_fen = 0
    for who, ms, ends, now_ms in steps:
        if who not in live:
            attempt = claim(
                job_id=str(who), attempt_id=str(who), held_ms=0, reserved_gflop=0,
                rating_gflops=50 + 30 * who, devices=1 + who % 2, hold_seq=1,
            )  # fmt: skip
            live[who] = attempt
        ceiling = units.held_ms_within(
            live[who].rating_gflops,
            units.held_gflop(live[who].rating_gflops, live[who].metered_ms)
            + live[who].reserved_gflop,
        )
        live[who] = replace(
            live[who], held_ms=min(live[who].held_ms + ms, ceiling), ended=ends == 0
        )
        funds = Balances({WALLET: wallet, SPEND: spend})
        done = tick(list(live.values()), funds, lots, HOUSE, POLICY, now_ms)
        wallet, spend = done.balances[WALLET], done.balances[SPEND]
        changed = {item.lot_id: item for item in done.lots}
        lots = [changed.get(item.lot_id, item) for item in lots]
        for outcome in done.outcomes:
            name = int(outcome.claim.job_id)
            assert outcome.overrun_gflop == 0
            used[name] += outcome.settled_gflop
            paid_fen += outcome.fen
            if outcome.claim.ended:
                assert outcome.reserved_gflop == 0
                del live[name]
                continue
            kept = outcome.claim.reserved_gflop - outcome.settled_gflop
            assert outcome.reserved_gflop >= kept
            live[name] = replace(
                outcome.claim,
                hold_seq=outcome.claim.hold_seq + 1,
                reserved_gflop=outcome.reserved_gflop,
                metered_ms=outcome.claim.held_ms,
                usage_seq=outcome.interval.seq if outcome.interval else outcome.claim.usage_seq,
            )
        entries = done.draft.entries()
        assert sum(e.dr for e in entries) == sum(e.cr for e in entries)
        assert wallet.posted == bought - sum(used.values()) == sum(i.remaining_gflop for i in lots)
        assert wallet.pending_dr == sum(c.reserved_gflop for c in live.values())
        assert wallet.available is not None
        assert wallet.available >= 0
        assert (spend.posted_dr, spend.pending_dr) == (sum(used.values()), wallet.pending_dr)
        assert paid_fen == sum(i.spent_fen for i in lots)
