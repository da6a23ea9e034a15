"""Failures as problem details (RFC 9457): one shape, whatever failed."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg import OperationalError
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import Scope

from dusuan.api.doorkeeper import Counted
from dusuan.app.context import Refused
from dusuan.core.workload.jobspec import Problem

STATUS = {
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "invalid": 422,
    "conflict": 409,
    "key_reused": 422,
    "too_large": 413,
    "too_slow": 408,
    "insufficient": 402,
}
_BY_STATUS = {
    404: ("no_such_path", "there is nothing at {path}", "GET /openapi.json lists what there is"),
    405: ("method_not_allowed", "{path} does not take {method}", "GET /openapi.json lists methods"),
}
_log = structlog.get_logger("dusuan.api")


def response(
    scope: Scope, status: int, problem: Problem, extra: Mapping[str, Any] | None = None
) -> JSONResponse:
    """`problem` as the answer to the request of `scope`."""
    document = {
        "type": f"urn:dusuan:problem:{problem.code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": problem.text,
        "code": problem.code,
        "remedy": problem.remedy,
        "instance": f"urn:dusuan:request:{scope.get('state', {}).get('request_id', 'unknown')}",
        **({} if problem.line is None else {"line": problem.line}),
        **(extra or {}),
    }
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(document, status, headers, "application/problem+json")


def refusal(scope: Scope, refused: Refused) -> JSONResponse:
    """What a verb refused, under the status of its kind."""
    return response(scope, STATUS[refused.kind], refused.problem)


def too_many(scope: Scope, counted: Counted) -> JSONResponse:
    """More requests than the key, or the address without a key, may send."""
    wait_s = counted.headers["Retry-After"]
    text = f"more than {counted.rate.per_s:g} requests a second"
    remedy = f"wait {wait_s} s (Retry-After); ask for less, or follow a stream instead of polling"
    answer = response(scope, 429, Problem("too_many_requests", text, remedy=remedy))
    answer.headers.update(counted.headers)
    return answer


def unexpected(scope: Scope) -> JSONResponse:
    """An error of ours. Its details are in the log under the request's id, not in the answer."""
    text = "something went wrong here that should not have"
    remedy = "try again; if it stays, tell the operator the request's id (`instance`)"
    return response(scope, 500, Problem("internal_error", text, remedy=remedy))


def install(app: FastAPI) -> None:
    """Give every kind of failure its handler."""
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(PoolTimeout, _no_database)
    app.add_exception_handler(OperationalError, _no_database)


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return refusal(request.scope, error)


def _invalid(request: Request, error: Exception) -> JSONResponse:
    """A request that is not what the endpoint takes. What was sent is not repeated: it may be
    secret."""
    assert isinstance(error, RequestValidationError)
    found = [
        {"where": ".".join(str(part) for part in each["loc"]), "text": each["msg"]}
        for each in error.errors()[:20]
    ]
    if any(each["type"] == "json_invalid" for each in error.errors()):
        problem = Problem("not_json", "the body is not JSON", remedy="send a JSON object")
        return response(request.scope, 400, problem)
    text = "; ".join(f"{each['where']}: {each['text']}" for each in found[:3])
    problem = Problem("invalid_request", text, remedy="GET /openapi.json says what it takes")
    return response(request.scope, 422, problem, {"errors": found})


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code, text, remedy = _BY_STATUS.get(error.status_code, ("http_error", str(error.detail), ""))
    words = text.format(path=request.url.path, method=request.method)
    answer = response(request.scope, error.status_code, Problem(code, words, remedy=remedy))
    if error.status_code == 405:
        answer.headers["Allow"] = ", ".join(sorted(_methods(request)))
    return answer


def _methods(request: Request) -> set[str]:
    """Every method of the request's path; the router itself names those of one route only."""
    found: set[str] = set()
    for template, operations in request.app.openapi()["paths"].items():
        if compile_path(template)[0].match(request.url.path):
            found |= {method.upper() for method in operations}
    return found


def _no_database(request: Request, error: Exception) -> JSONResponse:
    request_id = request.scope.get("state", {}).get("request_id")
    _log.error("database_unavailable", request_id=request_id, error=type(error).__name__)
    text = "the platform cannot reach its database now"
    return response(
        request.scope, 503, Problem("no_database", text, remedy="try again in a moment")
    )
