"""A recorded live day replays to the same decisions; one that was tampered with does not."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.app.conftest import EPOCH, Desk, desk_of
from tests.app.live_day import POLICY, Day, devices, live

from dusuan.app import exporting, placing, recording, retention
from dusuan.core.scheduling import live as rules
from dusuan.core.scheduling.live import Moves
from dusuan.core.scheduling.policy import POLICIES, PolicyParts
from dusuan.core.workload.jobspec import Problem
from dusuan.sim import replay as replaying
from dusuan.sim.engine import Behaviour
from dusuan.sim.readers import read
from dusuan.sim.replay import Replayed, replay

SECONDS = 112
Line = dict[str, Any]


@dataclass
class Record:
    """A day's record, what the platform's own tables say of the day, and room for copies."""

    path: Path
    text: str
    told: dict[str, int]
    held: list[tuple[str, list[str]]]  # job and devices of every attempt, in order
    folder: Path
    did: dict[str, int]

    def lines(self) -> list[Line]:
        return [json.loads(line) for line in self.text.splitlines()]

    def copy(self, lines: list[Line]) -> Path:
        path = self.folder / "copy.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        return path


def told_by_tables(desk: Desk) -> dict[str, int]:
    """What happened, by tables that have nothing to do with the log."""
    count = {
        "starts": "SELECT count(*) FROM attempt",
        "preemptions": "SELECT count(*) FROM attempt WHERE stop_asked = 'preempted'",
        "budget_stops": "SELECT count(*) FROM attempt WHERE end_reason = 'lease'",
        "jobs_lost": "SELECT count(*) FROM attempt WHERE end_reason = 'lost'",
        "cancelled": "SELECT count(*) FROM job WHERE state = 'cancelled'",
    }
    return {name: desk.sql(statement)[0][0] for name, statement in count.items()}


@pytest.fixture(scope="module")
def record(
    postgres_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Record]:
    """One day, lived once for all tests, with the whole sight more often than in a long one."""
    folder = tmp_path_factory.mktemp("day")
    devices_ = devices()
    with (
        desk_of(postgres_url, template, devices_, folder) as desk,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(recording, "WHOLE_ENTRIES", 30)
        patch.setattr(recording, "WHOLE_TIMES", 1)
        patch.setattr(exporting, "PAGE", 64)
        day = Day(desk, random.Random(20300101))
        live(day, SECONDS)
        desk.step(2)  # so that the last ends are written down
        desk.assert_clean()
        path = folder / "day.jsonl"
        text = "".join(exporting.rounds(desk.platform, None, None))
        path.write_text(text, "utf-8")
        held = desk.sql(
            "SELECT a.job_id, array_agg(l.device ORDER BY l.device) FROM attempt a"
            " JOIN allocation l ON l.attempt_id = a.id GROUP BY a.id ORDER BY a.created_at, a.id"
        )
        yield Record(path, text, told_by_tables(desk), held, folder, dict(day.did))


def replayed(path: Path, policy: PolicyParts | None = None) -> Replayed:
    found = replay(path, policy)
    assert isinstance(found, Replayed), found
    return found


def test_a_live_day_replays_to_the_same_decisions(record: Record) -> None:
    found = replayed(record.path)
    assert found.first is None
    assert found.is_same
    counts = found.counts
    assert counts.decisions >= 1_000
    assert {name: getattr(counts, name) for name in record.told} == record.told
    assert (found.policy, found.recorded_policy) == (POLICY.name, POLICY.name)
    assert counts.node_losses == record.did["node_losses"] >= 3
    assert counts.service_starts == 1 + record.did["service_starts"] == 2
    assert counts.budget_stops >= 1
    assert min(counts.preemptions, counts.claims, counts.cancelled, counts.jobs_lost) >= 3
    assert counts.quiet_rounds > 0
    assert counts.reasons > 5_000


def test_a_log_that_tells_holders_with_the_devices_replays_too(record: Record) -> None:
    """As logs did before only jobs told what they have."""
    lines = record.lines()
    told = 0
    for line in lines:
        whole = line.get("whole", {"placed": []})
        holders = {
            d: p["job"]["job_id"] for p in whole.get("placed", []) for d in p["job"]["devices"]
        }
        for device in whole.get("pool", {}).get("devices", []) if holders else []:
            if device["device"] in holders:
                device["holder"], told = holders[device["device"]], told + 1
    assert told > 100
    assert replayed(record.copy(lines)).is_same


def test_the_day_had_everything_in_it(record: Record) -> None:
    """Reasons by the rules and by money, promises kept and broken, an engine in trouble."""
    lines = record.lines()[1:-1]
    assert sum("whole" in line for line in lines) >= 4
    assert any("void" in line.get("moves", {}) for line in lines)
    assert any("trouble" in line.get("seen", {}) for line in lines)
    codes = {code for line in lines for code in line.get("waits", {})}
    assert {"capacity", "order", "quota", "preempting"} <= codes
    assert '"budget"' in record.text
    whys = {left.get("why") for line in lines for left in line.get("left", {}).values()}
    assert {"exit", "preempted", "lost", "lease", "cancelled", "stopped"} <= whys


def test_nothing_about_customers_but_ids_is_in_it(record: Record) -> None:
    for word in ("acme", "vision", "bolt", "capped", "secret", "work", "degrees"):
        assert word not in record.text


def test_the_replayer_needs_no_decision_of_the_log(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From what the log says of the world alone it makes every start that the tables know."""
    made: list[Moves] = []

    def judge(_self: Any, _number: int, entry: Any, turn: Any, _recorded: Any) -> bool:
        if entry.quiet_ms is None or entry.at_ms != entry.quiet_ms or turn.moves.any:
            made.append(turn.moves)
        return False

    monkeypatch.setattr(replaying._Replay, "_judge", judge)
    blind = [
        {k: v for k, v in line.items() if k not in ("moves", "waits", "runs")}
        for line in record.lines()
    ]
    replayed(record.copy(blind))
    starts = [(s.job_id, sorted(s.devices)) for moves in made for s in moves.starts]
    assert sorted(starts) == sorted((job, sorted(names)) for job, names in record.held)
    assert sum(len(moves.preempts) for moves in made) == record.told["preemptions"]


