"""Small files that another process reads while they are replaced."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dusuan.core.metering.journal import Exit, Reading, Record, RecordKind, encode, read

_TAIL_BYTES = 128 * 1024  # more than the longest record a shepherd writes


def replace_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document` so that a reader sees the old or the new content, never a part."""
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(document, file)
    fresh.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The content of `path`; empty when there is none or it is damaged."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def read_bytes(path: Path, offset: int, limit: int) -> bytes:
    """Up to `limit` bytes from `offset`; empty when there is no such file yet."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)
    except FileNotFoundError:
        return b""


def size_of(path: Path) -> int:
    """Bytes in `path`; 0 when there is no such file yet."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def read_journal(path: Path, cursor: int) -> Reading:
    """The records from byte `cursor` on."""
    return read(read_bytes(path, cursor, -1))


def has_ended(path: Path) -> bool:
    """Whether the journal at `path` has its end record, which is always its last."""
    size = size_of(path)
    records = read(read_bytes(path, max(0, size - _TAIL_BYTES), -1)).records
    return bool(records) and records[-1].kind is RecordKind.END


def note_end(path: Path, end: Exit) -> None:
    """Write the whole journal of an attempt that never got a shepherd: its end."""
    made_ms = path.parent.stat().st_mtime_ns // 1_000_000  # the clock of whoever made the folder
    record = Record(n=1, kind=RecordKind.END, held_ms=0, wall_ms=made_ms, exit=end)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(encode(record))
