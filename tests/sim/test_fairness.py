"""Quota, reclaim and fair share, checked from the log by books of their own in plain Python."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dusuan.core.scheduling import accounts as tree
from dusuan.core.scheduling import fairness
from dusuan.core.scheduling.accounts import accounts_array
from dusuan.core.scheduling.kernels import accounts as ledger
from dusuan.core.scheduling.kernels import fairness as kernels

POOL = 20_000


@st.composite
def trees(draw: st.DrawFn) -> Any:
    """A pool, up to four organisations in it, and up to three accounts in each."""
    rows = [-1]
    organisations = draw(st.integers(1, 4))
    rows += [0] * organisations
    for parent in range(1, organisations + 1):
        rows += [parent] * draw(st.integers(0, 3))
    found = accounts_array(len(rows))
    found["parent"] = rows
    limit = st.sampled_from([-1, 0, 1_000, 4_000])
    for a in range(1, len(rows)):
        found[a]["weight"] = draw(st.sampled_from([0.5, 1.0, 3.0]))
        found[a]["quota_milli"] = draw(st.sampled_from([-1, 0, 2_000, 4_000]))
        found[a]["borrow_milli"], found[a]["lend_milli"] = draw(limit), draw(limit)
    return found


class Books:
    """What everybody uses and is guaranteed, from the log of what was given and taken back."""

    def __init__(self, accounts: Any) -> None:
        self.accounts, self.used, self.own = accounts, defaultdict(int), defaultdict(int)

    def above(self, a: int) -> list[int]:
        path = []
        while a >= 0:
            path.append(a)
            a = int(self.accounts[a]["parent"])
        return path

    def move(self, a: int, milli: int) -> None:
        self.own[a] += milli
        for each in self.above(a):
            self.used[each] += milli

    def below(self, a: int) -> list[int]:
        return [b for b in range(len(self.accounts)) if self.accounts[b]["parent"] == a]

    def quota(self, a: int) -> int:
        """Guaranteed to `a` and all below: its own, and no less than what they are promised."""
        if a == 0:
            return max(POOL, sum(self.quota(b) for b in self.below(a)))
        return max(int(self.accounts[a]["quota_milli"]), sum(map(self.quota, self.below(a))), 0)

    def own_quota(self, a: int) -> int:
        """Guaranteed to the jobs of `a` itself: what its children are not."""
        return self.quota(a) - sum(map(self.quota, self.below(a)))

    def borrows(self, b: int, a: int) -> bool:
        """Whether jobs of `b` use what is guaranteed to others, `a` among them."""
        if b != a and b in self.above(a):
            return self.own[b] > self.own_quota(b)
        return any(self.used[c] > self.quota(c) for c in self.above(b) if c not in self.above(a))

    def check(self) -> None:
        """Nobody is above quota and borrowing limit; nobody's unlent part is used by others."""
        for a in range(1, len(self.accounts)):
            borrow = int(self.accounts[a]["borrow_milli"])
            if borrow >= 0:
                assert self.used[a] <= self.quota(a) + borrow
        for a in range(len(self.accounts)):
            children = self.below(a)
            kept = 0  # of what the children are guaranteed, idle and not lent
            for b in children:
                lend = int(self.accounts[b]["lend_milli"])
                if lend >= 0:
                    kept += max(0, self.quota(b) - lend - self.used[b])
            if a == 0:
                assert self.used[a] + kept <= self.quota(a)


JOBS = st.lists(st.tuples(st.integers(0, 99), st.sampled_from([250, 1_000, 3_000])), max_size=40)


def queue(accounts: Any, drawn: Any) -> Any:
    found = np.zeros(len(drawn), fairness.QUEUED)
    for i, (a, milli) in enumerate(sorted((a % len(accounts), milli) for a, milli in drawn)):
        found[i] = (a, milli, 0, 0)
    return found


