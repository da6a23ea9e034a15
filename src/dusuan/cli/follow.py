"""Following a job: its log as it is written, beside its meter. Leaving it leaves the job alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import typer
from rich.live import Live
from rich.text import Text

from dusuan.cli import render
from dusuan.cli.client import Event
from dusuan.cli.failures import INTERRUPTED, Failure
from dusuan.cli.session import Session

RECONNECT_S = 15.0
PAUSE_S = 0.5
_BROKEN = ("not_running", "connection_lost", "no_database")


def events(session: Session, path: str, **params: Any) -> Iterator[Event]:
    """Events until `end`, through breaks of the connection: each goes on where it broke off.

    Raises `Failure` when the platform stays away for long.
    """
    last_id, deadline_s = None, time.monotonic() + RECONNECT_S
    while True:
        try:
            for event in session.client.events(path, last_id, **params):
                last_id, deadline_s = event.id or last_id, time.monotonic() + RECONNECT_S
                yield event
                if event.name == "end":
                    return
        except Failure as failure:
            if failure.code not in _BROKEN or time.monotonic() > deadline_s:
                raise
        time.sleep(PAUSE_S)


def follow(session: Session, job_id: str, pulse_s: float | None = None) -> dict[str, Any]:
    """Show a job's log and meter until it has ended; the job then.

    Without a terminal the meter is a line every `pulse_s` seconds, or only the last one.
    """
    try:
        if session.as_json:
            for _ in events(session, f"/v1/jobs/{job_id}/meter"):
                pass
        else:
            _Screen(session, job_id, pulse_s).run()
    except KeyboardInterrupt:
        raise Failure(
            "interrupted",
            f"{job_id} goes on without you",
            f"dusuan logs {job_id} -f follows it again; dusuan cancel {job_id} ends it",
            INTERRUPTED,
        ) from None
    return session.client.get(f"/v1/jobs/{job_id}")


class LogPrinter:
    """A job's log as it comes. On a terminal its colours are kept, and whatever else it may tell
    a terminal to do is not done; elsewhere it goes on as it is, without colours."""

    def __init__(self, session: Session) -> None:
        self._console = session.out
        self._rest = ""

    def write(self, text: str) -> None:
        """Write what is whole lines by now."""
        if not self._console.is_terminal:
            typer.echo(text, nl=False)
            return
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            shown = Text.from_ansi(line)
            harmless = (c if c == "\t" or not render.commands(c) else "�" for c in shown.plain)
            shown.plain = "".join(harmless)
            self._console.print(shown)

    def end(self) -> None:
        """Write what is left of a last line."""
        if self._rest:
            self.write("\n")


class _Screen:
    """Log lines above, the meter below them. Without a terminal: lines, and the last meter."""

    def __init__(self, session: Session, job_id: str, pulse_s: float | None) -> None:
        self._session = session
        self._pulse_s = pulse_s
        self._told_s = time.monotonic()
        self._job_id = job_id
        self._live = Live(console=session.out, transient=True, refresh_per_second=4)
        self._on_terminal = session.out.is_terminal
        self._log = LogPrinter(session)
        self._meter: dict[str, Any] | None = None
        self._waits = ""

    def run(self) -> None:
        thread = threading.Thread(target=self._watch_meter, daemon=True)
        if not self._on_terminal:
            thread.start()
            self._read_log()
        else:
            with self._live:
                thread.start()
                self._read_log()
        thread.join(timeout=3.0)
        if self._meter is not None:
            self._session.err.print(render.meter_line(self._meter), style="dim", markup=False)

    def _read_log(self) -> None:
        for event in events(self._session, f"/v1/jobs/{self._job_id}/logs"):
            if event.name == "log":
                self._log.write(event.data["text"])
        self._log.end()

    def _watch_meter(self) -> None:
        try:
            for event in events(self._session, f"/v1/jobs/{self._job_id}/meter"):
                if event.name == "meter":
                    self._show(event.data)
        except Failure:
            return  # the log's reader meets the same trouble and tells it

    def _show(self, meter: dict[str, Any]) -> None:
        self._meter = meter
        if self._on_terminal:
            self._live.update(Text(render.meter_line(meter), style="cyan"))
            return
        waiting = meter.get("waiting")
        told = "" if not waiting else f"waits ({waiting['code']}): {waiting['text']}"
        if told and told != self._waits:
            self._session.say(told)
        self._waits = told
        if self._pulse_s is not None and time.monotonic() - self._told_s >= self._pulse_s:
            self._told_s = time.monotonic()
            self._session.say(f"  {render.meter_line(meter)}")
