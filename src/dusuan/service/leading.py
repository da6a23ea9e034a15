"""Whether a service leads, told to all of its processes."""

from __future__ import annotations

import mmap
import time


class Leading:
    """A moment in memory that processes forked later share: until then, this service leads.

    A leader that says nothing more, dead or frozen, so stops to be shown as one by itself. Moments
    are of the host's steady clock, which is the same in every process.
    """

    def __init__(self) -> None:
        self._until_s = memoryview(mmap.mmap(-1, 8)).cast("d")

    def is_set(self) -> bool:
        """Whether it leads now, as far as its last word goes."""
        return time.monotonic() < self._until_s[0]

    def set(self, for_s: float) -> None:
        """It leads, and says so again within `for_s`."""
        self._until_s[0] = time.monotonic() + for_s

    def renew(self, for_s: float) -> None:
        """It still leads, if it did."""
        if self._until_s[0]:
            self.set(for_s)

    def clear(self) -> None:
        """It leads no more."""
        self._until_s[0] = 0.0
