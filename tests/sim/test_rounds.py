"""Records of live rounds that cannot be used say why, and what to do."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dusuan.cli import simulating
from dusuan.core.plain import to_plain
from dusuan.core.scheduling.live import Moves, Sight, Waiting
from dusuan.core.scheduling.model import Cluster, DeviceSlot, QueuedJob, Request, Share, Start
from dusuan.core.scheduling.policy import POLICIES
from dusuan.core.scheduling.record import Entry, Left, Run
from dusuan.core.workload.jobspec import Problem
from dusuan.sim import recorded
from dusuan.sim.readers import read
from dusuan.sim.replay import Replayed, replay
from dusuan.sim.run import Settings, simulate
from dusuan.sim.trace import Rated

Line = dict[str, Any]
HEADER = {"kind": "header", "format": "dusuan-rounds", "version": 1, "software": "0.1.0"}


def job(number: int, expected_ms: int = 5_000) -> Waiting:
    asked = Request(1, "gpu", "X")
    return Waiting(
        QueuedJob(
            f"job{number}", number, asked, owner="acc", waits_since_ms=900, expected_ms=expected_ms
        )
    )


def lines() -> list[Line]:
    """One device: a job starts, a second when it has ended; a third still waits."""
    device = DeviceSlot("gpu:0", "n1", "gpu", "X", gflops=100)
    first = Entry(
        7,
        1_000,
        fresh=True,
        policy=POLICIES["centre"],
        whole=Sight(Cluster((device,)), waiting=(job(1),)),
        moves=Moves((Start("job1", ("gpu:0",)),)),
        runs=(),
    )
    second = Entry(
        8,
        2_000,
        seen={"waiting": {"new": [to_plain(job(2)), to_plain(job(3))]}},
        waits={"capacity": ("job2", "job3")},
    )
    third = Entry(
        9,
        9_000,
        2,
        4_000,
        left={"job1": Left("succeeded", "exit", 8_900, 7_900)},
        moves=Moves((Start("job2", ("gpu:0",)),)),
    )
    entries = [{"kind": "round", **to_plain(each)} for each in (first, second, third)]
    return [HEADER, *entries, {"kind": "end", "rounds": 3}]


def write(path: Path, content: list[Line]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in content), "utf-8")
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_a_small_record_replays_plain_or_packed(tmp_path: Path, packed: bool) -> None:
    path = write(tmp_path / "log", lines())
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    found = replay(path, None)
    assert isinstance(found, Replayed), found
    assert found.is_same, found.first
    assert (found.counts.starts, found.counts.arrivals, found.counts.quiet_rounds) == (2, 2, 2)


def without_end(content: list[Line]) -> None:
    del content[-1]


def without_a_round(content: list[Line]) -> None:
    del content[2]


def swapped(content: list[Line]) -> None:
    content[2], content[3] = content[3], content[2]


def twice(content: list[Line]) -> None:
    content.insert(3, content[2])


def of_tomorrow(content: list[Line]) -> None:
    content[0] = {**HEADER, "version": 2, "software": "9.0"}


def not_ours(content: list[Line]) -> None:
    content[0] = {"kind": "submit", "time_ms": 0}


def no_header(content: list[Line]) -> None:
    del content[0]


def no_rounds(content: list[Line]) -> None:
    content[1:] = [{"kind": "end", "rounds": 0}]


def wrong_count(content: list[Line]) -> None:
    content[-1] = {"kind": "end", "rounds": 9}


def goes_on(content: list[Line]) -> None:
    content.append(content[-1])


def begins_late(content: list[Line]) -> None:
    del content[1]
    content[-1]["rounds"] = 2


def new_field(content: list[Line]) -> None:
    content[2]["weather"] = "fine"


def wrong_type(content: list[Line]) -> None:
    content[2]["at_ms"] = "noon"


def stranger_leaves(content: list[Line]) -> None:
    content[3]["seen"] = {"waiting": {"gone": ["job9"]}}


def starts_nobody(content: list[Line]) -> None:
    content[3]["moves"]["starts"][0]["job_id"] = "job9"


def of_another_kind(content: list[Line]) -> None:
    content[2]["kind"] = "poem"


@pytest.mark.parametrize(
    ("spoil", "code", "line", "words"),
    [
        (without_end, "truncated", 4, "ends after round 9"),
        (without_a_round, "gap", 3, "round 8 is missing"),
        (swapped, "gap", 3, "round 8 is missing"),
        (twice, "out_of_order", 4, "round 8 stands after round 8"),
        (of_tomorrow, "wrong_version", 1, "version 2; this program reads 1"),
        (not_ours, "not_a_record", 1, "no record of live rounds"),
        (no_header, "not_a_record", 1, "no record of live rounds"),
        (no_rounds, "no_rounds", 2, "holds no round"),
        (wrong_count, "gap", 5, "says that it has 9 rounds, and has 3"),
        (goes_on, "bad_row", 6, "goes on after its last line"),
        (begins_late, "gap", 2, "what it saw as a whole"),
        (new_field, "bad_row", 3, "has no 'weather'"),
        (wrong_type, "bad_row", 3, "at_ms is 'noon'"),
        (stranger_leaves, "gap", 4, "there is no 'job9'"),
        (starts_nobody, "gap", 4, "job9"),
        (of_another_kind, "bad_row", 3, "no round, but 'poem'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, spoil: Callable[[list[Line]], None], code: str, line: int, words: str
) -> None:
    content = json.loads(json.dumps(lines()))
    spoil(content)
    found = replay(write(tmp_path / "log", content), None)
    assert isinstance(found, Problem), found
    assert (found.code, found.line) == (code, line)
    assert words in found.text
    assert found.remedy


def bytes_of(tmp_path: Path) -> bytes:
    return write(tmp_path / "whole", lines()).read_bytes()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda _: b"", "empty"),
        (lambda whole: whole[:-40], "bad_row"),
        (lambda whole: whole[:30], "not_a_record"),
        (lambda whole: gzip.compress(whole)[:-30], "unreadable"),
        (lambda _: b"\xff\xfe\x00", "not_text"),
        (lambda _: b"a,b\n1,2\n", "not_a_record"),
        (lambda whole: b"[" * 100_000 + whole, "not_a_record"),
    ],
)
def test_files_that_are_cut_or_of_another_kind(
    tmp_path: Path, spoil: Callable[[bytes], bytes], code: str
) -> None:
    path = tmp_path / "log"
    path.write_bytes(spoil(bytes_of(tmp_path)))
    found = replay(path, None)
    assert isinstance(found, Problem)
    assert found.code == code
    assert found.remedy
    assert isinstance(read(path, "journal"), Problem)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    found = replay(tmp_path / "log", None)
    assert isinstance(found, Problem)
    assert found.code == "no_such_file"


def test_a_record_is_a_workload_with_its_cluster(tmp_path: Path) -> None:
    path = write(tmp_path / "log", lines())
    trace = read(path, "journal", ("X",))
    assert not isinstance(trace, Problem)
    assert trace.names == ("job1", "job2", "job3")
    assert list(trace.jobs["run_ms"]) == [7_900, 5_000, 5_000]
    assert list(trace.jobs["types"]) == [1, 1, 1]
    assert "1 jobs had not ended when the log ends" in trace.notes[0]
    assert "1 jobs had not begun" in trace.notes[1]
    site = recorded.site(path, lambda _: Rated(1, 300.0))
    assert not isinstance(site, Problem)
    assert (site.devices, site.models, list(site.ratings)) == (1, ("X",), [100])
    assert site.watts == (300.0,)
    given = simulating.read("journal", path, None, None, None)  # `sim run` without --cluster
    assert (given.site.devices, given.trace.names) == (1, trace.names)


def with_quota(path: Path) -> Path:
    """Two devices, of which the account of all three jobs may use one; its customer has both."""
    content = lines()
    sight = content[1]["whole"]
    slots = [DeviceSlot(f"gpu:{i}", "n1", "gpu", "X", gflops=100) for i in (0, 1)]
    limits = (Share("customer", quota=2, lend=0), Share("acc", "customer", 3.0, 1, 0))
    sight["pool"] = to_plain(Cluster(tuple(slots), shares=limits))
    return write(path, content)


def test_the_accounts_of_a_record_keep_their_limits(tmp_path: Path) -> None:
    path = with_quota(tmp_path / "log")
    given = simulating.read("journal", path, None, None, None)
    tree = given.accounts
    assert given.trace.accounts == ("acc",)
    assert tree["parent"].tolist() == [1, -1]
    assert tree["weight"].tolist() == [3.0, 1.0]
    assert tree["quota_milli"].tolist() == [1000, 2000]
    assert tree["borrow_milli"].tolist() == [0, -1]
    assert tree["lend_milli"].tolist() == [-1, 0]
    none = tmp_path / "none.csv"  # a file of accounts stands instead of the record's
    none.write_text("account\nacc\n")
    freed = simulating.read("journal", path, None, None, none)
    most = []
    for each in (given, freed):
        settings = Settings(POLICIES["centre"])
        outcome = simulate(each.site, each.trace, settings, lambda: 0.0, accounts=each.accounts)
        most.append(outcome.measured.series.held.max())
    assert most == [1, 2]


def test_runs_of_reasons_have_to_fit_the_queue(tmp_path: Path) -> None:
    content = lines()
    content[2]["waits"], content[2]["runs"] = {}, [to_plain(Run("capacity", 2))]
    found = replay(write(tmp_path / "log", content), None)
    assert isinstance(found, Replayed)
    assert found.is_same
    content[2]["runs"] = [to_plain(Run("capacity", 3))]
    wrong = replay(write(tmp_path / "log", content), None)
    assert isinstance(wrong, Problem)
    assert "reasons for 3 jobs, and 2 wait" in wrong.text
