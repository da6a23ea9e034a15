"""Finds what is left of an attempt whose shepherd and keeper were both killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path


def kill_leftovers(marks: Mapping[str, str]) -> bool:
    """Kill every process that was started with all of `marks` in its environment; was there any?

    Without a sandbox nothing else ties such a process to its attempt: its parents are dead.
    """
    wanted = {f"{name}={value}".encode() for name, value in marks.items()}
    found = [pid for pid in _processes() if wanted <= _environment(pid)]
    for pid in found:
        _kill(pid)
    return bool(found)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> set[bytes]:
    """What `pid` was started with; empty when it is gone, a zombie or another user's."""
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()
