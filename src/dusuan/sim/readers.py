"""Readers of traces: `swf`, `philly-csv`, `helios`, `arrivals`, `azure-llm`, `openb`, `journal`.

Plain or gzip, whatever the name. A file that cannot be used is a `Problem` with its line; rows that
cannot be used (no run time or a negative one, no devices, an id seen before) are counted and noted.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dusuan.core.scheduling.arrays import (
    ANYWHERE,
    FOREVER_MS,
    SPREAD,
    WHOLE,
    Records,
    jobs_array,
)
from dusuan.core.workload.jobspec import Problem
from dusuan.core.workload.quantities import did_you_mean
from dusuan.sim import recorded
from dusuan.sim.files import BadTraceError, Rows, open_text, understood
from dusuan.sim.trace import Trace, move_limits

TIME_S_MAX = 1e11  # times beyond are no times
DEVICES_MAX = 10_000_000
PREFILL_TOKENS_PER_S, DECODE_TOKENS_PER_S = 8_000.0, 40.0  # of one request, for `azure-llm`
_NOTHING = ("", "none", "null", "nan", "nat")  # as Helios writes that there is no value
REQUEST_MILLI = 100  # share of a device that one request takes: ten run in a batch


Reader = Callable[[Path], Rows]
SiteReader = Callable[[Path, Sequence[str]], Rows]


def read(path: Path, form: str, models: Sequence[str] = ()) -> Trace | Problem:
    """The trace at `path` in the format `form`. `models`: the cluster's, where jobs name some."""
    if form not in FORMATS:
        return Problem("unknown_format", f"no format {form!r}", remedy=did_you_mean(form, FORMATS))
    return understood(path, lambda: _trace(path, _rows(path, form, models), form))


def _rows(path: Path, form: str, models: Sequence[str]) -> Rows:
    of_site = OF_SITE.get(form)
    return FORMATS[form](path) if of_site is None else of_site(path, models)


def _number(path: Path, line: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) <= TIME_S_MAX:
        words = f"{path}, line {line}: {name} is {text[:40]!r}"
        raise BadTraceError("bad_value", words, line, "give a number")
    return value


def _ran(path: Path, line: int, name: str, text: str) -> float:
    """A run time; below 0 where the log has none, as for a job that was cancelled before it ran."""
    return -1.0 if text.strip().lower() in _NOTHING else _number(path, line, name, text)


def _moment(path: Path, line: int, name: str, text: str) -> float:
    """Seconds since 1970, of a date and time that without a zone is UTC."""
    try:
        found = datetime.fromisoformat(text.strip()[:26])
    except ValueError:
        words = f"{path}, line {line}: {name} is {text[:40]!r}"
        raise BadTraceError("bad_value", words, line, "give it as 2017-10-09 07:01:55") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


# --- formats ---------------------------------------------------------------------------------


def _swf(path: Path) -> Rows:
    """Standard Workload Format (Feitelson): jobs of supercomputers, which cannot be preempted."""
    rows = Rows(preemptible=False)
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith(";") or not line.strip():
                continue
            values = line.split()
            if len(values) < 12:
                words = f"{path}, line {number}: {len(values)} of 18 fields"
                raise BadTraceError("bad_row", words, number, "is the file cut off?")
            job, submit, _, run, held, _, _, asked, estimate, _, _, user, *_ = (
                _number(path, number, f"field {i + 1}", v) for i, v in enumerate(values[:12])
            )
            devices = int(asked if asked > 0 else held)
            who = {"user": f"{user:.0f}", "account": f"u{user:.0f}"}
            rows.add(f"{job:.0f}", submit, run, devices, estimate=estimate, **who)
    return rows


def _csv(path: Path, wanted: Sequence[str], known: Sequence[str], rows: Rows) -> Iterator[Any]:
    """Rows as (line number, {column: value}). Notes columns that nobody reads."""
    with open_text(path) as lines:
        reader = csv.reader(lines)
        header = [name.strip() for name in next(reader, [])]
        for name in wanted:
            if name not in header:
                words = f"{path} has no column {name!r}"
                raise BadTraceError("missing_column", words, 1, did_you_mean(name, header))
        unread = [name for name in header if name not in (*wanted, *known)]
        rows.notes += [f"column {name!r} is unknown and not used" for name in unread]
        for values in reader:
            if len(values) != len(header):
                words = f"{path}, line {reader.line_num}: {len(values)} of {len(header)} values"
                raise BadTraceError("bad_row", words, reader.line_num, "is the file cut off?")
            yield reader.line_num, dict(zip(header, values, strict=True))


