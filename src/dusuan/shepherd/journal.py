"""Writes the journal: the meter's only source of truth.

The line format is the one of `dusuan.core.metering.journal`, which this room may not import: a
shepherd has to start in milliseconds and to outlive any version of the service.
"""

from __future__ import annotations

import json
import os
import time
import zlib


def line(document: dict[str, object]) -> bytes:
    """One record as bytes: CRC-32 in hexadecimal, a space, JSON, a newline."""
    text = json.dumps(document, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


class Journal:
    """An append-only file. A write that fails is made good by the next one."""

    __slots__ = ("_count", "_descriptor", "_torn")

    def __init__(self, path: str) -> None:
        """Raises FileExistsError when the attempt ran before: one attempt, one run."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._descriptor = os.open(path, flags, 0o600)
        self._count = 0
        self._torn = False

    def append(self, kind: str, held_ms: int, body: dict[str, object]) -> bool:
        """Write and sync one record; False when the disk refused it.

        `held_ms` is cumulative device-milliseconds.
        """
        wall_ms = time.time_ns() // 1_000_000
        head = {"n": self._count + 1, "kind": kind, "held_ms": held_ms, "wall_ms": wall_ms}
        data = line({**body, **head})
        # A full disk may have cut the last line short: end it, so that only that one is lost.
        data = (b"\n" if self._torn else b"") + line({**body, **head})
        try:
            self._torn = os.write(self._descriptor, data) != len(data)
        except OSError:
            return False
        if self._torn:
            return False
        self._count += 1
        self._sync()
        return True

    def _sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError:
            return  # written but perhaps not on the disk yet: the next record syncs both