def admit(shares: Any, jobs: Any, free: int = POOL) -> list[int]:
    admitted = np.empty(max(len(jobs), 1), np.int64)
    kernels.open_queues(shares.record, jobs)
    return [int(j) for j in admitted[: kernels.admit(shares.record, jobs, free, 1.0, admitted)]]


@settings(max_examples=150, deadline=None)
@given(trees(), JOBS, st.randoms(use_true_random=False))
def test_quotas_and_limits_hold_and_the_books_close(accounts: Any, drawn: Any, dice: Any) -> None:
    shares, books = fairness.new_shares(accounts, (POOL, 1, 1)), Books(accounts)
    jobs = queue(accounts, drawn)
    held = admit(shares, jobs)
    for j in held:
        books.move(int(jobs[j]["account"]), int(jobs[j]["milli"]))
        books.check()
    by_account = defaultdict(list)
    for j in held:
        by_account[int(jobs[j]["account"])].append(j)
    for a, mine in by_account.items():
        first = int(np.flatnonzero(jobs["account"] == a)[0])
        assert mine == list(range(first, first + len(mine))), "first come, first served"
    for a in range(len(accounts)):
        waits = np.flatnonzero((jobs["account"] == a) & ~np.isin(np.arange(len(jobs)), held))
        if len(waits):
            head, idle = int(jobs[waits[0]]["milli"]), POOL - books.used[0]
            assert head > idle or head > ledger.available(shares.record, a), "work conserving"
    dice.shuffle(held)
    for j in held:
        ledger.give(shares.record, int(jobs[j]["account"]), int(jobs[j]["milli"]))
    for name in ("used_milli", "own_used_milli"):
        assert not shares.accounts[name].any()


def reclaim(
    shares: Any, whose: Any, milli: Any, a: int, wanted: int, idle: int
) -> tuple[bool, Any]:
    """Whether `a` gets back what it is guaranteed, and which jobs stop, the first ones first."""
    held = np.array(whose, np.int64), np.array(milli, np.int64)
    order, chosen = np.arange(len(whose)), np.zeros(len(whose), np.int64)
    done = ledger.reclaim(shares.record, *held, order, a, wanted, idle, chosen)
    return done, chosen > 0


@settings(max_examples=150, deadline=None)
@given(trees(), JOBS, st.integers(1, 99), st.sampled_from([500, 2_000]), st.booleans())
def test_what_is_guaranteed_is_reclaimed(
    accounts: Any, drawn: Any, who: int, wanted: int, late: bool
) -> None:
    accounts["borrow_milli"], accounts["lend_milli"] = -1, -1
    a = 1 + who % (len(accounts) - 1)
    if late:  # others were there first, so that there is something to take back
        drawn = [(b, milli) for b, milli in drawn if b % len(accounts) != a]
    shares, books = fairness.new_shares(accounts, (POOL, 1, 1)), Books(accounts)
    jobs = queue(accounts, drawn)
    admitted = admit(shares, jobs)
    for j in admitted:
        books.move(int(jobs[j]["account"]), int(jobs[j]["milli"]))
    held = jobs[admitted]
    used, idle = books.used[a], POOL - books.used[0]
    before = shares.accounts["used_milli"].copy()
    done, chosen = reclaim(shares, held["account"], held["milli"], a, wanted, idle)
    promised = used + wanted <= books.quota(a) or books.own[a] + wanted <= books.own_quota(a)
    if promised and books.quota(0) == POOL:  # and the pool is not promised twice
        assert done
    if not done:
        assert not chosen.any() and (shares.accounts["used_milli"] == before).all()
    freed = int(held["milli"][chosen].sum())
    if done:
        assert idle + freed >= wanted
        assert ledger.available(shares.record, a) >= wanted
        for h in np.flatnonzero(chosen):
            assert books.borrows(int(held[h]["account"]), a), "only borrowers are stopped"
        for h in np.flatnonzero(chosen):
            assert idle + freed - int(held[h]["milli"]) < wanted or len(books.above(a)) > 2, (
                "nobody is stopped for nothing"
            )


