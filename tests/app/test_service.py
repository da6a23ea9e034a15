"""The loop and the keys under fire: connections cut, requests sent twice at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.app.conftest import OPERATOR, Desk
from tests.app.test_races import side_by_side

from dusuan.app import wallets
from dusuan.app.context import Refused, refuse
from dusuan.app.once import once
from dusuan.service.loop import Pace, Service
from dusuan.sim.engine import Behaviour

CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def service(desk: Desk) -> Iterator[Service]:
    """The loop in a thread of its own, as in a real platform."""
    service = Service(desk.platform, lambda: None, lambda: None, Pace(0.02, 0.1, 0.05, 0.02))
    thread = threading.Thread(target=service.run)
    thread.start()
    yield service
    service.stop()
    thread.join(10.0)
    assert not thread.is_alive()


def test_a_service_whose_connections_are_cut_leads_again(desk: Desk, service: Service) -> None:
    eventually(service.leading.is_set)
    desk.account(gflop=10_000)
    # The loop may start a job before `submit` returns, so its behaviour has to be known before.
    desk.behaviours.update((f"job_{n:06d}", Behaviour(run_ms=None)) for n in range(100))
    started = []
    for _ in range(2):
        desk.sql(CUT)
        started.append(desk.submit("acme", Behaviour(run_ms=None)))  # meets no dead connection
        eventually(lambda: {desk.state(job) for job in started} == {"running"})
    desk.assert_clean()


def test_one_service_leads_and_another_takes_over(desk: Desk, service: Service) -> None:
    eventually(service.leading.is_set)
    other = Service(desk.platform, lambda: None, lambda: None, Pace(0.02, 0.1, 0.05, 0.02))
    thread = threading.Thread(target=other.run)
    thread.start()
    time.sleep(0.3)
    assert not other.leading.is_set()
    service.stop()
    eventually(other.leading.is_set)
    other.stop()
    thread.join(10.0)


def keyed(desk: Desk, key: str, work: Callable[[Any], dict[str, Any]]) -> Any:
    with desk.platform.store.transaction() as tx:
        return once(tx, OPERATOR, key, "hash", desk.platform.now(), lambda: work(tx))


def test_a_request_sent_twice_at_once_is_done_once(desk: Desk) -> None:
    desk.account()
    desk.call(wallets.create_package, "pack", 1_000, 100, None)

    def buy(tx: Any) -> dict[str, Any]:
        time.sleep(0.1)
        return wallets.buy_package(desk.platform, tx, OPERATOR, "acme", "pack")

    answers = side_by_side(*[lambda: keyed(desk, "k", buy)] * 4)
    assert all(answer == answers[0] for answer in answers)
    assert desk.wallet()["balance_gflop"] == 1_000


def test_a_key_of_a_refused_request_can_be_used_again(desk: Desk) -> None:
    def fail(_: Any) -> dict[str, Any]:
        raise refuse("insufficient", "no", "not now")

    with pytest.raises(Refused):
        keyed(desk, "k", fail)
    assert keyed(desk, "k", lambda _: {"done": 1}) == {"done": 1}
    assert keyed(desk, "k", fail) == {"done": 1}
