"""What the log of live rounds costs: processor time of a round with many waiting jobs, and bytes.

Real PostgreSQL, the real round, 2,000 devices, all taken; between two rounds 40 jobs end, 40 come.
`note` is what the recorder takes of each round, its statement included; bytes are those of the
lines, whole sights told apart.

    python bench/recording.py [--waiting 1000 10000] [--rounds 15]
"""

from __future__ import annotations

import argparse
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

import psycopg

from dusuan.app import exporting, placing, pool, rounds, tenants, wallets
from dusuan.app.access import Actor
from dusuan.app.context import Platform
from dusuan.engines.base import Device
from dusuan.sim.engine import Behaviour, SimulatedEngine, World
from dusuan.sim.replay import Replayed, replay
from dusuan.store.database import Store
from dusuan.store.embedded import EmbeddedPostgres
from dusuan.store.migrate import migrate

OPERATOR = Actor("bench", None, None)
DEVICES, TURNOVER, ACCOUNTS = 2_000, 40, 100
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
# What submitting as many jobs would leave.
COME = """
INSERT INTO job (id, account_id, name, spec, state, kind, model, count, priority, grace_ms,
                 requeues, balance_before_gflop, submitted_at, queued_at, wall_ms)
SELECT 'job_' || lpad(i::text, 26, '0'),
       (SELECT id FROM account WHERE path = 'org/a' || i %% 100),
       'j', '{"name": "j", "argv": ["x"]}', 'queued', 'gpu', 'x', 1 + i %% 4, 0, 2000, false, 0,
       %(now)s, %(now)s, 3600000 + i
FROM generate_series(%(first)s::integer, %(last)s) i;
INSERT INTO hold (job_id, seq, wallet_id, limit_ids, reserved_gflop, opened_at)
SELECT j.id, 1, a.wallet_id, a.limit_ids, 10800000, %(now)s
FROM job j JOIN account a ON a.id = j.account_id WHERE j.position > %(known)s;
"""


class Scene:
    """A centre of 2,000 devices, all taken, and `waiting` jobs that want them."""

    def __init__(self, url: str, waiting: int) -> None:
        migrate(url)
        devices = [Device(f"n{i // 8}:{i % 8}", f"n{i // 8}", "m", "x", "gpu", i, 1)
                   for i in range(DEVICES)]  # fmt: skip
        self.url, self.jobs, ids = url, 0, itertools.count()
        self.world = World(devices, lambda _: Behaviour(run_ms=None, stop_code=0), ticks=False)
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
        self.come(DEVICES)
        placing.run_schedule(self.platform)
        self.come(waiting)

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
            }
            connection.execute(COME, parts)
        self.jobs += count

    def turn(self) -> None:
        """Some that run are cancelled by hand, as many come, a second passes."""
        live = [a for a in self.world.attempts.values() if not a.over][:TURNOVER]
        for attempt in live:
            self.world.kill_shepherd(attempt.order.attempt_id)
        self.come(TURNOVER)
        self.world.advance(1_000)
        rounds.observe(self.platform)
        with psycopg.connect(self.url) as connection:  # their books are not what is measured
            ended = [attempt.order.job_id for attempt in live]
            connection.execute("UPDATE job SET state = 'failed' WHERE id = ANY(%s)", [ended])


class Clocked:
    """Processor and wall seconds of every call of a function."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self.cpu_s: list[float] = []
        self.wall_s: list[float] = []

    def __call__(self, *arguments: Any) -> Any:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        try:
            return self._call(*arguments)
        finally:
            self.cpu_s.append(time.process_time() - cpu_s)
            self.wall_s.append(time.perf_counter() - wall_s)


def case(url: str, waiting: int, count: int) -> dict[str, Any]:
    """One size: medians over the rounds after the first."""
    scene = Scene(url, waiting)
    whole, note = Clocked(placing.run_schedule), Clocked(scene.platform.recorder.note)
    scene.platform.recorder.note = note  # type: ignore[method-assign] # this scene only
    for _ in range(count):
        scene.turn()
        whole(scene.platform)
    _replays(scene.platform)
    scene.store.close()
    return {
        "bench": "recording",
        "waiting": waiting,
        "rounds": count,
        "round_cpu_ms": _median_ms(whole.cpu_s[1:]),
        "note_cpu_ms": _median_ms(note.cpu_s[1:]),
        "round_ms": _median_ms(whole.wall_s[1:]),
        "note_ms": _median_ms(note.wall_s[1:]),
        **_sizes(url),
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


def _median_ms(seconds: list[float]) -> float:
    return round(statistics.median(seconds) * 1_000, 2)


def main() -> None:
    """Print a line of JSON for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder), settings={"fsync": "off"})
        url = server.start()
        try:
            for waiting in options.waiting:
                name = f"recording_{waiting}"
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE {name}".encode())
                print(json.dumps(case(_named(url, name), waiting, options.rounds)), flush=True)
        finally:
            server.stop()


def _named(url: str, name: str) -> str:
    from dusuan.store.embedded import with_database

    return with_database(url, name)


if __name__ == "__main__":
    main()