def test_nobody_stops_a_job_of_its_own_for_another() -> None:
    accounts = accounts_array(4)
    accounts["parent"], accounts["quota_milli"] = [-1, 0, 0, 1], [-1, 8_000, -1, 3_000]
    shares = fairness.new_shares(accounts, (POOL, 1, 1))
    for who, milli in ((1, 6_000), (2, 14_000)):
        ledger.hold(shares.record, who, milli)
    done, chosen = reclaim(shares, [1, 2], [6_000, 14_000], 1, 2_000, 0)
    assert (done, chosen.tolist()) == (True, [False, True])


def test_own_jobs_and_children_take_back_from_each_other() -> None:
    """An account's own jobs are guaranteed what its children are not, and no more."""
    accounts = accounts_array(4)
    accounts["parent"], accounts["quota_milli"] = [-1, 0, 1, 1], [-1, 8_000, 3_000, -1]
    for who, used_by, wanted, done in [
        (2, 0, 3_000, True),  # of what the pool's own jobs hold
        (2, 1, 3_000, True),
        (2, 1, 3_500, False),
        (1, 3, 5_000, True),
        (1, 2, 6_000, False),
        (1, 1, 1_000, False),  # nothing is gained by stopping one's own
    ]:
        shares = fairness.new_shares(accounts, (POOL, 1, 1))
        jobs = POOL // 500
        for _ in range(jobs):
            ledger.hold(shares.record, used_by, 500)
        found, chosen = reclaim(shares, [used_by] * jobs, [500] * jobs, who, wanted, 0)
        assert found == done, (who, used_by)
        assert chosen.sum() * 500 == (wanted if done else 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=2, max_size=6), st.integers(0, 2**31))
def test_nobody_starves_beyond_the_bound(weights: list[float], seed: int) -> None:
    """From the log: while i waits, j gets at most weight_j (share_i - share_j) + one request."""
    draw = np.random.default_rng(seed)
    accounts = accounts_array(len(weights) + 1)
    accounts["parent"][1:], accounts["weight"][1:] = 0, weights
    jobs = np.zeros(400, fairness.QUEUED)
    jobs["account"] = np.sort(draw.integers(1, len(accounts), len(jobs)))
    jobs["milli"] = draw.choice([100, 500, 2_000], len(jobs))
    shares = fairness.new_shares(accounts, (10**9, 1, 1))
    shares.use[1:, 0] = draw.integers(0, 30_000, len(weights))  # history
    kernels.set_shares(shares.record)
    share = {a: shares.use[a, 0] / weights[a - 1] for a in range(1, len(accounts))}
    queues = {a: np.flatnonzero(jobs["account"] == a).tolist() for a in share}
    since = {a: dict(share) for a in share}  # shares when a's present turn began to be waited for
    got = {a: defaultdict(float) for a in share}
    for j in admit(shares, jobs, 10**9):
        a, milli = int(jobs[j]["account"]), float(jobs[j]["milli"])
        for i in share:
            if i != a and queues[i]:
                got[i][a] += milli
                lag = max(0.0, weights[a - 1] * (since[i][i] - since[i][a]))
                assert got[i][a] <= lag + jobs["milli"].max() + 1e-6
        queues[a].remove(j)
        share[a] += milli / weights[a - 1]
        since[a], got[a] = dict(share), defaultdict(float)
    assert not any(queues.values())


