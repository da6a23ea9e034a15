"""Who gets in: keys that are missing, unknown, expired, revoked; and nothing open but health."""

from __future__ import annotations

from typing import Any

import pytest
from tests.api.centre import Centre

METHODS = ("get", "post", "put", "patch", "delete")


def test_only_health_is_open(centre: Centre) -> None:
    nobody = centre.client()
    assert nobody.get("/healthz").status_code == 200
    paths: dict[str, Any] = centre.app.openapi()["paths"]
    asked = 0
    for path, operations in paths.items():
        for method in set(METHODS) & set(operations):
            answer = nobody.request(method, path.replace("{", "").replace("}", ""))
            if path != "/healthz":
                assert answer.status_code == 401, f"{method} {path}"
                asked += 1
    assert asked > 25


@pytest.mark.parametrize("path", ["/", "/openapi.json", "/docs", "/redoc", "/nothing", "/v1/nope"])
def test_what_is_not_there_needs_a_key_too(centre: Centre, path: str) -> None:
    assert centre.client().get(path).status_code == 401


def test_a_body_is_not_read_before_the_key_is(centre: Centre) -> None:
    assert centre.client().post("/v1/jobs", content="{not json").status_code == 401
    assert centre.client().post("/v1/jobs", content=b"x" * 3_000_000).status_code == 401


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Basic abc", "dk_abc", "Bearer dk_unknown", "Bearer é"]
)
def test_a_header_without_a_known_key(centre: Centre, header: str) -> None:
    answer = centre.client().get(
        "/v1/pool",
        headers={"Authorization": header.encode("latin-1").decode("latin-1")}
        if header.isascii()
        else [(b"Authorization", header.encode("latin-1"))],
    )
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["code"] in ("no_key", "unknown_key")


def test_an_expired_key(centre: Centre) -> None:
    centre.organisation("acme")
    centre.person("acme", "ann", "owner")
    when = "2026-03-01T01:00:00+00:00"
    body = {"org": "acme", "member": "ann", "expires_at": when}
    made = centre.operator.post("/v1/keys", json=body)
    assert made.json()["expires_at"] == when
    client = centre.client(made.json()["key"])
    assert client.get("/v1/pool").status_code == 200
    centre.clock.push(hours=1)
    answer = client.get("/v1/pool")
    assert (answer.status_code, answer.json()["code"]) == (401, "expired_key")


def test_a_key_cannot_be_born_expired(centre: Centre) -> None:
    centre.organisation("acme")
    centre.person("acme", "ann", "owner")
    body = {"org": "acme", "member": "ann", "expires_at": "2020-01-01T00:00:00Z"}
    assert centre.operator.post("/v1/keys", json=body).json()["code"] == "already_expired"
    body["expires_at"] = "2030-01-01T00:00:00"  # no zone
    assert centre.operator.post("/v1/keys", json=body).status_code == 422


def test_a_revoked_key_is_dead_at_once(centre: Centre) -> None:
    centre.organisation("acme")
    ann = centre.person("acme", "ann", "admin")
    made = ann.post("/v1/keys", json={"org": "acme", "member": "ann"}).json()
    other = centre.client(made["key"])
    assert other.get("/v1/pool").status_code == 200
    assert ann.delete(f"/v1/keys/{made['id']}").json()["revoked"] is True
    answer = other.get("/v1/pool")
    assert (answer.status_code, answer.json()["code"]) == (401, "revoked_key")


def test_whoami(centre: Centre) -> None:
    assert centre.operator.get("/v1/whoami").json()["operator"] is True
    centre.organisation("acme")
    ann = centre.person("acme", "ann", "auditor").get("/v1/whoami").json()
    assert ann["operator"] is False
    assert ann["org_id"].startswith("org_")


def test_keys_never_reach_the_log(centre: Centre, capfd: pytest.CaptureFixture[str]) -> None:
    centre.organisation("acme")
    key = centre.person_key("acme", "ann", "owner")
    centre.client(key).get("/v1/pool")
    job = {"account": "acme", "job": "run: echo hi\nenvs: {TOKEN: very-secret}\n"}
    centre.client(key).post("/v1/jobs", json=job)
    centre.client("dk_made-up-key").get("/v1/pool")
    said = "".join(capfd.readouterr())
    assert "request" in said
    for secret in (key, centre.operator_key, "very-secret", "made-up-key"):
        assert secret not in said
