"""The tick: settle what was used, void what is over, set aside what comes next.

One pure decision over a batch of holds. It is the only place where degrees leave a wallet for
work done, and it keeps three promises: a customer pays at most what was set aside; what has been
promised to a shepherd stays set aside; scarce balance is handed out in a defined order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dusuan.core import units
from dusuan.core.ledger.balances import Balances
from dusuan.core.ledger.cover import Charge, Cover, charge
from dusuan.core.ledger.lots import Lot, LotBook, LotUse
from dusuan.core.ledger.postings import Draft, House
from dusuan.core.metering.usage import UsageInterval, next_interval


@dataclass(frozen=True, slots=True)
class SlicePolicy:
    """How much is set aside at a time.

    `slice_ms`: what a running job gets ahead where the balance allows. `least_ms`: below this, the
    rest of the balance is handed out whole. `settle_ms`: used work is posted at least this often
    (elapsed). `head_ms`: added to a job's grace for its first slice, and how long before the
    shepherd would stop the job its hold is renewed: longer than the service takes to notice, and
    not longer than `least_ms`.
    """

    slice_ms: int = 3_600_000
    least_ms: int = 10_000
    settle_ms: int = 5_000
    head_ms: int = 5_000


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt's open hold and its meter, as the tick finds them.

    `hold_seq`, `reserved_gflop`: the open hold. `wallet`: the ledger account that pays. `limits`:
    ledger accounts that count its spending (its own and every ancestor's), each with a floor.
    `usage_seq`, `metered_ms`: the last usage interval. `held_ms`: the register now.
    `devices` advance the register together, so it grows `devices` ms per elapsed ms. `cover`: what
    is left of the accepted quote that caps the job's bill, None without one.
    """

    job_id: str
    attempt_id: str
    hold_seq: int
    reserved_gflop: int
    wallet: int
    limits: tuple[int, ...]
    rating_gflops: int
    devices: int
    grace_ms: int
    usage_seq: int
    metered_ms: int
    held_ms: int
    ended: bool
    cover: Cover | None = None

    @property
    def gflop_per_s(self) -> int:
        """GFLOP per elapsed second."""
        return self.rating_gflops * self.devices


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the tick decided for one claim.

    `interval` is the usage posted, None when there was none. `settled` + `borne` (by the centre,
    under a quote) + `overrun` (beyond the hold) is its GFLOP. `beyond` are those of `uses` that
    paid for more than the quote described; `cover` is what is left of the quote.
    The claim's hold is resolved; `reserved_gflop` is the next one's amount (0: none is opened).
    `held_ms_max` is the ceiling that may be promised to the shepherd.
    """

    claim: Claim
    interval: UsageInterval | None
    settled_gflop: int
    overrun_gflop: int
    uses: tuple[LotUse, ...]
    reserved_gflop: int
    held_ms_max: int
    borne_gflop: int = 0
    beyond: tuple[LotUse, ...] = ()
    cover: Cover | None = None

    @property
    def changes(self) -> bool:
        """Whether there is anything to write; a hold is not replaced by one that is the same."""
        claim = self.claim
        return claim.ended or bool(self.interval) or self.reserved_gflop != claim.reserved_gflop

    @property
    def fen(self) -> int:
        """What the settled GFLOP are worth at the prices paid for them."""
        return sum(use.fen for use in self.uses)


@dataclass(frozen=True, slots=True)
class Tick:
    """A whole tick: outcomes in the order of the claims, what changed, and one transfer."""

    outcomes: tuple[Outcome, ...]
    lots: tuple[Lot, ...]
    lapsed: tuple[LotUse, ...]
    balances: Balances
    draft: Draft


def tick(
    claims: Sequence[Claim],
    balances: Balances,
    lots: Sequence[Lot],
    house: House,
    policy: SlicePolicy,
    now_ms: int,
    beside: Mapping[int, int] | None = None,
) -> Tick:
    """Settle `claims` (in the order scarce balance is handed out) and set aside what comes next.

    Every claim is settled up to its register. `balances` must hold every wallet and limit named;
    it is changed in place and returned. `beside`: GFLOP a second that running attempts which are
    not among `claims` draw on each account.
    """
    book = LotBook(lots)
    draft = Draft()
    # 1. Settle: what was used leaves the wallets, what was set aside for it is released.
    settled = [_settle(claim, book, policy) for claim in claims]
    _post(settled, balances, draft, house)
    # 2. Lapse: what has expired and is not set aside leaves the wallets.
    lapsed = lapse(sorted({c.wallet for c in claims}), balances, book, draft, house, now_ms)
    # 3. Renew: running attempts get their next slice.
    extra = _renewals(claims, settled, balances, policy, beside or {})
    outcomes = tuple(_outcome(*pair) for pair in zip(settled, extra, strict=True))
    return Tick(outcomes, tuple(book.changed()), lapsed, balances, draft)


@dataclass(frozen=True, slots=True)
class _Settled:
    claim: Claim
    interval: UsageInterval | None
    charge: Charge
    settled_gflop: int
    overrun_gflop: int
    kept_gflop: int  # still promised to the shepherd
    owed_gflop: int | None  # the most that may be set aside; None: whatever there is


def _settle(claim: Claim, book: LotBook, policy: SlicePolicy) -> _Settled:
    interval = next_interval(
        claim.rating_gflops, claim.usage_seq + 1, claim.metered_ms, claim.held_ms
    )
    used = interval.held_gflop if interval else 0
    charged = _charge(claim, used, book)
    settled, borne = charged.gflop, charged.borne_gflop
    owed = _owed_gflop(claim, charged, policy)
    kept = _kept(claim, used, owed)
    return _Settled(claim, interval, charged, settled, used - settled - borne, kept, owed)


def _post(settled: Sequence[_Settled], balances: Balances, draft: Draft, house: House) -> None:
    """Post what was settled, summed over all claims that draw on the same accounts."""
    sums: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for s in settled:
        together = sums.setdefault((s.claim.wallet, s.claim.limits), [0, 0])
        together[0] += s.settled_gflop
        together[1] += s.kept_gflop - s.claim.reserved_gflop
    for (wallet, limits), (gflop, pending) in sums.items():
        draft.move(wallet, house.consumed, gflop)
        for account in (wallet, *limits):
            balances.change(account, dr=gflop, pending=pending)
    draft.move(house.borne, house.consumed, sum(s.charge.borne_gflop for s in settled))
    draft.move(house.loss, house.consumed, sum(s.overrun_gflop for s in settled))
    fen = sum(use.fen for s in settled for use in s.charge.uses)
    draft.move(house.deferred, house.revenue, fen)


def _charge(claim: Claim, used: int, book: LotBook) -> Charge:
    if claim.cover is None:
        return Charge(book.burn(claim.wallet, min(used, claim.reserved_gflop)))
    return charge(
        claim.cover,
        claim.wallet,
        claim.rating_gflops,
        claim.metered_ms,
        claim.held_ms,
        claim.reserved_gflop,
        book,
    )


def _owed_gflop(claim: Claim, charged: Charge, policy: SlicePolicy) -> int | None:
    """What a quote lets the job still be charged, and a little for work that it did not describe:
    the service learns of that only when it has begun."""
    cover = charged.cover
    if cover is None or cover.done:
        return None
    return cover.cap_gflop + _short_gflop(claim, policy)


def _kept(claim: Claim, used: int, owed_gflop: int | None) -> int:
    """What stays set aside of the hold: what is unused of it, as far as it can still be charged."""
    if claim.ended:
        return 0
    unused = max(claim.reserved_gflop - used, 0)
    return unused if owed_gflop is None else min(unused, owed_gflop)


def lapse(
    wallets: Sequence[int],
    balances: Balances,
    book: LotBook,
    draft: Draft,
    house: House,
    now_ms: int,
) -> tuple[LotUse, ...]:
    """Take what has expired by `now_ms` out of `wallets`, as far as no open hold needs it."""
    lapsed: list[LotUse] = []
    for wallet in wallets:
        uses = book.lapse(wallet, now_ms, balances.left(wallet) or 0)
        gflop = sum(use.gflop for use in uses)
        draft.move(wallet, house.lapsed, gflop)
        draft.move(house.deferred, house.breakage, sum(use.fen for use in uses))
        balances.change(wallet, dr=gflop)
        lapsed.extend(uses)
    return tuple(lapsed)


def _renewals(
    claims: Sequence[Claim],
    settled: Sequence[_Settled],
    balances: Balances,
    policy: SlicePolicy,
    beside: Mapping[int, int],
) -> list[int]:
    """GFLOP set aside on top of what is kept, for each claim, in order."""
    rates = dict(beside)
    for claim in claims:
        if not claim.ended:
            for account in (claim.wallet, *claim.limits):
                rates[account] = rates.get(account, 0) + claim.gflop_per_s
    # Everybody asks against the same balances, so what limits two claims alike is looked up once.
    keys = {(c.wallet, c.limits) for c in claims if not c.ended}
    funds = {key: _funds((key[0], *key[1]), balances, rates) for key in keys}
    extra = [
        0 if s.claim.ended else _owed(s, _wanted(s, funds[s.claim.wallet, s.claim.limits], policy))
        for s in settled
    ]
    for i, s in enumerate(settled):
        if extra[i]:
            extra[i] = _set_aside(s.claim, extra[i], balances)
    return extra


def _owed(settled: _Settled, wanted_gflop: int) -> int:
    """As much of `wanted_gflop` as a quote lets the job still be charged."""
    if settled.owed_gflop is None:
        return wanted_gflop
    return min(wanted_gflop, settled.owed_gflop - settled.kept_gflop)


_UNBOUNDED_MS = 2**62


@dataclass(frozen=True, slots=True)
class _Funds:
    """What is left for all who draw on the same accounts, and how long it lasts at half of it.

    `shares`: (GFLOP left, GFLOP a second drawn on it by all) of each account that has a floor.
    """

    shares: Sequence[tuple[int, int]]
    half_ms: int


def _funds(accounts: Sequence[int], balances: Balances, rates: Mapping[int, int]) -> _Funds:
    lefts = [(balances.left(a), rates[a]) for a in accounts]
    shares = [(left, rate) for left, rate in lefts if left is not None]
    lasts_ms = (left * 1_000 // (2 * rate) for left, rate in shares)
    return _Funds(shares, min(lasts_ms, default=_UNBOUNDED_MS))


def _wanted(settled: _Settled, funds: _Funds, policy: SlicePolicy) -> int:
    """What one attempt asks for, given what is left in its wallet and under each ceiling.

    Half of what is left is kept back for jobs that come later, so slices shrink as a balance or a
    budget nears its end; below `least_ms` the rest is handed out whole, each attempt its share.
    """
    claim = settled.claim
    slice_ms = min(policy.slice_ms, funds.half_ms)
    if slice_ms < policy.least_ms + claim.grace_ms:
        return min(-(-left * claim.gflop_per_s // rate) for left, rate in funds.shares)
    target = claim.gflop_per_s * slice_ms // 1_000
    low = max(target // 2, _short_gflop(claim, policy))
    return max(target - settled.kept_gflop, 0) if settled.kept_gflop < low else 0


def _short_gflop(claim: Claim, policy: SlicePolicy) -> int:
    """Below this, the shepherd would soon begin to stop the attempt."""
    return claim.gflop_per_s * (claim.grace_ms + policy.head_ms) // 1_000


def _set_aside(claim: Claim, wanted_gflop: int, balances: Balances) -> int:
    accounts = (claim.wallet, *claim.limits)
    given = balances.available(accounts, wanted_gflop)
    for account in accounts:
        balances.change(account, pending=given)
    return given


def _outcome(settled: _Settled, extra_gflop: int) -> Outcome:
    claim, charged = settled.claim, settled.charge
    reserved = settled.kept_gflop + extra_gflop
    ahead = reserved if charged.cover is None else charged.cover.promise(reserved)
    held = units.held_gflop(claim.rating_gflops, claim.held_ms)
    return Outcome(
        claim,
        settled.interval,
        settled.settled_gflop,
        settled.overrun_gflop,
        charged.uses,
        reserved,
        units.held_ms_within(claim.rating_gflops, held + ahead),
        charged.borne_gflop,
        charged.beyond,
        charged.cover,
    )


def due(claim: Claim, policy: SlicePolicy) -> bool:
    """Whether an attempt needs the tick now: it ended, used a settling period, or runs short
    (as every attempt does that has only its first slice)."""
    unposted_ms = (claim.held_ms - claim.metered_ms) // claim.devices
    return (
        claim.ended
        or unposted_ms >= policy.settle_ms
        or _left_gflop(claim) <= _short_gflop(claim, policy)
    )


def _left_gflop(claim: Claim) -> int:
    """What the attempt may still use of its lease: its hold, and what the centre pledged."""
    held = units.held_gflop(claim.rating_gflops, claim.held_ms)
    if claim.cover is not None and not claim.cover.done:
        return units.held_gflop(claim.rating_gflops, claim.cover.promised_ms) - held
    return claim.reserved_gflop - held + units.held_gflop(claim.rating_gflops, claim.metered_ms)


def first_slice(gflop_per_s: int, grace_ms: int, policy: SlicePolicy) -> int:
    """GFLOP to set aside before a job may start: its grace and a little work."""
    return -(-gflop_per_s * (grace_ms + policy.head_ms) // 1_000)
