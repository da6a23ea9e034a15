"""Jobs over the API: bad input, quotes and goals, pages, cancelling, receipts."""

from __future__ import annotations

from typing import Any

import pytest
from tests.api.centre import Centre

from dusuan.api import models
from dusuan.core.ledger.tick import SlicePolicy

STEPS = "run: python train.py\nworkload: {steps: 400}\n"


@pytest.mark.parametrize(
    ("job", "code", "line"),
    [
        ("", None, None),
        ("{", None, None),
        ("run: a\nrum: b\n", "unknown_key", 2),
        ("run: a\npriority: high\n", "wrong_type", 2),
        ("run: a\nresources:\n  acelerators: A100\n", "unknown_key", 3),
        ("name: x\n", "nothing_to_run", 1),
        ("- a\n- b\n", None, None),
    ],
)
def test_bad_job_files(centre: Centre, job: str, code: str | None, line: int | None) -> None:
    centre.organisation("acme", 1)
    body = {"account": "acme", "job": job}
    for path in ("/v1/jobs", "/v1/quotes", "/v1/jobs/check"):
        sent = {"job": job} if path.endswith("check") else body
        answer = centre.operator.post(path, json=sent)
        assert answer.status_code == 422, answer.text
        problem = answer.json()
        assert problem["detail"]
        if code is not None:
            assert (problem["code"], problem["line"]) == (code, line)


def test_a_job_file_that_is_too_large(centre: Centre) -> None:
    centre.organisation("acme", 1)
    body = {"account": "acme", "job": "run: a\n#" + "x" * 1_048_576}
    answer = centre.operator.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (413, "job_file_too_large")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"account": "acme"},
        {"job": "run: a"},
        {"quote_id": 1},
        {"quote_id": "quo_1", "job": "run: a"},
        {"account": "acme", "job": "run: a", "plan_id": "x"},
        [],
    ],
)
def test_half_a_submission(centre: Centre, body: Any) -> None:
    answer = centre.operator.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_what_a_client_has_to_upload(centre: Centre) -> None:
    job = "run: a\nworkdir: ./here\nfile_mounts: {}\nworkload: {steps: 5}\n"
    checked = centre.operator.post("/v1/jobs/check", json={"job": job}).json()
    assert (checked["workdir"], checked["steps"]) == ("./here", 5.0)
    assert checked["warnings"][0].startswith("line 3: ")


def test_a_balance_too_small_changes_nothing(centre: Centre) -> None:
    centre.organisation("acme")
    one = centre.person("acme", "one", "member")
    answer = one.post("/v1/jobs", json={"account": "acme", "job": "run: a\n"})
    assert (answer.status_code, answer.json()["code"]) == (402, "balance_too_small")
    assert "package buy" in answer.json()["remedy"]
    assert one.get("/v1/jobs").json()["jobs"] == []
    quote = one.post("/v1/quotes", json={"account": "acme", "job": STEPS})
    assert quote.status_code == 402


def test_the_way_of_a_job(centre: Centre) -> None:
    centre.organisation("acme", 1)
    one = centre.person("acme", "one", "member")
    made = one.post("/v1/jobs", json={"account": "acme", "job": "run: exit 3\n"}).json()
    job = f"/v1/jobs/{made['job_id']}"
    assert one.get(job).json()["state"] == "queued"
    early = one.get(f"{job}/receipt")
    assert (early.status_code, early.json()["code"]) == (409, "not_ended")
    centre.turn()
    shown = one.get(job).json()
    assert (shown["state"], shown["stop_reason"]) == ("failed", "exit")
    assert shown["attempts"][0]["exit_code"] == 3
    receipt = one.get(f"{job}/receipt").json()
    assert (receipt["held_ms"], receipt["held_gflop"], receipt["charge_fen"]) == (600, 60, 6)
    assert receipt["balance_before_gflop"] - receipt["balance_after_gflop"] == 60
    assert centre.operator.get("/v1/audit").json()["ok"] is True


def test_a_quote_and_what_other_goals_would_pick(centre: Centre) -> None:
    centre.organisation("acme", 1)
    one = centre.person("acme", "one", "member")
    asked = one.post("/v1/quotes", json={"account": "acme", "job": STEPS}).json()
    path = f"/v1/quotes/{asked['quote_id']}"
    assert asked["state"] == "probing"
    early = one.post("/v1/jobs", json={"quote_id": asked["quote_id"]})
    assert (early.status_code, early.json()["code"]) == (409, "quote_not_ready")
    centre.turn()
    quote = one.get(path).json()
    by_id = {plan["plan_id"]: plan for plan in quote["plans"]}
    assert set(by_id) == {"cpu-x1-standard", "cpu-x2-standard"}
    assert quote["chosen"] == "cpu-x1-standard"
    slow, fast = (by_id[f"cpu-x{n}-standard"]["finish_p90_s"] for n in (1, 2))
    tighter = one.get(path, params={"deadline_s": (slow + fast) / 2}).json()
    assert tighter["chosen"] == "cpu-x2-standard"
    none = one.get(path, params={"deadline_s": fast / 2}).json()
    assert (none["chosen"], none["missed"]["code"]) == (None, "deadline_unreachable")
    poor = one.get(path, params={"budget_fen": 0}).json()
    assert poor["missed"]["code"] == "budget_unreachable"
    assert [probe["count"] for probe in quote["probes"]] == [1, 2]
    assert sum(probe["held_gflop"] for probe in quote["probes"]) == quote["probe_held_gflop"]

    wrong = one.post("/v1/jobs", json={"quote_id": asked["quote_id"], "plan_id": "gpu-x9"})
    assert (wrong.status_code, wrong.json()["code"]) == (404, "no_plan")
    made = one.post("/v1/jobs", json={"quote_id": asked["quote_id"]}).json()
    assert made["plan_id"] == "cpu-x1-standard"
    centre.clock.push(hours=2)
    late = one.post("/v1/jobs", json={"quote_id": asked["quote_id"]})
    assert (late.status_code, late.json()["code"]) == (409, "quote_expired")


