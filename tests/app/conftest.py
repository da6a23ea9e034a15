"""A whole platform on a virtual clock: real database, real rules, simulated engine."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import create_database, drop_database

from dusuan.app import jobs, pool, receipts, tenants, wallets
from dusuan.app.access import Actor
from dusuan.app.audit import audit
from dusuan.app.context import Limits, Platform
from dusuan.core.ledger.tick import SlicePolicy
from dusuan.engines.base import Device
from dusuan.service.loop import step
from dusuan.sim.engine import Behaviour, SimulatedEngine, World
from dusuan.store.database import Look, Store
from dusuan.store.ledger import unix_ms
from dusuan.store.migrate import migrate

EPOCH = datetime(2030, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC)  # a real clock has microseconds
OPERATOR = Actor("key_operator", None, None)
SLICES = SlicePolicy(slice_ms=60_000, least_ms=3_000, settle_ms=2_000, head_ms=2_000)


@pytest.fixture(scope="session")
def template(postgres_url: str) -> Iterator[str]:
    """Name of a migrated database that tests copy."""
    url = create_database(postgres_url)
    migrate(url)
    yield str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])
    drop_database(postgres_url, url)


@dataclass
class Desk:
    """A platform and the few things a test asks of it. Ratings are 100 GFLOPS a device."""

    platform: Platform
    world: World
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    url: str = ""

    def call(self, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A verb that takes the platform, in a transaction of its own, as the operator."""
        with self.platform.store.transaction() as tx:
            return verb(self.platform, tx, OPERATOR, *args, **kwargs)

    def ask(self, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A verb that only reads."""
        with self.platform.store.transaction() as tx:
            return verb(tx, OPERATOR, *args, **kwargs)

    def look(self, verb: Callable[..., Look[Any]], *args: Any) -> Any:
        """A verb that is one statement."""
        with self.platform.store.transaction() as tx:
            return tx.look(verb(OPERATOR, *args))

    def account(self, path: str = "acme", gflop: int = 0, fen: int = 0, **kwargs: Any) -> str:
        """A new account, with a package of `gflop` bought for it."""
        if "/" in path:
            self.call(tenants.create_account, path, **kwargs)
        else:
            self.call(tenants.create_org, path)
        if gflop:
            self.buy(path, gflop, fen)
        return path

    def buy(self, path: str, gflop: int, fen: int = 0, days: int | None = None) -> str:
        """Buy `path` a package of exactly this content; the lot's id."""
        self.call(wallets.create_package, "made-to-measure", gflop, fen, days)
        return str(self.call(wallets.buy_package, path, "made-to-measure")["id"])

    def submit(self, path: str, behaviour: Behaviour | None = None, **keys: Any) -> str:
        """Submit a job that behaves so; its id."""
        document = {"name": "job", "argv": ["work"], **keys}
        job_id = str(self.call(jobs.submit, path, json.dumps(document))["job_id"])
        self.behaviours[job_id] = behaviour or Behaviour()
        return job_id

    def step(self, times: int = 1) -> None:
        """The service's loop, without letting time pass."""
        for _ in range(times):
            step(self.platform)

    def run(self, seconds: float, every_ms: int = 500) -> None:
        """Let time pass, the loop turning every `every_ms`."""
        self.step(2)
        for _ in range(round(seconds * 1_000 / every_ms)):
            self.world.advance(every_ms)
            self.step()
        self.step(2)

    def state(self, job_id: str) -> str:
        return str(self.look(jobs.show, job_id)["state"])

    def show(self, job_id: str) -> dict[str, Any]:
        return dict(self.look(jobs.show, job_id))

    def receipt(self, job_id: str) -> dict[str, Any]:
        return dict(self.ask(receipts.receipt, job_id))

    def wallet(self, path: str = "acme") -> dict[str, Any]:
        return dict(self.look(wallets.wallet, path))

    def audit(self) -> dict[str, Any]:
        with self.platform.store.snapshot() as tx:
            return audit(tx)

    def assert_clean(self, *, overrun: bool = False) -> None:
        """Every invariant holds, and the centre lost nothing unless the test says so."""
        report = self.audit()
        assert report["ok"], [check for check in report["checks"] if not check["ok"]]
        assert bool(report["alarms"]) == overrun

    def sql(self, statement: str) -> list[Any]:
        """A hand on the database itself."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []


@contextmanager
def desk_of(
    postgres_url: str, template: str, devices: list[Device], folder: Path
) -> Iterator[Desk]:
    """A platform with these devices, on a database of its own."""
    url = create_database(postgres_url, template)
    behaviours: dict[str, Behaviour] = {}
    epoch_ms = unix_ms(EPOCH)
    world = World(devices, lambda order: behaviours[order.job_id], epoch_ms=epoch_ms)
    ids = itertools.count(1)
    store = Store(url, max_size=8)
    store.open()
    platform = Platform(
        store,
        SimulatedEngine(world),
        now=lambda: EPOCH + timedelta(milliseconds=world.now_ms),
        new_id=lambda kind: f"{kind}_{next(ids):06d}",
        new_secret=lambda: f"secret{next(ids)}",
        uploads=folder,
        slices=SLICES,
        limits=Limits(),
    )
    with store.transaction() as tx:
        pool.record_inventory(platform, tx, devices)
        pool.record_ratings(platform, tx, [pool.Measured(d.device, 100) for d in devices])
    yield Desk(platform, world, behaviours, url)
    store.close()
    drop_database(postgres_url, url)


@pytest.fixture
def desk(postgres_url: str, template: str, tmp_path: Path) -> Iterator[Desk]:
    """A platform with two devices of one node."""
    devices = [Device(f"cpu:{i}", "n1", "Acme", "Core", "cpu", i, None) for i in range(2)]
    with desk_of(postgres_url, template, devices, tmp_path) as made:
        yield made
