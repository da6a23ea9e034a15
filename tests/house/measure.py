"""Lengths of our functions, and the ratchet that lets them only shrink.

`python tests/house/measure.py` shows the numbers and the longest functions; with `--tighten` it
lowers the ratchet to them. Nothing raises it.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "dusuan"
RATCHET = Path(__file__).with_name("ratchet.json")


class Length(NamedTuple):
    """One function's length in lines, without its docstring and its decorators."""

    lines: int
    where: str


def lengths(source: Path = SOURCE) -> list[Length]:
    """Every function below `source`, longest first."""
    return sorted((each for path in source.rglob("*.py") for each in _in_file(path)), reverse=True)


def _in_file(path: Path) -> Iterator[Length]:
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Length(_lines(node), f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    whole = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is None:
        return whole
    text = node.body[0]
    return whole - ((text.end_lineno or text.lineno) - text.lineno + 1)


def summary(found: list[Length]) -> dict[str, int]:
    """The two numbers of the ratchet: 90 % of functions are at most `p90` lines, all `max`."""
    ordered = sorted(length.lines for length in found)
    return {"max": ordered[-1], "p90": ordered[max(0, -(-len(ordered) * 9 // 10) - 1)]}


def ratchet() -> dict[str, int]:
    """What the numbers may not pass."""
    limits: dict[str, int] = json.loads(RATCHET.read_text("utf-8"))
    return limits


def main(arguments: list[str]) -> None:
    found = lengths()
    now, limits = summary(found), ratchet()
    print(f"{len(found)} functions, now {now}, ratchet {limits}")
    for length in found[:10]:
        print(f"{length.lines:4} {length.where}")
    if "--tighten" in arguments:
        tighter = {name: min(now[name], limits[name]) for name in sorted(limits)}
        RATCHET.write_text(json.dumps(tighter) + "\n", "utf-8")
        print(f"ratchet set to {tighter}")


if __name__ == "__main__":
    main(sys.argv[1:])
