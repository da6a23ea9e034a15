"""The auditor: what every reply and every balance must be, from the rules and from nothing else.

It imports nothing of dusuan. The rules are those of the ledger protocol (units, floors, lots and
their order, cumulative usage, rounding, holds and their renewal, expiry), told again in another
form: a wallet is its lots, a balance is their sum, and whatever is posted is a list of
(from, to, amount). Where the platform keeps running totals, the auditor counts anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

DAY_MS = 86_400_000
Posting = tuple[str, str, int]  # from (debited), to (credited), amount of their common unit


@dataclass(frozen=True)
class Rules:
    """The operator's settings. Milliseconds of elapsed time."""

    slice_ms: int
    least_ms: int
    settle_ms: int
    head_ms: int


@dataclass
class Lot:
    """Degrees of one origin: `size` GFLOP were `paid` fen; `left` of them are still there."""

    name: str
    size: int
    left: int
    paid: int
    rank: int
    free: bool
    born_ms: int
    ends_ms: int | None

    def worth(self, gone: int) -> int:
        """Fen that have left with the first `gone` GFLOP: rounded once, from the total."""
        with localcontext() as context:
            context.prec = 60
            exact = Decimal(self.paid) * gone / self.size
            return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_EVEN))

    @property
    def gone_fen(self) -> int:
        """Fen that have left."""
        return self.worth(self.size - self.left)

    def take(self, most: int) -> tuple[int, int]:
        """Take up to `most` GFLOP; GFLOP and fen taken."""
        before, gflop = self.gone_fen, min(most, self.left)
        self.left -= gflop
        return gflop, self.gone_fen - before


@dataclass
class Wallet:
    """What one or more accounts pay from."""

    path: str
    lots: list[Lot] = field(default_factory=list)
    fen: int = 0

    @property
    def gflop(self) -> int:
        """The balance: what its lots hold."""
        return sum(lot.left for lot in self.lots)

    def in_order(self) -> list[Lot]:
        """Open lots as they burn: rank, then expiry (never is last), then granted, then age."""
        never = float("inf")
        return sorted(
            (lot for lot in self.lots if lot.left),
            key=lambda lot: (
                lot.rank,
                never if lot.ends_ms is None else lot.ends_ms,
                0 if lot.free else 1,
                lot.born_ms,
                lot.name,
            ),
        )

    def burn(self, gflop: int) -> list[tuple[Lot, int, int]]:
        """Take `gflop` in order: (lot, GFLOP, fen)."""
        taken = []
        for lot in self.in_order():
            if gflop:
                some, fen = lot.take(gflop)
                gflop -= some
                taken.append((lot, some, fen))
        assert not gflop, f"{self.path} was to burn {gflop} GFLOP more than it holds"
        return taken


@dataclass
class Account:
    """A customer's account. `chain`: itself and its ancestors. `ceiling`: the most it may ever have
    spent (None: no limit); `spent`: what all below it have spent."""

    path: str
    wallet: str
    chain: tuple[str, ...]
    ceiling: int | None = None
    spent: int = 0


@dataclass
class Job:
    """A job and the attempt it is at. `reserved` None: no hold is open."""

    name: str
    account: str
    wallet: str
    chain: tuple[str, ...]
    count: int
    grace_ms: int
    again: bool  # it declares how it saves its state
    state: str = "queued"
    reserved: int | None = None
    holds: int = 0
    attempt: str | None = None
    rating: int = 0
    order: tuple[int, str] = (0, "")
    held_ms: int = 0
    metered_ms: int = 0
    usages: int = 0
    lease_ms: int = 0
    ended: str | None = None
    lost: int = 0
    cancelled: bool = False
    used: int = 0
    paid: int = 0
    fen: int = 0

    def used_at(self, ms: int) -> int:
        """GFLOP held when the register stood at `ms`: rounded down, from the total."""
        return self.rating * ms // 1_000

    @property
    def per_s(self) -> int:
        """GFLOP an elapsed second."""
        return self.rating * self.count

    @property
    def unposted(self) -> int:
        """GFLOP held and not posted yet."""
        return self.used_at(self.held_ms) - self.used_at(self.metered_ms)

    @property
    def live(self) -> bool:
        """Whether an attempt is there that has something left to post."""
        return self.attempt is not None


@dataclass
class Refusal:
    """A request that must be refused, and the code of why."""

    code: str


@dataclass
class Done:
    """What a request must do: the transfers that it posts."""

    postings: list[list[Posting]] = field(default_factory=list)


Verdict = Done | Refusal


