"""Who may call what: every endpoint of the OpenAPI document times every kind of caller.

The table is written by hand from the rules, not from the code. An endpoint without a row fails
`test_every_endpoint_has_a_row`, so a new one cannot be forgotten.

The rules: an auditor reads; a member also submits and cancels; an admin also manages accounts,
members and keys; an owner also buys, and moves degrees. A role holds on an account and all below
it. The operator may everything; what is the centre's own is the operator's alone (403 for others).
Another organisation's things, and another branch's, do not exist (404). Without a key nothing is
open but `/healthz` (401).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.api.centre import Centre

CALLERS = ("operator", "owner", "admin", "member", "auditor", "cousin", "stranger", "nobody")
METHODS = ("get", "post", "put", "patch", "delete")
JOB = "run: echo hi\n"


@dataclass(frozen=True)
class Row:
    """One endpoint: what is sent about acme/main's things, and the status for each of CALLERS.

    `cousin` owns acme/side only, `stranger` owns another organisation, `nobody` has no key.
    """

    statuses: str
    body: Mapping[str, Any] | bytes | None = None
    query: str = ""


# Everyone with a key, operators only, and things of acme/main by what they need.
ANYONE = "200 200 200 200 200 200 200 401"
OPERATOR = "200 403 403 403 403 403 403 401"
MAKES = "201 403 403 403 403 403 403 401"
READ = "200 200 200 200 200 404 404 401"
SUBMIT = "201 201 201 201 403 404 404 401"
MANAGE = "201 201 201 403 403 404 404 401"
BUY = "201 201 403 403 403 404 404 401"

ABOUT = {"account": "acme/main", "job": JOB}
TABLE: dict[str, Row] = {
    "GET /healthz": Row("200 200 200 200 200 200 200 200"),
    # The centre
    "GET /v1/whoami": Row(ANYONE),
    "GET /v1/pool": Row(ANYONE),
    "GET /v1/packages": Row(ANYONE),
    "GET /v1/prices": Row(ANYONE),
    "GET /v1/audit": Row(OPERATOR),
    "GET /v1/rounds": Row(OPERATOR),
    "GET /v1/catalog/overrides": Row(ANYONE),
    "POST /v1/catalog/overrides": Row(
        MAKES, {"device": "S60", "field": "bf16", "value": 156.0, "source": "measured"}
    ),
    "POST /v1/pool/calibrate": Row(OPERATOR),
    "POST /v1/orgs": Row(MAKES, {"name": "new-{n}"}),
    "POST /v1/packages": Row(MAKES, {"name": "p{n}", "gflop": 1, "price_fen": 1}),
    "POST /v1/prices": Row(MAKES, {"spot": 500}),
    "POST /v1/payments": Row(MAKES, {"account": "acme/main", "fen": 1}),
    # Lists hold what the caller may see; `test_lists_hold_nothing_of_others` looks inside.
    "GET /v1/orgs": Row(ANYONE),
    "GET /v1/accounts": Row(ANYONE),
    "GET /v1/jobs": Row(ANYONE),
    "GET /v1/reports/quotes": Row(ANYONE),
    # One organisation
    "GET /v1/members": Row(READ, query="account=acme"),
    "GET /v1/wallet": Row(READ, query="account=acme/main"),
    # ... whose members all see keys: their own, or all of them.
    "GET /v1/keys": Row("200 200 200 200 200 200 404 401", query="org=acme"),
    "POST /v1/accounts": Row(MANAGE, {"path": "acme/main/a{n}"}),
    "POST /v1/accounts/budget": Row(
        MANAGE.replace("201", "200"), {"path": "acme/main", "budget_gflop": None}
    ),
    # What the pool guarantees is the operator's to give; who may read the account learns so.
    "POST /v1/accounts/quota": Row(
        MAKES.replace("201", "200"), {"path": "acme/main", "quota": 1, "borrow": 1, "lend": 1}
    ),
    "POST /v1/members": Row(MANAGE, {"name": "m{n}", "account": "acme/main", "role": "member"}),
    "POST /v1/keys": Row(MANAGE, {"org": "acme", "member": "other"}),
    "DELETE /v1/keys/{key_id}": Row(MANAGE.replace("201", "200")),
    "POST /v1/purchases": Row(BUY, {"account": "acme/main", "package": "demo-pack"}),
    "POST /v1/transfers": Row(BUY, {"account": "acme/main", "to": "acme/side", "gflop": 1}),
    # Jobs
    "POST /v1/uploads": Row("201 201 201 201 201 201 201 401", b"\x1f\x8b."),
    "POST /v1/jobs/check": Row(ANYONE, {"job": JOB}),
    "POST /v1/quotes": Row(SUBMIT, ABOUT),
    "POST /v1/jobs": Row(SUBMIT, ABOUT),
    "GET /v1/quotes/{quote_id}": Row(READ),
    "GET /v1/jobs/{job_id}": Row(READ),
    "GET /v1/jobs/{job_id}/why": Row(READ),
    "GET /v1/jobs/{job_id}/receipt": Row(READ),
    "GET /v1/jobs/{job_id}/logs": Row(READ),
    "GET /v1/jobs/{job_id}/meter": Row(READ),
    "GET /v1/jobs/{job_id}/outputs": Row(READ),
    "GET /v1/jobs/{job_id}/outputs/{path}": Row(READ),
    "POST /v1/jobs/{job_id}/cancel": Row(SUBMIT.replace("201", "200")),
}


class World:
    """acme with two branches and a person of every role on one of them; zeta beside it."""

    def __init__(self, centre: Centre) -> None:
        centre.organisation("acme", 1)
        centre.organisation("zeta", 1)
        for branch in ("main", "side"):
            made = centre.operator.post("/v1/accounts", json={"path": f"acme/{branch}"})
            assert made.status_code == 201
        packs = {"account": "acme/main", "package": "demo-pack"}
        for _ in range(3):
            assert centre.operator.post("/v1/purchases", json=packs).status_code == 201
        cash = {"account": "acme/main", "fen": 1_000_000}
        assert centre.operator.post("/v1/payments", json=cash).status_code == 201
        self.clients: dict[str, httpx.Client] = {
            "operator": centre.operator,
            **{r: centre.person("acme", r, r) for r in ("owner", "admin", "member", "auditor")},
            "cousin": centre.person("acme", "cousin", "owner", "acme/side"),
            "stranger": centre.person("zeta", "stranger", "owner"),
            "nobody": centre.client(),
        }
        centre.person("acme", "other", "auditor")
        self._n = 0
        self.job_id = self.post("/v1/jobs", ABOUT)["job_id"]
        self.quote_id = self.post("/v1/quotes", ABOUT)["quote_id"]
        centre.turn()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        answer = self.clients["operator"].post(path, json=dict(body))
        assert answer.is_success, answer.text
        return answer.json()

    def call(self, endpoint: str, caller: str) -> httpx.Response:
        """What `caller` is answered; what is made or undone is made anew for every call."""
        method, _, path = endpoint.partition(" ")
        row = TABLE[endpoint]
        self._n += 1
        if "{key_id}" in path:
            made = self.post("/v1/keys", {"org": "acme", "member": "other"})
            path = path.replace("{key_id}", made["id"])
        path = path.replace("{job_id}", self.job_id).replace("{quote_id}", self.quote_id)
        path = path.replace("{path}", "model/weights.bin") + (f"?{row.query}" if row.query else "")
        client = self.clients[caller]
        if isinstance(row.body, bytes):
            return client.request(method, path, content=row.body)
        body = None if row.body is None else _numbered(row.body, self._n)
        return client.request(method, path, json=body)


def _numbered(body: Mapping[str, Any], n: int) -> dict[str, Any]:
    return {k: v.replace("{n}", str(n)) if isinstance(v, str) else v for k, v in body.items()}


def endpoints(centre: Centre) -> set[str]:
    """Every endpoint of the OpenAPI document."""
    paths: dict[str, Any] = centre.app.openapi()["paths"]
    return {
        f"{method.upper()} {path}"
        for path, operations in paths.items()
        for method in operations
        if method in METHODS
    }


def test_every_endpoint_has_a_row(centre: Centre) -> None:
    assert endpoints(centre) == set(TABLE), "write down in TABLE who may call it"
    assert all(len(row.statuses.split()) == len(CALLERS) for row in TABLE.values())


def test_everyone_gets_exactly_what_their_role_allows(centre: Centre) -> None:
    world = World(centre)
    wrong = []
    for endpoint, row in TABLE.items():
        for caller, status in zip(CALLERS, row.statuses.split(), strict=True):
            answer = world.call(endpoint, caller)
            if answer.status_code != int(status):
                wrong.append(f"{endpoint} as {caller}: {answer.status_code}, not {status}")
            if not answer.is_success:
                assert answer.headers["content-type"] == "application/problem+json"
    assert not wrong, "\n".join(wrong)


def test_a_hidden_thing_reads_like_one_that_is_not_there(centre: Centre) -> None:
    """Not by a word, not by a field: ids of others cannot be told from made-up ones."""
    world = World(centre)
    for endpoint in (e for e in TABLE if "{job_id}" in e or "{quote_id}" in e):
        for caller in ("cousin", "stranger"):
            hidden = world.call(endpoint, caller).json()
            real = world.job_id, world.quote_id
            world.job_id = world.quote_id = "made_up"
            absent = world.call(endpoint, caller).json()
            world.job_id, world.quote_id = real
            for problem, name in ((hidden, real), (absent, ("made_up", "made_up"))):
                del problem["instance"]
                for each in name:
                    problem["detail"] = problem["detail"].replace(each, "…")
                    problem["remedy"] = problem["remedy"].replace(each, "…")
            assert hidden == absent, endpoint


LISTS: dict[str, Callable[[Any], list[str]]] = {
    "/v1/orgs": lambda d: [i["path"] for i in d["items"]],
    "/v1/accounts": lambda d: [i["path"] for i in d["items"]],
    "/v1/jobs": lambda d: [j["account"] for j in d["jobs"]],
}


@pytest.mark.parametrize("path", LISTS)
def test_lists_hold_nothing_of_others(centre: Centre, path: str) -> None:
    world = World(centre)
    assert len(LISTS[path](world.clients["operator"].get(path).json())) > 0
    stranger = LISTS[path](world.clients["stranger"].get(path).json())
    assert all(name.startswith("zeta") for name in stranger)
    cousin = LISTS[path](world.clients["cousin"].get(path).json())
    assert all(name in ("acme", "acme/side") for name in cousin)


def test_an_idempotency_key_of_others_replays_nothing(centre: Centre) -> None:
    """The same key and the same body in two organisations are two requests."""
    world = World(centre)
    headers = {"Idempotency-Key": "shared"}
    ours = world.clients["owner"].post("/v1/jobs", json=ABOUT, headers=headers)
    assert ours.status_code == 201
    assert world.clients["member"].post("/v1/jobs", json=ABOUT, headers=headers).json() != (
        ours.json()
    )
    theirs = world.clients["stranger"].post("/v1/jobs", json=ABOUT, headers=headers)
    assert theirs.status_code == 404
    assert ours.json()["job_id"] not in theirs.text


@pytest.mark.parametrize("endpoint", [e for e, row in TABLE.items() if isinstance(row.body, dict)])
def test_fields_that_nobody_asked_for_are_refused(centre: Centre, endpoint: str) -> None:
    """No mass assignment: a body may not say more than the endpoint takes."""
    method, _, path = endpoint.partition(" ")
    body = {**_numbered(TABLE[endpoint].body or {}, 1), "org_id": "org_other"}  # type: ignore[arg-type] # only dicts are asked for
    answer = centre.operator.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), endpoint
    assert "org_id" in answer.json()["detail"]
