"""Following a job, leaving it, and going on after the connection broke."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from tests.cli.conftest import Command

from dusuan.cli import follow
from dusuan.cli.client import Client, Event, _events
from dusuan.cli.failures import Failure
from dusuan.cli.session import Session, Setup
from dusuan.core.metering.journal import EndReason, Exit


def test_leaving_leaves_the_job_running(dusuan: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    dusuan.centre.organisation("acme", 1)
    Path("job.yaml").write_text("run: hang\n")

    def interrupted(*_: Any, **__: Any) -> Iterator[Event]:
        raise KeyboardInterrupt

    monkeypatch.setattr(follow, "events", interrupted)
    monkeypatch.setattr(follow._Screen, "_watch_meter", lambda _: None)
    result = dusuan("submit", "job.yaml")
    assert result.exit_code == 130
    assert "goes on without you" in result.stderr
    assert "logs job_" in result.stderr
    [job] = dusuan.json("jobs")["jobs"]
    assert job["state"] in ("queued", "starting", "running")


def test_a_job_that_waits_says_why(dusuan: Command) -> None:
    dusuan.centre.organisation("acme", 1)
    Path("job.yaml").write_text("run: hang\ncheckpoint: {grace: 1s}\nresources: {cpus: 2}\n")
    first = dusuan.json("submit", "--detach", "job.yaml")
    Path("job.yaml").write_text("run: echo second\n")
    threading.Timer(
        1.5, lambda: dusuan.centre.operator.post(f"/v1/jobs/{first['job_id']}/cancel", json={})
    ).start()
    result = dusuan("submit", "job.yaml")
    assert result.exit_code == 0, result.output
    assert "waits (" in result.stderr


def test_events_go_on_where_they_broke_off(
    dusuan: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    def breaking(
        client: Client, path: str, last_id: str | None = None, **_: Any
    ) -> Iterator[Event]:
        asked.append(last_id)
        if len(asked) == 1:
            yield Event("log", {"text": "a"}, "1:1")
            raise Failure("connection_lost", "gone")
        yield Event("log", {"text": "b"}, "1:2")
        yield Event("end", {}, "1:2")

    monkeypatch.setattr(Client, "events", breaking)
    monkeypatch.setattr(follow, "PAUSE_S", 0.0)
    result = dusuan("logs", "job_1", "-f")
    assert (result.stdout, asked) == ("ab", [None, "1:1"])


def test_a_platform_that_stays_away(dusuan: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "RECONNECT_S", 0.3)
    monkeypatch.setattr(follow, "PAUSE_S", 0.05)
    dusuan.launcher.url = "http://127.0.0.1:9"
    assert dusuan.problem("logs", "job_1", "-f")[1]["code"] == "not_running"


def test_one_try_more_under_the_same_key(dusuan: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    send = httpx.Client.request

    def flaky(client: httpx.Client, method: str, path: str, **arguments: Any) -> httpx.Response:
        if method == "POST":
            keys.append(arguments["headers"]["Idempotency-Key"])
            answer = send(client, method, path, **arguments)
            if len(keys) == 1:
                raise httpx.ReadError("lost on the way back")
            return answer
        return send(client, method, path, **arguments)

    monkeypatch.setattr(httpx.Client, "request", flaky)
    assert dusuan.json("org", "create", "acme")["path"] == "acme"
    assert len(keys) == 2
    assert keys[0] == keys[1]


def test_events_are_read() -> None:
    lines = ["id: 1:2", "event: log", 'data: {"a": 1}', "", ": still here", "", "data: {}", ""]
    assert list(_events(iter(lines))) == [
        Event("log", {"a": 1}, "1:2"),
        Event("message", {}, None),
    ]


def test_escapes_of_a_job_do_not_reach_a_terminal(
    dusuan: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    dusuan.centre.organisation("acme", 1)
    monkeypatch.setattr(Console, "is_terminal", property(lambda _: True))
    Path("job.yaml").write_text("run: hang\n")
    job_id = dusuan.json("submit", "--detach", "job.yaml")["job_id"]

    def talk() -> None:
        [run] = dusuan.centre.engine.runs.values()
        run.log = b"\x1b]0;owned\x07\x1b[2Jplain \x1b[31mred\x1b[0m\nno newline"
        dusuan.centre.engine.finish(run, Exit(EndReason.EXIT, 0), 700)

    threading.Timer(1.0, talk).start()
    out = io.StringIO()
    console = Console(file=out, width=200, highlight=False)
    setup = Setup(dusuan.launcher, lambda: "k")
    session = Session(setup, False, None, out=console, err=console)
    assert follow.follow(session, job_id)["state"] == "succeeded"
    said = out.getvalue()
    assert "plain" in said
    assert "no newline" in said
    assert "\x07" not in said
    assert "\x1b[2J" not in said