def test_pages(centre: Centre) -> None:
    centre.organisation("acme", 1)
    one = centre.person("acme", "one", "member")
    made = [
        one.post("/v1/jobs", json={"account": "acme", "job": "run: a\n", "name": f"n{n}"}).json()
        for n in range(5)
    ]
    seen: list[str] = []
    before = None
    while True:
        params = {"limit": 2} | ({} if before is None else {"before": before})
        page = one.get("/v1/jobs", params=params).json()
        seen += [job["job_id"] for job in page["jobs"]]
        before = page["next"]
        if before is None:
            break
    assert seen == [each["job_id"] for each in reversed(made)]
    assert len(one.get("/v1/jobs?state=queued").json()["jobs"]) == 5
    assert one.get("/v1/jobs?state=running").json()["jobs"] == []


def test_what_is_asked_most_is_as_documented(centre: Centre) -> None:
    """These answers are not checked on their way out."""
    centre.organisation("acme", 1)
    client = centre.person("acme", "ann", "member")
    asked = ("exit 3", "echo done", "hang", "hang", "hang")
    ids = []
    for command in asked:
        made = client.post("/v1/jobs", json={"account": "acme", "job": f"run: {command}\n"})
        ids.append(made.json()["job_id"])
        centre.turn()
    views = [client.get(f"/v1/jobs/{job_id}").json() for job_id in ids]
    assert {v["state"] for v in views} == {"failed", "succeeded", "running", "queued"}
    for view, job_id in zip(views, ids, strict=True):
        models.JobView.model_validate(view, strict=True)
        assert len(view["attempts"]) == (view["state"] != "queued")
        why = client.get(f"/v1/jobs/{job_id}/why").json()
        models.WhyView.model_validate(why, strict=True)
    page = client.get("/v1/jobs?limit=3").json()
    models.JobList.model_validate(page, strict=True)
    assert page["jobs"] == list(reversed(views))[:3]
    models.WalletView.model_validate(client.get("/v1/wallet?account=acme").json(), strict=True)


def test_cancelling(centre: Centre) -> None:
    centre.organisation("acme", 1)
    one, auditor = centre.person("acme", "one", "member"), centre.person("acme", "two", "auditor")
    made = one.post("/v1/jobs", json={"account": "acme", "job": "run: hang\n"}).json()
    job = f"/v1/jobs/{made['job_id']}"
    centre.turn()
    assert one.get(job).json()["state"] == "running"
    assert one.get(f"{job}/why").json()["code"] == "running"
    assert auditor.post(f"{job}/cancel").status_code == 403
    assert one.post(f"{job}/cancel").status_code == 200
    centre.turn()
    assert one.get(job).json()["state"] == "cancelled"
    assert one.post(f"{job}/cancel").json()["state"] == "cancelled"


def test_a_member_pays_with_what_was_paid_in(centre: Centre) -> None:
    centre.organisation("acme")
    owner = centre.person("acme", "one", "owner")
    body = {"account": "acme", "package": "demo-pack"}
    short = owner.post("/v1/purchases", json=body)
    assert (short.status_code, short.json()["code"]) == (402, "not_enough_cash")
    centre.operator.post("/v1/payments", json={"account": "acme", "fen": 2_500})
    bought = owner.post("/v1/purchases", json=body).json()
    assert (bought["available_gflop"], bought["cash_fen"]) == (20_000, 500)
    none = owner.post("/v1/purchases", json={"account": "acme", "package": "nothing"})
    assert none.status_code == 404


def test_a_package_is_replaced(centre: Centre) -> None:
    body = {"name": "demo-pack", "gflop": 5, "price_fen": 1, "valid_days": None}
    assert centre.operator.post("/v1/packages", json=body).status_code == 201
    [only] = centre.operator.get("/v1/packages").json()["packages"]
    assert (only["gflop"], only["valid_days"]) == (5, None)


def test_the_test_knows_the_policy() -> None:
    """Figures above rest on these."""
    assert SlicePolicy().head_ms == 5_000
