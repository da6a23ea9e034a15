"""The shepherd's parts, each by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dusuan.core.metering.journal import EndReason, Exit, Record, RecordKind, encode, read
from dusuan.shepherd import journal as writer
from dusuan.shepherd.course import Course, Limits
from dusuan.shepherd.joblog import JobLog
from dusuan.shepherd.orders import ControlFile, LeaseFile
from dusuan.shepherd.report import Report

SHEPHERD = Path(writer.__file__).parent
HOUR_MS = 3_600_000


# -- the course: when to signal, when to kill ----------------------------------------------------


def course(
    count: int = 1, grace_ms: int = 1_000, wall_ms: int | None = None, margin_ms: int = 100
) -> Course:
    return Course(Limits(count, grace_ms, wall_ms, margin_ms))


def first(found: Course, what: str, held_ms_max: int) -> int:
    """The first millisecond at which `step` says `what`."""
    return next(t for t in range(HOUR_MS) if found.step(t, held_ms_max) == what)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_lease_signals_then_kills_before_its_ceiling(count: int) -> None:
    found = course(count)
    assert first(found, "signal", 10_000 * count) == 10_000 - 1_000 - 100
    assert found.reason == "lease"
    assert first(found, "kill", 10_000 * count) == 10_000 - 100
    assert found.step(HOUR_MS, 10_000 * count) == ""


def test_the_grace_takes_at_most_half_of_a_lease() -> None:
    assert first(course(grace_ms=60_000), "signal", 10_000) == 10_000 - 100 - 5_000


@pytest.mark.parametrize("held_ms_max", [-5, 0, 1, 50, 100, 101])
def test_a_lease_too_short_for_anything_kills_at_once(held_ms_max: int) -> None:
    found = course()
    assert first(found, "kill", held_ms_max) <= 1
    assert found.reason == "lease"


def test_wall_time_signals_when_it_has_passed() -> None:
    found = course(wall_ms=5_000)
    assert first(found, "signal", HOUR_MS) == 5_000
    assert found.reason == "wall_time"
    assert first(found, "kill", HOUR_MS) == 6_000 - 100


def test_wall_time_is_bounded_by_the_lease() -> None:
    found = course(wall_ms=5_000, grace_ms=4_000)
    assert first(found, "signal", 9_000) == 9_000 - 100 - 4_000
    assert found.reason == "lease"
    late = course(wall_ms=5_000, grace_ms=4_000)
    assert first(late, "signal", 9_200) == 5_000
    assert late.reason == "wall_time"
    assert first(late, "kill", 8_000) == 7_900


def test_a_stop_is_committed_once_and_keeps_its_reason() -> None:
    found = course(wall_ms=5_000)
    assert found.stop(4_500)
    assert not found.stop(4_600)
    assert found.step(5_000, HOUR_MS) == ""
    assert first(found, "kill", HOUR_MS) == 5_500
    assert found.reason == "stopped"


def test_a_stop_is_bounded_by_lease_and_wall_time() -> None:
    by_lease, by_wall = course(grace_ms=60_000), course(grace_ms=1_000, wall_ms=5_000)
    by_lease.stop(100)
    assert first(by_lease, "kill", 3_000) == 2_900
    by_wall.step(5_000, HOUR_MS)
    by_wall.stop(5_500)
    assert (by_wall.reason, first(by_wall, "kill", HOUR_MS)) == ("wall_time", 5_900)


def test_a_lease_renewed_after_the_signal_changes_nothing() -> None:
    found = course()
    assert first(found, "signal", 10_000) == 8_900
    assert first(found, "kill", HOUR_MS) == 9_900


def test_a_kill_is_due_at_once_whatever_went_before() -> None:
    found = course(grace_ms=60_000)
    found.stop(1_000)
    found.kill(2_000)
    assert found.step(2_000, HOUR_MS) == "kill"


def test_the_loop_is_told_of_every_moment_at_which_something_is_due() -> None:
    """Stepping only at the moments `due_ms` names does the same as stepping always."""
    for held_ms_max in (500, 2_000, 7_000, 20_000):
        for wall_ms in (None, 1_500, 6_000):
            always, lazy = course(wall_ms=wall_ms), course(wall_ms=wall_ms)
            said = [(t, w) for t in range(21_000) if (w := always.step(t, held_ms_max))]
            heard = []
            while (due_ms := lazy.due_ms(held_ms_max)) is not None:
                heard.append((due_ms, lazy.step(due_ms, held_ms_max)))
            assert heard == said


# -- the journal ---------------------------------------------------------------------------------


def test_the_writer_and_the_core_speak_one_format(tmp_path: Path) -> None:
    file = writer.Journal(str(tmp_path / "journal"))
    ended = {"reason": "exit", "code": 3, "signal": None, "text": "度算"}
    body = {"log_bytes": 5, "flop": 10**20, "progress": [1.0, 2.0], "result": {"a": "é"}}
    assert file.append("start", 0, {"log_bytes": 0})
    assert file.append("end", 7, {**body, "exit": ended})
    data = (tmp_path / "journal").read_bytes()
    start, end = read(data).records
    assert start.kind is RecordKind.START
    assert end == Record(
        n=2,
        kind=RecordKind.END,
        held_ms=7,
        wall_ms=end.wall_ms,
        flop=10**20,
        progress=(1.0, 2.0),
        result={"a": "é"},
        log_bytes=5,
        exit=Exit(EndReason.EXIT, code=3, text="度算"),
    )
    # An end begins on a line of its own, whatever became of the one before it.
    assert encode(start) + b"\n" + encode(end) == data


def test_a_journal_is_never_continued_by_a_second_shepherd(tmp_path: Path) -> None:
    writer.Journal(str(tmp_path / "journal"))
    with pytest.raises(FileExistsError):
        writer.Journal(str(tmp_path / "journal"))


FULL_DISK = """
import sys
sys.path.insert(0, sys.argv[2])
from dusuan.shepherd.journal import Journal
folder = sys.argv[1]
journal = Journal(f"{folder}/journal")
assert journal.append("start", 0, {})
with open(f"{folder}/filler", "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(b"x" * 512)
    except OSError:
        pass
ticks = 0
while journal.append("tick", ticks, {"log_bytes": 7}):
    ticks += 1
    assert ticks < 10_000
exit = {"reason": "exit", "code": 0, "signal": None, "text": ""}
assert journal.append("end", ticks, {"result": {"x": "z" * 16_000}, "exit": exit})
sys.stdout.write(open(f"{folder}/journal").read())
"""


def test_on_a_full_disk_the_end_is_still_written(tmp_path: Path) -> None:
    """On a small disk of its own, which nobody else sees."""
    words = [sys.executable, "-c", FULL_DISK, str(tmp_path), str(SHEPHERD.parents[1])]
    mount = f'mount -t tmpfs -o size=1m tmpfs {tmp_path} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", *words]
    done = subprocess.run(command, capture_output=True, check=False)
    if b"unshare" in done.stderr or b"mount:" in done.stderr:
        pytest.skip("this machine lets nobody mount: " + done.stderr.decode().strip())
    assert done.returncode == 0, done.stderr.decode()
    reading = read(done.stdout)
    assert not reading.problems
    assert reading.records[-1].kind is RecordKind.END
    assert len(reading.records) > 10


def test_a_full_disk_costs_one_line_and_not_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = writer.Journal(str(tmp_path / "journal"))
    write = os.write
    monkeypatch.setattr(os, "write", lambda d, data: write(d, data[:20]))
    assert not file.append("start", 0, {"log_bytes": 0})
    monkeypatch.setattr(os, "write", write)
    assert file.append("tick", 5, {"log_bytes": 0})
    reading = read((tmp_path / "journal").read_bytes())
    assert [record.held_ms for record in reading.records] == [5]
    assert len(reading.problems) == 1


# -- the report ----------------------------------------------------------------------------------


def report_of(tmp_path: Path, *lines: str | bytes) -> Report:
    path = tmp_path / "report"
    path.write_bytes(
        b"".join(line.encode() if isinstance(line, str) else line for line in lines) + b"\n"
    )
    report = Report(str(path))
    report.poll()
    return report


@pytest.mark.parametrize("value", ["-1", "NaN", "Infinity", "1e999", "true", '"7"', "[1]", "1e31"])
def test_a_flop_count_that_is_none_is_refused(tmp_path: Path, value: str) -> None:
    assert report_of(tmp_path, f'{{"flop": {value}}}').flop is None


def test_flop_never_falls(tmp_path: Path) -> None:
    report = report_of(tmp_path, '{"flop": 5}\n{"flop": 9.0}\n{"flop": 7}')
    assert report.flop == 9
    assert isinstance(report.flop, int)


@pytest.mark.parametrize("value", ["[1]", "[1,2,3]", "[-1,2]", "[NaN,1]", "{}", "7", '["1","2"]'])
def test_progress_that_is_none_is_refused(tmp_path: Path, value: str) -> None:
    assert report_of(tmp_path, f'{{"progress": {value}}}').progress is None


@pytest.mark.parametrize(
    "value",
    [
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": "\\u0000"}',
        '{"a": "\\ud800"}',
        '{"\\ud800": 1}',
        '{"a": [[[[[1]]]]]}',
        '"text"',
        '{"a": "' + "x" * 20_000 + '"}',
    ],
)
def test_a_result_that_no_database_keeps_is_refused(tmp_path: Path, value: str) -> None:
    report = report_of(tmp_path, f'{{"result": {value}, "flop": 3}}')
    assert report.result == {}
    assert report.flop == 3  # the rest of the line stands


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\x00",
        b"[" * 60_000,
        b'{"flop": 8' + b"0" * 6_000 + b"}",
        b'{"flop": 1, "x": "' + b"y" * 70_000 + b'"}',
        b"[]",
        b"null",
        b"",
    ],
)
def test_garbage_is_passed_over(tmp_path: Path, line: bytes) -> None:
    report = report_of(tmp_path, line, b'\n{"flop": 2}')
    assert report.flop == 2


def test_a_report_is_read_as_it_grows_and_as_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text('{"flop": 1}\n{"fl')
    report = Report(str(path))
    report.poll()
    assert report.flop == 1
    with path.open("a") as file:
        file.write('op": 2}\n')
    report.poll()
    assert report.flop == 2
    path.write_text('{"flop": 3}\n')
    report.poll()
    assert report.flop == 3


def test_a_report_is_not_read_through_a_link(tmp_path: Path) -> None:
    """A job without a sandbox could point it at what only the service may read."""
    (tmp_path / "secret").write_text('{"flop": 7}\n')
    (tmp_path / "report").symlink_to("secret")
    report = Report(str(tmp_path / "report"))
    report.poll()
    assert report.flop is None


def test_of_a_flood_the_end_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text('{"flop": 1, "x": "%s"}\n' % ("y" * 1_000) * 30_000 + '{"flop": 2}\n')
    report = Report(str(path))
    began = time.perf_counter()
    report.poll()
    assert time.perf_counter() - began < 0.5
    assert report.flop == 2


# -- orders and log ------------------------------------------------------------------------------


def replace(path: Path, document: Any) -> None:
    path.with_suffix(".new").write_text(
        document if isinstance(document, str) else json.dumps(document)
    )
    path.with_suffix(".new").replace(path)


def test_a_lease_file_is_taken_over_by_its_sequence(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    replace(path, {"seq": 3, "held_ms_max": 10})
    lease = LeaseFile(str(path))
    for document, held_ms_max in (
        ({"seq": 2, "held_ms_max": 99}, 10),
        ({"seq": 3, "held_ms_max": 99}, 10),
        ("{damaged", 10),
        ([], 10),
        ({"seq": "9", "held_ms_max": 99}, 10),
        ({"seq": 4, "held_ms_max": 20}, 20),
    ):
        replace(path, document)
        lease.poll()
        assert lease.held_ms_max == held_ms_max
    path.unlink()
    lease.poll()
    assert lease.held_ms_max == 20


def test_an_attempt_without_a_lease_holds_nothing(tmp_path: Path) -> None:
    assert LeaseFile(str(tmp_path / "none")).held_ms_max == 0


def test_an_action_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "control.json"
    control = ControlFile(str(path))
    assert control.poll() == ""
    replace(path, {"seq": 1, "action": "stop"})
    assert [control.poll(), control.poll()] == ["stop", ""]
    replace(path, {"seq": 1, "action": "kill"})
    assert control.poll() == ""


@pytest.mark.parametrize(("written", "kept"), [(5, 5), (10, 10), (11, 10), (5_000_000, 10)])
def test_a_log_keeps_its_beginning(tmp_path: Path, written: int, kept: int) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"x" * written)
    log = JobLog(str(tmp_path / "log"), 10)
    source = os.open(path, os.O_RDONLY)
    assert not log.drain(source)
    os.close(source)
    log.close()
    assert log.bytes_total == written
    data = (tmp_path / "log").read_bytes()
    assert data[:kept] == b"x" * kept
    assert (f"{written - kept} more bytes" in data.decode()) == (written > kept)
    assert (len(data) == kept) == (written <= kept)


# -- the process ---------------------------------------------------------------------------------


def test_it_imports_little() -> None:
    """Every job pays for the shepherd's start, so heavy modules stay out."""
    code = f"import sys; sys.path.insert(0, {str(SHEPHERD.parents[1])!r})\n"
    code += "import dusuan.shepherd.loop, dusuan.shepherd.keeper\nprint(*sys.modules)"
    argv = [sys.executable, "-I", "-S", "-c", code]
    loaded = set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())
    heavy = {"argparse", "asyncio", "dataclasses", "inspect", "logging", "pathlib", "socket"}
    heavy |= {"subprocess", "typing", "threading", "tempfile", "dusuan.core", "dusuan.engines"}
    assert not loaded & heavy
