"""Rates, sizes and times that a request may not pass, and what is told about them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.api.centre import Centre
from tests.api.test_problems import check

from dusuan.api.doorkeeper import FRESH_S, KEPT_MAX, Buckets, TooMany
from dusuan.app.context import Rate


def limit(centre: Centre, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(centre.platform.limits, name, value)


# Rates


def test_a_bucket_fills_up_again() -> None:
    at = [0.0]
    buckets = Buckets(lambda: at[0])
    rate = Rate(2.0, 3)
    assert [buckets.take("a", rate).left for _ in range(3)] == [2, 1, 0]
    with pytest.raises(TooMany) as caught:
        buckets.take("a", rate)
    assert caught.value.counted.headers == {
        "RateLimit-Policy": '"requests";q=3;w=2',
        "RateLimit": '"requests";r=0;t=2',
        "Retry-After": "1",
    }
    buckets.take("b", rate)  # another name has its own
    at[0] = 0.5
    assert buckets.take("a", rate).left == 0
    at[0] = 1e9
    assert buckets.take("a", rate).left == 2  # never more than the burst


def test_names_without_end_do_not_fill_the_memory() -> None:
    buckets = Buckets(lambda: 0.0)
    for n in range(KEPT_MAX + 100):
        buckets.take(f"10.0.{n}", Rate(1.0, 1))
    assert len(buckets._left) == KEPT_MAX


def test_a_key_has_its_rate_and_no_other_key_pays_for_it(centre: Centre) -> None:
    centre.organisation("acme")
    ann, bob = centre.person("acme", "ann", "owner"), centre.person("acme", "bob", "owner")
    assert ann.get("/v1/whoami").headers["ratelimit-policy"] == '"requests";q=600;w=2'
    limit(centre, key_rate=Rate(0.5, 3))
    answers = [ann.get("/v1/whoami") for _ in range(5)]
    refused = answers[-1]
    check(refused, 429, "too_many_requests")
    assert int(refused.headers["retry-after"]) in (1, 2)
    assert refused.headers["ratelimit"].startswith('"requests";r=0;')
    assert refused.headers["ratelimit-policy"] == '"requests";q=3;w=6'
    assert "Retry-After" in refused.json()["remedy"]
    assert bob.get("/v1/whoami").status_code == 200


def test_a_refused_request_changes_nothing(centre: Centre) -> None:
    limit(centre, key_rate=Rate(0.001, 1))
    answers = [centre.operator.post("/v1/orgs", json={"name": f"o{n}"}) for n in range(3)]
    assert [a.status_code for a in answers][-1] == 429
    limit(centre, key_rate=Rate(0.0, 0))  # off
    made = [item["path"] for item in centre.operator.get("/v1/orgs").json()["items"]]
    assert len(made) == sum(a.status_code == 201 for a in answers)
    assert "ratelimit" not in centre.operator.get("/v1/orgs").headers


def test_guessing_keys_is_slow_and_hurts_no_key_that_is_good(centre: Centre) -> None:
    limit(centre, stranger_rate=Rate(0.01, 5))
    assert centre.operator.get("/v1/whoami").status_code == 200
    guesses = [centre.client(f"dk_guess{n}").get("/v1/whoami") for n in range(7)]
    assert [g.status_code for g in guesses] == [401] * 5 + [429] * 2
    check(guesses[-1], 429, "too_many_requests")
    assert centre.client().get("/v1/whoami").status_code == 429
    assert centre.operator.get("/v1/whoami").status_code == 200  # known to be good
    time.sleep(FRESH_S)
    assert centre.operator.get("/v1/whoami").status_code == 200  # ... when it is looked up again
    assert centre.client().get("/healthz").status_code == 200  # a count of its own
    # Behind a proxy on this host, every address has its own count.
    other = centre.client().get("/v1/whoami", headers={"X-Forwarded-For": "192.0.2.7"})
    assert other.status_code == 401


def test_health_has_its_rate_too(centre: Centre) -> None:
    limit(centre, stranger_rate=Rate(0.01, 2))
    assert [centre.client().get("/healthz").status_code for _ in range(3)] == [200, 200, 429]


# Sizes and times


def test_a_body_beyond_the_limit(centre: Centre) -> None:
    large = b'{"name": "' + b"x" * 2_100_000 + b'"}'

    def pieces() -> Iterator[bytes]:
        yield from (large[n : n + 65_536] for n in range(0, len(large), 65_536))

    headers = {"Content-Type": "application/json"}
    for content in (large, pieces()):
        answer = centre.operator.post("/v1/orgs", content=content, headers=headers)
        check(answer, 413, "body_too_large")


def test_a_body_that_trickles(centre: Centre) -> None:
    limit(centre, body_wait_s=0.3)
    with raw(centre) as connection:
        connection.sendall(head(centre, "POST", "/v1/orgs", "Content-Length: 100\r\n") + b'{"na')
        answer = whole(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body_too_slow" in answer


def test_an_upload_that_falls_silent(centre: Centre) -> None:
    limit(centre, body_wait_s=0.3)
    with raw(centre) as connection:
        sent = head(centre, "POST", "/v1/uploads", "Content-Length: 100\r\n") + b"\x1f\x8b."
        connection.sendall(sent)
        answer = whole(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"upload_too_slow" in answer
    assert list(centre.platform.uploads.iterdir()) == []


def test_headers_that_trickle(centre: Centre) -> None:
    """A connection that never finishes asking is hung up on; one that waits in peace is not."""
    with raw(centre) as connection:
        began = time.monotonic()
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
        assert connection.recv(65_536) == b""
        assert time.monotonic() - began < 10


def test_headers_without_end(centre: Centre) -> None:
    with raw(centre) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")


def raw(centre: Centre) -> socket.socket:
    url = httpx.URL(centre.url)
    return socket.create_connection((url.host, url.port or 80), timeout=15.0)


def whole(connection: socket.socket) -> bytes:
    """A whole answer whose body is a JSON object without objects in it."""
    found = b""
    while not found.endswith(b"}"):
        found += connection.recv(65_536)
    return found


def head(centre: Centre, method: str, path: str, extra: str) -> bytes:
    key = f"Authorization: Bearer {centre.operator_key}\r\nContent-Type: application/json\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: a\r\n{key}{extra}\r\n".encode()


# Values


@pytest.mark.parametrize(
    "text",
    [
        '{"account": "acme", "fen": NaN}',
        '{"account": "acme", "fen": Infinity}',
        '{"account": "acme", "fen": 1e400}',
        '{"account": "acme", "fen": 1.5}',
        '{"account": "acme", "fen": "1"}',
        '{"account": "acme", "fen": true}',
        '{"account": "acme", "fen": 9223372036854775808}',
        '{"account": "acme", "fen": ' + "9" * 5_000 + "}",
        '{"account": "acme", "fen": -1}',
        '{"account": "acme", "fen": 1, "fen2": ' + "[" * 50_000 + "]" * 50_000 + "}",
    ],
)
def test_numbers_that_are_none(centre: Centre, text: str) -> None:
    centre.organisation("acme")
    headers = {"Content-Type": "application/json"}
    answer = centre.operator.post("/v1/payments", content=text, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert centre.operator.get("/v1/wallet?account=acme").json()["cash_fen"] == 0


@pytest.mark.parametrize(
    "name",
    [
        "аcme",
        "acme\u200b",
        "ac\u202eme",
        "ＡＣＭＥ",
        "acme/",
        "/acme",
        "acme//x",
        "..",
        "a b",
        "é",
        "𝐚cme",
    ],
)
def test_names_that_look_like_others(centre: Centre, name: str) -> None:
    centre.organisation("acme")
    made = centre.operator.post("/v1/orgs", json={"name": name})
    assert (made.status_code, made.json()["code"]) == (422, "bad_name")
    made = centre.operator.post("/v1/accounts", json={"path": f"acme/{name}"})
    assert made.status_code in (404, 422)


def test_answers_are_not_pages(centre: Centre) -> None:
    for answer in (centre.operator.get("/v1/pool"), centre.client().get("/v1/pool")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers


# Keys


def test_keys_are_listed_without_their_secrets(centre: Centre) -> None:
    centre.organisation("acme")
    ann, bob = centre.person("acme", "ann", "admin"), centre.person("acme", "bob", "member")
    body = {"org": "acme", "member": "bob", "expires_in_s": 86_400}
    made = ann.post("/v1/keys", json=body).json()
    assert made["expires_at"] == "2026-03-02T00:00:00+00:00"
    ann.delete(f"/v1/keys/{made['id']}")
    listed = ann.get("/v1/keys").json()["items"]
    assert [(k["member"], k["state"]) for k in listed] == [
        ("bob", "revoked"),
        ("bob", "valid"),
        ("ann", "valid"),
    ]
    assert {k["member"] for k in bob.get("/v1/keys").json()["items"]} == {"bob"}
    assert [k["member"] for k in centre.operator.get("/v1/keys").json()["items"]] == [None]
    text = json.dumps(listed)
    assert made["key"] not in text
    assert "hash" not in text
    centre.clock.push(days=2)
    assert ann.get("/v1/keys").json()["items"][0]["state"] == "revoked"


def test_a_key_ends_when_it_says(centre: Centre) -> None:
    centre.organisation("acme")
    centre.person("acme", "ann", "owner")
    body = {"org": "acme", "member": "ann", "expires_in_s": 3_600}
    client = centre.client(centre.operator.post("/v1/keys", json=body).json()["key"])
    assert client.get("/v1/whoami").status_code == 200
    centre.clock.push(seconds=3_600)
    check(client.get("/v1/whoami"), 401, "expired_key")
    both = {**body, "expires_at": "2030-01-01T00:00:00Z"}
    check(centre.operator.post("/v1/keys", json=both), 422, "two_ends")


def test_a_key_revoked_elsewhere_writes_nothing(centre: Centre) -> None:
    """Another process of the same database revoked it: a write looks in its own transaction."""
    centre.organisation("acme", 1)
    client = centre.person("acme", "ann", "owner")
    assert client.get("/v1/whoami").status_code == 200  # it is known here now
    with centre.store.transaction() as tx:
        tx._connection.execute("UPDATE api_key SET revoked_at = now() WHERE member_id IS NOT NULL")
    job = {"account": "acme", "job": "run: echo hi\n"}
    check(client.post("/v1/jobs", json=job), 401, "revoked_key")
    deadline = time.monotonic() + 5
    while client.get("/v1/whoami").status_code == 200:  # and reads follow within a second
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_only_hashes_are_stored(centre: Centre) -> None:
    centre.organisation("acme")
    key = centre.person_key("acme", "ann", "owner")
    with centre.store.transaction() as tx:
        rows = tx._connection.execute("SELECT api_key::text FROM api_key").fetchall()
        kept = tx._connection.execute("SELECT idempotency::text FROM idempotency").fetchall()
    assert key not in str(rows) + str(kept)
    assert key[8:] not in str(rows) + str(kept)
