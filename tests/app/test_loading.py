"""What a round remembers is what is there; the reasons written down are those that it gave."""

from __future__ import annotations

import random
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.app.conftest import Desk, desk_of
from tests.app.live_day import Day, devices, live

from dusuan.app import pool, reasons
from dusuan.app.loading import Memory, Snapshot
from dusuan.app.reasons import Reasons, view
from dusuan.core.scheduling.model import Plan, Wait
from dusuan.store.database import Tx
from dusuan.store.sql import queries

SECONDS = 40  # of a day in which everything happens


def test_what_is_remembered_is_what_a_stranger_would_load(
    postgres_url: str, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every round of a day with preemption, lost nodes, cancellations and a restart."""
    loads = []
    remembered = Memory.load

    def both(self: Memory, tx: Tx, now: datetime) -> Snapshot:
        found, anew = remembered(self, tx, now), remembered(Memory(), tx, now)
        assert found.sight({}) == anew.sight({})
        assert found.inventory == anew.inventory
        assert {row.id: row for row in found.queued} == {row.id: row for row in anew.queued}
        loads.append(len(found.placed))
        return found

    monkeypatch.setattr(Memory, "load", both)
    with desk_of(postgres_url, template, devices(), tmp_path) as desk:
        live(Day(desk, random.Random(7)), SECONDS)
        assert len(loads) > 60
        assert max(loads) > 10


def load(desk: Desk) -> Snapshot:
    with desk.platform.store.snapshot() as tx:
        return desk.platform.memory.load(tx, desk.platform.now())


def test_devices_are_read_again_when_one_was_written(desk: Desk) -> None:
    first = load(desk)
    assert load(desk).inventory is first.inventory
    with desk.platform.store.transaction() as tx:  # as it is already
        pool.record_inventory(desk.platform, tx, desk.platform.engine.inventory())
    assert load(desk).inventory is first.inventory
    with desk.platform.store.transaction() as tx:
        pool.record_ratings(desk.platform, tx, [pool.Measured("cpu:0", 300)])
    rated = load(desk).inventory
    assert [slot.gflops for slot in rated.slots] == [300, 100]
    assert rated.ratings == {"Core": (100, "calibrated")}
    desk.sql("UPDATE device SET state = 'down' WHERE device = 'cpu:1'")
    assert [slot.ready for slot in load(desk).inventory.slots] == [True, False]
    desk.sql("UPDATE device SET state = 'ready' WHERE device = 'cpu:1'")
    again = load(desk).inventory
    assert again.slots == rated.slots
    assert load(desk).inventory.slots is again.slots


# What a job asks for. It is read once: a statement that changed it would not be noticed.
ASKED = (
    *("position", "account_id", "kind", "model", "count", "priority", "grace_ms", "probe", "tier"),
    *("tier_permille", "wall_ms", "expected_ms", "requeues", "submitted_at"),
)


def test_no_statement_changes_what_a_job_asks_for() -> None:
    updates = [text for text in queries().values() if re.search(r"\bUPDATE job\b", text)]
    assert len(updates) > 5
    for text in updates:
        changed = set(re.findall(r"\b(\w+) = ", text.partition(" SET ")[2].partition("WHERE")[0]))
        assert not changed & set(ASKED), text


def test_the_reasons_written_down_are_those_of_the_last_round(
    postgres_url: str, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for two changed words a round: codes are at once, and all words in turn."""
    monkeypatch.setattr(reasons, "REWORDED_MOST", 2)
    said: list[tuple[Plan, dict[str, str | None]]] = []
    write = Reasons.write

    def noted(self: Reasons, tx: Tx, plan: Plan, queued: Any) -> Any:
        said[:] = [(plan, {job.id: job.stop_reason for job in queued})]
        return write(self, tx, plan, queued)

    monkeypatch.setattr(Reasons, "write", noted)
    late: dict[str, int] = {}  # rounds for which somebody's words have been others
    waited = [0]

    def check() -> None:
        plan, stopped = said[0]
        rows = dict(desk.sql("SELECT id, waiting FROM job WHERE state = 'queued'"))
        stale = {n: _is_late(plan.waits[n], rows[n], stopped[n]) for n in plan.waits if n in rows}
        for name, is_late in stale.items():
            late[name] = late.get(name, 0) + 1 if is_late else 0
            assert late[name] <= len(stale) // 2 + 2
        waited.append(len(stale))

    with desk_of(postgres_url, template, devices(), tmp_path) as desk:
        day = Day(desk, random.Random(3))
        step = desk.step

        def stepped(times: int = 1) -> None:
            for _ in range(times):
                said.clear()
                step()
                if said:
                    check()

        desk.step = stepped  # type: ignore[method-assign] # this desk only
        day.open()
        for second in range(25):
            day.second(12 if second % 10 < 7 else 2)
    assert max(waited) > 8


def _is_late(wait: Wait, row: dict[str, Any], stop_reason: str | None) -> bool:
    """Whether the words are others. The code never is."""
    assert row["code"] == wait.code.value
    return row != view(wait, stop_reason)
