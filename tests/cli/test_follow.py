"""Following a job, leaving it, and going on after the connection broke."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from tests.cli.conftest import Command

from dusuan.cli import follow, render
from dusuan.cli.client import Client, Event, _events
from dusuan.cli.failures import Failure
from dusuan.cli.session import Session, Setup, tell
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
        run.log = (
            b"\x1b]0;owned\x07\x1b[2Jplain \x1b[31mred\x1b[0m\n"
            b"\x1bcreset \xc2\x9b2J \xe2\x80\xaeturned\nno newline"
        )
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
    for told in ("\x1bc", "\x9b", "\u202e"):
        assert told not in said
    assert "reset" in said


@pytest.mark.parametrize("more", [(), ("-f",)])
def test_escapes_of_a_job_in_its_whole_log(
    dusuan: Command, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    dusuan.centre.organisation("acme", 1)
    Path("job.yaml").write_text("run: hang\n")
    job_id = dusuan.json("submit", "--detach", "job.yaml")["job_id"]
    deadline = time.monotonic() + 10
    while not dusuan.centre.engine.runs:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    [run] = dusuan.centre.engine.runs.values()
    run.log = b"\x1b]0;owned\x07\x1b[2J\x1bcplain\n"
    dusuan.centre.engine.finish(run, Exit(EndReason.EXIT, 0), 700)
    piped = dusuan("logs", job_id, *more).stdout  # a file gets it without colours
    assert piped == "\x1b]0;owned\x07\x1bcplain\n"
    monkeypatch.setattr(Console, "is_terminal", property(lambda _: True))
    shown = dusuan("logs", job_id, *more).stdout
    assert "plain" in shown
    assert not any(told in shown for told in ("\x07", "\x1bc", "\x1b[2J"))


def test_names_and_reasons_tell_a_terminal_nothing() -> None:
    nasty = "a\x1b]0;owned\x07\x9b2J\u202eb\r\tc 空é"
    out = io.StringIO()
    console = Console(file=out, width=200, highlight=False, force_terminal=True)
    console.print(render.fields([("name", nasty)]))
    console.print(render.table(("name",), [(nasty,)]))
    tell(console, Failure(nasty, nasty, nasty, where=nasty))
    said = out.getvalue()
    assert said.count("a\\x1b]0;owned\\x07\\x9b2J\\u202eb\\x0d") == 5
    assert "c 空é" in said
    for told in ("\x1b]", "\x07", "\x9b", "\u202e", "\r"):
        assert told not in said
