# ruff: noqa: PTH116, PTH123 - importing pathlib would cost milliseconds of every start
"""What the service asks of a running attempt: two small files that it replaces atomically."""

from __future__ import annotations

import json
import os


class Watched:
    """A JSON file that is read again only when it was replaced."""

    __slots__ = ("_mark", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._mark: tuple[int, int, int] | None = None

    def news(self) -> dict[str, object] | None:
        """Its content when that is new, else None. A damaged file is as good as none."""
        try:
            status = os.stat(self._path)
            mark = (status.st_ino, status.st_mtime_ns, status.st_size)
            if mark == self._mark:
                return None
            with open(self._path, "rb") as file:
                document = json.load(file)
        except (OSError, ValueError):
            return None
        self._mark = mark
        return document if isinstance(document, dict) else None


class LeaseFile:
    """The ceiling on the attempt's own cumulative register; only a higher `seq` replaces it."""

    __slots__ = ("_file", "_seq", "held_ms_max")

    def __init__(self, path: str) -> None:
        self._file = Watched(path)
        self._seq = -1
        self.held_ms_max = 0
        self.poll()

    def poll(self) -> None:
        """Take over a newer lease, if there is one."""
        document = self._file.news()
        if document is None:
            return
        seq, held_ms_max = document.get("seq"), document.get("held_ms_max")
        if isinstance(seq, int) and isinstance(held_ms_max, int) and seq > self._seq:
            self._seq, self.held_ms_max = seq, held_ms_max


class ControlFile:
    """Actions asked for: checkpoint, stop or kill; each `seq` is acted on once."""

    __slots__ = ("_file", "_seq")

    def __init__(self, path: str) -> None:
        self._file = Watched(path)
        self._seq = 0

    def poll(self) -> str:
        """The action that is new, or an empty string."""
        document = self._file.news()
        if document is None:
            return ""
        seq, action = document.get("seq"), document.get("action")
        if not isinstance(seq, int) or not isinstance(action, str) or seq <= self._seq:
            return ""
        self._seq = seq
        return action
