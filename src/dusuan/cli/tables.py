"""Tables in files: CSV in, the same rows with more columns out, nothing dropped."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dusuan.cli.failures import usage
from dusuan.core.workload.jobspec import Problem

Row = dict[str, str]
Answer = Callable[[Mapping[str, str]], dict[str, Any] | Problem]
EXTRA = "error"


@dataclass(frozen=True)
class Table:
    """A table that was read: its columns in order, and its rows."""

    columns: tuple[str, ...]
    rows: list[Row]


def read(path: Path, needed: Sequence[str]) -> Table:
    """The table in `path`. Refuses what is no CSV, and one without any column of `needed`."""
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise usage("no_such_file", f"there is no file {path}", "give the path of a CSV") from None
    except (OSError, UnicodeDecodeError) as error:
        raise usage("unreadable", f"{path} cannot be read: {error}", "save it as UTF-8") from None
    csv.field_size_limit(2**20)
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    try:
        rows = [_whole(row) for row in reader]
    except csv.Error as error:
        words = f"{path} line {reader.line_num}: {error}"
        raise usage("not_csv", words, "save it as comma-separated values") from None
    columns = tuple(reader.fieldnames or ())
    missing = [name for name in needed if name not in columns]
    if missing:
        has = ", ".join(columns[:12]) or "nothing"
        words = f"{path} has no column {' or '.join(missing)}; it has {has}"
        raise usage("missing_column", words, f"the first line must name {', '.join(needed)}")
    return Table(columns, rows)


def _whole(row: Mapping[str | None, Any]) -> Row:
    return {name: value for name, value in row.items() if isinstance(name, str)}


def answered(table: Table, answer: Answer, added: Sequence[str]) -> Table:
    """Every row with the columns `added`; where there is no answer, `error` says why."""
    rows = []
    for row in table.rows:
        found = answer(row)
        if isinstance(found, Problem):
            remedy = f" ({found.remedy})" if found.remedy else ""
            extra = dict.fromkeys(added, "") | {EXTRA: f"{found.code}: {found.text}{remedy}"}
        else:
            extra = {name: _cell(found.get(name)) for name in added} | {EXTRA: ""}
        rows.append({**row, **extra})
    kept = tuple(name for name in table.columns if name not in added and name != EXTRA)
    return Table((*kept, *added, EXTRA), rows)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _decimal(value)
    if isinstance(value, list | tuple):
        return "; ".join(str(item) for item in value)
    return str(value)


def _decimal(value: float) -> str:
    """Six significant figures, never in exponents."""
    digits = 5 if value == 0 else max(0, 5 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(digits, 12)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def write(table: Table, path: Path | None) -> None:
    """The table as CSV, to `path` or to stdout."""
    if path is None:
        _lines(table, sys.stdout)
        return
    try:
        with path.open("w", encoding="utf-8", newline="") as stream:
            _lines(table, stream)
    except OSError as error:
        words = f"{path} cannot be written: {error.strerror or error}"
        raise usage("unwritable", words, "choose another place with -o") from None


def _lines(table: Table, stream: Any) -> None:
    made = csv.DictWriter(stream, table.columns, extrasaction="ignore", lineterminator="\n")
    made.writeheader()
    made.writerows(table.rows)


def problems(rows: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """How often each code of a problem stands in the column `error`."""
    counts: dict[str, int] = {}
    for row in rows:
        if row[EXTRA]:
            code = row[EXTRA].split(":", 1)[0]
            counts[code] = counts.get(code, 0) + 1
    return counts
