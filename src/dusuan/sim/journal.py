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
    *("types", "rating_gflops", "tier", "priority", "preemptible"),
)


def entries(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """The log, line by line, in the order in which it was decided."""
    jobs, names = outcome.state.jobs, outcome.trace.names
    for line in outcome.lines:
        kind, j = int(line["kind"]), int(line["job"])
        entry: dict[str, Any] = {"kind": KINDS[kind], "time_ms": int(line["time_ms"])}
        if j >= 0:
            entry["job"] = names[j]
        if kind in (SUBMIT, REJECT):
            entry |= {name: int(jobs[name][j]) for name in ASKED}
            entry["user"] = f"g{int(jobs['group'][j])}"
            entry["account"] = outcome.trace.accounts[int(jobs["account"][j])]
        elif kind == START:
            entry |= {"node": int(line["node"]), "devices": _numbers(int(line["devices"]))}
            entry["milli"] = int(line["milli"])
        elif kind == PREEMPT:
            entry["for"] = names[int(line["cause"])]
        elif kind == RESERVE:
            entry["expected_ms"] = int(line["cause"])
        elif kind in (DOWN, UP):
            entry |= {"node": int(line["node"]), "device": int(line["cause"])}
        yield entry


def _numbers(bits: int) -> list[int]:
    return [d for d in range(bits.bit_length()) if bits >> d & 1]


def write_log(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
