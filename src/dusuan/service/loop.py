"""The live loop: one thread that observes, settles, stops, quotes and schedules, woken by events.

It sleeps until a transaction says that there is something to do (NOTIFY), the engine has news, or
a moment has passed; so a submission starts a job at once. One service leads a database at a time
(`store/leadership.py`); others watch it, and one of them takes over when it dies or freezes.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from dusuan.app import placing, quotes, retention, rounds
from dusuan.app.context import Platform
from dusuan.app.loading import Memory
from dusuan.app.reasons import Reasons
from dusuan.app.recording import Recorder
from dusuan.service.collecting import between_rounds
from dusuan.service.leading import Leading
from dusuan.store.leadership import Leadership, NotOurs, candidate

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the loop sleeps when nothing wakes it, and how patient it is (seconds)."""

    rest_s: float = 0.01  # after a turn: what comes meanwhile is done together
    busy_s: float = 0.25  # jobs are running: their journals grow once a second
    idle_s: float = 2.0
    follower_s: float = 1.0  # between two tries to lead
    retry_s: float = 0.5  # after the database or the engine failed
    beat_s: float = 1.0  # how often a leader shows that it lives
    silence_s: float = 4.0  # how long a leader may be silent before a follower deposes it
    stall_s: float = 60.0  # a turn that takes longer shows nothing any more: it hangs
    session_s: float = 2.0  # how long the loop waits for a session of the database
    chores_s: float = 600.0  # between two sweeps of what is kept for a while only


class Heart:
    """Shows that a leader lives, in a thread of its own: a long turn of the loop is no death.

    It stops when the lead is lost, and when the loop has made no progress for `stall_s`.
    """

    def __init__(self, leadership: Leadership, pace: Pace, leading: Leading) -> None:
        self._leadership = leadership
        self._pace = pace
        self._leading = leading
        self._stopping = threading.Event()
        self._progress_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)
        self.problem: Exception | None = None

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._stopping.set()
        self._thread.join(self._pace.silence_s)

    def progress(self) -> None:
        """The loop has come round. Raises what made the heart stop, if it has."""
        self._progress_s = time.monotonic()
        if self.problem is not None:
            raise self.problem

    def _run(self) -> None:
        while not self._stopping.wait(self._pace.beat_s):
            if time.monotonic() - self._progress_s > self._pace.stall_s:
                continue
            try:
                self._leadership.beat()
                self._leading.renew(self._pace.silence_s)
            except (psycopg.Error, NotOurs) as error:
                self.problem = error
                return


class Chores:
    """Removes what is kept for a while only, in a thread of its own: trees may be large."""

    def __init__(self, platform: Platform, pace: Pace) -> None:
        self._platform = platform
        self._pace = pace
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chores", daemon=True)

    def start(self) -> None:
        """Begin to sweep."""
        self._thread.start()

    def stop(self) -> None:
        """Sweep no more; a tree that is being removed may go on for a moment."""
        self._stopping.set()
        self._thread.join(self._pace.silence_s)

    def _run(self) -> None:
        while not self._stopping.wait(self._pace.chores_s):
            try:
                while not self._stopping.is_set() and retention.sweep(self._platform):
                    pass  # batch by batch
            except Exception:
                log.exception("chores_failed")  # they are done again next time


class Service:
    """The loop of one process. `prepare` runs when it begins to lead, after the database is there.

    `revive` is called when the database cannot be reached, to start it again if it is ours.
    `data_dir` names the data directory that the database has to belong to (`store.leadership`).
    `leading` is where it shows other processes that it leads.
    The loop has connections of its own, so that no crowd at the API can keep it from settling.
    """

    def __init__(
        self,
        platform: Platform,
        prepare: Callable[[], None],
        revive: Callable[[], None],
        pace: Pace | None = None,
        *,
        data_dir: str | None = None,
        leading: Leading | None = None,
    ) -> None:
        self._platform = platform
        self._prepare = prepare
        self._revive = revive
        self._pace = pace or Pace()
        self._data_dir = data_dir
        self._stopping = threading.Event()
        self.leading = leading or Leading()

    def stop(self) -> None:
        """Let `run` return after the step it is in."""
        self._stopping.set()

    def run(self) -> None:
        """Run until `stop`, through failures of the database and the engine."""
        while not self._stopping.is_set():
            try:
                self._compete()
            except (psycopg.OperationalError, PoolTimeout, OSError, NotOurs) as error:
                log.warning("service_interrupted", error=str(error).strip())
                self._pause_and_revive()
            except Exception:
                # A bug must not stop the meter of everybody else: say it, and go on from the
                # database, which holds whole transactions only.
                log.exception("service_step_failed")
                self._pause_and_revive()

    def _pause_and_revive(self) -> None:
        self._stopping.wait(self._pace.retry_s)
        if not self._stopping.is_set():
            with contextlib.suppress(Exception):
                self._revive()

    def _compete(self) -> None:
        """Wait for the lead, and lead until it is lost or we are to stop."""
        store, pace = self._platform.store, self._pace
        with candidate(store.url, self._data_dir, pace.silence_s, time.monotonic) as leadership:
            term = self._win(leadership)
            if term is not None:
                with self._office(leadership, term) as (platform, heart):
                    self._lead(platform, heart)

    def _win(self, leadership: Leadership) -> int | None:
        while (term := leadership.campaign()) is None:
            if self._stopping.wait(self._pace.follower_s):
                return None
        log.info("leading", term=term)
        return term

    @contextlib.contextmanager
    def _office(self, leadership: Leadership, term: int) -> Iterator[tuple[Platform, Heart]]:
        """What a leader has for its term: a pool of sessions, and a heart that beats."""
        heart = Heart(leadership, self._pace, self.leading)
        store = self._platform.store.of_term(term, self._pace.session_s)
        anew = replace(self._platform, recorder=Recorder(), memory=Memory(), reasons=Reasons())
        platform = replace(anew, store=store)
        chores = Chores(platform, self._pace)
        heart.start()
        chores.start()
        try:
            yield platform, heart
        finally:
            self.leading.clear()
            chores.stop()
            heart.stop()
            self.leading.clear()  # its last beat may have come between
            store.close()

    def _lead(self, platform: Platform, heart: Heart) -> None:
        with platform.store.listen() as connection, between_rounds(time.monotonic) as collect:
            self._prepare()
            rounds.recover(platform)
            self.leading.set(self._pace.silence_s)
            while not self._stopping.is_set():
                heart.progress()
                busy = step(platform)
                collect()
                self._stopping.wait(self._pace.rest_s)
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
    started = placing.run_schedule(platform)
    return bool(settled or started or rounds.live(platform))
