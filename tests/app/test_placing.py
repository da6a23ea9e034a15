"""Quota, fair share, spot and claims, through the database and the loop."""

from __future__ import annotations

from tests.app.conftest import OPERATOR, Desk

from dusuan.app import jobs, remedies, tenants
from dusuan.app.access import Need, account_for
from dusuan.sim.engine import Behaviour
from dusuan.store.rows import ShareRow

LONG = Behaviour(run_ms=600_000, stop_code=0)


def spot(desk: Desk, path: str, cores: int, **keys: object) -> str:
    return desk.submit(
        path, LONG, resources={"accelerators": f"cpu:{cores}"}, goal={"tier": "spot"}, **keys
    )


def test_spot_is_stopped_for_a_standard_job_and_goes_on_after_it(desk: Desk) -> None:
    desk.account(gflop=10_000_000)
    cheap = spot(desk, "acme", 2)
    desk.run(61)
    assert desk.state(cheap) == "running"
    dear = desk.submit("acme", Behaviour(run_ms=3_000), resources={"accelerators": "cpu:1"})
    desk.step()
    assert desk.state(cheap) == "stopping"
    waiting = desk.show(dear)["waiting"]
    assert waiting["code"] == "preempting"
    desk.run(1)
    assert desk.state(dear) == "running"
    assert (desk.state(cheap), desk.show(cheap)["stop_reason"]) == ("queued", "preempted")
    desk.run(5)
    assert desk.state(dear) == "succeeded"
    assert desk.state(cheap) == "running"  # from the start: it never said how it saves its state
    assert len(desk.show(cheap)["attempts"]) == 2
    desk.assert_clean()


def test_a_claim_outlives_the_service_and_ends_with_its_job(desk: Desk) -> None:
    desk.account(gflop=10_000_000)
    slow = desk.submit(
        "acme",
        Behaviour(run_ms=600_000, ignores_signal=True),
        resources={"accelerators": "cpu:2"},
        goal={"tier": "spot"},
    )
    desk.run(61)
    dear = desk.submit("acme", Behaviour(run_ms=3_000), resources={"accelerators": "cpu:1"})
    later = desk.submit("acme", Behaviour(run_ms=3_000), resources={"accelerators": "cpu:1"})
    desk.step(3)
    assert desk.show(dear)["waiting"]["code"] == "preempting"
    desk.call(jobs.cancel, dear)
    desk.run(3)  # the grace of the one that does not listen
    assert desk.state(dear) == "cancelled"
    assert desk.state(later) in ("running", "succeeded")
    assert desk.state(slow) != "stopping"
    desk.run(8)
    desk.assert_clean()


def test_a_department_takes_back_its_guaranteed_share(desk: Desk) -> None:
    desk.account()
    for name in ("vision", "speech"):
        desk.account(f"acme/{name}", gflop=10_000_000)
    desk.ask(tenants.set_quota, "acme/vision", quota=2, borrow=0, weight=1.0)
    desk.ask(tenants.set_quota, "acme/speech", quota=0, borrow=2, weight=1.0)
    saving = {"checkpoint": {"signal": "SIGUSR1", "grace": "1s"}}
    guest = desk.submit("acme/speech", LONG, resources={"accelerators": "cpu:2"}, **saving)
    desk.run(61)
    assert desk.state(guest) == "running"  # idle devices are lent
    own = desk.submit("acme/vision", Behaviour(run_ms=2_000), resources={"accelerators": "cpu:2"})
    desk.run(2)
    assert desk.state(own) == "running"
    assert desk.show(guest)["stop_reason"] == "preempted"
    greedy = desk.submit("acme/vision", LONG, resources={"accelerators": "cpu:1"})
    desk.step()
    assert desk.show(greedy)["waiting"]["code"] in ("quota", "capacity")
    desk.assert_clean()


def test_why_tells_what_would_start_it_and_when_it_is_expected(desk: Desk) -> None:
    desk.account(gflop=10_000_000)
    desk.submit("acme", LONG, resources={"accelerators": "cpu:1"}, wall_time="5m")
    desk.run(1)
    waits = desk.submit("acme", LONG, resources={"accelerators": "cpu:2"})
    desk.step()
    told = desk.call(remedies.why, waits)
    assert told["code"] == "capacity"
    assert [each["change"] for each in told["remedies"]] == ["count"]
    assert "1 device " in told["remedies"][0]["text"]
    assert told["expected_start_at"].startswith("2030-01-01T00:05:0")


