"""Around every request: its id, its key, its size, its line in the log, and the last safety net."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import anyio
import structlog
from psycopg import OperationalError
from psycopg_pool import PoolTimeout
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dusuan.api import problems
from dusuan.api.doorkeeper import Doorkeeper, TooMany
from dusuan.app.access import Actor
from dusuan.app.context import Platform, Refused, refuse
from dusuan.core.workload.jobspec import Problem

OPEN_PATHS = frozenset({"/healthz"})
STREAMED_PATHS = frozenset({"/v1/uploads"})  # these count their bytes themselves
BODY_BYTES_MAX = 2 * 1_048_576
# Nothing here is a page; should a browser be made to show an answer, it may do nothing with it.
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
_log = structlog.get_logger("dusuan.api")


class Edge:
    """ASGI middleware. Closed by default: a path that nobody opened needs a valid key."""

    def __init__(self, app: ASGIApp, platform: Platform, door: Doorkeeper) -> None:
        self._app = app
        self._platform = platform
        self._door = door

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

    async def _admit(self, scope: Scope, receive: Receive, reply: _Reply) -> None:
        """Let the request in when its key is good, its rate is kept and its body not too large."""
        try:
            await self._let_in(scope, reply)
            if scope["path"] not in STREAMED_PATHS:
                receive = await _whole_body(scope, receive, self._platform.limits.body_wait_s)
        except Refused as refused:
            await problems.refusal(scope, refused)(scope, receive, reply)
            return
        except TooMany as error:
            await problems.too_many(scope, error.counted)(scope, receive, reply)
            return
        except (PoolTimeout, OperationalError):
            problem = Problem("no_database", "the platform cannot reach its database now")
            await problems.response(scope, 503, problem)(scope, receive, reply)
            return
        await self._app(scope, receive, reply)

    async def _let_in(self, scope: Scope, reply: _Reply) -> None:
        client = scope.get("client")
        address = str(client[0]) if client else ""
        if scope["path"] in OPEN_PATHS:
            self._door.admit_stranger(address)
            return
        actor, counted = await self._door.admit(_bearer(scope), address)
        scope["state"]["actor"] = actor
        if counted is not None:
            reply.add(counted.headers)


class _Reply:
    """A `send` that stamps the request's id on the answer and remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._headers = [(b"x-request-id", request_id.encode()), *_HEADERS]
        self.status: int | None = None

    def add(self, headers: Mapping[str, str]) -> None:
        """Send these too, unless the answer has its own."""
        self._headers += [(k.lower().encode(), v.encode()) for k, v in headers.items()]

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name for name, _ in message["headers"]}
            more = [header for header in self._headers if header[0] not in own]
            message["headers"] = [*message["headers"], *more]
        await self._send(message)


def _bearer(scope: Scope) -> str | None:
    """The key in the Authorization header; None when there is none."""
    scheme, _, key = Headers(scope=scope).get("authorization", "").strip().partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


async def _whole_body(scope: Scope, receive: Receive, wait_s: float) -> Receive:
    """Read the body now, up to the limit, and hand out a `receive` that gives it back.

    Raises `Refused` too_large as soon as the limit is passed or announced to be, and too_slow for
    a body that is not whole after `wait_s`.
    """
    headers = Headers(scope=scope)
    announced = headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > BODY_BYTES_MAX:
        raise _too_large()
    if announced == "0" and "transfer-encoding" not in headers:
        return receive
    try:
        with anyio.fail_after(wait_s):
            return await _read_body(receive)
    except TimeoutError:
        text = f"the request's body took longer than {wait_s:g} s to arrive"
        raise refuse("too_slow", "body_too_slow", text, "send it faster") from None


async def _read_body(receive: Receive) -> Receive:
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
