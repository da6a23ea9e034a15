"""CPU of one turn of the service with many running jobs, and how it grows.

Jobs run on the simulated engine; everything else is real: PostgreSQL, the verbs, the loop's own
`step`. Shepherds write once a second and the loop turns four times a second while anything runs,
so a turn finds news of a quarter of all jobs (`news`); `quiet` is a turn without any, `all` one
that comes so late that every job has news and is settled.

    python bench/observe.py [--jobs 100 1000 10000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from dusuan.app import pool, tenants, wallets
from dusuan.app.access import Actor
from dusuan.app.audit import audit
from dusuan.app.context import Platform
from dusuan.engines.base import Device, Lease, StartOrder
from dusuan.service import loop
from dusuan.sim.engine import Behaviour, SimulatedEngine, World
from dusuan.store.database import Store
from dusuan.store.embedded import EmbeddedPostgres
from dusuan.store.migrate import migrate

OPERATOR = Actor("bench", None, None)
ACCOUNTS = 100
QUARTERS = 4
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


# What submitting and starting as many jobs would leave; the way there is measured elsewhere.
SEED = """
INSERT INTO job (id, account_id, name, spec, state, kind, model, count, priority, grace_ms,
                 requeues, balance_before_gflop, submitted_at)
SELECT 'job' || i, (SELECT id FROM account WHERE path = 'org/a' || i %% 100), 'j', '{}',
       'starting', 'gpu', 'x', 1, 0, 2000, false, 0, %(now)s
FROM generate_series(1, %(jobs)s) i;
INSERT INTO attempt (id, job_id, number, state, wallet_id, limit_ids, devices, make, model, kind,
                     rating_gflops, rating_basis, isolation, lease_held_ms, created_at)
SELECT 'att' || i, 'job' || i, 1, 'starting', a.wallet_id, a.limit_ids, 1, 'm', 'x', 'gpu', 1000,
       'calibrated', '', 3600000, %(now)s
FROM generate_series(1, %(jobs)s) i JOIN account a ON a.path = 'org/a' || i %% 100;
INSERT INTO allocation (attempt_id, device, from_at)
SELECT 'att' || i, 'd' || i, %(now)s FROM generate_series(1, %(jobs)s) i;
INSERT INTO hold (job_id, seq, wallet_id, limit_ids, reserved_gflop, opened_at)
SELECT job_id, 1, wallet_id, limit_ids, 3600000, %(now)s FROM attempt;
UPDATE ledger_account l SET pending_dr = h.reserved FROM (
    SELECT account_id, sum(reserved_gflop) AS reserved FROM (
        SELECT wallet_id AS account_id, reserved_gflop FROM hold
        UNION ALL SELECT unnest(limit_ids), reserved_gflop FROM hold) x GROUP BY 1) h
WHERE h.account_id = l.id;
ANALYZE;
"""


class Scene:
    """A platform with `count` running jobs on as many devices."""

    def __init__(self, url: str, count: int) -> None:
        migrate(url)
        devices = [
            Device(f"d{i}", f"n{i // 8}", "m", "x", "gpu", i, 1) for i in range(1, count + 1)
        ]
        self.world = World(devices, lambda _order: Behaviour(run_ms=None))
        self.store, ids = Store(url), itertools.count()
        self.store.open()
        self.platform = Platform(
            self.store,
            SimulatedEngine(self.world),
            now=lambda: BEGAN + timedelta(milliseconds=self.world.now_ms),
            new_id=lambda kind: f"{kind}_{next(ids):09d}",
            new_secret=lambda: "x",
            uploads=Path("/nonexistent"),
        )
        self._furnish(devices)
        with psycopg.connect(url, cursor_factory=psycopg.ClientCursor) as connection:
            connection.execute(SEED, {"now": BEGAN, "jobs": count})
        for i in range(1, count + 1):
            lease = Lease(1, 3_600_000)
            self.world.start(StartOrder(f"job{i}", f"att{i}", (f"d{i}",), lease, argv=("x",)))
            if i % (count // QUARTERS) == 0:  # a quarter of them writes at a time
                self.world.advance(1_000 // QUARTERS)
        for _ in range(2 * QUARTERS):
            self.cpu_s(1_000 // QUARTERS)

    def _furnish(self, devices: list[Device]) -> None:
        rated = [pool.Measured(device.device, 1_000) for device in devices]
        with self.store.transaction() as tx:
            pool.record_inventory(self.platform, tx, devices)
            pool.record_ratings(self.platform, tx, rated)
            tenants.create_org(self.platform, tx, OPERATOR, "org")
            wallets.create_package(self.platform, tx, OPERATOR, "big", 10**15, 1, None)
            for i in range(ACCOUNTS):
                tenants.create_account(self.platform, tx, OPERATOR, f"org/a{i}")
                wallets.buy_package(self.platform, tx, OPERATOR, f"org/a{i}", "big")

    def cpu_s(self, pass_ms: int) -> tuple[float, float]:
        """CPU and wall seconds of the turn that comes `pass_ms` after the last one."""
        self.world.advance(pass_ms)
        wall, cpu = time.perf_counter(), time.process_time()
        loop.step(self.platform)
        return time.process_time() - cpu, time.perf_counter() - wall


TURNS: dict[str, int] = {"quiet": 0, "news": 1_000 // QUARTERS, "all": 6_000}


def case(server: str, count: int, rounds: int) -> None:
    """One size: medians, and whether the books are right after."""
    name = f"observe_{count}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    scene = Scene(server.replace("/dusuan?", f"/{name}?"), count)
    seen: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for turn, ms in TURNS.items():
            seen.setdefault(turn, []).append(scene.cpu_s(ms))
    with scene.store.snapshot() as tx:
        clean = audit(tx)["ok"]
    scene.store.close()
    figures = {}
    for turn, pairs in seen.items():
        figures[f"{turn}_cpu_s"] = round(statistics.median(cpu for cpu, _ in pairs), 4)
        figures[f"{turn}_wall_s"] = round(statistics.median(wall for _, wall in pairs), 4)
    row = {"bench": "observe", "running": count, **figures, "audit": clean}
    print(json.dumps(row), flush=True)


def main() -> None:
    """Run every size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, nargs="+", default=[100, 1_000, 10_000])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dusuan-observe-") as folder:
        server = EmbeddedPostgres(Path(folder) / "postgres")
        url = server.start()
        try:
            for count in chosen.jobs:
                case(url, count, chosen.rounds)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
