"""From submission to receipt on a virtual clock: holds, leases, bills, and nothing lost."""

from __future__ import annotations

import pytest
from tests.app.conftest import OPERATOR, Desk

from dusuan.app import jobs, placing, rounds, tenants
from dusuan.app.context import Refused
from dusuan.core.metering.journal import EndReason
from dusuan.engines.base import StartOrder
from dusuan.sim.engine import Behaviour, SimulatedEngine

CHECKPOINT = {"signal": "SIGUSR1", "grace": "1s"}
LONG = Behaviour(run_ms=None, checkpoint_ms=200, stop_code=75)


def test_a_job_pays_for_exactly_what_it_held(desk: Desk) -> None:
    desk.account(gflop=100_000, fen=10_000)
    job = desk.submit("acme", Behaviour(run_ms=7_300, result={"accuracy": 0.9}), wall_time="1m")
    desk.run(10)
    receipt = desk.receipt(job)
    assert desk.state(job) == "succeeded"
    assert receipt["held_ms"] == 7_300
    assert receipt["held_gflop"] == receipt["charged_gflop"] == 730
    assert receipt["charge_fen"] == 73
    assert receipt["overrun_gflop"] == 0
    assert receipt["balance_before_gflop"] == 100_000
    assert receipt["balance_after_gflop"] == 100_000 - 730
    assert receipt["result"] == {"accuracy": 0.9}
    assert [lot["gflop"] for lot in receipt["lots"]] == [730]
    assert desk.wallet()["pending_gflop"] == 0
    desk.assert_clean()


def test_two_devices_are_metered_twice_as_fast(desk: Desk) -> None:
    desk.account(gflop=100_000)
    job = desk.submit("acme", Behaviour(run_ms=3_000), resources={"accelerators": "cpu:2"})
    desk.run(5)
    assert desk.receipt(job)["held_ms"] == 6_000
    assert desk.receipt(job)["held_gflop"] == 600
    desk.assert_clean()


def test_a_job_and_its_first_slice_are_committed_together_or_not_at_all(desk: Desk) -> None:
    desk.account(gflop=399)  # 2 s of grace and 2 s of head at 100 GFLOPS are 400
    with pytest.raises(Refused) as refused:
        desk.submit("acme")
    assert refused.value.kind == "insufficient"
    assert refused.value.problem.code == "balance_too_small"
    assert "package buy" in refused.value.problem.remedy
    assert desk.look(jobs.listing, None, None, 10)["jobs"] == []
    assert desk.wallet()["pending_gflop"] == 0
    desk.buy("acme", 1)
    job = desk.submit("acme")
    assert desk.wallet()["pending_gflop"] == 400
    assert desk.state(job) == "queued"
    desk.assert_clean()


@pytest.mark.parametrize("gflop", [1_000, 1_001, 2_345, 7_777])
@pytest.mark.parametrize("every_ms", [100, 900])
def test_a_balance_is_spent_to_its_last_gflop_and_not_below(
    desk: Desk, gflop: int, every_ms: int
) -> None:
    desk.account(gflop=gflop)
    job = desk.submit("acme", LONG)
    desk.run(gflop / 100 + 5, every_ms)
    wallet, receipt = desk.wallet(), desk.receipt(job)
    assert desk.state(job) == "failed"
    assert receipt["stop_reason"] == "balance"
    assert receipt["overrun_gflop"] == 0
    # The job took 200 ms to save its state after the signal, 2 s before its ceiling.
    assert wallet["balance_gflop"] == gflop - receipt["held_gflop"]
    assert 0 <= wallet["balance_gflop"] <= 180 + 1
    desk.assert_clean()


def test_a_job_that_ignores_its_signal_uses_the_last_gflop(desk: Desk) -> None:
    desk.account(gflop=1_234)
    job = desk.submit("acme", Behaviour(run_ms=None, ignores_signal=True))
    desk.run(20)
    assert desk.wallet()["balance_gflop"] == 0
    assert desk.receipt(job)["held_gflop"] == 1_234
    assert desk.receipt(job)["overrun_gflop"] == 0
    desk.assert_clean()


def test_a_stopped_job_goes_on_from_its_checkpoint_after_a_top_up(desk: Desk) -> None:
    desk.account(gflop=1_000)
    job = desk.submit("acme", LONG, checkpoint=CHECKPOINT)
    desk.run(15)
    waiting = desk.show(job)["waiting"]
    assert desk.state(job) == "queued"
    assert waiting["code"] == "balance"
    assert "package buy" in waiting["remedy"]
    assert waiting["data"]["available_gflop"] < waiting["data"]["needs_gflop"] == 300
    desk.behaviours[job] = Behaviour(run_ms=2_000)
    desk.buy("acme", 5_000)
    desk.run(5)
    receipt = desk.receipt(job)
    assert desk.state(job) == "succeeded"
    assert receipt["attempts"] == 2
    assert len(receipt["lots"]) == 2
    assert desk.wallet()["balance_gflop"] == 6_000 - receipt["held_gflop"]
    assert [a["end_reason"] for a in desk.show(job)["attempts"]] == ["lease", "exit"]
    desk.assert_clean()


