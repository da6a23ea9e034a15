"""Checks quotas, borrowing, lending and reclaim from a log of decisions, with books of its own.

It knows the tree of accounts and the size of the pool, and reads the log that `sim run --log`
writes. What an account counts for is worked out anew at every line, from who holds what:

    its own jobs + for each child the larger of what that counts for and what it does not lend
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What one account may use, in milli of devices; None: nothing guaranteed, or no limit."""

    above: str | None = None
    quota: int | None = None
    borrow: int | None = None
    lend: int | None = None


@dataclass
class Seen:
    """A job of which the log has told."""

    account: str
    asked: int
    tier: int
    held: int = 0


@dataclass
class Auditor:
    """Reads a log. `tree` has every account but the pool, which is called ""."""

    tree: Mapping[str, Limits]
    pool: int
    jobs: dict[str, Seen] = field(default_factory=dict)
    own: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    starting: str | None = None
    seen: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # what there was to see

    def read(self, log: Iterable[dict[str, Any]]) -> Auditor:
        """The whole log; fails at the first line that breaks a promise."""
        for line in log:
            if line["kind"] != "start" or line["job"] != self.starting:
                self.settle()
            getattr(self, line["kind"], lambda _line: None)(line)
        self.settle()
        return self

    def submit(self, line: dict[str, Any]) -> None:
        self.jobs[line["job"]] = Seen(
            line["account"], line["devices"] * line["milli"], line["tier"]
        )

    def start(self, line: dict[str, Any]) -> None:
        job = self.jobs[line["job"]]
        milli = len(line["devices"]) * line["milli"]
        job.held += milli
        self.own[job.account] += milli
        self.starting = line["job"]

    def settle(self) -> None:
        """All of a job's devices are known: nobody may be above a limit because of it."""
        if self.starting is not None:
            account: str | None = self.jobs[self.starting].account
            while account:
                self.within(account)
                account = self.tree[account].above or ""
            self.within("")
        self.starting = None

    def within(self, account: str) -> None:
        counts, limits = self.counts(account), self.tree.get(account, Limits())
        guaranteed = self.guaranteed(account)
        if account == "":
            assert counts <= max(self.pool, guaranteed), "what others do not lend is used"
        elif limits.borrow is not None:
            assert counts <= guaranteed + limits.borrow, f"{account} is above its limit"
        if counts > guaranteed:
            self.seen["borrowed"] += 1

    def end(self, line: dict[str, Any]) -> None:
        job = self.jobs[line["job"]]
        self.own[job.account] -= job.held
        job.held = 0

    lost = end

    def preempt(self, line: dict[str, Any]) -> None:
        victim, taker = self.jobs[line["job"]], self.jobs[line["for"]]
        assert victim.tier >= taker.tier
        if victim.tier == taker.tier:
            self.seen["reclaimed"] += 1
            assert self.is_owed(taker, victim), f"{line['job']} did not borrow what was asked for"
        self.end(line)

    # -- books -------------------------------------------------------------------------------

    def below(self, account: str) -> list[str]:
        return [name for name, each in self.tree.items() if (each.above or "") == account]

    def guaranteed(self, account: str) -> int:
        """Its quota, and no less than what the accounts below it are promised."""
        promised = sum(map(self.guaranteed, self.below(account)))
        quota = self.pool if account == "" else self.tree[account].quota or 0
        return max(quota, promised)

    def unlent(self, account: str) -> int:
        lend = self.tree[account].lend
        return 0 if lend is None else self.guaranteed(account) - lend

    def counts(self, account: str) -> int:
        """What `account` counts for: see above."""
        children = self.below(account)
        return self.own[account] + sum(max(self.counts(b), self.unlent(b)) for b in children)

    def way(self, account: str) -> list[str]:
        """From the pool down to `account`."""
        found = [account]
        while found[-1]:
            found.append(self.tree[found[-1]].above or "")
        return found[::-1]

    def own_guaranteed(self, account: str) -> int:
        return self.guaranteed(account) - sum(map(self.guaranteed, self.below(account)))

    def is_owed(self, taker: Seen, victim: Seen) -> bool:
        """Whether `taker` is guaranteed what it asks for where `victim` borrows on every level."""
        mine, other = self.way(taker.account), self.way(victim.account)
        if mine == other:
            return False
        meet = sum(1 for a, b in zip(mine, other, strict=False) if a == b)
        borrows = self.own[victim.account] > self.own_guaranteed(victim.account)
        for account in other[meet:]:
            borrows = borrows and self.counts(account) > self.guaranteed(account)
        self.own[taker.account] += taker.asked
        if meet < len(mine):
            fits = self.counts(mine[meet]) <= self.guaranteed(mine[meet])
        else:
            fits = self.own[taker.account] <= self.own_guaranteed(taker.account)
        self.own[taker.account] -= taker.asked
        return borrows and fits