def _philly(path: Path) -> Rows:
    """Microsoft Philly as carried by GAIA's artifacts: training jobs, preemptible."""
    rows = Rows(preemptible=True)
    for line, row in _csv(path, ("timestamp", "duration", "num_gpus"), _PHILLY_MORE, rows):
        cluster = row.get("cluster", "")
        rows.add(
            str(line - 1),
            _moment(path, line, "timestamp", row["timestamp"]),
            _number(path, line, "duration", row["duration"]),
            int(_number(path, line, "num_gpus", row["num_gpus"])),
            user=row.get("user", cluster),
            account=cluster,
        )
    return rows


def _helios(path: Path) -> Rows:
    """SenseTime Helios (cluster_log.csv): training jobs, preemptible; CPU jobs hold no device."""
    rows = Rows(preemptible=True)
    cpus = rows.extra.setdefault("cpu_milli", [])
    for line, row in _csv(path, ("submit_time", "duration", "gpu_num"), _HELIOS_MORE, rows):
        account = row.get("vc") or row.get("queue") or ""
        cpus.append(int(_number(path, line, "cpu_num", row.get("cpu_num") or "0") * 1000))
        rows.add(
            row.get("job_id") or str(line - 1),
            _moment(path, line, "submit_time", row["submit_time"]),
            _ran(path, line, "duration", row["duration"]),
            int(_number(path, line, "gpu_num", row["gpu_num"])),
            user=row.get("user", account),
            account=account,
        )
    return rows


def _arrivals(path: Path) -> Rows:
    """Hours of arrival and length, and a count of devices: GAIA's form of Alibaba PAI."""
    rows = Rows(preemptible=True)
    for line, row in _csv(path, ("arrival_time", "length", "cpus"), _ARRIVALS_MORE, rows):
        estimate = row.get("estimate") or "-1"
        rows.add(
            row.get("id") or str(line - 1),
            _number(path, line, "arrival_time", row["arrival_time"]) * 3600,
            _number(path, line, "length", row["length"]) * 3600,
            int(_number(path, line, "cpus", row["cpus"])),
            estimate=_number(path, line, "estimate", estimate) * 3600,
            user=row.get("user", ""),
            account=row.get("account") or row.get("user", ""),
        )
    return rows


def _azure(path: Path) -> Rows:
    """Requests to a language model: a share of a device for as long as its tokens take."""
    rows = Rows(preemptible=False)
    share = rows.extra.setdefault("milli", [])
    for line, row in _csv(path, _AZURE, (), rows):
        read_tokens = _number(path, line, _AZURE[1], row[_AZURE[1]])
        written = _number(path, line, _AZURE[2], row[_AZURE[2]])
        share.append(REQUEST_MILLI)
        rows.add(
            str(line - 1),
            _moment(path, line, _AZURE[0], row[_AZURE[0]]),
            read_tokens / PREFILL_TOKENS_PER_S + written / DECODE_TOKENS_PER_S,
            1,
        )
    rows.notes.append(_REQUESTS)
    return rows


def _openb(path: Path, models: Sequence[str]) -> Rows:
    """Alibaba cluster-trace-gpu-v2023: pods with their shares of devices, from creation to end."""
    rows = Rows(preemptible=False)
    columns = {name: rows.extra.setdefault(name, []) for name in _OPENB_JOB}
    for line, row in _csv(path, _OPENB, _OPENB_MORE, rows):
        began = row.get("scheduled_time") or row["creation_time"]
        for name in ("cpu_milli", "memory_mib"):
            columns[name].append(int(_number(path, line, name, row[name] or "0")))
        devices = int(_number(path, line, "num_gpu", row["num_gpu"] or "0"))
        columns["milli"].append(int(_number(path, line, "gpu_milli", row["gpu_milli"] or "0")))
        columns["types"].append(_types(row.get("gpu_spec", ""), models))
        created = _number(path, line, "creation_time", row["creation_time"])
        ended = _number(path, line, "deletion_time", row["deletion_time"])
        run = ended - _number(path, line, "scheduled_time", began)
        rows.add(row["name"], created, run, devices, account=row.get("qos", ""))
    return rows