def test_two_jobs_side_by_side_share_what_is_left(desk: Desk) -> None:
    desk.account(gflop=3_000)
    long = desk.submit("acme", LONG, checkpoint=CHECKPOINT)
    short = desk.submit("acme", Behaviour(run_ms=4_000))
    desk.run(40)
    assert desk.state(short) == "succeeded"
    assert desk.state(long) == "queued"
    assert desk.show(long)["waiting"]["code"] == "balance"
    assert desk.receipt(short)["held_gflop"] == 400
    desk.assert_clean()


def test_the_centre_bears_what_runs_past_a_hold(desk: Desk) -> None:
    desk.account(gflop=1_000)
    job = desk.submit("acme", Behaviour(run_ms=None))
    desk.run(1)
    attempt = desk.show(job)["attempts"][0]["attempt_id"]
    desk.sql(f"UPDATE attempt SET held_ms = 99000 WHERE id = '{attempt}'")
    desk.step(2)
    assert desk.wallet()["balance_gflop"] >= 0
    report = desk.audit()
    assert report["ok"]
    assert report["alarms"] == [f"job {job}: {9_900 - 1_000} GFLOP beyond its holds"]


def test_wall_time_cancel_and_exit_codes_are_told_apart(desk: Desk) -> None:
    desk.account(gflop=1_000_000)
    cases = {
        desk.submit("acme", Behaviour(run_ms=None), wall_time="2s"): ("failed", "wall_time"),
        desk.submit("acme", Behaviour(exit_code=3)): ("failed", "exit"),
        desk.submit("acme", Behaviour(exit_signal=9)): ("failed", "signal"),
        desk.submit("acme", Behaviour(start_failure="no such thing")): ("failed", "start_failed"),
    }
    desk.run(12)
    for job, expected in cases.items():
        shown = desk.show(job)
        assert (shown["state"], shown["stop_reason"]) == expected
    assert desk.wallet()["pending_gflop"] == 0
    desk.assert_clean()


def test_cancelling_a_queued_job_releases_its_hold_at_once(desk: Desk) -> None:
    desk.account(gflop=10_000)
    running = desk.submit("acme", LONG, resources={"accelerators": "cpu:2"})
    desk.step(2)
    queued = desk.submit("acme")
    desk.step()
    assert desk.show(queued)["waiting"]["code"] == "capacity"
    before = desk.wallet()["pending_gflop"]
    assert desk.call(jobs.cancel, queued)["state"] == "cancelled"
    assert desk.wallet()["pending_gflop"] == before - 400
    assert desk.receipt(queued)["charge_fen"] == 0
    desk.call(jobs.cancel, running)
    desk.run(5)
    assert (desk.state(running), desk.show(running)["stop_reason"]) == ("cancelled", "cancelled")
    assert desk.call(jobs.cancel, running)["state"] == "cancelled"  # again changes nothing
    assert desk.wallet()["pending_gflop"] == 0
    desk.assert_clean()


def test_a_lost_attempt_is_paid_up_to_its_last_word_and_goes_on_if_it_can(desk: Desk) -> None:
    desk.account(gflop=100_000)
    plain = desk.submit("acme", Behaviour(run_ms=None))
    saved = desk.submit("acme", Behaviour(run_ms=None), checkpoint=CHECKPOINT)
    desk.run(3)
    for job in (plain, saved):
        desk.world.kill_shepherd(desk.show(job)["attempts"][0]["attempt_id"])
    desk.behaviours[saved] = Behaviour(run_ms=1_000)
    desk.run(5)
    assert (desk.state(plain), desk.show(plain)["stop_reason"]) == ("failed", "lost")
    assert desk.receipt(plain)["held_gflop"] == 300
    assert desk.state(saved) == "succeeded"
    assert [a["end_reason"] for a in desk.show(saved)["attempts"]] == ["lost", "exit"]
    desk.assert_clean()


