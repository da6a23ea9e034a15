"""A tree of accounts with quotas for a simulation, from a CSV file.

Columns: `account`, and where they are known `parent`, `weight`, `quota`, `borrow` and `lend`, these
three in devices. An empty field is no guarantee or no limit. Accounts of the trace that the file
does not name have none; those that only the file names may stand above others.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dusuan.core.scheduling.accounts import Records, accounts_array, rooted
from dusuan.core.scheduling.arrays import WHOLE
from dusuan.core.workload.jobspec import Problem

COLUMNS = ("account", "parent", "weight", "quota", "borrow", "lend")
_MOST = 1e9
Rows = Sequence[tuple[int, Mapping[str, str]]]


def read_accounts(path: Path, names: Sequence[str]) -> Records | Problem:
    """The accounts `names` of a trace first, then those that only the file has: ACCOUNT[A]."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
            problem = _columns(path, reader.fieldnames or ())
    except FileNotFoundError:
        return Problem("no_such_file", f"{path} does not exist", remedy="check its path")
    except (OSError, UnicodeDecodeError, csv.Error) as failed:
        return Problem("unreadable", f"{path} cannot be read: {failed}", remedy="write it as CSV")
    return problem or _tree(path, rows, names)


def _columns(path: Path, found: Iterable[str]) -> Problem | None:
    strange = [name for name in found if name not in COLUMNS]
    if strange or "account" not in found:
        text = f"{path} has a column {strange[0]!r}" if strange else f"{path} has no column account"
        return Problem("bad_accounts", text, 1, f"known columns: {', '.join(COLUMNS)}")
    return None


def _tree(path: Path, rows: Rows, names: Sequence[str]) -> Records | Problem:
    """The accounts by number, with their parents."""
    place = {name: i for i, name in enumerate(names)}
    known: dict[str, int] = {}
    for line, row in rows:
        name = row["account"]
        if not name or name in known:
            text = (
                f"{path}, line {line}: account {name!r} {'is there twice' if name else 'is empty'}"
            )
            return Problem("bad_accounts", text, line, "give each account one line")
        known[name] = place.setdefault(name, len(place))
    found = accounts_array(len(place))
    for line, row in rows:
        problem = _fill(found[known[row["account"]]], row, place, f"{path}, line {line}", line)
        if problem is not None:
            return problem
    try:
        rooted(found)
    except ValueError as failed:
        return Problem("bad_accounts", f"{path}: {failed}", remedy="an account has one parent")
    return found


def _fill(
    account: Records, row: Mapping[str, str], place: Mapping[str, int], where: str, line: int
) -> Problem | None:
    """Write one line of the file into its account."""
    parent = row.get("parent") or ""
    if parent and parent not in place:
        text = f"{where}: parent {parent!r} is no account"
        return Problem("bad_accounts", text, line, "give it a line of its own")
    account["parent"] = place[parent] if parent else -1
    for name in ("weight", "quota", "borrow", "lend"):
        text = row.get(name) or ""
        value = _number(text)
        if text and (value is None or (name == "weight" and value == 0)):
            told = f"{where}: {name} is {text[:40]!r}"
            return Problem("bad_value", told, line, "give a number of 0 or more, or nothing")
        if value is not None:
            account[name if name == "weight" else f"{name}_milli"] = (
                value if name == "weight" else round(value * WHOLE)
            )
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= _MOST else None
