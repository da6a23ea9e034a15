"""Who gets in, and how often: keys that were looked up a moment ago, and a count of requests.

Used from the event loop alone, so nothing here is locked. A key is looked up again after
`FRESH_S`; until then another process's revocation may not be seen by reads. A revocation by this
process is seen at once, and every write checks the key again in its own transaction.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from dusuan.app.access import Actor, actor_of, find_key, hash_key
from dusuan.app.context import Platform, Rate, Refused, refuse
from dusuan.store.reads import Reads
from dusuan.store.rows import Key

FRESH_S = 1.0
KEPT_MAX = 10_000  # keys, and names with a count: the oldest make room, so nobody fills the memory


@dataclass(frozen=True, slots=True)
class Counted:
    """How a request stands to its rate: whether it goes through, what is left, when to come back.

    `wait_s` is 0.0 for a request that goes through.
    """

    rate: Rate
    left: int
    wait_s: float

    @property
    def headers(self) -> dict[str, str]:
        """As in draft-ietf-httpapi-ratelimit-headers: `q` requests in `w` s, `r` left for `t` s."""
        window_s = math.ceil(self.rate.burst / self.rate.per_s)
        full_s = math.ceil((self.rate.burst - self.left) / self.rate.per_s)
        told = {
            "RateLimit-Policy": f'"requests";q={self.rate.burst};w={window_s}',
            "RateLimit": f'"requests";r={self.left};t={full_s}',
        }
        return told | ({"Retry-After": str(math.ceil(self.wait_s))} if self.wait_s else {})


class TooMany(Exception):
    """A request beyond its rate."""

    def __init__(self, counted: Counted) -> None:
        super().__init__("too many requests")
        self.counted = counted


class Buckets:
    """One token bucket a name; a name that was never seen has a full one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}  # tokens, and when that was true

    def take(self, name: str, rate: Rate) -> Counted:
        """Take one token. Raises `TooMany` when there is none."""
        now_s = self._clock()
        tokens, at_s = self._left.pop(name, (float(rate.burst), now_s))
        tokens = min(float(rate.burst), tokens + (now_s - at_s) * rate.per_s)
        refused = tokens < 1
        if not refused:
            tokens -= 1
        if len(self._left) >= KEPT_MAX:
            del self._left[next(iter(self._left))]
        self._left[name] = tokens, now_s  # last in the order, so that the idle ones go first
        counted = Counted(rate, int(tokens), (1 - tokens) / rate.per_s if refused else 0.0)
        if refused:
            raise TooMany(counted)
        return counted

    def give_back(self, name: str) -> None:
        """Undo a `take` that should not have counted."""
        if name in self._left:
            tokens, at_s = self._left[name]
            self._left[name] = tokens + 1, at_s


class Doorkeeper:
    """Lets requests in by their key, at the rate of that key; counts those without one by address.

    What a stranger may ask of the database is bounded before the database is asked.
    """

    def __init__(
        self, platform: Platform, reads: Reads, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._platform = platform
        self._reads = reads
        self._clock = clock
        self._buckets = Buckets(clock)
        self._known: dict[bytes, tuple[Key, float]] = {}
        self._epoch = 0

    async def admit(self, key: str | None, address: str) -> tuple[Actor, Counted | None]:
        """Whom `key` speaks for. Raises `Refused` unauthenticated, or `TooMany`."""
        row = await self._key(key, address)
        actor = actor_of(row, self._platform.now())
        return actor, self._count(f"key {row.id}", self._platform.limits.key_rate)

    def admit_stranger(self, address: str) -> None:
        """Let in a request that needs no key. Raises `TooMany`."""
        self._count(f"open {address}", self._platform.limits.stranger_rate)

    def forget_keys(self) -> None:
        """Look every key up again, those included that are being looked up now."""
        self._epoch += 1
        self._known.clear()

    def forget(self) -> None:
        """Be as new."""
        self.forget_keys()
        self._buckets = Buckets(self._clock)

    def _count(self, name: str, rate: Rate) -> Counted | None:
        return self._buckets.take(name, rate) if rate.per_s else None

    async def _key(self, key: str | None, address: str) -> Key:
        key_hash = hash_key(key or "")
        row, until_s = self._known.get(key_hash, (None, 0.0))
        if row is not None and self._clock() < until_s:
            return row
        name = f"stranger {address}"
        if row is None:  # a guess, for all we know; one that was good here before is none
            self._count(name, self._platform.limits.stranger_rate)
        if key is None:
            raise _no_key()
        try:
            found = await self._look_up(key_hash)
        except Refused:
            self._known.pop(key_hash, None)
            raise
        if row is None:
            self._buckets.give_back(name)
        return found

    async def _look_up(self, key_hash: bytes) -> Key:
        epoch = self._epoch
        row = await self._reads.look(find_key(key_hash))
        if epoch == self._epoch:  # else it may have been revoked after it was read
            if len(self._known) >= KEPT_MAX:
                del self._known[next(iter(self._known))]
            self._known[key_hash] = row, self._clock() + FRESH_S
        return row


def _no_key() -> Refused:
    return refuse(
        "unauthenticated",
        "no_key",
        "this needs an API key",
        "send `Authorization: Bearer dk_…`; the command line takes it from DUSUAN_API_KEY",
    )
