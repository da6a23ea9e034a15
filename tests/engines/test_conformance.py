"""What every engine has to do, and what its journal has to say about it."""

from __future__ import annotations

import itertools
import signal

import pytest
from engine_harness import (
    SAVING,
    SHELL_WITH_CHILD,
    STUBBORN,
    Driver,
    dies_by,
    exits,
    sleeps,
)

from dusuan.core.metering.journal import EndReason, Exit, RecordKind
from dusuan.engines.base import Action, Lease, StartFailed


def ended(story_end: Exit | None) -> Exit:
    assert story_end is not None
    return story_end


# -- how attempts end ----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 42, 255])
def test_an_exit_code_is_told(driver: Driver, code: int) -> None:
    end = driver.finished(driver.start(exits(code))).end
    assert end.exit == Exit(EndReason.EXIT, code=code)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_is_told_from_an_exit_code(driver: Driver, number: int) -> None:
    end = driver.finished(driver.start(dies_by(number))).end
    assert end.exit == Exit(EndReason.EXIT, signal=int(number))


def test_wall_time_ends_a_job_within_its_grace(driver: Driver) -> None:
    end = driver.finished(driver.start(STUBBORN, wall_ms=300)).end
    assert ended(end.exit) == Exit(EndReason.WALL_TIME, signal=signal.SIGKILL)
    assert 400 <= end.held_ms <= 600 + driver.harness.slack_ms


def test_at_wall_time_a_job_may_save_itself(driver: Driver) -> None:
    end = driver.finished(driver.start(SAVING, wall_ms=300, grace_ms=5_000)).end
    assert end.exit == Exit(EndReason.WALL_TIME, code=7)
    assert 300 <= end.held_ms <= 320 + driver.harness.slack_ms


def test_stop_signals_and_waits_for_the_job(driver: Driver) -> None:
    story = driver.ready(driver.start(SAVING, grace_ms=5_000))
    driver.harness.pass_ms(100)
    driver.engine.signal(story.attempt_id, Action.STOP)
    assert driver.finished(story).end.exit == Exit(EndReason.STOPPED, code=7)


def test_stop_kills_after_the_grace(driver: Driver) -> None:
    story = driver.ready(driver.start(STUBBORN, grace_ms=300))
    driver.harness.pass_ms(100)
    driver.engine.signal(story.attempt_id, Action.STOP)
    end = driver.finished(story).end
    assert end.exit == Exit(EndReason.STOPPED, signal=signal.SIGKILL)
    assert 400 <= end.held_ms <= 400 + driver.harness.slack_ms + 100


def test_kill_is_at_once(driver: Driver) -> None:
    story = driver.ready(driver.start(STUBBORN, grace_ms=60_000))
    driver.harness.pass_ms(50)
    driver.engine.signal(story.attempt_id, Action.KILL)
    end = driver.finished(story).end
    assert (ended(end.exit).reason, ended(end.exit).signal) == (EndReason.STOPPED, signal.SIGKILL)
    assert end.held_ms <= 60 + driver.harness.slack_ms


def test_kill_overrides_a_stop_and_a_weaker_wish_does_not(driver: Driver) -> None:
    story = driver.ready(driver.start(STUBBORN, grace_ms=60_000))
    for action in (Action.STOP, Action.KILL, Action.STOP, Action.CHECKPOINT):
        driver.engine.signal(story.attempt_id, action)
    assert ended(driver.finished(story).end.exit).signal == signal.SIGKILL


def test_checkpoint_lets_the_job_go_on(driver: Driver) -> None:
    story = driver.ready(driver.start(STUBBORN))
    driver.engine.signal(story.attempt_id, Action.CHECKPOINT)
    driver.harness.pass_ms(200)
    driver.look(story)
    assert not story.over
    driver.engine.signal(story.attempt_id, Action.KILL)
    assert ended(driver.finished(story).end.exit).reason is EndReason.STOPPED


def test_the_shell_of_a_script_is_not_killed_before_its_child(driver: Driver) -> None:
    story = driver.ready(driver.start(SHELL_WITH_CHILD, grace_ms=5_000))
    driver.harness.pass_ms(200)
    driver.engine.signal(story.attempt_id, Action.STOP)
    assert driver.finished(story).end.exit == Exit(EndReason.STOPPED, code=143)


def test_another_checkpoint_signal(driver: Driver) -> None:
    story = driver.started(driver.start(sleeps(60_000), checkpoint_signal="SIGUSR1"))
    driver.harness.pass_ms(100)
    driver.engine.signal(story.attempt_id, Action.STOP)
    assert driver.finished(story).end.exit == Exit(EndReason.STOPPED, signal=signal.SIGUSR1)


