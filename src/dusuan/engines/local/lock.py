"""The lock that says whether an attempt's shepherd (or keeper) lives.

Open-file-description locks: the engine takes one and hands the descriptor down, so there is no
moment between "started" and "locked"; the kernel lets go of it when the last holder is dead; and
it can be asked about without being taken, so a question never disturbs a start.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

# struct flock of 64-bit Linux: type, whence, start, length, pid, padding.
_FLOCK = "hhqqi4x"


def take(path: Path) -> int | None:
    """The descriptor that now holds the lock; None when another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_held(path: Path) -> bool:
    """Whether any process holds the lock; False when there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
    finally:
        os.close(descriptor)
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def _whole_file(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)
