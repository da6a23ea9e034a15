"""Files that are read, and what their readers collect; what is wrong with one is a `Problem`.

Plain or gzip, whatever the name.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeVar

from dusuan.core.workload.jobspec import Problem

T = TypeVar("T")


class BadTraceError(Exception):
    """A file that cannot be used; becomes a `Problem` in `understood`."""

    def __init__(self, code: str, text: str, line: int | None = None, remedy: str = "") -> None:
        super().__init__(text)
        self.problem = Problem(code, text, line, remedy)


@dataclass(slots=True)
class Rows:
    """What a reader collects. Times in seconds; `user` and `account` are names."""

    preemptible: bool
    name: list[str] = field(default_factory=list)
    submit: list[float] = field(default_factory=list)
    run: list[float] = field(default_factory=list)
    devices: list[int] = field(default_factory=list)
    estimate: list[float] = field(default_factory=list)
    user: list[str] = field(default_factory=list)
    account: list[str] = field(default_factory=list)
    extra: dict[str, list[int]] = field(default_factory=dict)  # further columns of JOB
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, submit: float, run: float, devices: int, **more: Any) -> None:
        """One row; `more` is its estimate, user and account."""
        self.name.append(name)
        self.submit.append(submit)
        self.run.append(run)
        self.devices.append(devices)
        self.estimate.append(more.get("estimate", -1.0))
        self.user.append(more.get("user", ""))
        self.account.append(more.get("account", ""))


def understood(path: Path, read: Callable[[], T]) -> T | Problem:
    """What `read` makes of the file at `path`, or why that cannot be."""
    try:
        return read()
    except BadTraceError as bad:
        return bad.problem
    except FileNotFoundError:
        return Problem("no_such_file", f"{path} does not exist", remedy="check its path")
    except (OSError, EOFError, zlib.error) as failed:
        text = f"{path} cannot be read to its end: {failed}"
        return Problem("unreadable", text, remedy="is it cut off? fetch it again")
    except (UnicodeDecodeError, csv.Error) as failed:
        return Problem("not_text", f"{path} is no text: {failed}", remedy="plain or gzip text")


def open_text(path: Path) -> TextIO:
    """The file as text, unpacked when it is gzip."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open("r", encoding="utf-8-sig", newline="")
