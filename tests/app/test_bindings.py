"""Accepted quotes: the bill of the described work is capped, and the centre bears the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.app.conftest import Desk

from dusuan.app import bindings, jobs, pool, prices, quotes
from dusuan.app.context import Refused
from dusuan.sim.engine import Behaviour

STEPS = 100.0
PROBE = Behaviour(run_ms=None, steps_per_s=20.0, steps=STEPS)  # 5 s on one device, as on two


def accepted(desk: Desk, real: Behaviour, **keys: Any) -> tuple[str, dict[str, Any]]:
    """A job on an accepted quote that then behaves like `real`, and the plan it runs on."""
    quote = ready(desk, **keys)
    (plan,) = [p for p in quote["plans"] if p["plan_id"] == quote["chosen"]]
    job_id = str(desk.call(jobs.submit_plan, quote["quote_id"], None)["job_id"])
    desk.behaviours[job_id] = real
    return job_id, plan


def ready(desk: Desk, **keys: Any) -> dict[str, Any]:
    document = {"name": "job", "argv": ["work"], "workload": {"steps": STEPS}, **keys}
    quote_id = str(desk.call(quotes.create, "acme", json.dumps(document))["quote_id"])
    for (probe,) in desk.sql(f"SELECT id FROM job WHERE quote_id = '{quote_id}' AND probe"):
        desk.behaviours[probe] = PROBE
    desk.run(12)
    quote = dict(desk.ask(quotes.show, quote_id))
    assert quote["state"] == "ready", quote
    return quote


def works(seconds: float, steps: float = STEPS, **changes: Any) -> Behaviour:
    """Does `steps` steps in `seconds`."""
    return Behaviour(
        run_ms=round(seconds * 1_000), steps_per_s=steps / seconds, steps=STEPS, **changes
    )


@pytest.fixture
def customer(desk: Desk) -> Desk:
    desk.account(gflop=100_000, fen=100_000)
    return desk


def test_a_job_as_quoted_pays_what_it_used(customer: Desk) -> None:
    job, plan = accepted(customer, works(5.0))
    customer.run(8)
    receipt = customer.receipt(job)
    quote = receipt["quote"]
    assert plan["price_fen_max"] == plan["billed_gflop_max"]
    assert 500 < plan["billed_gflop_max"] < 700
    assert (quote["charged_gflop"], quote["centre_gflop"], quote["beyond_gflop"]) == (500, 0, 0)
    assert quote["quoted_gflop"] == plan["billed_gflop_p50"] == pytest.approx(500, abs=40)
    assert quote["used_gflop"] == receipt["charged_gflop"] == 500
    assert sum(p["charge_fen"] for p in receipt["probes"]) > 0  # measuring is on the bill
    customer.assert_clean()


def test_overrun_within_the_described_work_is_the_centres(customer: Desk) -> None:
    job, plan = accepted(customer, works(8.0))
    before = customer.wallet()["balance_gflop"]
    customer.run(11)
    receipt = customer.receipt(job)
    cap = plan["billed_gflop_max"]
    assert customer.state(job) == "succeeded"
    assert receipt["charged_gflop"] == receipt["quote"]["charged_gflop"] == cap
    assert receipt["charge_fen"] == plan["price_fen_max"]
    assert receipt["quote"]["centre_gflop"] == receipt["borne_gflop"] == 800 - cap
    assert receipt["quote"]["used_gflop"] == receipt["held_gflop"] == 800
    assert any("are the centre's" in note for note in receipt["notes"])
    assert customer.wallet()["balance_gflop"] == before - cap
    (loss,) = customer.sql("SELECT posted_dr FROM ledger_account WHERE path = 'house/borne'")
    assert loss[0] == 800 - cap
    customer.assert_clean()


def test_what_a_job_does_beyond_its_description_is_billed(customer: Desk) -> None:
    # 20 steps a second for 9 s: the described 100 are done after 5 s, 80 more follow.
    job, plan = accepted(customer, works(9.0, steps=180.0))
    customer.run(12)
    receipt = customer.receipt(job)
    quote = receipt["quote"]
    assert quote["charged_gflop"] <= plan["billed_gflop_max"]
    assert quote["centre_gflop"] == 0
    assert quote["beyond_gflop"] == pytest.approx(400, abs=101)  # told once a second
    assert receipt["charged_gflop"] == 900
    assert any("more than its quote described" in note for note in receipt["notes"])
    customer.assert_clean()


def test_slow_and_more_than_described_splits_the_bill_in_three(customer: Desk) -> None:
    # 12.5 steps a second: the described work takes 8 s, past the cap; 4 s more are billed.
    job, plan = accepted(customer, works(12.0, steps=150.0))
    customer.run(15)
    receipt, cap = customer.receipt(job), plan["billed_gflop_max"]
    quote = receipt["quote"]
    assert quote["charged_gflop"] == cap
    assert quote["centre_gflop"] > 0
    assert quote["beyond_gflop"] > 200
    assert receipt["charged_gflop"] == cap + quote["beyond_gflop"]
    assert receipt["charged_gflop"] + receipt["borne_gflop"] + receipt["overrun_gflop"] == 1_200
    report = customer.audit()
    assert report["ok"], report


def test_the_centre_stops_what_passes_all_that_it_bears(customer: Desk) -> None:
    job, plan = accepted(customer, works(60.0), checkpoint={"signal": "SIGUSR1", "grace": "1s"})
    before = customer.wallet()["balance_gflop"]
    customer.run(25)
    receipt, cap = customer.receipt(job), plan["billed_gflop_max"]
    assert (customer.state(job), receipt["stop_reason"]) == ("failed", "quote")
    assert customer.wallet()["balance_gflop"] == before - cap
    assert cap < receipt["borne_gflop"] <= cap + 300  # and its grace and head
    assert any("all that its quote" in note for note in receipt["notes"])
    customer.assert_clean()


def test_a_wallet_that_the_cap_empties_does_not_stop_the_described_work(desk: Desk) -> None:
    desk.account(gflop=3_000)
    quote = ready(desk)  # measuring takes 1,200
    other = desk.submit("acme", Behaviour(run_ms=12_000))
    desk.run(14)
    assert desk.wallet()["balance_gflop"] == desk.wallet()["available_gflop"] == 600
    job = str(desk.call(jobs.submit_plan, quote["quote_id"], None)["job_id"])
    desk.behaviours[job] = works(8.0)  # 800 GFLOP, of which the quote caps about 530
    desk.run(11)
    assert (desk.state(other), desk.state(job)) == ("succeeded", "succeeded")
    assert 60 < desk.wallet()["balance_gflop"] < 90
    desk.assert_clean()


def test_a_lost_node_costs_the_customer_nothing_beyond_the_cap(customer: Desk) -> None:
    checkpoint = {"signal": "SIGUSR1", "grace": "1s"}
    job, plan = accepted(customer, works(6.0), checkpoint=checkpoint)
    customer.run(4)
    (attempt,) = [a["attempt_id"] for a in customer.show(job)["attempts"]]
    customer.world.kill_shepherd(attempt)
    customer.run(12)
    receipt, cap = customer.receipt(job), plan["billed_gflop_max"]
    assert (customer.state(job), receipt["attempts"]) == ("succeeded", 2)
    assert receipt["charged_gflop"] == cap
    assert receipt["borne_gflop"] == receipt["held_gflop"] - cap > 0
    customer.assert_clean()


def test_dearer_degrees_do_not_raise_what_was_promised(customer: Desk) -> None:
    quote = ready(customer)
    (plan,) = [p for p in quote["plans"] if p["plan_id"] == quote["chosen"]]
    # All that was cheap lapses before the job runs, and what is left costs ten times as much.
    customer.buy("acme", 100_000, fen=1_000_000)
    customer.sql("UPDATE lot SET priority = 200 WHERE paid_fen = 100000")
    job = str(customer.call(jobs.submit_plan, quote["quote_id"], None)["job_id"])
    customer.behaviours[job] = works(5.0)
    customer.run(8)
    receipt = customer.receipt(job)
    assert customer.state(job) == "succeeded"
    assert 0 < receipt["charge_fen"] <= plan["price_fen_max"]
    assert receipt["charged_gflop"] == receipt["charge_fen"] // 10
    assert receipt["quote"]["centre_gflop"] == 500 - receipt["charged_gflop"]
    customer.assert_clean()


def test_a_new_price_or_pool_does_not_change_an_accepted_quote(customer: Desk) -> None:
    quote = ready(customer)
    (plan,) = [p for p in quote["plans"] if p["plan_id"] == quote["chosen"]]
    customer.call(prices.change, {"standard": 3_000})
    with customer.platform.store.transaction() as tx:  # the card turns out to be twice as fast
        measured = [pool.Measured(f"cpu:{i}", 200) for i in range(2)]
        pool.record_ratings(customer.platform, tx, measured)
    job = str(customer.call(jobs.submit_plan, quote["quote_id"], None)["job_id"])
    customer.behaviours[job] = works(5.0)
    customer.run(8)
    receipt = customer.receipt(job)
    assert receipt["tier_permille"] == 1_000
    assert receipt["charged_gflop"] == plan["billed_gflop_max"]
    assert receipt["borne_gflop"] == 1_000 - plan["billed_gflop_max"]
    customer.assert_clean()


def test_a_tier_is_billed_at_its_price(customer: Desk) -> None:
    customer.call(prices.change, {"spot": 600})
    job = customer.submit("acme", Behaviour(run_ms=5_000), goal={"tier": "spot"})
    quoted, plan = accepted(customer, works(5.0), goal={"tier": "spot"})
    customer.run(10)
    for each in (job, quoted):
        receipt = customer.receipt(each)
        assert (receipt["tier"], receipt["tier_permille"]) == ("spot", 600)
        assert (receipt["held_gflop"], receipt["charged_gflop"]) == (500, 300)
    assert plan["held_gflop_p50"] * 6 == pytest.approx(plan["billed_gflop_p50"] * 10, rel=0.01)
    customer.assert_clean()
    with pytest.raises(Refused) as refused:
        customer.call(prices.change, {"spott": 600})
    assert refused.value.problem.code == "unknown_tier"


def test_an_expired_quote_cannot_be_accepted(customer: Desk) -> None:
    quote = ready(customer)
    customer.sql("UPDATE quote SET expires_at = '2030-01-01'")
    with pytest.raises(Refused) as refused:
        customer.call(jobs.submit_plan, quote["quote_id"], None)
    assert refused.value.problem.code == "quote_expired"


def test_the_error_of_quotes_is_reported_by_template(customer: Desk) -> None:
    for seconds in (5.0, 5.2, 8.0):
        accepted(customer, works(seconds))
        customer.run(11)
    other, _ = accepted(customer, works(5.0, exit_code=1), name="other")
    customer.run(8)
    assert customer.state(other) == "failed"  # says nothing about the quote
    report = customer.ask(bindings.report, None)
    (job,) = report["templates"]
    assert (job["organisation"], job["template"], job["quotes"]) == ("acme", "job", 3)
    assert job["p90_coverage"] == pytest.approx(2 / 3, abs=1e-3)
    assert 0 < job["centre_share"] < 0.2
    assert customer.ask(bindings.report, "other")["templates"] == []
