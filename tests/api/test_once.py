"""The same Idempotency-Key, the same answer; another request under it, no answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.api.centre import Centre

BODY = {"account": "acme", "job": "run: echo hi\n"}


def submit(client: httpx.Client, key: str, **changes: Any) -> httpx.Response:
    return client.post("/v1/jobs", json={**BODY, **changes}, headers={"Idempotency-Key": key})


def test_one_key_one_job(centre: Centre) -> None:
    centre.organisation("acme", 1)
    one = centre.person("acme", "one", "member")
    first, second = submit(one, "k"), submit(one, "k")
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert len(one.get("/v1/jobs").json()["jobs"]) == 1
    assert submit(one, "other").json()["job_id"] != first.json()["job_id"]


def test_the_order_of_fields_is_no_difference(centre: Centre) -> None:
    centre.organisation("acme", 1)
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    bodies = (
        '{"account": "acme", "job": "run: echo hi\\n"}',
        '{"job":"run: echo hi\\n","account":"acme","name":"job"}',
    )
    ids = {
        centre.operator.post("/v1/jobs", content=body, headers=headers).json()["job_id"]
        for body in bodies
    }
    assert len(ids) == 1


def test_a_key_is_not_for_another_request(centre: Centre) -> None:
    centre.organisation("acme", 1)
    one = centre.person("acme", "one", "member")
    assert submit(one, "k").status_code == 201
    answer = submit(one, "k", name="other")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    elsewhere = one.post("/v1/quotes", json=BODY, headers={"Idempotency-Key": "k"})
    assert elsewhere.status_code == 422


def test_a_key_is_its_owners_alone(centre: Centre) -> None:
    centre.organisation("acme", 1)
    one, two = centre.person("acme", "one", "member"), centre.person("acme", "two", "member")
    assert submit(one, "k").json()["job_id"] != submit(two, "k").json()["job_id"]


def test_what_failed_can_be_tried_again_under_its_key(centre: Centre) -> None:
    centre.organisation("acme")
    one = centre.person("acme", "one", "member")
    assert submit(one, "k").status_code == 402
    centre.operator.post("/v1/purchases", json={"account": "acme", "package": "demo-pack"})
    assert submit(one, "k").status_code == 201


def test_many_at_once_under_one_key(centre: Centre) -> None:
    centre.organisation("acme", 1)
    key = centre.person_key("acme", "one", "member")
    clients = [centre.client(key) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda client: submit(client, "k"), clients))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    assert len(clients[0].get("/v1/jobs").json()["jobs"]) == 1


def test_a_purchase_is_made_once(centre: Centre) -> None:
    centre.organisation("acme")
    headers = {"Idempotency-Key": "buy"}
    body = {"account": "acme", "package": "demo-pack"}
    lots = {
        centre.operator.post("/v1/purchases", json=body, headers=headers).json()["id"]
        for _ in range(3)
    }
    assert len(lots) == 1
    wallet = centre.operator.get("/v1/wallet?account=acme").json()
    assert (wallet["available_gflop"], len(wallet["lots"])) == (20_000, 1)


@pytest.mark.parametrize(("key", "status"), [("x" * 255, 201), ("x" * 256, 422), ("", 422)])
def test_length_of_a_key(centre: Centre, key: str, status: int) -> None:
    centre.organisation("acme", 1)
    assert submit(centre.operator, key).status_code == status


def test_a_made_key_is_stored_nowhere(centre: Centre) -> None:
    centre.organisation("acme")
    centre.person("acme", "one", "owner")
    headers = {"Idempotency-Key": "k"}
    body = {"org": "acme", "member": "one"}
    made = [centre.operator.post("/v1/keys", json=body, headers=headers).json() for _ in range(2)]
    assert made[0]["key"] != made[1]["key"]
