"""The job's log: everything it writes, up to a bound, without ever making it wait."""

from __future__ import annotations

import os

_CHUNK_BYTES = 1 << 20
# How much is drained before the loop looks at its deadlines again: some milliseconds of work.
_TURN_BYTES = 16 * _CHUNK_BYTES


class JobLog:
    """Keeps the first `bytes_max` bytes in a file and counts the rest."""

    __slots__ = ("_buffer", "_bytes_kept", "_bytes_max", "_file", "_reader", "bytes_total")

    def __init__(self, path: str, bytes_max: int, reader: object = None) -> None:
        """`reader`: a function that is given every piece of the log, or None."""
        self._reader = reader
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._bytes_max = bytes_max
        self._bytes_kept = 0
        self._buffer = memoryview(bytearray(_CHUNK_BYTES))
        self.bytes_total = 0

    def drain(self, pipe: int) -> bool:
        """Take what is in the non-blocking `pipe`; False at its end (every writer is gone)."""
        taken = 0
        while taken < _TURN_BYTES:
            try:
                count = os.readv(pipe, [self._buffer])
            except BlockingIOError:
                return True
            if not count:
                return False
            taken += count
            if self._reader is not None:
                self._reader(bytes(self._buffer[:count]))  # type: ignore[operator] # a function
            self._keep(count)
        return True

    def _keep(self, count: int) -> None:
        self.bytes_total += count
        room = min(count, self._bytes_max - self._bytes_kept)
        if room <= 0:
            return
        try:
            self._bytes_kept += os.write(self._file, self._buffer[:room])
        except OSError:
            # A full disk costs the customer log lines, never the job.
            self._bytes_max = self._bytes_kept

    def close(self) -> None:
        """Say in the log itself how much of it is missing."""
        dropped = self.bytes_total - self._bytes_kept
        if dropped:
            notice = f"\n[dusuan] the log was full: {dropped} more bytes were dropped\n"
            try:
                os.write(self._file, notice.encode())
            except OSError:
                self._bytes_max = 0
        os.close(self._file)
