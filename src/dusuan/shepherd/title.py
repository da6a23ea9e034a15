"""What `ps` shows of a process that was forked and not executed."""

# ruff: noqa: PTH123 - importing pathlib would cost milliseconds and memory
from __future__ import annotations

import ctypes

_ARG_START, _ARG_END = 47, 48  # fields 48 and 49 of proc(5) stat, counted from 0


def set_title(argv: list[str]) -> None:
    """Write `argv` over the arguments this process was started with, as far as there is room.

    The kernel shows that memory as /proc/PID/cmdline. Does nothing where it cannot be found.
    """
    with open("/proc/self/stat", "rb") as file:
        # The second field is the program's name in parentheses, and may hold anything.
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[_ARG_START - 2]), int(fields[_ARG_END - 2])
    room = end - start
    text = b"\0".join(part.encode("utf-8", "surrogateescape") for part in argv) + b"\0"
    if 0 < len(text) <= room:
        ctypes.memmove(start, text + bytes(room - len(text)), room)
