"""A platform on a real PostgreSQL, the auditor beside it, and steps that both of them take.

After every step what it touched is compared row by row: balances, ceilings, lots, holds, attempts,
and the entries of the transfers it posted. Every thousand steps everything is, and the platform's
own audit runs.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from dusuan.app import jobs, placing, pool, rounds, tenants, wallets
from dusuan.app.access import Actor
from dusuan.app.audit import audit
from dusuan.app.context import Platform, Refused
from dusuan.app.once import once
from dusuan.core.ledger.tick import SlicePolicy
from dusuan.core.metering.journal import EndReason
from dusuan.engines.base import Device
from dusuan.store.database import Tx
from dusuan.store.ledger import unix_ms
from tests.proof import books
from tests.proof.auditor import Auditor, Done, Job, Posting, Refusal, Rules, Verdict
from tests.proof.sabotage import CutError, CuttableStore, Saboteur
from tests.proof.shepherds import Shepherds

EPOCH = datetime(2030, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC)
OPERATOR = Actor("key_operator", None, None)
RATING = 97  # GFLOPS a device: shares no factor with milliseconds, so that rounding matters
RULES = Rules(slice_ms=60_000, least_ms=3_000, settle_ms=2_000, head_ms=2_000)
DEVICES, OPEN_JOBS, LOTS = 24, 10, 6
FULL_CHECK_STEPS = 1_000
SPENDERS = 64
DAY_MS = 86_400_000


class Disagreement(AssertionError):
    """The platform and the auditor do not say the same."""


@dataclass
class Asked:
    """A request that was made with a key, and how it was answered."""

    key: str
    verb: Callable[[Tx], dict[str, Any]]
    request: str
    actor: Actor
    answer: dict[str, Any]


@dataclass
class World:
    """One random history on one database."""

    url: str
    folder: Path
    now_ms: int = 0
    steps: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    log: deque[str] = field(default_factory=lambda: deque(maxlen=40))

    def __post_init__(self) -> None:
        self.auditor = Auditor(RULES, RATING)
        devices = [Device(f"d{i:02d}", "n", "Acme", "X", "gpu", i, None) for i in range(DEVICES)]
        self.shepherds = Shepherds(devices)
        self.saboteur = Saboteur(self.url)
        self.ids = itertools.count(1)
        self.issued: list[str] = []
        self.sums: dict[str, list[int]] = {}
        self.asked: deque[Asked] = deque(maxlen=40)
        self.store = CuttableStore(self.url, self.saboteur, max_size=4)
        self.store.open()
        self.platform = Platform(
            self.store,
            self.shepherds,
            now=self.now,
            new_id=self.new_id,
            new_secret=lambda: "secret",
            uploads=self.folder,
            slices=SlicePolicy(RULES.slice_ms, RULES.least_ms, RULES.settle_ms, RULES.head_ms),
        )
        self.eye = psycopg.connect(self.url, autocommit=True)
        self.crowd: CuttableStore | None = None
        self._furnish(devices)

    def now(self) -> datetime:
        """The world's clock."""
        return EPOCH + timedelta(milliseconds=self.now_ms)

    def new_id(self, kind: str) -> str:
        """The next id; those of transfers are remembered until the step is checked."""
        name = f"{kind}_{next(self.ids):08d}"
        if kind == "trf":
            self.issued.append(name)
        return name

    @property
    def clock_ms(self) -> int:
        """The world's clock as the ledger writes it."""
        return unix_ms(self.now())

    def close(self) -> None:
        """Give every connection back."""
        for store in (self.store, self.crowd):
            if store is not None:
                store.close()
        self.eye.close()
        self.saboteur.close()

    # -- the stage -----------------------------------------------------------------------------

    def _furnish(self, devices: Sequence[Device]) -> None:
        """Two organisations with their trees, a few packages, devices."""
        with self.store.transaction() as tx:
            pool.record_inventory(self.platform, tx, devices)
            measured = [pool.Measured(d.device, RATING) for d in devices]
            pool.record_ratings(self.platform, tx, measured)
            self.members = {org: self._org(tx, org) for org in ("acme", "bolt", "rush")}
            for path, pooled, ceiling in (
                ("acme/lab", False, None),
                ("acme/lab/a", True, None),
                ("acme/lab/b", False, 90_000),
                ("acme/ops", False, 40_000),
                ("bolt/x", True, None),
                ("bolt/y", False, None),
                ("rush/to", False, None),
            ):
                tenants.create_account(
                    self.platform, tx, OPERATOR, path, pooled=pooled, budget_gflop=ceiling
                )
                self.auditor.account(path, pooled=pooled, ceiling=ceiling)
        self.paths = [p for p in self.auditor.accounts if not p.startswith("rush")]

    def _org(self, tx: Tx, name: str) -> Actor:
        org = tenants.create_org(self.platform, tx, OPERATOR, name)
        self.auditor.account(name)
        member = tenants.add_member(self.platform, tx, OPERATOR, "owner", name, "owner")
        return Actor("key", member["id"], org["id"])

    # -- a step --------------------------------------------------------------------------------

    def step(self, rng: random.Random, name: str = "") -> None:
        """One operation (a random one), compared with the auditor's; now and then everything."""
        self.now_ms += rng.choice((0, 1, 40, 700, 3_000))
        self.issued.clear()
        name = name or rng.choices(_NAMES, _WEIGHTS)[0]
        self.log.append(f"{self.steps}: {name}")
        _OPERATIONS[name][0](self, rng)
        self.counts[name] += 1
        self.steps += 1
        if self.steps % FULL_CHECK_STEPS == 0:
            self.check_everything()

    def note(self, text: str) -> None:
        """Part of the story that a failure tells."""
        self.log[-1] += " " + text

    # -- asking --------------------------------------------------------------------------------

    def ask(
        self,
        rng: random.Random,
        verb: Callable[[Tx], dict[str, Any]],
        request: str,
        actor: Actor = OPERATOR,
    ) -> dict[str, Any] | Refusal:
        """Ask for something with a key of its own, now and then through a process that dies."""
        self.note(request)
        asked = Asked(f"key{next(self.ids)}", verb, request, actor, {})
        if rng.random() < 0.06:
            self.saboteur.arm(rng.randrange(14), kills=rng.random() < 0.5)
        try:
            answer = self._once(asked)
        except (CutError, psycopg.OperationalError):
            self.note("[cut]")
            self.counts["cut"] += 1
            self.compare({}, self.auditor.accounts)
            answer = self._once(asked)  # the same key again
        finally:
            self.saboteur.disarm()
        if isinstance(answer, dict):
            asked.answer = answer
            self.asked.append(asked)
        return answer

    def _once(self, asked: Asked) -> dict[str, Any] | Refusal:
        try:
            with self.store.transaction() as tx:
                answer = once(
                    tx, asked.actor, asked.key, asked.request, self.now(), lambda: asked.verb(tx)
                )
                return json.loads(json.dumps(dict(answer)))
        except Refused as refused:
            return Refusal(refused.problem.code)

    def agree(
        self, verdict: Verdict, answer: dict[str, Any] | Refusal, touched: Iterable[str]
    ) -> None:
        """The same outcome, and the same books after it."""
        said = answer.code if isinstance(answer, Refusal) else "done"
        meant = verdict.code if isinstance(verdict, Refusal) else "done"
        if said != meant:
            raise Disagreement(f"the platform says {said}, the auditor {meant}")
        if isinstance(verdict, Refusal):
            self.counts["refused"] += 1
        self.compare(self.post(verdict.postings if isinstance(verdict, Done) else []), touched)

    # -- comparing -----------------------------------------------------------------------------

    def post(self, transfers: Iterable[Sequence[Posting]]) -> dict[str, tuple[int, int]]:
        """Add postings to the running sums; (debits, credits) by account of just these."""
        fresh: dict[str, list[int]] = {}
        for source, target, amount in itertools.chain.from_iterable(transfers):
            for path, side in ((source, 0), (target, 1)):
                fresh.setdefault(path, [0, 0])[side] += amount
                self.sums.setdefault(path, [0, 0])[side] += amount
        return {path: (dr, cr) for path, (dr, cr) in fresh.items()}

    def compare(self, entries: dict[str, tuple[int, int]], touched: Iterable[str]) -> None:
        """What a step touched: its entries, and each account with its wallet, lots, holds, jobs."""
        auditor = self.auditor
        paths = {p for t in touched for p in auditor.accounts[t].chain}
        purses = {auditor.accounts[p].wallet for p in paths}
        open_jobs = [j for j in auditor.jobs.values() if j.wallet in purses]
        names = [f"{w}:{kind}" for w in purses for kind in ("wallet", "cash")]
        names += [f"{p}:spend" for p in paths] + [f"house/{h}" for h in auditor.house]
        page = books.read(self.eye, names, purses, [j.name for j in open_jobs], self.issued)
        _same("entries", page.entries, entries)
        _same("accounts", _whole(page.accounts), self._accounts(purses, paths))
        _same("lots", page.lots, self._lots(purses))
        held = {
            j.name: (j.holds, j.reserved) for j in auditor.jobs.values() if j.reserved is not None
        }
        _same("holds", page.holds, held)
        _same("jobs", page.jobs, {j.name: _job_row(j) for j in open_jobs})

    def _accounts(self, purses: Iterable[str], paths: Iterable[str]) -> dict[str, tuple[Any, ...]]:
        auditor, rows = self.auditor, {}
        for wallet in purses:
            purse = auditor.wallets[wallet]
            for kind, left in (("wallet", purse.gflop), ("cash", purse.fen)):
                dr, cr = self.sums.get(f"{wallet}:{kind}", (0, 0))
                _same(f"{wallet}:{kind}", cr - dr, left)
                held = auditor.held(wallet) if kind == "wallet" else 0
                rows[f"{wallet}:{kind}"] = (dr, cr, held, 0)
        for path in paths:
            account = auditor.accounts[path]
            floor = None if account.ceiling is None else -account.ceiling
            rows[f"{path}:spend"] = (account.spent, 0, auditor.held_below(path), floor)
        for name, balance in auditor.house.items():
            dr, cr = self.sums.get(f"house/{name}", (0, 0))
            _same(f"house/{name}", cr - dr, balance)
            rows[f"house/{name}"] = (dr, cr, 0, None)
        return rows

    def _lots(self, purses: Iterable[str]) -> dict[str, dict[str, tuple[Any, ...]]]:
        rows = {
            wallet: {
                x.name: (x.size, x.left, x.paid, x.gone_fen, x.rank, x.free, x.born_ms, x.ends_ms)
                for x in self.auditor.wallets[wallet].lots
                if x.left
            }
            for wallet in purses
        }
        return {wallet: lots for wallet, lots in rows.items() if lots}

    def check_everything(self) -> None:
        """Every account, and every invariant of the platform's own audit."""
        self.issued.clear()
        self.compare({}, self.auditor.accounts)
        with self.store.snapshot() as tx:
            report = audit(tx)
        failed = [check for check in report["checks"] if not check["ok"]]
        if failed:
            raise Disagreement(f"the audit fails: {failed}")
        for wallet in self.auditor.wallets.values():  # lots that are empty need no memory
            wallet.lots = [lot for lot in wallet.lots if lot.left]
        self.counts["full_check"] += 1

    # -- operations ----------------------------------------------------------------------------

    def pay(self, rng: random.Random) -> None:
        """Money comes in."""
        path, fen = rng.choice(self.paths), rng.randrange(1, 4_000)
        answer = self.ask(rng, *self._pay(path, fen))
        self.agree(self.auditor.pay(path, fen), answer, [path])

    def _pay(self, path: str, fen: int) -> tuple[Callable[[Tx], dict[str, Any]], str]:
        return (
            lambda tx: wallets.record_payment(self.platform, tx, OPERATOR, path, fen, ""),
            f"pay {path} {fen}",
        )

    def offer(self, rng: random.Random) -> str:
        """A package on sale: any size and price, some for nothing, some soon over."""
        name = f"p{rng.randrange(6)}"
        size, price = rng.choice((1, 7, 400, 3_000, 30_000)) + rng.randrange(50), rng.randrange(900)
        price = 0 if rng.random() < 0.2 else price
        days, rank = rng.choice((None, None, 1, 2, 30)), rng.choice((100, 100, 50))
        with self.store.transaction() as tx:
            wallets.create_package(self.platform, tx, OPERATOR, name, size, price, days, rank)
        self.auditor.packages[name] = (size, price, days, rank)
        return name

    def buy(self, rng: random.Random) -> None:
        """The operator sells, grants, or a member pays from cash."""
        path = rng.choice(self.paths)
        if len(self.auditor.wallet_of(path).in_order()) >= LOTS:
            return self.transfer(rng)
        known = list(self.auditor.packages)
        name = self.offer(rng) if len(known) < 4 or rng.random() < 0.1 else rng.choice(known)
        self.purchase(rng, path, name, OPERATOR if rng.random() < 0.5 else self._member(path))
        return None

    def purchase(self, rng: random.Random, path: str, name: str, actor: Actor) -> None:
        """One purchase, by whom it may be."""
        answer = self.ask(
            rng,
            lambda tx: wallets.buy_package(self.platform, tx, actor, path, name),
            f"buy {path} {name} {'operator' if actor.operator else 'member'}",
            actor,
        )
        lot = "" if isinstance(answer, Refusal) else answer["id"]
        verdict = self.auditor.buy(path, name, self.clock_ms, lot, operator=actor.operator)
        self.agree(verdict, answer, [path])
        if isinstance(answer, dict):
            _same("wallet view", _shown(answer), self._view(path))

    def _member(self, path: str) -> Actor:
        return self.members[path.split("/")[0]]

    def _view(self, path: str) -> dict[str, Any]:
        auditor, wallet = self.auditor, self.auditor.wallet_of(path)
        return {
            "balance_gflop": wallet.gflop,
            "available_gflop": auditor.free(wallet.path),
            "pending_gflop": auditor.held(wallet.path),
            "cash_fen": wallet.fen,
            "spent_gflop": auditor.accounts[path].spent,
            "budget_left_gflop": auditor.below_ceiling(path),
            "lots": [(lot.name, lot.left) for lot in wallet.in_order()],
        }

    def transfer(self, rng: random.Random) -> None:
        """Degrees to another account: what it has, about that, or a little."""
        path, to = rng.choice(self.paths), rng.choice(self.paths)
        free = max(self.auditor.free(self.auditor.accounts[path].wallet), 0)
        gflop = rng.choice((free, free + 1, 1, rng.randrange(1, 500), free // 2))
        self.move(rng, path, to, max(gflop, 1))

    def move(self, rng: random.Random, path: str, to: str, gflop: int) -> None:
        """One transfer."""
        actor = rng.choice((OPERATOR, OPERATOR, self._member(path)))
        if not actor.operator and path.split("/")[0] != to.split("/")[0]:
            actor = OPERATOR  # for others it does not even exist
        answer = self.ask(rng, *self._move(path, to, gflop, actor), actor)
        names = [] if isinstance(answer, Refusal) else answer["lots"]
        verdict = self.auditor.transfer(path, to, gflop, self.clock_ms, names)
        self.agree(verdict, answer, [path, to])

    def _move(
        self, path: str, to: str, gflop: int, actor: Actor
    ) -> tuple[Callable[[Tx], dict[str, Any]], str]:
        return (
            lambda tx: wallets.transfer_degrees(self.platform, tx, actor, path, to, gflop),
            f"transfer {path} {to} {gflop}",
        )

    def budget(self, rng: random.Random) -> None:
        """A ceiling is set, lowered, or lifted."""
        path = rng.choice(self.paths)
        held = self.auditor.held_below(path)
        gflop = rng.choice((None, held, held + rng.randrange(2_000), 50_000, max(held - 1, 0)))
        answer = self.ask(
            rng,
            lambda tx: tenants.set_budget(tx, OPERATOR, path, gflop),
            f"budget {path} {gflop}",
        )
        self.agree(self.auditor.budget(path, gflop), answer, [path])

    def submit(self, rng: random.Random) -> None:
        """A job with its first slice; it starts in the next round."""
        if len(self.auditor.jobs) >= OPEN_JOBS:
            return self.spend(rng)
        path, count = rng.choice(self.paths), rng.choice((1, 1, 2))
        grace, again = rng.choice((500, 1_000, 2_000)), rng.random() < 0.5
        self.order(rng, path, count, grace if again else 2_000, again)
        if rng.random() < 0.8:
            self.schedule()
        return None

    def order(self, rng: random.Random, path: str, count: int, grace_ms: int, again: bool) -> None:
        """One submission."""
        answer = self.ask(rng, *self._order(path, count, grace_ms, again))
        name = "" if isinstance(answer, Refusal) else answer["job_id"]
        verdict = self.auditor.submit(self._job(name, path, count, grace_ms, again), self.clock_ms)
        self.agree(verdict, answer, [path])

    def _job(self, name: str, path: str, count: int, grace_ms: int, again: bool) -> Job:
        account = self.auditor.accounts[path]
        return Job(name, path, account.wallet, account.chain, count, grace_ms, again)

    def _order(
        self, path: str, count: int, grace_ms: int, again: bool
    ) -> tuple[Callable[[Tx], dict[str, Any]], str]:
        document: dict[str, Any] = {"name": "job", "argv": ["work"]}
        document["resources"] = {"accelerators": f"X:{count}"}
        if again:
            document["checkpoint"] = {"signal": "SIGUSR1", "grace": f"{grace_ms / 1_000:g}s"}
        text = json.dumps(document)
        return (
            lambda tx: jobs.submit(self.platform, tx, OPERATOR, path, text),
            f"submit {path} x{count} grace {grace_ms} again {again}",
        )

    def schedule(self, _: random.Random | None = None) -> None:
        """Whoever has a hold starts; who queues without one gets it, if it can be had."""
        self.shepherds.started.clear()
        self.issued.clear()
        placing.run_schedule(self.platform)
        posted = self.auditor.set_aside_missing(self.clock_ms)
        ready = {
            j.name
            for j in self.auditor.jobs.values()
            if j.state == "queued" and j.reserved is not None
        }
        _same("started", {order.job_id for order in self.shepherds.started}, ready)
        for order in self.shepherds.started:
            self.auditor.start(order.job_id, order.attempt_id, self.clock_ms)
            _same("first lease", order.lease.held_ms_max, self.auditor.jobs[order.job_id].lease_ms)
        self.compare(self.post(posted), self.auditor.accounts)

    def spend(self, rng: random.Random) -> None:
        """Some attempts work on, some end; what they used is posted, what comes next set aside."""
        live = [j for j in self.auditor.jobs.values() if j.live and not j.ended]
        for job in rng.sample(live, min(len(live), rng.choice((1, 1, 2, 4)))):
            self._work(rng, job)
        self.observe()
        self.settle(rng)

    def _work(self, rng: random.Random, job: Job) -> None:
        """A while of work inside the lease, or (rarely) past it."""
        assert job.attempt is not None
        journal = self.shepherds.journals[job.attempt]
        ms = rng.choice((0, 1, 333, 2_000, 9_000, 70_000)) * job.count + rng.randrange(10)
        if rng.random() > 0.03:
            ms = max(0, min(ms, journal.lease.held_ms_max - journal.held_ms))
        ends = 0.5 if len(self.auditor.jobs) >= OPEN_JOBS or job.cancelled else 0.07
        ended = rng.choice(_ENDS) if rng.random() < ends else None
        self.note(f"{job.name}+{ms}{'' if ended is None else ' ' + ended}")
        self.shepherds.work(rng, job.attempt, ms, ended)

    def observe(self) -> None:
        """The journals are read; the auditor reads the same lines."""
        cursors = {
            j.attempt: j
            for j in self.auditor.jobs.values()
            if j.attempt is not None and not j.ended
        }
        told = dict(
            self.eye.execute("SELECT id, cursor FROM attempt WHERE state <> 'ended'").fetchall()
        )
        _same("live attempts", set(told), set(cursors))
        news = self.shepherds.observe(told)
        rounds.observe(self.platform)
        for seen in news:
            job = cursors[seen.attempt_id]
            for record in seen.records:
                reason = None if record.exit is None else str(record.exit.reason)
                self.auditor.report(job.name, record.held_ms, reason)
            if seen.lost:
                self.auditor.report(job.name, 0, "lost")

    def settle(self, rng: random.Random) -> None:
        """One tick, perhaps cut and done again, perhaps with a node that is not told its lease."""
        if rng.random() < 0.05:
            self._cut_settle(rng)
        self.shepherds.broken = rng.random() < 0.03
        changed, transfers = self.auditor.tick(self.clock_ms)
        try:
            said = rounds.settle(self.platform)
        except ConnectionError:
            self.note("[lease not told]")
            rounds.recover(self.platform)  # as after a restart: every lease is told again
            said = changed
        self.shepherds.broken = False
        _same("attempts settled", said, changed)
        self.compare(self.post(transfers), self.auditor.accounts)

    def _cut_settle(self, rng: random.Random) -> None:
        self.saboteur.arm(rng.randrange(20), kills=rng.random() < 0.5)
        before = self.saboteur.cuts
        try:
            undo = copy.deepcopy(self.auditor)
            rounds.settle(self.platform)
            self.post(undo.tick(self.clock_ms)[1])  # it was not cut: the auditor follows
            self.auditor = undo
        except (CutError, psycopg.OperationalError):
            self.note("[tick cut]")
            self.counts["cut"] += 1
        self.saboteur.disarm()
        self.issued.clear()
        self.counts["tick cut"] += self.saboteur.cuts - before
        self.compare({}, self.auditor.accounts)

    def cancel(self, rng: random.Random) -> None:
        """A queued job ends here; a running one will be told."""
        if not self.auditor.jobs:
            return self.submit(rng)
        job = rng.choice(list(self.auditor.jobs.values()))
        answer = self.ask(
            rng,
            lambda tx: jobs.cancel(self.platform, tx, OPERATOR, job.name),
            f"cancel {job.name}",
        )
        self.agree(self.auditor.cancel(job.name), answer, [job.account])
        rounds.stop_cancelled(self.platform)
        return None

    def repeat(self, rng: random.Random) -> None:
        """An old request again: the old answer, and nothing else. With another request: refused."""
        if not self.asked:
            return self.pay(rng)
        asked = rng.choice(self.asked)
        self.note(f"{asked.key} {asked.request}")
        if rng.random() < 0.3:
            other = Asked(asked.key, asked.verb, asked.request + "?", asked.actor, {})
            _same("key reused", self._once(other), Refusal("idempotency_key_reused"))
        else:
            _same("answer again", self._once(asked), asked.answer)
        self.compare({}, self.paths)
        return None

    def wait(self, rng: random.Random) -> None:
        """A day passes, or the time to the next expiry or just before, and what is over leaves."""
        lots = [lot for wallet in self.auditor.wallets.values() for lot in wallet.in_order()]
        ends = [lot.ends_ms - self.clock_ms for lot in lots if lot.ends_ms is not None]
        soon = min((ms for ms in ends if ms > 0), default=0)
        if soon and rng.random() < 0.5:
            self.now_ms += soon - rng.choice((0, 0, 1))
        else:
            self.now_ms += rng.choice((DAY_MS // 4, DAY_MS // 2, DAY_MS))
        rounds.lapse_expired(self.platform)
        self.compare(self.post(self.auditor.expire(self.clock_ms)), self.auditor.accounts)

    def race(self, rng: random.Random) -> None:
        """Two at once: the books are those of one order or of the other."""
        requests = [self._either(rng) for _ in range(2)]
        for asked, _ in requests:
            self.note("& " + asked.request)
        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(lambda r: self._once(r[0]), requests))
        touched = {
            p
            for asked, _ in requests
            for p in asked.request.split()[1:3]
            if p in self.auditor.accounts
        }
        self._one_order([(r[1], a) for r, a in zip(requests, answers, strict=True)], touched)

    def _either(self, rng: random.Random) -> tuple[Asked, Callable[[Any], Verdict]]:
        path, to = rng.choice(self.paths[:4]), rng.choice(self.paths[:4])
        fen, key = rng.randrange(1, 900), f"key{next(self.ids)}"
        if rng.random() < 0.3:
            asked = Asked(key, *self._pay(path, fen), OPERATOR, {})
            return asked, lambda _: self.auditor.pay(path, fen)
        free = max(self.auditor.free(self.auditor.accounts[path].wallet), 1)
        gflop = rng.choice((free, free, free // 2 + 1))
        asked = Asked(key, *self._move(path, to, gflop, OPERATOR), OPERATOR, {})
        return asked, lambda a: self.auditor.transfer(
            path, to, gflop, self.clock_ms, [] if isinstance(a, Refusal) else a["lots"]
        )

    def _one_order(
        self, calls: Sequence[tuple[Callable[[Any], Verdict], Any]], touched: Iterable[str]
    ) -> None:
        """Some order of `calls` explains every answer and the books."""
        before, sums, wrong = self.auditor, self.sums, []
        for order in itertools.permutations(calls):
            self.auditor, self.sums = copy.deepcopy(before), copy.deepcopy(sums)
            try:
                posted = [self._explained(rule, answer) for rule, answer in order]
                self.compare(self.post(itertools.chain.from_iterable(posted)), touched)
            except AssertionError as error:
                wrong.append(str(error))
            else:
                return
        raise Disagreement("no order explains what was seen: " + " | ".join(wrong))

    @staticmethod
    def _explained(rule: Callable[[Any], Verdict], answer: Any) -> list[list[Posting]]:
        verdict = rule(answer)
        said = answer if isinstance(answer, Refusal) else None
        _same("outcome", said, verdict if isinstance(verdict, Refusal) else None)
        return verdict.postings if isinstance(verdict, Done) else []

    def rush(self, rng: random.Random) -> None:
        """64 spenders at once want a wallet's last units: just as many get one as there are."""
        unit, units = self.auditor.first_slice(1, 2_000), rng.randrange(3)
        left = self.auditor.free("rush")
        if left >= unit:
            self.move(rng, "rush", "rush/to", left)
            left = 0
        self.auditor.packages["rush"] = (
            max(unit * units + rng.randrange(unit) - left, 1),
            77,
            None,
            100,
        )
        with self.store.transaction() as tx:
            wallets.create_package(
                self.platform, tx, OPERATOR, "rush", *self.auditor.packages["rush"]
            )
        self.issued.clear()
        self.purchase(rng, "rush", "rush", OPERATOR)
        self.issued.clear()
        self._crowd(unit)

    def _crowd(self, unit: int) -> None:
        """Half of them submit jobs whose first slice is `unit`, half move `unit` away."""
        if self.crowd is None:
            self.crowd = CuttableStore(self.url, self.saboteur, max_size=SPENDERS)
            self.crowd.open()
        there, gate = self.auditor.free("rush") // unit, threading.Barrier(SPENDERS)
        with ThreadPoolExecutor(SPENDERS) as threads:
            answers = list(threads.map(lambda n: self._spender(n, unit, gate), range(SPENDERS)))
        won = [(n, a) for n, a in enumerate(answers) if isinstance(a, dict)]
        lost = {a.code for a in answers if isinstance(a, Refusal)}
        _same("spenders served", len(won), there)
        _same("why the others were not", lost, {"balance_too_small"})
        self._one_order([(self._claim(n, unit), a) for n, a in won], ["rush", "rush/to"])
        for _, answer in won:
            if "job_id" in answer:
                with self.store.transaction() as tx:
                    jobs.cancel(self.platform, tx, OPERATOR, answer["job_id"])
                self.auditor.cancel(answer["job_id"])
        self.issued.clear()
        self.compare({}, ["rush", "rush/to"])

    def _spender(self, n: int, unit: int, gate: threading.Barrier) -> dict[str, Any] | Refusal:
        assert self.crowd is not None
        verb, _ = (
            self._order("rush", 1, 2_000, False)
            if n % 2
            else self._move("rush", "rush/to", unit, OPERATOR)
        )
        gate.wait(30)
        try:
            with self.crowd.transaction() as tx:
                return verb(tx)
        except Refused as refused:
            return Refusal(refused.problem.code)

    def _claim(self, n: int, unit: int) -> Callable[[Any], Verdict]:
        if n % 2:
            return lambda a: self.auditor.submit(
                self._job(a["job_id"], "rush", 1, 2_000, False), self.clock_ms
            )
        return lambda a: self.auditor.transfer("rush", "rush/to", unit, self.clock_ms, a["lots"])


_ENDS = (EndReason.EXIT, EndReason.EXIT, EndReason.LEASE, EndReason.STOPPED, EndReason.LOST)
_OPERATIONS: dict[str, tuple[Callable[[World, random.Random], None], float]] = {
    "spend": (World.spend, 44),
    "submit": (World.submit, 12),
    "schedule": (World.schedule, 4),
    "buy": (World.buy, 14),
    "transfer": (World.transfer, 8),
    "pay": (World.pay, 6),
    "budget": (World.budget, 4),
    "cancel": (World.cancel, 3),
    "repeat": (World.repeat, 5),
    "wait": (World.wait, 2),
    "race": (World.race, 1),
    "rush": (World.rush, 0.1),
}
_NAMES = list(_OPERATIONS)
_WEIGHTS = [weight for _, weight in _OPERATIONS.values()]


def operations() -> dict[str, float]:
    """Every operation by name, and how often of a hundred steps it is done."""
    return {name: weight for name, (_, weight) in _OPERATIONS.items()}


def _same(what: str, said: Any, meant: Any) -> None:
    if said == meant:
        return
    if isinstance(said, dict) and isinstance(meant, dict):
        keys = [k for k in {**said, **meant} if said.get(k) != meant.get(k)]
        said, meant = ({k: d.get(k) for k in keys} for d in (said, meant))
    raise Disagreement(f"{what}: the platform says {said}, the auditor {meant}")


def _whole(rows: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    return {name: tuple(None if v is None else int(v) for v in row) for name, row in rows.items()}


def _job_row(job: Job) -> tuple[Any, ...]:
    if job.attempt is None:
        return (job.state, None, None, None, None, None)
    return (job.state, job.attempt, job.held_ms, job.metered_ms, job.usages, job.lease_ms)


def _shown(answer: dict[str, Any]) -> dict[str, Any]:
    names = ("balance", "available", "pending", "spent", "budget_left")
    view = {f"{name}_gflop": answer[f"{name}_gflop"] for name in names}
    lots = [(lot["id"], lot["remaining_gflop"]) for lot in answer["lots"]]
    return {**view, "cash_fen": answer["cash_fen"], "lots": lots}
