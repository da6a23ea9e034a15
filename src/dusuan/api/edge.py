"""Around every request: its id, its key, its size, its line in the log, and the last safety net."""

from __future__ import annotations

import time
from typing import Any

import structlog
from anyio import to_thread
from psycopg import OperationalError
from psycopg_pool import PoolTimeout
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dusuan.api import problems
from dusuan.app.access import Actor, authenticate
from dusuan.app.context import Platform, Refused, refuse
from dusuan.core.workload.jobspec import Problem

OPEN_PATHS = frozenset({"/healthz"})
STREAMED_PATHS = frozenset({"/v1/uploads"})  # these count their bytes themselves
BODY_BYTES_MAX = 2 * 1_048_576
_log = structlog.get_logger("dusuan.api")


class Edge:
    """ASGI middleware. Closed by default: a path that nobody opened needs a valid key."""

    def __init__(self, app: ASGIApp, platform: Platform) -> None:
        self._app = app
        self._platform = platform

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope["state"] = dict(scope.get("state") or {})
        state["request_id"] = self._platform.new_id("req")
        reply = _Reply(send, state["request_id"])
        began_s = time.monotonic()
        try:
            await self._admit(scope, receive, reply)
        except Exception:
            _log.exception("request_failed", request_id=state["request_id"], path=scope["path"])
            if reply.status is None:
                await problems.unexpected(scope)(scope, receive, reply)
        _log_request(scope, reply.status, time.monotonic() - began_s)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in when its key is good and its body is not too large."""
        try:
            if scope["path"] not in OPEN_PATHS:
                key = _bearer(Headers(scope=scope).get("authorization", ""))
                scope["state"]["actor"] = await to_thread.run_sync(
                    authenticate, self._platform, key
                )
            if scope["path"] not in STREAMED_PATHS:
                receive = await _whole_body(scope, receive)
        except Refused as refused:
            await problems.refusal(scope, refused)(scope, receive, send)
            return
        except (PoolTimeout, OperationalError):
            problem = Problem("no_database", "the platform cannot reach its database now")
            await problems.response(scope, 503, problem)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class _Reply:
    """A `send` that stamps the request's id on the answer and remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)


def _bearer(header: str) -> str:
    """The key in an Authorization header. Raises `Refused` unauthenticated without one."""
    scheme, _, key = header.strip().partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    raise refuse(
        "unauthenticated",
        "no_key",
        "this needs an API key",
        "send `Authorization: Bearer dk_…`; the command line takes it from DUSUAN_API_KEY",
    )


async def _whole_body(scope: Scope, receive: Receive) -> Receive:
    """Read the body now, up to the limit, and hand out a `receive` that gives it back.

    Raises `Refused` too_large as soon as the limit is passed or announced to be.
    """
    announced = Headers(scope=scope).get("content-length", "0")
    if announced.isdigit() and int(announced) > BODY_BYTES_MAX:
        raise _too_large()
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return receive  # nobody is there to be answered
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            raise _too_large()
        if not message.get("more_body", False):
            break
    waiting: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _too_large() -> Refused:
    text = f"the request has more than {BODY_BYTES_MAX} bytes"
    return refuse("too_large", "body_too_large", text, "put data into the job's workdir")


def _log_request(scope: Scope, status: int | None, took_s: float) -> None:
    """One line a request, without its headers, query and body: they may hold secrets."""
    actor: Any = scope["state"].get("actor")
    _log.info(
        "request",
        request_id=scope["state"]["request_id"],
        method=scope["method"],
        path=scope["path"],
        status=status,
        ms=round(took_s * 1_000, 1),
        key_id=actor.key_id if isinstance(actor, Actor) else None,
    )
