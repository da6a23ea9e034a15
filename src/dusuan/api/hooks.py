"""What the API needs of the process it runs in, beside the app's verbs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Hooks:
    """Handed in by the process. Access is checked before any of them is called.

    `calibrate(classes)`: measure the pool (or these classes of work), answer what it shows then.
    `read_log(attempt_id, offset, limit)`: bytes of a job's log, empty at its end.
    `outputs(job_id)`: (relative path, bytes). `open_output(job_id, relative path)`: an open file;
    raises FileNotFoundError. `healthy()`: a document whose `status` is `ok` while all is well.
    `closing()`: whether streams should end because the process does.
    """

    calibrate: Callable[[Sequence[str]], dict[str, Any]]
    read_log: Callable[[str, int, int], bytes]
    outputs: Callable[[str], Sequence[tuple[str, int]]]
    open_output: Callable[[str, str], BinaryIO]
    healthy: Callable[[], dict[str, Any]]
    closing: Callable[[], bool] = _never