def test_a_job_that_is_lost_again_and_again_is_given_up(desk: Desk) -> None:
    desk.account(gflop=100_000)
    job = desk.submit("acme", Behaviour(run_ms=None), checkpoint=CHECKPOINT)
    for number in range(rounds.LOST_ATTEMPTS_MAX):
        desk.run(1)
        assert len(desk.show(job)["attempts"]) == number + 1
        desk.world.kill_shepherd(desk.show(job)["attempts"][-1]["attempt_id"])
        desk.step(2)
    desk.run(1)
    assert (desk.state(job), desk.show(job)["stop_reason"]) == ("failed", "lost")


def test_a_new_service_goes_on_where_the_old_one_was(desk: Desk) -> None:
    desk.account(gflop=100_000)
    job = desk.submit("acme", Behaviour(run_ms=20_000))
    desk.run(4)
    held = desk.show(job)["attempts"][0]["held_ms"]
    desk.world.advance(10_000)  # nobody looks for ten seconds
    object.__setattr__(desk.platform, "engine", SimulatedEngine(desk.world))
    rounds.recover(desk.platform)
    desk.run(10)
    receipt = desk.receipt(job)
    assert held < 5_000
    assert (receipt["held_ms"], receipt["held_gflop"]) == (20_000, 2_000)
    assert receipt["attempts"] == 1
    desk.assert_clean()


def test_a_start_that_never_reached_the_engine_is_made_up_for(desk: Desk) -> None:
    desk.account(gflop=100_000)
    job = desk.submit("acme", Behaviour(run_ms=1_000))
    started = desk.platform.engine.start
    try:
        desk.platform.engine.start = lambda _order: None
        placing.run_schedule(desk.platform)  # committed, and then the service died
    finally:
        desk.platform.engine.start = started
    assert desk.state(job) == "starting"
    rounds.recover(desk.platform)
    desk.run(3)
    assert desk.state(job) == "succeeded"
    assert len(desk.show(job)["attempts"]) == 1
    desk.assert_clean()


def test_a_journal_read_again_changes_nothing(desk: Desk) -> None:
    desk.account(gflop=100_000)
    job = desk.submit("acme", Behaviour(run_ms=6_000))
    desk.run(3)
    desk.sql("UPDATE attempt SET cursor = 0")
    desk.run(8)
    assert desk.receipt(job)["held_gflop"] == 600
    desk.assert_clean()


def test_what_expires_lapses_but_running_work_keeps_its_hold(desk: Desk) -> None:
    desk.account()
    desk.buy("acme", 900, fen=900, days=1)
    desk.assert_clean()
    job = desk.submit("acme", Behaviour(run_ms=1_000))
    desk.world.advance(86_400_000)
    desk.run(3)
    assert desk.receipt(job)["held_gflop"] == 100
    wallet = desk.wallet()
    assert (wallet["balance_gflop"], wallet["lots"]) == (0, [])
    (breakage,) = desk.sql("SELECT posted_cr FROM ledger_account WHERE path = 'house/breakage'")
    assert breakage[0] == 800
    desk.assert_clean()


def test_a_budget_above_limits_what_a_wallet_below_may_spend(desk: Desk) -> None:
    desk.account()
    desk.account("acme/lab", gflop=50_000)
    desk.call(lambda _p, tx, actor: tenants.set_budget(tx, actor, "acme", 1_500))
    job = desk.submit("acme/lab", LONG, checkpoint=CHECKPOINT)
    desk.run(25)
    waiting = desk.show(job)["waiting"]
    assert waiting["code"] == "budget"
    assert "account budget acme " in waiting["remedy"]
    assert desk.wallet("acme")["spent_gflop"] <= 1_500
    assert desk.wallet("acme/lab")["budget_left_gflop"] is None
    desk.assert_clean()
    desk.behaviours[job] = Behaviour(run_ms=1_000)
    desk.call(lambda _p, tx, actor: tenants.set_budget(tx, actor, "acme", None))
    desk.run(3)
    assert desk.state(job) == "succeeded"
    desk.assert_clean()


def test_a_pooled_account_pays_from_its_parents_wallet(desk: Desk) -> None:
    desk.account(gflop=10_000)
    desk.account("acme/lab", pooled=True, budget_gflop=700)
    job = desk.submit("acme/lab", Behaviour(run_ms=2_000))
    desk.run(4)
    assert desk.receipt(job)["held_gflop"] == 200
    assert desk.wallet("acme")["balance_gflop"] == 9_800
    assert desk.wallet("acme/lab")["wallet"] == "acme"
    assert desk.wallet("acme/lab")["budget_left_gflop"] == 500
    desk.assert_clean()