# -- the lease -----------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [STUBBORN, SAVING, sleeps(60_000)], ids=["kill", "save", "die"])
@pytest.mark.parametrize("count", [1, 2])
def test_the_ceiling_of_a_lease_is_never_passed(
    driver: Driver, program: object, count: int
) -> None:
    assert isinstance(program, type(STUBBORN))
    held_ms_max = 600 * count
    devices = driver.harness.devices(count)
    story = driver.start(program, devices=devices, lease=Lease(1, held_ms_max), grace_ms=300)
    end = driver.finished(story).end
    assert ended(end.exit).reason is EndReason.LEASE
    assert 200 * count <= end.held_ms <= held_ms_max


def test_a_grace_longer_than_the_lease_takes_half_of_it(driver: Driver) -> None:
    story = driver.start(STUBBORN, lease=Lease(1, 800), grace_ms=60_000)
    end = driver.finished(story).end
    assert ended(end.exit).reason is EndReason.LEASE
    assert 600 <= end.held_ms <= 800


def test_half_of_a_short_lease_is_for_the_job_and_half_for_saving(driver: Driver) -> None:
    story = driver.start(SAVING, lease=Lease(1, 1_000), grace_ms=60_000)
    end = driver.finished(story).end
    assert end.exit == Exit(EndReason.LEASE, code=7)
    assert 400 <= end.held_ms <= 1_000


def test_a_renewed_lease_lets_the_job_go_on(driver: Driver) -> None:
    story = driver.started(driver.start(sleeps(1_500), lease=Lease(1, 900), grace_ms=200))
    driver.engine.set_lease(story.attempt_id, Lease(2, 3_600_000))
    assert driver.finished(story).end.exit == Exit(EndReason.EXIT, code=0)


def test_an_older_lease_is_refused(driver: Driver) -> None:
    story = driver.ready(driver.start(STUBBORN, lease=Lease(5, 800), grace_ms=200))
    for seq in (4, 5):
        driver.engine.set_lease(story.attempt_id, Lease(seq, 3_600_000))
    assert ended(driver.finished(story).end.exit).reason is EndReason.LEASE


def test_a_lease_may_shrink(driver: Driver) -> None:
    story = driver.ready(driver.start(STUBBORN))
    driver.engine.set_lease(story.attempt_id, Lease(2, 800))
    end = driver.finished(story).end
    assert ended(end.exit).reason is EndReason.LEASE
    assert end.held_ms <= 800


def test_a_lease_renewed_too_late_does_not_save_the_job(driver: Driver) -> None:
    story = driver.ready(driver.start(STUBBORN, lease=Lease(1, 1_200), grace_ms=500))
    driver.harness.pass_ms(800)
    driver.engine.set_lease(story.attempt_id, Lease(2, 3_600_000))
    end = driver.finished(story).end
    assert ended(end.exit).reason is EndReason.LEASE
    assert end.held_ms <= 1_200


# -- the journal ---------------------------------------------------------------------------------


def test_records_come_in_order_and_registers_never_fall(driver: Driver) -> None:
    story = driver.finished(driver.start(sleeps(400)))
    kinds = [record.kind for record in story.records]
    assert kinds[0] is RecordKind.START
    assert kinds[-1] is RecordKind.END
    assert set(kinds[1:-1]) == {RecordKind.TICK}
    assert [record.n for record in story.records] == list(range(1, len(kinds) + 1))
    held = [record.held_ms for record in story.records]
    assert held[0] == 0
    assert all(before <= after for before, after in itertools.pairwise(held))


@pytest.mark.parametrize("count", [1, 2])
def test_held_is_elapsed_time_on_every_device(driver: Driver, count: int) -> None:
    story = driver.start(sleeps(500), devices=driver.harness.devices(count))
    end = driver.finished(story).end
    assert 500 * count <= end.held_ms <= (500 + driver.harness.slack_ms) * count
    assert end.held_ms % count == 0


def test_nothing_new_is_no_news(driver: Driver) -> None:
    story = driver.finished(driver.start(exits(0)))
    driver.engine.observe({story.attempt_id: story.cursor})
    assert driver.engine.observe({story.attempt_id: story.cursor}) == []
    driver.harness.pass_ms(50)
    assert driver.engine.observe({story.attempt_id: story.cursor}) == []


def test_the_same_cursor_gives_the_same_news(driver: Driver) -> None:
    story = driver.finished(driver.start(exits(3)))
    driver.harness.restart()
    (first,) = driver.engine.observe({story.attempt_id: 0})
    (second,) = driver.engine.observe({story.attempt_id: 0})
    assert first == second
    assert list(first.records) == story.records


# -- starting ------------------------------------------------------------------------------------


def test_a_device_is_held_by_one_attempt_only(driver: Driver) -> None:
    driver.started(driver.start(sleeps(60_000)))
    with pytest.raises(StartFailed, match="held by another attempt"):
        driver.start(exits(0), attempt_id="attempt2", job_id="job2")


