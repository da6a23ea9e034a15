"""Archives are unpacked beside the loop: nobody waits for somebody else's files."""

from __future__ import annotations

import errno
import io
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.engines.engine_harness import Driver, LocalHarness, Program, wait_for

from dusuan.core.metering.journal import EndReason, RecordKind
from dusuan.engines.base import Action, Observation
from dusuan.engines.local import archive
from dusuan.engines.local import engine as engine_module
from dusuan.sim.engine import Behaviour

LIST = Program("ls -A | wc -l", Behaviour())
MANY = 8_000


@pytest.fixture
def local(make_local: Callable[..., LocalHarness]) -> LocalHarness:
    return make_local("process")


def packed(folder: Path, count: int) -> Path:
    """An archive of `count` small files."""
    path = folder / f"{count}.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as file:
        for number in range(count):
            member = tarfile.TarInfo(f"f{number}")
            member.size = 1
            file.addfile(member, io.BytesIO(b"x"))
    return path


def test_a_start_does_not_wait_for_a_large_archive(local: LocalHarness, tmp_path: Path) -> None:
    driver, files = Driver(local), packed(tmp_path, MANY)
    began_s = time.thread_time()  # what the loop's own thread spends on it
    slow = driver.start(LIST, files=files)
    assert time.thread_time() - began_s < 0.05
    assert driver.engine.adopt() == [slow.attempt_id]  # its devices are taken
    assert driver.finished(slow).end.exit is not None
    assert local.engine.read_log(slow.attempt_id, 0, 99).strip() == str(MANY).encode()


@pytest.mark.parametrize("action", [Action.STOP, Action.KILL])
def test_a_job_stopped_while_its_files_are_unpacked_never_runs(
    local: LocalHarness, tmp_path: Path, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    hold_up(monkeypatch, gate)
    driver = Driver(local)
    story = driver.start(LIST, files=packed(tmp_path, 3))
    driver.engine.signal(story.attempt_id, action)
    gate.set()
    end = driver.finished(story).end
    assert end.exit is not None
    assert (end.exit.reason, end.held_ms) == (EndReason.STOPPED, 0)
    assert [record.kind for record in story.records] == [RecordKind.END]


def hold_up(monkeypatch: pytest.MonkeyPatch, gate: threading.Event) -> None:
    """Let nothing be unpacked before the gate is open."""

    def unpack(*args: object) -> None:
        assert gate.wait(10.0)
        archive.unpack(*args)  # type: ignore[arg-type] # handed on as it came

    monkeypatch.setattr(engine_module, "unpack", unpack)


def test_files_that_cannot_be_unpacked_end_the_attempt_in_words(
    local: LocalHarness, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.tar.gz"
    damaged.write_bytes(packed(tmp_path, 100).read_bytes()[:40])
    end = Driver(local).finished(Driver(local).start(LIST, files=damaged)).end
    assert end.exit is not None
    assert end.exit.reason is EndReason.START_FAILED
    assert "cannot be unpacked" in end.exit.text
    assert not list((local.root / "jobs").glob("*/work*"))


def test_a_machine_that_fails_an_archive_has_begun_nothing(
    local: LocalHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive, "_copy", full)
    driver = Driver(local)
    story = driver.start(LIST, files=packed(tmp_path, 3))
    seen: list[Observation] = []
    wait_for(lambda: seen.extend(local.engine.observe({story.attempt_id: 0})) or seen, "its end")  # type: ignore[func-returns-value] # told by what it fills
    assert (seen[0].lost, seen[0].began) == (True, False)
    monkeypatch.undo()
    local.engine.start(local.order(LIST, files=packed(tmp_path, 3)))  # it may be tried again
    assert driver.finished(story).records[-1].kind is RecordKind.END


def test_a_service_that_dies_while_it_unpacks_begins_again(
    local: LocalHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = local.root / "jobs" / "job1" / "work.new"
    folder.mkdir(parents=True)
    (folder / "half").touch()
    (local.root / "attempts" / "attempt1").mkdir()
    driver = Driver(local)
    story = driver.finished(driver.start(LIST, files=packed(tmp_path, 5)))
    assert local.engine.read_log(story.attempt_id, 0, 99).strip() == b"5"
