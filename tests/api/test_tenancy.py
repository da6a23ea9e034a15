"""Roles and organisations: who may do what, and what does not exist for whom."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.api.centre import Centre

JOB = "run: echo hi\n"
ROLES = ("auditor", "member", "admin", "owner")


def submit(client: httpx.Client, account: str = "acme", job: str = JOB) -> httpx.Response:
    return client.post("/v1/jobs", json={"account": account, "job": job})


@pytest.mark.parametrize("role", ROLES)
def test_roles(centre: Centre, role: str) -> None:
    centre.organisation("acme", 2)
    one = centre.person("acme", "one", role)
    paid = {"account": "acme", "fen": 10_000, "reference": "test"}
    assert centre.operator.post("/v1/payments", json=paid).status_code == 201
    place = ROLES.index(role)

    assert one.get("/v1/wallet?account=acme").status_code == 200
    assert one.get("/v1/jobs").status_code == 200
    assert one.get("/v1/packages").status_code == 200
    made = submit(one)
    assert made.status_code == (201 if place >= 1 else 403)
    quote = one.post("/v1/quotes", json={"account": "acme", "job": JOB})
    assert quote.status_code == (201 if place >= 1 else 403)
    grown = one.post("/v1/accounts", json={"path": "acme/more"})
    assert grown.status_code == (201 if place >= 2 else 403)
    hired = one.post("/v1/members", json={"name": "two", "account": "acme", "role": "member"})
    assert hired.status_code == (201 if place >= 2 else 403)
    crowned = one.post("/v1/members", json={"name": "two", "account": "acme", "role": "owner"})
    assert crowned.status_code == (201 if place >= 3 else 403)
    bought = one.post("/v1/purchases", json={"account": "acme", "package": "demo-pack"})
    assert bought.status_code == (201 if place >= 3 else 403)


def test_a_role_holds_below_its_account_only(centre: Centre) -> None:
    centre.organisation("acme", 1)
    for path in ("acme/a", "acme/b", "acme/a/deep"):
        assert centre.operator.post("/v1/accounts", json={"path": path}).status_code == 201
    one = centre.person("acme", "one", "owner", "acme/a")
    assert [i["path"] for i in one.get("/v1/accounts").json()["items"]] == ["acme/a", "acme/a/deep"]
    assert one.get("/v1/wallet?account=acme/a/deep").status_code == 200
    for path in ("acme", "acme/b", "acme/none", "other"):
        assert one.get("/v1/wallet", params={"account": path}).status_code == 404
    job_id = submit(centre.operator).json()["job_id"]
    assert one.get(f"/v1/jobs/{job_id}").status_code == 404
    assert one.get("/v1/jobs").json()["jobs"] == []


def test_without_a_role_there_is_nothing(centre: Centre) -> None:
    centre.organisation("acme", 1)
    centre.operator.post("/v1/accounts", json={"path": "acme/a"})
    auditor = centre.person("acme", "one", "auditor", "acme/a")
    assert auditor.post("/v1/uploads", content=b"\x1f\x8b.").status_code == 201
    assert submit(auditor, "acme/a").status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/orgs", {"name": "mine"}),
        ("POST", "/v1/pool/calibrate", {}),
        ("GET", "/v1/audit", None),
        ("POST", "/v1/packages", {"name": "gift", "gflop": 10, "price_fen": 0}),
        ("POST", "/v1/payments", {"account": "acme", "fen": 1}),
        ("POST", "/v1/accounts/budget", {"path": "acme", "budget_gflop": None}),
    ],
)
def test_operators_only(centre: Centre, method: str, path: str, body: Any) -> None:
    centre.organisation("acme")
    owner = centre.person("acme", "one", "owner")
    answer = owner.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "operator_only")
    assert centre.operator.request(method, path, json=body).status_code in (200, 201)


def test_another_organisation_does_not_exist(centre: Centre) -> None:
    centre.organisation("acme", 2)
    centre.organisation("zeta", 1)
    ours, theirs = centre.person("acme", "ann", "owner"), centre.person("zeta", "zoe", "owner")
    job_id = submit(ours).json()["job_id"]
    quote = ours.post("/v1/quotes", json={"account": "acme", "job": JOB}).json()
    upload = ours.post("/v1/uploads", content=b"\x1f\x8b.").json()
    key = ours.post("/v1/keys", json={"org": "acme", "member": "ann"}).json()
    centre.turn()
    for path in (
        "",
        "/why",
        "/logs",
        "/meter",
        "/receipt",
        "/outputs",
        "/outputs/model/weights.bin",
    ):
        assert ours.get(f"/v1/jobs/{job_id}{path}").status_code == 200, path
        hidden = theirs.get(f"/v1/jobs/{job_id}{path}")
        absent = theirs.get(f"/v1/jobs/job_none{path}")
        assert hidden.status_code == absent.status_code == 404, path
        assert hidden.json()["code"] == absent.json()["code"]
    for path in ("/logs", "/meter"):
        followed = theirs.get(f"/v1/jobs/{job_id}{path}", params={"follow": True})
        assert followed.status_code == 404
    posts: list[tuple[str, dict[str, Any]]] = [
        (f"/v1/jobs/{job_id}/cancel", {}),
        ("/v1/jobs", {"quote_id": quote["quote_id"]}),
        ("/v1/jobs", {"account": "zeta", "job": JOB, "upload_id": upload["upload_id"]}),
        ("/v1/quotes", {"account": "zeta", "job": JOB, "upload_id": upload["upload_id"]}),
        ("/v1/jobs", {"account": "acme", "job": JOB}),
        ("/v1/quotes", {"account": "acme", "job": JOB}),
        ("/v1/purchases", {"account": "acme", "package": "demo-pack"}),
        ("/v1/accounts", {"path": "acme/theirs"}),
        ("/v1/accounts/budget", {"path": "acme", "budget_gflop": 1}),
        ("/v1/members", {"name": "spy", "account": "acme", "role": "auditor"}),
        ("/v1/keys", {"org": "acme", "member": "ann"}),
    ]
    for where, body in posts:
        assert theirs.post(where, json=body).status_code == 404, where
    assert theirs.get(f"/v1/quotes/{quote['quote_id']}").status_code == 404
    assert theirs.get("/v1/wallet?account=acme").status_code == 404
    assert theirs.get("/v1/members?account=acme").status_code == 404
    assert theirs.delete(f"/v1/keys/{key['id']}").status_code == 404
    assert centre.client(key["key"]).get("/v1/pool").status_code == 200
    assert [o["path"] for o in theirs.get("/v1/orgs").json()["items"]] == ["zeta"]
    assert [a["path"] for a in theirs.get("/v1/accounts").json()["items"]] == ["zeta"]
    assert theirs.get("/v1/jobs").json()["jobs"] == []


def test_nobody_raises_their_own_ceiling(centre: Centre) -> None:
    centre.organisation("acme", 1)
    centre.operator.post("/v1/accounts", json={"path": "acme/a", "budget_gflop": 500})
    one = centre.person("acme", "one", "owner", "acme/a")
    more = {"path": "acme/a", "budget_gflop": 10**9}
    assert one.post("/v1/accounts/budget", json=more).status_code == 404  # the one above is hidden
    assert centre.person("acme", "two", "admin").post("/v1/accounts/budget", json=more).is_success


def test_a_budget_that_does_not_reach(centre: Centre) -> None:
    centre.organisation("acme", 1)
    body = {"path": "acme/a", "pooled": True, "budget_gflop": 699}
    assert centre.operator.post("/v1/accounts", json=body).status_code == 201
    answer = submit(centre.operator, "acme/a")  # its first slice is (2 s + 5 s) x 100 GFLOPS
    assert (answer.status_code, answer.json()["code"]) == (402, "budget_too_small")
    assert "account budget acme/a" in answer.json()["remedy"]
    body = {"path": "acme/a", "budget_gflop": 700}
    assert centre.operator.post("/v1/accounts/budget", json=body).status_code == 200
    assert submit(centre.operator, "acme/a").status_code == 201
