"""Writes the journal: the meter's only source of truth.

The line format is the one of `dusuan.core.metering.journal`, which this room may not import: a
shepherd has to start in milliseconds and to outlive any version of the service.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import time
import zlib

_ROOM_BYTES = 32 * 1024  # more than the longest record: a result has 16 KiB at most
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE


def line(document: dict[str, object]) -> bytes:
    """One record as bytes: CRC-32 in hexadecimal, a space, JSON, a newline."""
    text = json.dumps(document, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


class Journal:
    """An append-only file. A write that fails is made good by the next one.

    Room for the end of the story is set aside on the disk from the first moment and kept ahead of
    what is written, where the file system can do that: when the disk is full, ticks are left out
    (the registers are cumulative) and the end is still written, so the bill stays exact.
    """

    __slots__ = ("_count", "_descriptor", "_reserved", "_size", "_torn")

    def __init__(self, path: str) -> None:
        """Raises FileExistsError when the attempt ran before: one attempt, one run."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._descriptor = os.open(path, flags, 0o600)
        self._count = 0
        self._torn = False
        self._size = 0
        self._reserved = 0
        self._reserve()

    def append(self, kind: str, held_ms: int, body: dict[str, object]) -> bool:
        """Write and sync one record; False when the disk refused it.

        `held_ms` is cumulative device-milliseconds. What is set aside is used by start and end.
        """
        if kind == "tick" and not self._reserve():
            return False
        wall_ms = time.time_ns() // 1_000_000
        head = {"n": self._count + 1, "kind": kind, "held_ms": held_ms, "wall_ms": wall_ms}
        # The last line may have been cut short (by a full disk, or by whoever cut the file): end
        # it, so that only that one is lost. An empty line is none.
        fresh_line = b"\n" if self._torn or kind == "end" else b""
        data = fresh_line + line({**body, **head})
        try:
            written = os.write(self._descriptor, data)
        except OSError:
            return False
        self._size += written
        self._torn = written != len(data)
        if self._torn:
            return False
        self._count += 1
        self._sync()
        return True

    def close(self) -> None:
        """Give back the room that nothing was written to."""
        try:
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size)
        except OSError:
            return  # a matter of some KiB

    def _reserve(self) -> bool:
        """Keep room ahead; False when the disk is full. True where that cannot be had at all."""
        if self._reserved - self._size >= _ROOM_BYTES:
            return True
        wanted = self._size + 2 * _ROOM_BYTES
        error = _allocate(self._descriptor, wanted)
        if error in (errno.ENOSPC, errno.EDQUOT):
            return False
        self._reserved = wanted
        return True

    def _sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError:
            return  # written but perhaps not on the disk yet: the next record syncs both


def _allocate(descriptor: int, size: int) -> int:
    """Give the file's first `size` bytes room on the disk, and no other length: 0 or an errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    zero, length = ctypes.c_int64(0), ctypes.c_int64(size)
    if libc.fallocate(descriptor, _KEEP_SIZE, zero, length) == 0:
        return 0
    return ctypes.get_errno()