@settings(max_examples=80, deadline=None)
@given(trees(), st.data())
def test_the_fair_order_is_the_fair_tree(accounts: Any, data: st.DataObject) -> None:
    """By the shares on the way down from the pool; where those are equal, accounts are equal."""
    shares = fairness.new_shares(accounts, (POOL, 2 * POOL, 3 * POOL))
    for a in range(len(accounts)):
        shares.use[a] = [data.draw(st.integers(0, 3)) * 100.0 for _ in range(3)]
    rank = fairness.fair_order(shares)
    dominant = (shares.use / np.array([POOL, 2 * POOL, 3 * POOL])).max(axis=1) / accounts["weight"]
    books = Books(accounts)
    ways = [tuple(dominant[b] for b in books.above(a)[-2::-1]) for a in range(len(accounts))]
    padded = [way + (0.0,) * (3 - len(way)) for way in ways]
    places = {way: place for place, way in enumerate(sorted(set(padded)))}
    assert rank.tolist() == [places[way] for way in padded]


def max_min(total: float, asked: dict[int, float], weight: Any) -> dict[int, float]:
    """Weighted water-filling by rounds: who is satisfied leaves, the rest is dealt out again."""
    share, open_ = dict.fromkeys(asked, 0.0), {a for a in asked if asked[a] > 0}
    while open_ and total > 1e-9:
        part = total / sum(weight[a] for a in open_)
        full = {a for a in open_ if asked[a] - share[a] <= part * weight[a] + 1e-12}
        for a in full or open_:
            given_ = asked[a] - share[a] if full else part * weight[a]
            share[a] += given_
            total -= given_
        open_ = open_ - full if full else set()
    return share


@settings(max_examples=80, deadline=None)
@given(trees(), st.data())
def test_what_is_owed_is_weighted_max_min(accounts: Any, data: st.DataObject) -> None:
    demand = np.array([float(data.draw(st.integers(0, 9_000))) for _ in accounts])
    owed = fairness.owed(accounts, float(POOL), demand)
    books = Books(accounts)
    asked = {
        a: sum(demand[b] for b in range(len(accounts)) if a in books.above(b))
        for a in range(len(accounts))
    }
    for a in range(len(accounts)):
        left = max(0.0, owed[a] - demand[a])
        expected = max_min(left, {b: asked[b] for b in books.below(a)}, accounts["weight"])
        for b, share in expected.items():
            assert owed[b] == pytest.approx(share, abs=1e-6)
    assert owed[0] == pytest.approx(min(POOL, asked[0]))


def test_new_use_weighs_more_is_old_use_fades() -> None:
    accounts = accounts_array(3)
    accounts["parent"][1:] = 0
    shares = fairness.new_shares(accounts, (POOL, 1, 1))
    job = np.zeros(1, fairness.QUEUED)
    job["milli"] = 1_000
    kernels.charge(shares.record, 1, job[0], fairness.weight_of_use(0, 3_600_000))
    kernels.charge(shares.record, 2, job[0], fairness.weight_of_use(3_600_000, 3_600_000))
    assert shares.use[2, 0] == 2 * shares.use[1, 0], "an hour old use is worth half"
    fairness.rebase(shares, 2.0)
    assert shares.use[:, 0].tolist() == [1_500, 500, 1_000]
    assert fairness.weight_of_use(5, 0) == 1.0, "no half-life: use never fades"


def test_trees_that_cannot_be_used() -> None:
    assert isinstance(tree.ordered(np.array([-1, 2, 1])), tree.AccountProblem)
    assert isinstance(tree.ordered(np.array([-1, -1])), tree.AccountProblem)
    order = tree.ordered(np.array([3, 3, 0, -1, 1]))
    assert isinstance(order, np.ndarray) and order.tolist() == [3, 0, 1, 2, 4]
    accounts = accounts_array(2)
    accounts["parent"] = -1
    with pytest.raises(ValueError, match="level by level"):
        fairness.new_shares(accounts, (1, 1, 1))
    accounts["parent"][1], accounts["weight"][1] = 0, 0.0
    with pytest.raises(ValueError, match="not above 0"):
        fairness.new_shares(accounts, (1, 1, 1))
    assert tree.problem_of(accounts[:0]) is not None
