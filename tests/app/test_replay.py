"""A recorded live day replays to the same decisions; one that was tampered with does not."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.app.conftest import desk_of
from tests.app.live_day import POLICY, Day, devices, live

from dusuan.app import exporting
from dusuan.core.scheduling.policy import POLICIES
from dusuan.core.workload.jobspec import Problem
from dusuan.sim.replay import Replayed, replay

SECONDS = 110
Line = dict[str, Any]


@dataclass
class Record:
    """A day's record, what the platform's own tables say of the day, and room for copies."""

    path: Path
    told: dict[str, int]
    started: dict[str, list[tuple[str, ...]]]
    folder: Path
    did: dict[str, int]

    def lines(self) -> list[Line]:
        return [json.loads(line) for line in self.path.read_text("utf-8").splitlines()]

    def copy(self, lines: list[Line], name: str = "copy.jsonl") -> Path:
        path = self.folder / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        return path


def told_by_tables(day: Day) -> dict[str, int]:
    """What happened, by tables that have nothing to do with the log."""
    count = {
        "starts": "SELECT count(*) FROM attempt",
        "preemptions": "SELECT count(*) FROM attempt WHERE stop_asked = 'preempted'",
        "budget_stops": "SELECT count(*) FROM attempt WHERE end_reason = 'lease'",
        "jobs_lost": "SELECT count(*) FROM attempt WHERE end_reason = 'lost'",
    }
    return {name: day.desk.sql(statement)[0][0] for name, statement in count.items()}


@pytest.fixture(scope="module")
def record(
    postgres_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Record]:
    """One day, lived once for all tests."""
    folder = tmp_path_factory.mktemp("day")
    with desk_of(postgres_url, template, devices(), folder) as desk:
        day = Day(desk, random.Random(20300101))
        live(day, SECONDS)
        desk.assert_clean()
        path = folder / "day.jsonl"
        path.write_text("".join(exporting.rounds(desk.platform, None, None)), "utf-8")
        started: dict[str, list[tuple[str, ...]]] = {}
        rows = desk.sql(
            "SELECT a.job_id, array_agg(l.device ORDER BY l.device) FROM attempt a JOIN allocation l"
            " ON l.attempt_id = a.id GROUP BY a.id ORDER BY a.created_at, a.id"
        )
        for job, names in rows:
            started.setdefault(job, []).append(tuple(names))
        yield Record(path, told_by_tables(day), started, folder, dict(day.did))


def replayed(path: Path, policy: str | None = None) -> Replayed:
    found = replay(path, None if policy is None else POLICIES[policy])
    assert isinstance(found, Replayed), found
    return found


def test_a_live_day_replays_to_the_same_decisions(record: Record) -> None:
    found = replayed(record.path)
    assert found.first is None
    assert found.is_same
    counts = found.counts
    print(counts)
    assert counts.decisions >= 1_000
    assert found.policy == POLICY.name
