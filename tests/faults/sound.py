"""Whether a platform's books are right, told from its database and its journals alone.

Nothing of the code under test is used: SQL of its own, a reader of journals of its own, and the
rules as a customer would state them.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from tests.faults import strikes

Row = dict[str, Any]

LOSS_MS_MAX = 1_000  # what a journal may never have seen of a job that was killed
SLACK_MS = 900  # a loaded machine between a process and what is observed of it


def assert_sound(
    url: str,
    data: Path,
    *,
    overrun_gflop_max: int = 0,
    loss_ms_max: int = LOSS_MS_MAX,
    cut: Collection[str] = (),
) -> None:
    """Fail, with every reason, unless all the books of the platform on `data` are right.

    `overrun_gflop_max`: how much may have gone to the operator's loss. `loss_ms_max`: how much of a
    job (per device) may be missing from its bill. `cut`: attempts whose journals have lost records
    that had been read before, and say less by now than what is billed.
    """
    books = Books.read(url)
    problems = [
        *tiling(books),
        *bills(books, overrun_gflop_max),
        *journals(books, data, cut),
        *double_entry(books),
        *holds(books),
        *devices(books),
        *jobs(books),
        *leftovers(books, data),
        *reality(books, data, loss_ms_max),
    ]
    assert not problems, "\n".join(problems)


@dataclass
class Books:
    """Every table that matters, in one snapshot."""

    attempt: list[Row]
    usage: list[Row]
    job: list[Row]
    hold: list[Row]
    lot: list[Row]
    lot_use: list[Row]
    entry: list[Row]
    ledger_account: list[Row]
    allocation: list[Row]

    @classmethod
    def read(cls, url: str) -> Books:
        with psycopg.connect(url, row_factory=dict_row) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            names = cls.__dataclass_fields__
            return cls(**{name: connection.execute(_ALL[name]).fetchall() for name in names})


_ALL = {
    name: f"SELECT * FROM {name}".encode()
    for name in ("attempt", "job", "hold", "lot", "lot_use", "entry", "ledger_account")
} | {
    "usage": b"SELECT * FROM usage ORDER BY attempt_id, seq",
    "allocation": b"SELECT * FROM allocation ORDER BY device, from_at, to_at NULLS LAST",
}


def by(rows: Iterable[Row], name: str) -> dict[Any, list[Row]]:
    """Rows grouped by a column."""
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[name]].append(row)
    return groups


def tiling(books: Books) -> list[str]:
    """The bill is continuous: an attempt's intervals follow one another from 0 to its meter."""
    problems = []
    usage = by(books.usage, "attempt_id")
    for attempt in books.attempt:
        end_ms = 0
        for seq, interval in enumerate(usage[attempt["id"]], start=1):
            if interval["seq"] != seq or interval["from_ms"] != end_ms:
                problems.append(f"{attempt['id']}: a gap or overlap at {end_ms} ms: {interval}")
            end_ms = interval["to_ms"]
        if end_ms != attempt["metered_ms"]:
            problems.append(f"{attempt['id']}: billed to {end_ms}, metered {attempt['metered_ms']}")
    return problems


def bills(books: Books, overrun_gflop_max: int) -> list[str]:
    """Nothing is charged twice: what left lots for an attempt is what it held, less the loss."""
    problems, overrun_all = [], 0
    usage, uses = by(books.usage, "attempt_id"), by(books.lot_use, "attempt_id")
    for attempt in books.attempt:
        name = attempt["id"]
        held = attempt["rating_gflops"] * attempt["metered_ms"] // 1_000
        settled = sum(u["settled_gflop"] for u in usage[name])
        overrun = sum(u["overrun_gflop"] for u in usage[name])
        taken = sum(u["gflop"] for u in uses[name])
        if settled + overrun != held or taken != settled:
            problems.append(f"{name}: held {held}, settled {settled}, overrun {overrun}, {taken=}")
        overrun_all += overrun
    if overrun_all > overrun_gflop_max:
        problems.append(f"the operator lost {overrun_all} GFLOP by overrun")
    return problems


def journals(books: Books, data: Path, cut: Collection[str]) -> list[str]:
    """What is billed is what the journal says: all of it once settled, never more."""
    problems = []
    for attempt in books.attempt:
        said_ms = max([r["held_ms"] for r in records(data, attempt["id"])], default=0)
        billed_ms = attempt["metered_ms"]
        wrong = billed_ms > said_ms or (attempt["settled"] and billed_ms != said_ms)
        if wrong and attempt["id"] not in cut:
            problems.append(f"{attempt['id']}: billed {billed_ms} ms, its journal says {said_ms}")
        if billed_ms > attempt["lease_held_ms"]:
            problems.append(f"{attempt['id']}: {billed_ms} ms pass its lease")
    return problems