def _types(spec: str, models: Sequence[str]) -> int:
    """The models that `A|B` names, as bits; any when it names none."""
    named = {name for name in spec.split("|") if name}
    bits = sum(1 << i for i, model in enumerate(models) if model in named)
    return bits if named else (1 << 62) - 1


def _journal(path: Path, models: Sequence[str]) -> Rows:
    """Our own log: of decisions that were simulated, or of the rounds of a live service."""
    return recorded.workload(path, models) if recorded.is_record(path) else _decisions(path)


def _decisions(path: Path) -> Rows:
    """The log of a simulation, JSON lines: what was submitted, and how long it ran."""
    rows = Rows(preemptible=True)
    columns = {name: rows.extra.setdefault(name, []) for name in _JOURNAL_JOB}
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            entry = _entry(path, number, line)
            if entry.get("kind") != "submit":
                continue
            for name, column in columns.items():
                column.append(_asked(path, number, entry, name))
            wanted = ("submit_ms", "run_ms", "devices", "estimate_ms")
            submit, run, devices, estimate = (_whole(path, number, entry, n) for n in wanted)
            who = {name: str(entry.get(name, "")) for name in ("user", "account")}
            late = estimate / 1000 if estimate > 0 else -1.0
            job = str(entry.get("job"))
            rows.add(job, submit / 1000, run / 1000, devices, estimate=late, **who)
    return rows


