"""The API over HTTP, as the commands use it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from dusuan.cli.failures import USAGE, Failure, from_problem

Document = dict[str, Any]
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
STREAM_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
LONG_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
GLANCE_TIMEOUT = httpx.Timeout(3.0, connect=1.0)
RETRY_AFTER_S = 0.3
TOO_MANY = 429
BUSY_TRIES = 5
BUSY_S_MAX = 5
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event."""

    name: str
    data: Document
    id: str | None


class Client:
    """One platform and one key. Every failure is a `Failure`."""

    def __init__(self, url: str, key: str, new_key: Callable[[], str]) -> None:
        self.url = url
        self._new_key = new_key
        self._http = httpx.Client(
            base_url=_checked_url(url),
            headers={"Authorization": f"Bearer {_checked_key(key)}"},
            timeout=TIMEOUT,
            # A proxy for the outside world cannot reach this machine's loopback.
            trust_env=httpx.URL(url).host not in _LOOPBACK,
        )

    def get(self, path: str, where: str | None = None, **params: Any) -> Document:
        """GET a JSON document; parameters that are None are left out."""
        return self._json("GET", path, where, params=_given(params))

    def glance(self, path: str) -> Document:
        """GET something that is good to know, from a platform that answers at once."""
        return self._json("GET", path, None, timeout=GLANCE_TIMEOUT, tries=1)

    def post(self, path: str, body: Mapping[str, Any], where: str | None = None) -> Document:
        """POST something that may be done once only: the same key goes with a second try."""
        headers = {"Idempotency-Key": self._new_key()}
        return self._json("POST", path, where, json=body, headers=headers)

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Document:
        """POST something that takes long or whose answer is not kept, without a second try."""
        return self._json("POST", path, None, json=body or {}, timeout=LONG_TIMEOUT, tries=1)

    def delete(self, path: str) -> Document:
        """DELETE something."""
        return self._json("DELETE", path, None)

    def upload(self, archive: Path) -> str:
        """Upload an archive; its upload id."""
        with archive.open("rb") as file:
            answer = self._json(
                "POST",
                "/v1/uploads",
                None,
                content=file,
                headers={"Content-Type": "application/gzip"},
                timeout=LONG_TIMEOUT,
                tries=1,
            )
        return str(answer["upload_id"])

    def text(self, path: str, **params: Any) -> Iterator[str]:
        """The text of a streamed answer, piece by piece."""
        with self._stream(path, params=_given(params)) as response:
            yield from response.iter_text()

    def download(self, path: str, target: Path) -> None:
        """Write a streamed answer to `target`, complete or not at all."""
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".partial")
        with self._stream(path) as response, part.open("wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
        part.replace(target)

    def events(self, path: str, last_id: str | None = None, **params: Any) -> Iterator[Event]:
        """Server-sent events, from after `last_id` on, until the platform ends the stream."""
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        with self._stream(path, params=_given(params), headers=headers) as response:
            yield from _events(response.iter_lines())

    def _json(
        self, method: str, path: str, where: str | None, *, tries: int = 2, **arguments: Any
    ) -> Document:
        response = self._send(method, path, tries, arguments)
        document = _document(response)
        if response.is_success:
            return document
        raise from_problem(response.status_code, document, where)

    def _send(
        self, method: str, path: str, tries: int, arguments: Mapping[str, Any]
    ) -> httpx.Response:
        for left in reversed(range(tries)):
            try:
                return self._patiently(method, path, arguments)
            except httpx.TransportError as error:
                if not left:
                    raise self.unreachable(error) from None
                time.sleep(RETRY_AFTER_S)
        raise AssertionError("the last try either answers or raises")

    def _patiently(self, method: str, path: str, arguments: Mapping[str, Any]) -> httpx.Response:
        """Ask again after as long as the platform says, while that is not long: it did nothing."""
        for _ in range(BUSY_TRIES):
            response = self._http.request(method, path, **arguments)
            wait_s = response.headers.get("Retry-After", "")
            if response.status_code != TOO_MANY or not wait_s.isdigit() or int(wait_s) > BUSY_S_MAX:
                break
            if not _repeatable(arguments):
                break
            time.sleep(int(wait_s))
        return response

    @contextmanager
    def _stream(self, path: str, **arguments: Any) -> Iterator[httpx.Response]:
        try:
            with self._http.stream("GET", path, timeout=STREAM_TIMEOUT, **arguments) as response:
                if not response.is_success:
                    response.read()
                    raise from_problem(response.status_code, _document(response))
                yield response
        except httpx.TransportError as error:
            raise self.unreachable(error) from None

    def unreachable(self, error: httpx.TransportError) -> Failure:
        """The platform does not answer."""
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            text = f"the platform is not running: nothing answers at {self.url}"
            return Failure("not_running", text, "start it: dusuan up --detach")
        text = f"the connection to {self.url} broke off: {error or type(error).__name__}"
        return Failure("connection_lost", text, "try again")


def _repeatable(arguments: Mapping[str, Any]) -> bool:
    """Whether the body is still there: a file that was sent has been read to its end."""
    return "content" not in arguments


def _checked_url(url: str) -> httpx.URL:
    """`url`, when a platform can be there. Raises `Failure` otherwise."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        parsed = httpx.URL()
    if parsed.scheme in ("http", "https") and parsed.host and "%" not in parsed.host:
        return parsed
    text = f"{url!r} is no address of a platform"
    raise Failure("bad_address", text, "DUSUAN_URL is like http://127.0.0.1:7340", USAGE)


def _checked_key(key: str) -> str:
    """`key`, when it can be one. Raises `Failure` otherwise, without repeating it."""
    if key and key.isascii() and key.isprintable() and " " not in key:
        return key
    text = "the API key holds characters that no key has"
    raise Failure("bad_key", text, "check DUSUAN_API_KEY", USAGE)


def _given(params: Mapping[str, Any]) -> Document:
    return {name: value for name, value in params.items() if value is not None}


def _document(response: httpx.Response) -> Document:
    try:
        document = response.json()
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document
    text = f"{response.url} does not answer like dusuan (status {response.status_code})"
    raise Failure("not_dusuan", text, "check DUSUAN_URL")


def _events(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        else:
            if "data" in fields:
                name = fields.get("event", "message")
                yield Event(name, json.loads(fields["data"]), fields.get("id"))
            fields = {}