def records(data: Path, attempt_id: str) -> list[Row]:
    """The whole and undamaged records of a journal."""
    file = data / "engine" / "attempts" / attempt_id / "journal"
    found = []
    for line in file.read_bytes().split(b"\n")[:-1] if file.exists() else []:
        checksum, _, text = line.partition(b" ")
        if checksum == b"%08x" % zlib.crc32(text):
            found.append(json.loads(text))
    return found


def reality(books: Books, data: Path, loss_ms_max: int) -> list[str]:
    """Jobs that leave beats in their output folder say themselves how long they ran.

    Between two beats of one attempt nothing else ran in it. Beats are in seconds since boot.
    """
    problems = []
    for attempt in books.attempt:
        beats = beats_of(data, attempt["job_id"], attempt["number"])
        if not attempt["settled"] or not beats:
            continue
        ran_ms = round((beats[-1] - beats[0]) * 1_000)
        billed_ms = attempt["metered_ms"] // attempt["devices"]
        if not ran_ms - loss_ms_max - SLACK_MS <= billed_ms <= ran_ms + 2 * SLACK_MS:
            problems.append(f"{attempt['id']}: ran {ran_ms} ms, billed {billed_ms} ms")
    return problems


def beats_of(data: Path, job_id: str, number: int) -> list[float]:
    """When an attempt showed that it ran."""
    files = sorted((data / "engine" / "jobs" / job_id / "output").glob("beats.*"))
    if len(files) < number:
        return []
    text = files[number - 1].read_text()
    return [float(line) for line in text.splitlines()]


def double_entry(books: Books) -> list[str]:
    """Debits equal credits; a balance is the sum of its entries and its lots, and never below 0."""
    problems = []
    accounts = {a["id"]: a for a in books.ledger_account}
    for transfer, entries in by(books.entry, "transfer_id").items():
        for unit in ("gflop", "fen"):
            mine = [e for e in entries if accounts[e["account_id"]]["unit"] == unit]
            if sum(e["dr"] for e in mine) != sum(e["cr"] for e in mine):
                problems.append(f"transfer {transfer}: debits are not credits in {unit}")
    entries, lots = by(books.entry, "account_id"), by(books.lot, "wallet_id")
    for account in accounts.values():
        balance = account["posted_cr"] - account["posted_dr"]
        said = sum(e["cr"] - e["dr"] for e in entries[account["id"]])
        if not account["rollup"] and balance != said:
            problems.append(f"{account['path']}: balance {balance}, entries {said}")
        if account["path"].endswith(":wallet"):
            left = sum(lot["remaining_gflop"] for lot in lots[account["id"]])
            if left != balance or balance < account["pending_dr"]:
                problems.append(f"{account['path']}: {balance=}, lots {left}, {account=}")
    return problems


def holds(books: Books) -> list[str]:
    """A hold resolves once; what is pending is what is open; only what may run has one open."""
    problems = []
    pending: dict[int, int] = defaultdict(int)
    ended = {job["id"] for job in books.job if job["finished_at"] is not None}
    for job_id, each in by(books.hold, "job_id").items():
        unresolved = [h for h in each if h["resolved_at"] is None]
        if len(unresolved) > 1 or (unresolved and job_id in ended):
            problems.append(f"{job_id}: {len(unresolved)} open holds")
        for hold in unresolved:
            for account in (hold["wallet_id"], *hold["limit_ids"]):
                pending[account] += hold["reserved_gflop"]
    wrong = [a for a in books.ledger_account if a["pending_dr"] != pending[a["id"]]]
    return problems + [f"{account['path']}: pending {account['pending_dr']}" for account in wrong]


def devices(books: Books) -> list[str]:
    """No device has two holders at once."""
    problems = []
    for device, each in by(books.allocation, "device").items():
        for before, after in itertools.pairwise(each):
            if before["to_at"] is None or before["to_at"] > after["from_at"]:
                problems.append(f"{device}: {before['attempt_id']} and {after['attempt_id']}")
    return problems


def jobs(books: Books) -> list[str]:
    """A job has at most one attempt that has not ended, and none when it has ended itself."""
    problems = []
    attempts = by(books.attempt, "job_id")
    for job in books.job:
        live = [a["id"] for a in attempts[job["id"]] if a["state"] != "ended"]
        if len(live) > (0 if job["finished_at"] else 1):
            problems.append(f"{job['id']} is {job['state']}, but {live} live")
    return problems


def leftovers(books: Books, data: Path) -> list[str]:
    """Nothing of an attempt that has ended still runs."""
    problems = []
    ended = {a["id"] for a in books.attempt if a["state"] == "ended"}
    for pid in strikes.everything(data):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        names = {v.partition(b"=")[2].decode() for v in environment if b"DUSUAN_ATTEMPT=" in v}
        problems += [f"process {pid} of {name} still runs" for name in names & ended]
    return problems