def _entry(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        words = f"{path}, line {number}: this is no JSON"
        raise BadTraceError("bad_row", words, number, "is the file cut off?") from None
    if not isinstance(entry, dict):
        raise BadTraceError("bad_row", f"{path}, line {number}: this is no object", number)
    return entry


def _asked(path: Path, number: int, entry: Mapping[str, Any], name: str) -> int:
    """What a line says of a column of JOB; only a priority can be negative."""
    value = _whole(path, number, entry, name)
    most = _JOURNAL_MOST.get(name, value)
    if value > most or (value < 0 and name != "priority"):
        words = f"{path}, line {number}: {name} is {value}"
        told = f"give 0 to {most}" if name in _JOURNAL_MOST else "give 0 or more"
        raise BadTraceError("bad_value", words, number, told)
    return value


def _whole(path: Path, number: int, entry: Mapping[str, Any], name: str) -> int:
    value = entry.get(name, -1 if name == "estimate_ms" else _JOURNAL_JOB.get(name))
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 1 << 62:
        words = f"{path}, line {number}: {name} is {value!r}"
        raise BadTraceError("bad_value", words, number, "give a whole number")
    return value


_REQUESTS = (
    f"a request takes {REQUEST_MILLI / WHOLE:g} of a device, reads {PREFILL_TOKENS_PER_S:g} "
    f"and writes {DECODE_TOKENS_PER_S:g} tokens a second"
)
_PHILLY_MORE = ("gpu_time", "cluster", "user")
_HELIOS_MORE = (
    *("job_id", "user", "cpu_num", "node_num", "state", "start_time", "end_time", "queue", "vc"),
)
_ARRIVALS_MORE = ("id", "user", "account", "estimate")
_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_OPENB = (
    *("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "creation_time"),
    "deletion_time",
)
_OPENB_MORE = ("gpu_spec", "qos", "pod_phase", "scheduled_time")
_OPENB_JOB = ("cpu_milli", "memory_mib", "milli", "types")
_JOURNAL_JOB: dict[str, int] = {
    "milli": WHOLE,
    "cpu_milli": 0,
    "memory_mib": 0,
    "types": (1 << 62) - 1,
    "rating_gflops": 0,
    "gflops": 0,
    "tier": 0,
    "priority": 0,
    "preemptible": 1,
    "topology": ANYWHERE,
    "earliest_ms": 0,
    "deadline_ms": FOREVER_MS,
}
_JOURNAL_MOST = {"topology": SPREAD, "preemptible": 1}
FORMATS: dict[str, Reader] = {
    "swf": _swf,
    "philly-csv": _philly,
    "helios": _helios,
    "arrivals": _arrivals,
    "azure-llm": _azure,
    "openb": lambda path: _openb(path, ()),
    "journal": lambda path: _journal(path, ()),
}
OF_SITE: dict[str, SiteReader] = {"openb": _openb, "journal": _journal}  # jobs that name a model


# --- rows to arrays ----------------------------------------------------------------------------


def _trace(path: Path, rows: Rows, form: str) -> Trace:
    """The usable rows in the order of submission, from time 0 on."""
    if not rows.submit:
        raise BadTraceError("no_jobs", f"{path} has no jobs", None, "is it cut off?")
    submit, run = np.array(rows.submit), np.array(rows.run)
    devices = np.array(rows.devices, np.int64)
    keep, notes = _usable(rows, submit, run, devices)
    order = np.flatnonzero(keep)
    if (np.diff(submit[order]) < 0).any():
        notes.append("jobs were not in the order of their submission")
    order = order[np.argsort(submit[order], kind="stable")]
    began = float(submit[order[0]]) if len(order) else 0.0
    jobs = _filled(rows, order, submit - began, run)
    move_limits(jobs, -round(began * 1000))
    accounts = _name(jobs, rows, order)
    names = tuple(rows.name[i] for i in order)
    rejected = len(rows.submit) - len(order)
    return Trace(jobs, names, accounts, rejected, tuple(notes), round(began * 1000), {"form": form})


def _filled(rows: Rows, order: Any, submit: Any, run: Any) -> Records:
    """The rows in that order as jobs."""
    jobs = jobs_array(len(order))
    jobs["submit_ms"] = np.rint(submit[order] * 1000)
    jobs["run_ms"] = np.rint(run[order] * 1000)
    jobs["devices"] = np.array(rows.devices, np.int64)[order]
    estimate = np.array(rows.estimate)[order]
    jobs["estimate_ms"] = np.where(estimate > 0, np.rint(estimate * 1000), -1)
    jobs["preemptible"] = rows.preemptible
    for name, values in rows.extra.items():
        jobs[name] = np.array(values, np.int64)[order]
    return jobs


def _usable(rows: Rows, submit: Any, run: Any, devices: Any) -> tuple[Any, list[str]]:
    """Which rows can be used, and notes on those that cannot."""
    notes = list(dict.fromkeys(rows.notes))
    first: dict[str, int] = {}
    again = np.array([first.setdefault(name, i) != i for i, name in enumerate(rows.name)], bool)
    floor = 0 if any("cpu" in name for name in rows.extra) else 1
    shares = np.array(rows.extra.get("milli", [WHOLE] * len(submit)))
    bad = {
        "with an id that was used before": again,
        "with a negative run time or none": run < 0,
        "without a number of devices": (devices < floor) | (devices > DEVICES_MAX),
        "submitted before time began": submit < -TIME_S_MAX,
        "with an impossible share of a device": (devices > 0) & ((shares < 1) | (shares > WHOLE)),
    }
    keep = np.ones(len(submit), bool)
    for words, wrong in bad.items():
        count = int((wrong & keep).sum())
        if count:
            place = rows.name[int(np.flatnonzero(wrong & keep)[0])]
            notes.append(
                f"rejected {count} {'job' if count == 1 else 'jobs'} {words}, the first is {place}"
            )
        keep &= ~wrong
    return keep, notes


def _name(jobs: Records, rows: Rows, order: Any) -> tuple[str, ...]:
    """Number accounts and groups of similar jobs; returns the accounts' names."""
    accounts: dict[str, int] = {}
    groups: dict[tuple[str, int], int] = {}
    for place, i in enumerate(order):
        jobs["account"][place] = accounts.setdefault(rows.account[i] or "all", len(accounts))
    users = [rows.user[i] for i in order]
    asked = [rows.devices[i] for i in order]
    jobs["group"] = [groups.setdefault(key, len(groups)) for key in zip(users, asked, strict=True)]
    return tuple(accounts) or ("all",)
