"""The whole round of the live service by its parts, and what its log costs; JSON lines.

Real PostgreSQL, the real round, all devices taken; between two rounds one job in fifty of those
that run ends, others come until so many wait again, a second passes. `load` reads the database and
makes facts of the rows, `decide` is the rules with everybody's reason, `apply` writes what they
say, `write` the reasons that have changed, and `note` is what the recorder takes of each round, its
statement included; the rest is the engine's and the transactions'. Bytes are those of the lines,
whole sights told apart.

    python bench/recording.py [--devices 2000] [--waiting 1000 10000] [--rounds 15]
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from dusuan.app import exporting, placing, pool, rounds, tenants, wallets
from dusuan.app.access import Actor
from dusuan.app.context import Platform
from dusuan.engines.base import Device
from dusuan.service.collecting import between_rounds
from dusuan.sim.engine import Behaviour, SimulatedEngine, World
from dusuan.sim.replay import Replayed, replay
from dusuan.store import ledger
from dusuan.store.database import Store
from dusuan.store.embedded import EmbeddedPostgres
from dusuan.store.migrate import migrate

OPERATOR = Actor("bench", None, None)
ACCOUNTS = 100
MODELS = ("x", "y", "z")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
# What submitting as many jobs would leave.
COME = """
INSERT INTO job (id, account_id, name, spec, state, kind, model, count, priority, grace_ms,
                 requeues, balance_before_gflop, submitted_at, queued_at, wall_ms)
SELECT 'job_' || lpad(i::text, 26, '0'),
       (SELECT id FROM account WHERE path = 'org/a' || i %% 100),
       'j', '{"name": "j", "argv": ["x"]}', 'queued', 'gpu', (%(models)s::text[])[1 + i %% 3],
       (ARRAY[1, 1, 2, 4, 8])[1 + i / 3 %% 5], 0, 2000, false, 0, %(now)s, %(now)s, 3600000 + i
FROM generate_series(%(first)s::integer, %(last)s) i;
INSERT INTO hold (job_id, seq, wallet_id, limit_ids, reserved_gflop, opened_at)
SELECT j.id, 1, a.wallet_id, a.limit_ids, 10800000, %(now)s
FROM job j JOIN account a ON a.id = j.account_id WHERE j.position > %(known)s;
"""


class Scene:
    """A centre of `size` devices, all taken, and `waiting` jobs that want them."""

    def __init__(self, url: str, size: int, waiting: int) -> None:
        migrate(url)
        devices = [Device(f"n{i // 8}:{i % 8}", f"n{i // 8}", "m", MODELS[i // 8 % 3], "gpu", i, 1)
                   for i in range(size)]  # fmt: skip
        self.url, self.waiting, self.jobs, ids = url, waiting, 0, itertools.count()
        self.world = World(
            devices,
            lambda _: Behaviour(run_ms=None, stop_code=0),
            ticks=False,
            epoch_ms=ledger.unix_ms(BEGAN),
        )
        self.store = Store(url)
        self.store.open()
        self.platform = Platform(
            self.store,
            SimulatedEngine(self.world),
            now=lambda: BEGAN + timedelta(milliseconds=self.world.now_ms),
            new_id=lambda kind: f"{kind}_{next(ids):026d}",
            new_secret=lambda: "x",
            uploads=Path("/nonexistent"),
        )
        self._furnish(devices)
        self.come(size // 3)
        placing.run_schedule(self.platform)
        self.come(waiting - self.count("queued"))
        placing.run_schedule(self.platform)
        with psycopg.connect(url) as connection:  # as autovacuum does in time
            connection.execute("ANALYZE")
        self.turnover = max(len(self.live()) // 50, 1)

    def _furnish(self, devices: list[Device]) -> None:
        with self.store.transaction() as tx:
            pool.record_inventory(self.platform, tx, devices)
            pool.record_ratings(
                self.platform, tx, [pool.Measured(d.device, 1_000) for d in devices]
            )
            tenants.create_org(self.platform, tx, OPERATOR, "org")
            wallets.create_package(self.platform, tx, OPERATOR, "big", 10**15, 1, None)
            for i in range(ACCOUNTS):
                tenants.create_account(self.platform, tx, OPERATOR, f"org/a{i}")
                wallets.buy_package(self.platform, tx, OPERATOR, f"org/a{i}", "big")

    def come(self, count: int) -> None:
        """So many more jobs wait."""
        with psycopg.connect(self.url, cursor_factory=psycopg.ClientCursor) as connection:
            now = self.platform.now()
            known = connection.execute("SELECT coalesce(max(position), 0) FROM job").fetchone()
            parts = {
                "first": self.jobs + 1,
                "last": self.jobs + count,
                "now": now,
                "known": known[0],
                "models": list(MODELS),
            }
            connection.execute(COME, parts)
        self.jobs += count

    def count(self, state: str) -> int:
        """How many jobs are in `state`."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute("SELECT count(*) FROM job WHERE state = %s", [state])
            return int(found.fetchall()[0][0])

    def live(self) -> list[Any]:
        """Attempts that have not ended."""
        return [attempt for attempt in self.world.attempts.values() if not attempt.over]

    def turn(self) -> None:
        """Some that run are cancelled by hand, as many as started come, a second passes."""
        live = self.live()[: self.turnover]
        for attempt in live:
            self.world.kill_shepherd(attempt.order.attempt_id)
        self.come(self.waiting - self.count("queued"))
        self.world.advance(1_000)
        rounds.observe(self.platform)
        with psycopg.connect(self.url) as connection:  # their books are not what is measured
            ended = [attempt.order.job_id for attempt in live]
            connection.execute("UPDATE job SET state = 'failed' WHERE id = ANY(%s)", [ended])


