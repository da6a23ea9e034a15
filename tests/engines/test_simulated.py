"""What only a simulated engine can show: lost nodes, memory, and ten thousand attempts."""

from __future__ import annotations

import time

import pytest
from engine_harness import Driver, Program, SimulatedHarness, exits, sleeps

from dusuan.core.metering.journal import EndReason, Exit
from dusuan.engines.base import Device, DeviceState, Lease, StartFailed, StartOrder
from dusuan.sim.engine import Behaviour, SimulatedEngine, World


@pytest.fixture
def harness() -> SimulatedHarness:
    return SimulatedHarness()


def test_a_lost_node_takes_its_attempts_and_its_devices(harness: SimulatedHarness) -> None:
    driver = Driver(harness)
    there = driver.start(sleeps(9_000), attempt_id="there", devices=("d1", "d2"))
    elsewhere = driver.start(sleeps(500), attempt_id="elsewhere", job_id="j2", devices=("d3",))
    harness.pass_ms(100)
    harness.world.lose_node("n0")
    assert driver.finished(there).lost
    assert driver.finished(elsewhere).end.exit == Exit(EndReason.EXIT, code=0)
    states = {device.device: device.state for device in driver.engine.inventory()}
    assert states["d1"] is DeviceState.DOWN
    assert states["d2"] is DeviceState.READY
    with pytest.raises(StartFailed, match="down"):
        driver.start(exits(0), attempt_id="late", devices=("d0",))
    harness.world.restore_node("n0")
    assert driver.finished(driver.start(exits(0), attempt_id="later", devices=("d0",))).end.exit


def test_memory_is_told_from_a_kill(harness: SimulatedHarness) -> None:
    driver = Driver(harness)
    program = Program("", Behaviour(run_ms=10, out_of_memory=True))
    assert driver.finished(driver.start(program)).end.exit == Exit(
        EndReason.EXIT, signal=9, text="out of memory"
    )


def test_a_start_that_fails_is_an_end_with_its_reason(harness: SimulatedHarness) -> None:
    driver = Driver(harness)
    program = Program("", Behaviour(start_failure="command not found: x"))
    end = driver.finished(driver.start(program)).end
    assert end.exit == Exit(EndReason.START_FAILED, text="command not found: x")
    assert end.held_ms == 0
    assert driver.engine.adopt() == []


def test_ends_are_exact_to_the_millisecond(harness: SimulatedHarness) -> None:
    driver = Driver(harness)
    story = driver.start(sleeps(1_234), devices=("d0", "d1", "d2"))
    harness.world.advance(1_233)
    driver.look(story)
    assert not story.over
    harness.world.advance(1)
    driver.look(story)
    assert story.end.held_ms == 3 * 1_234
    assert story.end.wall_ms == 1_234


def test_observing_costs_nothing_while_nothing_happens() -> None:
    count = 10_000
    devices = [Device(f"d{i}", "n", "Test", "T", "gpu", i, None) for i in range(count)]
    world = World(devices, lambda _order: Behaviour(run_ms=10_000_000), ticks=False)
    engine = SimulatedEngine(world)
    cursors = {}
    for i in range(count):
        engine.start(StartOrder(f"j{i}", f"a{i}", (f"d{i}",), Lease(1, 1 << 40), script="x"))
        cursors[f"a{i}"] = 0
    cursors = {news.attempt_id: news.cursor for news in engine.observe(cursors)}
    assert engine.observe(cursors) == []
    began = time.perf_counter()
    for _ in range(100):
        world.advance(1)
        assert engine.observe(cursors) == []
    assert (time.perf_counter() - began) / 100 < 0.005
    assert world.next_event_ms() == 10_000_000