# --- tampering ---------------------------------------------------------------------------------


def first_with(lines: list[Line], *keys: str, after: int = 60) -> Line:
    """The first line from `after` on that has the part which `keys` lead to."""
    for line in lines[after:]:
        part: Any = line
        for key in keys:
            part = part.get(key) if isinstance(part, dict) else None
        if part:
            return line
    raise AssertionError(f"no line has {keys}")


def other_device(lines: list[Line]) -> tuple[Line, str]:
    line = first_with(lines, "moves", "starts")
    start = line["moves"]["starts"][-1]
    start["devices"][0] = "n8:3" if start["devices"][0] != "n8:3" else "n8:2"
    return line, start["job_id"]


def no_such_start(lines: list[Line]) -> tuple[Line, str]:
    told = [line for line in lines if "runs" not in line]  # these count who waits: a gap, then
    line = first_with(told, "moves", "starts")
    return line, line["moves"]["starts"].pop()["job_id"]


def another_victim(lines: list[Line]) -> tuple[Line, str]:
    line = first_with(lines, "moves", "preempts")
    preempt = line["moves"]["preempts"][0]
    preempt["for_job"] = "job_999999"
    return line, preempt["job_id"]


def no_such_claim(lines: list[Line]) -> tuple[Line, str]:
    line = first_with(lines, "moves", "claims")
    return line, line["moves"]["claims"].pop()["job_id"]


def another_reason(lines: list[Line]) -> tuple[Line, str]:
    line = first_with(lines, "waits", "capacity")
    line["waits"].setdefault("order", [])
    line["waits"]["order"].append(line["waits"]["capacity"].pop())
    return line, line["waits"]["order"][-1]


@pytest.mark.parametrize(
    "tamper", [other_device, no_such_start, another_victim, no_such_claim, another_reason]
)
def test_one_changed_decision_is_found(
    record: Record, tamper: Callable[[list[Line]], tuple[Line, str]]
) -> None:
    lines = record.lines()
    line, job = tamper(lines)
    found = replay(record.copy([*lines[: lines.index(line) + 1], end_of(lines, line)]), None)
    assert isinstance(found, Replayed), found
    assert not found.is_same
    assert found.first is not None
    assert (found.first.round, found.first.job) == (line["n"], job)
    assert found.first.recorded != found.first.replayed


def end_of(lines: list[Line], last: Line) -> Line:
    return {"kind": "end", "rounds": lines.index(last)}


def test_the_world_cannot_be_changed_without_notice(record: Record) -> None:
    """A job that comes otherwise than it did, an end that is kept back."""
    lines = record.lines()
    line = first_with(lines, "seen", "waiting", "new")
    new = copy.deepcopy(line["seen"]["waiting"]["new"])
    line["seen"]["waiting"]["new"] = new[1:]
    assert isinstance(replay(record.copy(lines), None), Problem)
    lines = record.lines()
    first_with(lines, "left")["left"].popitem()
    found = replay(record.copy(lines), None)
    assert isinstance(found, Problem) or not found.is_same


def test_a_missing_line_is_a_gap_and_no_agreement(record: Record) -> None:
    lines = record.lines()
    dropped = lines[:50] + lines[51:]
    found = replay(record.copy(dropped), None)
    assert isinstance(found, Problem)
    assert (found.code, found.line) == ("gap", 51)
    assert "round 50 is missing" in found.text
    for line in dropped[50:-1]:  # whoever hides it has to fit all the rest
        line["n"] -= 1
    dropped[-1]["rounds"] -= 1
    hidden = replay(record.copy(dropped), None)
    assert isinstance(hidden, Problem) or not hidden.is_same


