"""Progress of a foreign script, read from its log by a pattern that its owner wrote.

The pattern is a stranger's: a search that takes too long is broken off, and the pattern is not
tried again. The job goes on either way.
"""

from __future__ import annotations

import re
import signal

_TAIL_BYTES = 16 * 1024
_LINE_BYTES_MAX = 2 * 1024
_LINES_MAX = 200
_SEARCH_S = 0.05


class Pattern:
    """The last place in the log where the pattern matched.

    Its first group is what is done, its second (or `total`) how much there is. A carriage return
    ends a line, so that bars which redraw themselves are read as well. `progress` is
    [done, total], total 0 where nothing says how much there is. `failure` says why it gave up.
    """

    __slots__ = ("_fresh", "_regex", "_tail", "_total", "failure", "progress")

    def __init__(self, text: str, total: float | None) -> None:
        self._regex = re.compile(text.encode())
        self._total = 0.0 if total is None else total
        self._tail = b""
        self._fresh = False
        self.progress: list[float] | None = None
        self.failure = ""

    def feed(self, data: bytes) -> None:
        """Take in what the job wrote; only the end of it is kept until `poll`."""
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        self._fresh = True

    def poll(self) -> None:
        """Look for the last match among the whole lines since the last look."""
        if not self._fresh or self.failure:
            return
        self._fresh = False
        lines = self._tail.replace(b"\r", b"\n").split(b"\n")
        self._tail = lines.pop()
        try:
            found = _bounded(lambda: self._last(lines))
        except _TooLong:
            self.failure = "the progress pattern took too long to search and is not read any more"
            return
        if found is not None:
            self.progress = found

    def _last(self, lines: list[bytes]) -> list[float] | None:
        for line in reversed(lines[-_LINES_MAX:]):
            match = self._regex.search(line[:_LINE_BYTES_MAX])
            groups = match.groups() if match else ()
            done = _number(groups[0]) if groups else None
            if done is not None:
                total = _number(groups[1]) if len(groups) > 1 else None
                return [done, self._total if total is None else total]
        return None


class _TooLong(Exception):
    """The search was broken off."""


def _bounded(search: object) -> list[float] | None:
    """Run `search` for `_SEARCH_S` at most: the regular expression engine heeds signals."""
    before = signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, _SEARCH_S)
    try:
        return search()  # type: ignore[operator, no-any-return] # importing typing costs a start
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _raise(_number: int, _frame: object) -> None:
    raise _TooLong


def _number(text: bytes | None) -> float | None:
    """A finite number from 0 to 1e30, with commas or underscores between its digits."""
    if text is None:
        return None
    try:
        value = float(text.replace(b",", b"").replace(b"_", b""))
    except ValueError:
        return None
    return value if 0 <= value <= 1e30 else None
