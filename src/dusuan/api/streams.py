"""Logs and meters while a job runs: server-sent events that can be taken up where they broke off.

One step looks at the job and reads what is new (blocking, in a thread); the generators around it
only wait and send. A log's place is `attempt:byte offset`, which is the id of its events.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
from anyio import to_thread
from fastapi import Request

from dusuan.api.call import Call
from dusuan.app import jobs, receipts

CHUNK_BYTES = 65_536
CHUNKS_PER_STEP = 16
LOG_POLL_S = 0.2
METER_POLL_S = 0.5
SILENCE_S_MAX = 15.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader of a job's log is: the attempt's number, and the next byte of its log."""

    attempt: int = 1
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.attempt}:{self.offset}"


def parse_place(text: str | None) -> Place:
    """The place that a `Last-Event-ID` names; the beginning for anything that is none."""
    attempt, _, offset = (text or "").partition(":")
    plain = attempt.isascii() and attempt.isdigit() and offset.isascii() and offset.isdigit()
    if not plain or len(attempt) > 9 or len(offset) > 18:
        return Place()
    return Place(int(attempt), int(offset))


@dataclass(slots=True)
class Step:
    """What one look at a job's log brought. `done`: it has ended and all of it has been read."""

    place: Place
    view: dict[str, Any]
    events: list[str] = field(default_factory=list)
    done: bool = False


def event(name: str, data: dict[str, Any], event_id: str | None = None) -> str:
    """One server-sent event. Its JSON is ASCII: some clients split lines at U+2028 and the like."""
    first = "" if event_id is None else f"id: {event_id}\n"
    return f"{first}event: {name}\ndata: {json.dumps(data)}\n\n"


def whole_characters(chunk: bytes, final: bool) -> tuple[str, int]:
    """The text of `chunk` without a last character that is cut off, and the bytes it took.

    With `final` nothing can follow, so a cut character is replaced like any other broken one.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(chunk, final)
    return text, len(chunk) - len(decoder.getstate()[0])


def log_step(call: Call, job_id: str, place: Place, only: int | None) -> Step:
    """Look at the job once and read what its log has after `place`. Raises `Refused`."""
    # The job is looked at before its log is read: what ended by then has its whole log.
    view = call.read(lambda tx: tx.look(jobs.show(call.actor, job_id)))
    step = Step(place, view)
    room = CHUNKS_PER_STEP
    for attempt in view["attempts"]:
        number = attempt["number"]
        if number < step.place.attempt or (only is not None and number != only):
            continue
        if number > step.place.attempt:
            step.place = Place(number, 0)
        room = _read(call, attempt, step, room)
        if room == 0:
            return step
    step.done = view["state"] in jobs.FINAL
    return step


def _read(call: Call, attempt: dict[str, Any], step: Step, room: int) -> int:
    """Read one attempt's log from the step's place on; the chunks of `room` that are left."""
    ended = attempt["state"] == "ended"
    while room:
        chunk = call.hooks.read_log(attempt["attempt_id"], step.place.offset, CHUNK_BYTES)
        text, used = whole_characters(chunk, ended and len(chunk) < CHUNK_BYTES)
        if not used:
            return room
        data = {"attempt": attempt["number"], "offset": step.place.offset, "text": text}
        step.place = Place(attempt["number"], step.place.offset + used)
        step.events.append(event("log", data, str(step.place)))
        room -= 1
    return 0


async def follow_log(
    request: Request, call: Call, job_id: str, place: Place, only: int | None
) -> AsyncIterator[str]:
    """`log` events until the job has ended, then `end` with its state."""
    silent_s = 0.0
    while not await _gone(request, call):
        step = await to_thread.run_sync(partial(log_step, call, job_id, place, only))
        place = step.place
        for each in step.events:
            yield each
        if step.done:
            yield event("end", _ending(step.view), str(place))
            return
        if step.events:
            silent_s = 0.0
            continue
        await anyio.sleep(LOG_POLL_S)
        silent_s += LOG_POLL_S
        if silent_s >= SILENCE_S_MAX:  # so that a connection that is dead is noticed
            silent_s = 0.0
            yield ": nothing new\n\n"


async def follow_meter(request: Request, call: Call, job_id: str) -> AsyncIterator[str]:
    """A `meter` event every half second until the job has ended, then `end` with its state."""
    while not await _gone(request, call):
        view = await to_thread.run_sync(read_meter, call, job_id)
        yield event("meter", view)
        if view["state"] in jobs.FINAL:
            yield event("end", _ending(view))
            return
        await anyio.sleep(METER_POLL_S)


def read_meter(call: Call, job_id: str) -> dict[str, Any]:
    """The job's meter now. Raises `Refused`."""
    return call.read(lambda tx: receipts.meter(tx, call.actor, job_id))


async def _gone(request: Request, call: Call) -> bool:
    closing: Callable[[], bool] = call.hooks.closing
    return closing() or await request.is_disconnected()


def _ending(view: dict[str, Any]) -> dict[str, Any]:
    return {key: view[key] for key in ("job_id", "state", "stop_reason")}
