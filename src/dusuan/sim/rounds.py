"""The file of a recorded log of live rounds, line by line: a header, rounds without a gap, an end.

`core/scheduling/record.py` says what a round's line holds. What is wrong with a file is raised as
`BadTraceError`, with its line and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dusuan.core.plain import NotPlain, from_plain
from dusuan.core.scheduling.record import FORMAT, VERSION, Entry, unheld
from dusuan.sim.files import BadTraceError, open_text

HOW = "write one: dusuan sim record --out FILE"
AGAIN = "is it cut off, or edited? record it again: dusuan sim record --out FILE"


def entries(path: Path) -> Iterator[tuple[int, Entry]]:
    """Every round of the file with the number of its line, the first with the whole sight."""
    last = number = rounds = 0
    done: dict[str, Any] | None = None
    for number, document in _documents(path):
        if number == 1:
            _check_header(path, document)
            continue
        if done is not None:
            raise BadTraceError("bad_row", f"{path} goes on after its last line", number, AGAIN)
        if document.get("kind") == "end":
            done = document
            continue
        entry = _entry(path, number, document)
        _check_order(path, number, entry, last)
        last, rounds = entry.n, rounds + 1
        yield number, entry
    _check_end(path, number, done, rounds, last)


def _documents(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            yield number, _document(path, number, line)


def _document(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        return document
    if number == 1:
        raise BadTraceError("not_a_record", f"{path} is no record of live rounds", 1, HOW)
    cut = (
        "the file ends in the middle of this line" if not line.endswith("\n") else "no JSON object"
    )
    raise BadTraceError("bad_row", f"{path}, line {number}: {cut}", number, AGAIN)


def is_header(document: Any) -> bool:
    """Whether a first line is that of a record of rounds, of any version."""
    return isinstance(document, dict) and document.get("format") == FORMAT


def _check_header(path: Path, document: dict[str, Any]) -> None:
    if not is_header(document):
        raise BadTraceError("not_a_record", f"{path} is no record of live rounds", 1, HOW)
    version = document.get("version")
    if version != VERSION:
        by = str(document.get("software") or "another version")[:40]
        words = f"{path} is a record of version {str(version)[:20]}; this program reads {VERSION}"
        raise BadTraceError("wrong_version", words, 1, f"read it with the dusuan it is of: {by}")


def _entry(path: Path, number: int, document: dict[str, Any]) -> Entry:
    if document.get("kind") != "round":
        words = f"{path}, line {number}: no round, but {str(document.get('kind'))[:40]!r}"
        raise BadTraceError("bad_row", words, number, AGAIN)
    try:
        found: Entry = from_plain(Entry, {k: v for k, v in document.items() if k != "kind"})
    except NotPlain as wrong:
        raise BadTraceError("bad_row", f"{path}, line {number}: {wrong}", number, AGAIN) from None
    return found if found.whole is None else replace(found, whole=unheld(found.whole))


def _check_order(path: Path, number: int, entry: Entry, last: int) -> None:
    at = f"{path}, line {number}"
    if last == 0 and entry.whole is None and entry.lost is None:
        words = f"{at}: the first round does not say what it saw as a whole; lines are missing"
        raise BadTraceError("gap", words, number, AGAIN)
    if last and entry.n <= last:
        words = f"{at}: round {entry.n} stands after round {last}"
        raise BadTraceError("out_of_order", words, number, AGAIN)
    if last and entry.n > last + 1:
        missing = f"{last + 1} to {entry.n - 1}" if entry.n > last + 2 else f"{last + 1}"
        words = f"{at}: round {missing} is missing, so nothing after it can be compared"
        raise BadTraceError("gap", words, number, AGAIN)


def _check_end(
    path: Path, number: int, done: dict[str, Any] | None, rounds: int, last: int
) -> None:
    if number == 0:
        raise BadTraceError("empty", f"{path} is empty", None, HOW)
    if done is None:
        words = f"{path} ends after round {last}, without its last line"
        raise BadTraceError("truncated", words, number, AGAIN)
    if done.get("rounds") != rounds:
        words = f"{path} says that it has {str(done.get('rounds'))[:20]} rounds, and has {rounds}"
        raise BadTraceError("gap", words, number, AGAIN)
    if rounds == 0:
        words = f"{path} holds no round: nothing was decided in that time"
        raise BadTraceError("no_rounds", words, number, "record a longer time: --since, --until")
