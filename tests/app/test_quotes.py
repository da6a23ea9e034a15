"""Quotes: probes that end, that never start, and that report nonsense."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.app.conftest import Desk

from dusuan.app import jobs, quotes
from dusuan.app.context import Refused
from dusuan.sim.engine import Behaviour

STEADY = [[0.5 * i, 10.0 * i] for i in range(8)]


def ask(desk: Desk, path: str = "acme", **keys: Any) -> str:
    """A quote for a job of 1,000 steps; its id. Its probes run as long as they may."""
    document = {"name": "job", "argv": ["work"], "workload": {"steps": 1_000}, **keys}
    quote_id = str(desk.call(quotes.create, path, json.dumps(document))["quote_id"])
    for (job_id,) in desk.sql(f"SELECT id FROM job WHERE quote_id = '{quote_id}' AND probe"):
        desk.behaviours[job_id] = Behaviour(run_ms=None)
    return quote_id


def report(desk: Desk, marks: list[list[float]]) -> None:
    """Every probe has reported these (elapsed seconds, steps done)."""
    desk.sql(f"UPDATE attempt SET meter = jsonb_set(meter, '{{marks}}', '{json.dumps(marks)}')")


def shown(desk: Desk, quote_id: str) -> dict[str, Any]:
    return dict(desk.ask(quotes.show, quote_id))


def test_probes_become_a_menu_and_are_paid_for(desk: Desk) -> None:
    desk.account(gflop=100_000, fen=10_000)
    quote_id = ask(desk)
    desk.run(3)
    assert shown(desk, quote_id)["state"] == "probing"
    report(desk, STEADY)
    desk.run(15)
    quote = shown(desk, quote_id)
    assert quote["state"] == "ready"
    assert quote["chosen"] == "cpu-x1-standard"
    assert quote["probe_held_gflop"] == 100_000 - desk.wallet()["balance_gflop"] > 0
    job = desk.call(jobs.submit_plan, quote_id, None)["job_id"]
    desk.behaviours[job] = Behaviour(run_ms=1_000)
    desk.run(3)
    assert desk.state(job) == "succeeded"
    desk.assert_clean()


@pytest.mark.parametrize(
    "marks",
    [
        [[0.2, 1e-300], [0.4, 2e-300], [0.6, 3e-300], [0.8, 4e-300]],
        [[0.2, 1], [0.4, 1e29], [0.6, 2e29], [0.8, 1e30]],
        [[0.2, 5e-324], [100.0, 1e-323], [200.0, 1.5e-323], [900.0, 2e-323]],
    ],
)
def test_a_probe_that_reports_nonsense_stops_nobody_else(
    desk: Desk, marks: list[list[float]]
) -> None:
    desk.account(gflop=100_000)
    quote_id = ask(desk)
    desk.run(1)
    report(desk, marks)
    desk.run(15)
    assert shown(desk, quote_id)["state"] in ("ready", "failed")
    job = desk.submit("acme", Behaviour(run_ms=1_000))
    desk.run(3)
    assert desk.state(job) == "succeeded"


def test_a_quote_that_breaks_the_rules_stops_nobody_else(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.account(gflop=100_000)
    quote_id = ask(desk)
    job = desk.submit("acme", Behaviour(run_ms=1_000))

    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(quotes, "assemble", broken)
    desk.run(20)
    assert shown(desk, quote_id)["problem"]["code"] == "quote_failed"
    assert desk.state(job) == "succeeded"


def test_a_probe_holds_back_nobody_and_is_given_up_in_the_end(desk: Desk) -> None:
    desk.account(gflop=10_000_000)
    long = desk.submit("acme", Behaviour(run_ms=None))
    desk.step(2)
    quote_id = ask(desk)  # on two devices it cannot run while `long` does
    desk.run(1)
    report(desk, STEADY)
    desk.run(7)
    others = [desk.submit("acme", Behaviour(run_ms=1_000)) for _ in range(2)]
    desk.run(4)
    assert [desk.state(job) for job in others] == ["succeeded"] * 2
    assert shown(desk, quote_id)["state"] == "probing"
    desk.sql("UPDATE quote SET expires_at = '2030-01-01'")
    desk.run(1)
    quote = shown(desk, quote_id)
    assert (quote["state"], quote["chosen"]) == ("ready", "cpu-x1-standard")
    assert [(e["count"], e["reason"][:23]) for e in quote["excluded"]] == [
        (2, "its probe did not start")
    ]
    desk.call(jobs.submit_plan, quote_id, None)  # what was measured can be bought
    assert desk.state(long) == "running"
    desk.assert_clean()


def probed(desk: Desk, behaviour: Behaviour, **keys: Any) -> dict[str, Any]:
    """The quote of a job without steps, whose probes behave so; and how many there were."""
    document = {"name": "job", "argv": ["work"], "wall_time": "1h", **keys}
    quote_id = str(desk.call(quotes.create, "acme", json.dumps(document))["quote_id"])
    probes = desk.sql(f"SELECT id FROM job WHERE quote_id = '{quote_id}' AND probe")
    for (job_id,) in probes:
        desk.behaviours[job_id] = behaviour
    desk.run(12)
    return {**shown(desk, quote_id), "tried": len(probes)}


def test_a_job_that_tells_nothing_is_probed_once_and_asked_for_more(desk: Desk) -> None:
    desk.account(gflop=100_000)
    quote = probed(desk, Behaviour(run_ms=None))
    (plan,) = quote["plans"]
    assert (quote["state"], quote["tried"], plan["count"]) == ("ready", 1, 1)
    assert (plan["basis"], plan["binding"], plan["finish_p50_s"]) == ("unmeasured", False, None)
    (note,) = quote["notes"]
    for way in ("$DUSUAN_REPORT", "progress: {pattern:", "`workload:`"):
        assert way in note
    job = desk.call(jobs.submit_plan, quote["quote_id"], None)["job_id"]
    desk.behaviours[job] = Behaviour(run_ms=1_000)
    desk.run(3)
    assert desk.receipt(job)["quote"] is None
    desk.assert_clean()


def test_a_job_that_tells_its_own_total_is_sized_and_bound_by_it(desk: Desk) -> None:
    desk.account(gflop=100_000)
    quote = probed(desk, Behaviour(run_ms=None, steps_per_s=5.0, steps=50.0))
    (plan,) = quote["plans"]
    assert (plan["basis"], plan["binding"], plan["work"]) == ("measured", True, 50.0)
    assert plan["finish_p50_s"] == pytest.approx(10.0, abs=0.1)


def test_a_job_that_ends_within_its_probe_is_known_whole(desk: Desk) -> None:
    desk.account(gflop=100_000)
    quote = probed(desk, Behaviour(run_ms=2_000))
    (plan,) = quote["plans"]
    assert (plan["finish_p50_s"], plan["finish_p90_s"], plan["binding"]) == (2.0, 3.0, False)


def test_a_job_that_breaks_in_its_probe_is_told(desk: Desk) -> None:
    desk.account(gflop=100_000)
    problem = probed(desk, Behaviour(run_ms=500, exit_code=3))["problem"]
    assert problem["code"] == "no_progress"
    assert "exit code 3" in problem["text"]


def test_a_pattern_means_that_every_count_is_tried(desk: Desk) -> None:
    desk.account(gflop=100_000)
    pattern = {"pattern": r"step (\d+)/(\d+)"}
    behaviour = Behaviour(run_ms=None, steps_per_s=5.0, steps=50.0)
    assert probed(desk, behaviour, progress=pattern)["tried"] == 2
    orders = [a.order for a in desk.world.attempts.values()]
    assert {o.progress_pattern for o in orders} == {pattern["pattern"]}


def test_devices_that_fell_out_say_why(desk: Desk) -> None:
    desk.account(gflop=100_000)
    desk.sql(
        "INSERT INTO device (device, node, make, model, kind, position, memory_mib, state, seen_at)"
        " VALUES ('gpu:9', 'n9', 'Biren', 'BR100', 'gpu', 9, 65536, 'ready', now()),"
        " ('gpu:8', 'n9', 'NVIDIA', 'B300', 'gpu', 8, 65536, 'down', now())"
    )
    quote = probed(desk, Behaviour(run_ms=None, steps_per_s=5.0, steps=50.0))
    reasons = {e["device"]: e["reason"] for e in quote["excluded"]}
    assert "unrated" in reasons["BR100"]
    assert reasons["B300"] == "not in service"
    document = {"name": "job", "argv": ["work"], "resources": {"origin": "domestic"}}
    with pytest.raises(Refused) as refused:
        desk.call(quotes.create, "acme", json.dumps(document))
    assert refused.value.problem.code == "no_usable_device"
    assert "BR100: unrated" in refused.value.problem.text


def test_a_quote_whose_probes_never_start_fails_and_keeps_nothing_set_aside(desk: Desk) -> None:
    desk.account(gflop=10_000_000)
    desk.submit("acme", Behaviour(run_ms=None), resources={"accelerators": "cpu:2"})
    desk.step(2)
    before = desk.wallet()["pending_gflop"]
    quote_id = ask(desk)
    assert desk.wallet()["pending_gflop"] > before
    desk.sql("UPDATE quote SET expires_at = '2030-01-01'")
    desk.step(2)
    assert desk.wallet()["pending_gflop"] == before
    assert "on 1: never started; on 2: never started" in shown(desk, quote_id)["problem"]["text"]
    with pytest.raises(Refused) as refused:
        desk.call(jobs.submit_plan, quote_id, None)
    assert refused.value.problem.code == "quote_not_ready"
    desk.assert_clean()