def test_a_job_that_cannot_pay_is_told_that_money_alone_would_start_it(desk: Desk) -> None:
    desk.account(gflop=1_000)
    first = desk.submit("acme", LONG, resources={"accelerators": "cpu:1"})
    desk.run(1)
    assert desk.state(first) == "running"  # on all there is
    desk.run(12)  # until its balance stops it
    saving = {"checkpoint": {"signal": "SIGUSR1", "grace": "1s"}}
    desk.buy("acme", 700)
    poor = desk.submit("acme", LONG, resources={"accelerators": "cpu:1"}, **saving)
    desk.run(20)
    assert desk.show(poor)["waiting"]["code"] == "balance"
    told = desk.call(remedies.why, poor)
    assert [each["change"] for each in told["remedies"]] == ["balance"]
    assert told["expected_start_at"] is None


def test_what_an_account_does_not_lend_stays_idle_and_why_says_so(desk: Desk) -> None:
    desk.account()
    for name in ("vision", "speech"):
        desk.account(f"acme/{name}", gflop=10_000_000)
    told = desk.ask(tenants.set_quota, "acme/vision", quota=2, borrow=0, lend=1, weight=1.0)
    assert told["lend"] == 1
    first = desk.submit("acme/speech", LONG, resources={"accelerators": "cpu:1"})
    desk.run(1)
    second = desk.submit("acme/speech", LONG, resources={"accelerators": "cpu:1"})
    desk.step()
    assert (desk.state(first), desk.state(second)) == ("running", "queued")
    waiting = desk.show(second)["waiting"]
    assert (waiting["code"], waiting["data"]["limit"]) == ("quota", "lend")
    told = desk.call(remedies.why, second)
    assert [each["change"] for each in told["remedies"]] == ["lend"]
    desk.ask(tenants.set_quota, "acme/vision", quota=2, borrow=0, lend=None, weight=1.0)
    desk.run(1)
    assert desk.state(second) == "running"
    desk.assert_clean()


def test_an_organisations_quota_covers_its_departments_and_names_the_limit(desk: Desk) -> None:
    for name in ("acme", "other"):
        desk.account(name, gflop=10_000_000)
    desk.account("acme/vision", gflop=10_000_000)
    desk.ask(tenants.set_quota, "acme", quota=1, borrow=0, weight=1.0)
    saving = {"checkpoint": {"signal": "SIGUSR1", "grace": "1s"}}
    guest = desk.submit("other", LONG, resources={"accelerators": "cpu:2"}, **saving)
    desk.run(61)
    own = desk.submit("acme/vision", LONG, resources={"accelerators": "cpu:1"})
    desk.run(3)
    assert desk.state(own) == "running", "its organisation takes back what it is guaranteed"
    assert desk.show(guest)["stop_reason"] == "preempted"
    more = desk.submit("acme/vision", LONG, resources={"accelerators": "cpu:1"})
    desk.step()
    waiting = desk.show(more)["waiting"]
    assert waiting["code"] == "quota"
    assert waiting["data"] | {"needs": 1} == {
        "needs": 1, "limit": "quota", "account": "acme", "quota": 1, "borrow": 0, "used": 1,
    }  # fmt: skip
    told = desk.call(remedies.why, more)
    assert [(each["change"], each["value"]) for each in told["remedies"]] == [
        ("borrow", "1 on acme")
    ]
    desk.assert_clean()


def test_use_is_counted_in_what_was_held(desk: Desk) -> None:
    desk.account(gflop=10_000_000)
    desk.submit("acme", Behaviour(run_ms=3_000), resources={"accelerators": "cpu:2"})
    desk.run(8)
    with desk.platform.store.transaction() as tx:
        (row,) = tx.all(ShareRow, "shares_of", accounts=[_id_of(desk, "acme")])
    assert row.usage_gflop == 2 * 3 * 100  # devices, seconds, GFLOPS of each
    desk.assert_clean()


def _id_of(desk: Desk, path: str) -> str:
    with desk.platform.store.transaction() as tx:
        return account_for(tx, OPERATOR, path, Need.READ).id