def test_a_gang_starts_whole_or_not_at_all(driver: Driver) -> None:
    first, second = driver.harness.devices(2)
    driver.started(driver.start(sleeps(60_000), devices=(first,)))
    with pytest.raises(StartFailed):
        driver.start(exits(0), attempt_id="gang", job_id="job2", devices=(second, first))
    assert driver.engine.adopt() == ["attempt1"]
    alone = driver.start(exits(0), attempt_id="alone", job_id="job3", devices=(second,))
    assert driver.finished(alone).end.exit == Exit(EndReason.EXIT, code=0)


def test_a_device_is_free_once_the_end_was_seen(driver: Driver) -> None:
    for number in range(5):
        names = {"attempt_id": f"attempt{number}", "job_id": f"job{number}"}
        assert driver.finished(driver.start(exits(number), **names)).end.exit is not None


def test_an_unknown_device_is_refused(driver: Driver) -> None:
    with pytest.raises(StartFailed, match="unknown device"):
        driver.start(exits(0), devices=("nosuch:7",))


def test_a_refused_start_can_be_tried_again(driver: Driver) -> None:
    story = driver.started(driver.start(sleeps(60_000)))
    with pytest.raises(StartFailed):
        driver.start(exits(9), attempt_id="attempt2", job_id="job2")
    driver.engine.signal(story.attempt_id, Action.KILL)
    driver.finished(story)
    again = driver.start(exits(9), attempt_id="attempt2", job_id="job2")
    assert ended(driver.finished(again).end.exit).code == 9


def test_starting_twice_is_one_start(driver: Driver) -> None:
    story = driver.start(sleeps(300))
    driver.start(sleeps(300))
    driver.finished(story)
    driver.start(sleeps(300))
    driver.harness.pass_ms(100)
    driver.look(story)
    assert [record.kind for record in story.records].count(RecordKind.START) == 1
    assert story.end.exit == Exit(EndReason.EXIT, code=0)
    assert driver.engine.adopt() == []


def test_starting_again_what_has_ended_is_no_start_whoever_has_the_device_now(
    driver: Driver,
) -> None:
    driver.finished(driver.start(exits(0)))
    driver.start(sleeps(60_000), attempt_id="attempt2", job_id="job2")
    driver.start(exits(0))
    assert driver.engine.adopt() == ["attempt2"]


# -- faults --------------------------------------------------------------------------------------


def test_an_unknown_attempt_is_lost(driver: Driver) -> None:
    (news,) = driver.engine.observe({"never-heard-of": 0})
    assert news.lost
    assert news.records == ()


def test_orders_for_attempts_that_are_not_running_are_ignored(driver: Driver) -> None:
    story = driver.finished(driver.start(exits(0)))
    for attempt_id in (story.attempt_id, "never-heard-of"):
        driver.engine.signal(attempt_id, Action.KILL)
        driver.engine.set_lease(attempt_id, Lease(9, 1))
    driver.harness.pass_ms(100)
    driver.look(story)
    assert story.end.exit == Exit(EndReason.EXIT, code=0)


def test_a_restart_of_the_service_stops_nobody(driver: Driver) -> None:
    story = driver.ready(driver.start(SAVING, lease=Lease(1, 2_000)))
    driver.harness.pass_ms(150)
    driver.look(story)
    driver.harness.restart()
    assert driver.engine.adopt() == [story.attempt_id]
    driver.engine.set_lease(story.attempt_id, Lease(2, 3_600_000))
    with pytest.raises(StartFailed):
        driver.start(exits(0), attempt_id="attempt2", job_id="job2")
    driver.harness.pass_ms(150)
    driver.engine.signal(story.attempt_id, Action.STOP)
    end = driver.finished(story).end  # the same cursor went on
    assert end.exit == Exit(EndReason.STOPPED, code=7)
    assert [record.n for record in story.records] == list(range(1, len(story.records) + 1))
    assert driver.engine.adopt() == []


def test_a_killed_shepherd_means_lost_and_frees_the_device(driver: Driver) -> None:
    story = driver.ready(driver.start(STUBBORN))
    driver.harness.kill_shepherd(story.attempt_id)
    driver.finished(story)
    assert story.lost
    assert all(record.exit is None for record in story.records)
    assert driver.engine.adopt() == []
    again = driver.start(exits(0), attempt_id="attempt2", job_id="job1")
    assert driver.finished(again).end.exit == Exit(EndReason.EXIT, code=0)
    driver.start(STUBBORN)  # an attempt is never run a second time
    driver.harness.pass_ms(100)
    assert driver.engine.adopt() == []


def test_capabilities_say_what_a_receipt_states(driver: Driver) -> None:
    told = driver.engine.capabilities()
    assert told.name in ("local", "simulated")
    assert len(told.isolation) > 10