class Clocked:
    """Processor and wall seconds of every call of a function."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call
        self.cpu_s: list[float] = []
        self.wall_s: list[float] = []

    def __call__(self, *arguments: Any) -> Any:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        try:
            return self.call(*arguments)
        finally:
            self.cpu_s.append(time.process_time() - cpu_s)
            self.wall_s.append(time.perf_counter() - wall_s)


def case(url: str, size: int, waiting: int, count: int) -> dict[str, Any]:
    """One size: over the rounds after the first."""
    scene = Scene(url, size, waiting)
    platform, whole = scene.platform, Clocked(placing.run_schedule)
    owners = {"load": platform.memory, "decide": placing, "_apply": placing,
              "write": platform.reasons, "note": platform.recorder}  # fmt: skip
    parts = {name: Clocked(getattr(owner, name)) for name, owner in owners.items()}
    for name, owner in owners.items():
        setattr(owner, name, parts[name])
    for _ in range(count):
        scene.turn()
        with between_rounds(time.monotonic):
            whole(platform)
        gc.collect()  # as the service does in its time
    for name, owner in owners.items():
        setattr(owner, name, parts[name].call)
    _replays(scene.platform)
    scene.store.close()
    return {
        "bench": "recording",
        "devices": size,
        "waiting": waiting,
        "running": len(scene.live()),
        "rounds": count,
        **_told("round", whole),
        **{key: value for name, each in parts.items() for key, value in _told(name, each).items()},
        **_sizes(url),
    }


def _told(name: str, clocked: Clocked) -> dict[str, float]:
    """Milliseconds of a part: wall time p50 and p99, processor time of this process p50."""
    wall, cpu = (np.array(each[1:]) * 1_000 for each in (clocked.wall_s, clocked.cpu_s))
    name = name.strip("_")
    return {
        f"{name}_p50_ms": round(float(np.percentile(wall, 50)), 1),
        f"{name}_p99_ms": round(float(np.percentile(wall, 99)), 1),
        f"{name}_cpu_ms": round(float(np.percentile(cpu, 50)), 1),
    }


def _replays(platform: Platform) -> None:
    """What was recorded is worth its bytes only if it replays."""
    record = Path(tempfile.gettempdir()) / f"dusuan-record-{id(platform)}"
    record.write_text("".join(exporting.rounds(platform, None, None)), "utf-8")
    again = replay(record, None)
    record.unlink()
    if not isinstance(again, Replayed) or not again.is_same:
        raise SystemExit(f"the record does not replay: {again}")


def _sizes(url: str) -> dict[str, int]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT whole, line FROM round_log ORDER BY n").fetchall()
    lines = [line for is_whole, line in rows if not is_whole][1:]
    moves = [json.loads(line).get("moves", {}) for line in lines]
    decisions = sum(
        len(each.get(k, ())) for each in moves for k in ("starts", "preempts", "claims")
    )
    packed = zlib.compress("".join(lines).encode())
    return {
        "decisions": decisions,
        "bytes_a_round": round(statistics.median(map(len, lines))),
        "bytes_a_decision": round(sum(map(len, lines)) / max(decisions, 1)),
        "packed_bytes_a_decision": round(len(packed) / max(decisions, 1)),
        "whole_bytes": max(len(line) for is_whole, line in rows if is_whole),
    }


def main() -> None:
    """Print a line of JSON for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=[2_000])
    parser.add_argument("--waiting", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder), settings={"fsync": "off"})
        url = server.start()
        try:
            for size, waiting in itertools.product(options.devices, options.waiting):
                name = f"recording_{size}_{waiting}"
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE {name}".encode())
                row = case(_named(url, name), size, waiting, options.rounds)
                print(json.dumps(row), flush=True)
        finally:
            server.stop()


def _named(url: str, name: str) -> str:
    from dusuan.store.embedded import with_database

    return with_database(url, name)


if __name__ == "__main__":
    main()
