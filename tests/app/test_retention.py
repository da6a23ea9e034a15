"""What is kept for a while only goes; what is owed stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.app.conftest import OPERATOR, Desk

from dusuan.app import jobs, receipts, uploads
from dusuan.app.context import Refused
from dusuan.app.once import once
from dusuan.app.retention import sweep
from dusuan.sim.engine import Behaviour

MONTH_MS = 31 * 86_400_000
DAY_MS = 86_400_000


@pytest.fixture
def removed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What the engine was told to remove."""
    told: list[tuple[str, list[str]]] = []
    engine = type(desk.platform.engine)
    monkeypatch.setattr(
        engine, "remove_files", lambda _, job, attempts: told.append((job, list(attempts)))
    )
    return told


def upload(desk: Desk, upload_id: str) -> Path:
    """An archive that lies there."""
    path = desk.platform.uploads / f"{upload_id}.tar.gz"
    path.write_bytes(b"x")
    desk.call(uploads.record, upload_id, "0" * 64, 1)
    return path


def test_files_of_a_job_that_ended_long_ago_are_removed_once(
    desk: Desk, removed: list[tuple[str, list[str]]]
) -> None:
    desk.account(gflop=1_000_000)
    archive = upload(desk, "upl_1")
    done = desk.submit("acme", Behaviour(run_ms=1_000))
    desk.run(3)
    attempt = desk.show(done)["attempts"][0]["attempt_id"]
    desk.world.advance(MONTH_MS)
    young = desk.submit("acme", Behaviour(run_ms=1_000))
    desk.run(3)
    assert sweep(desk.platform) == 2
    assert removed == [(done, [attempt])]
    assert not archive.exists()
    assert sweep(desk.platform) == 0
    with pytest.raises(Refused) as refused:
        desk.ask(jobs.with_files, done)
    assert refused.value.problem.code == "files_removed"
    assert desk.ask(jobs.with_files, young).id == young
    assert desk.ask(receipts.receipt, done)["held_gflop"] == 100
    with pytest.raises(Refused):
        desk.ask(jobs.check_upload, "upl_1")
    desk.assert_clean()


def test_an_upload_that_a_waiting_job_needs_is_kept(desk: Desk) -> None:
    desk.account(gflop=1_000_000)
    archive = upload(desk, "upl_1")
    document = '{"name": "job", "argv": ["work"]}'
    job_id = str(desk.call(jobs.submit, "acme", document, upload_id="upl_1")["job_id"])
    desk.behaviours[job_id] = Behaviour(run_ms=1_000)
    desk.world.advance(MONTH_MS)
    sweep(desk.platform)
    assert archive.exists()
    desk.run(3)
    assert desk.state(job_id) == "succeeded"
    sweep(desk.platform)
    assert archive.exists()  # its job has only just ended
    desk.world.advance(MONTH_MS)
    sweep(desk.platform)
    assert not archive.exists()


def test_an_answer_is_remembered_for_a_week(desk: Desk) -> None:
    def keyed(answer: int) -> object:
        with desk.platform.store.transaction() as tx:
            now = desk.platform.now()
            return once(tx, OPERATOR, "k", "hash", now, lambda: {"n": answer})

    assert keyed(1) == {"n": 1}
    desk.world.advance(6 * DAY_MS)
    sweep(desk.platform)
    assert keyed(2) == {"n": 1}
    desk.world.advance(2 * DAY_MS)
    sweep(desk.platform)
    assert keyed(3) == {"n": 3}
