"""Calibrating: never beside a job, also not beside one that started meanwhile."""

from __future__ import annotations

import pytest
from tests.app.conftest import Desk

from dusuan.app import pool
from dusuan.app.context import Refused
from dusuan.service.ratings import Ratings
from dusuan.sim.engine import Behaviour


def test_a_figure_measured_beside_a_job_is_not_kept(desk: Desk) -> None:
    desk.account(gflop=10_000)

    def measure() -> list[pool.Measured]:
        desk.submit("acme", Behaviour(run_ms=500))
        desk.run(2)  # it starts and ends while the devices are measured
        return [pool.Measured(device, 50) for device in desk.world.devices]

    with pytest.raises(Refused) as refused:
        Ratings(desk.platform, measure).calibrate()
    assert refused.value.problem.code == "devices_busy"
    assert {row[0] for row in desk.sql("SELECT gflops FROM rating")} == {100}


def test_idle_devices_are_measured_again(desk: Desk) -> None:
    def measure() -> list[pool.Measured]:
        return [pool.Measured(device, 50) for device in desk.world.devices]

    shown = Ratings(desk.platform, measure).calibrate()
    assert {device["rating_gflops"] for device in shown["devices"]} == {50}
