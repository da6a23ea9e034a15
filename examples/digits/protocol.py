"""The few lines a job needs to work with dusuan; without the platform they do nothing harmful.

The platform sets: `DUSUAN_REPORT` (a file that takes JSON lines), `DUSUAN_OUTPUT_DIR` (results),
`DUSUAN_CHECKPOINT_DIR` (shared by all attempts of the job). By hand, results and checkpoints go
below the current directory and nothing is reported.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

EXIT_SAVED = 75  # EX_TEMPFAIL of sysexits.h: the state is saved, start me again to go on
REPORT_EVERY_S = 0.15


class StopRequest:
    """Set by the first checkpoint signal; the training loop looks at it between steps."""

    def __init__(self) -> None:
        self.signal_name = ""
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        self.signal_name = signal.Signals(number).name

    def __bool__(self) -> bool:
        return bool(self.signal_name)


class Report:
    """Progress and results, one JSON object a line, each written in one piece."""

    def __init__(self) -> None:
        path = os.environ.get("DUSUAN_REPORT")
        self._path = Path(path) if path else None
        self._last_s = float("-inf")

    def progress(self, step: int, total: int, flop: int, *, now: bool = False) -> None:
        """Say how far the job is; calls that come too soon after each other are dropped."""
        clock_s = time.monotonic()
        if now or clock_s - self._last_s >= REPORT_EVERY_S:
            self._last_s = clock_s
            self._write({"progress": [step, total], "flop": flop})

    def result(self, **values: object) -> None:
        """Say what came out, once, at the end."""
        self._write({"result": values})

    def _write(self, line: dict[str, object]) -> None:
        if self._path is None:
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
        finally:
            os.close(descriptor)


def directory(variable: str, default: str) -> Path:
    """The directory that `variable` names, made if it is not there."""
    path = Path(os.environ.get(variable) or default)
    path.mkdir(parents=True, exist_ok=True)
    return path


def log(text: str) -> None:
    """One line to the job's log, at once."""
    print(text, flush=True)
