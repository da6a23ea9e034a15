"""An accepted quote caps the bill of the described work; what lies beyond it is told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.test_ledger import HOUSE, POLICY, SPEND, WALLET, balances, claim, lot, run

from dusuan.core import units
from dusuan.core.ledger.balances import Balance, Balances
from dusuan.core.ledger.cover import Cover
from dusuan.core.ledger.lots import LotBook
from dusuan.core.ledger.postings import Entry
from dusuan.core.ledger.tick import Claim, due, tick

PLENTY = 10**6


def cover(**changes: object) -> Cover:
    plain = Cover(cap_gflop=300, cap_fen=PLENTY, bears_gflop=400, until_ms=None, promised_ms=10_000)
    return replace(plain, **changes)


def test_beyond_the_cap_the_centre_bears_it() -> None:
    done = run([claim(cover=cover())], [lot(gflop=5_000)], balances(5_000, 1_000))
    (outcome,) = done.outcomes
    assert (outcome.settled_gflop, outcome.borne_gflop, outcome.overrun_gflop) == (300, 200, 0)
    assert done.draft.entries() == [
        Entry(HOUSE.consumed, cr=500),
        Entry(HOUSE.deferred, dr=30),
        Entry(HOUSE.revenue, cr=30),
        Entry(HOUSE.borne, dr=200),
        Entry(WALLET, dr=300),
    ]
    # Nothing more can be charged: only a grace and a head stay set aside, for work that was not
    # described. The lease counts on what the centre bears, and not on that.
    assert outcome.reserved_gflop == 500
    assert outcome.held_ms_max == units.held_ms_within(100, 500 + 200)
    assert done.balances[WALLET] == Balance(posted_cr=5_000, posted_dr=300, pending_dr=500)
    assert outcome.cover == cover(cap_gflop=0, cap_fen=PLENTY - 30, bears_gflop=200)


def test_below_the_cap_a_quote_changes_nothing_but_what_is_set_aside() -> None:
    done = run([claim(cover=cover(cap_gflop=900))], [lot(gflop=50_000)], balances(50_000, 1_000))
    (outcome,) = done.outcomes
    assert (outcome.settled_gflop, outcome.borne_gflop) == (500, 0)
    assert outcome.reserved_gflop == 400 + 500  # a minute would be 6,000
    assert outcome.held_ms_max == units.held_ms_within(100, 900 + 400)


def test_a_hold_short_of_the_cap_promises_nothing_of_the_centres() -> None:
    poor = claim(cover=cover(cap_gflop=5_000), held_ms=0)
    done = run([poor], [lot(gflop=1_000)], balances(1_000, 1_000))
    assert done.outcomes[0].held_ms_max == units.held_ms_within(100, 1_000)


def test_work_after_the_described_work_is_billed() -> None:
    done = run(
        [claim(cover=cover(until_ms=2_000, cap_gflop=100))],
        [lot(gflop=5_000)],
        balances(5_000, 1_000),
    )
    (outcome,) = done.outcomes
    # 200 GFLOP were described: 100 charged, 100 the centre's; 300 more are billed.
    assert (outcome.settled_gflop, outcome.borne_gflop) == (400, 100)
    assert [use.gflop for use in outcome.beyond] == [300]
    assert outcome.reserved_gflop == 2_050  # as any other job: half of the 4,100 left
    assert outcome.held_ms_max == units.held_ms_within(100, 500 + 2_050)


def test_a_price_cap_binds_before_the_cap_in_degrees() -> None:
    dear = lot(gflop=5_000, paid_fen=5_000)  # a fen for each GFLOP
    done = run([claim(cover=cover(cap_fen=120))], [dear], balances(5_000, 1_000))
    (outcome,) = done.outcomes
    assert (outcome.settled_gflop, outcome.fen, outcome.borne_gflop) == (120, 120, 380)
    assert outcome.cover is not None
    assert outcome.cover.cap_gflop == 0


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(0, 400)), min_size=1, max_size=4),
    st.integers(0, 900),
    st.integers(0, 700),
)
def test_burning_within_a_price_takes_the_most_it_can(
    packs: list[tuple[int, int]], gflop: int, fen_max: int
) -> None:
    lots = [lot(f"lot{i}", g, created_ms=i, paid_fen=fen) for i, (g, fen) in enumerate(packs)]
    gflop = min(gflop, sum(g for g, _ in packs))
    uses = LotBook(lots).burn(WALLET, gflop, fen_max)
    taken = sum(use.gflop for use in uses)
    assert sum(use.fen for use in uses) <= fen_max
    if taken < gflop:
        one_more = LotBook(lots).burn(WALLET, taken + 1)
        assert sum(use.fen for use in one_more) > fen_max


def test_due_looks_at_the_lease_not_at_the_hold() -> None:
    borne = claim(cover=cover(cap_gflop=0, promised_ms=60_000), reserved_gflop=0, held_ms=1_000)
    assert not due(borne, POLICY)
    assert due(replace(borne, held_ms=5_000), POLICY)  # a settling period
    late = replace(borne, cover=cover(cap_gflop=0, promised_ms=6_000))
    assert due(late, POLICY)  # grace and head are 5 s


STRETCHES = st.lists(st.integers(0, 4_000), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(STRETCHES, st.integers(0, 2_000), st.integers(0, 300), st.integers(0, 800), st.data())
def test_whatever_happens_the_described_work_never_costs_more_than_its_caps(
    stretches: list[int], cap: int, cap_fen: int, bears: int, data: st.DataObject
) -> None:
    """One attempt, ticked at any moments; described work ends at any of them, or never."""
    lots = [lot("a", 900, paid_fen=100), lot("b", 9_100, created_ms=1, paid_fen=3_000)]
    wallet, spend = Balance(posted_cr=10_000), Balance(floor=None)
    end = data.draw(st.one_of(st.none(), st.integers(0, len(stretches))))
    state = claim(
        held_ms=0,
        reserved_gflop=0,
        cover=Cover(cap, cap_fen, bears, None, units.held_ms_within(100, bears if not cap else 0)),
    )
    totals = {"charged": 0, "charged_fen": 0, "beyond": 0, "borne": 0, "overrun": 0}
    for i, ms in enumerate(stretches):
        assert state.cover is not None
        lease = state.cover.promised_ms
        until = state.held_ms if end is not None and i == end else state.cover.until_ms
        state = replace(
            state,
            held_ms=min(state.held_ms + ms, max(lease, state.held_ms)),
            cover=replace(state.cover, until_ms=until),
        )
        done = tick([state], Balances({WALLET: wallet, SPEND: spend}), lots, HOUSE, POLICY, 0)
        (outcome,) = done.outcomes
        wallet, spend = done.balances[WALLET], done.balances[SPEND]
        changed = {item.lot_id: item for item in done.lots}
        lots = [changed.get(item.lot_id, item) for item in lots]
        beyond_fen = sum(u.fen for u in outcome.beyond)
        beyond = sum(u.gflop for u in outcome.beyond)
        totals["charged"] += outcome.settled_gflop - beyond
        totals["charged_fen"] += outcome.fen - beyond_fen
        totals["beyond"] += beyond
        totals["borne"] += outcome.borne_gflop
        totals["overrun"] += outcome.overrun_gflop
        state = _next(state, outcome.reserved_gflop, outcome.held_ms_max, outcome.cover)
        assert totals["charged"] <= cap
        assert totals["charged_fen"] <= cap_fen
        assert wallet.pending_dr == state.reserved_gflop
        if end is None or i < end:
            assert state.reserved_gflop <= cap - totals["charged"] + 500
            assert totals["beyond"] == 0
    used = units.held_gflop(100, state.held_ms)
    assert used == totals["charged"] + totals["beyond"] + totals["borne"] + totals["overrun"]
    assert 10_000 - wallet.posted == totals["charged"] + totals["beyond"]
    if end is None:
        assert totals["overrun"] == 0


def _next(state: Claim, reserved: int, promised_ms: int, left: Cover | None) -> Claim:
    assert left is not None
    assert state.cover is not None
    return replace(
        state,
        hold_seq=state.hold_seq + 1,
        usage_seq=state.usage_seq + 1,
        metered_ms=state.held_ms,
        reserved_gflop=reserved,
        cover=replace(left, promised_ms=max(promised_ms, state.cover.promised_ms)),
    )


def test_a_claim_that_ends_keeps_nothing() -> None:
    ended = claim(cover=cover(cap_gflop=900), ended=True)
    done = run([ended], [lot(gflop=5_000)], balances(5_000, 1_000))
    assert done.outcomes[0].reserved_gflop == 0
    assert done.balances[WALLET].pending_dr == 0
    with pytest.raises(ValueError, match="more were settled"):
        LotBook([lot(gflop=1)]).burn(WALLET, 2, fen_max=PLENTY)
