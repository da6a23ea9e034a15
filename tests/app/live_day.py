"""A day of a live platform, made up from a seed: everything that the scheduler may be faced with.

Real are the database, the verbs, the loop's own step, the ledger and the rounds; jobs run on the
simulated engine, so that the day takes seconds.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from tests.app.conftest import Desk

from dusuan.app import jobs, pool, rounds, tenants
from dusuan.app.loading import Memory
from dusuan.app.reasons import Reasons
from dusuan.app.recording import Recorder
from dusuan.core.scheduling.policy import POLICIES
from dusuan.engines.base import Device
from dusuan.sim.engine import Behaviour, SimulatedEngine

NODES, EACH = 12, 4
POLICY = replace(POLICIES["centre"], name="centre-hasty", run_min_s=5.0)
SAVING = {"checkpoint": {"signal": "SIGUSR1", "grace": "2s"}}


def devices() -> list[Device]:
    """48 devices of two models on 12 nodes."""
    return [
        Device(f"n{n}:{i}", f"n{n}", "Acme", "Core" if n < 9 else "Old", "cpu", i, None)
        for n in range(NODES)
        for i in range(EACH)
    ]


@dataclass
class Day:
    """One day on a desk. `did` counts what happened, as the platform itself tells it."""

    desk: Desk
    rng: random.Random
    submitted: list[str] = field(default_factory=list)
    did: Counter[str] = field(default_factory=Counter)

    def open(self) -> None:
        """Accounts with and without quota, one with a ceiling that it will reach."""
        desk = self.desk
        desk.platform = replace(desk.platform, policy=POLICY)
        for path in ("acme", "bolt"):
            desk.account(path)
        for path in ("acme/vision", "acme/speech", "bolt/a", "bolt/b"):
            desk.account(path, gflop=500_000_000)
        desk.ask(tenants.set_quota, "acme/vision", quota=8, borrow=4, weight=1.0)
        desk.ask(tenants.set_quota, "acme/speech", quota=2, borrow=14, weight=1.0)
        desk.account("bolt/capped", gflop=500_000_000, budget_gflop=4_000)

    def second(self, arrivals: int) -> None:
        """One second: who comes, what the loop does about it."""
        for _ in range(arrivals):
            self.arrive()
        self.desk.step()
        self.desk.world.advance(1_000)
        self.desk.step()

    def arrive(self) -> None:
        """One more job of a random account."""
        rng = self.rng
        path = rng.choice(("acme/vision", "acme/speech", "bolt/a", "bolt/b"))
        tier = rng.choices(("reserved", "standard", "spot"), (2, 8, 1))[0]
        brief = tier != "spot" and rng.random() < 0.97
        run_ms = rng.randrange(200, 1_900) if brief else rng.randrange(6_000, 25_000)
        behaviour = Behaviour(run_ms=run_ms, stop_code=0, checkpoint_ms=rng.choice((0, 900, 1_500)))
        keys: dict[str, Any] = {**SAVING} if rng.random() < 0.6 else {}
        if rng.random() < 0.5:
            keys["wall_time"] = f"{run_ms // 1_000 + rng.randrange(1, 20)}s"
        count = rng.choice((1, 1, 1, 2, 2, 4))
        self.submit(path, behaviour, count, tier, **keys)

    def submit(
        self, path: str, behaviour: Behaviour, count: int, tier: str = "standard", **keys: Any
    ) -> str:
        """A job of `path` on `count` devices."""
        keys |= {"resources": {"accelerators": f"cpu:{count}"}, "goal": {"tier": tier}}
        job = self.desk.submit(path, behaviour, **keys)
        self.submitted.append(job)
        return job

    # -- what happens to a centre --------------------------------------------------------------

    def lose(self, node: str) -> None:
        """A node is gone, and the inventory says so."""
        self.desk.world.lose_node(node)
        self._inventory()
        self.did["node_losses"] += 1

    def restore(self, node: str) -> None:
        """It is back."""
        self.desk.world.restore_node(node)
        self._inventory()

    def _inventory(self) -> None:
        platform = self.desk.platform
        with platform.store.transaction() as tx:
            pool.record_inventory(platform, tx, platform.engine.inventory())

    def restart(self) -> None:
        """The service is killed, and another one takes over."""
        engine = SimulatedEngine(self.desk.world)
        anew = replace(self.desk.platform, engine=engine, recorder=Recorder())
        self.desk.platform = replace(anew, memory=Memory(), reasons=Reasons())
        rounds.recover(self.desk.platform)
        self.did["service_starts"] += 1

    def trouble(self, text: str) -> None:
        """The engine says that it can start nothing; "" when it can again."""
        self.desk.platform.engine.trouble = lambda: text  # type: ignore[method-assign] # this engine only

    def lose_what_is_promised(self) -> bool:
        """The node goes on which somebody has a claim, if anybody has one."""
        found = self.desk.sql(
            "SELECT claim[1] FROM job WHERE claim IS NOT NULL ORDER BY id LIMIT 1"
        )
        for (device,) in found:
            self.lose(device.partition(":")[0])
        return bool(found)

    def cancel_some(self) -> None:
        """One job that waits and one that runs are cancelled."""
        for state in ("queued", "running"):
            found = self.desk.sql(
                f"SELECT id FROM job WHERE state = '{state}' ORDER BY id DESC LIMIT 1"
            )
            for (job,) in found:
                self.desk.call(jobs.cancel, job)
                self.did["cancelled"] += 1

    def reach_the_ceiling(self) -> str:
        """A job runs until its account's ceiling stops it, and waits for more."""
        endless = Behaviour(run_ms=None, stop_code=0)
        return self.submit("bolt/capped", endless, 1, "reserved", **SAVING)


def live(day: Day, seconds: int) -> None:
    """The whole day, with an hour of everything."""
    day.open()
    capped = day.reach_the_ceiling()
    for second in range(seconds):
        day.second(day.rng.choice((8, 12, 15, 18)) if second % 20 < 15 else 0)
        if second % 25 == 9:
            day.cancel_some()
        _mishaps(day, second, seconds)
    assert day.desk.show(capped)["stop_reason"] == "balance"
    assert day.desk.show(capped)["waiting"]["code"] == "budget"
    assert day.did["promised_lost"] == 1


def _mishaps(day: Day, second: int, seconds: int) -> None:
    """What goes wrong at that second of the day."""
    if second in (seconds // 4, seconds // 2 + 5):
        day.lose("n1")
    if second in (seconds // 4 + 9, seconds // 2 + 12):
        day.restore("n1")
    if second == seconds // 3:
        day.desk.ask(tenants.set_quota, "acme/speech", quota=4, borrow=8, weight=2.0)
    if second == seconds // 2:
        day.restart()
    if second in (seconds * 2 // 3, seconds * 2 // 3 + 2):
        day.trouble("its disk is full" if second == seconds * 2 // 3 else "")
    if second > 20 and not day.did["promised_lost"]:
        day.did["promised_lost"] += day.lose_what_is_promised()
