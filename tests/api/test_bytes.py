"""Uploads, logs, meters and outputs: bytes in and out, streamed and taken up again."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.api.centre import Centre

from dusuan.api.streams import Place, parse_place, whole_characters
from dusuan.core.metering.journal import EndReason, Exit

Event = tuple[str, dict[str, Any], str | None]


def parse(text: str) -> list[Event]:
    events = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if line[:1] not in (":", "")
        )
        if fields:
            events.append((fields["event"], json.loads(fields["data"]), fields.get("id")))
    return events


def submit(centre: Centre, job: str) -> str:
    centre.organisation("acme", 1)
    answer = centre.operator.post("/v1/jobs", json={"account": "acme", "job": job})
    return str(answer.json()["job_id"])


# Uploads


def test_an_upload_is_kept_whole(centre: Centre) -> None:
    data = b"\x1f\x8b" + bytes(range(256)) * 5_000
    made = centre.operator.post("/v1/uploads", content=data)
    assert made.status_code == 201
    assert made.json()["sha256"] == hashlib.sha256(data).hexdigest()
    assert made.json()["bytes"] == len(data)
    kept = centre.platform.uploads / f"{made.json()['upload_id']}.tar.gz"
    assert kept.read_bytes() == data
    assert list(centre.platform.uploads.iterdir()) == [kept]


def test_uploads_that_are_refused_leave_nothing(centre: Centre) -> None:
    most = centre.platform.limits.upload_bytes

    def pieces() -> Iterator[bytes]:
        yield b"\x1f"
        yield b"\x8b"
        for _ in range(most // 1_048_576 + 1):
            yield b"x" * 1_048_576

    large = centre.operator.post("/v1/uploads", content=pieces())
    assert (large.status_code, large.json()["code"]) == (413, "upload_too_large")
    headers = {"Content-Length": str(most + 1)}
    announced = centre.operator.build_request("POST", "/v1/uploads", headers=headers, content=b"")
    assert announced.headers["content-length"] == str(most + 1)
    for body in (b"", b"\x1f", b"no gzip at all"):
        refused = centre.operator.post("/v1/uploads", content=body)
        assert (refused.status_code, refused.json()["code"]) == (422, "not_gzip")
    assert list(centre.platform.uploads.iterdir()) == []


def test_an_unknown_upload(centre: Centre) -> None:
    centre.organisation("acme", 1)
    body = {"account": "acme", "job": "run: a\n", "upload_id": "upl_none"}
    answer = centre.operator.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (404, "no_upload")


# Logs


@pytest.mark.parametrize(
    ("chunk", "final", "text", "used"),
    [
        (b"abc", False, "abc", 3),
        ("度".encode()[:2], False, "", 0),
        ("a度".encode()[:3], False, "a", 1),
        ("度".encode()[:2], True, "\ufffd", 2),
        (b"\xff\xfeok", False, "\ufffd\ufffdok", 4),
        (b"", True, "", 0),
    ],
)
def test_characters_are_not_cut(chunk: bytes, final: bool, text: str, used: int) -> None:
    assert whole_characters(chunk, final) == (text, used)


@pytest.mark.parametrize("text", [None, "", "x", "1", "1:", ":1", "1:x", "-1:0", "1:" + "9" * 30])
def test_an_odd_place_is_the_beginning(text: str | None) -> None:
    assert parse_place(text) == Place()


def test_a_place_is_read_back() -> None:
    assert parse_place(str(Place(3, 12_345))) == Place(3, 12_345)


def test_a_long_log_comes_whole_however_it_is_cut(centre: Centre) -> None:
    job_id = submit(centre, "run: a\n")
    centre.turn()
    [run] = centre.engine.runs.values()
    run.log = ("算力" * 400_000 + "\nend\n").encode()
    plain = centre.operator.get(f"/v1/jobs/{job_id}/logs")
    assert plain.headers["content-type"] == "text/plain; charset=utf-8"
    assert plain.text == run.log.decode()
    *logs, end = parse(centre.operator.get(f"/v1/jobs/{job_id}/logs?follow=1").text)
    assert "".join(data["text"] for _, data, _ in logs) == run.log.decode()
    assert end[:2] == ("end", {"job_id": job_id, "state": "succeeded", "stop_reason": "exit"})
    # From any event on, the rest is the rest.
    headers = {"Accept": "text/event-stream", "Last-Event-ID": logs[4][2] or ""}
    *rest, _ = parse(centre.operator.get(f"/v1/jobs/{job_id}/logs", headers=headers).text)
    assert rest == logs[5:]


def test_a_log_is_followed_while_it_is_written(centre: Centre) -> None:
    job_id = submit(centre, "run: hang\n")
    centre.turn()
    [run] = centre.engine.runs.values()
    run.log = b"one " + "度".encode()[:1]
    got: list[str] = []
    headers = {"Accept": "text/event-stream"}
    with centre.operator.stream("GET", f"/v1/jobs/{job_id}/logs", headers=headers) as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                got.append(json.loads(line[6:]).get("text", "END"))
                if len(got) == 1:
                    run.log = "one 度 two".encode()
                if len(got) == 2:
                    centre.engine.finish(run, Exit(EndReason.EXIT, 0), 700)
                    centre.turn()
    assert got == ["one ", "度 two", "END"]


def test_a_follower_that_leaves_is_let_go(centre: Centre) -> None:
    job_id = submit(centre, "run: hang\n")
    centre.turn()
    looks = threading.Semaphore(0)
    read = centre.engine.read_log

    def counted(attempt_id: str, offset: int, limit: int) -> bytes:
        looks.release()
        return read(attempt_id, offset, limit)

    object.__setattr__(centre.app.state.hooks, "read_log", counted)
    with centre.operator.stream("GET", f"/v1/jobs/{job_id}/logs?follow=true") as response:
        next(response.iter_lines())
    for _ in range(50):
        if not looks.acquire(timeout=1.0):
            return
    pytest.fail("the log is still being read for nobody")


def test_one_attempt_of_several(centre: Centre) -> None:
    job_id = submit(centre, "run: hang\ncheckpoint: {grace: 1s}\n")
    centre.turn()
    [first] = centre.engine.runs.values()
    first.log = b"first\n"
    centre.engine.finish(first, Exit(EndReason.LEASE, 75), 700)
    centre.turn()
    assert len(centre.engine.runs) == 2
    second = list(centre.engine.runs.values())[1]
    second.log = b"second\n"
    centre.engine.finish(second, Exit(EndReason.EXIT, 0), 700)
    centre.turn()
    path = f"/v1/jobs/{job_id}/logs"
    assert centre.operator.get(path).text == "first\nsecond\n"
    assert centre.operator.get(f"{path}?attempt=2").text == "second\n"
    none = centre.operator.get(f"{path}?attempt=3")
    assert (none.status_code, none.json()["code"]) == (404, "no_attempt")
    events = parse(centre.operator.get(f"{path}?follow=true").text)
    assert [(name, data.get("attempt")) for name, data, _ in events] == [
        ("log", 1),
        ("log", 2),
        ("end", None),
    ]
    only = parse(centre.operator.get(f"{path}?follow=true&attempt=2").text)
    assert [data.get("text") for _, data, _ in only] == ["second\n", None]


# Meters and outputs


def test_a_meter_once_and_followed(centre: Centre) -> None:
    job_id = submit(centre, "run: hang\n")
    centre.turn()
    once = centre.operator.get(f"/v1/jobs/{job_id}/meter").json()
    assert (once["state"], once["held_ms"], once["progress"]) == ("running", 600, [120.0, 400.0])
    assert once["balance_left_s"] is not None
    threading.Timer(0.8, lambda: end(centre)).start()
    events = parse(centre.operator.get(f"/v1/jobs/{job_id}/meter?follow=true").text)
    assert [name for name, _, _ in events][-2:] == ["meter", "end"]
    assert events[-1][1]["state"] == "succeeded"


def end(centre: Centre) -> None:
    [run] = centre.engine.runs.values()
    centre.engine.finish(run, Exit(EndReason.EXIT, 0), 700)
    centre.turn()


def test_outputs(centre: Centre) -> None:
    job_id = submit(centre, "run: a\n")
    centre.turn()
    listed = centre.operator.get(f"/v1/jobs/{job_id}/outputs").json()
    assert listed["files"] == [{"path": "model/weights.bin", "bytes": 7}]
    file = centre.operator.get(f"/v1/jobs/{job_id}/outputs/model/weights.bin")
    assert file.content == b"weights"
    assert file.headers["content-disposition"] == "attachment; filename*=UTF-8''weights.bin"
    assert file.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["none", "%2e%2e/secret", "..%2f..%2fetc%2fpasswd", "%2Fetc/passwd"]
)
def test_nothing_but_outputs_can_be_fetched(centre: Centre, path: str) -> None:
    job_id = submit(centre, "run: a\n")
    centre.turn()
    answer = centre.operator.get(f"/v1/jobs/{job_id}/outputs/{path}")
    assert answer.status_code == 404


def test_streams_end_when_the_process_does(centre: Centre) -> None:
    job_id = submit(centre, "run: hang\n")
    centre.turn()
    threading.Timer(0.5, centre.closing.set).start()
    with httpx.Client(base_url=centre.url, headers=dict(centre.operator.headers)) as client:
        text = client.get(f"/v1/jobs/{job_id}/logs?follow=true", timeout=5.0).text
    assert "event: end" not in text