def seconds_of(rate: int, ms: int) -> int:
    """GFLOP at `rate` a second for `ms`, rounded up: what must be there before it is used."""
    return -(-rate * ms // 1_000)


class Auditor:
    """All that is owed and owned, by the rules."""

    def __init__(self, rules: Rules, rating: int) -> None:
        self.rules = rules
        self.rating = rating
        self.accounts: dict[str, Account] = {}
        self.wallets: dict[str, Wallet] = {}
        self.jobs: dict[str, Job] = {}
        gflop = ("issued", "consumed", "lapsed", "loss", "borne")
        self.house = dict.fromkeys((*gflop, "bank", "deferred", "revenue", "breakage"), 0)
        self.packages: dict[str, tuple[int, int, int | None, int]] = {}

    # -- who and what there is -----------------------------------------------------------------

    def account(self, path: str, *, pooled: bool = False, ceiling: int | None = None) -> None:
        """An account, with a wallet of its own or its parent's."""
        parent = self.accounts.get(path.rpartition("/")[0])
        own = parent is None or not pooled
        if own:
            self.wallets[path] = Wallet(path)
        wallet = path if own or parent is None else parent.wallet
        above = parent.chain if parent else ()
        self.accounts[path] = Account(path, wallet, (path, *above), ceiling)

    def wallet_of(self, path: str) -> Wallet:
        """What `path` pays from."""
        return self.wallets[self.accounts[path].wallet]

    def held(self, wallet: str) -> int:
        """GFLOP that open holds have set aside in a wallet."""
        return sum(j.reserved or 0 for j in self.open_jobs() if j.wallet == wallet)

    def held_below(self, path: str) -> int:
        """GFLOP that open holds have set aside under an account's ceiling."""
        return sum(j.reserved or 0 for j in self.open_jobs() if path in j.chain)

    def open_jobs(self) -> list[Job]:
        """Jobs that have not ended."""
        return list(self.jobs.values())

    def free(self, wallet: str) -> int:
        """What a wallet can still set aside."""
        return self.wallets[wallet].gflop - self.held(wallet)

    def below_ceiling(self, path: str) -> int | None:
        """What an account may still set aside; None: no ceiling."""
        account = self.accounts[path]
        if account.ceiling is None:
            return None
        return account.ceiling - account.spent - self.held_below(path)

    # -- money and degrees in ------------------------------------------------------------------

    def pay(self, path: str, fen: int) -> Verdict:
        """Money received for an account."""
        self.wallet_of(path).fen += fen
        return self._post([("house/bank", f"{self.accounts[path].wallet}:cash", fen)])

    def buy(self, path: str, name: str, now_ms: int, lot: str, *, operator: bool) -> Verdict:
        """Buy a package; a member pays from the account's cash."""
        size, price, days, rank = self.packages[name]
        wallet = self.wallet_of(path)
        if not operator:
            if price == 0:
                return Refusal("operator_only")
            if wallet.fen < price:
                return Refusal("not_enough_cash")
            wallet.fen -= price
        ends = None if days is None else now_ms + days * DAY_MS
        wallet.lots.append(Lot(lot, size, size, price, rank, price == 0, now_ms, ends))
        payer = "house/bank" if operator else f"{wallet.path}:cash"
        postings = [
            (payer, "house/deferred", price),
            ("house/issued", f"{wallet.path}:wallet", size),
        ]
        return self._post([p for p in postings if p[2]])

    def transfer(self, path: str, to: str, gflop: int, now_ms: int, names: list[str]) -> Verdict:
        """Degrees from one wallet of an organisation to another one's."""
        source, target = self.wallet_of(path), self.wallet_of(to)
        if path.split("/")[0] != to.split("/")[0]:
            return Refusal("other_organisation")
        if source is target:
            return Refusal("same_wallet")
        expired = sum(lot.left for lot in source.lots if _over(lot, now_ms))
        if self.free(source.path) - expired < gflop:
            return Refusal("balance_too_small")
        lapsed = self._lapse(source, now_ms)
        taken = source.burn(gflop)
        assert len(names) == len(taken), f"{len(taken)} lots were to move, {len(names)} did"
        for name, (lot, size, fen) in zip(names, taken, strict=True):
            moved = Lot(name, size, size, fen, lot.rank, lot.free, lot.born_ms, lot.ends_ms)
            target.lots.append(moved)
        done = self._post([(f"{source.path}:wallet", f"{target.path}:wallet", gflop)])
        return Done(lapsed + done.postings)

    def budget(self, path: str, gflop: int | None) -> Verdict:
        """From now on `path` and all below may spend so much more."""
        if gflop is not None and gflop < self.held_below(path):
            return Refusal("budget_below_holds")
        account = self.accounts[path]
        account.ceiling = None if gflop is None else account.spent + gflop
        return Done()

    # -- jobs ----------------------------------------------------------------------------------

    def first_slice(self, count: int, grace_ms: int) -> int:
        """What must be set aside before a job may start."""
        return seconds_of(self.rating * count, grace_ms + self.rules.head_ms)

    def submit(self, job: Job, now_ms: int) -> Verdict:
        """A job and its first slice, together or not at all."""
        wallet = self.wallets[job.wallet]
        expired = sum(lot.left for lot in wallet.lots if _over(lot, now_ms))
        short = self._lacking(job, min(expired, max(self.free(job.wallet), 0)))
        if short:
            return Refusal(short)  # and what has expired stays for the next one to notice
        lapsed = self._lapse(wallet, now_ms)
        self.jobs[job.name] = job
        self._open(job)
        return Done(lapsed)

    def _lacking(self, job: Job, expired: int = 0) -> str:
        """Why a job's first slice cannot be set aside; empty when it can."""
        wanted = self.first_slice(job.count, job.grace_ms)
        if self.free(job.wallet) - expired < wanted:
            return "balance_too_small"
        short = any(left < wanted for left in self._ceilings(job))
        return "budget_too_small" if short else ""

    def _open(self, job: Job) -> None:
        job.reserved, job.holds = self.first_slice(job.count, job.grace_ms), job.holds + 1

    def cancel(self, name: str) -> Verdict:
        """A queued job ends and its hold is released; a running one is told to stop."""
        job = self.jobs[name]
        job.cancelled = True
        if job.state == "queued":
            del self.jobs[name]
        else:
            job.state = "stopping"
        return Done()

    def set_aside_missing(self, now_ms: int) -> list[list[Posting]]:
        """Jobs that queue again get their first slice, in order, as soon as there is enough."""
        missing = [j for j in self.open_jobs() if j.state == "queued" and j.reserved is None]
        affordable = []
        for job in missing:  # as if all were served now
            if not self._lacking(job):
                job.reserved = self.first_slice(job.count, job.grace_ms)
                affordable.append(job)
        for job in affordable:
            job.reserved = None
        posted = []
        for job in affordable:
            posted += self._lapse(self.wallets[job.wallet], now_ms)
            if not self._lacking(job):
                self._open(job)
        return posted

    def start(self, name: str, attempt: str, order: int) -> None:
        """A job begins its next attempt: a new register, the same hold."""
        job = self.jobs[name]
        assert job.state == "queued", f"{name} was started while {job.state}"
        assert job.reserved is not None, f"{name} was started without a hold"
        job.state, job.attempt, job.rating = "starting", attempt, self.rating
        job.order, job.held_ms, job.metered_ms, job.usages = (order, attempt), 0, 0, 0
        job.ended, job.lease_ms = None, self._lease(job, 0)

    def _lease(self, job: Job, held_ms: int) -> int:
        """The last millisecond that what was used and what is reserved pay for."""
        paid_for = job.used_at(held_ms) + (job.reserved or 0)
        return ((paid_for + 1) * 1_000 - 1) // job.rating

    def report(self, name: str, held_ms: int, ended: str | None) -> None:
        """What a journal says: the highest value counts; what ended stays ended."""
        job = self.jobs[name]
        if job.ended is None:
            job.held_ms = max(job.held_ms, held_ms)
            job.ended = ended
            if job.state == "starting":
                job.state = "running"

    # -- the tick ------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> tuple[int, list[list[Posting]]]:
        """Settle every attempt that is due, let expire what is over, set aside what comes next.

        How many attempts changed, and the one transfer that posts it all.
        """
        claims = sorted((j for j in self.open_jobs() if j.live), key=lambda j: j.order)
        due = [job for job in claims if self._due(job)]
        if not due:
            return 0, []
        lines: list[Posting] = []
        before = {job.name: job.reserved for job in due}
        moved = {job.name: job.held_ms > job.metered_ms for job in due}
        for job in due:
            lines += self._settle(job)
        for path in sorted({job.wallet for job in due}):
            for postings in self._lapse(self.wallets[path], now_ms):
                lines += postings
        self._renew(due, claims)
        changed = [
            j for j in due if j.ended or moved[j.name] or (j.reserved or 0) != before[j.name]
        ]
        for job in changed:
            self._next_hold(job)
        return len(changed), [lines] if lines or changed else []

    def _due(self, job: Job) -> bool:
        elapsed = (job.held_ms - job.metered_ms) // job.count
        rest = (job.reserved or 0) - job.unposted
        return bool(job.ended) or elapsed >= self.rules.settle_ms or rest <= self._short(job)

    def _short(self, job: Job) -> int:
        return job.per_s * (job.grace_ms + self.rules.head_ms) // 1_000

    def _settle(self, job: Job) -> list[Posting]:
        """The customer pays at most what was set aside; the rest is the centre's loss."""
        used, reserved = job.unposted, job.reserved or 0
        settled = min(used, reserved)
        wallet = self.wallets[job.wallet]
        fen = sum(part for _, _, part in wallet.burn(settled))
        job.used, job.paid, job.fen = job.used + used, job.paid + settled, job.fen + fen
        if job.held_ms > job.metered_ms:
            job.usages += 1
        job.metered_ms = job.held_ms
        job.reserved = 0 if job.ended else reserved - settled
        for path in job.chain:
            self.accounts[path].spent += settled
        postings = [
            (f"{job.wallet}:wallet", "house/consumed", settled),
            ("house/loss", "house/consumed", used - settled),
            ("house/deferred", "house/revenue", fen),
        ]
        return self._booked([p for p in postings if p[2]])

    def _renew(self, due: list[Job], claims: list[Job]) -> None:
        """Everybody asks against what is left now; then it is handed out, first started first."""
        running = [job for job in claims if not job.ended]
        asked = [(job, self._wanted(job, running)) for job in due if not job.ended]
        for job, wanted in asked:
            limits = [self.free(job.wallet), *self._ceilings(job)]
            job.reserved = (job.reserved or 0) + max(0, min(wanted, *limits))

    def _ceilings(self, job: Job) -> list[int]:
        return [x for path in job.chain if (x := self.below_ceiling(path)) is not None]

    def _wanted(self, job: Job, running: list[Job]) -> int:
        """A slice ahead; half of what is left is kept for others; near the end, one's share."""
        rules, per_s, kept = self.rules, job.per_s, job.reserved or 0
        funds = list(self._funds(job, running))
        ahead_ms = min([rules.slice_ms, *(left * 1_000 // (2 * rate) for left, rate in funds)])
        if ahead_ms < rules.least_ms + job.grace_ms:
            return min(-(-left * per_s // rate) for left, rate in funds)
        target = per_s * ahead_ms // 1_000
        enough = max(target // 2, self._short(job))
        return 0 if kept >= enough else max(target - kept, 0)

    def _funds(self, job: Job, running: list[Job]) -> Iterator[tuple[int, int]]:
        rate = sum(other.per_s for other in running if other.wallet == job.wallet)
        yield self.free(job.wallet), rate
        for path in job.chain:
            left = self.below_ceiling(path)
            if left is not None:
                yield left, sum(other.per_s for other in running if path in other.chain)

    def _next_hold(self, job: Job) -> None:
        """The hold is resolved; a running attempt gets the next one, one that ended is closed."""
        job.lease_ms = max(job.lease_ms, self._lease(job, job.held_ms))  # it only ever grows
        if job.ended is None:
            job.holds += 1
            return
        job.reserved, job.attempt = None, None
        job.state = self._verdict(job)
        if job.state != "queued":
            del self.jobs[job.name]

    def _verdict(self, job: Job) -> str:
        """A job that can go on queues again when its balance or its node failed it."""
        ended = job.ended
        job.lost += ended == "lost"
        if ended == "exit":
            return "succeeded"
        if job.cancelled:
            return "cancelled"
        if ended == "lease" or (ended == "lost" and job.lost < 3):
            return "queued" if job.again else "failed"
        return "failed"

    # -- expiry --------------------------------------------------------------------------------

    def expire(self, now_ms: int) -> list[list[Posting]]:
        """Every wallet with something expired gives up what no hold needs."""
        return [p for w in self.wallets.values() for p in self._lapse(w, now_ms)]

    def _lapse(self, wallet: Wallet, now_ms: int) -> list[list[Posting]]:
        most, gflop, fen = max(self.free(wallet.path), 0), 0, 0
        for lot in wallet.in_order():
            if _over(lot, now_ms) and most > gflop:
                some, part = lot.take(most - gflop)
                gflop, fen = gflop + some, fen + part
        postings = [
            (f"{wallet.path}:wallet", "house/lapsed", gflop),
            ("house/deferred", "house/breakage", fen),
        ]
        lines = self._booked([p for p in postings if p[2]])
        return [lines] if lines else []

    # -- books ---------------------------------------------------------------------------------

    def _post(self, postings: list[Posting]) -> Done:
        return Done([self._booked(postings)])

    def _booked(self, postings: list[Posting]) -> list[Posting]:
        for source, target, amount in postings:
            assert amount > 0
            for path, change in ((source, -amount), (target, amount)):
                if path.startswith("house/"):
                    self.house[path.removeprefix("house/")] += change
        return postings


def _over(lot: Lot, now_ms: int) -> bool:
    return lot.ends_ms is not None and lot.ends_ms <= now_ms