def test_another_rule_is_found(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same log under rules that have changed since."""
    monkeypatch.setattr(rules, "due_claims", lambda _sight, _claimed: ())
    late = replayed(record.path)
    assert late.first is not None
    assert late.first.recorded.startswith("starts on")


def test_another_policy_says_where_it_parts(record: Record) -> None:
    found = replayed(record.path, POLICIES["fcfs"])
    assert (found.policy, found.recorded_policy) == ("fcfs", POLICY.name)
    assert found.first is not None
    assert 0 < found.rounds_that_differ < found.counts.rounds
    assert replayed(record.path, replace(POLICY, name="same")).is_same


# --- parts of a log ----------------------------------------------------------------------------


def test_a_part_of_a_day_begins_with_a_whole_and_replays(desk: Desk, tmp_path: Path) -> None:
    """What is kept is bounded, and what is left of it can still be read."""
    desk.account(gflop=10_000_000)
    for _ in range(3):
        desk.submit("acme", Behaviour(run_ms=900), resources={"accelerators": "cpu:2"})
        desk.run(2)
        desk.world.advance(3_700_000)  # an hour: time for a whole
    path = tmp_path / "part.jsonl"
    whole = replay_of(desk, path)
    assert whole.counts.starts == 3
    since = EPOCH + timedelta(milliseconds=desk.world.now_ms - 2 * 3_600_000)
    path.write_text("".join(exporting.rounds(desk.platform, since, None)), "utf-8")
    part = replayed(path)
    assert part.is_same
    assert part.counts.rounds < whole.counts.rounds
    until = EPOCH + timedelta(seconds=10)
    path.write_text("".join(exporting.rounds(desk.platform, None, until)), "utf-8")
    assert replayed(path).counts.starts == 1
    kept = replace(desk.platform, limits=replace(desk.platform.limits, rounds_kept_s=7_000))
    assert retention.sweep(kept) > 0
    rest = replay_of(desk, path)
    assert rest.is_same
    assert rest.counts.rounds < whole.counts.rounds
    few = replace(desk.platform, limits=replace(desk.platform.limits, rounds_kept=1))
    retention.sweep(few)
    assert desk.sql("SELECT whole FROM round_log ORDER BY n LIMIT 1") == [(True,)]
    assert retention.sweep(few) == 0
    assert replay_of(desk, path).is_same


def replay_of(desk: Desk, path: Path) -> Replayed:
    path.write_text("".join(exporting.rounds(desk.platform, None, None)), "utf-8")
    return replayed(path)


def test_a_round_that_cannot_be_written_down_decides_and_is_no_agreement(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.account(gflop=10_000_000)
    desk.submit("acme", Behaviour(run_ms=900))
    desk.run(2)

    def broken(*_: Any) -> Any:
        raise LookupError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(recording, "codes_of", broken)
        job = desk.submit("acme", Behaviour(run_ms=900))
        desk.run(1)
        assert desk.state(job) == "succeeded"
    desk.submit("acme", Behaviour(run_ms=900))
    desk.run(2)
    found = replay_of(desk, tmp_path / "log.jsonl")
    assert found.counts.rounds_lost == 1
    assert found.rounds_that_differ == 0
    assert not found.is_same


def test_a_round_whose_transaction_fails_leaves_no_line(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.account(gflop=10_000_000)
    desk.submit("acme", Behaviour(run_ms=900))
    desk.run(2)
    lines = desk.sql("SELECT count(*) FROM round_log")
    desk.submit("acme", Behaviour(run_ms=900))
    real = recording._insert

    def dies(*arguments: Any) -> int:
        real(*arguments)
        raise ConnectionError("killed before the commit")

    with monkeypatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(recording, "_insert", dies)
        placing.run_schedule(desk.platform)
    assert desk.sql("SELECT count(*) FROM round_log") == lines
    desk.run(2)
    found = replay_of(desk, tmp_path / "log.jsonl")
    assert found.is_same
    assert found.counts.starts == 2


# --- as a workload -----------------------------------------------------------------------------


def test_a_record_is_a_trace_for_any_policy(record: Record) -> None:
    trace = read(record.path, "journal", ("Core", "Old"))
    assert not isinstance(trace, Problem)
    ended = {job for job, _ in record.held}
    assert ended <= set(trace.names)
    row = dict(zip(trace.names, trace.jobs, strict=True))
    counts = {job: len(names) for job, names in record.held}
    assert {job: int(row[job]["devices"]) for job in ended} == counts
    assert (trace.jobs["run_ms"] > 0).all()
    assert set(trace.jobs["tier"]) == {0, 1, 2}
    assert trace.rejected == 0
    assert any("had not ended" in note for note in trace.notes)
