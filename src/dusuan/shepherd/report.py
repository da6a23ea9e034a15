"""What the job says about itself: JSON lines in a file that it may damage in any way.

Everything here is bounded and nothing is trusted: a line that is not understood is passed over.
"""

from __future__ import annotations

import json
import math
import os
import stat

_LINE_BYTES_MAX = 64 * 1024
_TURN_BYTES = 1 << 20
_RESULT_BYTES_MAX = 16 * 1024
_RESULT_DEPTH_MAX = 4
_FLOP_MAX = 10**30


class Report:
    """Reads the report file as it grows.

    `flop` is cumulative and never falls; `progress` is the last (done, total); `result` is merged
    key by key. `result_news` is True when `result` changed since it was last set to False.
    """

    __slots__ = ("_offset", "_path", "_rest", "flop", "progress", "result", "result_news")

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self.flop: int | None = None
        self.progress: list[float] | None = None
        self.result: dict[str, object] = {}
        self.result_news = False

    def poll(self) -> None:
        """Take in what was appended. Never blocks: only a plain file is read."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (OSError, ValueError):
            return
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                self._take(self._read(descriptor, status.st_size))
        except OSError:
            return
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, size: int) -> bytes:
        if size < self._offset:  # cut or replaced by the job: begin again
            self._offset, self._rest = 0, b""
        if size - self._offset > _TURN_BYTES:
            # Registers are cumulative, so of a flood only the end is worth reading. What is left
            # of the line we land in is garbage, and is passed over as such.
            self._offset, self._rest = size - _TURN_BYTES, b""
        data = os.pread(descriptor, min(size - self._offset, _TURN_BYTES), self._offset)
        self._offset += len(data)
        return data

    def _take(self, data: bytes) -> None:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()[: _LINE_BYTES_MAX + 1]
        for text in lines:
            if 0 < len(text) <= _LINE_BYTES_MAX:
                self._line(text)

    def _line(self, text: bytes) -> None:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(document, dict):
            return
        self._take_flop(document.get("flop"))
        self._take_progress(document.get("progress"))
        self._take_result(document.get("result"))

    def _take_flop(self, value: object) -> None:
        if _is_amount(value) and (self.flop is None or value > self.flop):  # type: ignore[operator] # checked
            self.flop = int(value)  # type: ignore[call-overload] # checked by _is_amount

    def _take_progress(self, value: object) -> None:
        if isinstance(value, list) and len(value) == 2 and all(_is_amount(part) for part in value):
            self.progress = [float(part) for part in value]

    def _take_result(self, value: object) -> None:
        if not isinstance(value, dict) or not _is_plain(value, _RESULT_DEPTH_MAX):
            return
        merged = {**self.result, **value}
        if merged != self.result and len(json.dumps(merged)) <= _RESULT_BYTES_MAX:
            self.result = merged
            self.result_news = True


def _is_amount(value: object) -> bool:
    """A finite number from 0 to 1e30; True and False are no numbers."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 <= value <= _FLOP_MAX  # false for NaN too


def _is_plain(value: object, depth: int) -> bool:
    """JSON a database can keep: shallow, finite numbers, text without NUL or lone surrogates."""
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return _is_text(value)
    if isinstance(value, int):
        return abs(value) <= _FLOP_MAX
    if isinstance(value, float):
        return math.isfinite(value)
    if depth == 0:
        return False
    if isinstance(value, list):
        return all(_is_plain(part, depth - 1) for part in value)
    if isinstance(value, dict):
        return all(_is_text(name) and _is_plain(part, depth - 1) for name, part in value.items())
    return False


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
