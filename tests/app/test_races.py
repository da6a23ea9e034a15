"""Transactions side by side: none waits for another in a circle, and nothing is set aside twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pytest
from tests.app.conftest import Desk

from dusuan.app import jobs, placing, pool, wallets
from dusuan.store import ledger

TIMEOUT_S = 10.0


def side_by_side(*verbs: Callable[[], Any]) -> list[Any]:
    """Run every verb in a thread of its own; their answers, or the first one's error."""
    with ThreadPoolExecutor(len(verbs)) as pool:
        return [future.result(TIMEOUT_S) for future in [pool.submit(verb) for verb in verbs]]


def test_two_purchases_at_once_both_go_through(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [desk.account("acme"), desk.account("bolt")]
    desk.call(wallets.create_package, "pack", 1_000, 100, None)
    met, write = threading.Barrier(2, timeout=TIMEOUT_S), ledger.write_transfer

    def write_and_meet(*args: Any) -> None:
        write(*args)
        met.wait()  # now both have written their entries, and neither has changed a balance

    monkeypatch.setattr(ledger, "write_transfer", write_and_meet)
    side_by_side(
        *(lambda path=path: desk.call(wallets.buy_package, path, "pack") for path in paths)
    )
    assert [desk.wallet(path)["balance_gflop"] for path in paths] == [1_000, 1_000]
    desk.assert_clean()


def unheld(desk: Desk, path: str = "acme") -> str:
    """A queued job without a hold: it was submitted before the pool had a rating."""
    desk.sql("DELETE FROM rating")
    job = desk.submit(path)
    with desk.platform.store.transaction() as tx:
        pool.record_ratings(
            desk.platform, tx, [pool.Measured(device, 100) for device in desk.world.devices]
        )
    return job


class Meanwhile:
    """`set_aside`, with a cancellation begun by somebody else before or after it."""

    def __init__(self, desk: Desk, job: str, *, after: bool) -> None:
        self._desk, self._job, self._after = desk, job, after
        self._real, self._pool = jobs.set_aside, ThreadPoolExecutor(1)
        self.cancelled: Future[Any] | None = None

    def __call__(self, *args: Any) -> Any:
        answer = self._real(*args) if self._after else None
        if self.cancelled is None:
            self.cancelled = self._pool.submit(self._desk.call, jobs.cancel, self._job)
            wait([self.cancelled], 0.5)  # it is done, or waits for a lock
        return answer if self._after else self._real(*args)


def test_a_job_cancelled_while_it_gets_its_hold_keeps_none(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.account(gflop=100_000)
    job = unheld(desk)
    meanwhile = Meanwhile(desk, job, after=False)
    monkeypatch.setattr(jobs, "set_aside", meanwhile)
    placing.run_schedule(desk.platform)
    assert meanwhile.cancelled is not None
    meanwhile.cancelled.result(TIMEOUT_S)
    desk.run(5)
    assert desk.state(job) == "cancelled"
    assert desk.wallet()["pending_gflop"] == 0
    desk.assert_clean()


def test_a_round_and_a_cancellation_never_wait_for_each_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.account(gflop=100_000)
    first = unheld(desk)
    second = desk.submit("acme")
    meanwhile = Meanwhile(desk, second, after=True)
    monkeypatch.setattr(jobs, "set_aside", meanwhile)
    placing.run_schedule(desk.platform)
    assert meanwhile.cancelled is not None
    meanwhile.cancelled.result(TIMEOUT_S)
    desk.run(5)
    assert (desk.state(first), desk.state(second)) == ("succeeded", "cancelled")
    desk.assert_clean()
