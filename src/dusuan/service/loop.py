"""The live loop: one thread that observes, settles, stops, quotes and schedules, woken by events.

It sleeps until a transaction says that there is something to do (NOTIFY), the engine has news, or
a moment has passed; so a submission starts a job at once. One service leads a database at a time;
others wait for its lock.
"""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from dusuan.app import quotes, rounds
from dusuan.app.context import Platform

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the loop sleeps when nothing wakes it (seconds)."""

    busy_s: float = 0.25  # jobs are running: their journals grow once a second
    idle_s: float = 2.0
    follower_s: float = 1.0  # between two tries to lead
    retry_s: float = 0.5  # after the database or the engine failed


class Service:
    """The loop of one process. `prepare` runs when it begins to lead, after the database is there.

    `revive` is called when the database cannot be reached, to start it again if it is ours.
    """

    def __init__(
        self,
        platform: Platform,
        prepare: Callable[[], None],
        revive: Callable[[], None],
        pace: Pace | None = None,
    ) -> None:
        self._platform = platform
        self._prepare = prepare
        self._revive = revive
        self._pace = pace or Pace()
        self._stopping = threading.Event()
        self.leading = threading.Event()

    def stop(self) -> None:
        """Let `run` return after the step it is in."""
        self._stopping.set()

    def close(self) -> None:
        """Give the loop's connections back, after `run` has returned."""
        self._platform.store.close()

    def run(self) -> None:
        """Run until `stop`, through failures of the database and the engine."""
        while not self._stopping.is_set():
            try:
                with self._platform.store.listen() as connection:
                    self._lead(connection)
            except (psycopg.OperationalError, PoolTimeout, OSError) as error:
                log.warning("service_interrupted", error=str(error).strip())
                self._pause_and_revive()
            except Exception:
                # A bug must not stop the meter of everybody else: say it, and go on from the
                # database, which holds whole transactions only.
                log.exception("service_step_failed")
                self._pause_and_revive()
            finally:
                self.leading.clear()

    def _pause_and_revive(self) -> None:
        self._stopping.wait(self._pace.retry_s)
        if not self._stopping.is_set():
            with contextlib.suppress(Exception):
                self._revive()

    def _lead(self, connection: psycopg.Connection[Any]) -> None:
        while not self._platform.store.try_lead(connection):
            if self._stopping.wait(self._pace.follower_s):
                return
        self._prepare()
        rounds.recover(self._platform)
        self.leading.set()
        while not self._stopping.is_set():
            busy = step(self._platform)
            self._sleep(connection, self._pace.busy_s if busy else self._pace.idle_s)

    def _sleep(self, connection: psycopg.Connection[Any], seconds: float) -> None:
        engine, news = self._platform.engine, self._platform.engine.fileno()
        sources = [connection.fileno(), *([] if news is None else [news])]
        ready, _, _ = select.select(sources, [], [], seconds)
        if news in ready:
            engine.drain()
        if connection.fileno() in ready:
            for _ in connection.notifies(timeout=0):
                pass  # what was said matters less than that something was


def step(platform: Platform) -> bool:
    """One turn of the loop; whether anything is running that needs watching."""
    # 1. Observe: what the journals say.
    rounds.observe(platform)
    # 2. Stop what was cancelled.
    rounds.stop_cancelled(platform)
    # 3. Settle: post usage, renew leases, close jobs whose attempt has ended.
    settled = rounds.settle(platform)
    # 4. Lapse what has expired in wallets nobody spends from.
    rounds.lapse_expired(platform)
    # 5. Quote: probes that have ended become menus.
    quotes.finish_probed(platform)
    # 6. Schedule: start what can start; every other job gets its reason.
    started = rounds.run_schedule(platform)
    return bool(settled or started or rounds.live(platform))
