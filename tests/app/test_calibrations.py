"""Classes of work measured, learnt from runs, and slow devices reported; what bills stays."""

from __future__ import annotations

import json

import pytest
from tests.app.conftest import Desk

from dusuan.app import calibrations, pool, quotes
from dusuan.app.calibrations import Sampled
from dusuan.sim.engine import Behaviour

WORK = {"kind": "train", "params": "1M", "tokens": "100K", "seq_len": 128, "batch": 8}


def sampled(desk: Desk, values: tuple[float, ...], class_: str = "train_step") -> None:
    rows = [Sampled(f"cpu:{i}", class_, values, method="m", software="s") for i in range(2)]
    with desk.platform.store.transaction() as tx:
        calibrations.record(desk.platform, tx, rows)


def shown(desk: Desk) -> dict[str, object]:
    return dict(desk.ask(lambda tx, _: pool.show(tx, operator=True)))


def believed(desk: Desk) -> tuple[float, float, float]:
    return dict(desk.ask(lambda tx, _: calibrations.sustained(tx, "train")))["Core"]


def trained(desk: Desk, gflops: float, *, on: str = "") -> None:
    """A training of 2 s that delivered `gflops`, at 10 steps a second or fewer on a slow device."""
    behaviour = Behaviour(run_ms=2_000, flop_per_ms=round(gflops * 1e6), steps_per_s=10, steps=20)
    job = desk.submit("acme", behaviour, workload={"kind": "train", "steps": 20})
    desk.run(3)
    assert desk.state(job) == "succeeded"
    if on:
        desk.sql(
            "UPDATE allocation SET device = '" + on + "' WHERE attempt_id ="
            f" (SELECT id FROM attempt WHERE job_id = '{job}')"
        )


def test_classes_are_kept_with_interval_and_provenance(desk: Desk) -> None:
    sampled(desk, (40.0, 50.0, 60.0))
    sampled(desk, (44.0, 45.0, 46.0))
    device = shown(desk)["devices"][0]  # type: ignore[index] # a list
    (known,) = device["calibrations"]
    assert (known["class"], known["value"], known["unit"]) == ("train_step", 45.0, "gflops")
    assert known["low"] < 45 < known["high"]
    assert (known["software"], known["method"], known["samples"]) == ("s", "m", 3)
    assert device["rating_gflops"] == 100  # what bills is the rating, and stays it
    assert desk.sql("SELECT count(*) FROM rating")[0][0] == 2


def test_finished_runs_move_what_is_believed_and_never_the_rating(desk: Desk) -> None:
    desk.account(gflop=1_000_000)
    sampled(desk, (50.0, 50.0, 50.0))
    assert believed(desk)[1] == 50.0
    for _ in range(4):
        trained(desk, 30.0)
    low, middle, high = believed(desk)
    assert middle == pytest.approx((50 * 30) ** 0.5, rel=0.02)  # four runs weigh as the measurement
    assert low < middle < high
    trained(desk, 5_000.0)  # more than the device can hold: not believed
    assert believed(desk)[1] == pytest.approx(middle, rel=0.01)
    report = shown(desk)
    assert [(x["model"], x["kind"]) for x in report["learnt"]] == [("Core", "train")]  # type: ignore[attr-defined] # a list
    assert {d["rating_gflops"] for d in report["devices"]} == {100}  # type: ignore[attr-defined] # a list


def test_a_described_job_is_sized_on_what_its_processor_was_seen_to_sustain(desk: Desk) -> None:
    desk.account(gflop=10**9)
    desk.sql("UPDATE device SET memory_mib = 65536")
    document = json.dumps({"name": "job", "argv": ["work"], "workload": WORK})
    before = dict(desk.call(quotes.create, "acme", document))
    assert before["state"] == "failed"
    assert "calibrate --class train_step" in before["problem"]["text"]
    sampled(desk, (50.0, 50.0, 50.0))
    quote = dict(desk.call(quotes.create, "acme", document))
    one = next(p for p in quote["plans"] if p["count"] == 1)
    flop = 6 * 1e6 * 1e5
    assert one["finish_p50_s"] == pytest.approx(flop / 50e9, rel=0.5)
    assert one["basis"] == "estimated"
    assert one["binding"]


def test_a_slow_device_is_found_and_reported(desk: Desk) -> None:
    desk.account(gflop=1_000_000)
    for device in ("cpu:0", "cpu:1", "cpu:0", "cpu:1", "cpu:0", "cpu:1", "cpu:0"):
        trained(desk, 30.0, on=device)
    assert shown(desk)["alarms"] == []
    desk.sql(
        "UPDATE attempt SET meter = jsonb_set(meter, '{progress}', '[12, 20]') WHERE id IN"
        " (SELECT attempt_id FROM allocation WHERE device = 'cpu:1')"
    )
    report = shown(desk)
    (alarm,) = report["alarms"]  # type: ignore[misc] # a list
    assert alarm.startswith("cpu:1: slow: 40% below")
    states = {d["device"]: d["state"] for d in report["devices"]}  # type: ignore[attr-defined] # a list
    assert states == {"cpu:0": "ready", "cpu:1": "slow"}
