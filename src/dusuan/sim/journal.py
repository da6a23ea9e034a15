"""The log of decisions as JSON lines, which the reader `journal` takes as a trace again.

One object a line: `kind` and `time_ms` first. `submit` has all that was asked for; `start` has the
node, the numbers of its devices and the share of each; a gang has a line per node.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dusuan.core.scheduling.arrays import (
    DOWN,
    END,
    LOST,
    PREEMPT,
    REJECT,
    RESERVE,
    START,
    SUBMIT,
    UP,
)
from dusuan.sim.run import Outcome
from dusuan.sim.trace import Trace

KINDS = {
    SUBMIT: "submit",
    REJECT: "reject",
    START: "start",
    PREEMPT: "preempt",
    END: "end",
    LOST: "lost",
    DOWN: "down",
    UP: "up",
    RESERVE: "reserve",
}
ASKED = (
    *("submit_ms", "run_ms", "estimate_ms", "devices", "milli", "cpu_milli", "memory_mib"),
    *("types", "rating_gflops", "gflops", "tier", "priority", "preemptible"),
    *("topology", "earliest_ms", "deadline_ms"),
)


def entries(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """The log, line by line, in the order in which it was decided."""
    names = outcome.trace.names
    for line in outcome.lines:
        kind, j = int(line["kind"]), int(line["job"])
        entry: dict[str, Any] = {"kind": KINDS[kind], "time_ms": int(line["time_ms"])}
        if j >= 0:
            entry["job"] = names[j]
        yield entry | _more(outcome.trace, kind, j, line)


def _more(trace: Trace, kind: int, j: int, line: Any) -> dict[str, Any]:
    """What a line of that kind says beside its job and time."""
    node, cause = int(line["node"]), int(line["cause"])
    if kind in (SUBMIT, REJECT):
        return _asked(trace, j)
    if kind == START:
        devices = _numbers(int(line["devices"]))
        return {"node": node, "devices": devices, "milli": int(line["milli"])}
    if kind == PREEMPT:
        return {"for": trace.names[cause]}
    if kind == RESERVE:
        return {"expected_ms": cause}
    return {"node": node, "device": cause} if kind in (DOWN, UP) else {}


def submissions(trace: Trace) -> Iterator[dict[str, Any]]:
    """A trace as the lines that the reader `journal` wants."""
    for j in range(len(trace.names)):
        yield {"kind": "submit", "time_ms": int(trace.jobs["submit_ms"][j]), **_asked(trace, j)}


def _asked(trace: Trace, j: int) -> dict[str, Any]:
    """What job `j` asked for."""
    asked: dict[str, Any] = {name: int(trace.jobs[name][j]) for name in ASKED}
    user = f"g{int(trace.jobs['group'][j])}"
    account = trace.accounts[int(trace.jobs["account"][j])]
    return {"job": trace.names[j], **asked, "user": user, "account": account}


def _numbers(bits: int) -> list[int]:
    return [d for d in range(bits.bit_length()) if bits >> d & 1]


def write_log(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
