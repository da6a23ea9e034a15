"""Requests made up from the API's own OpenAPI document: no 5xx, and answers as it describes them.

The seed is printed (`--seed` of a failing run: DUSUAN_SEED); examples are bounded so that it stays
a matter of seconds. Longer: DUSUAN_EXAMPLES=1000.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.api.centre import Centre
from tests.api.test_matrix import TABLE, World

from dusuan.app.context import Rate

SEED = int(os.environ.get("DUSUAN_SEED", "20261125"))
EXAMPLES = int(os.environ.get("DUSUAN_EXAMPLES", "10"))
PARTS = 4
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)


@schemathesis.serializer("application/gzip")
def serialized(_: Any, value: Any) -> bytes:
    """Any value as something that begins like an archive, or not."""
    return (b"\x1f\x8b" if value else b"") + repr(value).encode(errors="replace")


def operation(centre: Centre, endpoint: str) -> Any:
    method, _, path = endpoint.partition(" ")
    document = centre.operator.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=centre.url)
    return schema[path][method]


@pytest.mark.parametrize("part", range(PARTS))
def test_generated_requests(centre: Centre, part: int) -> None:
    """Every endpoint, a part of them on one centre: to make its customers takes longest."""
    object.__setattr__(centre.platform.limits, "key_rate", Rate(0.0, 0))
    object.__setattr__(centre.platform.limits, "stranger_rate", Rate(0.0, 0))
    world = World(centre)
    for endpoint in list(TABLE)[part::PARTS]:
        print(f"{endpoint} with DUSUAN_SEED={SEED} DUSUAN_EXAMPLES={EXAMPLES}")
        exercise(world, operation(centre, endpoint))


def exercise(world: World, tested: Any) -> None:
    """Ask for one operation as many callers, of real things and of made-up ones."""
    keys = {name: client.headers.get("Authorization") for name, client in world.clients.items()}
    known = {"job_id": world.job_id, "quote_id": world.quote_id, "path": "model/weights.bin"}

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=st.one_of(
            tested.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE),
            tested.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE),
        ),
        caller=st.sampled_from(["operator", "operator", "owner", "auditor", "stranger", "nobody"]),
        real=st.booleans(),
    )
    def run(case: Any, caller: str, real: bool) -> None:
        headers = {} if keys[caller] is None else {"Authorization": keys[caller]}
        case.headers = {k: v for k, v in (case.headers or {}).items() if k != "Authorization"}
        if real and case.path_parameters:
            case.path_parameters.update(
                {k: v for k, v in known.items() if k in case.path_parameters}
            )
        if "follow" in (case.query or {}):
            del case.query["follow"]  # a stream of a job that hangs has no end
        response = case.call(headers=headers, timeout=20)
        case.validate_response(response, checks=list(CHECKS))

    run()


def test_the_document_is_valid_and_served_behind_a_key(centre: Centre) -> None:
    answer = centre.operator.get("/openapi.json")
    assert answer.json()["openapi"].startswith("3.1")
    schemathesis.openapi.from_dict(answer.json()).validate()
    for path, operations in answer.json()["paths"].items():
        for method, each in operations.items():
            if path != "/healthz":
                assert each["security"] == [{"HTTPBearer": []}], (method, path)
