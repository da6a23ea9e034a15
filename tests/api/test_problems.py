"""Every failure has one shape, says what to do next, and gives nothing away."""

from __future__ import annotations

from typing import Any

import httpx
import psycopg
import pytest
from tests.api.centre import Centre

FIELDS = {"type", "title", "status", "detail", "code", "remedy", "instance"}


def check(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem in `answer`, which has the one shape of all."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem.keys() >= FIELDS
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"] == f"urn:dusuan:problem:{code}"
    assert problem["instance"] == f"urn:dusuan:request:{answer.headers['x-request-id']}"
    return problem


def test_no_such_path_and_no_such_method(centre: Centre) -> None:
    check(centre.operator.get("/v1/nothing"), 404, "no_such_path")
    answer = centre.operator.put("/v1/jobs")
    check(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("body", ["{", "", "[1", b"\xff"])
def test_a_body_that_is_not_json(centre: Centre, body: str | bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = centre.operator.post("/v1/orgs", content=body, headers=headers)
    assert answer.status_code in (400, 422)
    check(answer, answer.status_code, answer.json()["code"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": 1},
        {"name": "acme", "extra": 1},
        {"name": "a\0b"},
        {"name": "x" * 2_000},
        ["acme"],
        "acme",
        None,
    ],
)
def test_a_body_of_the_wrong_form(centre: Centre, body: Any) -> None:
    problem = check(centre.operator.post("/v1/orgs", json=body), 422, "invalid_request")
    assert problem["errors"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/packages", {"name": "p", "gflop": 2**63, "price_fen": 1}),
        ("/v1/packages", {"name": "p", "gflop": 0, "price_fen": 1}),
        ("/v1/packages", {"name": "p", "gflop": 1, "price_fen": -1}),
        ("/v1/packages", {"name": "p", "gflop": 1, "price_fen": 1, "valid_days": 10**9}),
        ("/v1/packages", {"name": "p", "gflop": 1.5, "price_fen": 1}),
        ("/v1/packages", {"name": "p", "gflop": "10", "price_fen": 1}),
        ("/v1/payments", {"account": "acme", "fen": 0}),
        ("/v1/payments", {"account": "acme", "fen": True}),
        ("/v1/accounts", {"path": "acme/x", "budget_gflop": -1}),
        ("/v1/members", {"name": "ann", "account": "acme", "role": "king"}),
    ],
)
def test_numbers_out_of_range(centre: Centre, path: str, body: dict[str, Any]) -> None:
    centre.organisation("acme")
    check(centre.operator.post(path, json=body), 422, "invalid_request")


def test_a_lone_surrogate_is_no_text(centre: Centre) -> None:
    headers = {"Content-Type": "application/json"}
    answer = centre.operator.post("/v1/orgs", content=b'{"name": "\\ud800"}', headers=headers)
    check(answer, 422, "invalid_request")


@pytest.mark.parametrize("path", ["/v1/jobs/%00", "/v1/quotes/a%00b", "/v1/wallet?account=%00"])
def test_a_nul_character_in_a_path(centre: Centre, path: str) -> None:
    check(centre.operator.get(path), 422, "invalid_request")


@pytest.mark.parametrize(
    "path", ["/v1/jobs/%FF", "/v1/jobs/..%2f..%2fetc", "/v1/jobs/" + "x" * 999]
)
def test_odd_ids_are_not_found(centre: Centre, path: str) -> None:
    check(centre.operator.get(path), 404, "no_job" if ".." not in path else "no_such_path")


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "before=-1", "state=odd"])
def test_odd_queries(centre: Centre, query: str) -> None:
    check(centre.operator.get(f"/v1/jobs?{query}"), 422, "invalid_request")


@pytest.mark.parametrize("goal", ["deadline_s=0", "deadline_s=nan", "deadline_s=inf"])
def test_odd_goals(centre: Centre, goal: str) -> None:
    check(centre.operator.get(f"/v1/quotes/quo_1?{goal}"), 422, "invalid_request")


def test_what_was_sent_is_not_repeated(centre: Centre) -> None:
    answer = centre.operator.post("/v1/keys", json={"org": "acme", "member": {"pw": "hunter2"}})
    assert "hunter2" not in answer.text


def test_a_large_body_is_refused(centre: Centre) -> None:
    job = {"account": "acme", "job": "x" * 3_000_000}
    check(centre.operator.post("/v1/jobs", json=job), 413, "body_too_large")

    def pieces() -> Any:
        for _ in range(60):
            yield b" " * 50_000

    check(centre.operator.post("/v1/jobs", content=pieces()), 413, "body_too_large")


def test_an_unexpected_error_says_nothing_but_its_id(
    centre: Centre, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(job_id: str) -> list[tuple[str, int]]:
        raise ValueError("the inner secret")

    monkeypatch.setattr(centre.engine, "outputs", broken)
    object.__setattr__(centre.app.state.hooks, "outputs", broken)
    centre.organisation("acme", 1)
    job = {"account": "acme", "job": "run: echo hi\n"}
    job_id = centre.operator.post("/v1/jobs", json=job).json()["job_id"]
    answer = centre.operator.get(f"/v1/jobs/{job_id}/outputs")
    check(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    said = "".join(capfd.readouterr())
    assert "the inner secret" in said
    assert answer.headers["x-request-id"] in said


def test_no_database(centre: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise psycopg.OperationalError("gone: password=hunter2")

    monkeypatch.setattr(centre.store, "read", gone)
    answer = centre.operator.get("/v1/pool")
    check(answer, 503, "no_database")
    monkeypatch.setattr(centre.store, "transaction", gone)
    check(centre.operator.post("/v1/orgs", json={"name": "a"}), 503, "no_database")
    assert "hunter2" not in answer.text


def test_health_that_is_not_well(centre: Centre) -> None:
    object.__setattr__(centre.app.state.hooks, "healthy", lambda: {"status": "starting"})
    assert centre.client().get("/healthz").status_code == 503


def test_openapi_is_whole(centre: Centre) -> None:
    document = centre.operator.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    assert schemas["Problem"]["properties"].keys() >= FIELDS
    for operations in document["paths"].values():
        for operation in operations.values():
            named = operation["responses"].get("4XX")
            assert named is None or named["content"]["application/problem+json"]["schema"]
    assert "422" not in document["paths"]["/v1/orgs"]["post"]["responses"]
