"""The journal: what a shepherd wrote about one attempt, and how its bytes are read.

One record per line: eight hexadecimal digits of CRC-32 over the JSON text, a space, the JSON text,
a newline. Registers are cumulative, so a repeated record changes nothing and a gap heals with the
next one. Reading is pure: bytes in, records and problems out.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class RecordKind(StrEnum):
    """What a record marks: the job's process began, a moment in between, or its end."""

    START = "start"
    TICK = "tick"
    END = "end"


class EndReason(StrEnum):
    """Why an attempt ended, as its shepherd saw it."""

    EXIT = "exit"  # the job ended by itself, by an exit code or by a signal
    START_FAILED = "start_failed"  # the job's command could not be started at all
    WALL_TIME = "wall_time"  # its wall time had passed
    LEASE = "lease"  # the ceiling of its lease of degrees was reached
    LIMIT = "limit"  # its processes used more of the host than they may: the text says what
    STOPPED = "stopped"  # the service asked for it
    NOT_BEGUN = "not_begun"  # its machine could not even begin it; written by the engine
    LOST = "lost"  # the shepherd, the keeper or the node is gone: no end of the job's own


@dataclass(frozen=True, slots=True)
class Exit:
    """How the job's main process ended. Exactly one of `code` and `signal` is set, or neither."""

    reason: EndReason
    code: int | None = None
    signal: int | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a journal.

    `n` counts from 1. `held_ms` is cumulative device-milliseconds (summed over the devices of the
    attempt) by the shepherd's own steady clock; `wall_ms` is that host's wall clock in Unix
    milliseconds, for display only. `flop` is what the job itself reports to have computed so far.
    `progress` is (done, total) in units of the job's own choice. `result` is what the job reports
    as its outcome. `log_bytes` is how much it has written to its log. `peak_mib`: the most memory
    that one process of it had.
    """

    n: int
    kind: RecordKind
    held_ms: int
    wall_ms: int
    flop: int | None = None
    joules: int | None = None
    progress: tuple[float, float] | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    log_bytes: int = 0
    exit: Exit | None = None
    peak_mib: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a stretch of journal bytes held: records in order, bytes consumed, and problems."""

    records: tuple[Record, ...]
    consumed: int
    problems: tuple[str, ...]


def encode(record: Record) -> bytes:
    """The line for `record`, newline included."""
    document: dict[str, Any] = {
        "n": record.n,
        "kind": record.kind.value,
        "held_ms": record.held_ms,
        "wall_ms": record.wall_ms,
        "log_bytes": record.log_bytes,
    }
    for name in ("flop", "joules", "peak_mib"):
        if getattr(record, name) is not None:
            document[name] = getattr(record, name)
    if record.progress is not None:
        document["progress"] = list(record.progress)
    if record.result:
        document["result"] = dict(record.result)
    if record.exit is not None:
        document["exit"] = {
            "reason": record.exit.reason.value,
            "code": record.exit.code,
            "signal": record.exit.signal,
            "text": record.exit.text,
        }
    text = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def read(data: bytes) -> Reading:
    """Read the whole lines of `data`; an unfinished last line is left for the next reading.

    A damaged line is skipped and named in `problems`: the registers are cumulative, so the next
    good record carries what it said.
    """
    consumed = data.rfind(b"\n") + 1
    records: list[Record] = []
    problems: list[str] = []
    for number, line in enumerate(data[:consumed].split(b"\n"), start=1):
        if not line:
            continue  # written to end a line that may have been cut short
        record = _record(line)
        if record is None:
            problems.append(f"journal line {number} is damaged and was skipped")
        else:
            records.append(record)
    return Reading(tuple(records), consumed, tuple(problems))


def _record(line: bytes) -> Record | None:
    checksum, _, text = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        return _from_document(json.loads(text))
    except (ValueError, KeyError, TypeError):
        return None


def _from_document(document: Mapping[str, Any]) -> Record:
    ended = document.get("exit")
    progress = document.get("progress")
    return Record(
        n=int(document["n"]),
        kind=RecordKind(document["kind"]),
        held_ms=int(document["held_ms"]),
        wall_ms=int(document["wall_ms"]),
        flop=document.get("flop"),
        joules=document.get("joules"),
        progress=(float(progress[0]), float(progress[1])) if progress else None,
        result=dict(document.get("result", {})),
        log_bytes=int(document.get("log_bytes", 0)),
        exit=Exit(EndReason(ended["reason"]), ended["code"], ended["signal"], ended["text"])
        if ended
        else None,
        peak_mib=document.get("peak_mib"),
    )