def test_priority_goes_first_and_the_others_learn_why(desk: Desk) -> None:
    desk.account(gflop=100_000)
    for _ in range(2):
        desk.submit("acme", Behaviour(run_ms=3_000))
    desk.step()
    low = desk.submit("acme", Behaviour(run_ms=1_000))
    high = desk.submit(
        "acme", Behaviour(run_ms=1_000), priority=5, resources={"accelerators": "cpu:2"}
    )
    desk.step()
    assert desk.look(jobs.why, low)["code"] == "capacity"
    desk.run(4.5)
    assert (desk.state(high), desk.state(low)) == ("succeeded", "running")
    desk.assert_clean()


def test_the_live_lease_is_never_taken_back(desk: Desk) -> None:
    desk.account(gflop=3_000)
    first = desk.submit("acme", Behaviour(run_ms=None))
    ceilings = []
    for _ in range(20):
        desk.run(0.5)
        rows = desk.sql("SELECT lease_held_ms FROM attempt ORDER BY id LIMIT 1")
        ceilings.append(rows[0][0])
        if len(ceilings) == 5:
            desk.submit("acme", Behaviour(run_ms=None))
    assert ceilings == sorted(ceilings)
    assert desk.show(first)["attempts"][0]["end_reason"] in (None, EndReason.LEASE.value)
    desk.assert_clean()


def test_more_devices_than_there_are_and_unknown_ones_are_refused(desk: Desk) -> None:
    desk.account(gflop=100_000)
    for asked, code in (("cpu:3", "too_many_devices"), ("H100:1", "no_such_device")):
        with pytest.raises(Refused) as refused:
            desk.submit("acme", resources={"accelerators": asked})
        assert refused.value.problem.code == code
    with pytest.raises(Refused) as refused:
        desk.submit("acme", resources={"origin": "domestic"})
    assert refused.value.problem.code == "no_such_device"
    assert OPERATOR.operator


@pytest.mark.parametrize(
    ("fault", "reason", "said"),
    [
        (RuntimeError("a bug"), "start_failed", "RuntimeError"),
        (OSError(28, "No space left on device"), "not_begun", "No space left"),
    ],
)
def test_an_engine_that_breaks_on_one_job_does_not_stop_the_others(
    desk: Desk, fault: Exception, reason: str, said: str
) -> None:
    desk.account(gflop=100_000)
    poison = desk.submit("acme", Behaviour(run_ms=1_000))
    other = desk.submit("acme", Behaviour(run_ms=1_000))
    start = desk.platform.engine.start

    def breaks(order: StartOrder) -> None:
        if order.job_id == poison:
            raise fault
        start(order)

    desk.platform.engine.start = breaks
    desk.run(3)
    assert desk.state(other) == "succeeded"
    assert (desk.state(poison), desk.show(poison)["stop_reason"]) == ("failed", reason)
    assert said in desk.show(poison)["attempts"][0]["text"]
    assert desk.receipt(poison)["charge_fen"] == 0
    desk.assert_clean()


def test_a_job_has_its_whole_slice_before_it_has_worked_at_all(desk: Desk) -> None:
    desk.account(gflop=1_000_000)
    job = desk.submit("acme", Behaviour(run_ms=30_000))
    desk.step(3)  # no time passes: the service may die right after the start
    desk.world.advance(30_000)
    desk.step(3)
    assert (desk.state(job), desk.show(job)["stop_reason"]) == ("succeeded", "exit")
    desk.assert_clean()


def test_a_short_attempt_with_nothing_to_add_writes_nothing(desk: Desk) -> None:
    desk.account(gflop=400)
    desk.submit("acme", Behaviour(run_ms=None))
    desk.step(20)
    ((holds, transfers),) = desk.sql(
        "SELECT (SELECT count(*) FROM hold), (SELECT count(*) FROM transfer WHERE kind = 'tick')"
    )
    assert (holds, transfers) == (1, 0)


def test_a_job_that_ends_by_itself_right_after_its_cancellation_has_succeeded(desk: Desk) -> None:
    desk.account(gflop=100_000)
    job = desk.submit("acme", Behaviour(run_ms=2_000))
    desk.run(1)
    desk.world.advance(2_000)  # it has ended, and nobody has looked yet
    desk.call(jobs.cancel, job)
    desk.step(2)
    assert (desk.state(job), desk.show(job)["stop_reason"]) == ("succeeded", "exit")


@pytest.mark.parametrize(("flop_per_ms", "told"), [(100_000_000, False), (111_000_000, True)])
def test_more_delivered_than_held_is_told(desk: Desk, flop_per_ms: int, told: bool) -> None:
    desk.account(gflop=100_000)
    desk.sql("UPDATE rating SET spread = 0.1")
    job = desk.submit("acme", Behaviour(run_ms=2_000, flop_per_ms=flop_per_ms))
    desk.run(4)
    receipt = desk.receipt(job)
    assert receipt["delivered_source"] == "reported by the job"
    assert bool(receipt["notes"]) == told
